//! What policies are asked about: one write, in every version in which a rule may mean it.

use std::borrow::Cow;
use std::pin::Pin;

use auth::Identity;
use meta::{Names, Status};
use schema::TypeRef;
use serde_json::{Value, json};

use super::matching::word;
use crate::plugin::{Lookup, Notes, Operation};

/// What may need a conversion webhook.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send + 'a>>;

/// One write, as policies are asked about it.
pub struct Subject<'a> {
    pub operation: Operation,
    /// The resource that the client speaks of.
    pub names: &'a Names,
    /// Such as `status`, or empty.
    pub subresource: &'a str,
    /// Empty for cluster-wide kinds; of a Namespace its own name.
    pub namespace: &'a str,
    pub name: &'a str,
    pub user: &'a Identity,
    pub dry_run: bool,
    /// Such as CreateOptions.
    pub options: &'a Value,
    /// Takes warnings and audit annotations.
    pub notes: &'a dyn Notes,
    pub lookup: &'a dyn Lookup,
    pub views: &'a dyn Views,
}

/// How the objects of a write look to those who know them by another version.
pub trait Views: Send + Sync {
    /// Other resources that show the same objects.
    fn equivalents(&self) -> Vec<Names>;

    /// Group, version and kind of what a resource shows: a Scale is not what it scales.
    fn kind(&self, names: &Names) -> [String; 3] {
        [
            names.group.clone(),
            names.version.clone(),
            names.kind.clone(),
        ]
    }

    /// The shape of what a resource shows.
    fn shape(&self, names: &Names) -> Option<TypeRef>;

    /// A kept object as a resource shows it.
    fn shown<'s, 'v: 's>(&'s self, names: &'s Names, kept: &'v Value) -> Later<'s, Cow<'v, Value>>;

    /// What was made of `before` as a resource shows it, as it is kept.
    fn kept<'s>(&'s self, names: &'s Names, shown: Value, before: &'s Value) -> Later<'s, Value>;
}

impl Subject<'_> {
    /// Whether the write is one of a Namespace itself, or below it.
    pub(super) fn is_namespaces(&self) -> bool {
        self.names.group.is_empty() && self.names.plural == "namespaces"
    }

    /// The 403 of a policy, in whose words the message will be.
    pub(super) fn refused(&self, object: Option<&Value>, why: &str) -> Status {
        let text = |pointer: &str| {
            let text = object.and_then(|object| object.pointer(pointer)?.as_str());
            text.filter(|text| !text.is_empty())
        };
        let given = || text("/metadata/name").or_else(|| text("/metadata/generateName"));
        let name = match self.name {
            "" => given().unwrap_or("Unknown"),
            name => name,
        };
        Status::forbidden(self.names, name, why)
    }

    /// The `request` variable: an AdmissionRequest without its objects.
    pub(super) fn request(&self, names: &Names) -> Value {
        let user = self.user;
        let mut info = json!({"username": user.name, "groups": user.groups});
        if !user.uid.is_empty() {
            info["uid"] = user.uid.as_str().into();
        }
        if !user.extra.is_empty() {
            info["extra"] = json!(user.extra);
        }
        let kind = |names: &Names| {
            let [group, version, kind] = self.views.kind(names);
            json!({"group": group, "version": version, "kind": kind})
        };
        let resource = |names: &Names| json!({"group": names.group, "version": names.version, "resource": names.plural});
        let mut tree = json!({
            "kind": kind(names),
            "resource": resource(names),
            "requestKind": kind(self.names),
            "requestResource": resource(self.names),
            "name": self.name,
            "namespace": self.namespace,
            "operation": word(self.operation),
            "userInfo": info,
            "dryRun": self.dry_run,
            "options": self.options,
        });
        if !self.subresource.is_empty() {
            tree["subResource"] = self.subresource.into();
            tree["requestSubResource"] = self.subresource.into();
        }
        tree
    }
}
