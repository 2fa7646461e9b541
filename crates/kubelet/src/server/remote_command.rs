//! Commands in containers, their terminals, and ports of pods, over
//! WebSockets (`v5.channel.k8s.io` and its predecessors).

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use node_api::{ExecRequest, ExecSession, Reader, RuntimeError, TerminalSize, Writer};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::path::Query;
use super::websocket::{Accepted, Receiver, Sender, accept};
use super::{Body, running_container, text};
use crate::pod::PodExt;
use crate::shared::Shared;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// From version 5 on: the peer closed the channel named by the next byte.
const CLOSE: u8 = 255;

const COMMAND_PROTOCOLS: [&str; 5] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];
const FORWARD_PROTOCOLS: [&str; 2] = ["v4.channel.k8s.io", "portforward.k8s.io"];
/// Bytes moved at once.
const CHUNK: usize = 32 << 10;
/// Ports of one forwarding.
const PORTS_MAX: usize = 100;

/// `exec` and `attach`.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    target: (&str, &str, &str),
    query: &Query,
    attach: bool,
    request: Request<Incoming>,
) -> Response<Body> {
    let (view, container) = match running_container(shared, target) {
        Ok(found) => found,
        Err(fault) => return *fault,
    };
    let spec = view
        .pod
        .container(target.2)
        .map(|(_, container)| container.clone());
    let spec_tty = spec.is_some_and(|container| container.tty == Some(true));
    let tty = if attach {
        spec_tty
    } else {
        query.has(&["tty"])
    };
    let wish = ExecRequest {
        container_id: container.id,
        command: query.all("command").map(str::to_owned).collect(),
        tty,
        stdin: query.has(&["input", "stdin"]),
        stdout: query.has(&["output", "stdout"]),
        stderr: query.has(&["error", "stderr"]) && !tty,
    };
    if !attach && wish.command.is_empty() {
        let message = "you must specify at least 1 command".to_owned();
        return text(StatusCode::BAD_REQUEST, message);
    }
    if !wish.stdin && !wish.stdout && !wish.stderr {
        let message = "you must specify at least 1 of stdin, stdout, stderr".to_owned();
        return text(StatusCode::BAD_REQUEST, message);
    }
    let accepted = match accept(request, &COMMAND_PROTOCOLS) {
        Ok(accepted) => accepted,
        Err(refusal) => return *refusal,
    };
    let (response, protocol, upgrade) = accepted.into_parts();
    let runtime = shared.runtime.clone();
    // Lives as long as the connection it was upgraded from.
    tokio::spawn(Accepted::run(
        upgrade,
        move |sender, mut receiver| async move {
            let command = wish.command.clone();
            let session = match attach {
                true => runtime.attach(wish).await,
                false => runtime.exec(wish).await,
            };
            let ended = match session {
                Ok(session) => converse(session, &sender, &mut receiver).await,
                Err(fault) => Some(Err(fault)),
            };
            if let Some(ended) = ended {
                let verdict = verdict(&command, ended, protocol);
                sender.send(ERROR, &verdict).await;
            }
            receiver
        },
    ));
    response
}

/// Moves bytes until the command ended; `None` when the peer left first.
async fn converse(
    session: ExecSession,
    sender: &Sender,
    receiver: &mut Receiver,
) -> Option<Result<i32, RuntimeError>> {
    // An empty first frame tells the client that the connection stands.
    let first = match (&session.stdout, &session.stderr) {
        (Some(_), _) => STDOUT,
        (None, Some(_)) => STDERR,
        (None, None) => ERROR,
    };
    if !sender.send(first, &[]).await {
        return None;
    }
    let ExecSession {
        stdin,
        stdout,
        stderr,
        resize,
        exit,
    } = session;
    let outputs = async {
        tokio::join!(pump(stdout, STDOUT, sender), pump(stderr, STDERR, sender));
        exit.await.unwrap_or_else(|_| {
            Err(RuntimeError::Internal(
                "the runtime did not tell how the command ended".into(),
            ))
        })
    };
    let inputs = take_input(receiver, sender, stdin, resize);
    tokio::pin!(outputs);
    tokio::select! {
        ended = &mut outputs => Some(ended),
        () = inputs => None,
    }
}

async fn pump(reader: Option<Reader>, channel: u8, sender: &Sender) {
    let Some(mut reader) = reader else {
        return;
    };
    let mut chunk = vec![0; CHUNK];
    loop {
        match reader.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if !sender.send(channel, &chunk[..count]).await {
                    return;
                }
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// Feeds what the peer sends; ends when it left.
async fn take_input(
    receiver: &mut Receiver,
    sender: &Sender,
    mut stdin: Option<Writer>,
    resize: Option<tokio::sync::mpsc::Sender<TerminalSize>>,
) {
    while let Some((channel, bytes)) = receiver.next(sender).await {
        match channel {
            STDIN => {
                let Some(writer) = stdin.as_mut() else {
                    continue;
                };
                let written = match writer.write_all(&bytes).await {
                    Ok(()) => writer.flush().await,
                    error => error,
                };
                if written.is_err() {
                    // The command closed its input; what it prints still counts.
                    stdin = None;
                }
            }
            RESIZE => {
                let size: Option<Size> = serde_json::from_slice(&bytes).ok();
                if let (Some(resize), Some(Size { width, height })) = (&resize, size) {
                    // A size that does not fit the queue is followed by a newer one.
                    if let Err(error) = resize.try_send(TerminalSize { width, height }) {
                        tracing::debug!(%error, "terminal size dropped");
                    }
                }
            }
            CLOSE if bytes.first() == Some(&STDIN) => {
                if let Some(mut writer) = stdin.take() {
                    drop(writer.shutdown().await);
                }
            }
            _ => {}
        }
    }
}

/// What the error channel says at the end: a Status from version 4 on, plain text before.
fn verdict(command: &[String], ended: Result<i32, RuntimeError>, protocol: &str) -> Vec<u8> {
    let (status, message) = match ended {
        Ok(0) => (json!({"metadata": {}, "status": "Success"}), String::new()),
        Ok(code) => {
            let message = format!(
                "command terminated with non-zero exit code: error executing command {command:?}, exit code {code}"
            );
            let status = json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": message,
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            });
            (status, message)
        }
        Err(fault) => {
            let message =
                format!("Internal error occurred: error executing command in container: {fault}");
            let status = json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                "message": message,
                "details": {"causes": [{"message": fault.to_string()}]},
            });
            (status, message)
        }
    };
    match protocol {
        "v5.channel.k8s.io" | "v4.channel.k8s.io" => status.to_string().into_bytes(),
        _ => message.into_bytes(),
    }
}

