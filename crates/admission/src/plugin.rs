//! What a plugin sees and may do.

use std::sync::Arc;

use auth::Identity;
use meta::{Names, Object, Status};

/// The kind of write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// One write, before it happens.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub operation: Operation,
    pub names: &'a Names,
    /// Empty for cluster-wide kinds.
    pub namespace: &'a str,
    /// Empty while `generateName` is still to be resolved.
    pub name: &'a str,
    /// Such as `status`, or empty.
    pub subresource: &'a str,
    pub user: &'a Identity,
    /// The object as stored now; `None` for a creation.
    pub old: Option<&'a Object>,
    pub dry_run: bool,
    /// Takes what plugins want to say.
    pub notes: &'a dyn Notes,
}

/// Takes what plugins say beside yes and no.
pub trait Notes: Send + Sync {
    /// Tells the user something that is no failure.
    fn warn(&self, text: String);

    /// Adds to the audit record of the request, where one is kept.
    fn annotate(&self, _key: &str, _value: &str) {}

    /// What webhooks say about rights, where such webhooks decide.
    fn answers(&self) -> Option<Arc<auth::Answers>> {
        None
    }
}

impl std::fmt::Debug for dyn Notes + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notes")
    }
}

impl Request<'_> {
    /// Whether this is about `group_resource` (`pods`, `deployments.apps`) itself, not a subresource.
    pub fn is_on(&self, group_resource: &str) -> bool {
        self.subresource.is_empty() && self.resource_is(group_resource)
    }

    /// Whether this is about `group_resource` or one of its subresources.
    pub fn resource_is(&self, group_resource: &str) -> bool {
        let behind = group_resource.strip_prefix(self.names.plural.as_str());
        match self.names.group.as_str() {
            "" => behind == Some(""),
            group => behind.and_then(|rest| rest.strip_prefix('.')) == Some(group),
        }
    }

    /// The 403 of a plugin: `pods "web" is forbidden: why`. A name that is still to be generated
    /// is told by its prefix.
    pub fn refused(&self, object: Option<&Object>, why: &str) -> Status {
        let given = object.map(|object| {
            let prefix = object.text("/metadata/generateName");
            [object.name(), prefix]
                .into_iter()
                .find(|name| !name.is_empty())
        });
        let name = match (self.name, given.flatten()) {
            ("", Some(given)) => given,
            ("", None) => "Unknown",
            (name, _) => name,
        };
        Status::forbidden(self.names, name, why)
    }
}

/// An object that a write needs and that may be about to appear, such as the `default` service
/// account of a new namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// As in [`Lookup::get`].
    pub resource: &'static str,
    pub namespace: String,
    pub name: String,
    /// Nobody will make it: the API server is to.
    pub create: bool,
}

/// Objects as the API server's caches know them; never waits. It must know what its own clients
/// have been told is stored: a namespace is created and used in one breath.
pub trait Lookup: Send + Sync {
    /// One object; `namespace` empty for cluster-wide kinds. `resource` is `deployments.apps` or `pods`.
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>>;
    /// All objects of a namespace, or of all namespaces when it is empty.
    fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Object>>;

    /// Whether a user has a right; nobody has any where rights are not known.
    fn may(&self, _user: &Identity, _asked: &auth::Attributes) -> bool {
        false
    }

    /// The names of a kind, if it is served in that version.
    fn kind(&self, _group: &str, _version: &str, _kind: &str) -> Option<Names> {
        None
    }
}

/// One admission plugin. Plugins are synchronous and answer from caches.
pub trait Plugin: Send + Sync + 'static {
    /// Upstream's name, such as `NamespaceLifecycle`.
    fn name(&self) -> &'static str;

    /// What this write needs and the caches lack. The API server may wait a little for it (see
    /// [`Chain::awaited`](crate::Chain::awaited)) before it goes on; without it the write fails.
    fn awaits(
        &self,
        _request: &Request<'_>,
        _object: &Object,
        _lookup: &dyn Lookup,
    ) -> Option<Awaited> {
        None
    }

    /// May change the object. Not called for deletions.
    fn mutate(
        &self,
        _request: &Request<'_>,
        _object: &mut Object,
        _lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// May refuse the write. `object` is `None` for deletions.
    fn validate(
        &self,
        _request: &Request<'_>,
        _object: Option<&Object>,
        _lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// Told once for every admitted write whether it was stored in the end,
    /// so that a plugin can take back what it had charged.
    fn settled(&self, _request: &Request<'_>, _object: Option<&Object>, _stored: bool) {}
}
