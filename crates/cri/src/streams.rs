//! The HTTP server behind `Exec`, `Attach` and `PortForward`: each answer names a token that is
//! good for one stream, soon.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::Stop;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use node_api::{ExecRequest, RuntimeService};
use parking_lot::Mutex;
use streaming::{Body, Target};
use tokio::net::{TcpListener, TcpStream};
use tonic::Status;

/// Tokens that wait for their stream.
const TOKENS_MAX: usize = 1000;
/// How long they may.
const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// Connections at one time.
const CONNECTIONS_MAX: usize = 1024;

/// What a token stands for.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    /// A command, or with `attach` the one that runs.
    Command { wish: ExecRequest, attach: bool },
    /// Ports of a pod; those named count where the protocol names none.
    Ports { sandbox: String, ports: Vec<u16> },
}

impl Wish {
    fn word(&self) -> &'static str {
        match self {
            Wish::Command { attach: false, .. } => "exec",
            Wish::Command { attach: true, .. } => "attach",
            Wish::Ports { .. } => "portforward",
        }
    }
}

/// The tokens given out.
pub(crate) struct Tokens {
    address: SocketAddr,
    waiting: Mutex<HashMap<String, (Instant, Wish)>>,
}

impl Tokens {
    pub(crate) fn new(address: SocketAddr) -> Tokens {
        Tokens {
            address,
            waiting: Mutex::default(),
        }
    }

    /// A URL by which the stream can be had once.
    pub(crate) fn issue(&self, wish: Wish) -> Result<String, Status> {
        let word = wish.word();
        let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>());
        let mut waiting = self.waiting.lock();
        if waiting.len() >= TOKENS_MAX {
            waiting.retain(|_, (issued, _)| issued.elapsed() < TOKEN_LIFE);
        }
        if waiting.len() >= TOKENS_MAX {
            let message = "maximum number of in-flight requests exceeded";
            return Err(Status::resource_exhausted(message));
        }
        waiting.insert(token.clone(), (Instant::now(), wish));
        Ok(format!("http://{}/{word}/{token}", self.address))
    }

    fn redeem(&self, path: &str) -> Option<Wish> {
        let (word, token) = path.trim_start_matches('/').split_once('/')?;
        let (issued, wish) = self.waiting.lock().remove(token)?;
        (issued.elapsed() < TOKEN_LIFE && wish.word() == word).then_some(wish)
    }
}

/// Answers connections; ends when the process stops.
pub(crate) async fn serve(
    runtime: Arc<dyn RuntimeService>,
    tokens: Arc<Tokens>,
    listener: TcpListener,
    stop: Stop,
) {
    let work = move |stream| connection(Arc::clone(&runtime), Arc::clone(&tokens), stream);
    base::listener::serve(listener, CONNECTIONS_MAX, stop, work).await;
}

async fn connection(runtime: Arc<dyn RuntimeService>, tokens: Arc<Tokens>, stream: TcpStream) {
    let service = service_fn(move |request| {
        let answer = respond(&runtime, &tokens, request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(error, "connection ended");
    }
}

fn respond(
    runtime: &Arc<dyn RuntimeService>,
    tokens: &Tokens,
    request: Request<Incoming>,
) -> Response<Body> {
    let runtime = Arc::clone(runtime);
    match tokens.redeem(request.uri().path()) {
        Some(Wish::Command { wish, attach }) => streaming::command(runtime, wish, attach, request),
        Some(Wish::Ports { sandbox, ports }) => {
            let target = Target {
                runtime,
                pod: sandbox.clone(),
                sandbox,
                uid: String::new(),
            };
            streaming::forward(target, Ok(ports), request)
        }
        None => {
            let words = Bytes::from_static(b"404 page not found\n");
            let mut response = Response::new(Full::new(words).boxed_unsync());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once_and_for_its_own_purpose() {
        let tokens = Tokens::new("127.0.0.1:1".parse().unwrap());
        let wish = || Wish::Ports {
            sandbox: "s".to_owned(),
            ports: vec![80],
        };
        let path = |url: String| url.strip_prefix("http://127.0.0.1:1").unwrap().to_owned();
        let first = path(tokens.issue(wish()).unwrap());
        assert!(tokens.redeem(&first).is_some());
        assert!(tokens.redeem(&first).is_none());
        let second = path(tokens.issue(wish()).unwrap());
        assert!(
            tokens
                .redeem(&second.replace("portforward", "exec"))
                .is_none()
        );
        for _ in 0..TOKENS_MAX {
            tokens.issue(wish()).unwrap();
        }
        assert!(tokens.issue(wish()).is_err());
    }
}
