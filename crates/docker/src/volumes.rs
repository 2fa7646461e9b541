//! Volumes: folders with names that outlive containers.

mod options;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use http::StatusCode;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::answer::{self, Answer, Fault};
use crate::call::Call;
use crate::daemon::Daemon;
use crate::record::{moment, now};
use crate::wire::Labels;

const DATA: &str = "_data";
const FILE: &str = "volume.json";
/// The label of volumes that came with a container and go with it.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// What is remembered of a volume.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) options: Labels,
    pub(crate) created: i64,
}

impl Volume {
    pub(crate) fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS)
    }
}

/// All volumes; each has a folder with its record and its data.
pub(crate) struct Volumes {
    folder: PathBuf,
    root: Option<(u32, u32)>,
    known: Mutex<BTreeMap<String, Volume>>,
    /// One change of what is mounted at a time.
    mounting: tokio::sync::Mutex<()>,
    /// Containers that are not up yet but have their volumes mounted.
    pub(crate) starting: Mutex<BTreeSet<String>>,
}

impl Volumes {
    /// `root` is who containers' root is on the node, where that is somebody else.
    pub(crate) fn open(folder: &Path, root: Option<(u32, u32)>) -> io::Result<Volumes> {
        std::fs::create_dir_all(folder)?;
        let mut known = BTreeMap::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let read = std::fs::read(path.join(FILE)).and_then(|bytes| {
                let volume: Volume = serde_json::from_slice(&bytes)?;
                Ok(volume)
            });
            match read {
                Ok(volume) => {
                    known.insert(volume.name.clone(), volume);
                }
                Err(error) => {
                    tracing::info!(%error, path = %path.display(), "removing an unfinished volume");
                    crate::quotas::remove(&path, DATA)?;
                }
            }
        }
        Ok(Volumes {
            folder: folder.to_owned(),
            root,
            known: Mutex::new(known),
            mounting: Default::default(),
            starting: Mutex::default(),
        })
    }

    pub(crate) fn get(&self, name: &str) -> Option<Volume> {
        self.known.lock().get(name).cloned()
    }

    /// Where a volume's files are.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.folder.join(name).join(DATA)
    }

    /// Makes a volume unless it is there; tells whether it is new.
    pub(crate) fn ensure(&self, wish: &CreateRequest) -> Result<(Volume, bool), Fault> {
        let mut known = self.known.lock();
        let mut labels = wish.labels.clone();
        let name = match wish.name.as_str() {
            "" => {
                labels.insert(ANONYMOUS.to_owned(), String::new());
                crate::names::fresh_id()
            }
            name => name.to_owned(),
        };
        if let Some(found) = known.get(&name) {
            return Ok((found.clone(), false));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !name.chars().all(plain) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(Fault::bad(format!(
                "create {name}: \"{name}\" includes invalid characters for a local volume name, \
                 only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host \
                 directory, use absolute path"
            )));
        }
        if name.len() < 2 {
            return Err(Fault::bad(format!(
                "create {name}: volume name is too short, names should be at least two \
                 alphanumeric characters"
            )));
        }
        if !["", "local"].contains(&wish.driver.as_str()) {
            let message = format!(
                "error looking up volume plugin {0}: plugin \"{0}\" not found",
                wish.driver
            );
            return Err(Fault::missing(message));
        }
        let refused = |fault: Fault| {
            let message = format!("create {name}: {}", fault.message);
            Fault { message, ..fault }
        };
        options::check(&wish.driver_opts).map_err(refused)?;
        let size = options::size(&wish.driver_opts, &self.folder).map_err(refused)?;
        let volume = Volume {
            name: name.clone(),
            labels,
            options: wish.driver_opts.clone(),
            created: now(),
        };
        let folder = self.folder.join(&name);
        std::fs::create_dir_all(folder.join(DATA))?;
        if let Some((uid, gid)) = self.root {
            std::os::unix::fs::chown(folder.join(DATA), Some(uid), Some(gid))?;
        }
        if let Some(size) = size {
            crate::quotas::limit(&folder.join(DATA), size)?;
        }
        base::files::write_atomic(
            &folder.join(FILE),
            &serde_json::to_vec(&volume).unwrap_or_default(),
            0o600,
        )?;
        known.insert(name, volume.clone());
        Ok((volume, true))
    }

    /// Removes a volume, its record first.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Fault> {
        let mut known = self.known.lock();
        let folder = self.folder.join(name);
        if known
            .get(name)
            .is_some_and(|volume| !volume.options.is_empty())
        {
            // What is mounted there is somebody else's, and stays.
            options::detach(&folder.join(DATA))?;
        }
        std::fs::remove_file(folder.join(FILE))?;
        known.remove(name);
        drop(known);
        Ok(crate::quotas::remove(&folder, DATA)?)
    }

    fn all(&self) -> Vec<Volume> {
        self.known.lock().values().cloned().collect()
    }

    fn show(&self, volume: &Volume) -> Value {
        let options = (!volume.options.is_empty()).then_some(&volume.options);
        let labels = (!volume.labels.is_empty()).then_some(&volume.labels);
        json!({
            "Name": volume.name,
            "Driver": "local",
            "Mountpoint": self.data(&volume.name),
            "CreatedAt": moment(volume.created / 1_000_000_000 * 1_000_000_000).replace(".000000000", ""),
            "Labels": labels,
            "Scope": "local",
            "Options": options,
        })
    }
}

/// Body of `POST /volumes/create`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CreateRequest {
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) driver_opts: Labels,
    pub(crate) labels: Labels,
}

