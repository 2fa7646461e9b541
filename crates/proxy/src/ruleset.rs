//! What the table shall hold, and how that differs from what it holds.

use std::collections::{BTreeSet, HashMap, HashSet};

use client::Key;
use netfilter::{Batch, Element, Value};

use crate::Config;
use crate::plan::{Entry, Front, Plan, Shape, Target};
use crate::rules::{self, Set};

/// What an element of a set leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Nothing,
    Shape(Shape),
    Target(Target),
}

type Slot = (Set, Value);

/// The desired table. Changes gather until [`Ruleset::changes`] turns them into
/// a transaction and [`Ruleset::committed`] says that it happened.
#[derive(Debug, Default)]
pub(crate) struct Ruleset {
    plans: HashMap<Key, Plan>,
    elements: HashMap<Slot, Content>,
    /// What the kernel holds in the slots touched since the last commit.
    touched: HashMap<Slot, Option<Content>>,
    /// Whether the kernel has the chain, for shapes touched since then.
    touched_shapes: HashMap<Shape, bool>,
    shapes: HashMap<Shape, usize>,
    hairpin: HashMap<std::net::Ipv4Addr, usize>,
    owners: HashMap<Front, Key>,
    /// Services that want a front another one has.
    losers: BTreeSet<Key>,
    removed: HashSet<(Front, Target)>,
    appeared: HashSet<Front>,
}

/// Connections the kernel should forget after a commit.
#[derive(Debug, Default)]
pub(crate) struct Stale {
    pub(crate) targets: HashSet<(Front, Target)>,
    pub(crate) fronts: HashSet<Front>,
}

impl Ruleset {
    /// Sets what a service needs; an empty plan removes it.
    pub(crate) fn set(&mut self, key: &Key, plan: Plan) {
        let mut freed = self.replace(key, plan);
        // Fronts that came free may be wanted by services that lost them before.
        while freed && !self.losers.is_empty() {
            freed = false;
            for loser in std::mem::take(&mut self.losers) {
                if let Some(plan) = self.plans.get(&loser).cloned() {
                    freed |= self.replace(&loser, plan);
                }
            }
        }
    }

    /// Returns whether a front came free.
    fn replace(&mut self, key: &Key, plan: Plan) -> bool {
        let old = self.plans.remove(key).unwrap_or_default();
        self.losers.remove(key);
        let mut owned_before: HashMap<Front, Entry> = HashMap::new();
        for entry in old.entries {
            if self.owners.get(&entry.front) == Some(key) {
                owned_before.insert(entry.front, entry);
            }
        }
        for entry in &plan.entries {
            let owner = self
                .owners
                .entry(entry.front)
                .or_insert_with(|| key.clone());
            if owner != key {
                tracing::warn!(service = %key, %owner, front = ?entry.front, "address and port are taken");
                self.losers.insert(key.clone());
                continue;
            }
            let before = owned_before.remove(&entry.front);
            self.replace_entry(before, Some(entry));
        }
        let freed = !owned_before.is_empty();
        for (front, entry) in owned_before {
            self.owners.remove(&front);
            self.replace_entry(Some(entry), None);
        }
        self.count_hairpins(&old.local, &plan.local);
        if !plan.entries.is_empty() {
            self.plans.insert(key.clone(), plan);
        }
        freed
    }

    fn replace_entry(&mut self, before: Option<Entry>, after: Option<&Entry>) {
        if before.as_ref() == after {
            return;
        }
        let Some(front) = after.or(before.as_ref()).map(|entry| entry.front) else {
            return;
        };
        if let Some(entry) = after {
            self.count_shape(&entry.shape, true);
            let content = Content::Shape(entry.shape.clone());
            self.put(rules::front_key(front), Some(content));
        } else {
            self.put(rules::front_key(front), None);
        }
        let after_targets = after.map_or(&[][..], |entry| &entry.targets);
        let stay: HashSet<Target> = after_targets.iter().map(|(_, target)| *target).collect();
        let indices: HashSet<u32> = after_targets.iter().map(|(index, _)| *index).collect();
        for (index, target) in before.iter().flat_map(|entry| &entry.targets) {
            if !indices.contains(index) {
                self.put(rules::endpoint_key(front, *index), None);
            }
            if !stay.contains(target) {
                self.removed.insert((front, *target));
            }
        }
        for (index, target) in after_targets {
            self.put(
                rules::endpoint_key(front, *index),
                Some(Content::Target(*target)),
            );
        }
        match before {
            Some(before) => self.count_shape(&before.shape, false),
            None => {
                self.appeared.insert(front);
            }
        }
    }

