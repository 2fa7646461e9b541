//! A registry for one test: blobs, uploads in pieces, mounts, manifests, tokens. Content is in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// `user:secret`
const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";
const TOKEN: &str = "Bearer T0K";

#[derive(Default)]
pub(crate) struct Content {
    blobs: BTreeMap<String, Vec<u8>>,
    /// Which repository has which blob.
    owned: BTreeSet<(String, String)>,
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    uploads: BTreeMap<String, Vec<u8>>,
    pub(crate) requests: Vec<String>,
    /// An archive that whoever builds may fetch.
    pub(crate) context: Vec<u8>,
    /// The next piece is taken, but its sender is not told.
    pub(crate) break_piece: bool,
    /// Of the next blob that has more only so many bytes are sent; then its reader waits as long as
    /// it lives.
    pub(crate) holds: Option<usize>,
    /// From where on blobs were asked for, and how long they are.
    pub(crate) starts: Vec<(usize, usize)>,
}

/// Listens as long as the test runs.
#[derive(Clone)]
pub(crate) struct Registry {
    pub(crate) port: u16,
    pub(crate) content: Arc<Mutex<Content>>,
}

impl Registry {
    /// On the loopback of a network namespace.
    pub(crate) fn start(namespace: &Path) -> Registry {
        let namespace = std::fs::File::open(namespace).unwrap();
        let listen = move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            TcpListener::bind("127.0.0.1:0").unwrap()
        };
        let listener = std::thread::spawn(listen).join().unwrap();
        let registry = Registry {
            port: listener.local_addr().unwrap().port(),
            content: Arc::default(),
        };
        let serving = registry.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let registry = serving.clone();
                // A client that goes away early is no fault of the registry's.
                std::thread::spawn(move || registry.answer(stream).ok());
            }
        });
        registry
    }

    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default().to_owned();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length = headers
            .get("content-length")
            .map_or(0, |text| text.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let request = Request {
            method,
            target,
            headers,
            body,
        };
        match self.reply(&request) {
            Some(reply) => reply.send(stream, request.method == "HEAD"),
            None => Ok(()),
        }
    }

    /// `None` breaks the connection.
    fn reply(&self, request: &Request) -> Option<Reply> {
        let mut content = self.content.lock().unwrap();
        let (path, query) = request
            .target
            .split_once('?')
            .unwrap_or((&request.target, ""));
        content.requests.push(format!("{} {path}", request.method));
        let authorization = request.headers.get("authorization").map(String::as_str);
        if path == "/token" {
            return Some(match authorization {
                Some(BASIC) => Reply::new(200).body("application/json", br#"{"token":"T0K"}"#),
                _ => Reply::new(401),
            });
        }
        if path == "/file" {
            let reply = Reply::new(200).body("text/plain", b"downloaded\n");
            return Some(reply.header("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT"));
        }
        if path == "/v1/search" {
            let found =
                br#"{"results":[{"name":"team/box","star_count":7,"description":"a box"}]}"#;
            return Some(Reply::new(200).body("application/json", found));
        }
        if path == "/context" {
            return Some(Reply::new(200).body("application/x-tar", &content.context));
        }
        if authorization != Some(TOKEN) {
            let challenge = format!(
                "Bearer realm=\"http://127.0.0.1:{}/token\",service=\"test\"",
                self.port
            );
            return Some(Reply::new(401).header("WWW-Authenticate", &challenge));
        }
        let rest = path.strip_prefix("/v2/")?;
        if rest.is_empty() {
            return Some(Reply::new(200));
        }
        if let Some((repository, name)) = rest.split_once("/manifests/") {
            return Some(content.manifest(request, repository, name));
        }
        let (repository, rest) = rest.split_once("/blobs/")?;
        match rest.strip_prefix("uploads/") {
            Some(id) => content.upload(request, repository, id, query),
            None => Some(content.blob(request, repository, rest)),
        }
    }
}

struct Request {
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    held_after: Option<usize>,
}

