//! `distribute-cpus-across-numa`: where one NUMA node is not enough, all that take part give the
//! same, and what cannot be divided goes where it leaves the nodes most alike.

use std::collections::BTreeMap;

use super::take::{How, NODE, by_node, packed};
use crate::cpu_set::CpuSet;
use crate::machine::Machine;

/// The most NUMA nodes that are combined; with more the processors are packed.
const NODES_MAX: usize = 16;

/// Free processors by node.
type Free = BTreeMap<usize, usize>;

/// How processors are divided.
struct Share {
    nodes: Vec<usize>,
    /// From each of the nodes.
    each: usize,
    /// Nodes that give a group more, as often as it takes.
    more: Vec<usize>,
}

/// Takes so many of the free processors, in groups of `group`.
pub(super) fn take(
    machine: &Machine,
    free: &CpuSet,
    count: usize,
    group: usize,
    how: How,
) -> Result<CpuSet, String> {
    let plain = How {
        by_cache: false,
        ..how
    };
    let nodes = by_node(machine, free);
    let one = || packed(machine, free, count, plain);
    if count == 0 || count > free.len() || !count.is_multiple_of(group) || nodes.len() > NODES_MAX {
        return one();
    }
    let on = |node| machine.cpus_of(NODE, node).common(free);
    let amounts: Free = nodes.iter().map(|node| (*node, on(*node).len())).collect();
    let Some(share) = sizes(machine, nodes.len(), count, group)
        .find_map(|size| best(&amounts, &nodes, size, count, group))
    else {
        return one();
    };
    let mut taken = CpuSet::default();
    let mut claim = |node, amount| -> Result<usize, String> {
        let more = packed(machine, &on(node).without(&taken), amount, plain)?;
        taken = taken.union(&more);
        Ok(amount)
    };
    let mut left = count;
    for node in &share.nodes {
        left -= claim(*node, share.each)?;
    }
    let mut room = amounts;
    for node in &share.nodes {
        room.entry(*node).and_modify(|room| *room -= share.each);
    }
    for node in rounds(&mut room, &share.more, left, group) {
        left -= claim(node, group)?;
    }
    match left {
        0 => Ok(taken),
        _ => Err(format!(
            "accounting error, not enough CPUs allocated, remaining: {left}"
        )),
    }
}

/// With how many nodes it is tried: from as few as an empty machine would need.
fn sizes(
    machine: &Machine,
    available: usize,
    count: usize,
    group: usize,
) -> impl Iterator<Item = usize> {
    let groups = machine.cpus.len().div_ceil(group);
    let of_node = groups.div_ceil(machine.count(NODE)).max(1);
    let needed = count.div_ceil(group);
    needed.div_ceil(of_node)..=needed.min(available)
}

/// The share of `size` nodes that leaves all nodes most alike.
fn best(free: &Free, nodes: &[usize], size: usize, count: usize, group: usize) -> Option<Share> {
    let mut best: Option<(f64, Share)> = None;
    for chosen in combinations(nodes, size) {
        if best.as_ref().is_some_and(|(balance, _)| *balance == 0.0) {
            break;
        }
        let whole: usize = chosen.iter().map(|node| free[node] / group).sum();
        let each = count / size / group * group;
        if whole * group < count || chosen.iter().any(|node| free[node] < each) {
            continue;
        }
        let mut after = free.clone();
        for node in &chosen {
            after.entry(*node).and_modify(|room| *room -= each);
        }
        let Some((balance, more)) = divide(&after, &chosen, count - each * size, group) else {
            continue;
        };
        if best.as_ref().is_none_or(|(known, _)| balance < *known) {
            let share = Share {
                nodes: chosen,
                each,
                more,
            };
            best = Some((balance, share));
        }
    }
    best.map(|(_, share)| share)
}

/// Which nodes give the rest, and how alike all are then.
fn divide(after: &Free, chosen: &[usize], rest: usize, group: usize) -> Option<(f64, Vec<usize>)> {
    if rest == 0 {
        return Some((deviation(after), Vec::new()));
    }
    let able: Vec<usize> = chosen
        .iter()
        .copied()
        .filter(|node| after[node] >= group)
        .collect();
    let mut best: Option<(f64, Vec<usize>)> = None;
    for size in (1..=able.len()).rev() {
        for some in combinations(&able, size) {
            let mut left = after.clone();
            if rounds(&mut left, &some, rest, group).len() * group < rest {
                continue;
            }
            let balance = deviation(&left);
            if best.as_ref().is_none_or(|(known, _)| balance < *known) {
                best = Some((balance, some));
            }
        }
    }
    best
}

/// Goes round the nodes, each giving a group while it can; returns who gave.
fn rounds(room: &mut Free, nodes: &[usize], mut rest: usize, group: usize) -> Vec<usize> {
    let mut gave = Vec::new();
    while rest > 0 {
        let before = gave.len();
        for node in nodes {
            if let Some(room) = room.get_mut(node).filter(|room| **room >= group)
                && rest > 0
            {
                *room -= group;
                rest = rest.saturating_sub(group);
                gave.push(*node);
            }
        }
        if gave.len() == before {
            break;
        }
    }
    gave
}

/// How far the nodes are from alike, to three places as upstream counts it.
fn deviation(free: &Free) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "numbers of processors")]
    let amounts: Vec<f64> = free.values().map(|amount| *amount as f64).collect();
    #[expect(clippy::cast_precision_loss, reason = "a number of nodes")]
    let count = amounts.len() as f64;
    let round = |value: f64| (value * 1_000.0).round() / 1_000.0;
    let mean = round(amounts.iter().sum::<f64>() / count);
    let squares: f64 = amounts.iter().map(|one| (one - mean).powi(2)).sum();
    round((squares / count).sqrt())
}

/// All sets of so many of these, in their order.
fn combinations(of: &[usize], size: usize) -> Vec<Vec<usize>> {
    if size == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (place, first) in of.iter().enumerate() {
        for mut rest in combinations(&of[place + 1..], size - 1) {
            rest.insert(0, *first);
            all.push(rest);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::machine;

    #[track_caller]
    fn check(nodes: usize, free: &str, count: usize, group: usize, expected: &str) {
        // Of each node four cores of two threads.
        let machine = machine(nodes, 4);
        let free = CpuSet::parse(free).unwrap();
        let how = How {
            across_nodes: Some(group),
            ..How::default()
        };
        let taken = super::super::take::take(&machine, &free, count, how).unwrap();
        assert_eq!(taken.to_string(), expected, "{count} of {free} by {group}");
    }

    #[test]
    fn nodes_give_the_same_where_one_is_not_enough() {
        check(2, "0-15", 8, 1, "0-3,8-11");
        check(2, "0-15", 10, 1, "0-2,4-6,8-9,12-13");
        check(2, "0-15", 12, 2, "0-2,4-6,8-10,12-14");
        // Ten by cores: five groups, of which one cannot be divided.
        check(2, "0-15", 10, 2, "0-2,4-5,8-10,12-13");
        // What is missing on one node the other keeps free, too.
        check(2, "1-15", 9, 1, "1-2,4-6,9-10,12-13");
    }

    #[test]
    fn what_cannot_be_divided_into_groups_is_packed() {
        check(2, "0-15", 9, 2, "0-4,8-11");
        check(4, "0-31", 16, 2, "0-7,16-23");
        check(4, "0-31", 20, 1, "0-10,16-18,20-22,24-26");
    }
}
