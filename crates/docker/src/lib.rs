//! The Docker Engine API on a unix socket, in front of the container engine: what the docker command
//! line, compose and their libraries speak.
//!
//! ```text
//!   docker ──HTTP──► server ► routes ► containers, images, exec, volumes, … ► runtime::Engine
//!          ◄─101──── hijack (streams of a container or an exec)
//! ```
//!
//! A container of docker's is one sandbox of the engine with one container while it runs, and a folder
//! with a record and its own files as long as it is there. The record is the truth: whatever an answer
//! has promised is in it, so the process may be killed at any moment.

// For the one long answer of `info`.
#![recursion_limit = "256"]

mod answer;
mod builds;
mod call;
mod containers;
mod daemon;
mod devices;
mod drivers;
mod events;
mod exec;
mod frames;
mod health;
mod hijack;
mod images;
mod names;
mod networks;
mod peer;
mod quotas;
mod record;
mod remap;
mod routes;
mod server;
mod shipping;
mod switch;
mod system;
mod translate;
mod volumes;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;

use base::Crew;
use node_api::RuntimeService;
use runtime::Engine;

pub use remap::{Remap, RemapError};
pub use switch::Switch;

/// Where docker's front listens and keeps its records.
#[derive(Clone, Debug)]
pub struct Config {
    pub socket: PathBuf,
    pub folder: PathBuf,
    /// Who containers' users are on the node, where they are others.
    pub remap: Option<Remap>,
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Socket(#[from] base::listener::ListenError),
    #[error("docker's records in {0}: {1}")]
    Records(PathBuf, String),
}

/// Takes up the containers of an earlier run, listens, and serves until the crew stops.
pub async fn serve(
    engine: Arc<Engine>,
    switch: Arc<Switch>,
    config: Config,
    crew: &Crew,
) -> Result<(), ServeError> {
    let fault = |error: String| ServeError::Records(config.folder.clone(), error);
    std::fs::create_dir_all(config.folder.join("containers"))
        .map_err(|error| fault(error.to_string()))?;
    let ids = config.remap.as_ref().map(Remap::namespace);
    let volumes = volumes::Volumes::open(&config.folder.join("volumes"), remap::root_of(ids))
        .map_err(|error| fault(error.to_string()))?;
    let networks = networks::Networks::open(&config.folder.join("networks"))
        .await
        .map_err(|error| fault(error.to_string()))?;
    let builds = builds::Builds::open(engine.images(), &config.folder.join("build"))
        .map_err(|error| fault(error.to_string()))?;
    let able = engine
        .abilities()
        .map_err(|error| fault(error.to_string()))?;
    // Before anything is looked at, so that no end of a container goes unheard.
    let news = engine.events();
    let daemon = Arc::new_cyclic(|me| daemon::Daemon {
        me: me.clone(),
        engine,
        folder: config.folder.clone(),
        containers: Default::default(),
        by_inner: Default::default(),
        naming: Default::default(),
        events: Default::default(),
        execs: Default::default(),
        switch,
        volumes,
        networks,
        builds,
        able,
        remap: config.remap,
        stop: crew.stop(),
    });
    daemon.builds.serve(Arc::downgrade(&daemon));
    let listener = base::listener::unix(&config.socket).await?;
    daemon
        .adopt()
        .await
        .map_err(|error| fault(error.to_string()))?;
    crew.spawn("docker news", Arc::clone(&daemon).follow(news));
    crew.spawn("docker", server::serve(daemon, listener, crew.stop()));
    tracing::info!(socket = %config.socket.display(), "serving the Docker Engine API");
    Ok(())
}