impl Daemon {
    /// Volumes of a container whose files come from a mount.
    fn mounted_volumes(&self, record: &crate::record::Record) -> Vec<Volume> {
        let points = record.mounts.iter().filter(|point| point.kind == "volume");
        let volumes = points.filter_map(|point| self.volumes.get(&point.name));
        volumes
            .filter(|volume| !volume.options.is_empty())
            .collect()
    }

    /// Mounts what the options of a container's volumes say.
    pub(crate) async fn attach_volumes(&self, record: &crate::record::Record) -> Result<(), Fault> {
        let wanted = self.mounted_volumes(record);
        if wanted.is_empty() {
            return Ok(());
        }
        let _change = self.volumes.mounting.lock().await;
        for volume in wanted {
            let folder = self.volumes.data(&volume.name);
            let work = move || options::attach(&folder, &volume.options);
            let mounted = tokio::task::spawn_blocking(work).await;
            mounted.map_err(Fault::internal)??;
        }
        Ok(())
    }

    /// Unmounts them again where nobody is up who has them.
    pub(crate) async fn detach_volumes(&self, record: &crate::record::Record) {
        let mounted = self.mounted_volumes(record);
        if mounted.is_empty() {
            return;
        }
        let _change = self.volumes.mounting.lock().await;
        for volume in mounted {
            let starting = self.volumes.starting.lock().clone();
            let uses = |other: &crate::record::Record| {
                let mut points = other.mounts.iter();
                (other.state.is_up() || starting.contains(&other.id))
                    && points.any(|point| point.kind == "volume" && point.name == volume.name)
            };
            if self.all().iter().any(|other| uses(&other.record.read())) {
                continue;
            }
            if let Err(fault) = options::detach(&self.volumes.data(&volume.name)) {
                tracing::warn!(%fault, volume = volume.name, "a volume stays mounted");
            }
        }
    }

    /// Containers that have the volume.
    fn users_of(&self, name: &str) -> Vec<String> {
        let uses = |record: &crate::record::Record| {
            let mut points = record.mounts.iter();
            points.any(|point| point.kind == "volume" && point.name == name)
        };
        let users = self
            .all()
            .into_iter()
            .filter(|container| uses(&container.record.read()));
        users.map(|container| container.id.clone()).collect()
    }

    fn volume_event(&self, name: &str, action: &str) {
        let attributes = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
        self.events.tell("volume", action, name, attributes);
    }
}

pub(crate) async fn create(mut call: Call) -> Answer {
    let wish: CreateRequest = call.body().await?;
    let (volume, new) = call.daemon.volumes.ensure(&wish)?;
    if new {
        call.daemon.volume_event(&volume.name, "create");
    }
    let shown = call.daemon.volumes.show(&volume);
    Ok(answer::json(StatusCode::CREATED, &shown))
}

pub(crate) async fn list(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.only(&["dangling", "driver", "label", "label!", "name"])?;
    let daemon = &call.daemon;
    let fits = |volume: &Volume| {
        filters.fits("name", |part| volume.name.contains(part))
            && filters.fits("driver", |driver| driver == "local")
            && filters.labels(&volume.labels)
            && filters.fits("dangling", |wish| {
                let wanted = matches!(wish, "1" | "true");
                daemon.users_of(&volume.name).is_empty() == wanted
            })
    };
    let shown: Vec<Value> = daemon
        .volumes
        .all()
        .iter()
        .filter(|volume| fits(volume))
        .map(|volume| daemon.volumes.show(volume))
        .collect();
    answer::ok(&json!({"Volumes": shown, "Warnings": null}))
}

fn find(daemon: &Daemon, name: &str) -> Result<Volume, Fault> {
    let missing = || Fault::missing(format!("get {name}: no such volume"));
    daemon.volumes.get(name).ok_or_else(missing)
}

pub(crate) async fn inspect(call: Call, name: &str) -> Answer {
    let volume = find(&call.daemon, name)?;
    answer::ok(&call.daemon.volumes.show(&volume))
}

pub(crate) async fn remove(call: Call, name: &str) -> Answer {
    let daemon = &call.daemon;
    if call.query.flag("force") && daemon.volumes.get(name).is_none() {
        return answer::done();
    }
    find(daemon, name)?;
    let users = daemon.users_of(name);
    if !users.is_empty() {
        return Err(Fault::conflict(format!(
            "remove {name}: volume is in use - [{}]",
            users.join(", ")
        )));
    }
    daemon.volumes.remove(name)?;
    daemon.volume_event(name, "destroy");
    answer::done()
}

/// Removes what no container has; named volumes only with the filter `all`.
pub(crate) async fn prune(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.only(&["all", "label", "label!"])?;
    let named = filters.truth("all", false) || call.version < (1, 42);
    let daemon = &call.daemon;
    let (mut gone, mut bytes) = (Vec::new(), 0);
    for volume in daemon.volumes.all() {
        let wanted = (named || volume.is_anonymous()) && filters.labels(&volume.labels);
        if wanted && daemon.users_of(&volume.name).is_empty() {
            bytes += folder_bytes(&daemon.volumes.data(&volume.name));
            daemon.volumes.remove(&volume.name)?;
            daemon.volume_event(&volume.name, "destroy");
            gone.push(volume.name);
        }
    }
    answer::ok(&json!({"VolumesDeleted": gone, "SpaceReclaimed": bytes}))
}

/// All volumes with their sizes, for `system df`.
pub(crate) fn usage(daemon: &Daemon) -> Vec<Value> {
    let show = |volume: &Volume| {
        let mut shown = daemon.volumes.show(volume);
        shown["UsageData"] = json!({
            "RefCount": daemon.users_of(&volume.name).len(),
            "Size": folder_bytes(&daemon.volumes.data(&volume.name)),
        });
        shown
    };
    daemon.volumes.all().iter().map(show).collect()
}

/// Bytes of all files below a folder.
pub(crate) fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}
