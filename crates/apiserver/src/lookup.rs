//! What admission and authentication ask the caches.

use std::sync::Arc;

use auth::token::{Found, TokenLookup};
use auth::{Answers, Attributes, Authorizer, Decision, Identity};
use meta::{Names, Object};

use crate::cache::{Entry, Observer};
use crate::registry::Registry;

/// Answers from the caches; never waits.
#[derive(Clone)]
pub(crate) struct Lookup {
    registry: Arc<Registry>,
    authorizer: Arc<Authorizer>,
    answers: Option<Arc<Answers>>,
}

impl Lookup {
    pub(crate) fn new(registry: Arc<Registry>, authorizer: Arc<Authorizer>) -> Lookup {
        Lookup {
            registry,
            authorizer,
            answers: None,
        }
    }

    /// The same for one request, whose questions about rights webhooks answer too.
    pub(crate) fn with(&self, answers: &Arc<Answers>) -> Lookup {
        Lookup {
            answers: Some(Arc::clone(answers)),
            ..self.clone()
        }
    }

    fn entry(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        let now = self.registry.now();
        let resource = now.by_name(resource)?;
        let key = resource.key(namespace, name);
        resource.cache.as_ref()?.get(&key)
    }
}

impl admission::Lookup for Lookup {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        Some(self.entry(resource, namespace, name)?.shared_tree())
    }

    fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Object>> {
        let now = self.registry.now();
        let cache = now
            .by_name(resource)
            .and_then(|resource| resource.cache.clone());
        let Some(cache) = cache else {
            return Vec::new();
        };
        let prefix = match namespace {
            "" => String::new(),
            namespace => format!("{namespace}/"),
        };
        let map = cache.snapshot(0).map;
        map.prefixed(&prefix)
            .map(|entry| entry.shared_tree())
            .collect()
    }

    fn may(&self, user: &Identity, asked: &Attributes) -> bool {
        let answers = self.answers.as_deref();
        let decision = self.authorizer.authorize_known(user, asked, answers);
        matches!(decision, Decision::Allow(_))
    }

    fn kind(&self, group: &str, version: &str, kind: &str) -> Option<Names> {
        let now = self.registry.now();
        let resources = now.of(group, version)?.iter();
        let mut kept = resources.filter(|own| own.cache.is_some());
        let found = kept.find(|own| own.row.names.kind == kind)?;
        Some(found.row.names.clone())
    }
}

/// Tells policies of what they are made of.
pub(crate) struct PolicyObserver {
    pub(crate) policies: Arc<admission::Policies>,
    pub(crate) group_resource: String,
}

impl Observer for PolicyObserver {
    fn set(&self, entry: &Entry, _: Option<&Object>) {
        self.policies.set(&self.group_resource, &entry.decode());
    }

    fn remove(&self, entry: &Entry) {
        self.policies.remove(&self.group_resource, entry.name());
    }
}

impl TokenLookup for Lookup {
    fn find(&self, resource: &str, namespace: &str, name: &str) -> Option<Found> {
        let tree = self.entry(resource, namespace, name)?.shared_tree();
        Some(Found {
            uid: tree.uid().to_owned(),
            deleted_at: tree.deletion_timestamp().and_then(meta::time::parse),
        })
    }

    fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        Some(self.entry(resource, namespace, name)?.shared_tree())
    }
}

/// Tells the authorizer of the objects it decides from.
pub(crate) struct Rights {
    pub(crate) authorizer: Arc<Authorizer>,
    pub(crate) group_resource: String,
}

impl Observer for Rights {
    fn set(&self, entry: &Entry, tree: Option<&Object>) {
        match tree {
            Some(tree) => self.authorizer.set(&self.group_resource, tree),
            None => self.authorizer.set(&self.group_resource, &entry.decode()),
        }
    }

    fn remove(&self, entry: &Entry) {
        self.authorizer
            .remove(&self.group_resource, entry.namespace(), entry.name());
    }
}
