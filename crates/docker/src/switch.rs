//! The pod network of an engine that docker shares with others: sandboxes of docker's come up
//! without a network, which docker then gives them itself; the rest go where they went before.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use node_api::{PodNetwork, PodNetworkConfig, PodNetworkResult, RuntimeError};
use parking_lot::Mutex;

/// Decides by the sandbox.
pub struct Switch {
    others: Arc<dyn PodNetwork>,
    /// Containers whose sandbox comes up, with its network namespace as soon as it is there.
    fresh: Mutex<HashMap<String, Option<PathBuf>>>,
}

impl Switch {
    /// In front of the network that all sandboxes had so far.
    pub fn new(others: Arc<dyn PodNetwork>) -> Arc<Switch> {
        Arc::new(Switch {
            others,
            fresh: Mutex::default(),
        })
    }

    /// The next sandbox with a container's id as its uid is docker's.
    pub(crate) fn expect(&self, container: &str) {
        self.fresh.lock().insert(container.to_owned(), None);
    }

    /// The namespace of the sandbox that has just come up for a container; only once.
    pub(crate) fn take(&self, container: &str) -> Option<PathBuf> {
        self.fresh.lock().remove(container).flatten()
    }
}

#[async_trait]
impl PodNetwork for Switch {
    async fn add(&self, config: &PodNetworkConfig) -> Result<PodNetworkResult, RuntimeError> {
        if let Some(netns) = self.fresh.lock().get_mut(&config.pod_uid) {
            *netns = Some(config.netns.clone());
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Has all answer from one address.
    struct Others;

    #[async_trait]
    impl PodNetwork for Others {
        async fn add(&self, _: &PodNetworkConfig) -> Result<PodNetworkResult, RuntimeError> {
            Ok(PodNetworkResult {
                ips: vec![std::net::Ipv4Addr::LOCALHOST.into()],
                ..PodNetworkResult::default()
            })
        }

        async fn del(&self, _: &str) -> Result<(), RuntimeError> {
            Ok(())
        }

        async fn gc(&self, _: &[String]) -> Result<(), RuntimeError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn only_what_docker_waits_for_comes_up_bare() {
        let switch = Switch::new(Arc::new(Others));
        let pod = |uid: &str| PodNetworkConfig {
            sandbox_id: uid.to_owned(),
            netns: "/proc/7/ns/net".into(),
            interface: "eth0".to_owned(),
            // A namespace of Kubernetes may have this name, too.
            pod_namespace: "docker".to_owned(),
            pod_name: "web".to_owned(),
            pod_uid: uid.to_owned(),
            port_mappings: Vec::new(),
        };
        switch.expect("ours");
        let ours = switch.add(&pod("ours")).await.unwrap();
        let theirs = switch.add(&pod("theirs")).await.unwrap();
        assert_eq!((ours.ips.len(), theirs.ips.len()), (0, 1));
        assert_eq!(switch.take("ours"), Some("/proc/7/ns/net".into()));
        assert_eq!(switch.take("ours"), None);
        assert_eq!(switch.add(&pod("ours")).await.unwrap().ips.len(), 1);
        switch.expect("hosts");
        assert_eq!(switch.take("hosts"), None);
    }
}
