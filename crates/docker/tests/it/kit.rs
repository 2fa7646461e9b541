//! BuildKit's protocol, with a client's part played here: its session with files and secrets, and
//! its calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use buildkit::wire::{
    ById, Exporter, Nothing, Packet, PacketKind, Piece, RpcStatus, SolveRequest, SolveResponse,
    Stat, StatusRequest, StatusResponse,
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use grpc::{Answer, Asked, Caller, Wire, one};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tonic::Status;

use crate::host::Host;

const SOLVE: &str = "/moby.buildkit.v1.Control/Solve";
const STATUS: &str = "/moby.buildkit.v1.Control/Status";
const METHODS: [&str; 3] = [
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.filesync.v1.FileSend/DiffCopy",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
];

/// What was asked of a folder: its name, what is left out, what is wanted.
type Wanted = (String, Vec<String>, Vec<String>);

/// What the client has, and what it got.
#[derive(Default)]
struct Client {
    files: BTreeMap<&'static str, &'static str>,
    secrets: BTreeMap<&'static str, &'static str>,
    asked: Mutex<Vec<Wanted>>,
    archive: Mutex<Vec<u8>>,
    mirrored: Mutex<BTreeMap<String, (Stat, Vec<u8>)>>,
}

/// Upgrades a connection.
async fn upgrade(host: &Host, path: &str, headers: &str) -> Box<dyn Wire> {
    let mut stream = UnixStream::connect(host.socket()).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    Box::new(stream)
}

impl Client {
    /// Opens a session that lasts as long as the task, and a connection for calls.
    async fn begin(self: &Arc<Client>, host: &Host, session: &str) -> Caller {
        let mut headers = format!("X-Docker-Expose-Session-Uuid: {session}\r\n");
        for method in METHODS {
            headers += &format!("X-Docker-Expose-Session-Grpc-Method: {method}\r\n");
        }
        let wire = upgrade(host, "/session", &headers).await;
        let client = Arc::clone(self);
        let serve = move |asked| Arc::clone(&client).answer(asked).boxed();
        tokio::spawn(grpc::serve_wire(wire, Arc::new(serve)));
        let wire = upgrade(host, "/grpc", "").await;
        let (caller, carry) = Caller::over(wire).await.unwrap();
        tokio::spawn(carry);
        caller
    }

    async fn answer(self: Arc<Client>, mut asked: Asked) -> Result<Answer, Status> {
        match asked.path.as_str() {
            "/moby.filesync.v1.FileSync/DiffCopy" => Ok(self.send(asked)),
            "/moby.filesync.v1.FileSend/DiffCopy" => Ok(self.take(asked)),
            "/moby.buildkit.secrets.v1.Secrets/GetSecret" => {
                let request: ById = asked.one().await?;
                let secret = self.secrets.get(request.id.as_str());
                let secret = secret.ok_or_else(|| Status::not_found("no secret"))?;
                Ok(one(&Piece {
                    data: Bytes::from_static(secret.as_bytes()),
                }))
            }
            _ => Err(Status::unimplemented("")),
        }
    }

    fn send(&self, mut asked: Asked) -> Answer {
        let all = |key: &str| {
            let values = asked.metadata.get_all(key).iter();
            let text = values.map(|value| value.to_str().unwrap().to_owned());
            text.collect::<Vec<_>>()
        };
        let (folder, follow) = (all("dir-name").join(""), all("followpaths"));
        self.asked
            .lock()
            .unwrap()
            .push((folder, all("exclude-patterns"), follow.clone()));
        let wanted = |name: &str| {
            let top = name.split('/').next().unwrap_or(name);
            follow.is_empty() || follow.iter().any(|path| path == name || path == top)
        };
        let files: Vec<(&str, &str)> = self
            .files
            .iter()
            .filter(|(name, _)| wanted(name))
            .map(|(name, text)| (*name, *text))
            .collect();
        let (sender, mut receiver) = mpsc::unbounded_channel();
        for (name, text) in &files {
            let folder = text.is_empty();
            let stat = Stat {
                path: (*name).to_owned(),
                mode: if folder { 1 << 31 | 0o755 } else { 0o644 },
                size: text.len() as i64,
                ..Stat::default()
            };
            let mut packet = Packet::of(PacketKind::Stat);
            packet.stat = Some(stat);
            sender.send(packet).unwrap();
        }
        sender.send(Packet::of(PacketKind::Stat)).unwrap();
        let texts: Vec<&'static str> = files.iter().map(|(_, text)| self.text(text)).collect();
        tokio::spawn(async move {
            while let Ok(Some(bytes)) = asked.messages.message().await {
                let packet = Packet::decode(bytes).unwrap();
                let mut answer = Packet::of(PacketKind::Data);
                answer.id = packet.id;
                match packet.kind() {
                    PacketKind::Request => {
                        answer.data = Bytes::from_static(texts[packet.id as usize].as_bytes());
                        sender.send(answer.clone()).unwrap();
                        answer.data = Bytes::new();
                        sender.send(answer).unwrap();
                    }
                    _ => {
                        let _ = sender.send(Packet::of(PacketKind::Finish));
                        return;
                    }
                }
            }
        });
        futures::stream::poll_fn(move |context| receiver.poll_recv(context))
            .map(|packet| Ok(Bytes::from(packet.encode_to_vec())))
            .boxed()
    }

