//! Who owns whom: the objects of all kinds with the edges between them, and what a change of one
//! makes worth another look. Pure.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::cluster::discovery::Resource;
use crate::cluster::monitor::{ItemMeta, Owner};

/// Finalizer of an object that waits for its dependents to go first.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object whose dependents are to outlive it.
pub(super) const ORPHAN: &str = "orphan";

pub(super) type Uid = Arc<str>;

/// What is worth doing for one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Task {
    /// See whether it lost its last owner, or waits for its dependents.
    Judge(Uid),
    /// Let its dependents go on without it.
    Orphan(Uid),
}

/// An object, as little as will do.
#[derive(Debug)]
pub(super) struct Node {
    pub resource: Arc<Resource>,
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub owners: Box<[Edge]>,
    /// It has a deletion timestamp.
    pub deleting: bool,
    /// It is deleted once no dependent blocks that any more.
    pub foreground: bool,
    pub orphaning: bool,
}

/// A reference from an object to an owner of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub owner: Uid,
    pub blocks: bool,
    /// Digest of the group, kind and name that the reference gives.
    names: u64,
}

/// How an owner stands, as far as the graph knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Solid,
    /// It only waits for its dependents to be gone.
    Waiting,
    Unknown,
}

/// All objects with their edges, both ways.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: HashMap<Uid, Node>,
    dependents: HashMap<Uid, HashSet<Uid>>,
}

impl Graph {
    /// An object by its uid.
    pub(super) fn node(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The uids of the objects that name this one as an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Uid> {
        let found = self.dependents.get(uid);
        found.into_iter().flatten().cloned().collect()
    }

    /// The dependents that keep an object which waits for them.
    pub(super) fn blocking(&self, uid: &str) -> Vec<Uid> {
        let blocks = |dependent: &Uid| {
            let edges = self.nodes.get(dependent).map(|node| &node.owners);
            edges.is_some_and(|edges| edges.iter().any(|edge| &*edge.owner == uid && edge.blocks))
        };
        self.dependents(uid).into_iter().filter(blocks).collect()
    }

    /// Number of objects.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// How the owner that `reference` names stands, for a dependent of `namespace`.
    pub(super) fn standing(&self, reference: &Owner, namespace: &str) -> Standing {
        self.standing_of(&reference.uid, names_of(reference), namespace)
    }

    /// Whether all owners of an object are known and none of them is about to go.
    pub(super) fn is_held(&self, node: &Node) -> bool {
        node.owners.iter().all(|edge| {
            self.standing_of(&edge.owner, edge.names, &node.namespace) == Standing::Solid
        })
    }

    fn standing_of(&self, uid: &str, names: u64, namespace: &str) -> Standing {
        let Some(owner) = self.nodes.get(uid) else {
            return Standing::Unknown;
        };
        let here = !owner.resource.namespaced || &*owner.namespace == namespace;
        let named = digest(&owner.resource.group, &owner.resource.kind, &owner.name) == names;
        match (here && named, owner.foreground) {
            (false, _) => Standing::Unknown,
            (true, true) => Standing::Waiting,
            (true, false) => Standing::Solid,
        }
    }

    /// An object was created or changed.
    pub(super) fn put(&mut self, resource: &Arc<Resource>, item: ItemMeta) -> Vec<Task> {
        let uid: Uid = item.uid.as_str().into();
        let has = |finalizer: &str| item.finalizers.iter().any(|one| one == finalizer);
        let deleting = item.deletion_timestamp.is_some();
        let edge = |owner: &Owner| Edge {
            owner: owner.uid.as_str().into(),
            blocks: owner.block_owner_deletion,
            names: names_of(owner),
        };
        let node = Node {
            resource: resource.clone(),
            namespace: item.namespace.as_str().into(),
            name: item.name.as_str().into(),
            owners: item.owner_references.iter().map(edge).collect(),
            deleting,
            foreground: deleting && has(FOREGROUND),
            orphaning: deleting && has(ORPHAN),
        };
        let old = self.nodes.remove(&uid);
        let mut tasks = self.connect(&uid, old.as_ref(), &node);
        if node.orphaning && !old.as_ref().is_some_and(|old| old.orphaning) {
            tasks.push(Task::Orphan(uid.clone()));
        }
        if node.foreground && !old.is_some_and(|old| old.foreground) {
            tasks.push(Task::Judge(uid.clone()));
        }
        self.nodes.insert(uid, node);
        tasks
    }

    /// Follows a change of an object's owners.
    fn connect(&mut self, uid: &Uid, old: Option<&Node>, new: &Node) -> Vec<Task> {
        let before = old.map(|old| &*old.owners).unwrap_or_default();
        if before == &*new.owners {
            return Vec::new();
        }
        let mut tasks = Vec::new();
        for edge in before {
            let still = new.owners.iter().find(|one| one.owner == edge.owner);
            if still.is_none() {
                self.disconnect(uid, &edge.owner);
            }
            if still.is_none_or(|still| edge.blocks && !still.blocks) {
                tasks.extend(self.wake_waiting(&edge.owner));
            }
        }
        for edge in &new.owners {
            let dependents = self.dependents.entry(edge.owner.clone()).or_default();
            dependents.insert(uid.clone());
        }
        if !new.owners.is_empty() && !self.is_held(new) {
            tasks.push(Task::Judge(uid.clone()));
        }
        tasks
    }

    fn disconnect(&mut self, uid: &Uid, owner: &Uid) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(uid);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    fn wake_waiting(&self, owner: &Uid) -> Option<Task> {
        let waiting = self.nodes.get(owner).is_some_and(|node| node.foreground);
        waiting.then(|| Task::Judge(owner.clone()))
    }

    /// An object is gone.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<Task> {
        let mut tasks = Vec::new();
        if let Some((uid, node)) = self.nodes.remove_entry(uid) {
            for edge in &node.owners {
                self.disconnect(&uid, &edge.owner);
                tasks.extend(self.wake_waiting(&edge.owner));
            }
        }
        tasks.extend(self.dependents(uid).into_iter().map(Task::Judge));
        tasks
    }

