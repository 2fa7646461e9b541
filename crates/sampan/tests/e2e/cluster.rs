//! A cluster for one test.

use std::fmt::Debug;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_sampan");
/// How full this machine's disk is says nothing about the cluster.
pub(crate) const ON_ANY_DISK: [&str; 4] = [
    "--kubelet-arg",
    "image-gc-high-threshold=100",
    "--kubelet-arg",
    "eviction-hard=memory.available<1Mi",
];
/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Network and mount namespaces without a way out, held by a sleeping process.
pub(crate) struct Namespace {
    holder: Child,
}

impl Namespace {
    pub(crate) fn new() -> Namespace {
        // `--fork` is absent on purpose: the holder's own pid names the namespaces.
        let holder = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--propagation",
                "private",
                "sleep",
                "infinity",
            ])
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare (util-linux) and root are needed");
        let namespace = Namespace { holder };
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", namespace.holder.id());
        eventually("a network namespace", || {
            std::fs::read_link(&theirs)
                .is_ok_and(|link| link != own)
                .then_some(())
        });
        let up = namespace
            .command("ip")
            .args(["link", "set", "lo", "up"])
            .status()
            .unwrap();
        assert!(up.success(), "loopback cannot be brought up");
        namespace
    }

    /// Where its network is.
    pub(crate) fn network(&self) -> std::path::PathBuf {
        format!("/proc/{}/ns/net", self.holder.id()).into()
    }

    /// A command that runs inside.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "--net",
            "--mount",
            "--target",
            &self.holder.id().to_string(),
            "--",
        ]);
        command.arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.holder.kill().unwrap();
        self.holder.wait().unwrap();
    }
}

/// A server process with its data folder.
pub(crate) struct Cluster {
    pub(crate) namespace: Namespace,
    pub(crate) folder: tempfile::TempDir,
    server: Option<Child>,
}

impl Cluster {
    /// Starts a server and waits until its node is Ready.
    pub(crate) fn start() -> Cluster {
        let mut cluster = Cluster::cold();
        cluster.boot();
        cluster
    }

    /// A cluster whose server does not run yet.
    pub(crate) fn cold() -> Cluster {
        let folder = tempfile::Builder::new()
            .prefix("sampan-e2e-")
            .tempdir()
            .unwrap();
        Cluster {
            namespace: Namespace::new(),
            folder,
            server: None,
        }
    }

    /// Starts the server.
    pub(crate) fn boot(&mut self) {
        self.boot_with(&[]);
    }

    /// Starts the server with more arguments.
    pub(crate) fn boot_with(&mut self, arguments: &[&str]) {
        // Flags would win over what a file says.
        let configured = arguments.contains(&"--kubelet-config");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let child = self
            .namespace
            .command(BINARY)
            .arg("server")
            .arg("--data-dir")
            .arg(self.folder.path())
            .args(["--node-name", "node-1"])
            .args(if configured { &[] } else { &ON_ANY_DISK[..] })
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(child);
        eventually_or(
            "a Ready node",
            || self.log(),
            || {
                let output = self
                    .sampan(&["get", "nodes", "--no-headers"])
                    .output()
                    .unwrap();
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                text.split_whitespace()
                    .any(|word| word == "Ready")
                    .then_some(())
            },
        );
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        let mut server = self.server.take().expect("server runs");
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// SIGTERM; returns how long it took and whether it ended well.
    pub(crate) fn terminate(&mut self) -> (Duration, bool) {
        let mut server = self.server.take().expect("server runs");
        let begin = Instant::now();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(server.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).unwrap();
        let status = eventually("the server's end", || server.try_wait().unwrap());
        (begin.elapsed(), status.success())
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// The end of the server's log.
    pub(crate) fn log(&self) -> String {
        let text = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("admin.kubeconfig")
    }

    /// The binary's own client.
    pub(crate) fn sampan(&self, arguments: &[&str]) -> Command {
        let mut command = self.namespace.command(BINARY);
        command
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig())
            .stdin(Stdio::null());
        command
    }

    /// A command inside the cluster's namespaces, as the administrator.
    pub(crate) fn run(&self, program: &Path, arguments: &[&str], stdin: &str) -> Output {
        let mut command = self.namespace.command(program);
        command
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(stdin.as_bytes()).unwrap();
        drop(input);
        child.wait_with_output().unwrap()
    }

    /// Makes the test image from the binary itself.
    pub(crate) fn make_image(&self, tag: &str) {
        let folder = self.folder.path().display().to_string();
        let output = self
            .sampan(&["image", "from-binary", tag, "--data-dir", &folder])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.terminate();
        }
        let folder = self.folder.path().display().to_string();
        let purged = self
            .sampan(&["purge", "--data-dir", &folder])
            .output()
            .unwrap();
        if !purged.status.success() && !std::thread::panicking() {
            panic!("purge: {}", String::from_utf8_lossy(&purged.stderr));
        }
    }
}

/// Looks again and again until there is something, and panics when patience ends.
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_or(what, String::new, look)
}

/// The same, with more to say when patience ends.
pub(crate) fn eventually_or<T, D: Debug + std::fmt::Display>(
    what: &str,
    excuse: impl Fn() -> D,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited in vain for {what}\n{}",
            excuse()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
