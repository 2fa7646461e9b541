//! Clients' sessions: connections over which we ask the client for its files, secrets, credentials.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use grpc::{Answer, Asked, Caller, Wire};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status, Streaming};

use crate::wire::{ById, CredentialsRequest, CredentialsResponse, Nothing, Packet, Piece};

/// Sessions at one time.
const SESSIONS_MAX: usize = 512;
/// Methods one session may name.
const METHODS_MAX: usize = 256;
/// A build waits this long for the session it names.
const PATIENCE: Duration = Duration::from_secs(5);
/// A client has this long to answer a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a secret.
const SECRET_MAX: usize = 500 << 10;
/// Bytes on their way through a tunnel, and of a piece.
const TUNNEL: usize = 64 << 10;
const PIECES: usize = 8;

const ID: &str = "x-docker-expose-session-uuid";
const METHOD: &str = "x-docker-expose-session-grpc-method";

const FILES: &str = "/moby.filesync.v1.FileSync/DiffCopy";
const TARGET: &str = "/moby.filesync.v1.FileSend/DiffCopy";
const UPLOAD: &str = "/moby.upload.v1.Upload/Pull";
const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
const AGENT_CHECK: &str = "/moby.sshforward.v1.SSH/CheckAgent";
const AGENT: &str = "/moby.sshforward.v1.SSH/ForwardAgent";

/// What a session says of itself when it begins.
pub struct Greeting {
    id: String,
    methods: BTreeSet<String>,
}

impl Greeting {
    /// From the headers of a request.
    pub fn of_headers(headers: &http::HeaderMap) -> Option<Greeting> {
        let methods = headers.get_all(METHOD).iter();
        let id = headers.get(ID)?.to_str().ok()?;
        Greeting::new(id, methods.filter_map(|value| value.to_str().ok()))
    }

    fn of_metadata(metadata: &MetadataMap) -> Option<Greeting> {
        let methods = metadata.get_all(METHOD).iter();
        let id = metadata.get(ID)?.to_str().ok()?;
        Greeting::new(id, methods.filter_map(|value| value.to_str().ok()))
    }

    fn new<'a>(id: &str, methods: impl Iterator<Item = &'a str>) -> Option<Greeting> {
        let methods = methods.take(METHODS_MAX).map(str::to_ascii_lowercase);
        (!id.is_empty()).then(|| Greeting {
            id: id.to_owned(),
            methods: methods.collect(),
        })
    }
}

/// A client that can be asked.
pub(crate) struct Session {
    caller: Caller,
    methods: BTreeSet<String>,
}

#[derive(Default)]
pub(crate) struct Sessions {
    open: Mutex<BTreeMap<String, Arc<Session>>>,
    came: tokio::sync::Notify,
}

impl Sessions {
    /// Whether there is one of this name.
    pub(crate) fn has(&self, greeting: &Greeting) -> bool {
        self.open.lock().contains_key(&greeting.id)
    }

    /// Carries a session until its connection ends.
    pub(crate) async fn carry(&self, greeting: Greeting, wire: Box<dyn Wire>) -> io::Result<()> {
        let (caller, carry) = Caller::over(wire).await?;
        let session = Arc::new(Session {
            caller,
            methods: greeting.methods,
        });
        {
            let mut open = self.open.lock();
            if open.len() >= SESSIONS_MAX || open.contains_key(&greeting.id) {
                return Err(io::Error::other("too many sessions, or two of one name"));
            }
            open.insert(greeting.id.clone(), session);
        }
        let _leaving = Leaving(self, greeting.id);
        self.came.notify_waiters();
        carry.await;
        Ok(())
    }

