//! The pod network of an engine that docker shares with others: sandboxes of docker's come up
//! without a network, which docker then gives them itself; the rest go where they went before.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use node_api::{PodNetwork, PodNetworkConfig, PodNetworkResult, RuntimeError};
use parking_lot::Mutex;

use crate::daemon::NAMESPACE;

/// Decides by the sandbox.
pub struct Switch {
    others: Arc<dyn PodNetwork>,
    /// Network namespaces of sandboxes that have just come up, by their containers.
    fresh: Mutex<HashMap<String, PathBuf>>,
}

impl Switch {
    /// In front of the network that all sandboxes had so far.
    pub fn new(others: Arc<dyn PodNetwork>) -> Arc<Switch> {
        Arc::new(Switch {
            others,
            fresh: Mutex::default(),
        })
    }

    /// The namespace of the sandbox that has just come up for a container; only once.
    pub(crate) fn take(&self, container: &str) -> Option<PathBuf> {
        self.fresh.lock().remove(container)
    }
}

#[async_trait]
impl PodNetwork for Switch {
    async fn add(&self, config: &PodNetworkConfig) -> Result<PodNetworkResult, RuntimeError> {
        if config.pod_namespace != NAMESPACE {
            return self.others.add(config).await;
        }
        let (container, netns) = (config.pod_uid.clone(), config.netns.clone());
        self.fresh.lock().insert(container, netns);
        Ok(PodNetworkResult::default())
    }

    async fn del(&self, sandbox_id: &str) -> Result<(), RuntimeError> {
        self.others.del(sandbox_id).await
    }

    async fn gc(&self, live_sandbox_ids: &[String]) -> Result<(), RuntimeError> {
        self.others.gc(live_sandbox_ids).await
    }
}
