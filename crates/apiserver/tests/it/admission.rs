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
