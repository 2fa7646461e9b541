//! Roles by name, grants by subject.
//!
//! A decision looks up the user and each group by name once, and walks their grants: one short
//! list in one piece per subject, with the numbers of role and binding. A change of a role or a
//! binding touches that role or the subjects of that binding, nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use super::RoleRef;
use super::binding::{Binding, Grounds, Holder};
use super::compiled::{Compiled, Question};
use super::rule::Rule;
use super::words::{Slab, Words};
use crate::identity::{Attributes, Identity};

/// The number of the space of all that is cluster-wide.
const CLUSTER: u32 = 0;
/// The number of the role that never is there.
const NOWHERE: u32 = 0;

/// One binding of one subject.
#[derive(Clone, Copy)]
pub(super) struct Grant {
    space: u32,
    role: u32,
    binding: u32,
    /// The subject's place in the binding.
    place: u32,
}

/// The grants of a subject, by space; those of one space in the order in which they came.
type Grants = HashMap<Arc<str>, Vec<Grant>>;

pub(super) struct Index {
    words: Words,
    numbers: HashMap<Arc<str>, u32>,
    spaces: Slab<Space>,
    /// Those that are there, and those that bindings name.
    roles: Slab<Compiled>,
    /// What decisions do not need of them, by the same numbers.
    cold: Vec<Cold>,
    bindings: Slab<Bound>,
    users: Grants,
    groups: Grants,
}

/// A namespace, or the cluster (by the empty name), and what it has by name.
struct Space {
    name: Arc<str>,
    roles: HashMap<Arc<str>, u32>,
    bindings: HashMap<Box<str>, u32>,
}

struct Cold {
    space: u32,
    name: Arc<str>,
    /// How many bindings name the role.
    uses: usize,
}

#[derive(Default)]
struct Bound {
    role: u32,
    grounds: Grounds,
}

impl Default for Space {
    fn default() -> Space {
        Space {
            name: "".into(),
            roles: HashMap::new(),
            bindings: HashMap::new(),
        }
    }
}

impl Default for Index {
    fn default() -> Index {
        let mut index = Index {
            words: Words::default(),
            numbers: HashMap::new(),
            spaces: Slab::default(),
            roles: Slab::default(),
            cold: Vec::new(),
            bindings: Slab::default(),
            users: HashMap::new(),
            groups: HashMap::new(),
        };
        index.space("");
        // Takes the number and no name: nothing finds it.
        index.add_role(CLUSTER, "".into());
        index
    }
}

impl Index {
    pub(super) fn set_role(&mut self, namespace: &str, name: &str, rules: &[Rule]) {
        let space = self.space(namespace);
        let role = self.role_in(space, name);
        let compiled = Compiled::new(rules, &mut self.words);
        let before = std::mem::replace(self.roles.get_mut(role), compiled);
        before.release(&mut self.words);
    }

    pub(super) fn remove_role(&mut self, namespace: &str, name: &str) {
        let Some(space) = self.numbers.get(namespace).copied() else {
            return;
        };
        if let Some(role) = self.spaces.get(space).roles.get(name).copied() {
            let before = std::mem::take(self.roles.get_mut(role));
            before.release(&mut self.words);
            self.leave_role(role);
        }
    }

    pub(super) fn set_binding(&mut self, namespace: &str, name: &str, binding: Binding) {
        self.remove_binding(namespace, name);
        let space = self.space(namespace);
        let role = self.role_of(&binding.role_ref, space);
        self.cold[role as usize].uses += 1;
        let holders = binding.grounds.holders();
        let grounds = binding.grounds;
        let binding = self.bindings.add(Bound { role, grounds });
        let names = &mut self.spaces.get_mut(space).bindings;
        names.insert(name.into(), binding);
        for (place, holder) in holders {
            let grant = Grant {
                space,
                role,
                binding,
                place,
            };
            let grants = self.grants_mut(&holder).entry(holder.name).or_default();
            let end = grants.partition_point(|own| own.space <= space);
            grants.insert(end, grant);
        }
    }

    pub(super) fn remove_binding(&mut self, namespace: &str, name: &str) {
        let Some(space) = self.numbers.get(namespace).copied() else {
            return;
        };
        let Some(binding) = self.spaces.get_mut(space).bindings.remove(name) else {
            return;
        };
        let Bound { role, grounds } = self.bindings.remove(binding);
        for (_, holder) in grounds.holders() {
            let all = self.grants_mut(&holder);
            if let Some(grants) = all.get_mut(&holder.name) {
                let begin = grants.partition_point(|own| own.space < space);
                let place = grants[begin..]
                    .iter()
                    .position(|own| own.binding == binding);
                if let Some(place) = place {
                    grants.remove(begin + place);
                }
                if grants.is_empty() {
                    all.remove(&holder.name);
                }
            }
        }
        self.cold[role as usize].uses -= 1;
        self.leave_role(role);
        self.leave_space(space);
    }

