//! A pod's requests must fit into what is left; emptier nodes are liked better.

use crate::cycle::{Cycle, Plugin, SCORE_MAX, Verdict};
use crate::node::NodeView;
use crate::queue::Event;

/// The rule, with upstream's default strategy LeastAllocated.
pub struct NodeResourcesFit;

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn wakes_on(&self) -> &'static [Event] {
        &[Event::NodeAdded, Event::NodeChanged, Event::PodRemoved]
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeView) -> Verdict {
        let pods_max = node.allocatable.get("pods");
        if i64::try_from(node.pod_count()).unwrap_or(i64::MAX) >= pods_max {
            return Verdict::Not("Too many pods".into());
        }
        for (name, amount) in cycle.requested.iter().filter(|(_, amount)| *amount > 0) {
            let whole = node.allocatable.get(name);
            if amount > whole {
                return Verdict::Never(format!("Insufficient {name}"));
            }
            if amount > whole - node.requested.get(name) {
                return Verdict::Not(format!("Insufficient {name}"));
            }
        }
        Verdict::Fits
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeView) -> Option<i64> {
        let (mut sum, mut counted) = (0, 0);
        for name in ["cpu", "memory"] {
            let whole = node.allocatable.get(name);
            if whole <= 0 {
                continue;
            }
            let used = node.scored.get(name) + cycle.scored.get(name);
            sum += (whole - used).max(0) * SCORE_MAX / whole;
            counted += 1;
        }
        Some(if counted == 0 { 0 } else { sum / counted })
    }
}
