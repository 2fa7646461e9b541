//! The pod resources API: tells monitors which devices, processors and memory containers have.

use std::path::Path;
use std::sync::Arc;

use base::Crew;
use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::Status;

use crate::Placement;
use crate::cpu_set::CpuSet;
use crate::grpc::{self, Answer, Dispatch};
use crate::memory::MemoryBlock;
use crate::wire::pod_resources::*;

/// Calls a second, and at once.
const CALLS_PER_SECOND: f64 = 100.0;
const BURST: f64 = 10.0;

/// A pod as the API names it.
#[derive(Clone, Debug)]
pub struct KnownPod {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    /// It has neither succeeded nor failed.
    pub is_active: bool,
    /// Sidecars and main containers.
    pub containers: Vec<String>,
}

/// Tells the pods of the node.
pub type PodSource = Arc<dyn Fn() -> Vec<KnownPod> + Send + Sync>;

/// Opens the socket and serves it; without it everything else works.
pub(crate) fn start(placement: &Arc<Placement>, socket: &Path, pods: PodSource, crew: &Crew) {
    let listener = match base::listener::replace(socket) {
        Ok(listener) => listener,
        Err(error) => {
            let socket = socket.display();
            return tracing::warn!(%error, %socket, "pod resources are not served");
        }
    };
    let server = Arc::new(Server {
        placement: Arc::clone(placement),
        pods,
        tokens: Mutex::new((BURST, Instant::now())),
    });
    let dispatch: Dispatch = Arc::new(move |path, body| {
        let answer = server.answer(&path, body);
        async move { answer }.boxed()
    });
    crew.spawn(
        "pod resources",
        grpc::serve(dispatch, listener, crew.stop()),
    );
}

struct Server {
    placement: Arc<Placement>,
    pods: PodSource,
    tokens: Mutex<(f64, Instant)>,
}

impl Server {
    fn answer(&self, path: &str, body: Bytes) -> Result<Answer, Status> {
        if !self.may_ask() {
            return Err(Status::resource_exhausted("rejected by rate limit"));
        }
        match path {
            LIST => Ok(grpc::one(&self.list())),
            GET_ALLOCATABLE => Ok(grpc::one(&self.allocatable())),
            GET => Ok(grpc::one(&self.get(&grpc::take(body)?)?)),
            _ => Err(Status::unimplemented(format!("unknown method {path}"))),
        }
    }

    fn may_ask(&self) -> bool {
        let mut tokens = self.tokens.lock();
        let now = Instant::now();
        let earned = now.duration_since(tokens.1).as_secs_f64() * CALLS_PER_SECOND;
        tokens.0 = (tokens.0 + earned).min(BURST);
        tokens.1 = now;
        let may = tokens.0 >= 1.0;
        if may {
            tokens.0 -= 1.0;
        }
        may
    }

    fn list(&self) -> ListPodResourcesResponse {
        let pods = (self.pods)();
        let active = pods.iter().filter(|pod| pod.is_active);
        ListPodResourcesResponse {
            pod_resources: active.map(|pod| self.of_pod(pod)).collect(),
        }
    }

    fn get(&self, request: &GetPodResourcesRequest) -> Result<GetPodResourcesResponse, Status> {
        let (name, namespace) = (&request.pod_name, &request.pod_namespace);
        let pods = (self.pods)();
        let mut named = pods
            .iter()
            .filter(|pod| pod.name == *name && pod.namespace == *namespace);
        let Some(pod) = named.next() else {
            return Err(Status::unknown(format!(
                "pod {name} in namespace {namespace} not found"
            )));
        };
        Ok(GetPodResourcesResponse {
            pod_resources: Some(self.of_pod(pod)),
        })
    }

    fn of_pod(&self, pod: &KnownPod) -> PodResources {
        let container = |name: &String| ContainerResources {
            name: name.clone(),
            devices: shown(self.placement.devices.placed(&pod.uid, name)),
            cpu_ids: ids(&self.placement.cpus.lock().exclusive(&pod.uid, name)),
            memory: blocks(self.placement.memory.lock().of_container(&pod.uid, name)),
        };
        PodResources {
            name: pod.name.clone(),
            namespace: pod.namespace.clone(),
            containers: pod.containers.iter().map(container).collect(),
        }
    }

    fn allocatable(&self) -> AllocatableResourcesResponse {
        AllocatableResourcesResponse {
            devices: shown(self.placement.devices.healthy()),
            cpu_ids: {
                let cpus = self.placement.cpus.lock();
                ids(&Some(cpus.allocatable(&self.placement.machine)))
            },
            memory: blocks(self.placement.memory.lock().allocatable()),
        }
    }
}

fn blocks(all: Vec<MemoryBlock>) -> Vec<ContainerMemory> {
    let node = |id: usize| NumaNode {
        id: i64::try_from(id).unwrap_or(i64::MAX),
    };
    let one = |block: MemoryBlock| ContainerMemory {
        memory_type: block.kind,
        size: u64::try_from(block.size).unwrap_or(0),
        topology: Some(TopologyInfo {
            nodes: block.nodes.into_iter().map(node).collect(),
        }),
    };
    all.into_iter().map(one).collect()
}

fn ids(cpus: &Option<CpuSet>) -> Vec<i64> {
    let all = cpus.iter().flat_map(CpuSet::iter);
    all.filter_map(|id| i64::try_from(id).ok()).collect()
}

/// Devices one by one, each with its nodes.
fn shown(devices: Vec<(String, String, Vec<i64>)>) -> Vec<ContainerDevices> {
    let one = |(resource_name, id, nodes): (String, String, Vec<i64>)| ContainerDevices {
        resource_name,
        device_ids: vec![id],
        topology: (!nodes.is_empty()).then(|| TopologyInfo {
            nodes: nodes.into_iter().map(|id| NumaNode { id }).collect(),
        }),
    };
    devices.into_iter().map(one).collect()
}
