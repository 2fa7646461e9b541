//! Cordoned nodes take only pods that tolerate it.

use k8s_openapi::api::core::v1::Taint;

use super::taint_toleration::tolerates;
use crate::cycle::{Cycle, Plugin, Verdict};
use crate::node::NodeView;
use crate::queue::Event;

/// The rule.
pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn wakes_on(&self) -> &'static [Event] {
        &[Event::NodeAdded, Event::NodeChanged]
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeView) -> Verdict {
        let spec = node.node.as_ref().and_then(|node| node.spec.as_ref());
        let cordoned = spec.and_then(|spec| spec.unschedulable) == Some(true);
        let taint = || Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        if cordoned && !tolerates(cycle.pod, &taint()) {
            return Verdict::Never("node(s) were unschedulable".into());
        }
        Verdict::Fits
    }
}
