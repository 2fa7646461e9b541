//! Sets of NUMA nodes, as bits.

/// A set of nodes 0 to 63, the most the kernel's usual configurations have in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mask(u64);

impl Mask {
    /// A set of the given nodes; what is beyond 63 is left out.
    pub fn of(nodes: impl IntoIterator<Item = usize>) -> Mask {
        let bits = nodes.into_iter().filter(|node| *node < 64);
        Mask(bits.fold(0, |mask, node| mask | 1 << node))
    }

    pub fn contains(self, node: usize) -> bool {
        node < 64 && self.0 & (1 << node) != 0
    }

    pub fn contains_any(self, nodes: impl IntoIterator<Item = usize>) -> bool {
        nodes.into_iter().any(|node| self.contains(node))
    }

    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn and(self, other: Mask) -> Mask {
        Mask(self.0 & other.0)
    }

    /// The nodes in rising order.
    pub fn nodes(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |node| self.contains(*node))
    }

    /// Fewer nodes, or as many of lower numbers.
    pub fn is_narrower_than(self, other: Mask) -> bool {
        (self.len(), self.0) < (other.len(), other.0)
    }

    /// All sets of some of these nodes but the empty one, small ones first. Machines have few nodes;
    /// of more than [`Mask::COMBINED_MAX`] only the first are combined.
    pub fn combinations(nodes: &[usize]) -> Vec<Mask> {
        let nodes = &nodes[..nodes.len().min(Mask::COMBINED_MAX)];
        let all = 1_u64..(1 << nodes.len());
        let chosen = all.map(|bits| {
            let picked = nodes.iter().enumerate();
            let picked = picked.filter(|(place, _)| bits & (1 << place) != 0);
            Mask::of(picked.map(|(_, node)| *node))
        });
        let mut all: Vec<Mask> = chosen.collect();
        all.sort_by_key(|mask| (mask.len(), *mask));
        all
    }

    /// Nodes that [`Mask::combinations`] combines.
    pub const COMBINED_MAX: usize = 16;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_combined_small_ones_first() {
        let all = Mask::combinations(&[0, 2]);
        assert_eq!(all, [Mask::of([0]), Mask::of([2]), Mask::of([0, 2])]);
        assert!(Mask::of([0]).is_narrower_than(Mask::of([2])));
        assert!(Mask::of([2]).is_narrower_than(Mask::of([0, 1])));
        assert_eq!(Mask::of([1, 3]).nodes().collect::<Vec<_>>(), [1, 3]);
        assert_eq!(Mask::of([0, 1]).and(Mask::of([1, 2])), Mask::of([1]));
        assert!(Mask::of([70]).is_empty());
    }
}
