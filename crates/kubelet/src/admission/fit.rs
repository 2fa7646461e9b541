//! What a pod asks of the node itself: its system, labels, name and taints. Pure.

use k8s_openapi::api::core::v1::{Node, Pod};

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
    ::fit::allows(pod.spec(), node.into())
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
    let mut ending = taints.filter(|taint| taint.effect == "NoExecute");
    ending
        .any(|taint| !::fit::tolerated(pod.spec(), taint))
        .then(|| {
            predicate(
                "TaintToleration",
                "node(s) had taints that the pod didn't tolerate",
            )
        })
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
