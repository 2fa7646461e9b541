use super::*;

use http::{HeaderName, HeaderValue};
use meta::Object;
use serde_json::{Value, json};

const ROLES: &str = "clusterroles.rbac.authorization.k8s.io";
const BINDINGS: &str = "clusterrolebindings.rbac.authorization.k8s.io";

/// An authorizer in which `name` has these rights.
fn rights(name: &str, rules: Value) -> Authorizer {
    let authorizer = Authorizer::new();
    let role = json!({"metadata": {"name": "r"}, "rules": rules});
    authorizer.set(ROLES, &Object(role));
    let binding = json!({"metadata": {"name": "b"},
        "roleRef": {"kind": "ClusterRole", "name": "r"},
        "subjects": [{"kind": "User", "name": name}]});
    authorizer.set(BINDINGS, &Object(binding));
    authorizer
}

fn rule(verb: &str, group: &str, resource: &str, names: &[&str]) -> Value {
    json!({"verbs": [verb], "apiGroups": [group], "resources": [resource], "resourceNames": names})
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn list_pods() -> Attributes {
    Attributes {
        verb: "list".into(),
        version: "v1".into(),
        resource: "pods".into(),
        ..Attributes::default()
    }
}

async fn judge(
    authorizer: &Authorizer,
    user: &Identity,
    pairs: &[(&str, &str)],
) -> Result<Impersonated, String> {
    let judged = Impersonation::default()
        .judge(authorizer, user, &headers(pairs), &list_pods())
        .await;
    judged
        .map(|found| found.expect("headers ask for somebody"))
        .map_err(|status| status.message)
}

const TO_LIST: (&str, &str, &str) = ("impersonate-on:user-info:list", "", "pods");

fn to_list() -> Value {
    rule(TO_LIST.0, TO_LIST.1, TO_LIST.2, &[])
}

#[tokio::test]
async fn a_constrained_right_counts_for_what_it_names() {
    let rules = json!([
        to_list(),
        rule("impersonate:user-info", AUTHENTICATION, "users", &["joe"]),
        rule("impersonate:user-info", AUTHENTICATION, "groups", &["dev"]),
        rule(
            "impersonate:user-info",
            AUTHENTICATION,
            "userextras/acme.io/team",
            &["boat"]
        ),
    ]);
    let (authorizer, eve) = (rights("eve", rules), Identity::user("eve", &[]));
    let asked = [
        ("impersonate-user", "joe"),
        ("impersonate-group", "dev"),
        ("impersonate-extra-acme.io%2fteam", "boat"),
    ];
    let found = judge(&authorizer, &eve, &asked).await.unwrap();
    assert_eq!(found.constraint.as_deref(), Some("impersonate:user-info"));
    assert_eq!(found.user.name, "joe");
    assert_eq!(found.user.groups, ["dev", "system:authenticated"]);
    assert_eq!(found.user.extra["acme.io/team"], ["boat"]);

    // Another verb, user or group is another question.
    let judged = Impersonation::default()
        .judge(
            &authorizer,
            &eve,
            &headers(&asked),
            &Attributes {
                verb: "delete".into(),
                ..list_pods()
            },
        )
        .await;
    let message = judged.unwrap_err().message;
    assert!(
        message.contains(r#"cannot impersonate-on:user-info:delete resource "pods""#),
        "{message}"
    );
    for other in [
        [("impersonate-user", "jim"), ("impersonate-group", "dev")],
        [("impersonate-user", "joe"), ("impersonate-group", "ops")],
    ] {
        assert!(judge(&authorizer, &eve, &other).await.is_err());
    }
}

#[tokio::test]
async fn superusers_groups_are_beyond_constrained_rights() {
    let rules = json!([
        to_list(),
        {"verbs": ["impersonate:user-info"], "apiGroups": ["*"], "resources": ["*"]},
    ]);
    let (authorizer, eve) = (rights("eve", rules), Identity::user("eve", &[]));
    let asked = [
        ("impersonate-user", "joe"),
        ("impersonate-group", "system:masters"),
    ];
    let message = judge(&authorizer, &eve, &asked).await.unwrap_err();
    assert!(
        message.ends_with("impersonating the system:masters group is not allowed"),
        "{message}"
    );
    let asked = [("impersonate-user", "joe"), ("impersonate-extra-team", "x")];
    let message = judge(&authorizer, &eve, &asked).await.unwrap_err();
    assert!(
        message
            .contains("impersonating an invalid key in extra is not allowed: extra.key: Invalid"),
        "{message}"
    );
    // Who is a superuser has the old right too.
    let root = Identity::loopback();
    let asked = [
        ("impersonate-user", "joe"),
        ("impersonate-group", "system:masters"),
    ];
    let found = judge(&authorizer, &root, &asked).await.unwrap();
    assert_eq!(found.constraint, None);
}

#[tokio::test]
async fn an_agent_acts_as_its_own_node_only() {
    let rules = json!([
        rule("impersonate-on:associated-node:list", "", "pods", &[]),
        rule(
            "impersonate:associated-node",
            AUTHENTICATION,
            "nodes",
            &["*"]
        ),
    ]);
    let mut agent = Identity::service_account("kube-system", "agent", "1");
    let node = "authentication.kubernetes.io/node-name";
    agent.extra.insert(node.into(), vec!["n1".into()]);
    let authorizer = rights(&agent.name, rules);
    let own = [("impersonate-user", "system:node:n1")];
    let found = judge(&authorizer, &agent, &own).await.unwrap();
    assert_eq!(found.user.name, "system:node:n1");
    assert_eq!(found.user.groups, ["system:nodes", "system:authenticated"]);
    assert_eq!(
        found.constraint.as_deref(),
        Some("impersonate:associated-node")
    );
    let other = [("impersonate-user", "system:node:n2")];
    let message = judge(&authorizer, &agent, &other).await.unwrap_err();
    assert!(
        message.contains("impersonate-on:arbitrary-node:list"),
        "{message}"
    );
}

#[tokio::test]
async fn the_old_right_holds_for_everything() {
    let account = "system:serviceaccount:a:b";
    let rules = json!([
        rule("impersonate", "", "serviceaccounts", &["b"]),
        rule("impersonate", "", "users", &["joe"]),
    ]);
    let (authorizer, eve) = (rights("eve", rules), Identity::user("eve", &[]));
    let impersonation = Impersonation::default();
    for name in ["joe", account, "joe"] {
        let asked = headers(&[("impersonate-user", name)]);
        let list = list_pods();
        let judged = impersonation.judge(&authorizer, &eve, &asked, &list);
        let found = judged.await.unwrap().unwrap();
        assert_eq!((found.user.name.as_str(), found.constraint), (name, None));
        assert_eq!(
            found.user.is_in("system:serviceaccounts:a"),
            name == account
        );
    }
    let asked = [("impersonate-user", "joe"), ("impersonate-uid", "7")];
    assert!(judge(&authorizer, &eve, &asked).await.is_err());
}

#[tokio::test]
async fn headers_without_a_user_are_refused() {
    let user = Identity::loopback();
    let asked = [("impersonate-group", "a"), ("impersonate-extra-k%", "v")];
    assert_eq!(
        judge(&Authorizer::new(), &user, &asked).await.unwrap_err(),
        r#"requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"a"}, Extra:map[string][]string{"k%":[]string{"v"}}} without impersonating a user name"#
    );
}

const AUTHENTICATION: &str = "authentication.k8s.io";
