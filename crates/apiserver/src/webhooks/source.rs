//! The webhooks of all configurations, compiled as soon as a configuration changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use webhook::Webhooks;

use super::hook::{Hook, compile};
use crate::cache::{Entry, Observer};

/// The mutating and the validating webhooks.
pub(crate) struct Hooks {
    pub(super) mutating: Arc<Source>,
    pub(super) validating: Arc<Source>,
}

impl Hooks {
    /// None yet. `clients` makes the clients of all webhooks of this server.
    pub(crate) fn new(clients: &Arc<Webhooks>, settings: &admission::Settings) -> Hooks {
        let source = |plugin: &str| {
            let wanted = !settings.disables(plugin);
            Arc::new(Source::new(Arc::clone(clients), wanted))
        };
        Hooks {
            mutating: source("MutatingAdmissionWebhook"),
            validating: source("ValidatingAdmissionWebhook"),
        }
    }

    /// Who must be told of the objects of a resource, if it is one of the two configurations.
    pub(crate) fn observer(&self, group_resource: &str) -> Option<Arc<dyn Observer>> {
        let source = match group_resource {
            "mutatingwebhookconfigurations.admissionregistration.k8s.io" => &self.mutating,
            "validatingwebhookconfigurations.admissionregistration.k8s.io" => &self.validating,
            _ => return None,
        };
        Some(Arc::clone(source) as Arc<dyn Observer>)
    }

    /// Whether there is any mutating webhook.
    pub(crate) fn may_mutate(&self) -> bool {
        !self.mutating.all.load().is_empty()
    }

    /// Whether there is any validating webhook.
    pub(crate) fn may_refuse(&self) -> bool {
        !self.validating.all.load().is_empty()
    }
}

/// The webhooks of one kind of configuration.
pub(super) struct Source {
    clients: Arc<Webhooks>,
    /// Whether an operator wants this kind at all.
    wanted: bool,
    by_configuration: Mutex<BTreeMap<String, Vec<Arc<Hook>>>>,
    /// In the order of their configurations' names.
    pub(super) all: ArcSwap<Vec<Arc<Hook>>>,
}

impl Source {
    fn new(clients: Arc<Webhooks>, wanted: bool) -> Source {
        Source {
            clients,
            wanted,
            by_configuration: Mutex::default(),
            all: ArcSwap::default(),
        }
    }

    fn publish(&self, by_configuration: &BTreeMap<String, Vec<Arc<Hook>>>) {
        if self.wanted {
            let all = by_configuration.values().flatten().cloned().collect();
            self.all.store(Arc::new(all));
        }
    }
}

impl Observer for Source {
    fn set(&self, entry: &Entry, _: Option<&meta::Object>) {
        // Compiled before the old ones go, so that equal clients are kept.
        let hooks = compile(&entry.decode().0, &self.clients);
        let mut all = self.by_configuration.lock();
        all.insert(entry.name().to_owned(), hooks);
        self.publish(&all);
    }

    fn remove(&self, entry: &Entry) {
        let mut all = self.by_configuration.lock();
        all.remove(entry.name());
        self.publish(&all);
    }
}
