//! Everything the requests work with: containers and their records, the engine below, news from it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use node_api::{ContainerEventKind, ExecSession, RuntimeService, UserNamespace};
use parking_lot::{Mutex, RwLock};
use runtime::Engine;
use tokio::sync::{mpsc, oneshot, watch};

use crate::answer::Fault;
use crate::builds::Builds;
use crate::events::Events;
use crate::exec::Execs;
use crate::networks::Networks;
use crate::record::{Record, Status};
use crate::switch::Switch;
use crate::volumes::Volumes;

/// Pod namespace of docker's sandboxes.
pub(crate) const NAMESPACE: &str = "docker";

/// Somebody who wants the streams of a container that has not started.
pub(crate) struct Waiting {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) session: oneshot::Sender<ExecSession>,
}

/// What those who wait for a container look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) up: bool,
    /// How often it has ended.
    pub(crate) ends: u64,
    pub(crate) exit_code: i32,
    pub(crate) removed: bool,
    pub(crate) health: crate::health::Health,
}

/// One container.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) folder: PathBuf,
    pub(crate) record: RwLock<Record>,
    pub(crate) progress: watch::Sender<Progress>,
    /// When it came up, if that was in this process: clocks of the day may step.
    pub(crate) begun: Mutex<Option<tokio::time::Instant>>,
    /// One change at a time.
    pub(crate) change: tokio::sync::Mutex<()>,
    pub(crate) waiting: Mutex<Vec<Waiting>>,
    /// Held for reading by those who still pass on its output.
    pub(crate) readers: Arc<tokio::sync::RwLock<()>>,
    /// Held while what is left of the last run is removed.
    pub(crate) disposal: Arc<tokio::sync::Mutex<()>>,
    /// Held while a run's output is sent to its log driver.
    pub(crate) shipping: Arc<tokio::sync::Mutex<()>>,
    /// Signals of a user's stop, or anything else that ends a pending restart.
    pub(crate) interrupt: tokio::sync::Notify,
}

impl Container {
    pub(crate) fn new(record: Record, folder: PathBuf) -> Arc<Container> {
        let progress = Progress {
            up: record.state.is_up(),
            exit_code: record.state.exit_code,
            ..Progress::default()
        };
        Arc::new(Container {
            id: record.id.clone(),
            folder,
            record: RwLock::new(record),
            progress: watch::Sender::new(progress),
            begun: Mutex::default(),
            change: Default::default(),
            waiting: Mutex::default(),
            readers: Default::default(),
            disposal: Default::default(),
            shipping: Default::default(),
            interrupt: Default::default(),
        })
    }

    pub(crate) fn snapshot(&self) -> Record {
        self.record.read().clone()
    }

    /// Changes the record and writes it, durably where `durable`.
    pub(crate) fn save(
        &self,
        durable: bool,
        change: impl FnOnce(&mut Record),
    ) -> Result<Record, Fault> {
        let mut record = self.record.write();
        let mut next = record.clone();
        change(&mut next);
        let written = match durable {
            true => next.save(&self.folder),
            false => next.save_lightly(&self.folder),
        };
        written?;
        *record = next.clone();
        Ok(next)
    }

    /// Changes the record only in memory; the next [`Container::save`] writes it.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Record)) -> Record {
        let mut record = self.record.write();
        change(&mut record);
        record.clone()
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.folder.join(crate::translate::LOG)
    }

    /// The engine's name of it while it is up.
    pub(crate) fn inner(&self) -> Result<String, Fault> {
        let record = self.record.read();
        match record.state.is_up() {
            true => Ok(record.state.inner.clone()),
            false => Err(Fault::conflict(format!(
                "container {} is not running",
                record.id
            ))),
        }
    }
}

/// The server's state.
pub(crate) struct Daemon {
    pub(crate) me: Weak<Daemon>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) folder: PathBuf,
    pub(crate) containers: RwLock<BTreeMap<String, Arc<Container>>>,
    /// Ours by the engine's ids.
    pub(crate) by_inner: Mutex<HashMap<String, String>>,
    /// One creation, renaming or removal of a name at a time.
    pub(crate) naming: tokio::sync::Mutex<()>,
    pub(crate) events: Events,
    pub(crate) execs: Execs,
    pub(crate) switch: Arc<Switch>,
    pub(crate) volumes: Volumes,
    pub(crate) networks: Networks,
    pub(crate) builds: Builds,
    /// Which limits this machine has.
    pub(crate) able: linux::cgroup::Abilities,
    /// What `--userns-remap` says.
    pub(crate) remap: Option<crate::remap::Remap>,
    pub(crate) stop: base::Stop,
}

impl Daemon {
    /// The user namespace that a container has when it starts.
    pub(crate) fn user_namespace(&self, record: &Record) -> Option<UserNamespace> {
        let remap = self.remap.as_ref();
        let remap = remap.filter(|_| record.host.userns_mode != "host");
        remap.map(|remap| remap.namespace().clone())
    }

    /// That of a container that is up, which may have been started by an engine told otherwise.
    pub(crate) async fn present_user_namespace(
        &self,
        record: &Record,
    ) -> Result<Option<UserNamespace>, Fault> {
        if !record.state.is_up() {
            return Ok(None);
        }
        let sandbox = self.engine.pod_sandbox_status(&record.state.sandbox);
        Ok(sandbox.await?.config.namespaces.user)
    }

