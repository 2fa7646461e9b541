//! The client's agents of keys, as sockets for the steps that mount them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use build::dockerfile::{Dockerfile, MountKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Status;

use crate::fault;
use crate::sessions::{Session, stream_of};
use crate::wire::Piece;

/// Agents of one build, and conversations with one of them at one time.
const AGENTS_MAX: usize = 16;
const TALKS_MAX: usize = 64;
const CHUNK: usize = 16 << 10;
const PIECES: usize = 8;

/// Sockets that lead to the client, as long as this is there.
pub(super) struct Agents {
    sockets: BTreeMap<String, PathBuf>,
    _listening: JoinSet<()>,
}

impl Agents {
    /// Opens those that steps name and the client has.
    pub(super) async fn open(
        session: &Arc<Session>,
        file: &Dockerfile,
        folder: &Path,
    ) -> Result<Agents, Status> {
        let ids: BTreeSet<&str> = super::mounts(file, MountKind::Ssh)
            .map(|mount| mount.id.as_deref().unwrap_or("default"))
            .collect();
        let mut agents = Agents {
            sockets: BTreeMap::new(),
            _listening: JoinSet::new(),
        };
        for (number, id) in ids.into_iter().enumerate().take(AGENTS_MAX) {
            if !session.has_agent(id).await {
                continue;
            }
            let socket = folder.join(format!("agent-{number}"));
            let listener = UnixListener::bind(&socket).map_err(fault::words)?;
            agents.sockets.insert(id.to_owned(), socket);
            let work = listen(listener, Arc::clone(session), id.to_owned());
            agents._listening.spawn(work);
        }
        Ok(agents)
    }

    pub(super) fn sockets(&self) -> &BTreeMap<String, PathBuf> {
        &self.sockets
    }
}

async fn listen(listener: UnixListener, session: Arc<Session>, id: String) {
    let mut talks = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while talks.try_join_next().is_some() {}
        if talks.len() >= TALKS_MAX {
            continue;
        }
        let (session, id) = (Arc::clone(&session), id.clone());
        talks.spawn(async move {
            if let Err(error) = talk(stream, &session, &id).await {
                tracing::debug!(%error, id, "the agent's conversation broke off");
            }
        });
    }
}

async fn talk(stream: UnixStream, session: &Session, id: &str) -> Result<(), Status> {
    let (mut read, mut write) = stream.into_split();
    let (sender, receiver) = mpsc::channel(PIECES);
    let outward = async move {
        let mut chunk = vec![0; CHUNK];
        while let Ok(length @ 1..) = read.read(&mut chunk).await {
            let data = bytes::Bytes::copy_from_slice(&chunk[..length]);
            if sender.send(Piece { data }).await.is_err() {
                return;
            }
        }
    };
    // The agent's first word comes after ours.
    let inward = async {
        let mut answers = session.agent(id, stream_of(receiver)).await?;
        while let Some(piece) = answers.message().await? {
            let written = write.write_all(&piece.data).await;
            written.map_err(|error| Status::unavailable(error.to_string()))?;
        }
        Ok(())
    };
    let ((), ended) = tokio::join!(outward, inward);
    ended
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};
    use grpc::Asked;

    use super::*;
    use crate::sessions::Sessions;
    use crate::wire::Nothing;

    /// A client with one agent, which repeats what it hears.
    async fn echo(asked: Asked) -> Result<grpc::Answer, Status> {
        match asked.path.as_str() {
            "/moby.sshforward.v1.SSH/CheckAgent" => Ok(grpc::one(&Nothing {})),
            _ => {
                assert_eq!(asked.text("buildkit.ssh.id"), Some("default"));
                Ok(asked.messages.boxed())
            }
        }
    }

    #[tokio::test]
    async fn steps_talk_to_the_clients_agent() {
        let (near, far) = tokio::io::duplex(CHUNK);
        tokio::spawn(grpc::serve_wire(
            Box::new(far),
            Arc::new(|asked| echo(asked).boxed()),
        ));
        let mut headers = http::HeaderMap::new();
        for (name, value) in [
            ("x-docker-expose-session-uuid", "s"),
            (
                "x-docker-expose-session-grpc-method",
                "/moby.sshforward.v1.SSH/CheckAgent",
            ),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let greeting = crate::Greeting::of_headers(&headers).unwrap();
        let sessions = Arc::new(Sessions::default());
        let carrying = Arc::clone(&sessions);
        tokio::spawn(async move { carrying.carry(greeting, Box::new(near)).await });
        let session = sessions.get("s").await.unwrap();
        let file = build::dockerfile::parse("FROM x\nRUN --mount=type=ssh y").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let agents = Agents::open(&session, &file, folder.path()).await.unwrap();
        let mut talk = UnixStream::connect(&agents.sockets()["default"])
            .await
            .unwrap();
        talk.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        talk.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
    }
}
