//! `sampan engine`: the container engine alone, behind CRI, for a kubelet or crictl of somebody
//! else, and behind the Docker Engine API, for docker's own clients.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base::{Crew, Ipv4Cidr};
use clap::Args;
use node_api::{CgroupDriver, RuntimeService};
use runtime::Engine;

use crate::config::ServiceManager;
use crate::crews::{Crews, Farewell};
use crate::server::engine_config;
use crate::service;

/// Flags of `sampan engine`.
#[derive(Args, Clone, Debug)]
pub(crate) struct EngineArgs {
    /// Folder that holds everything
    #[arg(short = 'd', long, default_value = "/var/lib/sampan-engine")]
    data_dir: PathBuf,
    /// Unix socket of CRI v1
    #[arg(long, default_value = "/run/sampan/cri.sock")]
    cri_socket: PathBuf,
    /// Unix socket for NRI plugins, which adjust containers made by CRI; plugins in /opt/nri/plugins
    /// are started then; without it there are none
    #[arg(long)]
    nri_socket: Option<PathBuf>,
    /// Unix socket of the Docker Engine API; without it docker is not served
    #[arg(long)]
    docker_socket: Option<PathBuf>,
    /// Whose subordinate ids (/etc/subuid, /etc/subgid) docker's containers get instead of the node's:
    /// "default" (dockremap), or a user and perhaps a group
    #[arg(long, value_name = "USER[:GROUP]", requires = "docker_socket")]
    userns_remap: Option<String>,
    /// Where streams of exec, attach and port-forward are served
    #[arg(long, default_value = "127.0.0.1:0")]
    stream_address: SocketAddr,
    /// Addresses of this node's pods
    #[arg(long)]
    pod_cidr: Option<Ipv4Cidr>,
    /// Addresses of all pods
    #[arg(long)]
    cluster_cidr: Option<Ipv4Cidr>,
    /// File that says how registries are spoken to, as k3s' registries.yaml does: mirrors, credentials,
    /// certificates [default: <data-dir>/engine/registries.yaml if it exists]
    #[arg(long)]
    private_registry: Option<PathBuf>,
    /// What dockerd takes of the same name: native.cgroupdriver=cgroupfs or =systemd
    #[arg(long = "exec-opt", value_name = "KEY=VALUE", value_parser = exec_option)]
    exec_opts: Vec<CgroupDriver>,
    /// Bridge that the pods hang on
    #[arg(long)]
    bridge: Option<String>,
}

/// Runs the engine until SIGTERM or SIGINT; containers go on.
pub(crate) async fn run(args: EngineArgs) -> Result<()> {
    let crews = Crews::default();
    crews.stop_on_signals(Duration::ZERO, Farewell::default())?;
    let started = start(&args, &crews.work).await;
    match &started {
        Ok(()) => service::ready(&ServiceManager::of_environment(), &crews),
        Err(_) => crews.work.stop().raise(),
    }
    let ended = crews.finished().await;
    started?;
    ended?;
    Ok(())
}

async fn start(args: &EngineArgs, crew: &Crew) -> Result<()> {
    // Before anything is made or adopted.
    let remap = match args.userns_remap.as_deref() {
        Some("") | None => None,
        Some(wish) => docker::Remap::find(wish, Path::new("/etc"))?,
    };
    let data_dir = std::path::absolute(&args.data_dir)?;
    std::fs::create_dir_all(&data_dir)
        .with_context(|| format!("cannot create {}", data_dir.display()))?;
    network::bring_up_loopback().await.context("loopback")?;
    let usual = network::Config::new(data_dir.join("network"));
    let network = network::Config {
        pod_cidr: args.pod_cidr.unwrap_or(usual.pod_cidr),
        cluster_cidr: args.cluster_cidr.unwrap_or(usual.cluster_cidr),
        bridge: args.bridge.clone().unwrap_or(usual.bridge.clone()),
        ..usual
    };
    let pods = network::open(network).await.context("pod network")?;
    let config = runtime::Config {
        foreign_cgroup_parents: true,
        registries: args.private_registry.clone(),
        cgroup_driver: args.exec_opts.last().copied().unwrap_or_default(),
        ..engine_config(&data_dir)
    };
    let switch = docker::Switch::new(pods);
    let engine = runtime::open(config, switch.clone(), crew)
        .await
        .context("container engine")?;
    let docker_folder = data_dir.join("docker");
    if let Some(socket) = &args.docker_socket {
        let config = docker::Config {
            socket: socket.clone(),
            folder: docker_folder.clone(),
            remap,
        };
        docker::serve(engine.clone(), switch, config, crew)
            .await
            .context("docker")?;
    }
    let config = cri::Config {
        streaming: args.stream_address,
        ..cri_config(&args.cri_socket, &data_dir)
    };
    let runtime = plugged(
        engine.clone(),
        args.nri_socket.as_deref(),
        Some(docker_folder),
        crew,
    )
    .await?;
    serve(runtime, engine, config, crew).await
}

/// The one option of execution there is.
fn exec_option(text: &str) -> Result<CgroupDriver, String> {
    let driver = match text.split_once('=') {
        Some(("native.cgroupdriver", driver)) => driver,
        _ => {
            return Err(format!(
                "invalid exec-opt {text:?}: only native.cgroupdriver is known"
            ));
        }
    };
    CgroupDriver::parse(driver)
        .ok_or_else(|| format!("native.cgroupdriver option {driver} is not supported"))
}

/// The usual arrangement for a socket.
pub(crate) fn cri_config(socket: &Path, data_dir: &Path) -> cri::Config {
    cri::Config {
        socket: socket.to_owned(),
        streaming: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        state: data_dir.join("engine"),
    }
}

/// The engine as kubelets see it: with plugins in between, where there is a socket for them. Pods
/// that log below `hidden_logs` are not shown to those.
pub(crate) async fn plugged(
    engine: Arc<Engine>,
    socket: Option<&Path>,
    hidden_logs: Option<PathBuf>,
    crew: &Crew,
) -> Result<Arc<dyn RuntimeService>> {
    let Some(socket) = socket else {
        return Ok(engine);
    };
    let config = nri::Config {
        hidden_logs,
        ..nri::Config::new(socket.to_owned())
    };
    nri::open(engine, config, crew).await.context("NRI")
}

/// Serves CRI in front of an engine.
pub(crate) async fn serve(
    runtime: Arc<dyn RuntimeService>,
    images: Arc<Engine>,
    config: cri::Config,
    crew: &Crew,
) -> Result<()> {
    let parts = cri::Parts { runtime, images };
    cri::serve(parts, config, crew).await.context("CRI")
}
