//! The measured server as a child process, and how to wait for things in its cluster.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use client::{Access, Client, Kind};
use http::Method;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use tokio::process::{Child, Command};

/// Longest wait for anything in the cluster.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How often a server that is starting is asked whether it is there.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// How long a server may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const NODE: &str = "node-1";

/// A server that can be started, killed and started again.
pub(crate) struct Cluster {
    binary: PathBuf,
    folder: PathBuf,
    server: Option<Child>,
}

/// How long a start took, from the command on.
pub(crate) struct Started {
    pub(crate) began: Instant,
    /// Until `/readyz` said yes.
    pub(crate) api: Duration,
    /// Until the node was Ready by this very server's word.
    pub(crate) node: Duration,
}

impl Cluster {
    pub(crate) fn new(binary: PathBuf, folder: PathBuf) -> Result<Cluster> {
        std::fs::create_dir_all(&folder)?;
        Ok(Cluster {
            binary,
            folder,
            server: None,
        })
    }

    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The process id of the server.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.server
            .as_ref()
            .and_then(Child::id)
            .context("no server runs")
    }

    /// Starts the server and waits until its node is Ready.
    pub(crate) async fn start(&mut self) -> Result<Started> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let began = Instant::now();
        let wall = jiff::Timestamp::now();
        let child = Command::new(&self.binary)
            .arg("server")
            .arg("--data-dir")
            .arg(&self.folder)
            .args(["--node-name", NODE])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", self.binary.display()))?;
        self.server = Some(child);
        let connected = tokio::time::timeout(PATIENCE, self.connect()).await;
        let client = connected.context("server did not get ready")??;
        let api = began.elapsed();
        // A node may be Ready by the word of an earlier server; the lease tells who is alive.
        let renewed = |lease: &Lease| {
            let time = lease
                .spec
                .as_ref()
                .and_then(|spec| spec.renew_time.as_ref());
            time.is_some_and(|time| time.0 >= wall)
        };
        until::<Lease>(&client, Some("kube-node-lease"), NODE, renewed).await?;
        until::<Node>(&client, None, NODE, node_is_ready).await?;
        Ok(Started {
            began,
            api,
            node: began.elapsed(),
        })
    }

    async fn connect(&mut self) -> Result<Client> {
        loop {
            let ended = self
                .server
                .as_mut()
                .and_then(|server| server.try_wait().transpose());
            if let Some(status) = ended {
                bail!("server ended: {}", status?);
            }
            if let Ok(client) = self.client()
                && get(&client, "/readyz").await.is_ok()
            {
                return Ok(client);
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    pub(crate) fn access(&self) -> Result<Access> {
        Ok(client::kubeconfig::load(
            &self.folder.join("admin.kubeconfig"),
            None,
        )?)
    }

    /// A client with connections of its own.
    pub(crate) fn client(&self) -> Result<Client> {
        Ok(Client::remote(&self.access()?)?)
    }

    /// The binary's own client, or a tool of its.
    pub(crate) async fn sampan(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new(&self.binary)
            .args(arguments)
            .env("KUBECONFIG", self.folder.join("admin.kubeconfig"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            bail!("sampan {}: {}", arguments.join(" "), words.trim());
        }
        Ok(())
    }

    /// kill -9.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.server.take().context("no server runs")?.kill().await?;
        Ok(())
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log_path())
    }

    /// Stops the server and everything that outlives it.
    pub(crate) async fn clean_up(&mut self) -> Result<()> {
        let Some(mut server) = self.server.take() else {
            return self.purge().await;
        };
        if let Some(pid) = server.id() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
            nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM)?;
        }
        if tokio::time::timeout(STOP_TIMEOUT, server.wait())
            .await
            .is_err()
        {
            server.kill().await?;
        }
        self.purge().await
    }

    async fn purge(&self) -> Result<()> {
        let folder = self.folder.display().to_string();
        self.sampan(&["purge", "--data-dir", &folder]).await
    }
}

/// The end of a log.
pub(crate) fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// GET of a path, all of the answer.
pub(crate) async fn get(client: &Client, path: &str) -> Result<bytes::Bytes> {
    let request = client::request::request(Method::GET, path, None, client::empty())?;
    Ok(client.bytes(request).await?)
}

fn node_is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|one| one.type_ == "Ready" && one.status == "True")
}

/// Watches one object until `enough` says so.
pub(crate) async fn until<K: Kind>(
    client: &Client,
    namespace: Option<&str>,
    name: &str,
    enough: impl Fn(&K) -> bool,
) -> Result<K> {
    let api = match namespace {
        Some(namespace) => client.namespaced::<K>(namespace),
        None => client.all::<K>(),
    };
    match tokio::time::timeout(PATIENCE, api.until(name, enough)).await {
        Ok(found) => Ok(found?),
        Err(_) => bail!("{} {name} did not get there within {PATIENCE:?}", K::KIND),
    }
}
