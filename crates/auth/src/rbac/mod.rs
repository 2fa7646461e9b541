//! Role based access control over indexed roles and bindings, kept current by watch events.

mod binding;
mod compiled;
mod escalation;
mod index;
#[cfg(test)]
mod random;
mod rule;
mod words;

use meta::{LabelSelector, Object};
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::identity::{Attributes, Decision, Identity};
use index::Index;
pub use rule::{Rule, compacted, covers, uncovered};

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// `roleRef` of a binding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub struct RoleRef {
    pub kind: String,
    pub name: String,
}

/// All roles and bindings of the cluster. Reading and writing may go on at once.
#[derive(Default)]
pub struct Rbac {
    index: RwLock<Index>,
}

impl Rbac {
    /// Nobody may do anything.
    pub fn new() -> Rbac {
        Rbac::default()
    }

    /// Takes in a new or changed object of one of the group's four resources
    /// (`roles.rbac.authorization.k8s.io`, …); all else is ignored.
    pub fn set(&self, group_resource: &str, object: &Object) {
        let (namespace, name) = (object.namespace(), object.name());
        match plural(group_resource) {
            "roles" | "clusterroles" => {
                let rules = rules_of(object);
                self.index.write().set_role(namespace, name, &rules);
            }
            "rolebindings" | "clusterrolebindings" => {
                let binding = binding::Binding::read(object);
                self.index.write().set_binding(namespace, name, binding);
            }
            _ => {}
        }
    }

    /// Forgets an object; `namespace` is empty for the cluster-wide kinds.
    pub fn remove(&self, group_resource: &str, namespace: &str, name: &str) {
        match plural(group_resource) {
            "roles" | "clusterroles" => self.index.write().remove_role(namespace, name),
            "rolebindings" | "clusterrolebindings" => {
                self.index.write().remove_binding(namespace, name);
            }
            _ => {}
        }
    }

    /// Whether any rule bound to the user allows what is asked.
    pub fn authorize(&self, identity: &Identity, asked: &Attributes) -> Decision {
        let index = self.index.read();
        let mut missing = match index.decide(identity, asked) {
            Ok(reason) => return Decision::Allow(reason),
            Err(missing) => missing,
        };
        missing.sort_unstable();
        missing.dedup();
        Decision::NoOpinion(match missing.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        })
    }

    /// All rules that apply to the user in a namespace (empty: cluster-wide).
    pub fn rules_for(&self, identity: &Identity, namespace: &str) -> Vec<Rule> {
        self.index.read().rules_for(identity, namespace)
    }

    /// The rules of a role, as a binding in `namespace` sees it.
    pub fn role(&self, role_ref: &RoleRef, namespace: &str) -> Option<Vec<Rule>> {
        self.index.read().rules(role_ref, namespace)
    }
}

/// The `status` of a SelfSubjectRulesReview.
pub fn rules_review(rules: &[Rule], incomplete: bool, error: &str) -> Value {
    let mut resources = Vec::new();
    let mut paths = Vec::new();
    for rule in rules {
        if !rule.resources.is_empty() {
            resources.push(json!(Rule {
                non_resource_urls: Vec::new(),
                ..rule.clone()
            }));
        }
        if !rule.non_resource_urls.is_empty() {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
        }
    }
    let mut status =
        json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": incomplete});
    if !error.is_empty() {
        status["evaluationError"] = error.into();
    }
    status
}

/// The rules of a Role or ClusterRole; entries that do not decode allow nothing.
pub fn rules_of(object: &Object) -> Vec<Rule> {
    let rules = object.fields().get("rules").and_then(Value::as_array);
    let decode = |rule: &Value| Rule::deserialize(rule).ok();
    rules.into_iter().flatten().filter_map(decode).collect()
}

/// The rules that an aggregated ClusterRole should have: those of all roles that one of its
/// selectors picks, by name of the role, each once. `None` when `role` aggregates nothing.
pub fn aggregate<'a>(
    role: &Object,
    roles: impl IntoIterator<Item = &'a Object>,
) -> Option<Vec<Rule>> {
    let rule = role
        .fields()
        .get("aggregationRule")
        .filter(|rule| rule.is_object())?;
    let selectors = rule.get("clusterRoleSelectors").and_then(Value::as_array);
    let selectors: Vec<LabelSelector> = selectors
        .into_iter()
        .flatten()
        .filter_map(|selector| LabelSelector::from_value(selector).ok())
        .collect();
    let picked = |other: &&Object| {
        let fits = |selector: &LabelSelector| selector.matches(|key| other.label(key));
        other.name() != role.name() && selectors.iter().any(fits)
    };
    let mut picked: Vec<&Object> = roles.into_iter().filter(picked).collect();
    picked.sort_by_key(|other| other.name());
    let mut rules = Vec::new();
    for rule in picked.into_iter().flat_map(rules_of) {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    Some(rules)
}

/// The plural, if it is of our group.
fn plural(group_resource: &str) -> &str {
    match group_resource.split_once('.') {
        Some((plural, GROUP)) => plural,
        _ => "",
    }
}

/// Upstream names a missing role by its singular.
fn not_found(role_ref: &RoleRef) -> String {
    let singular = role_ref.kind.to_lowercase();
    format!("{singular}.{GROUP} \"{}\" not found", role_ref.name)
}
