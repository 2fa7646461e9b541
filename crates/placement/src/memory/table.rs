//! What there is of memory on each NUMA node, what of it is given, and to whom; as it is written
//! down, with upstream's names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::numa::Mask;

/// Amounts by `memory` and `hugepages-…`.
pub(crate) type Amounts = BTreeMap<String, i64>;

/// One kind of memory on one node, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Table {
    pub(crate) total: i64,
    pub(crate) system_reserved: i64,
    pub(crate) allocatable: i64,
    pub(crate) reserved: i64,
    pub(crate) free: i64,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeState {
    pub(crate) number_of_assignments: i64,
    pub(crate) memory_map: BTreeMap<String, Table>,
    /// The nodes that give together with this one.
    pub(crate) cells: Vec<usize>,
}

/// So much of one kind, from these nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryBlock {
    #[serde(rename = "numaAffinity")]
    pub nodes: Vec<usize>,
    /// `memory` or `hugepages-…`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes.
    pub size: i64,
}

/// All nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Nodes(pub(crate) BTreeMap<usize, NodeState>);

impl Nodes {
    /// Nothing is given yet; `reserved` is what nobody gets.
    pub(crate) fn of_machine(machine: &Machine, reserved: &BTreeMap<usize, Amounts>) -> Nodes {
        let nodes = machine.nodes.iter().map(|(id, node)| {
            let kept = |kind: &str| {
                let of_node = reserved.get(id).and_then(|all| all.get(kind));
                of_node.copied().unwrap_or(0)
            };
            let table = |kind: &str, total: i64, others: i64| {
                let allocatable = (total - kept(kind) - others).max(0);
                let table = Table {
                    total,
                    system_reserved: kept(kind),
                    allocatable,
                    reserved: 0,
                    free: allocatable,
                };
                (kind.to_owned(), table)
            };
            let pages: i64 = node.huge_pages.values().sum();
            let mut map: BTreeMap<String, Table> = node
                .huge_pages
                .iter()
                .map(|(kib, bytes)| table(&huge_pages(*kib), *bytes, 0))
                .collect();
            map.extend([table("memory", node.memory_bytes, pages)]);
            let state = NodeState {
                number_of_assignments: 0,
                memory_map: map,
                cells: vec![*id],
            };
            (*id, state)
        });
        Nodes(nodes.collect())
    }

    fn table(&self, node: usize, kind: &str) -> Table {
        let node = self.0.get(&node);
        let table = node.and_then(|node| node.memory_map.get(kind));
        table.copied().unwrap_or_default()
    }

    /// A sum over some nodes.
    pub(crate) fn sum(&self, mask: Mask, kind: &str, of: impl Fn(Table) -> i64) -> i64 {
        mask.nodes().map(|node| of(self.table(node, kind))).sum()
    }

    /// Gives so much of the nodes, the lowest first.
    pub(crate) fn give(&mut self, nodes: &[usize], kind: &str, mut size: i64) {
        for id in nodes {
            let Some(node) = self.0.get_mut(id) else {
                continue;
            };
            node.number_of_assignments += 1;
            node.cells = nodes.to_vec();
            if let Some(table) = node.memory_map.get_mut(kind) {
                let part = size.min(table.free).max(0);
                table.reserved += part;
                table.free -= part;
                size -= part;
            }
        }
    }

    /// Takes a block back.
    pub(crate) fn take_back(&mut self, block: &MemoryBlock) {
        let mut size = block.size;
        for id in &block.nodes {
            let Some(node) = self.0.get_mut(id) else {
                continue;
            };
            node.number_of_assignments -= 1;
            if node.number_of_assignments == 0 {
                node.cells = vec![*id];
            }
            if let Some(table) = node.memory_map.get_mut(&block.kind) {
                let part = size.min(table.reserved);
                table.free += part;
                table.reserved -= part;
                size -= part;
            }
        }
    }

    /// Whether nodes have given in other groups than this one.
    pub(crate) fn violates(&self, mask: Mask) -> bool {
        let group: Vec<usize> = mask.nodes().collect();
        let busy = self.0.iter().filter(|(id, _)| mask.contains(**id));
        let mut busy = busy.filter(|(_, node)| node.number_of_assignments > 0);
        group.len() > 1 && busy.any(|(_, node)| node.cells != group)
    }

    /// The same nodes with the same room; which of a group's nodes gave may differ.
    pub(crate) fn agree(&self, other: &Nodes) -> bool {
        let same_node = |id: &usize, one: &NodeState| {
            let Some(two) = other.0.get(id) else {
                return false;
            };
            let group = Mask::of(one.cells.iter().copied());
            let same_table = |kind: &String, table: &Table| {
                let known = two.memory_map.get(kind);
                known.is_some_and(|known| {
                    let same = |of: fn(&Table) -> i64| of(table) == of(known);
                    let sums = |of: fn(Table) -> i64| {
                        self.sum(group, kind, of) == other.sum(group, kind, of)
                    };
                    same(|t| t.total)
                        && same(|t| t.system_reserved)
                        && same(|t| t.allocatable)
                        && sums(|t| t.free)
                        && sums(|t| t.reserved)
                })
            };
            one.number_of_assignments == two.number_of_assignments
                && one.cells == two.cells
                && one.memory_map.len() == two.memory_map.len()
                && one
                    .memory_map
                    .iter()
                    .all(|(kind, table)| same_table(kind, table))
        };
        self.0.len() == other.0.len() && self.0.iter().all(|(id, one)| same_node(id, one))
    }
}

/// The resource of huge pages of a size.
pub(crate) fn huge_pages(kib: i64) -> String {
    match kib {
        kib if kib % (1 << 20) == 0 => format!("hugepages-{}Gi", kib >> 20),
        kib if kib % (1 << 10) == 0 => format!("hugepages-{}Mi", kib >> 10),
        kib => format!("hugepages-{kib}Ki"),
    }
}
