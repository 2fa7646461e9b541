//! Host ports can be used once per address and protocol.

use crate::cycle::{Cycle, Plugin, Verdict};
use crate::node::{HostPort, NodeView, host_ports};
use crate::queue::Event;

/// The rule.
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn wakes_on(&self) -> &'static [Event] {
        &[Event::NodeAdded, Event::PodRemoved]
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeView) -> Verdict {
        let wanted = host_ports(cycle.pod);
        let taken = wanted
            .iter()
            .any(|port| node.ports.keys().any(|used| clash(port, used)));
        if taken {
            return Verdict::Not(
                "node(s) didn't have free ports for the requested pod ports".into(),
            );
        }
        Verdict::Fits
    }
}

fn clash(one: &HostPort, other: &HostPort) -> bool {
    let everywhere = |port: &HostPort| matches!(port.1.as_str(), "0.0.0.0" | "::");
    one.0 == other.0
        && one.2 == other.2
        && (one.1 == other.1 || everywhere(one) || everywhere(other))
}
