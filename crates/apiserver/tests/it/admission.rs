//! Identities, rights, reviews, tokens.

use auth::Identity;
use http::Method;
use serde_json::json;

use crate::cluster::{CONFIG_MAPS, Cluster, PODS};

#[tokio::test]
async fn rights_are_asked_for() {
    let cluster = Cluster::start().await;
    let jane = cluster.server.client(Identity::user("jane", &[]));
    let refused = jane.get_value(PODS).await.unwrap_err();
    assert_eq!(
        refused.message,
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the \
         namespace \"default\""
    );
    let binding = json!({"metadata": {"name": "jane"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]});
    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    cluster.post(path, binding).await.unwrap();
    jane.get_value(PODS).await.unwrap();
    let body = json!({"metadata": {"name": "a"}});
    assert_eq!(
        jane.send_value(Method::POST, CONFIG_MAPS, &body)
            .await
            .unwrap_err()
            .code,
        403
    );
    let review = json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods",
        "namespace": "default"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = jane.send_value(Method::POST, path, &review).await.unwrap();
    assert_eq!(answer["status"]["allowed"], true, "{answer}");
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer = jane
        .send_value(Method::POST, path, &json!({}))
        .await
        .unwrap();
    assert_eq!(answer["status"]["userInfo"]["username"], "jane");
    cluster.stop().await;
}

#[tokio::test]
async fn a_token_says_who_one_is() {
    let cluster = Cluster::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cluster
        .post(accounts, json!({"metadata": {"name": "robot"}}))
        .await
        .unwrap();
    let path = format!("{accounts}/robot/token");
    let request = json!({"spec": {"expirationSeconds": 600}});
    let answer = cluster.post(&path, request).await.unwrap();
    let token = answer["status"]["token"].as_str().unwrap();
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let review = cluster
        .post(path, json!({"spec": {"token": token}}))
        .await
        .unwrap();
    assert_eq!(
        review["status"]["user"]["username"], "system:serviceaccount:default:robot",
        "{review}"
    );
    let short = json!({"spec": {"expirationSeconds": 5}});
    let refused = cluster
        .post(&format!("{accounts}/robot/token"), short)
        .await
        .unwrap_err();
    assert_eq!(refused.code, 422);
    cluster.stop().await;
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces";
    cluster
        .post(path, json!({"metadata": {"name": "x"}}))
        .await
        .unwrap();
    let own = "/api/v1/namespaces/x";
    let leaving = cluster.client.delete_value(own, None).await.unwrap();
    assert_eq!(leaving["status"]["phase"], "Terminating");
    let refused = cluster
        .post(
            "/api/v1/namespaces/x/configmaps",
            json!({"metadata": {"name": "a"}}),
        )
        .await
        .unwrap_err();
    assert_eq!(refused.code, 403, "{refused:?}");
    let mut done = cluster.get(own).await.unwrap();
    done["spec"]["finalizers"] = json!([]);
    cluster
        .put(&format!("{own}/finalize"), &done)
        .await
        .unwrap();
    assert!(cluster.get(own).await.unwrap_err().is_not_found());
    cluster.stop().await;
}

#[tokio::test]
async fn an_eviction_respects_the_budget() {
    let cluster = Cluster::start().await;
    let account = json!({"metadata": {"name": "default"}});
    cluster
        .post("/api/v1/namespaces/default/serviceaccounts", account)
        .await
        .unwrap();
    let path = format!("{PODS}/a");
    cluster.post(PODS, crate::cluster::pod("a")).await.unwrap();
    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}});
    cluster
        .post(&format!("{path}/binding"), binding)
        .await
        .unwrap();
    let merge = "application/merge-patch+json";
    let running = json!({"status": {"phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}]}});
    let status = format!("{path}/status");
    let body = running.to_string().into_bytes();
    cluster
        .client
        .patch_value(&status, merge, body)
        .await
        .unwrap();
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1,
        "selector": {"matchLabels": {"app": "a"}}}});
    cluster.post(budgets, budget).await.unwrap();
    let eviction = || json!({"metadata": {"name": "a"}});
    let evict = format!("{path}/eviction");
    let early = cluster.post(&evict, eviction()).await.unwrap_err();
    assert_eq!((early.code, early.retry_after_seconds), (429, Some(10)));
    let allow = |count: u8| {
        json!({"status": {"observedGeneration": 1, "currentHealthy": 1,
        "desiredHealthy": 1, "expectedPods": 1, "disruptionsAllowed": count}})
    };
    let set = |count| {
        let (client, path) = (cluster.client.clone(), format!("{budgets}/b/status"));
        async move {
            let body = allow(count).to_string().into_bytes();
            client.patch_value(&path, merge, body).await.unwrap();
        }
    };
    set(0).await;
    let refused = cluster.post(&evict, eviction()).await.unwrap_err();
    assert_eq!(
        (refused.message.as_str(), refused.causes[0].message.as_str()),
        (
            "Cannot evict pod as it would violate the pod's disruption budget.",
            "The disruption budget b needs 1 healthy pods and has 1 currently"
        )
    );
    set(1).await;
    cluster.post(&evict, eviction()).await.unwrap();
    let leaving = cluster.get(&path).await.unwrap();
    assert!(
        leaving["metadata"]["deletionTimestamp"].is_string(),
        "{leaving}"
    );
    let budget = cluster.get(&format!("{budgets}/b")).await.unwrap();
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
    cluster.stop().await;
}
