//! How long a decision takes with 10,000 bindings.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "this prints figures"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use auth::{Attributes, Authorizer, Decision, Identity};
use meta::Object;
use serde_json::json;

const BINDINGS: usize = 10_000;
const NAMESPACES: usize = 100;
const DECISIONS: usize = 200_000;
/// The goal: the 99th percentile.
const GOAL: Duration = Duration::from_micros(5);

/// The server's own.
#[global_allocator]
static ALLOCATOR: linux::allocator::ByRole = linux::allocator::ByRole;

fn filled() -> Authorizer {
    let authorizer = Authorizer::new();
    for tree in auth::bootstrap::objects() {
        let object = Object(tree);
        let plural = format!(
            "{}s.rbac.authorization.k8s.io",
            object.kind().to_lowercase()
        );
        authorizer.set(&plural, &object);
    }
    for number in 0..BINDINGS {
        let namespace = format!("ns-{}", number % NAMESPACES);
        let metadata = json!({"name": format!("b-{number}"), "namespace": namespace});
        let role = json!({"metadata": metadata, "rules": [
            {"verbs": ["get", "list", "watch"], "apiGroups": ["", "apps"],
                "resources": ["pods", "configmaps", "deployments", "replicasets"]},
            {"verbs": ["*"], "apiGroups": ["batch"], "resources": ["jobs"]}]});
        authorizer.set("roles.rbac.authorization.k8s.io", &Object(role));
        let binding = json!({"metadata": metadata,
            "roleRef": {"kind": "Role", "name": format!("b-{number}")},
            "subjects": [{"kind": "User", "name": format!("user-{}", number % 1000)},
                {"kind": "ServiceAccount", "name": format!("account-{number}")}]});
        authorizer.set("rolebindings.rbac.authorization.k8s.io", &Object(binding));
    }
    authorizer
}

fn main() {
    let authorizer = filled();
    let mut times = Vec::with_capacity(DECISIONS);
    let mut allowed = 0;
    for number in 0..DECISIONS {
        let user = Identity::user(&format!("user-{}", number % 1000), &["dev", "ops"]);
        let asked = Attributes {
            verb: if number % 3 == 0 { "delete" } else { "list" }.into(),
            namespace: format!("ns-{}", number % NAMESPACES),
            version: "v1".into(),
            resource: "pods".into(),
            ..Attributes::default()
        };
        let begun = Instant::now();
        let decision = black_box(authorizer.authorize(&user, &asked));
        times.push(begun.elapsed());
        allowed += usize::from(matches!(decision, Decision::Allow(_)));
    }
    times.sort_unstable();
    let at = |share: f64| times[(share * (times.len() - 1) as f64) as usize];
    let verdict = if at(0.99) <= GOAL {
        "reached"
    } else {
        "missed"
    };
    println!("{DECISIONS} decisions, {allowed} allowed, {BINDINGS} bindings");
    println!(
        "p50 {:?}  p99 {:?}  p99.9 {:?}",
        at(0.5),
        at(0.99),
        at(0.999)
    );
    println!("goal p99 <= {GOAL:?}: {verdict}");
}
