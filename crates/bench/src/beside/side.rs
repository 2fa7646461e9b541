//! One of the servers that stand side by side: processes, access, and what they cost.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use auth::Pki;
use client::{Access, Client};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::process::{Child, Command};

use crate::cluster::{PATIENCE, get, tail};
use crate::process::{Memory, memory, processor_time};

const OWN_PORT: u16 = 16_443;
const PEER_PORT: u16 = 16_444;
const ETCD_CLIENTS: &str = "http://127.0.0.1:12379";
const ETCD_PEERS: &str = "http://127.0.0.1:12380";
/// Room for what is measured; etcd's own default is a quarter of it.
const ETCD_BYTES_MAX: &str = "8589934592";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// How often a server that is starting is asked whether it is there.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// How long a server may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// After a rest, timers that ran out meanwhile all go off: let them.
const SETTLE: Duration = Duration::from_millis(500);
/// Users of this group may do everything, but are no `system:masters`: their requests queue.
const GROUP: &str = "bench:users";

/// A server under measurement. Both are told the same things and asked by the same client.
pub(super) struct Side {
    pub(super) name: &'static str,
    processes: Vec<Child>,
    pki: Pki,
    server: String,
    log: PathBuf,
}

impl Side {
    /// Our API server alone, in a process of its own.
    pub(super) fn own(binary: &Path, folder: &Path) -> Result<Side> {
        let data = folder.join("own");
        let log = folder.join("own.log");
        let mut command = Command::new(binary);
        command
            .args(["server", "--role", "apiserver", "--node-name", "bench"])
            .args(["--bind-address", "127.0.0.1"])
            .args(["--https-listen-port", &OWN_PORT.to_string()])
            .arg("--data-dir")
            .arg(&data);
        // Made here, so that there is no moment in which both sides make keys.
        let pki = Pki::open(&data.join("pki"), &[])?;
        Ok(Side {
            name: "sampan",
            processes: vec![spawn(command, &log)?],
            pki,
            server: format!("https://127.0.0.1:{OWN_PORT}"),
            log,
        })
    }

    /// kube-apiserver over etcd, secured as our own.
    pub(super) fn peer(kube_apiserver: &Path, etcd: &Path, folder: &Path) -> Result<Side> {
        let data = folder.join("peer");
        let keys = data.join("pki");
        let log = folder.join("peer.log");
        let pki = Pki::open(&keys, &[])?;
        let mut store = Command::new(etcd);
        store
            .arg("--data-dir")
            .arg(data.join("etcd"))
            .args(["--listen-client-urls", ETCD_CLIENTS])
            .args(["--advertise-client-urls", ETCD_CLIENTS])
            .args(["--listen-peer-urls", ETCD_PEERS])
            .args(["--quota-backend-bytes", ETCD_BYTES_MAX]);
        let mut server = Command::new(kube_apiserver);
        server
            .args(["--etcd-servers", ETCD_CLIENTS])
            .args(["--bind-address", "127.0.0.1"])
            .args(["--advertise-address", "127.0.0.1"])
            .args(["--endpoint-reconciler-type", "none"])
            .args(["--secure-port", &PEER_PORT.to_string()])
            .args(["--authorization-mode", "Node,RBAC"])
            .args(["--service-cluster-ip-range", "10.96.0.0/16"])
            .args(["--service-account-issuer", ISSUER]);
        let files = [
            ("--client-ca-file", "ca.crt"),
            ("--tls-cert-file", "apiserver.crt"),
            ("--tls-private-key-file", "apiserver.key"),
            ("--service-account-key-file", "apiserver.crt"),
            ("--service-account-signing-key-file", "apiserver.key"),
        ];
        for (flag, file) in files {
            server.arg(flag).arg(keys.join(file));
        }
        Ok(Side {
            name: "kube-apiserver",
            processes: vec![
                spawn(store, &folder.join("etcd.log"))?,
                spawn(server, &log)?,
            ],
            pki,
            server: format!("https://127.0.0.1:{PEER_PORT}"),
            log,
        })
    }

    /// Waits until the server serves, and gives the bench's users their rights.
    pub(super) async fn ready(&mut self) -> Result<Duration> {
        let began = Instant::now();
        let client = self.client()?;
        while get(&client, "/readyz").await.is_err() {
            for process in &mut self.processes {
                if let Some(status) = process.try_wait()? {
                    bail!("{} ended: {status}\n{}", self.name, tail(&self.log));
                }
            }
            if began.elapsed() > PATIENCE {
                bail!("{} did not get ready\n{}", self.name, tail(&self.log));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        let rights = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "bench"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": GROUP}],
        });
        let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
        super::load::create(&client, path, &rights).await?;
        Ok(began.elapsed())
    }

    /// How the administrator reaches the server.
    pub(super) fn access(&self) -> Access {
        self.access_of(self.pki.admin())
    }

    /// How a user with the same rights, but no way around the queues, reaches it.
    pub(super) fn access_as(&self, user: &str) -> Result<Access> {
        Ok(self.access_of(&self.pki.issue_client(user, &[GROUP])?))
    }

    fn access_of(&self, user: &auth::certificate::Pair) -> Access {
        let key = user.key_pem.clone().into_bytes();
        Access {
            server: self.server.clone(),
            ca: Some(self.pki.ca_pem().as_bytes().to_vec()),
            certificate: Some((user.cert_pem.clone().into_bytes(), key)),
            ..Access::default()
        }
    }

    pub(super) fn pki(&self) -> &Pki {
        &self.pki
    }

    pub(super) fn client(&self) -> Result<Client> {
        Ok(Client::remote(&self.access())?)
    }

    /// Lets the processes stand still while the other side is measured.
    pub(super) fn rest(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Ends a rest.
    pub(super) async fn wake(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)?;
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        for pid in self.pids() {
            kill(Pid::from_raw(i32::try_from(pid)?), signal)?;
        }
        Ok(())
    }

    fn pids(&self) -> Vec<u32> {
        self.processes.iter().filter_map(Child::id).collect()
    }

    /// Processor time of all processes so far.
    pub(super) fn processor_time(&self) -> Result<Duration> {
        let times = self.pids().into_iter().map(processor_time);
        times.sum::<Result<Duration>>()
    }

    /// Memory of each process.
    pub(super) fn memory(&self) -> Result<Vec<Memory>> {
        self.pids().into_iter().map(memory).collect()
    }

    /// Ends all processes, the server before its store.
    pub(super) async fn stop(&mut self) -> Result<()> {
        self.signal(Signal::SIGCONT)?;
        for mut process in self.processes.drain(..).rev() {
            if let Some(pid) = process.id() {
                kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
            }
            let ended = tokio::time::timeout(STOP_TIMEOUT, process.wait()).await;
            if ended.is_err() {
                process.kill().await?;
            }
        }
        Ok(())
    }

    pub(super) fn log_tail(&self) -> String {
        tail(&self.log)
    }
}

fn spawn(mut command: Command, log: &Path) -> Result<Child> {
    let log = File::create(log)?;
    let program = command.as_std().get_program().to_owned();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{} cannot be started", program.display()))
}
