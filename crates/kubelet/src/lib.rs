//! The kubelet: makes the pods of one node real by a container runtime, and
//! tells the API how they are.

mod admission;
mod allocations;
mod backoff;
mod cgroup_facts;
mod clock;
mod config;
mod container_config;
mod cpu_pool;
mod dead_containers;
mod env;
mod env_file;
mod events;
mod eviction;
mod hooks;
mod image_gc;
mod images;
mod inbox;
mod labels;
mod last_words;
mod log_links;
mod logs;
mod machine;
mod machine_cgroups;
mod measures;
mod memory_qos;
mod names;
mod node;
mod node_cgroups;
mod node_problems;
mod orphans;
mod places;
mod plan;
mod pod;
mod pods;
mod probe;
mod resize;
mod resources;
mod sandbox_config;
mod security;
mod server;
mod shared;
mod shutdown;
mod start;
mod static_pods;
mod static_url;
mod status;
mod swap;
mod user_namespaces;
mod web;
mod worker;

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use base::Crew;
use client::{Client, Hub, Informer, Selection};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use tokio::net::TcpListener;
use tokio::sync::watch;
use volumes::{Sources, Volumes};

pub use cgroup_facts::CgroupFacts;
pub use clock::Clock;
pub use config::{
    Config, Features, Guard, GuardRequest, Parts, Refusal, ReservedGroup, ServerConfig, SystemLogs,
};
pub use dead_containers::DeadContainers;
pub use eviction::{Amount, EvictionConfig, Signal, Threshold, ThresholdError};
pub use images::{CredentialProviders, ImageVerification};
pub use machine_cgroups::{Cgroups, MachineCgroups};
pub use memory_qos::MemoryQos;
pub use placement::{
    Config as PlacementConfig, CpuConfig, CpuSet, Machine as MachineTopology, MemoryConfig,
    NODES_MAX, Policy as TopologyPolicy, Scope as TopologyScope,
};

pub use problems::{Config as ProblemConfig, Monitor as ProblemMonitor};
pub use shutdown::{ShutdownConfig, ShutdownPeriod};
pub use static_url::StaticPodUrl;

use events::Recorder;
use images::Puller;
use machine::Machine;
use pods::{Driver, Pods, StaticPods, Statics};
use shared::Shared;
use user_namespaces::UserNamespaces;

/// Why a kubelet cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot create {path}")]
    Folder {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("{0}")]
    Enforcement(String),
    #[error(transparent)]
    Placement(#[from] placement::OpenError),
    #[error("failed to register CRI auth plugins: {0}")]
    CredentialProviders(String),
}

