//! Server-side apply: who owns which field, and what an applied configuration changes.

mod compare;
mod last_applied;
mod managers;
mod merge;
mod request;
mod set;
mod typed;
mod validate;
mod versions;

use std::cell::OnceCell;

use serde_json::{Map, Value};

use crate::types::Type;
use compare::{Difference, Encoded};
use managers::Manager;
pub use request::{ApplyError, ApplyOptions, Conflict, UpdateOptions};
use set::Set;
use typed::Atom;
pub use versions::{Unconverted, Versions, update_managed_fields_between};

/// The applier that takes over from client-side apply.
const KUBECTL: &str = "kubectl";
/// Who owns what was there before anybody was recorded.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
const MANAGED_FIELDS: &str = "managedFields";
/// What nobody owns.
const UNOWNED: [&str; 12] = [
    "apiVersion",
    "kind",
    "metadata",
    "metadata.name",
    "metadata.namespace",
    "metadata.creationTimestamp",
    "metadata.selfLink",
    "metadata.uid",
    "metadata.clusterName",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.resourceVersion",
];

/// Both trees are stored objects.
const BOTH: Encoded = Encoded {
    old: true,
    new: true,
};
/// The first tree is a stored object, the second what a configuration made of it.
const LIVE: Encoded = Encoded {
    old: true,
    new: false,
};

/// Merges a configuration into the live object (`None`: there is none yet) and returns the result
/// with its new `metadata.managedFields`, in the shape that [`crate::check`] leaves.
///
/// `live` has passed [`crate::check`]; `applied` is the tree as the user wrote it, because what it
/// names is what the manager will own. When nothing changes the result equals `live`, times included.
pub fn apply(
    ty: &Type,
    live: Option<&Value>,
    applied: &Value,
    options: ApplyOptions<'_>,
) -> Result<Value, ApplyError> {
    apply_among(ty, live, applied, options, None)
}

/// The same for a kind whose versions have other fields. Both trees are of
/// `options.api_version`, the version that the client speaks.
pub fn apply_between(
    ty: &Type,
    live: Option<&Value>,
    applied: &Value,
    options: ApplyOptions<'_>,
    versions: &dyn Versions,
) -> Result<Value, ApplyError> {
    apply_among(ty, live, applied, options, Some(versions))
}

fn apply_among(
    ty: &Type,
    live: Option<&Value>,
    applied: &Value,
    options: ApplyOptions<'_>,
    versions: Option<&dyn Versions>,
) -> Result<Value, ApplyError> {
    validate::configuration(ty, applied, options.api_version)?;
    let (checked, blank) = (live, OnceCell::new());
    let live = match live {
        Some(live) => live,
        None => blank.get_or_init(|| blank_object(ty, applied)),
    };
    let broken = || ApplyError::Invalid("failed to decode managed fields".into());
    let zero = OnceCell::new();
    let found = || -> Result<Vec<Manager<'_>>, ApplyError> {
        let found = managers::decode(live.pointer("/metadata/managedFields"));
        let found = found.ok_or_else(broken)?;
        Ok(match found.is_empty() {
            true => first_owner(ty, zero.get_or_init(|| typed::zero(ty)), live, options),
            false => found,
        })
    };
    let application = Application {
        ty,
        live,
        applied,
        options,
        versions,
    };
    let tried = application.run(found()?, options.force);
    let done = match tried {
        Err(ApplyError::Conflicts(conflicts)) if options.manager == KUBECTL => {
            let allowed = last_applied::allowed(ty, live, options.api_version).unwrap_or_default();
            let rest = last_applied::rest_of(conflicts, &allowed);
            match rest.is_empty() {
                true => application.run(found()?, true),
                false => Err(ApplyError::Conflicts(rest)),
            }
        }
        other => other,
    };
    let mut merged = done?;
    if options.manager == KUBECTL {
        last_applied::renew(&mut merged, applied);
    }
    crate::check::check_beside(ty, &mut merged, checked)
        .map_err(|error| ApplyError::Invalid(error.to_string()))?;
    Ok(merged)
}

/// What upstream merges into when there is no object.
fn blank_object(ty: &Type, applied: &Value) -> Value {
    let mut blank = typed::zero(ty);
    for field in ["apiVersion", "kind"] {
        blank[field] = applied[field].clone();
    }
    blank
}

/// The owner of all that is there when nobody is recorded.
fn first_owner<'a>(
    ty: &'a Type,
    zero: &'a Value,
    live: &'a Value,
    options: ApplyOptions<'a>,
) -> Vec<Manager<'a>> {
    let change = compare::compare(ty, zero, live, BOTH);
    let set = owned(change.into_changed(), options.reset);
    match set.is_empty() {
        true => Vec::new(),
        false => vec![Manager {
            name: BEFORE_FIRST_APPLY.into(),
            applied: false,
            api_version: options.api_version.into(),
            subresource: options.subresource.into(),
            time: Some(options.now.into()),
            set,
        }],
    }
}

