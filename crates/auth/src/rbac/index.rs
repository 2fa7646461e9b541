//! Roles by name, bindings by subject.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use meta::Object;
use serde::Deserialize;
use serde_json::Value;

use super::RoleRef;
use super::rule::Rule;
use crate::identity::Identity;

/// Names by namespace; the empty namespace holds what is cluster-wide.
type Spaces<T> = HashMap<String, T>;

#[derive(Default)]
pub(super) struct Index {
    roles: Spaces<HashMap<String, Arc<[Rule]>>>,
    bindings: Spaces<Space>,
}

/// The bindings of one namespace.
#[derive(Default)]
struct Space {
    by_name: HashMap<String, Arc<Binding>>,
    /// Users, service accounts under their user names.
    by_user: HashMap<String, Vec<Arc<Binding>>>,
    by_group: HashMap<String, Vec<Arc<Binding>>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

/// A RoleBinding or ClusterRoleBinding.
#[derive(Debug, Default)]
pub(super) struct Binding {
    name: String,
    namespace: String,
    role_ref: RoleRef,
    subjects: Vec<Subject>,
}

/// A binding that applies to a user; shown as upstream explains permissions.
pub(super) struct Bound<'a> {
    binding: &'a Binding,
    identity: &'a Identity,
}

impl Binding {
    /// Subjects that do not decode bind nobody.
    pub(super) fn read(object: &Object) -> Binding {
        let subjects = object.fields().get("subjects").and_then(Value::as_array);
        let role_ref = object.fields().get("roleRef").unwrap_or(&Value::Null);
        let decode = |subject: &Value| Subject::deserialize(subject).ok();
        Binding {
            name: object.name().into(),
            namespace: object.namespace().into(),
            role_ref: RoleRef::deserialize(role_ref).unwrap_or_default(),
            subjects: subjects.into_iter().flatten().filter_map(decode).collect(),
        }
    }
}

impl Subject {
    /// The user name of a user or service account.
    fn user(&self, namespace: &str) -> Option<String> {
        match self.kind.as_str() {
            "User" => Some(self.name.clone()),
            "ServiceAccount" => {
                let own = [self.namespace.as_str(), namespace];
                let space = own.into_iter().find(|space| !space.is_empty())?;
                Some(format!("system:serviceaccount:{space}:{}", self.name))
            }
            _ => None,
        }
    }

    fn names(&self, identity: &Identity, namespace: &str) -> bool {
        match self.kind.as_str() {
            "Group" => identity.is_in(&self.name),
            _ => self.user(namespace).as_deref() == Some(&identity.name),
        }
    }
}

impl Index {
    pub(super) fn set_role(&mut self, namespace: &str, name: &str, rules: Arc<[Rule]>) {
        self.roles
            .entry(namespace.into())
            .or_default()
            .insert(name.into(), rules);
    }

    pub(super) fn remove_role(&mut self, namespace: &str, name: &str) {
        if let Some(space) = self.roles.get_mut(namespace) {
            space.remove(name);
            if space.is_empty() {
                self.roles.remove(namespace);
            }
        }
    }

    pub(super) fn set_binding(&mut self, namespace: &str, name: &str, binding: Binding) {
        self.remove_binding(namespace, name);
        self.bindings
            .entry(namespace.into())
            .or_default()
            .add(name, Arc::new(binding));
    }

    pub(super) fn remove_binding(&mut self, namespace: &str, name: &str) {
        if let Some(space) = self.bindings.get_mut(namespace) {
            space.remove(name);
            if space.by_name.is_empty() {
                self.bindings.remove(namespace);
            }
        }
    }

    /// The bindings that apply to a user: cluster-wide ones, then those of the namespace.
    /// One that names the user twice may come twice.
    pub(super) fn bound<'a>(
        &'a self,
        identity: &'a Identity,
        namespace: &str,
    ) -> impl Iterator<Item = Bound<'a>> {
        let local = (!namespace.is_empty())
            .then(|| self.bindings.get(namespace))
            .flatten();
        let spaces = self.bindings.get("").into_iter().chain(local);
        spaces.flat_map(move |space| {
            let by_user = space.by_user.get(&identity.name).into_iter();
            let groups = identity.groups.iter();
            let by_group = groups.filter_map(|group| space.by_group.get(group));
            let found = by_user.chain(by_group).flatten();
            found.map(move |binding| Bound { binding, identity })
        })
    }

    /// The rules of a role, as a binding in `namespace` sees it.
    pub(super) fn rules(&self, role_ref: &RoleRef, namespace: &str) -> Option<&Arc<[Rule]>> {
        let space = match role_ref.kind.as_str() {
            "ClusterRole" => "",
            "Role" if !namespace.is_empty() => namespace,
            _ => return None,
        };
        self.roles.get(space)?.get(&role_ref.name)
    }
}

impl Space {
    fn add(&mut self, name: &str, binding: Arc<Binding>) {
        for (by, key) in keys(&binding) {
            self.by(by)
                .entry(key)
                .or_default()
                .push(Arc::clone(&binding));
        }
        self.by_name.insert(name.into(), binding);
    }

    fn remove(&mut self, name: &str) {
        let Some(binding) = self.by_name.remove(name) else {
            return;
        };
        for (by, key) in keys(&binding) {
            let map = self.by(by);
            if let Some(list) = map.get_mut(&key) {
                list.retain(|other| !Arc::ptr_eq(other, &binding));
                if list.is_empty() {
                    map.remove(&key);
                }
            }
        }
    }

    fn by(&mut self, by: By) -> &mut HashMap<String, Vec<Arc<Binding>>> {
        match by {
            By::User => &mut self.by_user,
            By::Group => &mut self.by_group,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    User,
    Group,
}

/// Under which keys a binding is found, each once.
fn keys(binding: &Binding) -> Vec<(By, String)> {
    let key = |subject: &Subject| match subject.kind.as_str() {
        "Group" => Some((By::Group, subject.name.clone())),
        _ => Some((By::User, subject.user(&binding.namespace)?)),
    };
    let mut keys: Vec<_> = binding.subjects.iter().filter_map(key).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

impl Bound<'_> {
    pub(super) fn role_ref(&self) -> &RoleRef {
        &self.binding.role_ref
    }

    pub(super) fn namespace(&self) -> &str {
        &self.binding.namespace
    }
}

impl fmt::Display for Bound<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Binding {
            name,
            namespace,
            role_ref,
            subjects,
        } = self.binding;
        match namespace.as_str() {
            "" => write!(f, "ClusterRoleBinding {name:?}")?,
            space => write!(f, "RoleBinding \"{name}/{space}\"")?,
        }
        write!(f, " of {} {:?} to ", role_ref.kind, role_ref.name)?;
        match subjects
            .iter()
            .find(|subject| subject.names(self.identity, namespace))
        {
            Some(Subject {
                kind,
                name,
                namespace: own,
            }) if kind == "ServiceAccount" => {
                let space = if own.is_empty() { namespace } else { own };
                write!(f, "{kind} \"{name}/{space}\"")
            }
            Some(Subject { kind, name, .. }) => write!(f, "{kind} {name:?}"),
            None => f.write_str("nobody"),
        }
    }
}
