//! The engine as a builder's host: steps run in containers like those of docker's clients, which go
//! when their files have become a layer.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use build::{Command, Fetched, Host, Ran, Say, Wishes};
use http::StatusCode;
use node_api::ExecSession;
use oci::{Changes, ImageRecord, Puller, Reference};
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;

use super::request::Beyond;
use crate::answer::Fault;
use crate::daemon::{Container, Daemon, Waiting};
use crate::translate::WRITABLE;
use crate::wire::{Config, CreateRequest, HostConfig, MountWish};

const KILL: i32 = 9;
/// A killed container that has not ended after this time is stuck in the kernel.
const KILL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
const CHUNK: usize = 32 << 10;

/// Runs what builds need on a daemon's engine.
#[derive(Default)]
pub(super) struct EngineHost {
    daemon: OnceLock<Weak<Daemon>>,
}

impl EngineHost {
    pub(super) fn serve(&self, daemon: Weak<Daemon>) {
        // There is one daemon.
        let _ = self.daemon.set(daemon);
    }

    fn daemon(&self) -> Result<Arc<Daemon>, String> {
        let daemon = self.daemon.get().and_then(Weak::upgrade);
        daemon.ok_or_else(|| "the engine is closing".to_owned())
    }
}

#[async_trait]
impl Host for EngineHost {
    async fn image(
        &self,
        name: &str,
        pull: bool,
        wishes: &Wishes,
        say: &Say,
    ) -> Result<ImageRecord, String> {
        let daemon = self.daemon()?;
        match crate::images::find(&daemon, name).await {
            Ok(image) if !pull => return Ok(image),
            Ok(_) => {}
            Err(fault) if fault.status == StatusCode::NOT_FOUND => {}
            Err(fault) => return Err(fault.message),
        }
        let full = crate::images::with_tag(name);
        let reference: Reference = full
            .parse()
            .map_err(|error: oci::ImageError| error.to_string())?;
        let beyond = beyond(wishes);
        let known = beyond.and_then(|beyond| beyond.credentials.get(&reference.registry));
        let credentials = match (known, beyond.and_then(|beyond| beyond.ask.as_ref())) {
            (Some(known), _) => known.clone(),
            (None, Some(ask)) => ask(reference.registry.clone()).await,
            (None, None) => oci::Credentials::default(),
        };
        say.line(format!(
            "{}: Pulling from {}",
            reference.manifest_name(),
            crate::images::familiar(&reference.name())
        ));
        let store = daemon.engine.images().clone();
        let puller = Puller::new(&store, daemon.engine.registries());
        let image = puller.pull(&full, &credentials, None).await;
        image.map_err(|error| error.to_string())
    }

    async fn run(&self, command: Command, say: &Say) -> Result<Ran, String> {
        let daemon = self.daemon()?;
        let ran = run(&daemon, command, say).await;
        ran.map_err(|fault| fault.message)
    }

    async fn discard(&self, ran: Ran) {
        if let Ok(hold) = ran.hold.downcast::<Hold>() {
            hold.remove().await;
        }
    }

    async fn fetch(&self, url: &str, target: &Path) -> Result<Fetched, String> {
        let daemon = self.daemon()?;
        let fetched = oci::download(daemon.engine.registries(), url, target).await;
        let modified = fetched.map_err(|error| error.to_string())?;
        let parse = |text: String| jiff::fmt::rfc2822::parse(&text).ok();
        Ok(Fetched {
            modified: modified
                .and_then(parse)
                .map(|time| time.timestamp().as_second()),
        })
    }
}

fn beyond(wishes: &Wishes) -> Option<&Beyond> {
    wishes.as_ref()?.downcast_ref()
}

/// Removes a container of a build, also when nobody waits for it any more.
struct Hold {
    daemon: Arc<Daemon>,
    container: Option<Arc<Container>>,
}

