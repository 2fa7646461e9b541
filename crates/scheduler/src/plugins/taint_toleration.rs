//! Taints repel pods that do not tolerate them.

use k8s_openapi::api::core::v1::{Pod, Taint};

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
        for taint in taints(node) {
            let repels = matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
            if repels && !tolerates(cycle.pod, taint) {
                let (key, value) = (&taint.key, taint.value.as_deref().unwrap_or_default());
                return Verdict::Never(format!(
                    "node(s) had untolerated taint(s) {{{key}: {value}}}"
                ));
            }
        }
        Verdict::Fits
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeView) -> Option<i64> {
        let soft = taints(node).filter(|taint| taint.effect == "PreferNoSchedule");
        let repelled = soft.filter(|taint| !tolerates(cycle.pod, taint)).count();
        i64::try_from(repelled).ok()
    }

    fn normalize(&self, scores: &mut [i64]) {
        spread_scores(scores, true);
    }

    fn weight(&self) -> i64 {
        3
    }
}

fn taints(node: &NodeView) -> impl Iterator<Item = &Taint> {
    let spec = node.node.as_ref().and_then(|node| node.spec.as_ref());
    spec.into_iter()
        .flat_map(|spec| spec.taints.iter().flatten())
}

/// Whether any of the pod's tolerations covers a taint.
pub fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    pod.spec
        .as_ref()
        .is_some_and(|spec| fit::tolerated(spec, taint))
}