/// Starts a kubelet and returns at once; its tasks live in `crew` until that is told to stop.
/// Stopping disturbs no container, and the next start takes them over. The API need not be
/// there yet: static pods run without it, and everything else begins when it answers.
pub async fn run(client: Client, parts: Parts, config: Config, crew: &Crew) -> Result<(), Error> {
    let links = config.log_links.clone();
    let folders = [config.root_dir.join("pods"), config.log_dir.clone()];
    for folder in folders.into_iter().chain(links) {
        let made = std::fs::create_dir_all(&folder);
        made.map_err(|source| Error::Folder {
            path: folder,
            source,
        })?;
    }
    for folder in images::folders(&config.root_dir) {
        let mut private = std::fs::DirBuilder::new();
        let made = private.recursive(true).mode(0o700).create(&folder);
        made.map_err(|source| Error::Folder {
            path: folder,
            source,
        })?;
    }
    if let Some(providers) = &config.credential_providers {
        providers.check().map_err(Error::CredentialProviders)?;
    }
    let listener = match &config.server {
        Some(server) => Some(listen(server.address).await?),
        None => None,
    };
    let healthz = match config.healthz {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let read_only = match config.read_only {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let hub = Hub::new(client.clone(), crew);
    let informer = hub.informer_of::<Pod>(Selection {
        field_selector: Some(format!("spec.nodeName={}", config.node_name)),
        ..Selection::default()
    });
    // Subscribed before the first look at the runtime, so that nothing happens unseen.
    let events = parts.runtime.events();
    let shared = share(client, parts, config, &hub, crew)?;
    let enforced = node_cgroups::enforce_reserved(&shared).await;
    enforced.map_err(Error::Enforcement)?;
    let stop = crew.stop();
    let statics = static_pods(&shared, &informer, crew);
    spawn_until_stop(
        crew,
        "node status",
        node::keep_status(shared.clone(), stop.clone()),
    );
    spawn_until_stop(
        crew,
        "node lease",
        node::keep_lease(shared.clone(), stop.clone()),
    );
    spawn_until_stop(
        crew,
        "image removal",
        image_gc::keep_space(shared.clone(), stop.clone()),
    );
    spawn_until_stop(crew, "node problems", node_problems::watch(shared.clone()));
    spawn_until_stop(
        crew,
        "node cgroups",
        node_cgroups::keep_limits(shared.clone()),
    );
    spawn_until_stop(crew, "cpu pool", cpu_pool::keep_shared(shared.clone()));
    spawn_until_stop(crew, "shutdown", shutdown::go_down(shared.clone()));
    spawn_until_stop(
        crew,
        "eviction",
        eviction::keep_well(shared.clone(), stop.clone()),
    );
    if let (Some(listener), Some(server)) = (listener, shared.config.server.clone()) {
        let serving = server::serve(shared.clone(), listener, server, stop.clone());
        spawn_until_stop(crew, "kubelet server", serving);
    }
    if let Some(listener) = healthz {
        let serving = server::serve_healthz(listener, stop.clone());
        spawn_until_stop(crew, "healthz", serving);
    }
    if let Some(listener) = read_only {
        let serving = server::serve_read_only(shared.clone(), listener, stop.clone());
        spawn_until_stop(crew, "read-only server", serving);
    }
    if let Some(most) = shared.config.dead_containers.in_all_max {
        let keeping = dead_containers::keep_few(shared.clone(), most, stop.clone());
        spawn_until_stop(crew, "ended containers", keeping);
    }
    spawn_until_stop(
        crew,
        "log rotation",
        logs::keep_small(shared.clone(), stop.clone()),
    );
    let driver = Driver {
        shared,
        informer,
        statics,
        events,
        stop,
    };
    spawn_until_stop(crew, "pods", driver.run());
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| Error::Listen { address, source })
}

/// Runs a task that may be waiting for the API when the process stops.
fn spawn_until_stop<F>(crew: &Crew, name: &'static str, task: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let stop = crew.stop();
    crew.spawn(name, async move {
        tokio::select! {
            () = task => {}
            () = stop.raised() => {}
        }
    });
}

/// Follows the sources of static pods, if there are any.
fn static_pods(
    shared: &Arc<Shared>,
    informer: &Informer<Pod>,
    crew: &Crew,
) -> watch::Receiver<Statics> {
    let config = &shared.config;
    let (all, statics) = watch::channel(Statics::default());
    if config.static_pod_path.is_none() && config.static_pod_url.is_none() {
        all.send_modify(|all| all.complete = true);
        return statics;
    }
    // A source that is not there has said all it has to say.
    let source = |there: bool| watch::channel((!there).then(StaticPods::new));
    let (of_files, files) = source(config.static_pod_path.is_some());
    if let Some(folder) = config.static_pod_path.clone() {
        let node_name = config.node_name.clone();
        let following = static_pods::follow(folder, node_name, of_files, crew.stop());
        spawn_until_stop(crew, "static pods", following);
    }
    let (of_url, url) = source(config.static_pod_url.is_some());
    if let Some(from) = config.static_pod_url.clone() {
        let node_name = config.node_name.clone();
        let following = static_url::follow(from, node_name, of_url, crew.stop());
        spawn_until_stop(crew, "static pods by http", following);
    }
    let joined = static_pods::join(files, url, all);
    spawn_until_stop(crew, "all static pods", joined);
    let mirrors = static_pods::keep_mirrors(
        shared.clone(),
        informer.clone(),
        statics.clone(),
        crew.stop(),
    );
    spawn_until_stop(crew, "mirror pods", mirrors);
    statics
}

fn share(
    client: Client,
    parts: Parts,
    config: Config,
    hub: &Hub,
    crew: &Crew,
) -> Result<Arc<Shared>, Error> {
    let (recorder, writer) = Recorder::new(
        client.clone(),
        config.node_name.clone(),
        config.clock.clone(),
        crew.stop(),
    );
    spawn_until_stop(crew, "events", writer);
    let pods = Arc::new(Pods::default());
    let told = pods.clone();
    let sources = Sources::new(
        client.clone(),
        Arc::new(move |uid: &str| told.tell(uid, |news| news.sources = true)),
    );
    let placement = places::open(&config, &pods, crew)?;
    let volumes = Volumes::new(&config.root_dir, client.clone(), sources.clone());
    let puller = Puller::new(
        parts.images.clone(),
        &volumes,
        client.clone(),
        sources.clone(),
        recorder.clone(),
        &config,
    );
    Ok(Arc::new(Shared {
        runtime: parts.runtime,
        images: parts.images,
        cgroups: parts.cgroups,
        puller,
        volumes,
        sources,
        recorder,
        services: hub.informer::<Service>(),
        node: hub.informer_of::<Node>(Selection {
            field_selector: Some(format!("metadata.name={}", config.node_name)),
            ..Selection::default()
        }),
        machine: Machine::look(&config.root_dir),
        allocations: Arc::default(),
        placement,
        measures: measures::Measures::default(),
        pressure: watch::Sender::default(),
        problems: watch::Sender::default(),
        user_namespaces: UserNamespaces::look(&config.root_dir, config.max_pods),
        pods,
        config,
        client,
    }))
}