/// `/run`: a command whose output is the answer.
pub(super) async fn run(
    shared: &Arc<Shared>,
    target: (&str, &str, &str),
    query: &Query,
) -> Response<Body> {
    let (_, container) = match running_container(shared, target) {
        Ok(found) => found,
        Err(fault) => return *fault,
    };
    let command = query.get("cmd").unwrap_or_default();
    let command: Vec<String> = command.split(' ').map(str::to_owned).collect();
    match shared.runtime.exec_sync(&container.id, command, None).await {
        Ok(done) => {
            let output = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
            text(StatusCode::OK, output)
        }
        Err(fault) => text(StatusCode::INTERNAL_SERVER_ERROR, fault.to_string()),
    }
}

/// Ports of a pod: channels come in pairs, data and error, each opened by its port's number.
pub(super) async fn port_forward(
    shared: &Arc<Shared>,
    (namespace, pod): (&str, &str),
    query: &Query,
    request: Request<Incoming>,
) -> Response<Body> {
    let Some(view) = shared.pods.by_name(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, "pod does not exist".into());
    };
    let Some(sandbox) = crate::plan::newest_sandbox(&view.sandboxes) else {
        return text(StatusCode::NOT_FOUND, "pod not found".into());
    };
    let listed = query
        .all("port")
        .chain(query.all("ports"))
        .flat_map(|list| list.split(','));
    let ports: Result<Vec<u16>, _> = listed.map(str::parse).collect();
    let Some(ports) = ports.ok().filter(|p| !p.is_empty() && p.len() <= PORTS_MAX) else {
        return text(
            StatusCode::BAD_REQUEST,
            "query parameter \"port\" is required".into(),
        );
    };
    let accepted = match accept(request, &FORWARD_PROTOCOLS) {
        Ok(accepted) => accepted,
        Err(refusal) => return *refusal,
    };
    let (response, _, upgrade) = accepted.into_parts();
    let (runtime, sandbox_id) = (shared.runtime.clone(), sandbox.id.clone());
    tokio::spawn(Accepted::run(
        upgrade,
        move |sender, mut receiver| async move {
            let mut writers = Vec::new();
            let mut pumps = tokio::task::JoinSet::new();
            for (index, port) in ports.into_iter().enumerate() {
                let channel = u8::try_from(index * 2).unwrap_or(u8::MAX - 1);
                for channel in [channel, channel + 1] {
                    if !sender.send(channel, &port.to_le_bytes()).await {
                        return receiver;
                    }
                }
                match runtime.port_forward(&sandbox_id, port).await {
                    Ok(stream) => {
                        let (reader, writer) = tokio::io::split(stream);
                        let sender = sender.clone();
                        pumps.spawn(async move {
                            pump(Some(Box::new(reader)), channel, &sender).await;
                        });
                        writers.push(Some(writer));
                    }
                    Err(fault) => {
                        sender.send(channel + 1, fault.to_string().as_bytes()).await;
                        writers.push(None);
                    }
                }
            }
            while let Some((channel, bytes)) = receiver.next(&sender).await {
                feed(writers.get_mut(usize::from(channel / 2)), channel, &bytes).await;
            }
            receiver
        },
    ));
    response
}

async fn feed<W: tokio::io::AsyncWrite + Unpin>(
    slot: Option<&mut Option<W>>,
    channel: u8,
    bytes: &Bytes,
) {
    let Some(slot) = slot.filter(|_| channel.is_multiple_of(2)) else {
        return;
    };
    if let Some(writer) = slot
        && writer.write_all(bytes).await.is_err()
    {
        *slot = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_carries_the_exit_code() {
        let said = verdict(&["false".into()], Ok(3), "v5.channel.k8s.io");
        let status: serde_json::Value = serde_json::from_slice(&said).unwrap();
        assert_eq!(
            status["details"]["causes"][0],
            json!({"reason": "ExitCode", "message": "3"})
        );
        assert_eq!(status["reason"], "NonZeroExitCode");
        let said = verdict(&[], Ok(0), "v4.channel.k8s.io");
        assert_eq!(said, br#"{"metadata":{},"status":"Success"}"#);
        assert!(verdict(&[], Ok(0), "channel.k8s.io").is_empty());
    }
}