/// A set without what the endpoint resets and what nobody owns.
fn owned<'a>(set: Set<'a>, reset: &[&str]) -> Set<'a> {
    set.without_trees(reset).without_paths(&UNOWNED)
}

/// One attempt to apply.
#[derive(Clone, Copy)]
struct Application<'a> {
    ty: &'a Type,
    live: &'a Value,
    applied: &'a Value,
    options: ApplyOptions<'a>,
    versions: Option<&'a dyn Versions>,
}

impl<'a> Application<'a> {
    fn run(self, mut managers: Vec<Manager<'a>>, force: bool) -> Result<Value, ApplyError> {
        let root = Atom::Struct(self.ty);
        let (_, set) = typed::field_set(root, self.applied);
        let me = Manager {
            name: self.options.manager.into(),
            applied: true,
            api_version: self.options.api_version.into(),
            subresource: self.options.subresource.into(),
            time: None,
            set: set.without_trees(self.options.reset),
        };
        let place = managers.iter().position(|manager| manager.is(&me));
        let last = place.map(|place| managers.remove(place));
        let versions = self.versions_beside(&managers, last.as_ref());
        let mut merged = match versions {
            None => unmanaged(self.live),
            // Whoever converts it may want to see all of it.
            Some(_) => self.live.clone(),
        };
        merge::merge(root, &mut merged, self.applied);
        match (&last, versions) {
            (Some(last), None) => prune(self.ty, &mut merged, &last.set, &me.set, &managers),
            (Some(last), Some(versions)) => {
                let mut all = managers.clone();
                all.push(me.clone());
                versions::prune(versions, self.options.api_version, &mut merged, last, &all)?;
            }
            (None, _) => {}
        }
        let mut change =
            compare::compare(self.ty, self.live, &merged, LIVE).without(self.options.reset);
        change.removed = change.removed.without_paths(&["metadata.managedFields"]);
        let conflicts = match versions {
            None => settle(&mut managers, &change, force),
            Some(versions) => versions::Change {
                versions,
                api_version: self.options.api_version,
                old: self.live,
                new: &merged,
                encoded: LIVE,
                reset: self.options.reset,
            }
            .settle(&mut managers, &change, force)?,
        };
        if !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
        let unchanged = same_unmanaged(&merged, self.live);
        let me = Manager {
            set: owned(me.set, &[]),
            time: match unchanged {
                true => last.and_then(|last| last.time),
                false => Some(self.options.now.into()),
            },
            ..me
        };
        managers.push(me);
        let encoded = managers::encode(managers);
        set_managed_fields(&mut merged, encoded);
        Ok(merged)
    }

    /// The versions, where any manager speaks another than the request.
    fn versions_beside(
        self,
        managers: &[Manager<'_>],
        last: Option<&Manager<'_>>,
    ) -> Option<&'a dyn Versions> {
        let mut all = managers.iter().chain(last);
        let is_other = |one: &Manager<'_>| one.api_version != self.options.api_version;
        self.versions.filter(|_| all.any(is_other))
    }
}

/// Takes out what the manager applied last time, not this time, and nobody else owns.
fn prune(ty: &Type, merged: &mut Value, last: &Set<'_>, now: &Set<'_>, others: &[Manager<'_>]) {
    let dropped = last.difference(now);
    if dropped.is_empty() {
        return;
    }
    let root = Atom::Struct(ty);
    let last = typed::with_named(last, root);
    let mut pruned = merged.clone();
    typed::remove(root, &mut pruned, &last);
    let managed = others
        .iter()
        .fold(now.clone(), |all, manager| all.union(&manager.set));
    let managed = typed::with_named(&managed, root);
    let everything = {
        let (_, set) = typed::field_set(root, merged);
        typed::with_named(&set, root)
    };
    // Back comes what somebody owns …
    let left = typed::with_named(&typed::field_set(root, &pruned).1, root);
    let gone = everything.difference(&left.union(&managed));
    let mut pruned = merged.clone();
    typed::remove(root, &mut pruned, &gone);
    // … and what was never this manager's.
    let left = typed::with_named(&typed::field_set(root, &pruned).1, root);
    let gone = everything.difference(&left).intersection(&last);
    let mut pruned = merged.clone();
    typed::remove(root, &mut pruned, &gone);
    *merged = pruned;
}

/// Takes changed fields from their owners; unless forced, says instead which that would be.
fn settle<'a>(managers: &mut [Manager<'a>], change: &Difference<'_>, force: bool) -> Vec<Conflict> {
    let changed = change.changed();
    let taken: Vec<Set<'a>> = managers
        .iter()
        .map(|manager| manager.set.intersection(&changed))
        .collect();
    if !force {
        let mut conflicts = Vec::new();
        for (manager, set) in managers.iter().zip(&taken) {
            let of = manager.describe();
            let conflict = |field| Conflict {
                manager: of.clone(),
                field,
            };
            conflicts.extend(set.paths().into_iter().map(conflict));
        }
        // Stable: fields of one manager stay in their order.
        conflicts.sort_by(|one, two| one.manager.cmp(&two.manager));
        if !conflicts.is_empty() {
            return conflicts;
        }
    }
    for (manager, set) in managers.iter_mut().zip(&taken) {
        if !set.is_empty() {
            manager.set = manager.set.difference(set);
        }
        if !change.removed.is_empty() {
            manager.set = manager.set.difference(&change.removed);
        }
    }
    Vec::new()
}

