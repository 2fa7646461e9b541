//! Calls over one socket, on a connection that is made anew when the runtime was.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use grpc::Caller;
use node_api::RuntimeError;
use prost::Message;
use tokio::sync::Mutex;
use tonic::{Code, Status, Streaming};

/// How long a call may take that does not say how long it needs.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// The path of a method of the runtime service.
macro_rules! method {
    ($name:literal) => {
        concat!("/runtime.v1.RuntimeService/", $name)
    };
}
pub(super) use method;

/// One server. Clones share a connection.
#[derive(Clone)]
pub(super) struct Link {
    socket: Arc<PathBuf>,
    caller: Arc<Mutex<Option<Caller>>>,
}

impl Link {
    pub(super) fn new(socket: PathBuf) -> Link {
        Link {
            socket: Arc::new(socket),
            caller: Arc::default(),
        }
    }

    async fn caller(&self) -> Result<Caller, Status> {
        let mut kept = self.caller.lock().await;
        if let Some(caller) = kept.as_ref().filter(|caller| !caller.is_closed()) {
            return Ok(caller.clone());
        }
        let made = Caller::connect(&self.socket).await;
        let made = made.map_err(|error| {
            Status::unavailable(format!("connect to {}: {error}", self.socket.display()))
        })?;
        *kept = Some(made.clone());
        Ok(made)
    }

    /// A call with one answer, in the usual time.
    pub(super) async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, RuntimeError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.call_within(path, request, CALL_TIMEOUT).await
    }

    /// A call that needs some time of its own.
    pub(super) async fn call_within<Q, A>(
        &self,
        path: &'static str,
        request: Q,
        limit: Duration,
    ) -> Result<A, RuntimeError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let call = async { self.caller().await?.call(path, request).await };
        match tokio::time::timeout(limit, call).await {
            Ok(answer) => answer.map_err(|status| fault(&status)),
            Err(_) => Err(RuntimeError::DeadlineExceeded(
                "context deadline exceeded".to_owned(),
            )),
        }
    }

    /// The same for a call that takes its own time on top of the usual one.
    pub(super) async fn call_longer<Q, A>(
        &self,
        path: &'static str,
        request: Q,
        more: Duration,
    ) -> Result<A, RuntimeError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let limit = CALL_TIMEOUT.saturating_add(more);
        self.call_within(path, request, limit).await
    }

    /// A call with many answers.
    pub(super) async fn stream<Q, A>(
        &self,
        path: &'static str,
        request: Q,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.caller().await?.stream(path, request).await
    }
}

/// gRPC's codes in the runtime's refusals.
pub(super) fn fault(status: &Status) -> RuntimeError {
    let message = status.message().to_owned();
    match status.code() {
        Code::NotFound => RuntimeError::NotFound(message),
        Code::AlreadyExists => RuntimeError::AlreadyExists(message),
        Code::InvalidArgument => RuntimeError::InvalidArgument(message),
        Code::FailedPrecondition => RuntimeError::FailedPrecondition(message),
        Code::DeadlineExceeded => RuntimeError::DeadlineExceeded(message),
        Code::Unavailable => RuntimeError::Unavailable(message),
        _ => RuntimeError::Internal(message),
    }
}
