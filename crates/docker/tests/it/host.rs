//! An engine for one test, and a client that shows every byte.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

pub(crate) const BUSYBOX: &str = "/bin/busybox";
const LINKS: [&str; 14] = [
    "sh", "sleep", "cat", "echo", "true", "ls", "touch", "id", "env", "rm", "nc", "nslookup",
    "netstat", "grep",
];
/// Who root of a remapped container is on the machine.
pub(crate) const FIRST_USER: u32 = 300_000;
pub(crate) const FIRST_GROUP: u32 = 400_000;
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Host {
    folder: tempfile::TempDir,
    engine: Option<Child>,
    /// Whether the engine gives containers ids of their own.
    pub(crate) remaps: bool,
}

/// An answer: status, head and body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Host {
    /// Starts an engine with an image called `busybox`.
    pub(crate) fn new() -> Host {
        Host::telling(false)
    }

    /// The same with `--userns-remap`: users from [`FIRST_USER`] on, groups from [`FIRST_GROUP`] on.
    pub(crate) fn remapping() -> Host {
        Host::telling(true)
    }

    fn telling(remaps: bool) -> Host {
        assert!(
            nix::unistd::getuid().is_root() && Path::new(BUSYBOX).exists(),
            "needs root and a static {BUSYBOX}, which `make setup-test` installs"
        );
        let mut host = Host {
            folder: tempfile::tempdir().unwrap(),
            engine: None,
            remaps,
        };
        for (name, first) in [("subuid", FIRST_USER), ("subgid", FIRST_GROUP)] {
            let line = format!("dockremap:{first}:65536\n");
            std::fs::write(host.folder.path().join(name), line).unwrap();
        }
        host.boot();
        let loaded = host.send("POST", "/images/load", "application/x-tar", &image());
        assert_eq!(loaded.status, 200, "{}", loaded.text());
        assert!(loaded.text().contains("Loaded image: busybox:latest"));
        host
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// The engine's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.engine.as_ref().unwrap().id()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn cgroup(&self) -> String {
        let name = self.folder.path().file_name().unwrap().to_string_lossy();
        format!("/sampan-docker-{}", name.replace('.', ""))
    }

    pub(crate) fn boot(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut engine = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private"])
            .arg(env!("CARGO_BIN_EXE_docker-engine"))
            .arg(self.folder.path())
            .arg(self.socket())
            .arg(self.cgroup())
            .args(self.remaps.then_some(self.folder.path()))
            // It ends with this process, should that come to no orderly end.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = [0; 8];
        let told = engine.stdout.as_mut().unwrap().read_exact(&mut line);
        self.engine = Some(engine);
        assert!(told.is_ok(), "no engine: {}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// As a crash would.
    pub(crate) fn kill(&mut self) {
        let mut engine = self.engine.take().unwrap();
        engine.kill().unwrap();
        engine.wait().unwrap();
    }

    /// One request in the old protocol, whose answer ends with the connection.
    pub(crate) fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Answer {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        read(stream)
    }

    /// As [`Host::send`], with one more header.
    pub(crate) fn send_with(&self, method: &str, path: &str, header: &str, body: &[u8]) -> Answer {
        let path = format!("{path} HTTP/1.0\r\n{header}\r\nX-Rest:");
        self.send(method, &path, "application/json", body)
    }

    /// Sends a request, and leaves its answer to be read.
    pub(crate) fn open(&self, method: &str, path: &str, body: &[u8]) -> Open {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: docker\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        Open(stream)
    }

    /// Where the engine's network is.
    pub(crate) fn network_namespace(&self) -> PathBuf {
        let pid = self.engine.as_ref().unwrap().id();
        PathBuf::from(format!("/proc/{pid}/ns/net"))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        let text = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        self.send("POST", path, "application/json", text.as_bytes())
    }

    /// Takes a connection over; writes `input`, closes that side, and reads to the end.
    pub(crate) fn hijack(&self, path: &str, body: &Value) -> Hijacked {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let text = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("application/vnd.docker."), "{head}");
        Hijacked(stream)
    }

    /// `ip` with these words, where the engine's network is.
    pub(crate) fn ip(&self, words: &str) -> String {
        ip(self.pid(), words)
    }

    /// Output of a command of the engine's own network namespace.
    pub(crate) fn inside(&self, command: &str) -> String {
        let pid = self.engine.as_ref().unwrap().id().to_string();
        let output = Command::new("nsenter")
            .args(["--net", "--target", &pid, "--", BUSYBOX])
            .args(command.split(' '))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let (out, err) = (output.stdout, String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command:?}: {err}");
        String::from_utf8(out).unwrap()
    }

    /// Creates a container that runs a script.
    pub(crate) fn create(&self, name: &str, script: &str, more: Value) -> String {
        let mut body = json!({
            "Image": "busybox", "Cmd": ["sh", "-c", script],
            "HostConfig": {"NetworkMode": "none"},
        });
        for (key, value) in more.as_object().cloned().unwrap_or_default() {
            body[key] = value;
        }
        let made = self.post(&format!("/containers/create?name={name}"), &body);
        assert_eq!(made.status, 201, "{}", made.text());
        made.json()["Id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn start(&self, name: &str) {
        let started = self.post(&format!("/containers/{name}/start"), &Value::Null);
        assert_eq!(started.status, 204, "{}", started.text());
    }

    pub(crate) fn wait(&self, name: &str) -> i64 {
        let ended = self.post(&format!("/containers/{name}/wait"), &Value::Null);
        ended.json()["StatusCode"].as_i64().unwrap()
    }

    pub(crate) fn inspect(&self, name: &str) -> Value {
        let found = self.get(&format!("/containers/{name}/json"));
        assert_eq!(found.status, 200, "{}", found.text());
        found.json()
    }

    pub(crate) fn remove(&self, name: &str) -> Answer {
        self.send(
            "DELETE",
            &format!("/containers/{name}?force=1&v=1"),
            "",
            b"",
        )
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // What a failed test leaves goes with its cgroups: its engine may not answer any more.
        if self.engine.is_some() && !std::thread::panicking() {
            for container in self
                .get("/containers/json?all=1")
                .json()
                .as_array()
                .unwrap()
            {
                self.remove(container["Id"].as_str().unwrap());
            }
        }
        if self.engine.is_some() {
            self.kill();
        }
        let config = runtime::Config::below(self.folder.path(), &self.cgroup());
        runtime::clean_up(&config).unwrap();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// A connection whose answer is under way.
pub(crate) struct Open(UnixStream);

impl Open {
    /// Reads until some text has come.
    pub(crate) fn read_until(&mut self, text: &str) {
        let (mut seen, mut chunk) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&seen).contains(text) {
            let length = self.0.read(&mut chunk).unwrap();
            assert!(length > 0, "{text:?} in {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&chunk[..length]);
        }
    }
}

/// A connection that carries streams.
pub(crate) struct Hijacked(UnixStream);

impl Hijacked {
    /// Writes input and closes that side.
    pub(crate) fn input(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
        self.0.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Standard output and error, to the end.
    pub(crate) fn outputs(mut self) -> (String, String) {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).unwrap();
        split(&bytes)
    }
}

/// A command in the network namespace of a process.
pub(crate) fn nsenter(pid: u32) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--net", "--target", &pid.to_string(), "--"]);
    command
}

/// `ip` with these words, in the network namespace of a process.
pub(crate) fn ip(pid: u32, words: &str) -> String {
    let output = nsenter(pid)
        .arg("ip")
        .args(words.split(' '))
        .output()
        .unwrap();
    let (out, err) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "ip {words}: {err}");
    String::from_utf8(out).unwrap()
}

/// Takes two outputs in one stream apart.
pub(crate) fn split(mut bytes: &[u8]) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (piece, rest) = rest.split_at(length);
        match head[0] {
            1 => out.extend_from_slice(piece),
            2 => err.extend_from_slice(piece),
            other => panic!("stream {other}"),
        }
        bytes = rest;
    }
    (
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
    )
}

