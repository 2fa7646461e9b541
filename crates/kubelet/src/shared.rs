//! What all workers of a node share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use client::{Client, Informer};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use meta::Quantity;
use node_api::{ImageService, RuntimeService};
use placement::Placement;
use tokio::sync::watch;
use volumes::{PodFacts, Sources, Volumes};

use crate::allocations::Allocations;
use crate::config::Config;
use crate::env::service_variables;
use crate::events::Recorder;
use crate::images::Puller;
use crate::machine::Machine;
use crate::machine_cgroups::Cgroups;
use crate::measures::Measures;
use crate::pod::PodExt;
use crate::pods::Pods;
use crate::user_namespaces::UserNamespaces;

/// Handles on everything; one per kubelet.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) runtime: Arc<dyn RuntimeService>,
    pub(crate) images: Arc<dyn ImageService>,
    /// Groups that are no pod's.
    pub(crate) cgroups: Arc<dyn Cgroups>,
    pub(crate) puller: Puller,
    pub(crate) config: Config,
    pub(crate) volumes: Volumes,
    pub(crate) sources: Sources,
    pub(crate) recorder: Recorder,
    pub(crate) services: Informer<Service>,
    /// This node's own object.
    pub(crate) node: Informer<Node>,
    pub(crate) machine: Machine,
    pub(crate) pods: Arc<Pods>,
    pub(crate) allocations: Arc<Allocations>,
    /// Devices, processors and memory that containers have for themselves.
    pub(crate) placement: Arc<Placement>,
    pub(crate) user_namespaces: UserNamespaces,
    /// What was measured before, for those who ask what is used.
    pub(crate) measures: Measures,
    /// Conditions of the node that say what it is short of.
    pub(crate) pressure: watch::Sender<BTreeSet<&'static str>>,
    /// Conditions of the node that say what is wrong with it.
    pub(crate) problems: watch::Sender<BTreeMap<String, problems::State>>,
}

impl Shared {
    /// The node's resources that pods may use.
    pub(crate) fn allocatable(&self) -> BTreeMap<String, Quantity> {
        self.machine.allocatable(&self.config)
    }

    /// Gives what became free to pods that wait for it, and tells them to ask again.
    pub(crate) fn tell_waiting(&self) {
        for uid in self.allocations.reserve(&self.allocatable()) {
            self.pods.tell(&uid, |news| news.room = true);
        }
    }

    /// What the downward API may tell.
    pub(crate) fn facts(&self, pod_ips: &[IpAddr]) -> PodFacts {
        PodFacts {
            pod_ips: pod_ips.to_vec(),
            host_ips: self.config.node_ips.clone(),
            allocatable: self.allocatable(),
        }
    }

    /// The variables of services a pod sees. A static pod does not wait for the API.
    pub(crate) async fn service_variables(&self, pod: &Pod) -> BTreeMap<String, String> {
        if !pod.is_static() {
            self.services.synced().await;
        }
        let links = pod.spec().enable_service_links != Some(false);
        let mut services = match links {
            true => self.services.list_in(pod.namespace()),
            false => Vec::new(),
        };
        services.extend(self.services.get("default", "kubernetes"));
        service_variables(pod.namespace(), links, services.iter().map(AsRef::as_ref))
    }
}
