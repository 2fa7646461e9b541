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
}

/// Objects as the API server's caches know them; never waits.
pub trait Lookup: Send + Sync {
    /// One object; `namespace` empty for cluster-wide kinds. `resource` is `deployments.apps` or `pods`.
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>>;
    /// All objects of a namespace, or of all namespaces when it is empty.
    fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Object>>;
}

/// One admission plugin. Plugins are synchronous and answer from caches.
pub trait Plugin: Send + Sync + 'static {
    /// Upstream's name, such as `NamespaceLifecycle`.
    fn name(&self) -> &'static str;

    /// May change the object (`None` for deletions).
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