    fn text(&self, text: &str) -> &'static str {
        self.files.values().find(|known| **known == text).unwrap()
    }

    /// What an exporter sends: pieces of an archive, or the steps of a transfer.
    fn take(self: Arc<Client>, mut asked: Asked) -> Answer {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut files: Vec<(Stat, Vec<u8>)> = Vec::new();
            let mut open = 0;
            while let Ok(Some(bytes)) = asked.messages.message().await {
                // A piece has text where a packet has a number.
                let Ok(packet) = Packet::decode(bytes.clone()) else {
                    let piece = Piece::decode(bytes).unwrap();
                    self.archive.lock().unwrap().extend(&piece.data);
                    continue;
                };
                match (packet.kind(), packet.stat) {
                    (PacketKind::Stat, Some(stat)) => {
                        if stat.mode & !0o7777 == 0 {
                            let mut request = Packet::of(PacketKind::Request);
                            request.id = files.len() as u32;
                            sender.send(request).unwrap();
                            open += 1;
                        }
                        files.push((stat, Vec::new()));
                    }
                    (PacketKind::Data, _) if packet.data.is_empty() => {
                        open -= 1;
                        if open == 0 {
                            sender.send(Packet::of(PacketKind::Finish)).unwrap();
                        }
                    }
                    (PacketKind::Data, _) => files[packet.id as usize].1.extend(&packet.data),
                    (PacketKind::Finish, _) => break,
                    _ => {}
                }
            }
            let mut mirrored = self.mirrored.lock().unwrap();
            for (stat, bytes) in files {
                mirrored.insert(stat.path.clone(), (stat, bytes));
            }
        });
        futures::stream::poll_fn(move |context| receiver.poll_recv(context))
            .map(|packet| Ok(Bytes::from(packet.encode_to_vec())))
            .boxed()
    }
}

fn request(reference: &str, exporter: &str, attrs: &[(&str, &str)]) -> SolveRequest {
    let map = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter();
        pairs
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect()
    };
    let mut request = SolveRequest {
        reference: reference.to_owned(),
        session: "session".to_owned(),
        frontend: "dockerfile.v0".to_owned(),
        frontend_attrs: map(attrs),
        ..SolveRequest::default()
    };
    request
        .frontend_attrs
        .insert("force-network-mode".to_owned(), "none".to_owned());
    request.exporters.push(Exporter {
        kind: exporter.to_owned(),
        attrs: map(&[("name", "docker.io/library/made:1,made:2")]),
    });
    request
}

/// Everything a build told.
async fn told(caller: &Caller, reference: &str) -> StatusResponse {
    let request = StatusRequest {
        reference: reference.to_owned(),
    };
    let mut stream = caller
        .stream::<_, StatusResponse>(STATUS, request)
        .await
        .unwrap();
    let mut all = StatusResponse::default();
    while let Some(response) = stream.message().await.unwrap() {
        all.vertexes.extend(response.vertexes);
        all.statuses.extend(response.statuses);
        all.logs.extend(response.logs);
        all.warnings.extend(response.warnings);
    }
    all
}

