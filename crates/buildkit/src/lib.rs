//! BuildKit's protocol, as docker's buildx plugin speaks it to a docker engine.
//!
//! ```text
//!   buildx ──/grpc──► control (Solve, Status, Prune, …)   ┐
//!          ──/grpc──► bridge (the client drives a build)  ├► frontend ► build::Builder ► export
//!          ◄─/session─ sessions: its files, secrets, …    ┘     │
//!          ◄────────── Status: what jobs told                   └ news of steps ► jobs
//! ```
//!
//! A build is a Dockerfile, read by the builder of this engine; graphs of operations that other
//! frontends make are refused.

mod bridge;
mod control;
mod export;
mod fault;
mod frontend;
mod jobs;
mod sessions;
mod transfer;
pub mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use build::{Builder, Wishes};
use bytes::Bytes;
use futures::future::BoxFuture;
use grpc::Wire;
use oci::{Credentials, ImageRecord, Reference};
use tokio::sync::mpsc;
use tonic::Status;

pub use sessions::Greeting;

use jobs::Jobs;
use sessions::Sessions;

/// What containers of `RUN` are to have, beyond what a Dockerfile says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    pub cgroup_parent: String,
    pub shm_size: i64,
    /// `host:address`.
    pub hosts: Vec<String>,
    /// Names with soft and hard limits.
    pub ulimits: Vec<(String, i64, i64)>,
}

/// Tells what a client is known by at a registry.
pub type AskCredentials = Arc<dyn Fn(String) -> BoxFuture<'static, Credentials> + Send + Sync>;

/// The engine whose clients these are.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    fn builder(&self) -> Arc<Builder>;

    /// What the builder passes on to its host.
    fn wishes(&self, extras: Extras, credentials: AskCredentials) -> Wishes;

    /// A name as it is kept.
    fn reference(&self, name: &str) -> Result<Reference, String>;

    /// An image has got a name.
    fn named(&self, image: &ImageRecord, name: &Reference);

    /// Downloads a file.
    async fn fetch(&self, url: &str, target: &std::path::Path) -> Result<(), String>;

    /// The machine's address as containers see it.
    fn gateway(&self) -> String;
}

/// The protocol for one engine.
pub struct Service {
    backend: Arc<dyn Backend>,
    sessions: Arc<Sessions>,
    jobs: Arc<Jobs>,
}

impl Service {
    pub fn new(backend: Arc<dyn Backend>) -> Arc<Service> {
        Arc::new(Service {
            backend,
            sessions: Arc::default(),
            jobs: Arc::default(),
        })
    }

    /// Whether a session of this name is there.
    pub fn has_session(&self, greeting: &Greeting) -> bool {
        self.sessions.has(greeting)
    }

    /// Carries a client's session until its connection ends.
    pub async fn session(&self, greeting: Greeting, wire: Box<dyn Wire>) {
        if let Err(error) = self.sessions.carry(greeting, wire).await {
            tracing::debug!(%error, "session not carried");
        }
    }

    /// One build, for clients that ask for it by other means than calls: what it tells, encoded as
    /// answers of `Control.Status`, goes to `tell` in order. Dropping the future ends the build.
    pub async fn build(
        self: &Arc<Self>,
        request: wire::SolveRequest,
        tell: mpsc::Sender<Bytes>,
    ) -> Result<wire::SolveResponse, Status> {
        control::build(self, request, tell).await
    }

    /// Answers a client's calls until its connection ends.
    pub async fn serve(self: Arc<Self>, wire: Box<dyn Wire>) {
        grpc::serve_wire(wire, control::dispatch(self)).await;
    }
}
