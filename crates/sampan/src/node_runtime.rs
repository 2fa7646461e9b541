//! What runs the node's containers: our own engine with our own pod network, or somebody else's
//! runtime behind CRI, whose network pods have then.

use std::sync::Arc;

use anyhow::{Context, Result};
use base::Crew;
use node_api::{PodNetwork, RuntimeService};

use crate::config::Config;
use crate::engine;
use crate::node_settings;
use crate::server::engine_config;

/// Our own pod network; `None` where the runtime brings its own.
pub(crate) async fn pod_network(
    config: &Config,
    network: &network::Config,
) -> Result<Option<Arc<dyn PodNetwork>>> {
    if config.container_runtime_endpoint.is_some() {
        return Ok(None);
    }
    let pods = network::open(network.clone()).await;
    pods.context("pod network").map(Some)
}

/// What the kubelet stands on.
pub(crate) async fn open(
    config: &Config,
    pods: Option<Arc<dyn PodNetwork>>,
    crew: &Crew,
) -> Result<kubelet::Parts> {
    if let Some(runtime) = &config.container_runtime_endpoint {
        let endpoints = cri::Endpoints {
            runtime: runtime.clone(),
            images: config.image_service_endpoint.clone(),
            cgroup_driver: node_settings::cgroup_driver(config.kubelet.settings())?,
        };
        let remote = cri::Remote::connect(endpoints, crew).await?;
        return Ok(kubelet::Parts {
            cgroups: cgroups(&*remote, "")?,
            runtime: remote.clone(),
            images: remote,
        });
    }
    let pods = pods.context("no pod network")?;
    let settings = runtime::Config {
        registries: config.private_registry.clone(),
        cgroup_driver: node_settings::cgroup_driver(config.kubelet.settings())?,
        ..engine_config(&config.data_dir)
    };
    let engine = runtime::open(settings, pods, crew)
        .await
        .context("container engine")?;
    let runtime = engine::plugged(engine.clone(), config.nri_socket.as_deref(), None, crew).await?;
    if let Some(socket) = &config.cri_socket {
        let cri = engine::cri_config(socket, &config.data_dir);
        engine::serve(runtime.clone(), engine.clone(), cri, crew).await?;
    }
    Ok(kubelet::Parts {
        cgroups: cgroups(&*engine, &engine_config(&config.data_dir).cgroup_root)?,
        runtime,
        images: engine,
    })
}

/// The groups above pods', which lie below `above` where the runtime makes them by files.
fn cgroups(runtime: &dyn RuntimeService, above: &str) -> Result<Arc<dyn kubelet::Cgroups>> {
    let opened = kubelet::MachineCgroups::open(runtime.cgroup_driver(), above);
    Ok(Arc::new(opened.context("control groups")?))
}