async fn solve(caller: &Caller, request: SolveRequest) -> Result<SolveResponse, Status> {
    caller.call(SOLVE, request).await
}

const DOCKERFILE: &str = "# syntax=docker/dockerfile:1
FROM busybox AS tools
ARG WORD=nothing
RUN --mount=type=secret,id=key cat /run/secrets/key && echo $WORD > /word

FROM busybox
COPY --from=tools /word /word
COPY one data /files/
";

fn client() -> Arc<Client> {
    Arc::new(Client {
        files: BTreeMap::from([
            (".dockerignore", "data/no*\n"),
            ("Dockerfile", DOCKERFILE),
            ("data", ""),
            ("data/inner", "inside\n"),
            ("fails", "FROM busybox\nRUN echo before && \\\n  false\n"),
            ("one", "first\n"),
            ("scratch", "FROM scratch\nCOPY one data /\n"),
            ("waits", "FROM busybox\nRUN echo begun && sleep 1000\n"),
        ]),
        secrets: BTreeMap::from([("key", "opensesame\n")]),
        ..Client::default()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_a_session_builds_images() {
    let host = Host::new();
    let client = client();
    let caller = client.begin(&host, "session").await;
    let attrs = [("build-arg:WORD", "hello"), ("build-arg:ODD", "1")];
    let solved = solve(&caller, request("first", "moby", &attrs));
    let (solved, first) = tokio::join!(solved, told(&caller, "first"));
    let answer = solved.unwrap().exporter_response;
    let id = &answer["containerimage.config.digest"];
    assert!(id.starts_with("sha256:"), "{answer:?}");
    assert!(answer["image.name"].contains("docker.io/library/made:2"));
    assert_eq!(host.get(&format!("/images/{id}/json")).status, 200);
    assert_eq!(
        host.output("made:1", "cat /word /files/one /files/inner"),
        "hello\nfirst\ninside\n"
    );
    let names: Vec<&str> = first.vertexes.iter().map(|v| v.name.as_str()).collect();
    for name in [
        "[internal] load build definition from Dockerfile",
        "[internal] load .dockerignore",
        "[internal] load build context",
        "[tools 1/2] FROM docker.io/library/busybox:latest",
        "[stage-1 3/3] COPY one data /files/",
        "exporting to image",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    let secret = first.logs.iter().any(|log| log.text == b"opensesame\n");
    assert!(secret, "{:?}", first.logs);
    assert!(first.vertexes.iter().all(|vertex| !vertex.cached));
    let warning = String::from_utf8(first.warnings[0].short.clone()).unwrap();
    assert_eq!(warning, "One or more build-args [ODD] were not consumed");
    let asked = client.asked.lock().unwrap().clone();
    let files = vec!["data".to_owned(), "one".to_owned()];
    let patterns = vec!["data/no*".to_owned()];
    assert_eq!(asked[2], ("context".to_owned(), patterns, files));

    // The same again comes from the cache, also for who asks when it is over.
    let again = solve(&caller, request("second", "moby", &attrs)).await;
    assert_eq!(
        again.unwrap().exporter_response["containerimage.config.digest"],
        *id
    );
    let second = told(&caller, "second").await;
    let cached = second.vertexes.iter().filter(|vertex| vertex.cached);
    assert_eq!(cached.count(), 3, "{:?}", second.vertexes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_go_to_the_client_and_faults_have_places() {
    let host = Host::new();
    let client = client();
    let caller = client.begin(&host, "session").await;
    let attrs = [("filename", "scratch")];
    solve(&caller, request("tar", "tar", &attrs)).await.unwrap();
    let archive = client.archive.lock().unwrap().clone();
    let mut archive = tar::Archive::new(archive.as_slice());
    let entries = archive.entries().unwrap();
    let names: Vec<_> = entries
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names, ["inner", "one"]);
    solve(&caller, request("local", "local", &attrs))
        .await
        .unwrap();
    let mirrored = client.mirrored.lock().unwrap().clone();
    assert_eq!(mirrored["one"].1, b"first\n");
    assert_eq!(mirrored["inner"].0.mode, 0o644);

    let fault = solve(&caller, request("bad", "moby", &[("filename", "fails")])).await;
    let fault = fault.unwrap_err();
    assert!(
        fault
            .message()
            .ends_with("did not complete successfully: exit code: 1"),
        "{fault:?}"
    );
    let details = RpcStatus::decode(fault.details()).unwrap().details;
    let source: serde_json::Value = serde_json::from_slice(&details[1].value).unwrap();
    assert_eq!(source["info"]["filename"], "fails");
    assert_eq!(source["ranges"][0]["start"]["line"], 2);
    assert_eq!(source["ranges"][0]["end"]["line"], 3);
    let failed = told(&caller, "bad").await;
    let vertex = failed
        .vertexes
        .iter()
        .find(|vertex| !vertex.error.is_empty());
    assert_eq!(vertex.unwrap().name, "[2/2] RUN echo before &&   false");

    for (attrs, words) in [
        (
            [("filename", "none")],
            "failed to read dockerfile: open none",
        ),
        ([("platform", "linux/s390x")], "images for linux/s390x"),
        (
            [("target", "nowhere")],
            "target stage \"nowhere\" could not be found",
        ),
        (
            [("context", "https://host/x.git")],
            "git repositories are not supported",
        ),
        ([("requestid", "frontend.lint")], "this engine builds"),
    ] {
        let fault = solve(&caller, request("bad", "moby", &attrs)).await;
        let fault = fault.unwrap_err();
        assert!(fault.message().contains(words), "{fault:?}");
    }
    let fault = solve(&caller, request("bad", "oci", &attrs)).await;
    assert!(fault.unwrap_err().message().contains("exporter \"oci\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gives_a_build_up_ends_it() {
    let host = Host::new();
    let client = client();
    let caller = client.begin(&host, "session").await;
    let request = request("given up", "moby", &[("filename", "waits")]);
    let call = tokio::spawn({
        let caller = caller.clone();
        async move { solve(&caller, request).await }
    });
    let status = StatusRequest {
        reference: "given up".to_owned(),
    };
    let mut stream = caller
        .stream::<_, StatusResponse>(STATUS, status)
        .await
        .unwrap();
    let mut ends = None;
    while let Some(response) = stream.message().await.unwrap() {
        if response.logs.iter().any(|log| log.text == b"begun\n") {
            call.abort();
        }
        let mut ended = response.vertexes.into_iter();
        ends = ended.find(|vertex| !vertex.error.is_empty()).or(ends);
    }
    let ended = ends.unwrap();
    assert_eq!(
        (ended.name.as_str(), ended.error.as_str()),
        ("[2/2] RUN echo begun && sleep 1000", "context canceled")
    );
    // Nothing of it is in the way of another one.
    let caller = client.begin(&host, "another").await;
    let info: Nothing = caller
        .call("/moby.buildkit.v1.Control/Info", Nothing {})
        .await
        .unwrap();
    assert_eq!(info, Nothing {});
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_clients_ask_for_builds_by_http() {
    let host = Host::new();
    let client = client();
    let _caller = client.begin(&host, "session").await;
    let ping = host.get("/_ping");
    assert!(ping.head.to_lowercase().contains("builder-version: 2"));
    let query =
        "version=2&session=session&remote=client-session&buildid=b&networkmode=none&t=old:1";
    let (host, answer) = tokio::task::spawn_blocking({
        let path = format!("/build?{query}");
        move || {
            let answer = host.send("POST", &path, "", b"");
            (host, answer)
        }
    })
    .await
    .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let lines = serde_json::Deserializer::from_slice(&answer.body).into_iter();
    let lines: Vec<serde_json::Value> = lines.map(Result::unwrap).collect();
    let told = lines
        .iter()
        .filter(|line| line["id"] == "moby.buildkit.trace");
    let names: Vec<String> = told
        .flat_map(|line| {
            let bytes = BASE64_STANDARD
                .decode(line["aux"].as_str().unwrap())
                .unwrap();
            let response = StatusResponse::decode(bytes.as_slice()).unwrap();
            response.vertexes.into_iter().map(|vertex| vertex.name)
        })
        .collect();
    assert!(
        names.contains(&"exporting to image".to_owned()),
        "{names:?}"
    );
    let last = lines.last().unwrap();
    assert_eq!(last["id"], "moby.image.id", "{last}");
    let image = host.get("/images/old:1/json").json();
    assert_eq!(image["Id"], last["aux"]["ID"]);
}
