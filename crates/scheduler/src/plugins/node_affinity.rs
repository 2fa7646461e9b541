//! `nodeSelector` and node affinity.

use crate::cycle::{Cycle, Plugin, Verdict, spread_scores};
use crate::node::NodeView;
use crate::queue::Event;

/// The rule.
pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn wakes_on(&self) -> &'static [Event] {
        &[Event::NodeAdded, Event::NodeChanged]
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeView) -> Verdict {
        let Some(spec) = &cycle.pod.spec else {
            return Verdict::Fits;
        };
        if fit::allows(spec, node.place()) {
            return Verdict::Fits;
        }
        Verdict::Never("node(s) didn't match Pod's node affinity/selector".into())
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeView) -> Option<i64> {
        let affinity = cycle
            .pod
            .spec
            .as_ref()?
            .affinity
            .as_ref()?
            .node_affinity
            .as_ref()?;
        let preferred = affinity
            .preferred_during_scheduling_ignored_during_execution
            .as_ref()?;
        let holding = preferred
            .iter()
            .filter(|one| fit::holds(&one.preference, node.place()));
        Some(holding.map(|one| i64::from(one.weight)).sum())
    }

    fn normalize(&self, scores: &mut [i64]) {
        spread_scores(scores, false);
    }

    fn weight(&self) -> i64 {
        2
    }
}
