//! The device manager: plugins register, tell of their devices, and prepare them for containers.
//! What was given to whom is written to a file before anybody counts on it.

mod pick;
mod plugins;
mod registry;
mod show;
mod table;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::Crew;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};

use crate::grpc::Caller;
use crate::numa::Mask;
use crate::wire::device_plugin::*;
use crate::wish::{ContainerWish, PodWish, Role};
pub(crate) use pick::Reusable;
use pick::{Begun, Need};
use plugins::Connected;
use table::{Allocation, Ids, Table};

/// The file of allocations, beside the sockets.
const CHECKPOINT: &str = "kubelet_internal_checkpoint";
/// The socket plugins register at.
const SOCKET: &str = "kubelet.sock";
/// How long a plugin may take to prepare devices for a pod.
const ALLOCATE_MAX: Duration = Duration::from_secs(120);
/// How long before the start of a container.
const PRE_START_MAX: Duration = Duration::from_secs(30);
/// Plugins that registered and are not looked after yet.
const REGISTRATIONS_MAX: usize = 64;

/// Told of pods (by uid) whose devices are well or unwell again.
pub type HealthListener = Arc<dyn Fn(&str) + Send + Sync>;

/// What a container gets along with its devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerOptions {
    pub envs: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<DeviceSpec>,
    /// Names of devices that files of the machine explain.
    pub cdi_devices: Vec<String>,
    pub annotations: BTreeMap<String, String>,
}

/// How much of an extended resource there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub capacity: usize,
    /// Without the devices that are unwell.
    pub allocatable: usize,
}

/// A device a container has.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldDevice {
    pub resource: String,
    pub id: String,
    pub healthy: bool,
}

/// The manager.
pub(crate) struct Devices {
    folder: PathBuf,
    table: Mutex<Table>,
    callers: Mutex<HashMap<String, Caller>>,
    /// How long the devices of a plugin that went are counted.
    grace: Duration,
    changed: watch::Sender<u64>,
    told: HealthListener,
    connected: mpsc::Sender<Connected>,
    /// Held while the file is written, so that a newer state is never overwritten by an older.
    writing: tokio::sync::Mutex<()>,
    /// Something was taken back; the file may say so a little later.
    stale: Notify,
}

impl Devices {
    /// Reads what earlier processes gave out, and lets plugins register. Without a socket there are
    /// no plugins, and everything else works.
    pub(crate) fn open(
        folder: PathBuf,
        grace: Duration,
        changed: watch::Sender<u64>,
        told: HealthListener,
        crew: &Crew,
    ) -> Arc<Devices> {
        let table = restore(&folder.join(CHECKPOINT));
        let (connected, plugins) = mpsc::channel(REGISTRATIONS_MAX);
        let waiting: Vec<String> = table.resources.keys().cloned().collect();
        let devices = Arc::new(Devices {
            folder,
            table: Mutex::new(table),
            callers: Mutex::default(),
            grace,
            changed,
            told,
            connected,
            writing: tokio::sync::Mutex::default(),
            stale: Notify::new(),
        });
        registry::start(&devices, crew);
        let following = devices.clone().follow_all(plugins, waiting, crew.stop());
        crew.spawn("device plugins", following);
        devices
    }

    fn caller(&self, resource: &str) -> Result<Caller, String> {
        let callers = self.callers.lock();
        let caller = callers.get(resource).cloned();
        caller.ok_or_else(|| format!("endpoint {resource} has been stopped"))
    }

    /// Gives a container its devices. What `reuse` holds was an init container's of the same pod.
    pub(crate) async fn allocate(
        &self,
        uid: &str,
        container: &ContainerWish,
        reuse: &mut Reusable,
        affinity: Option<Mask>,
    ) -> Result<(), String> {
        let mut given = false;
        for (resource, count) in &container.extended {
            if !self.table.lock().is_managed(resource) {
                continue;
            }
            let need = Need {
                uid,
                container: &container.name,
                resource,
                required: usize::try_from(*count).unwrap_or(0),
            };
            let reusable = reuse.get(resource).cloned().unwrap_or_default();
            if let Some(ids) = self.choose(need, &reusable, affinity).await? {
                let response = self.prepare(resource, &ids).await?;
                self.give(need, &ids, response);
                given = true;
            }
            let table = self.table.lock();
            let has = table.of_container(uid, &container.name, resource);
            let has = has.map(Allocation::ids).unwrap_or_default();
            let again = reuse.entry(resource.clone()).or_default();
            match container.role {
                Role::Init => again.extend(has),
                Role::Sidecar | Role::Main => again.retain(|id| !has.contains(id)),
            }
        }
        if given {
            self.save().await;
        }
        Ok(())
    }

    async fn choose(
        &self,
        need: Need<'_>,
        reusable: &Ids,
        affinity: Option<Mask>,
    ) -> Result<Option<Ids>, String> {
        let begun = pick::begin(&self.table.lock(), need, reusable, affinity)?;
        let pick = match begun {
            Begun::Nothing => return Ok(None),
            Begun::Done(ids) => return Ok(Some(ids)),
            Begun::Ask(pick) => pick,
        };
        let options = {
            let table = self.table.lock();
            table
                .resources
                .get(need.resource)
                .map(|known| known.options)
        };
        if !options.is_some_and(|options| options.get_preferred_allocation_available) {
            return pick.finish(&Ids::new()).map(Some);
        }
        let (available, chosen, size) = pick.question();
        let request = PreferredAllocationRequest {
            container_requests: vec![ContainerPreferredAllocationRequest {
                available_device_ids: available,
                must_include_device_ids: chosen,
                allocation_size: i32::try_from(size).unwrap_or(i32::MAX),
            }],
        };
        let caller = self.caller(need.resource)?;
        let asked = caller.call(GET_PREFERRED_ALLOCATION, request);
        let answer: PreferredAllocationResponse =
            within(ALLOCATE_MAX, asked).await.map_err(|error| {
                format!("device plugin GetPreferredAllocation rpc failed with err: {error}")
            })?;
        let preferred = answer.container_responses.into_iter().next();
        let preferred = preferred.map(|one| one.device_ids.into_iter().collect());
        pick.finish(&preferred.unwrap_or_default()).map(Some)
    }

