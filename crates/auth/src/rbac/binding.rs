//! A RoleBinding or ClusterRoleBinding: whom it names, and how it explains a decision.

use std::fmt::Write;
use std::sync::Arc;

use meta::Object;
use serde::Deserialize;
use serde_json::Value;

use super::{RoleRef, not_found};
use crate::identity::Identity;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

/// A binding as it comes in.
pub(super) struct Binding {
    pub(super) role_ref: RoleRef,
    pub(super) grounds: Grounds,
}

/// Somebody whom a binding names: users and service accounts by user name, groups by theirs.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) is_group: bool,
    pub(super) name: Arc<str>,
}

/// Why a binding allows something, in upstream's words.
#[derive(Default)]
pub(super) struct Grounds {
    /// What is true of all; what names each holder; what is said when the role is missing.
    text: Box<str>,
    /// In the binding's order, with the end of the text that names each.
    holders: Box<[(Holder, u32)]>,
    /// Where that of the first begins.
    begin: u32,
}

impl Binding {
    /// Subjects that do not decode bind nobody.
    pub(super) fn read(object: &Object) -> Binding {
        let (name, namespace) = (object.name(), object.namespace());
        let role_ref = object.fields().get("roleRef").unwrap_or(&Value::Null);
        let role_ref = RoleRef::deserialize(role_ref).unwrap_or_default();
        let mut text = String::from("RBAC: allowed by ");
        let _ = match namespace {
            "" => write!(text, "ClusterRoleBinding {name:?}"),
            space => write!(text, "RoleBinding \"{name}/{space}\""),
        };
        let _ = write!(text, " of {} {:?} to ", role_ref.kind, role_ref.name);
        let begin = text.len() as u32;
        let mut holders = Vec::new();
        let subjects = object.fields().get("subjects").and_then(Value::as_array);
        for subject in subjects.into_iter().flatten() {
            if let Ok(subject) = Subject::deserialize(subject)
                && let Some(holder) = subject.holder(namespace)
            {
                subject.describe(namespace, &mut text);
                holders.push((holder, text.len() as u32));
            }
        }
        text.push_str(&not_found(&role_ref));
        let grounds = Grounds {
            text: text.into(),
            holders: holders.into(),
            begin,
        };
        Binding { role_ref, grounds }
    }
}

impl Subject {
    /// Without a namespace, a service account is one of the binding's.
    fn space<'s>(&'s self, namespace: &'s str) -> Option<&'s str> {
        let mut own = [self.namespace.as_str(), namespace].into_iter();
        own.find(|space| !space.is_empty())
    }

    fn holder(&self, namespace: &str) -> Option<Holder> {
        let (is_group, name) = match self.kind.as_str() {
            "Group" => (true, self.name.as_str().into()),
            "User" => (false, self.name.as_str().into()),
            "ServiceAccount" => {
                let space = self.space(namespace)?;
                let user = format!("system:serviceaccount:{space}:{}", self.name);
                (false, user.into())
            }
            _ => return None,
        };
        Some(Holder { is_group, name })
    }

    fn describe(&self, namespace: &str, out: &mut String) {
        let Subject { kind, name, .. } = self;
        let _ = match (kind.as_str(), self.space(namespace)) {
            ("ServiceAccount", Some(space)) => write!(out, "{kind} \"{name}/{space}\""),
            _ => write!(out, "{kind} {name:?}"),
        };
    }
}

impl Holder {
    fn is(&self, identity: &Identity) -> bool {
        match self.is_group {
            true => identity.is_in(&self.name),
            false => *self.name == *identity.name,
        }
    }
}

impl Grounds {
    /// Whom the binding names, each once, by the place of the first mention.
    pub(super) fn holders(&self) -> Vec<(u32, Holder)> {
        let mut found: Vec<(u32, Holder)> = Vec::with_capacity(self.holders.len());
        for (at, (holder, _)) in self.holders.iter().enumerate() {
            found.push((at as u32, holder.clone()));
        }
        let key = |one: &(u32, Holder)| (one.1.is_group, Arc::clone(&one.1.name));
        // Stable, so that the first mention stays.
        found.sort_by_key(key);
        found.dedup_by(|one, two| one.1 == two.1);
        found
    }

    /// Why the binding allows something to the user: `RBAC: allowed by …`. The holder at `at` is
    /// the user or a group of the user; one named before may be as well.
    pub(super) fn explain(&self, at: u32, identity: &Identity) -> String {
        let at = at as usize;
        let mut before = self.holders[..at].iter();
        let at = before.position(|(own, _)| own.is(identity)).unwrap_or(at);
        let begin = match at {
            0 => self.begin,
            at => self.holders[at - 1].1,
        };
        let named = &self.text[begin as usize..self.holders[at].1 as usize];
        [&self.text[..self.begin as usize], named].concat()
    }

    /// What is said when the role is missing.
    pub(super) fn missing(&self) -> &str {
        let end = self.holders.last().map_or(self.begin, |(_, end)| *end);
        &self.text[end as usize..]
    }
}