fn read(mut stream: UnixStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body: bytes[end + 4..].to_vec(),
    }
}

/// An archive as `docker save` writes it: busybox, and `/data/seed`.
fn image() -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    for folder in ["bin/", "data/", "tmp/", "etc/"] {
        let mut header = header(tar::EntryType::Directory, 0o755, 0);
        layer.append_data(&mut header, folder, &b""[..]).unwrap();
    }
    let busybox = std::fs::read(BUSYBOX).unwrap();
    let mut add = |name: &str, bytes: &[u8], mode| {
        let mut header = header(tar::EntryType::Regular, mode, bytes.len() as u64);
        layer.append_data(&mut header, name, bytes).unwrap();
    };
    add("bin/busybox", &busybox, 0o755);
    add("data/seed", b"from the image\n", 0o644);
    add(
        "etc/passwd",
        b"root:x:0:0:root:/:/bin/sh\nuser:x:7:7::/:/bin/sh\n",
        0o644,
    );
    for link in LINKS {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        layer
            .append_link(&mut header, format!("bin/{link}"), "busybox")
            .unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let config = json!({
        "architecture": match std::env::consts::ARCH { "aarch64" => "arm64", _ => "amd64" },
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": {"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["sh"], "Labels": {"maker": "test"}},
        "rootfs": {"type": "layers", "diff_ids": [oci::Digest::of(&layer).to_string()]},
        "history": [{"created": "2026-01-02T03:04:05Z", "created_by": "COPY busybox"}],
    });
    let manifest = json!([
        {"Config": "config.json", "RepoTags": ["busybox:latest"], "Layers": ["layer.tar"]}
    ]);
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in [
        ("config.json", config.to_string().into_bytes()),
        ("layer.tar", layer),
        ("manifest.json", manifest.to_string().into_bytes()),
    ] {
        let mut header = header(tar::EntryType::Regular, 0o644, bytes.len() as u64);
        archive
            .append_data(&mut header, name, bytes.as_slice())
            .unwrap();
    }
    archive.into_inner().unwrap()
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
