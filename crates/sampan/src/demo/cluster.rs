//! The demonstration's server as a child process.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use client::Client;
use tokio::process::{Child, Command};

/// How long a server may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// A server that can be started, killed and started again.
pub(crate) struct Cluster {
    folder: PathBuf,
    binary: PathBuf,
    server: Option<Child>,
}

impl Cluster {
    pub(crate) fn new(folder: &Path) -> Result<Cluster> {
        std::fs::create_dir_all(folder)?;
        let binary = std::env::current_exe().context("cannot tell where this program is")?;
        Ok(Cluster {
            folder: folder.to_owned(),
            binary,
            server: None,
        })
    }

    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// The process id of the server, while it runs.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.server
            .as_ref()
            .and_then(Child::id)
            .and_then(|id| i32::try_from(id).ok())
    }

    /// Starts the server and waits until it says it is ready.
    pub(crate) async fn start(&mut self) -> Result<Client> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let child = Command::new(&self.binary)
            .arg("server")
            .arg("--data-dir")
            .arg(&self.folder)
            .args(["--node-name", "demo"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("server cannot be started")?;
        self.server = Some(child);
        match tokio::time::timeout(START_TIMEOUT, self.connect()).await {
            Ok(connected) => connected,
            Err(_) => bail!("server did not get ready within {START_TIMEOUT:?}"),
        }
    }

    /// A fresh server has no kubeconfig and no port yet: both are tried until they are there.
    async fn connect(&mut self) -> Result<Client> {
        loop {
            if let Some(status) = self
                .server
                .as_mut()
                .and_then(|server| server.try_wait().transpose())
            {
                bail!("server ended: {}\n{}", status?, self.log_tail());
            }
            if let Ok(access) = client::kubeconfig::load(&self.kubeconfig(), None) {
                let client = Client::remote(&access)?;
                let path = "/readyz";
                let request =
                    client::request::request(http::Method::GET, path, None, client::empty())?;
                if client.bytes(request).await.is_ok() {
                    return Ok(client);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Kills the server as a crash would: SIGKILL, no warning.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        if let Some(mut server) = self.server.take() {
            server.kill().await?;
        }
        Ok(())
    }

    /// Stops the server and everything that outlives it.
    pub(crate) async fn clean_up(&mut self) -> Result<()> {
        if let (Some(pid), Some(mut server)) = (self.pid(), self.server.take()) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM)?;
            if tokio::time::timeout(STOP_TIMEOUT, server.wait())
                .await
                .is_err()
            {
                server.kill().await?;
            }
        }
        let purge = Command::new(&self.binary)
            .arg("purge")
            .arg("--data-dir")
            .arg(&self.folder)
            .stdin(Stdio::null())
            .output()
            .await?;
        if !purge.status.success() {
            bail!(
                "purge failed: {}",
                String::from_utf8_lossy(&purge.stderr).trim()
            );
        }
        Ok(())
    }
}
