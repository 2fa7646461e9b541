//! Which nodes a DaemonSet's pod may run on. Pure.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod,
    PodSpec, PodTemplateSpec, Toleration,
};

use crate::pods;

/// Taints under which a daemon must stay: it may be what mends the node.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_TAINT: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// What a node is to a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) should_run: bool,
    /// A pod that runs already may stay.
    pub(crate) may_stay: bool,
}

/// Judges a node for the pod of a template (with the daemon's own tolerations).
pub(crate) fn judge(spec: &PodSpec, node: &Node) -> Verdict {
    let refused = Verdict {
        should_run: false,
        may_stay: false,
    };
    let name = node.metadata.name.as_deref().unwrap_or_default();
    if spec
        .node_name
        .as_deref()
        .is_some_and(|wanted| !wanted.is_empty() && wanted != name)
    {
        return refused;
    }
    if !fit::allows(spec, node.into()) {
        return refused;
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
    let untolerated: Vec<_> = taints
        .unwrap_or_default()
        .iter()
        .filter(|taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute")
        .filter(|taint| !fit::tolerated(spec, taint))
        .collect();
    Verdict {
        should_run: untolerated.is_empty(),
        may_stay: untolerated.iter().all(|taint| taint.effect != "NoExecute"),
    }
}

/// The template with the tolerations every daemon has.
pub(crate) fn with_tolerations(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let spec = template.spec.get_or_insert_default();
    let network = (spec.host_network == Some(true)).then_some(NETWORK_TAINT);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let toleration = Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    template
}

/// The pod for one node: the scheduler binds it there and nowhere else.
pub(crate) fn pod_for(set: &DaemonSet, template: &PodTemplateSpec, hash: &str, node: &str) -> Pod {
    let mut pod = pods::from_template(template, set);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert("controller-revision-hash".into(), hash.into());
    let annotations = set.metadata.annotations.as_ref();
    let generation = annotations.and_then(|a| a.get("deprecated.daemonset.template.generation"));
    if let Some(generation) = generation {
        labels.insert("pod-template-generation".into(), generation.clone());
    }
    let by_name = NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator: "In".into(),
        values: Some(vec![node.into()]),
    };
    let spec = pod.spec.get_or_insert_default();
    let affinity = spec.affinity.get_or_insert_with(Affinity::default);
    let affinity = affinity
        .node_affinity
        .get_or_insert_with(NodeAffinity::default);
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_with(NodeSelector::default);
    if required.node_selector_terms.is_empty() {
        required
            .node_selector_terms
            .push(NodeSelectorTerm::default());
    }
    // The node has been judged already: its name says it all.
    for term in &mut required.node_selector_terms {
        term.match_fields = Some(vec![by_name.clone()]);
    }
    pod
}

/// The node a daemon's pod is on or meant for.
pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(name) = spec.node_name.as_deref().filter(|name| !name.is_empty()) {
        return Some(name);
    }
    let terms = fit::required(spec)?.node_selector_terms.iter();
    let mut fields = terms.flat_map(|term| term.match_fields.iter().flatten());
    let by_name = fields.find(|field| field.key == "metadata.name" && field.operator == "In")?;
    match by_name.values.as_deref()? {
        [one] => Some(one),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(spec: serde_json::Value, should_run: bool, may_stay: bool) {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n1", "labels": {"disk": "ssd", "cores": "8"}},
            "spec": {"taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
                {"key": "dedicated", "value": "db", "effect": spec["taint"]}]}
        }))
        .unwrap();
        let template = json!({"spec": spec["spec"]});
        let template: PodTemplateSpec = serde_json::from_value(template).unwrap();
        let template = with_tolerations(&template);
        let verdict = judge(template.spec.as_ref().unwrap(), &node);
        assert_eq!(
            (verdict.should_run, verdict.may_stay),
            (should_run, may_stay),
            "{spec}"
        );
    }

    #[test]
    fn taints_keep_daemons_away_unless_tolerated() {
        let spec =
            |toleration: serde_json::Value| json!({"containers": [], "tolerations": [toleration]});
        let db = spec(json!({"key": "dedicated", "value": "db"}));
        check(
            json!({"taint": "NoSchedule", "spec": {"containers": []}}),
            false,
            true,
        );
        check(
            json!({"taint": "NoExecute", "spec": {"containers": []}}),
            false,
            false,
        );
        check(
            json!({"taint": "PreferNoSchedule", "spec": {"containers": []}}),
            true,
            true,
        );
        check(json!({"taint": "NoExecute", "spec": db}), true, true);
        check(
            json!({"taint": "NoExecute", "spec": spec(json!({"operator": "Exists"}))}),
            true,
            true,
        );
        let other = spec(json!({"key": "dedicated", "value": "web"}));
        check(json!({"taint": "NoExecute", "spec": other}), false, false);
    }

    #[test]
    fn selectors_and_affinity_choose_nodes() {
        let affinity = |key: &str, operator: &str, values: &[&str]| {
            json!({"taint": "PreferNoSchedule", "spec": {"containers": [], "affinity":
                {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                    {"nodeSelectorTerms": [{"matchExpressions":
                        [{"key": key, "operator": operator, "values": values}]}]}}}}})
        };
        check(affinity("disk", "In", &["ssd"]), true, true);
        check(affinity("disk", "NotIn", &["ssd"]), false, false);
        check(affinity("cores", "Gt", &["4"]), true, true);
        check(affinity("cores", "Lt", &["4"]), false, false);
        check(affinity("gpu", "DoesNotExist", &[]), true, true);
        let selector = json!({"taint": "PreferNoSchedule",
            "spec": {"containers": [], "nodeSelector": {"disk": "hdd"}}});
        check(selector, false, false);
    }

    #[test]
    fn a_pod_is_bound_by_its_nodes_name() {
        let set: DaemonSet =
            serde_json::from_value(json!({"metadata": {"name": "log", "uid": "u"},
            "spec": {"selector": {}, "template": {"spec": {"containers": []}}}}))
            .unwrap();
        let pod = pod_for(&set, &set.spec.as_ref().unwrap().template, "h1", "n1");
        assert_eq!(node_of(&pod), Some("n1"));
        assert_eq!(
            pod.metadata.labels.unwrap()["controller-revision-hash"],
            "h1"
        );
    }
}
