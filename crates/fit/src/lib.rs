//! Which nodes a pod may be on by what both objects say: selectors, affinity, taints. Pure; the
//! scheduler, the kubelet and controllers go by the same words.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};

/// What of a node selectors look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place<'n> {
    pub name: Option<&'n str>,
    pub labels: Option<&'n BTreeMap<String, String>>,
}

impl<'n> From<&'n Node> for Place<'n> {
    fn from(node: &'n Node) -> Place<'n> {
        Place {
            name: node.metadata.name.as_deref(),
            labels: node.metadata.labels.as_ref(),
        }
    }
}

impl<'n> Place<'n> {
    /// The value of a label.
    pub fn label(self, key: &str) -> Option<&'n str> {
        self.labels?.get(key).map(String::as_str)
    }
}

/// The node affinity that a pod insists on.
pub fn required(spec: &PodSpec) -> Option<&NodeSelector> {
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()
}

/// Whether `nodeSelector` and required node affinity allow a node.
pub fn allows(spec: &PodSpec, place: Place<'_>) -> bool {
    let mut wanted = spec.node_selector.iter().flatten();
    wanted.all(|(key, value)| place.label(key) == Some(value))
        && required(spec).is_none_or(|selector| selects(selector, place))
}

/// Whether any of the terms holds.
pub fn selects(selector: &NodeSelector, place: Place<'_>) -> bool {
    let mut terms = selector.node_selector_terms.iter();
    terms.any(|term| holds(term, place))
}

/// Whether all conditions of a term hold; one without conditions holds nowhere.
pub fn holds(term: &NodeSelectorTerm, place: Place<'_>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let field = |key: &str| place.name.filter(|_| key == "metadata.name");
    !(expressions.is_empty() && fields.is_empty())
        && expressions
            .iter()
            .all(|one| fulfils(one, place.label(&one.key)))
        && fields.iter().all(|one| fulfils(one, field(&one.key)))
}

fn fulfils(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|value| values.iter().any(|one| one == value));
    let numbers = || {
        let bound: i64 = values.first()?.parse().ok()?;
        Some((value?.parse::<i64>().ok()?, bound))
    };
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(own, bound)| own > bound),
        "Lt" => numbers().is_some_and(|(own, bound)| own < bound),
        _ => false,
    }
}

/// Whether a toleration covers a taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is_set = |text: &&str| !text.is_empty();
    let effect = toleration.effect.as_deref().filter(is_set);
    let key = toleration.key.as_deref().filter(is_set);
    if effect.is_some_and(|effect| effect != taint.effect)
        || key.is_some_and(|key| key != taint.key)
    {
        return false;
    }
    let value = toleration.value.as_deref().unwrap_or_default();
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => key.is_some() && value == taint.value.as_deref().unwrap_or_default(),
        _ => false,
    }
}

/// Whether any toleration of a pod covers a taint.
pub fn tolerated(spec: &PodSpec, taint: &Taint) -> bool {
    let mut all = spec.tolerations.iter().flatten();
    all.any(|toleration| tolerates(toleration, taint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn pods_say_which_node_they_want() {
        let labels = BTreeMap::from([("zone", "a"), ("size", "5")]);
        let labels = labels
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let place = Place {
            name: Some("n1"),
            labels: Some(&labels),
        };
        let one = |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
        let by_label = |one: Value| json!([{ "matchExpressions": [one] }]);
        let by_field = |one: Value| json!([{ "matchFields": [one] }]);
        for (terms, expected) in [
            (json!([{}]), false),
            (by_label(one("zone", "In", &["a", "b"])), true),
            (by_label(one("zone", "NotIn", &["a"])), false),
            (by_label(one("rack", "NotIn", &["a"])), true),
            (by_label(one("size", "Gt", &["4"])), true),
            (by_label(one("size", "Lt", &["5"])), false),
            (by_label(one("zone", "Gt", &["4"])), false),
            (by_label(one("rack", "DoesNotExist", &[])), true),
            (by_label(one("rack", "Exists", &[])), false),
            (by_field(one("metadata.name", "In", &["n1"])), true),
            (by_field(one("metadata.uid", "In", &["n1"])), false),
        ] {
            let spec = json!({"containers": [], "affinity": {"nodeAffinity":
                {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
            let spec: PodSpec = serde_json::from_value(spec).unwrap();
            assert_eq!(allows(&spec, place), expected, "{terms}");
        }
        for (zone, expected) in [("a", true), ("b", false)] {
            let spec = json!({"containers": [], "nodeSelector": {"zone": zone}});
            let spec: PodSpec = serde_json::from_value(spec).unwrap();
            assert_eq!(allows(&spec, place), expected, "{zone}");
        }
    }

    #[test]
    fn tolerations_cover_taints() {
        let taint = Taint {
            key: "dedicated".into(),
            value: Some("db".into()),
            effect: "NoSchedule".into(),
            ..Taint::default()
        };
        for (toleration, expected) in [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "dedicated", "operator": "Exists"}), true),
            (json!({"key": "dedicated", "value": "db"}), true),
            (
                json!({"key": "dedicated", "value": "db", "effect": "NoSchedule"}),
                true,
            ),
            (
                json!({"key": "dedicated", "value": "db", "effect": "NoExecute"}),
                false,
            ),
            (json!({"key": "dedicated", "value": "web"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({"key": "dedicated", "operator": "Near"}), false),
        ] {
            let read: Toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerates(&read, &taint), expected, "{toleration}");
        }
    }
}
