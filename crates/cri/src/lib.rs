//! The container runtime interface, version 1, for clients outside of this process: gRPC on a unix
//! socket in front of whatever implements `node-api`, and the HTTP server that `Exec`, `Attach` and
//! `PortForward` send their callers to.
//!
//! ```text
//!   kubelet, crictl ──gRPC──► methods ► containers, pods, images, … ► node-api
//!                   ──HTTP──► streams (a token for one stream) ► streaming ► node-api
//! ```
//!
//! Messages are `prost` types with the numbers of CRI's own definition; what Linux has no use for is
//! left out of them.

mod client;
mod containers;
mod convert;
mod events;
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

pub use client::{ConnectError, Endpoints, Remote};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use base::Crew;
use node_api::{ImageService, RuntimeError, RuntimeService};
use tokio::net::TcpListener;
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
    #[error(transparent)]
    Socket(#[from] base::listener::ListenError),
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
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
    let socket = base::listener::unix(&config.socket).await?;
    let fault = |error| ServeError::Listen(config.streaming, error);
    let http = TcpListener::bind(config.streaming).await.map_err(fault)?;
    let address = http.local_addr().map_err(fault)?;
    let tokens = Arc::new(streams::Tokens::new(address));
    let service = Arc::new(Service {
        runtime: parts.runtime.clone(),
        images: parts.images,
        streams: Arc::clone(&tokens),
        state: config.state,
    });
    let dispatch = methods::dispatcher(service);
    crew.spawn("CRI", grpc::serve(dispatch, socket, crew.stop()));
    let streams = streams::serve(parts.runtime, tokens, http, crew.stop());
    crew.spawn("CRI streams", streams);
    tracing::info!(socket = %config.socket.display(), %address, "serving CRI v1");
    Ok(())
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
