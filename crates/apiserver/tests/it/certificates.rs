//! Certificate signing requests as the API knows them, before any controller sees them.

use std::collections::BTreeSet;

use auth::Identity;
use auth::certificate::{self, Subject, Usage};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const MERGE: &str = "application/merge-patch+json";

fn request(signer: &str) -> Value {
    let subject = Subject {
        common_name: "e2e.example.com",
        organizations: &[],
        hosts: BTreeSet::from(["e2e.example.com".to_owned()]),
        usage: Usage::Server,
    };
    let (pem, _) = certificate::request(&subject).unwrap();
    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "e2e-example-csr-"},
        "spec": {"request": STANDARD.encode(pem), "signerName": signer, "expirationSeconds": 3600,
            "usages": ["digital signature", "key encipherment", "server auth"]}})
}

#[tokio::test]
async fn all_operations_work_as_the_suite_expects() {
    let cluster = Cluster::start().await;
    let signer = "example.com/e2e-test";
    let found = cluster.get("/apis/certificates.k8s.io/v1").await.unwrap();
    let names: Vec<&str> = found["resources"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    for part in ["", "/approval", "/status"] {
        assert!(
            names.contains(&format!("certificatesigningrequests{part}").as_str()),
            "{names:?}"
        );
    }
    for _ in 0..2 {
        cluster.post(REQUESTS, request(signer)).await.unwrap();
    }
    // Who asks is not for him to say.
    let mut named = request(signer);
    named["spec"]["username"] = "somebody".into();
    let made = cluster.post(REQUESTS, named).await.unwrap();
    assert_eq!(made["spec"]["username"], "admin");
    let path = format!("{REQUESTS}/{}", made["metadata"]["name"].as_str().unwrap());
    let listed = format!("{REQUESTS}?fieldSelector=spec.signerName%3D{signer}");
    let count = async || {
        cluster.get(&listed).await.unwrap()["items"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(count().await, 3);
    let patch = async |path: &str, body: Value| {
        let body = body.to_string().into_bytes();
        cluster.client.patch_value(path, MERGE, body).await.unwrap()
    };
    let patched = patch(
        &path,
        json!({"metadata": {"annotations": {"patched": "true"}}}),
    )
    .await;
    assert_eq!(patched["metadata"]["annotations"]["patched"], "true");

    let approval = format!("{path}/approval");
    assert_eq!(
        cluster.get(&approval).await.unwrap()["kind"],
        "CertificateSigningRequest"
    );
    let same = cluster.get(&path).await.unwrap();
    let same = cluster.put(&approval, &same).await.unwrap();
    assert_eq!(same["status"].get("conditions"), None);
    let body = json!({"metadata": {"annotations": {"patchedapproval": "true"}},
        "status": {"conditions": [{"type": "ApprovalPatch", "status": "True", "reason": "e2e"}]}});
    let mut patched = patch(&approval, body).await;
    assert_eq!(patched["status"]["conditions"][0]["type"], "ApprovalPatch");
    assert_eq!(
        patched["metadata"]["annotations"]["patchedapproval"],
        "true"
    );
    let approved = json!({"type": "Approved", "status": "True", "reason": "E2E", "message": "x"});
    patched["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .push(approved);
    let updated = cluster.put(&approval, &patched).await.unwrap();
    assert_eq!(updated["status"]["conditions"][1]["type"], "Approved");

    let status = format!("{path}/status");
    let authority = STANDARD.encode(cluster.pki.ca_pem());
    let body = json!({"metadata": {"annotations": {"patchedstatus": "true"}},
        "status": {"certificate": authority}});
    let mut patched = patch(&status, body).await;
    assert_eq!(patched["status"]["certificate"], authority);
    assert_eq!(patched["metadata"]["annotations"]["patchedstatus"], "true");
    let more = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E"});
    patched["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .push(more);
    let updated = cluster.put(&status, &patched).await.unwrap();
    assert_eq!(updated["status"]["conditions"].as_array().unwrap().len(), 3);

    cluster.client.delete_value(&path, None).await.unwrap();
    assert_eq!(cluster.get(&path).await.unwrap_err().code, 404);
    assert_eq!(count().await, 2);
    cluster.client.delete_value(&listed, None).await.unwrap();
    assert_eq!(count().await, 0);
    cluster.stop().await;
}

#[tokio::test]
async fn decisions_need_the_right_for_the_signer() {
    let cluster = Cluster::start().await;
    let made = cluster
        .post(REQUESTS, request("example.com/mine"))
        .await
        .unwrap();
    let name = made["metadata"]["name"].as_str().unwrap().to_owned();
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    let group = "certificates.k8s.io";
    let mut rules = vec![json!({"apiGroups": [group], "verbs": ["*"],
        "resources": ["certificatesigningrequests", "certificatesigningrequests/approval",
            "certificatesigningrequests/status"]})];
    let role = json!({"metadata": {"name": "approver"}, "rules": rules});
    cluster.post(roles, role).await.unwrap();
    let binding = json!({"metadata": {"name": "approver"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "approver"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]});
    cluster.post(bindings, binding).await.unwrap();
    let jane = cluster.server.client(Identity::user("jane", &[]));
    let mut approved = made.clone();
    approved["status"]["conditions"] =
        json!([{"type": "Approved", "status": "True", "reason": "Test"}]);
    let path = format!("{REQUESTS}/{name}/approval");
    let refused = jane
        .send_value(Method::PUT, &path, &approved)
        .await
        .unwrap_err();
    assert_eq!(
        refused.message,
        format!(
            "certificatesigningrequests.certificates.k8s.io {name:?} is forbidden: user not \
             permitted to approve requests with signerName \"example.com/mine\""
        )
    );
    rules.push(
        json!({"apiGroups": [group], "resources": ["signers"], "verbs": ["approve"],
        "resourceNames": ["example.com/*"]}),
    );
    let role = json!({"metadata": {"name": "approver"}, "rules": rules});
    cluster
        .put(&format!("{roles}/approver"), &role)
        .await
        .unwrap();
    jane.send_value(Method::PUT, &path, &approved)
        .await
        .unwrap();
    let status = format!("{REQUESTS}/{name}/status");
    let mut signed = cluster.get(&status).await.unwrap();
    signed["status"]["certificate"] = STANDARD.encode(cluster.pki.ca_pem()).into();
    let refused = jane
        .send_value(Method::PUT, &status, &signed)
        .await
        .unwrap_err();
    assert!(
        refused.message.contains("not permitted to sign"),
        "{}",
        refused.message
    );
    cluster.stop().await;
}