    async fn prepare(
        &self,
        resource: &str,
        ids: &Ids,
    ) -> Result<ContainerAllocateResponse, String> {
        let request = AllocateRequest {
            container_requests: vec![ContainerAllocateRequest {
                device_ids: ids.iter().cloned().collect(),
            }],
        };
        let caller = self.caller(resource)?;
        let answer: AllocateResponse = within(ALLOCATE_MAX, caller.call(ALLOCATE, request)).await?;
        let first = answer.container_responses.into_iter().next();
        first.ok_or_else(|| "no containers return in allocation response".to_owned())
    }

    fn give(&self, need: Need<'_>, ids: &Ids, response: ContainerAllocateResponse) {
        let mut table = self.table.lock();
        let known = table.resources.get(need.resource);
        let devices = known.map(|known| known.by_node(ids)).unwrap_or_default();
        let allocation = Allocation { devices, response };
        let containers = table.allocations.entry(need.uid.to_owned()).or_default();
        let resources = containers.entry(need.container.to_owned()).or_default();
        resources.insert(need.resource.to_owned(), allocation);
    }

    /// What a container is to be created with; tells plugins that want to know before a start.
    pub(crate) async fn options(
        &self,
        uid: &str,
        container: &ContainerWish,
    ) -> Result<ContainerOptions, String> {
        for (resource, count) in &container.extended {
            let (ids, options) = {
                let table = self.table.lock();
                if *count == 0 || !table.is_managed(resource) {
                    continue;
                }
                let held = table.of_container(uid, &container.name, resource);
                let known = table.resources.get(resource);
                (held.map(Allocation::ids), known.map(|known| known.options))
            };
            if !options.is_some_and(|options| options.pre_start_required) {
                continue;
            }
            let Some(ids) = ids else {
                return Err(format!(
                    "no devices found allocated in local cache for pod {uid}, container {}, resource {resource}",
                    container.name
                ));
            };
            let request = PreStartContainerRequest {
                device_ids: ids.into_iter().collect(),
            };
            let caller = self.caller(resource)?;
            let asked = caller.call::<_, Empty>(PRE_START_CONTAINER, request);
            within(PRE_START_MAX, asked).await.map_err(|error| {
                format!("device plugin PreStartContainer rpc failed with err: {error}")
            })?;
        }
        Ok(self.combined(uid, &container.name))
    }

    /// Whether a container lacks devices that it should have by now.
    pub(crate) fn lacks(&self, uid: &str, container: &ContainerWish) -> bool {
        let table = self.table.lock();
        let mut wanted = container.extended.iter().filter(|(_, count)| **count > 0);
        wanted.any(|(resource, _)| {
            let held = table.of_container(uid, &container.name, resource);
            table.is_managed(resource) && held.is_none()
        })
    }

    /// Whether any container of a pod asks for what a plugin has.
    pub(crate) fn concern(&self, pod: &PodWish) -> bool {
        let table = self.table.lock();
        let mut names = pod.containers.iter().flat_map(|one| one.extended.keys());
        names.any(|resource| table.is_managed(resource))
    }

    /// What a pod asks for of a plugin that is gone for good.
    pub(crate) fn gone(&self, pod: &PodWish) -> Option<(String, i64)> {
        let table = self.table.lock();
        let known = table.resources.iter();
        let mut gone = known.filter(|(name, known)| known.retired && !table.is_managed(name));
        gone.find_map(|(name, _)| {
            let count = pod.peak(|one| one.extended.get(name).copied().unwrap_or(0));
            (count > 0).then(|| (name.clone(), count))
        })
    }

    /// Takes back what pods have that are not among these.
    pub(crate) fn retain(&self, is_wanted: impl Fn(&str) -> bool) {
        let mut table = self.table.lock();
        let before = table.allocations.len();
        table.allocations.retain(|uid, _| is_wanted(uid));
        if table.allocations.len() < before {
            self.stale.notify_one();
        }
    }

    /// Writes the file.
    async fn save(&self) {
        let _held = self.writing.lock().await;
        let checkpoint = self.table.lock().checkpoint();
        let path = self.folder.join(CHECKPOINT);
        let written = tokio::task::spawn_blocking(move || {
            let bytes = serde_json::to_vec(&checkpoint)?;
            base::files::write_atomic(&path, &bytes, 0o600)
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "allocations of devices are not written"),
            Err(error) => tracing::error!(%error, "allocations of devices are not written"),
        }
    }
}

async fn within<T>(
    most: Duration,
    call: impl Future<Output = Result<T, tonic::Status>>,
) -> Result<T, String> {
    match tokio::time::timeout(most, call).await {
        Ok(answer) => answer.map_err(|status| {
            let code = format!("{:?}", status.code());
            format!("rpc error: code = {code} desc = {}", status.message())
        }),
        Err(_) => Err("rpc error: code = DeadlineExceeded desc = context deadline exceeded".into()),
    }
}

fn restore(path: &Path) -> Table {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Table::default(),
        Err(error) => {
            tracing::error!(%error, "allocations of devices are not read");
            return Table::default();
        }
    };
    match serde_json::from_slice(&bytes) {
        Ok(checkpoint) => Table::restore(checkpoint),
        Err(error) => {
            tracing::error!(%error, "allocations of devices are not understood");
            Table::default()
        }
    }
}
