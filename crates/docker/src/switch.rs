//! The pod network of an engine that docker shares with others: sandboxes of ours go to docker's
//! networks, the rest where they went before.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use node_api::{PodNetwork, PodNetworkConfig, PodNetworkResult, RuntimeError};
use parking_lot::Mutex;

use crate::daemon::NAMESPACE;

/// Where a container's sandbox is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attachment {
    Nothing,
    Bridge,
}

/// Decides by the sandbox.
pub struct Switch {
    others: Arc<dyn PodNetwork>,
    wishes: Mutex<HashMap<String, Attachment>>,
}

impl Switch {
    /// In front of the network that all sandboxes had so far.
    pub fn new(others: Arc<dyn PodNetwork>) -> Arc<Switch> {
        Arc::new(Switch {
            others,
            wishes: Mutex::default(),
        })
    }

    /// What the next sandbox of this container is attached to.
    pub(crate) fn wish(&self, container: &str, attachment: Attachment) {
        self.wishes.lock().insert(container.to_owned(), attachment);
    }

    pub(crate) fn forget(&self, container: &str) {
        self.wishes.lock().remove(container);
    }
}

#[async_trait]
impl PodNetwork for Switch {
    async fn add(&self, config: &PodNetworkConfig) -> Result<PodNetworkResult, RuntimeError> {
        let wish = self.wishes.lock().get(&config.pod_uid).copied();
        if config.pod_namespace == NAMESPACE && wish == Some(Attachment::Nothing) {
            network::bring_up_loopback_of(&config.netns).await?;
            return Ok(PodNetworkResult::default());
        }
        self.others.add(config).await
    }

    async fn del(&self, sandbox_id: &str) -> Result<(), RuntimeError> {
        self.others.del(sandbox_id).await
    }

    async fn gc(&self, live_sandbox_ids: &[String]) -> Result<(), RuntimeError> {
        self.others.gc(live_sandbox_ids).await
    }
}
