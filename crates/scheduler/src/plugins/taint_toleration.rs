//! Taints repel pods that do not tolerate them.

use k8s_openapi::api::core::v1::{Pod, Toleration};

use crate::cycle::{Cycle, Plugin, Verdict, spread_scores};
use crate::node::NodeView;
use crate::queue::Event;

/// The rule.
pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn wakes_on(&self) -> &'static [Event] {
        &[Event::NodeAdded, Event::NodeChanged]
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeView) -> Verdict {
        for (key, value, effect) in taints(node) {
            let repels = matches!(effect, "NoSchedule" | "NoExecute");
            if repels && !tolerates(cycle.pod, (key, value, effect)) {
                return Verdict::Never(format!(
                    "node(s) had untolerated taint(s) {{{key}: {value}}}"
                ));
            }
        }
        Verdict::Fits
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeView) -> Option<i64> {
        let soft = taints(node).filter(|taint| taint.2 == "PreferNoSchedule");
        let repelled = soft.filter(|taint| !tolerates(cycle.pod, *taint)).count();
        i64::try_from(repelled).ok()
    }

    fn normalize(&self, scores: &mut [i64]) {
        spread_scores(scores, true);
    }

    fn weight(&self) -> i64 {
        3
    }
}

fn taints(node: &NodeView) -> impl Iterator<Item = (&str, &str, &str)> {
    let spec = node.node.as_ref().and_then(|node| node.spec.as_ref());
    let taints = spec
        .and_then(|spec| spec.taints.as_ref())
        .into_iter()
        .flatten();
    taints.map(|taint| {
        let value = taint.value.as_deref().unwrap_or_default();
        (taint.key.as_str(), value, taint.effect.as_str())
    })
}

/// Whether any of the pod's tolerations covers the taint (key, value, effect).
pub fn tolerates(pod: &Pod, taint: (&str, &str, &str)) -> bool {
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref());
    tolerations
        .unwrap_or_default()
        .iter()
        .any(|toleration| covers(toleration, taint))
}

fn covers(toleration: &Toleration, (key, value, effect): (&str, &str, &str)) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let own_effect = text(&toleration.effect);
    let own_key = text(&toleration.key);
    if (!own_effect.is_empty() && own_effect != effect) || (!own_key.is_empty() && own_key != key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => !own_key.is_empty() && text(&toleration.value) == value,
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(toleration: serde_json::Value, expected: bool) {
        let pod = json!({"spec": {"containers": [], "tolerations": [toleration.clone()]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let taint = ("dedicated", "db", "NoSchedule");
        assert_eq!(tolerates(&pod, taint), expected, "{toleration}");
    }

    #[test]
    fn tolerations_cover_taints() {
        check(json!({"operator": "Exists"}), true);
        check(json!({"key": "dedicated", "operator": "Exists"}), true);
        check(json!({"key": "dedicated", "value": "db"}), true);
        check(
            json!({"key": "dedicated", "value": "db", "effect": "NoSchedule"}),
            true,
        );
        check(
            json!({"key": "dedicated", "value": "db", "effect": "NoExecute"}),
            false,
        );
        check(json!({"key": "dedicated", "value": "web"}), false);
        check(json!({"key": "other", "operator": "Exists"}), false);
    }
}