/// A copy of an object without its managed fields, which are most of it.
fn unmanaged(object: &Value) -> Value {
    let Value::Object(map) = object else {
        return object.clone();
    };
    let fields = map.iter().map(|(name, value)| {
        let value = match (name.as_str(), value) {
            ("metadata", Value::Object(metadata)) => {
                let rest = metadata.iter().filter(|(name, _)| *name != MANAGED_FIELDS);
                Value::Object(
                    rest.map(|(name, value)| (name.clone(), value.clone()))
                        .collect(),
                )
            }
            _ => value.clone(),
        };
        (name.clone(), value)
    });
    Value::Object(fields.collect())
}

/// Whether two objects are equal but for their managed fields.
fn same_unmanaged(one: &Value, two: &Value) -> bool {
    fn rest<'v>(
        map: &'v Map<String, Value>,
        without: &'static str,
    ) -> impl Iterator<Item = (&'v String, &'v Value)> {
        map.iter().filter(move |(name, _)| *name != without)
    }
    let (Value::Object(one), Value::Object(two)) = (one, two) else {
        return one == two;
    };
    rest(one, "metadata").eq(rest(two, "metadata"))
        && match (one.get("metadata"), two.get("metadata")) {
            (Some(Value::Object(one)), Some(Value::Object(two))) => {
                rest(one, MANAGED_FIELDS).eq(rest(two, MANAGED_FIELDS))
            }
            (one, two) => one == two,
        }
}

fn set_managed_fields(object: &mut Value, encoded: Option<Value>) {
    let metadata = match encoded {
        Some(_) => Some(meta::object::map_at(object, "metadata")),
        None => object.get_mut("metadata").and_then(Value::as_object_mut),
    };
    if let Some(metadata) = metadata {
        match encoded {
            Some(encoded) => metadata.insert("managedFields".into(), encoded),
            None => metadata.remove("managedFields"),
        };
    }
}

/// Records in `new`'s `metadata.managedFields` what a create (`live` is `None`), an update or a
/// patch changed. Both trees have passed [`crate::check`]. The entries that `new` brings along
/// count, except through a subresource; an empty list in it forgets all managers.
pub fn update_managed_fields(
    ty: &Type,
    live: Option<&Value>,
    new: &mut Value,
    options: UpdateOptions<'_>,
) {
    let brought = take_managed_fields(new);
    let kept = live.and_then(|live| live.pointer("/metadata/managedFields"));
    let managers = match options.subresource.is_empty() {
        true if managers::is_reset(brought.as_ref()) => Some(Vec::new()),
        true => managers::decode(brought.as_ref()).filter(|managers| !managers.is_empty()),
        false => None,
    };
    let managers = managers
        .or_else(|| managers::decode(kept))
        .unwrap_or_default();
    // An object that was never tracked is tracked from its first apply on.
    let encoded = match live.is_some() && managers.is_empty() {
        true => None,
        false => {
            let zero;
            let live = match live {
                Some(live) => live,
                None => {
                    zero = blank_object(ty, new);
                    &zero
                }
            };
            record(ty, live, new, managers, options)
        }
    };
    set_managed_fields(new, encoded);
}

fn take_managed_fields(object: &mut Value) -> Option<Value> {
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    metadata.remove("managedFields")
}

fn record<'a>(
    ty: &'a Type,
    live: &'a Value,
    new: &'a Value,
    mut managers: Vec<Manager<'a>>,
    options: UpdateOptions<'a>,
) -> Option<Value> {
    let change = compare::compare(ty, live, new, BOTH).without(options.reset);
    settle(&mut managers, &change, true);
    let set = owned(change.into_changed(), options.reset);
    enter(managers, set, options)
}

/// Adds what a write has set to what its manager owns.
fn enter<'a>(
    mut managers: Vec<Manager<'a>>,
    set: Set<'a>,
    options: UpdateOptions<'a>,
) -> Option<Value> {
    if !set.is_empty() {
        let me = Manager {
            name: if options.manager.is_empty() {
                "unknown".into()
            } else {
                options.manager.into()
            },
            applied: false,
            api_version: options.api_version.into(),
            subresource: options.subresource.into(),
            time: Some(options.now.into()),
            set,
        };
        match managers.iter_mut().find(|manager| manager.is(&me)) {
            Some(manager) => {
                manager.set = manager.set.union(&me.set);
                manager.time = me.time;
            }
            None => managers.push(me),
        }
    }
    managers.retain(|manager| !manager.set.is_empty());
    managers::cap(&mut managers);
    managers::encode(managers)
}