impl Reply {
    fn new(status: u16) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            held_after: None,
        }
    }

    fn header(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn body(mut self, kind: &str, bytes: &[u8]) -> Reply {
        self.body = bytes.to_vec();
        self.header("Content-Type", kind)
    }

    fn send(self, mut stream: TcpStream, head_only: bool) -> std::io::Result<()> {
        let mut text = format!("HTTP/1.1 {} -\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += &format!("Content-Length: {}\r\n\r\n", self.body.len());
        stream.write_all(text.as_bytes())?;
        if let Some(length) = self.held_after {
            stream.write_all(&self.body[..length])?;
            // The other side says nothing more: this is its end.
            stream.read_to_end(&mut Vec::new())?;
            return Ok(());
        }
        if !head_only {
            stream.write_all(&self.body)?;
        }
        stream.flush()
    }
}

impl Content {
    fn manifest(&mut self, request: &Request, repository: &str, name: &str) -> Reply {
        let key = format!("{repository}/{name}");
        if request.method == "PUT" {
            let kind = request.headers["content-type"].clone();
            let digest = oci::Digest::of(&request.body).to_string();
            let stored = (kind, request.body.clone());
            self.manifests
                .insert(format!("{repository}/{digest}"), stored.clone());
            self.manifests.insert(key, stored);
            return Reply::new(201).header("Docker-Content-Digest", &digest);
        }
        match self.manifests.get(&key) {
            Some((kind, bytes)) => Reply::new(200).body(kind, bytes),
            None => Reply::new(404),
        }
    }

    fn blob(&mut self, request: &Request, repository: &str, digest: &str) -> Reply {
        let owned = self
            .owned
            .contains(&(repository.to_owned(), digest.to_owned()));
        let Some(bytes) = self.blobs.get(digest).filter(|_| owned) else {
            return Reply::new(404);
        };
        let range = request.headers.get("range");
        let start = range.and_then(|text| text.strip_prefix("bytes=")?.strip_suffix('-'));
        let start: usize = start.map_or(0, |text| text.parse().unwrap());
        let reply = Reply::new(if range.is_some() { 206 } else { 200 });
        let mut reply = reply.body("application/octet-stream", &bytes[start..]);
        if request.method == "GET" {
            self.starts.push((start, bytes.len()));
            reply.held_after = self.holds.take_if(|holds| *holds < bytes.len() - start);
        }
        reply
    }

    fn upload(
        &mut self,
        request: &Request,
        repository: &str,
        id: &str,
        query: &str,
    ) -> Option<Reply> {
        let parameter = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned())
        };
        let place = |id: &str| format!("/v2/{repository}/blobs/uploads/{id}");
        Some(match request.method.as_str() {
            "POST" => {
                if let (Some(digest), Some(from)) = (parameter("mount"), parameter("from"))
                    && self.owned.contains(&(from, digest.clone()))
                {
                    self.owned.insert((repository.to_owned(), digest));
                    return Some(Reply::new(201));
                }
                let id = format!("u{}", self.uploads.len());
                self.uploads.insert(id.clone(), Vec::new());
                Reply::new(202).header("Location", &place(&id))
            }
            "PATCH" => {
                let upload = self.uploads.get_mut(id)?;
                let range = &request.headers["content-range"];
                let start: usize = range.split('-').next()?.parse().ok()?;
                if start != upload.len() {
                    return Some(Reply::new(416));
                }
                upload.extend_from_slice(&request.body);
                if std::mem::take(&mut self.break_piece) {
                    return None;
                }
                Reply::new(202).header("Location", &place(id))
            }
            "GET" => {
                let last = self.uploads.get(id)?.len().saturating_sub(1);
                let range = format!("0-{last}");
                Reply::new(204)
                    .header("Location", &place(id))
                    .header("Range", &range)
            }
            _ => {
                let digest = parameter("digest")?;
                let bytes = self.uploads.remove(id)?;
                if oci::Digest::of(&bytes).as_str() != digest {
                    return Some(Reply::new(400));
                }
                self.blobs.insert(digest.clone(), bytes);
                self.owned.insert((repository.to_owned(), digest));
                Reply::new(201)
            }
        })
    }
}
