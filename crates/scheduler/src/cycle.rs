//! One pod, one snapshot, one decision. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use crate::node::NodeView;
use crate::plugins;
use crate::queue::Event;
use crate::resources::{Resources, requested, scored};

/// Score of the best node in one plugin's eyes.
pub const SCORE_MAX: i64 = 100;
/// Below this number of nodes all are looked at.
const ALWAYS_LOOK_AT: usize = 100;

/// What a plugin says of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Fits,
    /// Not now; why.
    Not(String),
    /// Not as long as neither pod nor node changes; removing pods would not help.
    Never(String),
}

/// The pod of this cycle with what plugins ask of it again and again.
#[derive(Debug)]
pub struct Cycle<'pod> {
    pub pod: &'pod Pod,
    pub requested: Resources,
    pub scored: Resources,
    /// Number of nodes in the snapshot.
    pub node_count: usize,
    /// For each image of the pod, on how many nodes it lies.
    pub image_spread: BTreeMap<String, usize>,
}

/// One scheduling rule. Registered by a line in [`plugins::PLUGINS`].
pub trait Plugin: Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;
    /// Which events may turn this plugin's "no" into a "yes".
    fn wakes_on(&self) -> &'static [Event];
    /// Whether the pod may run on the node.
    fn filter(&self, _cycle: &Cycle<'_>, _node: &NodeView) -> Verdict {
        Verdict::Fits
    }
    /// How much the rule likes the node; `None` when it has no say on any node.
    fn score(&self, _cycle: &Cycle<'_>, _node: &NodeView) -> Option<i64> {
        None
    }
    /// Brings the scores of all nodes into 0..=100.
    fn normalize(&self, _scores: &mut [i64]) {}
    /// How much the score counts.
    fn weight(&self) -> i64 {
        1
    }
}

/// Why no node will do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    pub nodes: usize,
    /// How many nodes were refused for each reason.
    pub reasons: BTreeMap<String, usize>,
    /// Names of the plugins that refused.
    pub plugins: Vec<&'static str>,
}

impl std::fmt::Display for Failure {
    /// Upstream's sentence: `0/3 nodes are available: 1 Insufficient cpu, 2 ….`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut parts: Vec<_> = self
            .reasons
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        parts.sort();
        write!(
            f,
            "0/{} nodes are available: {}.",
            self.nodes,
            parts.join(", ")
        )
    }
}

/// Chooses a node for `pod`. `start` rotates where the search begins, so that load spreads when
/// not all nodes are looked at; `tie` chooses among equally good nodes.
pub fn schedule(
    pod: &Pod,
    nodes: &[&NodeView],
    start: usize,
    tie: impl Fn(usize) -> usize,
) -> Result<String, Failure> {
    let cycle = Cycle {
        pod,
        requested: requested(pod),
        scored: scored(pod),
        node_count: nodes.len(),
        image_spread: image_spread(pod, nodes),
    };
    let fitting = filter(&cycle, nodes, start)?;
    if let [only] = fitting.as_slice() {
        return Ok(only.name().to_owned());
    }
    let totals = score(&cycle, &fitting);
    let best = totals.iter().copied().max().unwrap_or(0);
    let equals: Vec<_> = fitting
        .iter()
        .zip(&totals)
        .filter(|(_, total)| **total == best)
        .map(|(n, _)| n)
        .collect();
    let chosen = equals[tie(equals.len()).min(equals.len() - 1)];
    Ok(chosen.name().to_owned())
}

fn filter<'node>(
    cycle: &Cycle<'_>,
    nodes: &[&'node NodeView],
    start: usize,
) -> Result<Vec<&'node NodeView>, Failure> {
    let enough = enough_nodes(nodes.len());
    let mut failure = Failure {
        nodes: nodes.len(),
        ..Failure::default()
    };
    let mut fitting = Vec::new();
    for at in 0..nodes.len() {
        let node = nodes[(start + at) % nodes.len()];
        match refusal(cycle, node) {
            None => fitting.push(node),
            Some((plugin, reason)) => {
                *failure.reasons.entry(reason).or_default() += 1;
                if !failure.plugins.contains(&plugin) {
                    failure.plugins.push(plugin);
                }
            }
        }
        if fitting.len() >= enough {
            break;
        }
    }
    if fitting.is_empty() {
        Err(failure)
    } else {
        Ok(fitting)
    }
}

fn refusal(cycle: &Cycle<'_>, node: &NodeView) -> Option<(&'static str, String)> {
    plugins::PLUGINS
        .iter()
        .find_map(|plugin| match plugin.filter(cycle, node) {
            Verdict::Fits => None,
            Verdict::Not(reason) | Verdict::Never(reason) => Some((plugin.name(), reason)),
        })
}

/// Upstream's adaptive share: half of a small cluster's nodes down to a twentieth of a large
/// one's, but never fewer than a hundred.
fn enough_nodes(nodes: usize) -> usize {
    if nodes < ALWAYS_LOOK_AT {
        return nodes.max(1);
    }
    let percent = 50_usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(ALWAYS_LOOK_AT)
}

fn score(cycle: &Cycle<'_>, nodes: &[&NodeView]) -> Vec<i64> {
    let mut totals = vec![0; nodes.len()];
    for plugin in plugins::PLUGINS {
        let scores: Option<Vec<i64>> = nodes.iter().map(|node| plugin.score(cycle, node)).collect();
        let Some(mut scores) = scores else { continue };
        plugin.normalize(&mut scores);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += score * plugin.weight();
        }
    }
    totals
}

fn image_spread(pod: &Pod, nodes: &[&NodeView]) -> BTreeMap<String, usize> {
    let images = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .filter_map(|c| c.image.as_ref());
    let count = |image: &String| {
        let image = plugins::image_locality::normalized(image);
        let spread = nodes
            .iter()
            .filter(|node| node.images.contains_key(&image))
            .count();
        (image, spread)
    };
    images
        .map(count)
        .filter(|(_, spread)| *spread > 0)
        .collect()
}

/// Scales scores so that the greatest becomes [`SCORE_MAX`]; `reverse` turns most into least.
pub fn spread_scores(scores: &mut [i64], reverse: bool) {
    let greatest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if greatest == 0 {
            0
        } else {
            *score * SCORE_MAX / greatest
        };
        *score = if reverse { SCORE_MAX - scaled } else { scaled };
    }
}
