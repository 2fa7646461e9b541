//! News for one pod's worker. Everything merges, so an inbox never grows
//! beyond what there is to know.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use node_api::ContainerStatus;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::images::StartError;
use crate::probe::{Finding, ProbeKind};
use crate::resize::Given;

/// How an attempt to start a container went.
#[derive(Clone, Debug)]
pub(crate) struct StartOutcome {
    pub(crate) name: String,
    /// The job it belongs to.
    pub(crate) job: u64,
    pub(crate) container: Option<ContainerStatus>,
    /// What it was started with.
    pub(crate) resources: Given,
    pub(crate) error: Option<StartError>,
}

/// The order to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Eviction {
    /// What the pod's status and an event say.
    pub(crate) reason: &'static str,
    /// `None`: as long as the pod itself wants.
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) message: String,
}

/// What happened since the worker last looked.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) pod: Option<Arc<Pod>>,
    /// The API's image of a static pod; the inner `None` means that there is none.
    pub(crate) mirror: Option<Option<Arc<Pod>>>,
    /// The pod is no longer wanted by anyone.
    pub(crate) gone: bool,
    /// Containers and sandboxes (by id) to ask the runtime about.
    pub(crate) dirty: HashSet<(String, String)>,
    /// Ask about everything.
    pub(crate) resync: bool,
    /// A ConfigMap or Secret changed.
    pub(crate) sources: bool,
    /// Devices of the pod are well or unwell again.
    pub(crate) devices: bool,
    /// Another pod of the node needs less than before.
    pub(crate) room: bool,
    /// The pod has to go, for the node is short of something.
    pub(crate) evicted: Option<Eviction>,
    /// The pod has so many seconds to end, for the machine goes down.
    pub(crate) shutdown: Option<i64>,
    /// Ended containers (by id) of which the node has too many.
    pub(crate) surplus: HashSet<String>,
    pub(crate) findings: HashMap<(String, ProbeKind), Finding>,
    pub(crate) outcomes: Vec<StartOutcome>,
}

/// Where news arrive.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    news: Mutex<News>,
    arrived: Notify,
}

impl Inbox {
    /// Adds news and wakes the worker.
    pub(crate) fn tell(&self, add: impl FnOnce(&mut News)) {
        add(&mut self.news.lock());
        self.arrived.notify_one();
    }

    /// Takes all news.
    pub(crate) fn take(&self) -> News {
        std::mem::take(&mut self.news.lock())
    }

    /// Takes the outcomes of starts alone.
    pub(crate) fn take_outcomes(&self) -> Vec<StartOutcome> {
        std::mem::take(&mut self.news.lock().outcomes)
    }

    /// Completes when there are news. Safe to cancel.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }
}
