//! What a pod asks of the node itself: its system, labels, name and taints. Pure.

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration,
};

use super::Rejection;
use crate::pod::PodExt;

const SYSTEM: &str = "linux";
const SYSTEM_LABEL: &str = "kubernetes.io/os";

fn predicate(name: &str, text: &str) -> Rejection {
    let message = format!("Predicate {name} failed: {text}");
    (name.to_owned(), message)
}

pub(super) fn affinity() -> Rejection {
    predicate(
        "NodeAffinity",
        "node(s) didn't match Pod's node affinity/selector",
    )
}

pub(super) fn ports() -> Rejection {
    predicate(
        "NodePorts",
        "node(s) didn't have free ports for the requested pod ports",
    )
}

/// Whether the pod is for this kind of system.
pub(super) fn system(pod: &Pod) -> Result<(), Rejection> {
    let labels = pod.metadata.labels.as_ref();
    let label = labels.and_then(|labels| labels.get(SYSTEM_LABEL));
    if label.is_some_and(|label| label != SYSTEM) {
        let message =
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        let reason = "PodOSSelectorNodeLabelDoesNotMatch";
        return Err((reason.to_owned(), message.to_owned()));
    }
    let field = pod.spec().os.as_ref();
    if field.is_some_and(|os| os.name != SYSTEM) {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        return Err(("PodOSNotSupported".to_owned(), message.to_owned()));
    }
    Ok(())
}

/// Whether `nodeSelector` and required node affinity name this node.
pub(super) fn selected(pod: &Pod, node: &Node) -> bool {
    let spec = pod.spec();
    let mut wanted = spec.node_selector.iter().flatten();
    let affinity = spec.affinity.as_ref();
    let required = affinity
        .and_then(|all| all.node_affinity.as_ref())
        .and_then(|one| {
            one.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    wanted.all(|(key, value)| label(node, key) == Some(value))
        && required.is_none_or(|selector| selects(selector, node))
}

fn label<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    let labels = node.metadata.labels.as_ref()?;
    labels.get(key).map(String::as_str)
}

fn selects(selector: &NodeSelector, node: &Node) -> bool {
    let mut terms = selector.node_selector_terms.iter();
    terms.any(|term| holds(term, node))
}

fn holds(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let by_label = |one: &NodeSelectorRequirement| fulfils(one, label(node, &one.key));
    let by_field = |one: &NodeSelectorRequirement| {
        one.key == "metadata.name" && fulfils(one, node.metadata.name.as_deref())
    };
    // A term without conditions holds nowhere.
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(by_label)
        && fields.iter().all(by_field)
}

fn fulfils(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|one| one == value));
    let number = |text: &str| text.parse::<i64>().ok();
    let bound = values.first().and_then(|text| number(text));
    let numbers = value.and_then(number).zip(bound);
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers.is_some_and(|(own, bound)| own > bound),
        "Lt" => numbers.is_some_and(|(own, bound)| own < bound),
        _ => false,
    }
}

/// Taints that end running pods keep new ones out; static pods do not care.
pub(super) fn taints(pod: &Pod, node: &Node) -> Option<Rejection> {
    if pod.is_static() {
        return None;
    }
    let taints = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten());
    let tolerations = pod.spec().tolerations.as_deref().unwrap_or_default();
    let mut ending = taints.filter(|taint| taint.effect == "NoExecute");
    ending
        .any(|taint| !tolerations.iter().any(|one| tolerates(one, taint)))
        .then(|| {
            predicate(
                "TaintToleration",
                "node(s) had taints that the pod didn't tolerate",
            )
        })
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is_set = |text: &&str| !text.is_empty();
    let effect = toleration.effect.as_deref().filter(is_set);
    let key = toleration.key.as_deref().filter(is_set);
    let value = |text: &Option<String>| text.clone().unwrap_or_default();
    effect.is_none_or(|effect| effect == taint.effect)
        && key.is_none_or(|key| key == taint.key)
        && (toleration.operator.as_deref() == Some("Exists")
            || key.is_some() && value(&toleration.value) == value(&taint.value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    fn node() -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n1", "labels": {"zone": "a", "size": "5"}},
            "spec": {"taints": [{"key": "old", "effect": "NoSchedule"},
                {"key": "gone", "value": "x", "effect": "NoExecute"}]}
        }))
        .unwrap()
    }

    #[test]
    fn pods_say_which_node_they_want() {
        let terms = |terms: Value| {
            json!({"containers": [], "affinity": {"nodeAffinity":
                {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
        };
        let one = |key: &str, operator: &str, values: Value| json!({"key": key, "operator": operator, "values": values});
        for (spec, expected) in [
            (json!({"containers": []}), true),
            (
                json!({"containers": [], "nodeSelector": {"zone": "a"}}),
                true,
            ),
            (
                json!({"containers": [], "nodeSelector": {"zone": "b"}}),
                false,
            ),
            (terms(json!([{}])), false),
            (
                terms(json!([{"matchExpressions": [one("size", "Gt", json!(["4"]))]}])),
                true,
            ),
            (
                terms(json!([{"matchExpressions": [one("size", "Lt", json!(["5"]))]}])),
                false,
            ),
            (
                terms(
                    json!([{"matchExpressions": [one("rack", "Exists", json!([]))]},
                {"matchFields": [one("metadata.name", "In", json!(["n1"]))]}]),
                ),
                true,
            ),
            (
                terms(json!([{"matchFields": [one("metadata.name", "NotIn", json!(["n1"]))]}])),
                false,
            ),
        ] {
            assert_eq!(selected(&pod(spec.clone()), &node()), expected, "{spec}");
        }
    }

    #[test]
    fn taints_that_end_pods_keep_new_ones_out() {
        let with = |toleration: Value| pod(json!({"containers": [], "tolerations": [toleration]}));
        for (toleration, fits) in [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "gone", "value": "x"}), true),
            (
                json!({"key": "gone", "operator": "Exists", "effect": "NoSchedule"}),
                false,
            ),
            (json!({"key": "gone", "value": "y"}), false),
        ] {
            let refused = taints(&with(toleration.clone()), &node());
            assert_eq!(refused.is_none(), fits, "{toleration}");
        }
        let mut from_file = pod(json!({"containers": []}));
        let source = ("kubernetes.io/config.source".to_owned(), "file".to_owned());
        from_file.metadata.annotations = Some([source].into());
        assert_eq!(taints(&from_file, &node()), None);
    }

    #[test]
    fn pods_for_other_systems_are_refused() {
        let windows = pod(json!({"containers": [], "os": {"name": "windows"}}));
        assert_eq!(system(&windows).unwrap_err().0, "PodOSNotSupported");
        assert_eq!(
            system(&pod(json!({"containers": [], "os": {"name": "linux"}}))),
            Ok(())
        );
    }
}
