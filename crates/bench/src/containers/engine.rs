//! The engine under measurement, spoken to over docker's socket.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::IMAGE;
use crate::cluster::{PATIENCE, tail};

const ASK_EVERY: Duration = Duration::from_millis(5);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// The image of all measured containers: `program` as `/true`.
pub(super) fn make_image(store: &oci::Store, program: &Path) -> Result<()> {
    let wishes = oci::BinaryImage {
        path: "/true".to_owned(),
        entrypoint: vec!["/true".to_owned()],
        ..Default::default()
    };
    oci::image_from_binary(store, program, IMAGE, &wishes)?;
    Ok(())
}

pub(super) struct Engine {
    binary: PathBuf,
    folder: PathBuf,
    child: Child,
    connection: SendRequest<Full<Bytes>>,
}

impl Engine {
    /// Starts it with one image, which holds `program` as `/true`.
    pub(super) async fn start(binary: &Path, folder: &Path, program: &Path) -> Result<Engine> {
        let binary = std::path::absolute(binary)?;
        let data = folder.join("data");
        std::fs::create_dir_all(data.join("engine"))?;
        make_image(&oci::Store::open(&data.join("engine/images"))?, program)?;
        let log = std::fs::File::create(folder.join("engine.log"))?;
        let mut child = Command::new(&binary)
            .arg("engine")
            .arg("--data-dir")
            .arg(&data)
            .arg("--docker-socket")
            .arg(folder.join("docker.sock"))
            .arg("--cri-socket")
            .arg(folder.join("cri.sock"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", binary.display()))?;
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            if let Ok(stream) = UnixStream::connect(folder.join("docker.sock")).await {
                break stream;
            }
            if let Some(status) = child.try_wait()? {
                bail!(
                    "engine ended: {status}\n{}",
                    tail(&folder.join("engine.log"))
                );
            }
            ensure!(
                Instant::now() < deadline,
                "the engine does not open its socket"
            );
            tokio::time::sleep(ASK_EVERY).await;
        };
        let (connection, driver) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(driver);
        Ok(Engine {
            binary,
            folder: folder.to_owned(),
            child,
            connection,
        })
    }

    pub(super) fn binary(&self) -> &Path {
        &self.binary
    }

    pub(super) fn pid(&self) -> Result<u32> {
        self.child.id().context("the engine has ended")
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// One container from its creation to its removal.
    pub(super) async fn cycle(&mut self, network: &str) -> Result<()> {
        let wish = json!({
            "Image": IMAGE,
            // As a bundle of `runc spec` has it.
            "HostConfig": {"NetworkMode": network, "SecurityOpt": ["seccomp=unconfined"]},
        });
        let made = self
            .ask(Method::POST, "/containers/create", Some(&wish))
            .await?;
        let id = made["Id"].as_str().context("a container without an id")?;
        let path = format!("/containers/{id}");
        self.ask(Method::POST, &format!("{path}/start"), None)
            .await?;
        let ended = self
            .ask(Method::POST, &format!("{path}/wait"), None)
            .await?;
        ensure!(ended["StatusCode"] == 0, "the container failed: {ended}");
        self.ask(Method::DELETE, &path, None).await?;
        Ok(())
    }

    async fn ask(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1.43{path}"))
            .header("host", "docker")
            .header("content-type", "application/json")
            .body(Full::from(bytes))?;
        self.connection.ready().await?;
        let response = self.connection.send_request(request).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        ensure!(
            status.is_success(),
            "{path}: {status}: {}",
            String::from_utf8_lossy(&bytes)
        );
        match bytes.is_empty() {
            true => Ok(Value::Null),
            false => Ok(serde_json::from_slice(&bytes)?),
        }
    }

    /// Times of `docker run --rm` in milliseconds; nothing where there is no command line.
    pub(super) async fn command_line(&self, warm: usize, count: usize) -> Result<Option<Vec<f64>>> {
        let socket = format!("unix://{}", self.folder.join("docker.sock").display());
        let mut times = Vec::new();
        for round in 0..warm + count {
            let begin = Instant::now();
            let mut command = Command::new("docker");
            command.env("DOCKER_HOST", &socket).stdin(Stdio::null());
            let ran = command
                .args(["run", "--rm", "--network", "none", IMAGE])
                .kill_on_drop(true)
                .output()
                .await;
            let output = match ran {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            ensure!(
                output.status.success(),
                "docker run: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            if round >= warm {
                times.push(begin.elapsed().as_secs_f64() * 1e3);
            }
        }
        Ok(Some(times))
    }

    /// Ends it, and removes whatever outlives it.
    pub(super) async fn stop(&mut self) -> Result<()> {
        if let Some(pid) = self.child.id() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
            nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM)?;
        }
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait())
            .await
            .is_err()
        {
            self.child.kill().await?;
        }
        let purged = Command::new(&self.binary)
            .args(["purge", "--data-dir"])
            .arg(self.folder.join("data"))
            .output()
            .await?;
        ensure!(
            purged.status.success(),
            "purge: {}",
            String::from_utf8_lossy(&purged.stderr)
        );
        Ok(())
    }
}
