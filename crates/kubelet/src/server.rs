//! The server on port 10250: logs, exec, attach and port forwarding for the
//! API server, numbers for those who measure.

mod cadvisor;
mod container_logs;
mod forward;
mod gather;
mod healthz;
mod log_query;
mod log_reader;
mod numbers;
mod page;
mod path;
mod remote_command;
mod resource;
mod summary;
mod system_logs;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::Stop;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::config::{GuardRequest, Refusal, ServerConfig};
use crate::pod::PodExt;
use crate::shared::Shared;
pub(crate) use healthz::serve as serve_healthz;
use path::{Query, subresources};
use streaming::Body;

/// Connections at one time.
const CONNECTIONS_MAX: usize = 1_024;
/// A request without TLS comes within this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A handshake takes at most so long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers connections; ends when the process stops.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    config: ServerConfig,
    stop: Stop,
) {
    let acceptor = TlsAcceptor::from(config.tls.clone());
    let work = move |tcp| connection(shared.clone(), config.clone(), acceptor.clone(), tcp);
    base::listener::serve(listener, CONNECTIONS_MAX, stop, work).await;
}

/// Answers everybody who asks what there is, without TLS; ends when the process stops.
pub(crate) async fn serve_read_only(shared: Arc<Shared>, listener: TcpListener, stop: Stop) {
    let work = move |tcp: TcpStream| {
        let shared = shared.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let shared = shared.clone();
            async move {
                let path = request.uri().path().to_owned();
                Ok::<_, Infallible>(match path.as_str() {
                    path if path::is_debugging(path) => debugging_is_off(),
                    path if path::is_for_everybody(path) => respond(&shared, request).await,
                    _ => text(StatusCode::NOT_FOUND, "404 page not found\n".into()),
                })
            }
        });
        serve_plainly(tcp, service)
    };
    base::listener::serve(listener, CONNECTIONS_MAX, stop, work).await;
}

/// Answers one connection without TLS.
async fn serve_plainly<S>(tcp: TcpStream, service: S)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
{
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(tcp), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

fn debugging_is_off() -> Response<Body> {
    text(
        StatusCode::METHOD_NOT_ALLOWED,
        "Debug endpoints are disabled.\n".into(),
    )
}

async fn connection(
    shared: Arc<Shared>,
    config: ServerConfig,
    acceptor: TlsAcceptor,
    tcp: TcpStream,
) {
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await;
    let tls = match handshake {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::debug!(%error, "handshake failed"),
        Err(_) => return tracing::debug!("handshake took too long"),
    };
    let certificate = tls
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|all| all.first());
    let certificate: Option<Arc<[u8]>> = certificate.map(|der| Arc::from(der.as_ref()));
    let service = service_fn(move |request| {
        let (shared, config) = (shared.clone(), config.clone());
        let certificate = certificate.clone();
        async move {
            let answer = admit(&config, certificate.as_deref(), &request).await;
            Ok::<_, Infallible>(match answer {
                Ok(()) if !config.debugging && path::is_debugging(request.uri().path()) => {
                    debugging_is_off()
                }
                Ok(()) => respond(&shared, request).await,
                Err(refusal) => refuse(&refusal),
            })
        }
    });
    let served = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(tls), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(error, "connection ended");
    }
}

async fn admit(
    config: &ServerConfig,
    certificate: Option<&[u8]>,
    request: &Request<Incoming>,
) -> Result<(), Refusal> {
    let bearer = request.headers().get(header::AUTHORIZATION);
    let bearer = bearer.and_then(|value| value.to_str().ok());
    let verb = match *request.method() {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    };
    let path = request.uri().path();
    let asked = GuardRequest {
        certificate,
        token: bearer.and_then(|value| value.strip_prefix("Bearer ")),
        verb,
        path,
        subresources: subresources(path),
    };
    config.guard.admit(&asked).await
}

fn refuse(refusal: &Refusal) -> Response<Body> {
    let code = match refusal {
        Refusal::Unauthorized => StatusCode::UNAUTHORIZED,
        Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
    };
    text(code, refusal.to_string())
}

async fn respond(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let parts: Vec<String> = path
        .trim_matches('/')
        .split('/')
        .map(path::decode)
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    match parts.as_slice() {
        ["healthz"] | ["healthz", "ping" | "syncloop"] => text(StatusCode::OK, "ok".into()),
        ["pods"] => numbers::pods(shared),
        ["stats", "summary"] => {
            let brief = query.get("only_cpu_and_memory");
            summary::summary(shared, brief.is_some_and(|value| value == "true")).await
        }
        ["metrics", "resource"] => resource::answer(shared).await,
        ["metrics", "cadvisor"] => cadvisor::answer(shared).await,
        ["metrics", "probes"] => numbers::probes(),
        ["metrics"] => numbers::metrics(shared),
        ["configz"] => numbers::configz(shared),
        ["logs", ..] => system_logs::answer(shared, &query, &request).await,
        ["containerLogs", namespace, pod, container] => {
            container_logs::answer(shared, (namespace, pod, container), &query).await
        }
        ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => {
            let target = (*namespace, *pod, *container);
            remote_command::answer(shared, target, &query, false, request)
        }
        ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
            let target = (*namespace, *pod, *container);
            remote_command::answer(shared, target, &query, true, request)
        }
        ["run", namespace, pod, container] | ["run", namespace, pod, _, container] => {
            remote_command::run(shared, (namespace, pod, container), &query).await
        }
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
            forward::answer(shared, (namespace, pod), &query, request)
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n".into()),
    }
}

fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into()).boxed_unsync()
}

fn text(code: StatusCode, text: String) -> Response<Body> {
    with_type(code, text, "text/plain; charset=utf-8")
}

fn json(tree: &serde_json::Value) -> Response<Body> {
    with_type(StatusCode::OK, tree.to_string(), "application/json")
}

fn with_type(code: StatusCode, text: String, media_type: &'static str) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = code;
    let value = HeaderValue::from_static(media_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

/// The running container of a pod, by name.
fn running_container(
    shared: &Shared,
    (namespace, pod, container): (&str, &str, &str),
) -> Result<(crate::pods::PodView, node_api::ContainerStatus), Box<Response<Body>>> {
    let fault = |code, message: String| Box::new(text(code, message));
    let view = shared.pods.by_name(namespace, pod);
    let view = view.ok_or_else(|| fault(StatusCode::NOT_FOUND, "pod does not exist".into()))?;
    if view.pod.container(container).is_none() {
        let message = format!("container {container} not found in pod {pod}_{namespace}");
        return Err(fault(StatusCode::NOT_FOUND, message));
    }
    let newest = crate::plan::newest_container(&view.containers, container).cloned();
    match newest.filter(|c| c.state == node_api::ContainerState::Running) {
        Some(status) => Ok((view, status)),
        None => {
            let message = format!("container not found (\"{container}\")");
            Err(fault(StatusCode::INTERNAL_SERVER_ERROR, message))
        }
    }
}
