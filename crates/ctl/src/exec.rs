//! `sampan exec`: a command in a container over a WebSocket (`v5.channel.k8s.io`).

use std::io::IsTerminal;
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::{SinkExt, StreamExt};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::{Session, logs};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Closes one of the other channels.
const CLOSE: u8 = 255;

/// Arguments of `exec`.
#[derive(Args, Clone, Debug)]
pub struct Exec {
    /// A pod, or `deployment/web` for one of its pods
    pod: String,
    /// Container of the pod
    #[arg(short, long)]
    container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// The command gets a terminal
    #[arg(short, long)]
    tty: bool,
    /// The command, after `--`
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl Exec {
    pub(crate) async fn run(self, session: &Session) -> Result<i32> {
        let pod = logs::pod_name(session, &self.pod).await?;
        let path = self.path(session, &pod);
        let (socket, protocol) = client::remote::websocket(
            &session.access,
            &path,
            &["v5.channel.k8s.io", "v4.channel.k8s.io"],
        )
        .await?;
        let can_close = protocol == "v5.channel.k8s.io";
        let _raw = (self.tty && std::io::stdin().is_terminal())
            .then(RawTerminal::enter)
            .transpose()?;
        let (mut to, mut from) = socket.split();
        let mut input = tokio::io::stdin();
        let mut reading = self.stdin;
        let mut resized =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change())?;
        if self.tty {
            to.send(resize_message()?).await?;
        }
        let mut buffer = vec![0; 16 * 1024];
        let mut outcome = None;
        loop {
            tokio::select! {
                message = from.next() => match message {
                    Some(Ok(Message::Binary(data))) => outcome = show(&data).await?.or(outcome),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                    Some(Ok(_)) => {}
                },
                count = input.read(&mut buffer), if reading => match count? {
                    0 => {
                        reading = false;
                        if can_close {
                            to.send(Message::Binary(Bytes::from_static(&[CLOSE, STDIN]))).await?;
                        }
                    }
                    count => {
                        let mut data = vec![STDIN];
                        data.extend_from_slice(&buffer[..count]);
                        to.send(Message::Binary(data.into())).await?;
                    }
                },
                _ = resized.recv(), if self.tty => to.send(resize_message()?).await?,
            }
        }
        exit_code(outcome)
    }

    fn path(&self, session: &Session, pod: &str) -> String {
        let mut path = format!(
            "/api/v1/namespaces/{}/pods/{pod}/exec?stdout=true",
            session.namespace
        );
        for (key, on) in [
            ("stderr", !self.tty),
            ("stdin", self.stdin),
            ("tty", self.tty),
        ] {
            path.push_str(&format!("&{key}={on}"));
        }
        let container = self.container.iter().map(|name| ("container", name));
        let words = self.command.iter().map(|word| ("command", word));
        for (key, value) in container.chain(words) {
            path.push_str(&format!(
                "&{key}={}",
                client::request::percent_encode(value)
            ));
        }
        path
    }
}

/// Prints a frame; returns the final status when the frame is that.
async fn show(data: &[u8]) -> Result<Option<Value>> {
    let Some((channel, data)) = data.split_first() else {
        return Ok(None);
    };
    match *channel {
        STDOUT => {
            let mut stdout = tokio::io::stdout();
            stdout.write_all(data).await?;
            stdout.flush().await?;
        }
        STDERR => {
            let mut stderr = tokio::io::stderr();
            stderr.write_all(data).await?;
            stderr.flush().await?;
        }
        ERROR => return Ok(Some(serde_json::from_slice(data)?)),
        _ => {}
    }
    Ok(None)
}

fn exit_code(outcome: Option<Value>) -> Result<i32> {
    let outcome = outcome.context("connection ended before the command did")?;
    if outcome["status"] == "Success" {
        return Ok(0);
    }
    let causes = outcome.pointer("/details/causes").and_then(Value::as_array);
    let code = causes
        .into_iter()
        .flatten()
        .find(|cause| cause["reason"] == "ExitCode");
    match code
        .and_then(|cause| cause["message"].as_str())
        .map(str::parse)
    {
        Some(Ok(code)) => {
            eprintln!("command terminated with exit code {code}");
            Ok(code)
        }
        _ => bail!(
            "{}",
            outcome["message"].as_str().unwrap_or("command failed")
        ),
    }
}

fn resize_message() -> Result<Message> {
    let (height, width) = console::Term::stdout().size();
    let mut data = vec![RESIZE];
    data.extend(serde_json::to_vec(
        &json!({"Width": width, "Height": height}),
    )?);
    Ok(Message::Binary(data.into()))
}

/// A terminal that passes every key on; put back as it was when dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> Result<RawTerminal> {
        let before = tcgetattr(std::io::stdin().as_fd())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, &raw)?;
        Ok(RawTerminal(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, &self.0) {
            tracing::warn!(%error, "terminal not restored");
        }
    }
}
