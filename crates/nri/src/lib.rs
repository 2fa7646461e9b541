//! NRI, the Node Resource Interface: plugins of the node that are told of pods and containers, and
//! adjust containers before they are made. They come by a unix socket, or are started from a folder.
//!
//! ```text
//!   kubelet, CRI ──► Plugged (service) ──────────────────► the engine
//!                       │  asks and tells
//!                       ▼
//!                    Plugins ◄── register ── link ── frame ── a plugin's socket
//!                       │
//!                       └─ merge (who wants what) ─► apply (as the engine's own words)
//! ```
//!
//! Without plugins a call costs the look at one flag. Plugins never stop the engine: one that does
//! not answer in time is dropped. One that refuses, or two that contradict each other, fail the call.

mod apply;
mod describe;
mod engine;
mod frame;
mod launch;
mod link;
mod merge;
mod plugins;
mod register;
mod service;
mod wire;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use base::Crew;
use base::listener::ListenError;
use node_api::RuntimeService;
use tokio::sync::oneshot;

pub use engine::Engine;

use plugins::Plugins;
use service::Plugged;

/// Plugins that may be connected at one time.
const PLUGINS_MAX: usize = 64;

/// Where plugins are.
#[derive(Clone, Debug)]
pub struct Config {
    /// The socket they connect to; nobody but root reaches it.
    pub socket: PathBuf,
    /// Programs that are started.
    pub programs: PathBuf,
    /// What they are told at their start.
    pub drop_ins: PathBuf,
    /// Pods that log below this folder are not Kubernetes', and not shown to plugins.
    pub hidden_logs: Option<PathBuf>,
}

impl Config {
    /// With programs where other engines have them.
    pub fn new(socket: PathBuf) -> Config {
        Config {
            socket,
            programs: "/opt/nri/plugins".into(),
            drop_ins: "/etc/nri/conf.d".into(),
            hidden_logs: None,
        }
    }
}

/// Why plugins cannot connect.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Socket(#[from] ListenError),
    #[error("NRI plugins in {0}")]
    Programs(PathBuf, #[source] std::io::Error),
}

/// Listens for plugins, starts those of the machine, and puts them between the engine and its users.
/// Returns when those that were started are connected, or have failed.
pub async fn open(
    engine: Arc<dyn Engine>,
    config: Config,
    crew: &Crew,
) -> Result<Arc<dyn RuntimeService>, OpenError> {
    let socket = base::listener::unix(&config.socket).await?;
    let only_ours = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&config.socket, only_ours)
        .map_err(|error| ListenError::Io(config.socket.clone(), error))?;
    let found = launch::discover(&config.programs, &config.drop_ins)
        .map_err(|error| OpenError::Programs(config.programs, error))?;
    let plugins = Arc::new(Plugins::new(engine, config.hidden_logs));
    let mut awaited = Vec::new();
    for (path, given) in found {
        let (stream, child) = match launch::start(&path, &given) {
            Ok(started) => started,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "NRI plugin not started");
                continue;
            }
        };
        let (ready, told) = oneshot::channel();
        awaited.push(told);
        let (plugins, stop) = (Arc::clone(&plugins), crew.stop());
        crew.spawn(format!("NRI plugin {}", path.display()), async move {
            tokio::select! {
                () = plugins.connected(stream, Some(given), Some(ready)) => {}
                () = stop.raised() => {}
            }
            drop(child);
        });
    }
    // One that fails has said why.
    futures::future::join_all(awaited).await;
    let attend = {
        let plugins = Arc::clone(&plugins);
        move |stream| {
            let plugins = Arc::clone(&plugins);
            async move { plugins.connected(stream, None, None).await }
        }
    };
    let served = base::listener::serve(socket, PLUGINS_MAX, crew.stop(), attend);
    crew.spawn("NRI", served);
    tracing::info!(socket = %config.socket.display(), "NRI plugins may connect");
    Ok(Plugged::start(plugins, crew))
}

#[cfg(test)]
mod tests;
