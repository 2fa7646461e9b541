//! Nobody hands out more than he holds.

use auth::{Authorizer, Identity};
use meta::{Names, Object, Status};
use serde_json::{Value, json};

use crate::rbac::{binding, resource, role};

const GROUP: &str = "rbac.authorization.k8s.io";

fn names(kind: &str) -> Names {
    let plural = format!("{}s", kind.to_lowercase());
    match kind.starts_with("Cluster") {
        true => Names::cluster(GROUP, "v1", kind, &plural),
        false => Names::namespaced(GROUP, "v1", kind, &plural),
    }
}

fn rule(verb: &str, group: &str, resource: &str) -> Value {
    json!({"verbs": [verb], "apiGroups": [group], "resources": [resource]})
}

/// Jane may read pods, and whatever else `rules` say, in namespace `a`.
fn authorizer(rules: Vec<Value>) -> Authorizer {
    let authorizer = Authorizer::new();
    let mut all = vec![rule("get", "", "pods")];
    all.extend(rules);
    authorizer.set(&resource("roles"), &role("jane", "a", json!(all)));
    let jane = json!({"kind": "User", "name": "jane"});
    authorizer.set(
        &resource("rolebindings"),
        &binding("jane", "a", ("Role", "jane"), jane),
    );
    let secrets = json!([rule("get", "", "secrets")]);
    authorizer.set(&resource("clusterroles"), &role("secrets", "", secrets));
    authorizer
}

async fn check(authorizer: &Authorizer, kind: &str, object: &Object) -> Result<(), Status> {
    let jane = Identity::user("jane", &["dev"]);
    authorizer
        .check_escalation(&jane, &names(kind), "a", object, None)
        .await
}

#[tokio::test]
async fn a_role_must_be_held_by_its_writer() {
    let plain = authorizer(vec![]);
    let held = role("r", "a", json!([rule("get", "", "pods")]));
    assert_eq!(check(&plain, "Role", &held).await, Ok(()));
    let more = role(
        "r",
        "a",
        json!([{"verbs": ["get", "list"], "apiGroups": [""],
        "resources": ["pods", "secrets"]}]),
    );
    let status = check(&plain, "Role", &more).await.unwrap_err();
    assert_eq!(
        status.message,
        "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"jane\" \
         (groups=[\"dev\" \"system:authenticated\"]) is attempting to grant RBAC permissions not \
         currently held:\n\
         {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\"]}\n\
         {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\"]}"
    );
    assert_eq!(status.code, 403);
    let may_escalate = authorizer(vec![rule("escalate", GROUP, "roles")]);
    assert_eq!(check(&may_escalate, "Role", &more).await, Ok(()));
    let admin = Identity::user("root", &["system:masters"]);
    assert_eq!(
        plain
            .check_escalation(&admin, &names("Role"), "a", &more, None)
            .await,
        Ok(())
    );
}

#[tokio::test]
async fn a_bound_role_must_be_held_or_bindable() {
    let subject = || json!({"kind": "User", "name": "eve"});
    let secrets = binding("b", "a", ("ClusterRole", "secrets"), subject());
    let refused = check(&authorizer(vec![]), "RoleBinding", &secrets)
        .await
        .unwrap_err();
    assert!(
        refused.message.contains("not currently held"),
        "{}",
        refused.message
    );
    let holder = authorizer(vec![rule("get", "", "secrets")]);
    assert_eq!(check(&holder, "RoleBinding", &secrets).await, Ok(()));
    let binder = authorizer(vec![rule("bind", GROUP, "clusterroles")]);
    assert_eq!(check(&binder, "RoleBinding", &secrets).await, Ok(()));
    let lost = binding("b", "a", ("Role", "lost"), subject());
    let status = check(&holder, "RoleBinding", &lost).await.unwrap_err();
    assert_eq!(status.code, 404);
    assert_eq!(
        status.message,
        "role.rbac.authorization.k8s.io \"lost\" not found"
    );
}

#[tokio::test]
async fn aggregation_takes_everything() {
    let authorizer = authorizer(vec![rule("*", "*", "*")]);
    let mut aggregating = role("r", "a", json!([]));
    aggregating.0["aggregationRule"] =
        json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    // All resources are held, but that includes the right to escalate.
    assert_eq!(
        check(&authorizer, "ClusterRole", &aggregating).await,
        Ok(())
    );
    let plain = self::authorizer(vec![]);
    let status = check(&plain, "ClusterRole", &aggregating)
        .await
        .unwrap_err();
    assert!(
        status
            .message
            .ends_with("must have cluster-admin privileges to use the aggregationRule"),
        "{}",
        status.message
    );
}

#[tokio::test]
async fn the_garbage_collector_may_touch_strong_roles() {
    let plain = authorizer(vec![]);
    let jane = Identity::user("jane", &[]);
    let strong = role("r", "a", json!([rule("*", "*", "*")]));
    let mut owned = strong.clone();
    owned.set_metadata("finalizers", json!(["x"]));
    let role = names("Role");
    let same = plain.check_escalation(&jane, &role, "a", &owned, Some(&strong));
    assert_eq!(same.await, Ok(()));
    owned.0["rules"] = json!([rule("*", "*", "secrets")]);
    assert!(
        plain
            .check_escalation(&jane, &names("Role"), "a", &owned, Some(&strong))
            .await
            .is_err()
    );
}
