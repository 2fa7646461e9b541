//! The container runtime interface, version 1, for clients outside of this process: gRPC on a unix
//! socket in front of whatever implements `node-api`, and the HTTP server that `Exec`, `Attach` and
//! `PortForward` send their callers to.
//!
//! ```text
//!   kubelet, crictl ──gRPC──► grpc ► methods ► containers, pods, images, … ► node-api
//!                   ──HTTP──► streams (a token for one stream) ► streaming ► node-api
//! ```
//!
//! Messages are `prost` types with the numbers of CRI's own definition; what Linux has no use for is
//! left out of them.

mod containers;
mod convert;
mod events;
mod grpc;
mod images;
mod methods;
mod metrics;
mod node;
mod pods;
mod security;
mod signals;
mod stats;
mod streams;
mod wire;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::Crew;
use node_api::{ImageService, RuntimeError, RuntimeService};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tonic::Status;

/// Where to listen.
#[derive(Clone, Debug)]
pub struct Config {
    /// The socket of both services.
    pub socket: PathBuf,
    /// Where streams are served, without TLS: this machine's own addresses only.
    pub streaming: SocketAddr,
    /// Where the runtime keeps its state, for those who ask for details.
    pub state: PathBuf,
}

/// What is served.
#[derive(Clone)]
pub struct Parts {
    pub runtime: Arc<dyn RuntimeService>,
    pub images: Arc<dyn ImageService>,
}

/// Why it is not.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("{0} is in use by another server")]
    InUse(PathBuf),
    #[error("cannot listen on {0}")]
    Listen(String, #[source] std::io::Error),
}

/// What all methods work with.
pub(crate) struct Service {
    runtime: Arc<dyn RuntimeService>,
    images: Arc<dyn ImageService>,
    streams: Arc<streams::Tokens>,
    state: PathBuf,
}

/// Listens, and serves until the crew stops.
pub async fn serve(parts: Parts, config: Config, crew: &Crew) -> Result<(), ServeError> {
    let socket = listen(&config.socket).await?;
    let fault = |error| ServeError::Listen(config.streaming.to_string(), error);
    let http = TcpListener::bind(config.streaming).await.map_err(fault)?;
    let address = http.local_addr().map_err(fault)?;
    let tokens = Arc::new(streams::Tokens::new(address));
    let service = Arc::new(Service {
        runtime: parts.runtime.clone(),
        images: parts.images,
        streams: Arc::clone(&tokens),
        state: config.state,
    });
    crew.spawn("CRI", grpc::serve(service, socket, crew.stop()));
    let streams = streams::serve(parts.runtime, tokens, http, crew.stop());
    crew.spawn("CRI streams", streams);
    tracing::info!(socket = %config.socket.display(), %address, "serving CRI v1");
    Ok(())
}

/// A socket that somebody answers on stays; one that is left over gives way.
async fn listen(path: &Path) -> Result<UnixListener, ServeError> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(ServeError::InUse(path.to_owned()));
    }
    let open = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        // Whoever can connect commands the node.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(listener)
    };
    open().map_err(|error| ServeError::Listen(path.display().to_string(), error))
}

/// The runtime's refusals in gRPC's codes.
fn refused(error: RuntimeError) -> Status {
    let message = error.to_string();
    match error {
        RuntimeError::NotFound(_) => Status::not_found(message),
        RuntimeError::AlreadyExists(_) => Status::already_exists(message),
        RuntimeError::InvalidArgument(_) => Status::invalid_argument(message),
        RuntimeError::FailedPrecondition(_) => Status::failed_precondition(message),
        RuntimeError::DeadlineExceeded(_) => Status::deadline_exceeded(message),
        RuntimeError::Unavailable(_) => Status::unavailable(message),
        RuntimeError::Internal(_) => Status::unknown(message),
    }
}

/// What a request lacks.
fn missing(what: &str) -> Status {
    Status::invalid_argument(format!("{what} is required"))
}

#[cfg(test)]
mod tests;