    /// The session of this name; waits for it for a while.
    pub(crate) async fn get(&self, id: &str) -> Result<Arc<Session>, Status> {
        let wait = async {
            loop {
                let came = self.came.notified();
                tokio::pin!(came);
                came.as_mut().enable();
                if let Some(session) = self.open.lock().get(id).cloned() {
                    return session;
                }
                came.await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, wait).await;
        found.map_err(|_| Status::unknown(format!("no active session for {id}: timed out")))
    }

    /// A session whose bytes come in messages.
    pub(crate) fn tunnel(self: &Arc<Sessions>, asked: Asked) -> Result<Answer, Status> {
        let greeting = Greeting::of_metadata(&asked.metadata)
            .ok_or_else(|| Status::invalid_argument("a session needs a name"))?;
        let (near, far) = tokio::io::duplex(TUNNEL);
        let sessions = Arc::clone(self);
        let (mut read, mut write) = tokio::io::split(far);
        let mut messages = asked.messages;
        let work = async move {
            let inward = async {
                while let Ok(Some(bytes)) = messages.message().await {
                    let Ok(piece) = grpc::take::<Piece>(bytes) else {
                        break;
                    };
                    if write.write_all(&piece.data).await.is_err() {
                        break;
                    }
                }
            };
            tokio::select! {
                () = inward => {}
                ended = sessions.carry(greeting, Box::new(near)) => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "session not carried");
                    }
                }
            }
        };
        let (sender, receiver) = mpsc::channel::<Result<Bytes, Status>>(PIECES);
        tokio::spawn(async move {
            let outward = async {
                let mut chunk = vec![0; TUNNEL / 2];
                while let Ok(length @ 1..) = read.read(&mut chunk).await {
                    let piece = Piece {
                        data: Bytes::copy_from_slice(&chunk[..length]),
                    };
                    let bytes = prost::Message::encode_to_vec(&piece).into();
                    if sender.send(Ok(bytes)).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = work => {}
                () = outward => {}
                () = sender.closed() => {}
            }
        });
        Ok(stream_of(receiver).boxed())
    }
}

struct Leaving<'a>(&'a Sessions, String);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.open.lock().remove(&self.1);
    }
}

pub(crate) fn stream_of<T: Send + 'static>(
    mut receiver: mpsc::Receiver<T>,
) -> impl Stream<Item = T> + Send + 'static {
    futures::stream::poll_fn(move |context| receiver.poll_recv(context))
}

/// Which files a client shall send.
#[derive(Default)]
pub(crate) struct Files<'a> {
    pub(crate) folder: &'a str,
    pub(crate) exclude: &'a [String],
    /// Nothing but these, and what they lead to; all where there are none.
    pub(crate) follow: &'a [String],
}

impl Session {
    fn serves(&self, method: &str) -> bool {
        self.methods.contains(&method.to_ascii_lowercase())
    }

    /// Begins a transfer of files from the client.
    pub(crate) async fn files(
        &self,
        files: &Files<'_>,
        requests: impl Stream<Item = Packet> + Send + 'static,
    ) -> Result<Streaming<Packet>, Status> {
        if !self.serves(FILES) {
            return Err(Status::unknown("no local sources enabled"));
        }
        let mut metadata = MetadataMap::new();
        put(&mut metadata, "dir-name", &[files.folder.to_owned()])?;
        put(&mut metadata, "exclude-patterns", files.exclude)?;
        put(&mut metadata, "followpaths", files.follow)?;
        self.caller.both(FILES, metadata, requests).await
    }

    /// Begins a transfer to an exporter of the client's.
    pub(crate) async fn target<Q, A>(
        &self,
        exporter: usize,
        messages: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        if !self.serves(TARGET) {
            return Err(Status::unknown("the client takes no files"));
        }
        let mut metadata = MetadataMap::new();
        let number = [exporter.to_string()];
        put(&mut metadata, "buildkit-attachable-exporter-id", &number)?;
        self.caller.both(TARGET, metadata, messages).await
    }

    /// What the client has to upload under a path.
    pub(crate) async fn upload(&self, path: &str) -> Result<Streaming<Piece>, Status> {
        let mut metadata = MetadataMap::new();
        put(&mut metadata, "urlpath", &[path.to_owned()])?;
        put(&mut metadata, "urlhost", &["buildkit-session".to_owned()])?;
        let nothing = futures::stream::pending::<Piece>();
        self.caller.both(UPLOAD, metadata, nothing).await
    }