impl Hold {
    async fn remove(mut self: Box<Hold>) {
        if let Some(container) = self.container.take() {
            remove(&self.daemon, &container).await;
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(container) = self.container.take() {
            let daemon = Arc::clone(&self.daemon);
            tokio::spawn(async move { remove(&daemon, &container).await });
        }
    }
}

async fn remove(daemon: &Daemon, container: &Arc<Container>) {
    let work = async {
        match daemon
            .stop_container(container, KILL, Some(KILL_TIMEOUT), true)
            .await
        {
            // It has ended by itself.
            Err(fault) if fault.status == StatusCode::NOT_MODIFIED => {}
            other => other?,
        }
        daemon.forget(container, true).await?;
        let _disposal = container.disposal.lock().await;
        daemon.discard(container);
        Ok::<(), Fault>(())
    };
    if let Err(fault) = work.await {
        tracing::warn!(%fault, id = container.id, "container of a build not removed");
    }
}

async fn run(daemon: &Arc<Daemon>, command: Command, say: &Say) -> Result<Ran, Fault> {
    let mut host = beyond(&command.wishes).map_or_else(HostConfig::default, |b| b.host.clone());
    host.network_mode.clone_from(&command.network);
    if host.privileged {
        host.userns_mode = "host".to_owned();
    }
    let mount = |bind: &build::Bind| MountWish {
        kind: "bind".to_owned(),
        source: bind.source.display().to_string(),
        target: bind.target.clone(),
        read_only: bind.readonly,
        ..MountWish::default()
    };
    host.mounts = Some(command.binds.iter().map(mount).collect());
    host.tmpfs = Some(command.tmpfs.iter().cloned().collect::<BTreeMap<_, _>>());
    let wish = CreateRequest {
        config: Config {
            cmd: Some(command.args),
            env: command.env,
            user: command.user,
            working_dir: command.working_dir,
            image: command.image.id.to_string(),
            ..Config::default()
        },
        host_config: host,
        ..CreateRequest::default()
    };
    let nothing = serde_json::Value::Null;
    let (id, _warnings) = daemon
        .create_of("", wish, command.image, &nothing, true)
        .await?;
    let container = daemon.find(&id)?;
    let hold = Hold {
        daemon: Arc::clone(daemon),
        container: Some(Arc::clone(&container)),
    };
    let short = id.get(..12).unwrap_or_default();
    say.remark(format!(" ---> Running in {short}"));
    let code = follow(daemon, &container, say).await?;
    // Its sandbox goes first: nobody writes any more.
    drop(container.disposal.lock().await);
    let mounts = container.record.read().mounts.clone();
    let mut ours = crate::containers::our_places();
    ours.extend(mounts.iter().map(|point| point.destination.clone().into()));
    say.remark(format!(" ---> Removed intermediate container {short}"));
    Ok(Ran {
        code,
        changes: Changes {
            folder: container.folder.join(WRITABLE).join("upper"),
            ours,
            latest: None,
        },
        hold: Box::new(hold),
    })
}

/// Starts a container and passes on what it says until it ends.
async fn follow(daemon: &Arc<Daemon>, container: &Arc<Container>, say: &Say) -> Result<i32, Fault> {
    let (sender, receiver) = oneshot::channel();
    container.waiting.lock().push(Waiting {
        stdin: false,
        stdout: true,
        stderr: true,
        session: sender,
    });
    let mut progress = container.progress.subscribe();
    let readers = Arc::clone(&container.readers);
    let reading = readers.read().await;
    daemon.start(container).await?;
    if let Ok(session) = receiver.await {
        speak(session, say).await;
    }
    drop(reading);
    let ended = progress
        .wait_for(|progress| !progress.up && progress.ends > 0)
        .await;
    ended
        .map(|progress| progress.exit_code)
        .map_err(Fault::internal)
}

/// Both outputs, as they come.
async fn speak(mut session: ExecSession, say: &Say) {
    let (out, err) = (session.stdout.take(), session.stderr.take());
    let one = async |reader: Option<node_api::Reader>| {
        let Some(mut reader) = reader else { return };
        let mut chunk = vec![0; CHUNK];
        let mut rest = Vec::new();
        while let Ok(length @ 1..) = reader.read(&mut chunk).await {
            rest.extend_from_slice(&chunk[..length]);
            let whole = whole_characters(&rest);
            let text: Vec<u8> = rest.drain(..whole).collect();
            say.text(String::from_utf8_lossy(&text));
        }
        if !rest.is_empty() {
            say.text(String::from_utf8_lossy(&rest));
        }
    };
    tokio::join!(one(out), one(err));
}

/// How many bytes there are before a character that is not complete yet.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Ok(_) => bytes.len(),
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Err(_) => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_not_torn() {
        let text = "aé".as_bytes();
        assert_eq!(
            (whole_characters(text), whole_characters(&text[..2])),
            (3, 1)
        );
        assert_eq!(whole_characters(b"\xff\xff"), 2);
    }
}
