//! The topology manager's decision: each resource says on which NUMA nodes it could be given, and
//! the policy picks nodes that suit all, or refuses.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::machine::Machine;
use crate::numa::Mask;

/// Where something could be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    /// `None`: anywhere.
    pub(crate) affinity: Option<Mask>,
    /// No smaller set of nodes could hold it on an empty machine.
    pub(crate) preferred: bool,
}

/// Hints by resource: `None` is no preference, an empty list is nowhere.
pub(crate) type Hints = BTreeMap<String, Option<Vec<Hint>>>;

/// `topologyManagerPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    #[default]
    None,
    BestEffort,
    Restricted,
    SingleNumaNode,
}

/// `topologyManagerScope`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    #[default]
    Container,
    Pod,
}

impl Policy {
    /// By its name in the configuration.
    pub fn parse(name: &str) -> Option<Policy> {
        Some(match name {
            "none" => Policy::None,
            "best-effort" => Policy::BestEffort,
            "restricted" => Policy::Restricted,
            "single-numa-node" => Policy::SingleNumaNode,
            _ => return None,
        })
    }

    /// Picks the nodes, and says whether the pod may come. `nodes` are the machine's, whose
    /// distances decide between as many of them where it is given.
    pub(crate) fn decide(
        self,
        nodes: &[usize],
        machine: Option<&Machine>,
        providers: &[Hints],
    ) -> (Hint, bool) {
        let everywhere = Mask::of(nodes.iter().copied());
        let mut lists = lists(providers);
        if self == Policy::SingleNumaNode {
            for list in &mut lists {
                list.retain(|hint| {
                    hint.preferred && hint.affinity.is_none_or(|affinity| affinity.len() == 1)
                });
            }
        }
        let mut best = merge(
            everywhere,
            machine.filter(|_| self != Policy::SingleNumaNode),
            &lists,
        );
        if self == Policy::SingleNumaNode && best.affinity == Some(everywhere) {
            best.affinity = None;
        }
        let admitted = match self {
            Policy::None | Policy::BestEffort => true,
            Policy::Restricted | Policy::SingleNumaNode => best.preferred,
        };
        (best, admitted)
    }
}

fn lists(providers: &[Hints]) -> Vec<Vec<Hint>> {
    let anywhere = |preferred| {
        vec![Hint {
            affinity: None,
            preferred,
        }]
    };
    let mut lists = Vec::new();
    for hints in providers {
        if hints.is_empty() {
            lists.push(anywhere(true));
        }
        for hints in hints.values() {
            lists.push(match hints {
                None => anywhere(true),
                Some(hints) if hints.is_empty() => anywhere(false),
                Some(hints) => hints.clone(),
            });
        }
    }
    lists
}

/// The best of all combinations of one hint of each list.
fn merge(everywhere: Mask, machine: Option<&Machine>, lists: &[Vec<Hint>]) -> Hint {
    let narrowest = |list: &Vec<Hint>| {
        let affinities = list.iter().filter_map(|hint| hint.affinity);
        affinities.map(Mask::len).min()
    };
    // Where nothing is preferred: as many nodes as the neediest resource takes at least.
    let fair = lists.iter().filter_map(narrowest).max().unwrap_or(0);
    let mut best: Option<(Mask, bool)> = None;
    let mut places = vec![0; lists.len()];
    if lists.iter().all(|list| !list.is_empty()) {
        loop {
            let chosen = lists.iter().zip(&places).map(|(list, place)| list[*place]);
            let candidate = combine(everywhere, chosen);
            best = better(best, candidate, fair, machine);
            if !advance(&mut places, lists) {
                break;
            }
        }
    }
    let (affinity, preferred) = best.unwrap_or((everywhere, false));
    Hint {
        affinity: Some(affinity),
        preferred,
    }
}

/// Goes on to the next combination; the last list turns fastest.
fn advance(places: &mut [usize], lists: &[Vec<Hint>]) -> bool {
    for (place, list) in places.iter_mut().zip(lists).rev() {
        *place += 1;
        if *place < list.len() {
            return true;
        }
        *place = 0;
    }
    false
}

fn combine(everywhere: Mask, hints: impl Iterator<Item = Hint>) -> (Mask, bool) {
    let (mut merged, mut preferred, mut first) = (everywhere, true, None);
    for hint in hints {
        preferred &= hint.preferred;
        if let Some(affinity) = hint.affinity {
            // Nodes that all agree on are preferred; a mere overlap is not.
            preferred &= *first.get_or_insert(affinity) == affinity;
            merged = merged.and(affinity);
        }
    }
    (merged, preferred)
}

