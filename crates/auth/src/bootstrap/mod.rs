//! The roles and bindings that every cluster starts with, as upstream has them.
//!
//! A rule is written `verbs | groups | resources` with optional `| names`, or `verbs | /paths`;
//! words are separated by spaces, the core group is `core`. `read` stands for get, list, watch
//! and `write` for create, delete, deletecollection, patch, update.

mod controllers;
mod roles;

use meta::names::Scope;
use serde_json::{Value, json};

use crate::rbac::{GROUP, Rule};

/// A role's name and its rules.
type Role = (&'static str, &'static [&'static str]);

const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];
const CONTROLLER_PREFIX: &str = "system:controller:";

/// Roles made of others: name, and into which it goes itself.
const AGGREGATED: [(&str, Option<&str>); 3] = [
    ("admin", None),
    ("edit", Some("admin")),
    ("view", Some("edit")),
];

/// Roles that are parts of the aggregated ones.
const PARTS: [(&str, &str); 3] = [
    ("system:aggregate-to-admin", "admin"),
    ("system:aggregate-to-edit", "edit"),
    ("system:aggregate-to-view", "view"),
];

/// Cluster-wide bindings: role (and name), subjects as `user:x`, `group:x` or
/// `account:namespace/x`. Nodes have an authorizer of their own, so nobody is bound to `system:node`.
const BINDINGS: [(&str, &[&str]); 13] = [
    ("cluster-admin", &["group:system:masters"]),
    ("system:monitoring", &["group:system:monitoring"]),
    ("system:discovery", &["group:system:authenticated"]),
    ("system:basic-user", &["group:system:authenticated"]),
    (
        "system:public-info-viewer",
        &["group:system:authenticated", "group:system:unauthenticated"],
    ),
    ("system:node-proxier", &["user:system:kube-proxy"]),
    (
        "system:kube-controller-manager",
        &["user:system:kube-controller-manager"],
    ),
    ("system:kube-dns", &["account:kube-system/kube-dns"]),
    ("system:coredns", &["account:kube-system/coredns"]),
    ("system:kube-scheduler", &["user:system:kube-scheduler"]),
    ("system:volume-scheduler", &["user:system:kube-scheduler"]),
    ("system:node", &[]),
    (
        "system:service-account-issuer-discovery",
        &["group:system:serviceaccounts"],
    ),
];

/// The role of the cluster's DNS server, which elsewhere is installed with it.
const DNS: Role = (
    "system:coredns",
    &[
        "list watch | core | endpoints namespaces pods services",
        "list watch | discovery.k8s.io | endpointslices",
        "get | core | nodes",
    ],
);

/// Namespaced roles: namespace, name, rules.
const NAMESPACED: [(&str, &str, &[&str]); 7] = [
    (
        "kube-public",
        "system:controller:bootstrap-signer",
        &[
            "read | core | configmaps",
            "update | core | configmaps | cluster-info",
            "create patch update | core events.k8s.io | events",
        ],
    ),
    (
        "kube-system",
        "extension-apiserver-authentication-reader",
        &["read | core | configmaps | extension-apiserver-authentication"],
    ),
    (
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        &[
            "read create update | coordination.k8s.io | leases",
            "read create update | coordination.k8s.io | leasecandidates",
        ],
    ),
    (
        "kube-system",
        "system::leader-locking-kube-scheduler",
        &[
            "read create update | coordination.k8s.io | leases",
            "read create update | coordination.k8s.io | leasecandidates",
        ],
    ),
    (
        "kube-system",
        "system:controller:bootstrap-signer",
        &["read | core | secrets"],
    ),
    (
        "kube-system",
        "system:controller:cloud-provider",
        &["read create | core | configmaps"],
    ),
    (
        "kube-system",
        "system:controller:token-cleaner",
        &[
            "read delete | core | secrets",
            "create patch update | core events.k8s.io | events",
        ],
    ),
];

/// Namespaced bindings: namespace, name, role, subjects.
const NAMESPACED_BINDINGS: [(&str, &str, &str, &[&str]); 7] = [
    (
        "kube-public",
        "system:controller:bootstrap-signer",
        "system:controller:bootstrap-signer",
        &["account:kube-system/bootstrap-signer"],
    ),
    (
        "kube-system",
        "system::extension-apiserver-authentication-reader",
        "extension-apiserver-authentication-reader",
        &[
            "user:system:kube-controller-manager",
            "user:system:kube-scheduler",
        ],
    ),
    (
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        "system::leader-locking-kube-controller-manager",
        &[
            "user:system:kube-controller-manager",
            "account:kube-system/kube-controller-manager",
            "account:kube-system/leader-election-controller",
        ],
    ),
    (
        "kube-system",
        "system::leader-locking-kube-scheduler",
        "system::leader-locking-kube-scheduler",
        &[
            "user:system:kube-scheduler",
            "account:kube-system/kube-scheduler",
        ],
    ),
    (
        "kube-system",
        "system:controller:bootstrap-signer",
        "system:controller:bootstrap-signer",
        &["account:kube-system/bootstrap-signer"],
    ),
    (
        "kube-system",
        "system:controller:cloud-provider",
        "system:controller:cloud-provider",
        &["account:kube-system/cloud-provider"],
    ),
    (
        "kube-system",
        "system:controller:token-cleaner",
        "system:controller:token-cleaner",
        &["account:kube-system/token-cleaner"],
    ),
];

/// All roles and bindings, roles first. The API server creates what is missing at its start and
/// adds missing rules and subjects to those that still are annotated `autoupdate`. The rules of
/// `admin`, `edit` and `view` are already aggregated.
pub fn objects() -> Vec<Value> {
    let mut objects = Vec::new();
    for (name, rules) in roles::ROLES.iter().chain([&DNS]) {
        let part_of = PARTS
            .iter()
            .find(|(part, _)| part == name)
            .map(|(_, whole)| *whole);
        objects.push(cluster_role(name, part_of, json!(parsed_all(rules))));
    }
    for (name, goes_into) in AGGREGATED {
        let mut role = cluster_role(name, goes_into, json!(aggregated_rules(name)));
        let label = aggregation_label(name);
        role["aggregationRule"] =
            json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        objects.push(role);
    }
    for (name, rules) in controllers::CONTROLLERS {
        let name = format!("{CONTROLLER_PREFIX}{name}");
        objects.push(cluster_role(&name, None, json!(parsed_all(rules))));
    }
    for (namespace, name, rules) in NAMESPACED {
        let mut role = object(Scope::Namespaced, "Role", namespace, name);
        role["rules"] = json!(parsed_all(rules));
        objects.push(role);
    }
    for (name, subjects) in BINDINGS {
        objects.push(binding("", name, ("ClusterRole", name), subjects));
    }
    for (name, _) in controllers::CONTROLLERS {
        let role = format!("{CONTROLLER_PREFIX}{name}");
        let subject = format!("account:kube-system/{name}");
        objects.push(binding("", &role, ("ClusterRole", &role), &[&subject]));
    }
    for (namespace, name, role, subjects) in NAMESPACED_BINDINGS {
        objects.push(binding(namespace, name, ("Role", role), subjects));
    }
    objects
}

/// The rules of a built-in cluster role; empty for an unknown one.
pub fn cluster_role_rules(name: &str) -> Vec<Rule> {
    let found = roles::ROLES.iter().find(|(own, _)| *own == name);
    found
        .map(|(_, rules)| parsed_all(rules))
        .unwrap_or_default()
}

/// The rules that aggregation would give, each once; by name of the contributing role.
fn aggregated_rules(name: &str) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut add = |more: Vec<Rule>| {
        for rule in more {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    };
    for (whole, _) in AGGREGATED.iter().filter(|(_, into)| *into == Some(name)) {
        add(aggregated_rules(whole));
    }
    for (part, _) in PARTS.iter().filter(|(_, into)| *into == name) {
        add(cluster_role_rules(part));
    }
    rules
}

fn parsed_all(rules: &[&str]) -> Vec<Rule> {
    rules.iter().map(|rule| parsed(rule)).collect()
}

fn parsed(text: &str) -> Rule {
    let mut parts = text.split('|').map(str::trim);
    let mut words = || -> Vec<String> {
        let part = parts.next().unwrap_or_default();
        part.split_whitespace().map(str::to_owned).collect()
    };
    let mut verbs = Vec::new();
    for verb in words() {
        match verb.as_str() {
            "read" => verbs.extend(READ.map(str::to_owned)),
            "write" => verbs.extend(WRITE.map(str::to_owned)),
            _ => verbs.push(verb),
        }
    }
    verbs.sort_unstable();
    let (second, third) = (words(), words());
    if third.is_empty() {
        return Rule {
            verbs,
            non_resource_urls: second,
            ..Rule::default()
        };
    }
    let group = |word: String| if word == "core" { String::new() } else { word };
    Rule {
        verbs,
        api_groups: second.into_iter().map(group).collect(),
        resources: third,
        resource_names: words(),
        ..Rule::default()
    }
}

fn aggregation_label(into: &str) -> String {
    format!("{GROUP}/aggregate-to-{into}")
}

fn cluster_role(name: &str, part_of: Option<&str>, rules: Value) -> Value {
    let mut role = object(Scope::Cluster, "ClusterRole", "", name);
    if let Some(whole) = part_of {
        role["metadata"]["labels"][aggregation_label(whole)] = "true".into();
    }
    role["rules"] = rules;
    role
}

fn binding(namespace: &str, name: &str, role: (&str, &str), subjects: &[&str]) -> Value {
    let mut binding = match namespace {
        "" => object(Scope::Cluster, "ClusterRoleBinding", "", name),
        _ => object(Scope::Namespaced, "RoleBinding", namespace, name),
    };
    binding["roleRef"] = json!({"apiGroup": GROUP, "kind": role.0, "name": role.1});
    if !subjects.is_empty() {
        binding["subjects"] = subjects.iter().map(|text| subject(text)).collect();
    }
    binding
}

fn subject(text: &str) -> Value {
    match text.split_once(':') {
        Some(("user", name)) => json!({"apiGroup": GROUP, "kind": "User", "name": name}),
        Some(("group", name)) => json!({"apiGroup": GROUP, "kind": "Group", "name": name}),
        _ => {
            let account = text.trim_start_matches("account:");
            let (namespace, name) = account.split_once('/').unwrap_or(("", account));
            json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
        }
    }
}

fn object(scope: Scope, kind: &str, namespace: &str, name: &str) -> Value {
    let mut metadata = json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    });
    if scope == Scope::Namespaced {
        metadata["namespace"] = namespace.into();
    }
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use meta::Object;

    use super::*;
    use crate::identity::{Attributes, Decision, Identity};
    use crate::rbac::{Rbac, aggregate, rules_of};

    fn all() -> Vec<Object> {
        objects().into_iter().map(Object).collect()
    }

    fn of_kind(kind: &str) -> Vec<Object> {
        all()
            .into_iter()
            .filter(|object| object.kind() == kind)
            .collect()
    }

    #[test]
    fn every_object_is_there_once() {
        let key = |object: &Object| {
            (
                object.kind().to_owned(),
                object.namespace().to_owned(),
                object.name().to_owned(),
            )
        };
        let keys: BTreeSet<_> = all().iter().map(key).collect();
        assert_eq!(keys.len(), all().len());
        assert_eq!(of_kind("ClusterRole").len(), 32 + 38);
        assert_eq!(of_kind("ClusterRoleBinding").len(), 13 + 38);
        assert_eq!(of_kind("Role").len(), 7);
        assert_eq!(of_kind("RoleBinding").len(), 7);
    }

    #[test]
    fn every_rule_says_something() {
        for role in of_kind("ClusterRole").iter().chain(&of_kind("Role")) {
            assert!(!rules_of(role).is_empty(), "{}", role.name());
            for rule in rules_of(role) {
                let sound = !rule.verbs.is_empty()
                    && (rule.api_groups.is_empty() == rule.resources.is_empty())
                    && (rule.resources.is_empty() != rule.non_resource_urls.is_empty());
                assert!(sound, "{} {rule:?}", role.name());
                let paths = rule.non_resource_urls.iter();
                for path in paths {
                    assert!(path.starts_with('/') || path == "*", "{path}");
                }
            }
        }
    }

    #[test]
    fn aggregated_rules_are_what_aggregation_gives() {
        let roles = of_kind("ClusterRole");
        for (name, _) in AGGREGATED {
            let role = roles.iter().find(|role| role.name() == name).unwrap();
            let given: BTreeSet<_> = rules_of(role).into_iter().collect();
            let computed: BTreeSet<_> = aggregate(role, &roles).unwrap().into_iter().collect();
            assert_eq!(given, computed, "{name}");
        }
    }

    #[test]
    fn every_binding_finds_its_role() {
        let exists = |kind: &str, namespace: &str, name: &str| {
            let same = |object: &Object| {
                (object.kind(), object.namespace(), object.name()) == (kind, namespace, name)
            };
            all().iter().any(same)
        };
        for binding in of_kind("ClusterRoleBinding")
            .iter()
            .chain(&of_kind("RoleBinding"))
        {
            let (kind, name) = (binding.text("/roleRef/kind"), binding.text("/roleRef/name"));
            assert!(
                exists(kind, binding.namespace(), name),
                "{}",
                binding.name()
            );
        }
    }

    #[test]
    fn components_may_do_their_work() {
        let rbac = Rbac::new();
        for object in all() {
            let resource = format!("{}s.{GROUP}", object.kind().to_lowercase());
            rbac.set(&resource, &object);
        }
        let may = |identity: &Identity, line: &str| {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap_or_default();
            let (verb, resource, group, namespace) = (word(), word(), word(), word());
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let asked = Attributes {
                verb: verb.into(),
                resource: resource.into(),
                subresource: subresource.into(),
                group: group.into(),
                namespace: namespace.into(),
                name: "x".into(),
                ..Attributes::default()
            };
            matches!(rbac.authorize(identity, &asked), Decision::Allow(_))
        };
        let scheduler = Identity::component("system:kube-scheduler");
        assert!(may(&scheduler, "create pods/binding  default"));
        assert!(!may(&scheduler, "create pods  default"));
        let account = Identity::service_account("kube-system", "replicaset-controller", "u");
        assert!(may(&account, "create pods  default"));
        assert!(may(&account, "update replicasets/status apps default"));
        let dns = Identity::service_account("kube-system", "kube-dns", "u");
        assert!(may(&dns, "watch services "));
        let anybody = Identity::user("jane", &[]);
        assert!(may(
            &anybody,
            "create selfsubjectaccessreviews authorization.k8s.io"
        ));
        assert!(!may(&anybody, "get secrets  default"));
        assert!(may(&Identity::loopback(), "delete nodes "));
    }
}