    /// A secret, if the client has it.
    pub(crate) async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Status> {
        if !self.serves(SECRET) {
            return Ok(None);
        }
        let request = ById {
            id: id.to_owned(),
            ..ById::default()
        };
        let asked = self.caller.call::<ById, Piece>(SECRET, request);
        match in_time(asked).await {
            Ok(secret) if secret.data.len() > SECRET_MAX => Err(Status::unknown(format!(
                "invalid secret size {}",
                secret.data.len()
            ))),
            Ok(secret) => Ok(Some(secret.data.to_vec())),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// What the client is known by at a registry; nothing where it is nobody there.
    pub(crate) async fn credentials(&self, registry: &str) -> oci::Credentials {
        if !self.serves(CREDENTIALS) {
            return oci::Credentials::default();
        }
        let host = match registry {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let request = CredentialsRequest {
            host: host.to_owned(),
        };
        let asked = self
            .caller
            .call::<_, CredentialsResponse>(CREDENTIALS, request);
        match in_time(asked).await {
            // Without a user the secret is a token of identity.
            Ok(found) if found.username.is_empty() => oci::Credentials {
                identity_token: found.secret,
                ..oci::Credentials::default()
            },
            Ok(found) => oci::Credentials {
                username: found.username,
                password: found.secret,
                ..oci::Credentials::default()
            },
            Err(error) => {
                tracing::debug!(%error, registry, "the client tells no credentials");
                oci::Credentials::default()
            }
        }
    }

    /// Whether the client has an agent of this name.
    pub(crate) async fn has_agent(&self, id: &str) -> bool {
        let request = ById {
            id: id.to_owned(),
            ..ById::default()
        };
        let asked = self.caller.call::<ById, Nothing>(AGENT_CHECK, request);
        self.serves(AGENT_CHECK) && in_time(asked).await.is_ok()
    }

    /// One conversation with an agent of the client's.
    pub(crate) async fn agent(
        &self,
        id: &str,
        messages: impl Stream<Item = Piece> + Send + 'static,
    ) -> Result<Streaming<Piece>, Status> {
        let mut metadata = MetadataMap::new();
        put(&mut metadata, "buildkit.ssh.id", &[id.to_owned()])?;
        self.caller.both(AGENT, metadata, messages).await
    }
}

async fn in_time<T>(asked: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded("the client does not answer")),
    }
}

/// Texts of one key; where one of them is not ASCII, all are written as in URLs.
fn put(metadata: &mut MetadataMap, key: &'static str, texts: &[String]) -> Result<(), Status> {
    let encoded = texts.iter().any(|text| !text.is_ascii());
    for text in texts {
        let text = match encoded {
            true => escape(text),
            false => text.clone(),
        };
        let value = MetadataValue::try_from(text)
            .map_err(|_| Status::invalid_argument(format!("{key} holds what no header can")))?;
        metadata.append(key, value);
    }
    if encoded {
        let key = tonic::metadata::MetadataKey::from_bytes(format!("{key}-encoded").as_bytes())
            .map_err(|error| Status::internal(error.to_string()))?;
        metadata.insert(key, MetadataValue::from_static("1"));
    }
    Ok(())
}

fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_headers_cannot_hold_are_escaped() {
        let mut metadata = MetadataMap::new();
        let texts = ["a b/*".to_owned(), "ü".to_owned()];
        put(&mut metadata, "exclude-patterns", &texts).unwrap();
        let found: Vec<_> = metadata.get_all("exclude-patterns").iter().collect();
        assert_eq!(found, ["a%20b%2F%2A", "%C3%BC"]);
        assert_eq!(metadata.get("exclude-patterns-encoded").unwrap(), "1");
        put(&mut metadata, "followpaths", &texts[..1]).unwrap();
        assert_eq!(metadata.get("followpaths").unwrap(), "a b/*");
        assert!(metadata.get("followpaths-encoded").is_none());
    }
}
