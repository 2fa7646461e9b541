//! Likes nodes whose CPU and memory would be used to the same share.

use crate::cycle::{Cycle, Plugin, SCORE_MAX};
use crate::node::NodeView;
use crate::queue::Event;

/// The rule.
pub struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn wakes_on(&self) -> &'static [Event] {
        &[]
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeView) -> Option<i64> {
        // Pods that ask for nothing do not change the balance.
        if cycle.requested.iter().all(|(_, amount)| amount == 0) {
            return None;
        }
        let share = |name: &str| {
            let whole = node.allocatable.get(name);
            let used = node.requested.get(name) + cycle.requested.get(name);
            (whole > 0).then(|| (used as f64 / whole as f64).min(1.0))
        };
        let shares: Vec<f64> = ["cpu", "memory"].into_iter().filter_map(share).collect();
        // The standard deviation of two numbers is half their distance.
        let deviation = match shares.as_slice() {
            [cpu, memory] => (cpu - memory).abs() / 2.0,
            _ => 0.0,
        };
        Some(((1.0 - deviation) * SCORE_MAX as f64) as i64)
    }
}