    /// All objects of a resource, as a list has them.
    pub(super) fn replace(&mut self, resource: &Arc<Resource>, items: Vec<ItemMeta>) -> Vec<Task> {
        let fresh: HashSet<&str> = items.iter().map(|item| item.uid.as_str()).collect();
        let known = self.nodes.iter().filter(|(_, node)| {
            node.resource.group == resource.group && node.resource.plural == resource.plural
        });
        let gone: Vec<Uid> = known
            .filter(|(uid, _)| !fresh.contains(&***uid))
            .map(|(uid, _)| uid.clone())
            .collect();
        let mut tasks = Vec::new();
        for uid in gone {
            tasks.extend(self.remove(&uid));
        }
        for item in items {
            tasks.extend(self.put(resource, item));
        }
        // An owner may have come and gone while nobody watched.
        let lost = self
            .dependents
            .iter()
            .filter(|(owner, _)| !self.nodes.contains_key(*owner));
        tasks.extend(lost.flat_map(|(_, of)| of.iter().cloned().map(Task::Judge)));
        tasks
    }
}

fn names_of(owner: &Owner) -> u64 {
    digest(owner.group(), &owner.kind, &owner.name)
}

fn digest(group: &str, kind: &str, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (group, kind, name).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(kind: &str, plural: &str, namespaced: bool) -> Arc<Resource> {
        Arc::new(Resource {
            kind: kind.into(),
            plural: plural.into(),
            namespaced,
            ..Resource::default()
        })
    }

    fn pods() -> Arc<Resource> {
        kind("Pod", "pods", true)
    }

    fn item(uid: &str, owners: &[&str]) -> ItemMeta {
        let owner = |uid: &&str| Owner {
            api_version: "v1".into(),
            kind: "Pod".into(),
            name: format!("n-{uid}"),
            uid: (*uid).to_owned(),
            block_owner_deletion: true,
        };
        ItemMeta {
            name: format!("n-{uid}"),
            namespace: "default".into(),
            uid: uid.into(),
            owner_references: owners.iter().map(owner).collect(),
            ..ItemMeta::default()
        }
    }

    fn deleting(mut item: ItemMeta, finalizer: &str) -> ItemMeta {
        item.deletion_timestamp = Some("2026-01-01T00:00:00Z".into());
        item.finalizers = vec![finalizer.into()];
        item
    }

    fn judge(uid: &str) -> Task {
        Task::Judge(uid.into())
    }

    #[test]
    fn the_loss_of_an_owner_is_looked_into() {
        let mut graph = Graph::default();
        assert_eq!(graph.put(&pods(), item("a", &[])), []);
        assert_eq!(graph.put(&pods(), item("b", &["a"])), []);
        assert_eq!(graph.put(&pods(), item("c", &["ghost"])), [judge("c")]);
        assert_eq!(
            graph.put(&pods(), item("c", &["ghost"])),
            [],
            "nothing changed"
        );
        assert_eq!(graph.remove("a"), [judge("b")]);
        assert!(!graph.is_held(graph.node("b").unwrap()));
        assert_eq!(graph.remove("b"), []);
        assert!(
            !graph.dependents.contains_key("a"),
            "edges go with their objects"
        );
    }

    #[test]
    fn an_owner_elsewhere_or_of_another_name_is_none() {
        let mut graph = Graph::default();
        let mut elsewhere = item("a", &[]);
        elsewhere.namespace = "other".into();
        graph.put(&pods(), elsewhere);
        assert_eq!(graph.put(&pods(), item("b", &["a"])), [judge("b")]);
        let mut renamed = item("c", &[]);
        renamed.name = "different".into();
        graph.put(&pods(), renamed);
        assert_eq!(graph.put(&pods(), item("d", &["c"])), [judge("d")]);
        let mut wide = item("w", &[]);
        wide.namespace = String::new();
        graph.put(&kind("Pod", "wides", false), wide);
        assert_eq!(graph.put(&pods(), item("e", &["w"])), []);
    }

    #[test]
    fn foreground_waits_for_those_that_block() {
        let mut graph = Graph::default();
        graph.put(&pods(), item("a", &[]));
        graph.put(&pods(), item("b", &["a"]));
        let tasks = graph.put(&pods(), deleting(item("a", &[]), FOREGROUND));
        assert_eq!(tasks, [judge("a")]);
        assert_eq!(graph.blocking("a"), ["b".into()]);
        let reference = &item("x", &["a"]).owner_references[0];
        assert_eq!(graph.standing(reference, "default"), Standing::Waiting);
        let mut free = item("b", &["a"]);
        free.owner_references[0].block_owner_deletion = false;
        assert!(graph.put(&pods(), free).contains(&judge("a")));
        assert!(graph.blocking("a").is_empty());
        assert_eq!(graph.remove("b"), [judge("a")]);
    }

    #[test]
    fn orphaning_is_asked_for_once() {
        let mut graph = Graph::default();
        let leaving = || deleting(item("a", &[]), ORPHAN);
        assert_eq!(graph.put(&pods(), leaving()), [Task::Orphan("a".into())]);
        assert_eq!(graph.put(&pods(), leaving()), []);
    }

    #[test]
    fn a_list_tells_what_was_missed() {
        let mut graph = Graph::default();
        let sets = kind("Pod", "sets", true);
        graph.put(&sets, item("a", &[]));
        graph.put(&pods(), item("b", &["a"]));
        graph.put(&pods(), item("c", &["never"]));
        let tasks = graph.replace(&sets, vec![]);
        assert!(tasks.contains(&judge("b")) && tasks.contains(&judge("c")));
        assert_eq!(graph.len(), 2);
    }
}
