//! Certificate signing requests, token secrets and bootstrap tokens, from asking to cleaning up.

use std::collections::BTreeSet;

use auth::certificate::{self, Subject, Usage, facts};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::world::World;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

fn request(name: &str, signer: &str, user: &str, groups: &[&str], usages: &[&str]) -> Value {
    let subject = Subject {
        common_name: user,
        organizations: groups,
        hosts: BTreeSet::new(),
        usage: Usage::Client,
    };
    let (pem, _) = certificate::request(&subject).unwrap();
    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {"request": STANDARD.encode(pem), "signerName": signer, "usages": usages,
            "expirationSeconds": 3600}})
}

fn issued(request: &Value) -> Option<String> {
    let encoded = request["status"]["certificate"].as_str()?;
    String::from_utf8(STANDARD.decode(encoded).unwrap()).ok()
}

const CLIENT: &[&str] = &["digital signature", "client auth"];

#[tokio::test]
async fn approved_requests_are_answered_and_wrong_ones_fail() {
    let world = World::start().await;
    let signer = "kubernetes.io/kube-apiserver-client";
    let asked = world
        .post(REQUESTS, request("jane", signer, "jane", &["dev"], CLIENT))
        .await;
    assert_eq!(asked["spec"]["username"], "admin");
    assert!(
        asked["spec"]["groups"]
            .as_array()
            .unwrap()
            .contains(&json!("system:masters"))
    );
    let approve = |mut asked: Value| {
        asked["status"]["conditions"] =
            json!([{"type": "Approved", "status": "True", "reason": "Test", "message": ""}]);
        asked
    };
    world
        .put(&format!("{REQUESTS}/jane/approval"), approve(asked))
        .await;
    let path = format!("{REQUESTS}/jane");
    let answered = world
        .until(&path, |one| one.is_some_and(|one| issued(one).is_some()))
        .await;
    let made = facts(&issued(&answered).unwrap()).unwrap();
    assert_eq!(
        (made.common_name.as_str(), made.organizations[0].as_str()),
        ("jane", "dev")
    );
    assert!(made.not_after - made.not_before <= 3900);
    let wrong = request("server", signer, "jane", &[], &["server auth"]);
    let asked = world.post(REQUESTS, wrong).await;
    world
        .put(&format!("{REQUESTS}/server/approval"), approve(asked))
        .await;
    let failed = |one: &Value| one["status"]["conditions"][1]["type"] == "Failed";
    let path = format!("{REQUESTS}/server");
    let answered = world.until(&path, |one| one.is_some_and(failed)).await;
    assert_eq!(
        answered["status"]["conditions"][1]["message"],
        "invalid usage for client certificate: server auth"
    );
    // Superusers are not made this way.
    let root = request("root", signer, "root", &["system:masters"], CLIENT);
    let refused = world.try_post(REQUESTS, root).await.unwrap_err();
    assert_eq!(
        refused.message,
        "certificatesigningrequests.certificates.k8s.io \"root\" is forbidden: use of \
         kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    );
    world.stop().await;
}

#[tokio::test]
async fn kubelets_are_approved_where_rights_say_so() {
    let world = World::start().await;
    let asked = request(
        "node",
        "kubernetes.io/kube-apiserver-client-kubelet",
        "system:node:a",
        &["system:nodes"],
        CLIENT,
    );
    // The administrator may do everything, so his request for a node is as good as approved.
    world.post(REQUESTS, asked).await;
    let path = format!("{REQUESTS}/node");
    let answered = world
        .until(&path, |one| one.is_some_and(|one| issued(one).is_some()))
        .await;
    let approved = &answered["status"]["conditions"][0];
    assert_eq!(
        (&approved["type"], &approved["reason"]),
        (&json!("Approved"), &json!("AutoApproved"))
    );
    assert_eq!(
        facts(&issued(&answered).unwrap()).unwrap().common_name,
        "system:node:a"
    );
    world.stop().await;
}

#[tokio::test]
async fn token_secrets_are_filled_and_go_with_their_account() {
    let world = World::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    world
        .post(accounts, json!({"metadata": {"name": "robot"}}))
        .await;
    let secret = |name: &str, account: &str| {
        json!({"metadata": {"name": name,
            "annotations": {"kubernetes.io/service-account.name": account}},
            "type": "kubernetes.io/service-account-token"})
    };
    world.post(SECRETS, secret("robot-token", "robot")).await;
    let path = format!("{SECRETS}/robot-token");
    let filled = |one: &Value| one["data"]["token"].is_string();
    let made = world.until(&path, |one| one.is_some_and(filled)).await;
    assert_eq!(made["data"]["namespace"], STANDARD.encode("default"));
    assert_eq!(
        made["data"]["ca.crt"],
        STANDARD.encode("-----BEGIN CERTIFICATE-----")
    );
    let token = STANDARD
        .decode(made["data"]["token"].as_str().unwrap())
        .unwrap();
    let review = json!({"spec": {"token": String::from_utf8(token).unwrap()}});
    let review = world
        .post("/apis/authentication.k8s.io/v1/tokenreviews", review)
        .await;
    assert_eq!(
        review["status"]["user"]["username"],
        "system:serviceaccount:default:robot"
    );
    // Its use is recorded on the secret.
    let used =
        |one: &Value| one["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].is_string();
    world.until(&path, |one| one.is_some_and(used)).await;
    world.post(SECRETS, secret("orphan", "nobody")).await;
    world.until_gone(&format!("{SECRETS}/orphan")).await;
    world
        .delete(&format!("{accounts}/robot"), "Background")
        .await;
    world.until_gone(&path).await;
    world.stop().await;
}

#[tokio::test]
async fn bootstrap_tokens_sign_cluster_info_until_they_expire() {
    let world = World::start().await;
    let info = json!({"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": "here"}});
    world
        .post("/api/v1/namespaces/kube-public/configmaps", info)
        .await;
    let token = |id: &str, end: &str| {
        json!({"metadata": {"name": format!("bootstrap-token-{id}")},
            "type": "bootstrap.kubernetes.io/token",
            "stringData": {"token-id": id, "token-secret": "0123456789abcdef",
                "expiration": end, "usage-bootstrap-signing": "true",
                "usage-bootstrap-authentication": "true"}})
    };
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    world
        .post(secrets, token("abcdef", "2099-01-01T00:00:00Z"))
        .await;
    world
        .post(secrets, token("000000", "2020-01-01T00:00:00Z"))
        .await;
    let path = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
    let signed = |one: &Value| one["data"]["jws-kubeconfig-abcdef"].is_string();
    let info = world.until(path, |one| one.is_some_and(signed)).await;
    let wanted = auth::bootstrap_token::detached_signature("here", "abcdef", "0123456789abcdef");
    assert_eq!(info["data"]["jws-kubeconfig-abcdef"], wanted);
    assert!(info["data"]["jws-kubeconfig-000000"].is_null());
    world
        .until_gone(&format!("{secrets}/bootstrap-token-000000"))
        .await;
    let review = json!({"spec": {"token": "abcdef.0123456789abcdef"}});
    let review = world
        .post("/apis/authentication.k8s.io/v1/tokenreviews", review)
        .await;
    assert_eq!(
        review["status"]["user"]["username"], "system:bootstrap:abcdef",
        "{review}"
    );
    world
        .delete(&format!("{secrets}/bootstrap-token-abcdef"), "Background")
        .await;
    world
        .until(path, |one| one.is_some_and(|one| !signed(one)))
        .await;
    world.stop().await;
}
