//! Field managers of a kind whose versions have other fields: what a manager owns in one version
//! is compared in that version, and somebody else converts the objects.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use super::compare::{Difference, compare};
use super::managers::{self, Manager};
use super::request::{Conflict, UpdateOptions};
use super::set::Set;
use super::typed::{self, Atom};
use super::{BOTH, Encoded, owned, set_managed_fields, settle, take_managed_fields};
use crate::types::Type;

/// The versions of one kind.
pub trait Versions {
    /// The type of a version such as `sea.example.com/v2`; `None` when the kind has no such
    /// version any more.
    fn ty(&self, api_version: &str) -> Option<&Type>;

    /// An object of any version in this one.
    fn convert(&self, object: &Value, api_version: &str) -> Result<Value, Unconverted>;
}

/// A conversion that has to be asked for first; then the same can be tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not converted to {api_version} yet")]
pub struct Unconverted {
    pub object: Value,
    pub api_version: String,
}

/// The object in a version, without a copy where it is of that version.
fn seen<'v>(
    versions: &dyn Versions,
    object: &'v Value,
    api_version: &str,
) -> Result<Cow<'v, Value>, Unconverted> {
    match object
        .get("apiVersion")
        .is_some_and(|own| own == api_version)
    {
        true => Ok(Cow::Borrowed(object)),
        false => versions.convert(object, api_version).map(Cow::Owned),
    }
}

/// A change of an object as its managers see it.
#[derive(Clone, Copy)]
pub(super) struct Change<'c> {
    pub(super) versions: &'c dyn Versions,
    /// The version in which the change was asked for.
    pub(super) api_version: &'c str,
    pub(super) old: &'c Value,
    pub(super) new: &'c Value,
    pub(super) encoded: Encoded,
    pub(super) reset: &'c [&'c str],
}

impl Change<'_> {
    /// [`settle`] for managers of several versions; `own` is what differs in the version of the
    /// request. Managers of versions that are gone leave.
    pub(super) fn settle(
        &self,
        managers: &mut Vec<Manager<'_>>,
        own: &Difference<'_>,
        force: bool,
    ) -> Result<Vec<Conflict>, Unconverted> {
        let mut groups: BTreeMap<String, Vec<Manager<'_>>> = BTreeMap::new();
        for manager in managers.iter().cloned() {
            let group = groups.entry(manager.api_version.clone().into_owned());
            group.or_default().push(manager);
        }
        let (mut left, mut conflicts) = (Vec::new(), Vec::new());
        for (version, mut group) in groups {
            if version == self.api_version {
                conflicts.extend(settle(&mut group, own, force));
            } else if let Some(ty) = self.versions.ty(&version) {
                let old = seen(self.versions, self.old, &version)?;
                let new = seen(self.versions, self.new, &version)?;
                let difference = compare(ty, &old, &new, self.encoded).without(self.reset);
                conflicts.extend(settle(&mut group, &difference, force));
            } else {
                continue;
            }
            left.extend(group);
        }
        if conflicts.is_empty() {
            *managers = left;
        }
        conflicts.sort_by(|one, two| one.manager.cmp(&two.manager));
        Ok(conflicts)
    }
}

/// Takes out of `merged` what the manager applied last time, in whatever version that was, not
/// this time, and nobody else owns. `all` holds what everybody owns now, the manager too.
pub(super) fn prune(
    versions: &dyn Versions,
    api_version: &str,
    merged: &mut Value,
    last: &Manager<'_>,
    all: &[Manager<'_>],
) -> Result<(), Unconverted> {
    let version = &*last.api_version;
    let Some(ty) = versions.ty(version).filter(|_| !last.set.is_empty()) else {
        return Ok(());
    };
    let root = Atom::Struct(ty);
    let before = seen(versions, merged, version)?.into_owned();
    let set = typed::with_named(&last.set, root);
    let mut pruned = before.clone();
    typed::remove(root, &mut pruned, &set);
    // Back comes what somebody owns, first in the version at hand: without it, conversion may
    // lack what it needs.
    let mut owned: Vec<(&str, Set<'_>)> = vec![(version, Set::new())];
    for manager in all {
        let same = owned.iter_mut().find(|one| one.0 == &*manager.api_version);
        match same {
            Some((_, set)) => *set = set.union(&manager.set),
            None => owned.push((&manager.api_version, manager.set.clone())),
        }
    }
    let mut whole = before.clone();
    for (version, managed) in owned {
        let Some(ty) = versions.ty(version) else {
            continue;
        };
        let root = Atom::Struct(ty);
        whole = seen(versions, &whole, version)?.into_owned();
        pruned = seen(versions, &pruned, version)?.into_owned();
        let (everything, left) = (members(root, &whole), members(root, &pruned));
        let kept = left.union(&typed::with_named(&managed, root));
        let gone = everything.difference(&kept);
        let mut next = whole.clone();
        typed::remove(root, &mut next, &gone);
        pruned = next;
    }
    // What was never this manager's comes back too.
    let pruned = seen(versions, &pruned, version)?.into_owned();
    let everything = members(root, &before);
    let gone = everything
        .difference(&members(root, &pruned))
        .intersection(&set);
    let mut left = before.clone();
    typed::remove(root, &mut left, &gone);
    *merged = seen(versions, &left, api_version)?.into_owned();
    Ok(())
}

fn members<'a>(root: Atom<'a>, value: &'a Value) -> Set<'a> {
    typed::with_named(&typed::field_set(root, value).1, root)
}

/// [`crate::update_managed_fields`] for a kind whose versions have other fields. Both trees are of
/// `options.api_version`, the version that the client speaks.
pub fn update_managed_fields_between(
    ty: &Type,
    live: &Value,
    new: &mut Value,
    options: UpdateOptions<'_>,
    versions: &dyn Versions,
) -> Result<(), Unconverted> {
    let brought = take_managed_fields(new);
    let kept = live.pointer("/metadata/managedFields");
    let found = match options.subresource.is_empty() {
        true if managers::is_reset(brought.as_ref()) => Some(Vec::new()),
        true => managers::decode(brought.as_ref()).filter(|managers| !managers.is_empty()),
        false => None,
    };
    let found = found.or_else(|| managers::decode(kept)).unwrap_or_default();
    let encoded = match found.is_empty() {
        true => None,
        false => record(ty, live, new, found, options, versions)?,
    };
    set_managed_fields(new, encoded);
    Ok(())
}

fn record<'a>(
    ty: &'a Type,
    live: &'a Value,
    new: &'a Value,
    mut managers: Vec<Manager<'a>>,
    options: UpdateOptions<'a>,
    versions: &dyn Versions,
) -> Result<Option<Value>, Unconverted> {
    let change = Change {
        versions,
        api_version: options.api_version,
        old: live,
        new,
        encoded: BOTH,
        reset: options.reset,
    };
    let own = compare(ty, live, new, BOTH).without(options.reset);
    change.settle(&mut managers, &own, true)?;
    let set = owned(own.into_changed(), options.reset);
    Ok(super::enter(managers, set, options))
}