    /// Why somebody allows it; else what is said of each role that is missing.
    pub(super) fn decide<'i>(
        &'i self,
        identity: &Identity,
        asked: &Attributes,
    ) -> Result<String, Vec<&'i str>> {
        let question = Question::of(asked, &self.words);
        let mut missing = Vec::new();
        for grant in self.grants(identity, &asked.namespace) {
            let role = self.roles.get(grant.role);
            if role.allows(&question, &self.words) {
                let binding = self.bindings.get(grant.binding);
                return Ok(binding.grounds.explain(grant.place, identity));
            }
            if !role.is_there() {
                missing.push(self.bindings.get(grant.binding).grounds.missing());
            }
        }
        Err(missing)
    }

    /// The rules that apply to a user, in the order of decisions.
    pub(super) fn rules_for(&self, identity: &Identity, namespace: &str) -> Vec<Rule> {
        let rules = |grant: &Grant| self.roles.get(grant.role).rules(&self.words);
        let grants = self.grants(identity, namespace);
        grants.filter_map(rules).flatten().collect()
    }

    /// The rules of a role, as a binding in `namespace` sees it.
    pub(super) fn rules(&self, role_ref: &RoleRef, namespace: &str) -> Option<Vec<Rule>> {
        let space = self.numbers.get(home(role_ref, namespace)?)?;
        let role = self.spaces.get(*space).roles.get(&*role_ref.name)?;
        self.roles.get(*role).rules(&self.words)
    }

    /// The grants that apply to a user: cluster-wide ones, then those of the namespace. A binding
    /// that names the user twice, as such and by a group, comes twice.
    fn grants<'i>(
        &'i self,
        identity: &Identity,
        namespace: &str,
    ) -> impl Iterator<Item = &'i Grant> + use<'i> {
        let mut found: Vec<&[Grant]> = Vec::with_capacity(2 * (1 + identity.groups.len()));
        found.extend(self.users.get(identity.name.as_str()).map(Vec::as_slice));
        let groups = identity.groups.iter();
        found.extend(groups.filter_map(|group| self.groups.get(group.as_str()).map(Vec::as_slice)));
        let local = match (namespace, found.is_empty()) {
            ("", _) | (_, true) => None,
            (namespace, _) => self.numbers.get(namespace).copied(),
        };
        for at in 0..found.len() {
            if let Some(local) = local {
                found.push(of_space(found[at], local));
            }
            found[at] = of_space(found[at], CLUSTER);
        }
        found.into_iter().flatten()
    }

    fn grants_mut(&mut self, holder: &Holder) -> &mut Grants {
        match holder.is_group {
            true => &mut self.groups,
            false => &mut self.users,
        }
    }

    /// The number of a namespace, which is made when it is new.
    fn space(&mut self, name: &str) -> u32 {
        if let Some(space) = self.numbers.get(name) {
            return *space;
        }
        let name: Arc<str> = name.into();
        let space = self.spaces.add(Space {
            name: Arc::clone(&name),
            ..Space::default()
        });
        self.numbers.insert(name, space);
        space
    }

    fn leave_space(&mut self, number: u32) {
        let space = self.spaces.get(number);
        // It may have left with its last role.
        let is_there = self.numbers.get(&space.name) == Some(&number);
        if number != CLUSTER && is_there && space.roles.is_empty() && space.bindings.is_empty() {
            let space = self.spaces.remove(number);
            self.numbers.remove(&space.name);
        }
    }

    /// The number of the role that a binding of a space names.
    fn role_of(&mut self, role_ref: &RoleRef, space: u32) -> u32 {
        let namespace = Arc::clone(&self.spaces.get(space).name);
        match home(role_ref, &namespace) {
            None => NOWHERE,
            Some("") => self.role_in(CLUSTER, &role_ref.name),
            Some(_) => self.role_in(space, &role_ref.name),
        }
    }

    fn role_in(&mut self, space: u32, name: &str) -> u32 {
        if let Some(role) = self.spaces.get(space).roles.get(name) {
            return *role;
        }
        let name: Arc<str> = name.into();
        let role = self.add_role(space, Arc::clone(&name));
        self.spaces.get_mut(space).roles.insert(name, role);
        role
    }

    fn add_role(&mut self, space: u32, name: Arc<str>) -> u32 {
        let role = self.roles.add(Compiled::default());
        let uses = 0;
        let cold = Cold { space, name, uses };
        match self.cold.get_mut(role as usize) {
            Some(old) => *old = cold,
            None => self.cold.push(cold),
        }
        role
    }

    /// Forgets a role that is not there and that no binding names.
    fn leave_role(&mut self, role: u32) {
        let cold = &self.cold[role as usize];
        if role == NOWHERE || cold.uses > 0 || self.roles.get(role).is_there() {
            return;
        }
        let space = cold.space;
        self.spaces.get_mut(space).roles.remove(&cold.name);
        self.roles.remove(role);
        self.leave_space(space);
    }
}

/// The namespace of the role that a binding in `namespace` names; empty: it is cluster-wide.
fn home<'n>(role_ref: &RoleRef, namespace: &'n str) -> Option<&'n str> {
    match role_ref.kind.as_str() {
        "ClusterRole" => Some(""),
        "Role" if !namespace.is_empty() => Some(namespace),
        _ => None,
    }
}

fn of_space(grants: &[Grant], space: u32) -> &[Grant] {
    let begin = match space {
        CLUSTER => 0,
        space => grants.partition_point(|own| own.space < space),
    };
    let rest = &grants[begin..];
    let length = rest.partition_point(|own| own.space == space);
    &rest[..length]
}

#[cfg(test)]
impl Index {
    /// How much is kept: words, spaces, roles, bindings, subjects.
    pub(super) fn sizes(&self) -> [usize; 5] {
        [
            self.words.len(),
            self.spaces.len(),
            self.roles.len(),
            self.bindings.len(),
            self.users.len() + self.groups.len(),
        ]
    }
}
