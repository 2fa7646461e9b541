//! Commands in containers and their terminals, over WebSockets (`v5.channel.k8s.io` and its
//! predecessors) or SPDY.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use node_api::{
    ExecRequest, ExecSession, Reader, RuntimeError, RuntimeService, TerminalSize, Writer,
};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::spdy_command::Streams;
use crate::websocket::{Accepted, Receiver, Sender, accept};
use crate::{Body, text, upgrade};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// From version 5 on: the peer closed the channel named by the next byte.
const CLOSE: u8 = 255;

const COMMAND_PROTOCOLS: [&str; 8] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
    "v5.base64.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "base64.channel.k8s.io",
];
/// Those of SPDY, the oldest last.
const SPDY_PROTOCOLS: [&str; 4] = [
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];
/// Bytes moved at once.
const CHUNK: usize = 32 << 10;

/// Runs a command, or with `attach` joins the one that runs, and moves its streams. A wish without
/// any stream, or without a command to run, is refused.
pub fn command(
    runtime: Arc<dyn RuntimeService>,
    wish: ExecRequest,
    attach: bool,
    request: Request<Incoming>,
) -> Response<Body> {
    if !attach && wish.command.is_empty() {
        let message = "you must specify at least 1 command".to_owned();
        return text(StatusCode::BAD_REQUEST, message);
    }
    if !wish.stdin && !wish.stdout && !wish.stderr {
        let message = "you must specify at least 1 of stdin, stdout, stderr".to_owned();
        return text(StatusCode::BAD_REQUEST, message);
    }
    let work = Work {
        runtime,
        wish,
        attach,
    };
    match upgrade::is_asked(&request) {
        true => work.over_spdy(request),
        false => work.over_websocket(request),
    }
}

/// What is to be run, or attached to.
struct Work {
    runtime: Arc<dyn RuntimeService>,
    wish: ExecRequest,
    attach: bool,
}

impl Work {
    async fn start(self) -> Result<ExecSession, RuntimeError> {
        match self.attach {
            true => self.runtime.attach(self.wish).await,
            false => self.runtime.exec(self.wish).await,
        }
    }

    fn over_spdy(self, request: Request<Incoming>) -> Response<Body> {
        let (response, protocol, upgrade) = match upgrade::accept(request, &SPDY_PROTOCOLS) {
            Ok(accepted) => accepted,
            Err(refusal) => return *refusal,
        };
        let resizable = matches!(protocol, "v4.channel.k8s.io" | "v3.channel.k8s.io");
        let wish = &self.wish;
        let types: Vec<&'static str> = [
            ("error", true),
            ("stdin", wish.stdin),
            ("stdout", wish.stdout),
            ("stderr", wish.stderr),
            ("resize", wish.tty && resizable),
        ]
        .into_iter()
        .filter_map(|(kind, wanted)| wanted.then_some(kind))
        .collect();
        // Lives as long as the connection it was upgraded from.
        tokio::spawn(upgrade::run(upgrade, move |_, mut incoming| async move {
            let Some(mut streams) = Streams::gather(&mut incoming, &types).await else {
                return tracing::debug!("timed out waiting for client to create streams");
            };
            let command = self.wish.command.clone();
            let ended = match self.start().await {
                Ok(session) => streams.converse(session).await,
                Err(fault) => Err(fault),
            };
            streams.say(&verdict(&command, ended, protocol)).await;
        }));
        response
    }

    fn over_websocket(self, request: Request<Incoming>) -> Response<Body> {
        let accepted = match accept(request, &COMMAND_PROTOCOLS) {
            Ok(accepted) => accepted,
            Err(refusal) => return *refusal,
        };
        let (response, protocol, upgrade) = accepted.into_parts();
        let work = move |sender: Sender, mut receiver: Receiver| async move {
            let command = self.wish.command.clone();
            let ended = match self.start().await {
                Ok(session) => converse(session, &sender, &mut receiver).await,
                Err(fault) => Some(Err(fault)),
            };
            if let Some(ended) = ended {
                let verdict = verdict(&command, ended, protocol);
                sender.send(ERROR, &verdict).await;
            }
            receiver
        };
        // Lives as long as the connection it was upgraded from.
        tokio::spawn(Accepted::run(upgrade, protocol, work));
        response
    }
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

pub(crate) async fn pump(reader: Option<Reader>, channel: u8, sender: &Sender) {
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
        protocol if protocol.starts_with("v5.") || protocol.starts_with("v4.") => {
            status.to_string().into_bytes()
        }
        _ => message.into_bytes(),
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