fn better(
    current: Option<(Mask, bool)>,
    candidate: (Mask, bool),
    fair: u32,
    machine: Option<&Machine>,
) -> Option<(Mask, bool)> {
    let (mask, preferred) = candidate;
    if mask.is_empty() {
        return current;
    }
    let Some((known, known_preferred)) = current else {
        return Some(candidate);
    };
    let narrower = fits_better(mask, known, machine);
    let wins = match (known_preferred, preferred) {
        (false, true) => true,
        (true, false) => false,
        (true, true) => narrower,
        (false, false) => {
            let (size, has) = (mask.len(), known.len());
            if has > fair {
                narrower
            } else if has == fair {
                size == fair && narrower
            } else if size > fair {
                false
            } else if size == fair || size != has {
                size > has
            } else {
                narrower
            }
        }
    };
    Some(if wins {
        candidate
    } else {
        (known, known_preferred)
    })
}

/// Whether nodes are fewer than others, or as many and nearer to each other, or of lower numbers.
fn fits_better(mask: Mask, known: Mask, machine: Option<&Machine>) -> bool {
    let nearer = machine.filter(|_| mask.len() == known.len() && mask != known);
    let nearer = nearer.map(|machine| machine.distance(mask).total_cmp(&machine.distance(known)));
    match nearer {
        Some(Ordering::Less) => true,
        Some(Ordering::Greater) => false,
        Some(Ordering::Equal) | None => mask.is_narrower_than(known),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(nodes: &[usize], preferred: bool) -> Hint {
        Hint {
            affinity: Some(Mask::of(nodes.iter().copied())),
            preferred,
        }
    }

    fn hints(name: &str, list: &[Hint]) -> Hints {
        Hints::from([(name.to_owned(), Some(list.to_vec()))])
    }

    #[test]
    fn policies_agree_where_resources_do() {
        let both = [hint(&[0], true), hint(&[1], true), hint(&[0, 1], false)];
        let second = [hint(&[1], true), hint(&[0, 1], false)];
        let providers = [hints("cpu", &both), hints("gpu", &second)];
        for policy in [
            Policy::BestEffort,
            Policy::Restricted,
            Policy::SingleNumaNode,
        ] {
            let (best, admitted) = policy.decide(&[0, 1], None, &providers);
            assert_eq!((best, admitted), (hint(&[1], true), true), "{policy:?}");
        }
    }

    #[test]
    fn policies_differ_where_resources_do_not() {
        let first = [hint(&[0], true), hint(&[0, 1], false)];
        let second = [hint(&[1], true), hint(&[0, 1], false)];
        let providers = [hints("cpu", &first), hints("gpu", &second)];
        let (best, admitted) = Policy::BestEffort.decide(&[0, 1], None, &providers);
        assert_eq!((best, admitted), (hint(&[0], false), true));
        assert!(!Policy::Restricted.decide(&[0, 1], None, &providers).1);
        assert!(!Policy::SingleNumaNode.decide(&[0, 1], None, &providers).1);
    }

    #[test]
    fn what_fits_only_on_both_nodes_is_restricted_but_not_single() {
        let wide = [hint(&[0, 1], true)];
        let providers = [hints("cpu", &wide), Hints::new()];
        assert!(Policy::Restricted.decide(&[0, 1], None, &providers).1);
        let (best, admitted) = Policy::SingleNumaNode.decide(&[0, 1], None, &providers);
        assert!(!admitted);
        assert_eq!(best.affinity, None);
    }

    #[test]
    fn no_preference_goes_anywhere_and_nowhere_is_refused() {
        let none = [Hints::from([("a".to_owned(), None)]), Hints::new()];
        let (best, admitted) = Policy::SingleNumaNode.decide(&[0, 1], None, &none);
        assert_eq!(
            (best.affinity, best.preferred, admitted),
            (None, true, true)
        );
        let (best, _) = Policy::Restricted.decide(&[0, 1], None, &none);
        assert_eq!(best, hint(&[0, 1], true));
        let nowhere = [hints("a", &[])];
        assert!(Policy::BestEffort.decide(&[0, 1], None, &nowhere).1);
        assert!(!Policy::Restricted.decide(&[0, 1], None, &nowhere).1);
    }

    #[test]
    fn nodes_near_each_other_are_taken_where_that_is_asked_for() {
        let mut machine = crate::machine::tests::machine(4, 1);
        for (from, distances) in [
            [10, 30, 12, 30],
            [30, 10, 30, 30],
            [12, 30, 10, 30],
            [30; 4],
        ]
        .iter()
        .enumerate()
        {
            let node = machine.nodes.get_mut(&from).unwrap();
            node.distances = distances.iter().copied().enumerate().collect();
        }
        let pairs = [
            hint(&[0, 1], true),
            hint(&[0, 2], true),
            hint(&[1, 3], true),
        ];
        let providers = [hints("cpu", &pairs)];
        let best = |machine| {
            Policy::BestEffort
                .decide(&[0, 1, 2, 3], machine, &providers)
                .0
        };
        assert_eq!(best(None), hint(&[0, 1], true));
        assert_eq!(best(Some(&machine)), hint(&[0, 2], true));
    }
}
