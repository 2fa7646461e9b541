//! One attempt of a probe.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use node_api::{RuntimeError, RuntimeService};
use tokio::net::TcpStream;

use super::grpc;
use crate::web::{self, Url};

/// Bytes of a command's output that are shown.
const OUTPUT_BYTES_MAX: usize = 10 << 10;

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    Success,
    /// Counts as success, and events say this.
    Warning(String),
    /// What events say.
    Failure(String),
}

impl Attempt {
    pub(super) fn is_success(&self) -> bool {
        !matches!(self, Attempt::Failure(_))
    }
}

/// Asks once.
pub(super) async fn attempt(
    probe: &Probe,
    container: &Container,
    (runtime, container_id): (&Arc<dyn RuntimeService>, &str),
    ip: Option<IpAddr>,
    timeout: Duration,
) -> Attempt {
    let asked = ask(probe, container, (runtime, container_id), ip, timeout).await;
    match asked {
        Ok(None) => Attempt::Success,
        Ok(Some(warning)) => Attempt::Warning(warning),
        Err(output) => Attempt::Failure(output),
    }
}

async fn ask(
    probe: &Probe,
    container: &Container,
    (runtime, container_id): (&Arc<dyn RuntimeService>, &str),
    ip: Option<IpAddr>,
    timeout: Duration,
) -> Result<Option<String>, String> {
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default();
        let done = exec_probe(runtime, container_id, command, timeout).await;
        return done.map(|()| None);
    }
    if let Some(get) = &probe.http_get {
        let answer = web::get_followed(&Url::of(get, container, ip)?, timeout).await?;
        return match answer.status {
            200..300 => Ok(None),
            300..400 => {
                let body = String::from_utf8_lossy(&answer.body);
                Ok(Some(format!(
                    "Probe terminated redirects, Response body: {body}"
                )))
            }
            code => {
                tracing::debug!(code, body = %String::from_utf8_lossy(&answer.body), "probe");
                Err(format!("HTTP probe failed with statuscode: {code}"))
            }
        };
    }
    let pod_host = || {
        ip.map(|ip| ip.to_string())
            .ok_or("the pod has no address yet")
    };
    if let Some(socket) = &probe.tcp_socket {
        let port = web::port_of(&socket.port, container)?;
        let host = socket.host.clone().filter(|host| !host.is_empty());
        let host = host.map_or_else(pod_host, Ok)?;
        let dial = TcpStream::connect((host.as_str(), port));
        return match tokio::time::timeout(timeout, dial).await {
            Ok(Ok(_)) => Ok(None),
            Ok(Err(fault)) => {
                let words = web::os_words(&fault);
                Err(format!("dial tcp {host}:{port}: connect: {words}"))
            }
            Err(_) => Err(format!("dial tcp {host}:{port}: i/o timeout")),
        };
    }
    if let Some(action) = &probe.grpc {
        let service = action.service.as_deref().unwrap_or_default();
        let port = u16::try_from(action.port).map_err(|_| "invalid port number".to_owned())?;
        let served = grpc::check(&pod_host()?, port, service, timeout).await;
        return served.map(|()| None);
    }
    Err("missing probe handler".to_owned())
}

async fn exec_probe(
    runtime: &Arc<dyn RuntimeService>,
    container_id: &str,
    command: Vec<String>,
    timeout: Duration,
) -> Result<(), String> {
    match runtime
        .exec_sync(container_id, command.clone(), Some(timeout))
        .await
    {
        Ok(done) if done.exit_code == 0 => Ok(()),
        Ok(done) => {
            let mut output = [done.stdout, done.stderr].concat();
            output.truncate(OUTPUT_BYTES_MAX);
            Err(String::from_utf8_lossy(&output).into_owned())
        }
        Err(RuntimeError::DeadlineExceeded(_)) => Err(format!(
            "command timed out: {:?} timed out after {}s",
            command.join(" "),
            timeout.as_secs()
        )),
        Err(fault) => Err(fault.to_string()),
    }
}