    fn count_shape(&mut self, shape: &Shape, more: bool) {
        for base in rules::needs(shape) {
            self.count_shape(&base, more);
        }
        let count = self.shapes.entry(shape.clone()).or_default();
        self.touched_shapes
            .entry(shape.clone())
            .or_insert(*count > 0);
        *count = if more {
            *count + 1
        } else {
            count.saturating_sub(1)
        };
        if *count == 0 {
            self.shapes.remove(shape);
        }
    }

    fn count_hairpins(&mut self, before: &[std::net::Ipv4Addr], after: &[std::net::Ipv4Addr]) {
        for address in after {
            let count = self.hairpin.entry(*address).or_default();
            *count += 1;
            if *count == 1 {
                self.put(rules::hairpin_key(*address), Some(Content::Nothing));
            }
        }
        for address in before {
            let Some(count) = self.hairpin.get_mut(address) else {
                continue;
            };
            *count -= 1;
            if *count == 0 {
                self.hairpin.remove(address);
                self.put(rules::hairpin_key(*address), None);
            }
        }
    }

    fn put(&mut self, slot: Slot, content: Option<Content>) {
        let before = match content {
            Some(content) => self.elements.insert(slot, content),
            None => self.elements.remove(&slot),
        };
        self.touched.entry(slot).or_insert(before);
    }

    /// The transaction that brings the kernel from the last commit to here.
    pub(crate) fn changes(&self, config: &Config) -> Batch {
        let mut batch = Batch::new(rules::TABLE);
        let exists = |shape: &Shape| self.shapes.contains_key(shape);
        let new = |(shape, before): &(&Shape, &bool)| !**before && exists(shape);
        let fresh = self.touched_shapes.iter().filter(new);
        add_shapes(&mut batch, config, fresh.map(|(shape, _)| shape));

        let mut gone: HashMap<Set, Vec<Element>> = HashMap::new();
        let mut come: HashMap<Set, Vec<Element>> = HashMap::new();
        for ((set, key), before) in &self.touched {
            let now = self.elements.get(&(*set, *key));
            if before.as_ref() == now {
                continue;
            }
            if before.is_some() {
                gone.entry(*set).or_default().push(Element::Key(*key));
            }
            if let Some(content) = now {
                come.entry(*set).or_default().push(element(*key, content));
            }
        }
        for set in Set::ALL {
            batch.delete_elements(set.name(), gone.get(&set).into_iter().flatten());
            batch.add_elements(set.name(), come.get(&set).into_iter().flatten());
        }

        let old = |(shape, before): &(&Shape, &bool)| {
            **before && !exists(shape) && rules::has_chain(shape)
        };
        let stale = self.touched_shapes.iter().filter(old);
        let mut stale: Vec<&Shape> = stale.map(|(shape, _)| shape).collect();
        stale.sort_by_key(|shape| std::cmp::Reverse(rules::depth(shape)));
        for shape in stale {
            batch.delete_chain(&rules::chain(shape));
        }
        batch
    }

    /// Everything but the frame.
    pub(crate) fn fill(&self, batch: &mut Batch, config: &Config) {
        rules::add_common_rules(batch, config);
        add_shapes(batch, config, self.shapes.keys());
        let mut elements: HashMap<Set, Vec<Element>> = HashMap::new();
        for ((set, key), content) in &self.elements {
            elements
                .entry(*set)
                .or_default()
                .push(element(*key, content));
        }
        for set in Set::ALL {
            batch.add_elements(set.name(), elements.get(&set).into_iter().flatten());
        }
    }

    /// The kernel now holds what is desired. Returns what it should forget.
    pub(crate) fn committed(&mut self) -> Stale {
        self.touched.clear();
        self.touched_shapes.clear();
        Stale {
            targets: std::mem::take(&mut self.removed),
            fronts: std::mem::take(&mut self.appeared),
        }
    }
}

/// Chains that others lead to come first.
fn add_shapes<'a>(batch: &mut Batch, config: &Config, shapes: impl Iterator<Item = &'a Shape>) {
    let mut shapes: Vec<&Shape> = shapes.filter(|shape| rules::has_chain(shape)).collect();
    shapes.sort_by_key(|shape| (rules::depth(shape), *shape));
    for shape in shapes {
        rules::add_shape(batch, config, shape);
    }
}

fn element(key: Value, content: &Content) -> Element {
    match content {
        Content::Nothing => Element::Key(key),
        Content::Shape(shape) => Element::Verdict(key, rules::verdict(shape)),
        Content::Target((address, port)) => {
            Element::Data(key, Value::new().address(*address).port(*port))
        }
    }
}
