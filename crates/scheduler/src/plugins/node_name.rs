//! `spec.nodeName` names the only node that will do.

use crate::cycle::{Cycle, Plugin, Verdict};
use crate::node::NodeView;
use crate::queue::Event;

/// The rule.
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn wakes_on(&self) -> &'static [Event] {
        &[Event::NodeAdded]
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeView) -> Verdict {
        let wanted = cycle
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_deref());
        match wanted.filter(|wanted| !wanted.is_empty() && *wanted != node.name()) {
            None => Verdict::Fits,
            Some(_) => Verdict::Never("node(s) didn't match the requested node name".into()),
        }
    }
}
