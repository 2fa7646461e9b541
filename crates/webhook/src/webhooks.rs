//! All webhooks of a process: equal configurations share a client and its connections.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::connect::Connector;
use crate::error::ConfigError;
use crate::target::ClientConfig;
use crate::tls;
use crate::webhook::Webhook;

/// Finds where a Service is reached at this moment.
pub trait Resolve: Send + Sync + 'static {
    /// Host and port to dial for a service's port, or why there is none.
    fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<(String, u16), String>;
}

/// Makes webhooks from configurations, and remembers those that are in use.
pub struct Webhooks {
    resolver: Arc<dyn Resolve>,
    known: Mutex<HashMap<ClientConfig, Weak<Webhook>>>,
}

impl std::fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhooks").finish_non_exhaustive()
    }
}

impl Webhooks {
    /// Services are found by `resolver`.
    pub fn new(resolver: Arc<dyn Resolve>) -> Webhooks {
        Webhooks {
            resolver,
            known: Mutex::default(),
        }
    }

    /// The webhook of a configuration. Nothing is dialed before it is called.
    pub fn get(&self, config: &ClientConfig) -> Result<Arc<Webhook>, ConfigError> {
        let mut known = self.known.lock();
        if let Some(webhook) = known.get(config).and_then(Weak::upgrade) {
            return Ok(webhook);
        }
        let target = config.target()?;
        let webhook = Arc::new(Webhook::new(Connector {
            tls: match target.tls {
                true => Some(Arc::new(tls::config(&config.ca_bundle)?)),
                false => None,
            },
            target: Arc::new(target),
            resolver: Some(Arc::clone(&self.resolver)),
        }));
        // Only what somebody holds is kept.
        known.retain(|_, webhook| webhook.strong_count() > 0);
        known.insert(config.clone(), Arc::downgrade(&webhook));
        Ok(webhook)
    }
}