    /// The container of this id, beginning of an id, or name.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Container>, Fault> {
        let containers = self.containers.read();
        if let Some(found) = containers.get(name) {
            return Ok(Arc::clone(found));
        }
        let plain = name.strip_prefix('/').unwrap_or(name);
        let named = containers
            .values()
            .find(|container| container.record.read().name == plain);
        if let Some(found) = named {
            return Ok(Arc::clone(found));
        }
        let mut starting = containers
            .range(name.to_owned()..)
            .take_while(|(id, _)| !name.is_empty() && id.starts_with(name));
        match (starting.next(), starting.next()) {
            (Some((_, found)), None) => Ok(Arc::clone(found)),
            (Some(_), Some(_)) => Err(Fault::bad(format!(
                "multiple IDs found with provided prefix: {name}"
            ))),
            _ => Err(Fault::missing(format!("No such container: {name}"))),
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.containers.read().values().cloned().collect()
    }

    /// Takes the engine's news until the process stops.
    pub(crate) async fn follow(
        self: Arc<Daemon>,
        mut news: mpsc::Receiver<node_api::ContainerEvent>,
    ) {
        loop {
            let event = tokio::select! {
                event = news.recv() => event,
                () = self.stop.raised() => return,
            };
            let Some(event) = event else { return };
            match event.kind {
                ContainerEventKind::Stopped => {
                    let known = self.by_inner.lock().get(&event.container_id).cloned();
                    if let Some(id) = known {
                        self.spawn_ended(id);
                    }
                }
                ContainerEventKind::Resync => {
                    for container in self.all() {
                        if container.record.read().state.is_up() {
                            self.spawn_ended(container.id.clone());
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Looks in a task whether a container has ended, and does what follows.
    pub(crate) fn spawn_ended(&self, id: String) {
        let Some(daemon) = self.me.upgrade() else {
            return;
        };
        tokio::spawn(async move {
            let found = daemon.containers.read().get(&id).cloned();
            if let Some(container) = found
                && let Err(fault) = daemon.ended(&container).await
            {
                tracing::warn!(%fault, id, "the end of a container was not recorded");
            }
        });
    }

    /// Reads what an earlier run left, ends what nobody knows, starts what must run.
    pub(crate) async fn adopt(&self) -> Result<(), Fault> {
        let mut sandboxes = Vec::new();
        for entry in std::fs::read_dir(self.folder.join("containers"))? {
            let folder = entry?.path();
            match Record::load(&folder) {
                Ok(record) => {
                    // What runs of a build is of no use without the build.
                    if record.making.is_none() {
                        sandboxes.push(record.state.sandbox.clone());
                    }
                    let container = Container::new(record, folder);
                    let inner = container.record.read().state.inner.clone();
                    if !inner.is_empty() {
                        self.by_inner.lock().insert(inner, container.id.clone());
                    }
                    let id = container.id.clone();
                    self.containers.write().insert(id, container);
                }
                Err(error) => {
                    tracing::info!(%error, folder = %folder.display(), "removing an unfinished container");
                    crate::quotas::remove(&folder, crate::translate::WRITABLE)?;
                }
            }
        }
        for sandbox in self.engine.list_pod_sandboxes().await? {
            // Where a pod logs tells whose it is: a namespace may have any name.
            let is_ours = sandbox.config.log_directory.starts_with(&self.folder);
            if is_ours && !sandboxes.contains(&sandbox.id) {
                self.engine.remove_pod_sandbox(&sandbox.id).await?;
            }
        }
        for lease in self.engine.image_leases()? {
            if !self.containers.read().contains_key(&lease) {
                self.engine.release_image(&lease)?;
            }
        }
        for segment in self.networks.segments() {
            // Its parent may come yet; whoever starts on it is told.
            if let Err(error) = self.networks.links.ensure(&segment).await {
                tracing::warn!(%error, interface = segment.interface, "a network is not there");
            }
        }
        self.apply_rules()?;
        // Who is in another's namespaces comes after those who have their own.
        let mut all = self.all();
        all.sort_by_key(|container| container.record.read().joins_others());
        for container in all {
            if container.record.read().making.is_some() {
                self.detach_networks(&container).await?;
                self.forget(&container, true).await?;
                self.discard(&container);
                continue;
            }
            self.resume(&container).await;
        }
        Ok(())
    }

    /// Brings one container of an earlier run into the state it should have.
    async fn resume(&self, container: &Arc<Container>) {
        let record = container.snapshot();
        let ended = match record.state.is_up() {
            true => self.ended(container).await,
            false => Ok(()),
        };
        if let Err(fault) = ended {
            tracing::warn!(%fault, id = record.id, "container not taken over");
        }
        let record = container.snapshot();
        let policy = record.host.restart_policy.name.as_str();
        let wanted = match policy {
            "always" => record.state.status != Status::Created,
            "unless-stopped" => {
                record.state.status != Status::Created && !record.state.ended_by_user
            }
            _ => record.state.status == Status::Restarting,
        };
        if record.state.is_up() {
            self.watch_health(container);
            self.ship(container, None);
            let netns = format!("/proc/{}/ns/net", record.state.pid);
            self.start_resolver(container, std::path::Path::new(&netns))
                .await;
        } else if wanted && let Err(fault) = self.start(container).await {
            tracing::warn!(%fault, id = record.id, "container not restarted");
        }
    }
}
