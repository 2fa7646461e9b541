//! The life of a container: created, started, stopped, removed.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use linux::cgroup::{Limits, RareLimits};
use node_api::{
    ContainerConfig, ContainerEventKind, ContainerState, LinuxResources, Mount, MountPropagation,
    RuntimeError, SandboxState,
};

use super::sandbox::{remove_folder, remove_recorded};
use super::translate::{self, Places};
use super::{ContainerRecord, Engine, Entry, Pod, blocking, fresh_id, internal};
use crate::hooks::Moment;
use crate::protocol::{Call, Refusal};
use crate::spec::{ContainerSpec, PidScope, Status, file, now_nanos, read_json, write_json};
use crate::units;

const KILL: i32 = 9;
/// A killed container that has not ended after this time is stuck in the kernel.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);

impl Engine {
    pub(super) async fn create(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
        extras: super::Extras,
    ) -> Result<String, RuntimeError> {
        let pod = self.pod(sandbox_id)?;
        if *pod.state.lock() != SandboxState::Ready {
            return Err(RuntimeError::FailedPrecondition(format!(
                "sandbox {sandbox_id} is not ready"
            )));
        }
        let engine = self
            .me
            .upgrade()
            .ok_or_else(|| internal("the engine is closing"))?;
        blocking(move || engine.make(&pod, config, extras)).await
    }

    /// Writes down what a container will be. Blocks.
    fn make(
        &self,
        pod: &Arc<Pod>,
        mut config: ContainerConfig,
        extras: super::Extras,
    ) -> Result<String, RuntimeError> {
        let mut hooks = extras.hooks;
        if !config.cdi_devices.is_empty() {
            hooks.extend(super::cdi::inject(&mut config)?);
        }
        hooks.check().map_err(RuntimeError::InvalidArgument)?;
        warn_of_lost_propagation(&config);
        translate::check_container(&config, &pod.record.config)?;
        let image = match extras.image {
            Some(image) => image,
            None => (self.store.get(&config.image)).map_err(super::images::explain)?,
        };
        let volumes: Result<Vec<_>, _> = (config.mounts.iter())
            .filter(|mount| mount.image.is_some())
            .map(|mount| super::volumes::find(&self.store, mount))
            .collect();
        let volumes = volumes?;
        let first = match extras.id {
            Some(_) => None,
            None => pod.first.lock().take(),
        };
        let has_cgroup = first.is_some();
        let id = extras.id.or(first).unwrap_or_else(fresh_id);
        let log = config.log_path.as_os_str();
        let log = (!log.is_empty()).then(|| pod.record.config.log_directory.join(log));
        let places = Places {
            layers: self.store.layers_folder(),
            skeleton: self.skeleton.clone(),
            writable: extras.writable.unwrap_or_else(|| self.writable(&id)),
            log: log.clone(),
            images: volumes.iter().map(|(volume, _)| volume.clone()).collect(),
        };
        let mut spec = ContainerSpec {
            tmpfs: extras.tmpfs,
            rlimits: extras.rlimits,
            shm_of: extras.shm_of,
            device_rules: extras.device_rules,
            device_nodes: extras.device_nodes,
            log_rotation: extras.log_rotation,
            has_cgroup,
            writable_cgroups: extras.writable_cgroups,
            ..translate::container(&id, &config, pod, &image, places)?
        };
        spec.user.groups = extras.groups;
        let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
        (spec.env).retain(|pair| !extras.without_env.contains(&name(pair)));
        (spec.mounts).retain(|mount| !extras.without_mounts.contains(&mount.container_path));
        spec.limits.oom_kill_disable = extras.oom_kill_disable;
        spec.limits.rare = extras.rare;
        if let Some(pid) = extras.pids_of {
            spec.pids = PidScope::Process(pid);
        }
        let record = ContainerRecord {
            id: id.clone(),
            sandbox_id: pod.record.id.clone(),
            created_at: now_nanos(),
            image_id: image.id.to_string(),
            log_path: log.unwrap_or_default(),
            cgroup: spec.cgroup.clone(),
            stop_signal: translate::stop_signal(&config, &image)?,
            hooked: !hooks.is_empty(),
            config,
        };
        let folder = pod.container_folder(&id);
        if !(extras.leased && volumes.is_empty()) {
            let used: Vec<&oci::ImageRecord> = std::iter::once(&image)
                .chain(volumes.iter().map(|(_, image)| image))
                .collect();
            (self.store.lease(&id, &used)).map_err(super::images::explain)?;
        }
        make_writable(&spec).map_err(internal)?;
        std::fs::create_dir_all(&folder).map_err(internal)?;
        if record.hooked {
            super::bundle::write(&mut spec, hooks, &folder, pod, &record)?;
        }
        write_json(&folder.join(file::SPEC), &spec).map_err(internal)?;
        write_json(&folder.join(file::CONTAINER), &record).map_err(internal)?;
        let entry = Arc::new(Entry::new(record, folder, Status::created()));
        self.containers.write().insert(id.clone(), entry);
        self.announce(&pod.record.id, &id, ContainerEventKind::Created);
        Ok(id)
    }

    /// Starts in a task of its own: a caller that stops waiting must not leave the start half done.
    pub(super) async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        let engine = self
            .me
            .upgrade()
            .ok_or_else(|| internal("the engine is closing"))?;
        let id = id.to_owned();
        tokio::spawn(async move { engine.start_now(&id).await })
            .await
            .map_err(internal)?
    }

    async fn start_now(&self, id: &str) -> Result<(), RuntimeError> {
        let entry = self.entry(id)?;
        let _change = entry.change.lock().await;
        if entry.state() != ContainerState::Created {
            let message = format!("container {id} is not in created state");
            return Err(RuntimeError::FailedPrecondition(message));
        }
        let sandbox = entry.record.read().sandbox_id.clone();
        let link = self.link(&sandbox)?;
        let hooks = entry.hooks()?;
        let start = Call::Start {
            container: id.to_owned(),
        };
        let mut result = link.call(start, Vec::new()).await;
        if let (Some(hooks), Ok(answered)) = (&hooks, &result)
            && hooks.waits()
        {
            result = super::hooked::create(&link, hooks, id, answered.pid).await;
        }
        let path = entry.folder.join(file::STATUS);
        if let Err(refusal) = &result
            && *refusal != Refusal::Gone
            && !path.exists()
        {
            // Refused before there was a process to end.
            let status = Status::created().exited(128, "StartError", &refusal.to_string());
            write_json(&path, &status).map_err(internal)?;
        }
        self.refill_spares();
        // Of a success the news have told before the answer. Of a failure the file knows more.
        if result.is_err()
            && let Ok(status) = read_json::<Status>(&path)
        {
            let is_end = status.state == ContainerState::Exited;
            if entry.set_status(status) && is_end {
                self.announce(&sandbox, id, ContainerEventKind::Stopped);
            }
        }
        result?;
        if let Some(hooks) = hooks {
            let pid = entry.status.borrow().pid;
            super::hooked::after(hooks, Moment::Poststart, id, pid).await?;
        }
        Ok(())
    }

    pub(super) async fn stop(&self, id: &str, timeout: Duration) -> Result<(), RuntimeError> {
        let Ok(entry) = self.entry(id) else {
            return Ok(());
        };
        if entry.state() != ContainerState::Running {
            return Ok(());
        }
        let (sandbox, signal) = {
            let record = entry.record.read();
            (record.sandbox_id.clone(), record.stop_signal)
        };
        let mut status = entry.status.subscribe();
        // Without a supervisor the container is being buried just now; its end is all we wait for.
        if let Ok(link) = self.link(&sandbox) {
            let send = |signal, everything| {
                let container = id.to_owned();
                let call = Call::Signal {
                    container,
                    signal,
                    everything,
                };
                link.call(call, Vec::new())
            };
            if !timeout.is_zero() {
                ignore_gone(send(signal, false).await)?;
                let ended = status.wait_for(|status| status.state == ContainerState::Exited);
                if tokio::time::timeout(timeout, ended).await.is_ok() {
                    return Ok(());
                }
            }
            ignore_gone(send(KILL, true).await)?;
        }
        let ended = status.wait_for(|status| status.state == ContainerState::Exited);
        match tokio::time::timeout(KILL_TIMEOUT, ended).await {
            Ok(_) => Ok(()),
            Err(_) => Err(RuntimeError::DeadlineExceeded(format!(
                "container {id} does not end after SIGKILL"
            ))),
        }
    }

    pub(super) async fn remove_entry(&self, id: &str) -> Result<(), RuntimeError> {
        let Ok(entry) = self.entry(id) else {
            return Ok(());
        };
        self.stop(id, Duration::ZERO).await?;
        let _change = entry.change.lock().await;
        let record = entry.record.read().clone();
        if let Ok(link) = self.link(&record.sandbox_id) {
            ignore_gone(
                link.call(
                    Call::Forget {
                        container: id.to_owned(),
                    },
                    Vec::new(),
                )
                .await,
            )?;
        }
        let group = self.group(&record.cgroup)?;
        let files = self.files(&entry, id);
        blocking(move || units::remove(&record.cgroup, &group).map_err(internal)).await?;
        entry.run_last_hooks().await?;
        blocking(move || files.remove().map_err(internal)).await?;
        self.forget(&record.sandbox_id, id);
        Ok(())
    }

    /// Removes the ended containers of a sandbox that goes itself, and its cgroups with it.
    pub(super) async fn remove_ended(&self, sandbox: &str) -> Result<(), RuntimeError> {
        for entry in self.containers_of(sandbox) {
            if entry.state() != ContainerState::Exited {
                continue;
            }
            let _change = entry.change.lock().await;
            let id = entry.record.read().id.clone();
            let files = self.files(&entry, &id);
            entry.run_last_hooks().await?;
            blocking(move || files.remove().map_err(internal)).await?;
            self.forget(sandbox, &id);
        }
        Ok(())
    }

    fn files(&self, entry: &Entry, id: &str) -> Files {
        Files {
            id: id.to_owned(),
            folder: entry.folder.clone(),
            writable: self.writable(id),
            store: self.store.clone(),
        }
    }

    fn forget(&self, sandbox: &str, id: &str) {
        if self.containers.write().remove(id).is_some() {
            self.announce(sandbox, id, ContainerEventKind::Deleted);
        }
    }

    pub(super) async fn update(
        &self,
        id: &str,
        resources: LinuxResources,
        rare: Option<RareLimits>,
    ) -> Result<(), RuntimeError> {
        let entry = self.entry(id)?;
        let _change = entry.change.lock().await;
        if entry.state() == ContainerState::Exited {
            let message = format!("container {id} has ended");
            return Err(RuntimeError::FailedPrecondition(message));
        }
        let mut record = entry.record.read().clone();
        let resources = merged(&record.config.resources, resources);
        let spec_path = entry.folder.join(file::SPEC);
        let mut spec: ContainerSpec = read_json(&spec_path).map_err(internal)?;
        let limits = Limits {
            oom_kill_disable: spec.limits.oom_kill_disable,
            rare: rare.unwrap_or(spec.limits.rare),
            ..translate::container_limits(&resources)
        };
        if entry.state() == ContainerState::Running {
            let group = self.group(&record.cgroup)?;
            let wanted = limits.clone();
            let path = record.cgroup.clone();
            blocking(move || units::limit(&path, &group, &wanted).map_err(internal)).await?;
        }
        record.config.resources = resources;
        spec.limits = limits;
        write_json(&spec_path, &spec).map_err(internal)?;
        write_json(&entry.folder.join(file::CONTAINER), &record).map_err(internal)?;
        *entry.record.write() = record;
        Ok(())
    }

    pub(super) async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError> {
        let entry = self.entry(id)?;
        if entry.state() != ContainerState::Running {
            return Err(RuntimeError::FailedPrecondition(format!(
                "container {id} is not running"
            )));
        }
        let sandbox = entry.record.read().sandbox_id.clone();
        self.link(&sandbox)?
            .call(
                Call::Reopen {
                    container: id.to_owned(),
                },
                Vec::new(),
            )
            .await?;
        Ok(())
    }

    /// Where a container's own writes are kept.
    pub(super) fn writable(&self, id: &str) -> PathBuf {
        self.config.root.join("containers").join(id)
    }
}

/// What a container has on disk.
struct Files {
    id: String,
    folder: PathBuf,
    writable: PathBuf,
    store: oci::Store,
}

impl Files {
    fn remove(&self) -> std::io::Result<()> {
        remove_folder(&self.writable)?;
        self.store
            .release(&self.id)
            .map_err(std::io::Error::other)?;
        remove_recorded(&self.folder, file::CONTAINER)
    }
}

/// The folders of what the container writes.
fn make_writable(spec: &ContainerSpec) -> std::io::Result<()> {
    for name in ["upper", "work"] {
        // The root folder's mode is what programs see as the mode of `/`.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(spec.writable.join(name))?;
    }
    Ok(())
}

/// What is set in `new` wins over `old`.
fn merged(old: &LinuxResources, new: LinuxResources) -> LinuxResources {
    let number = |old: i64, new: i64| if new == 0 { old } else { new };
    let text = |old: &String, new: String| if new.is_empty() { old.clone() } else { new };
    let mut both = LinuxResources {
        cpu_period: number(old.cpu_period, new.cpu_period),
        cpu_quota: number(old.cpu_quota, new.cpu_quota),
        cpu_shares: number(old.cpu_shares, new.cpu_shares),
        memory_limit_bytes: number(old.memory_limit_bytes, new.memory_limit_bytes),
        memory_reservation_bytes: number(
            old.memory_reservation_bytes,
            new.memory_reservation_bytes,
        ),
        memory_swap_limit_bytes: number(old.memory_swap_limit_bytes, new.memory_swap_limit_bytes),
        oom_score_adj: number(old.oom_score_adj, new.oom_score_adj),
        cpuset_cpus: text(&old.cpuset_cpus, new.cpuset_cpus),
        cpuset_mems: text(&old.cpuset_mems, new.cpuset_mems),
        pids_limit: number(old.pids_limit, new.pids_limit),
        hugepage_limits: old.hugepage_limits.clone(),
        unified: old.unified.clone(),
    };
    both.hugepage_limits.extend(new.hugepage_limits);
    both.unified.extend(new.unified);
    both
}

/// A supervisor that is gone, or does not know the container, has nothing left to signal.
fn ignore_gone<T>(result: Result<T, Refusal>) -> Result<(), RuntimeError> {
    match result {
        Ok(_) | Err(Refusal::Gone | Refusal::NotFound(_)) => Ok(()),
        Err(refusal) => Err(refusal.into()),
    }
}

/// A mount whose source does not share its events with anybody cannot pass them on. The container
/// runs all the same.
fn warn_of_lost_propagation(config: &ContainerConfig) {
    let wish = |mount: &&Mount| mount.propagation != MountPropagation::Private;
    if !config.mounts.iter().any(|mount| wish(&mount)) {
        return;
    }
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for mount in config.mounts.iter().filter(wish) {
        if !is_shared(&table, &mount.host_path) {
            let (path, container) = (mount.host_path.display(), &config.name);
            tracing::warn!(%path, container, "not on a shared mount, later mounts will not propagate");
        }
    }
}

/// Whether the mount that holds `path` has a peer group.
fn is_shared(table: &str, path: &Path) -> bool {
    let entry = |line: &str| {
        let (fields, _) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(4);
        let point = PathBuf::from(fields.next()?);
        let shared = fields.any(|field| field.starts_with("shared:"));
        path.starts_with(&point)
            .then(|| (point.components().count(), shared))
    };
    // Of mounts on the same point the last one counts.
    let holder = table
        .lines()
        .filter_map(entry)
        .max_by_key(|(depth, _)| *depth);
    holder.is_some_and(|(_, shared)| shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_decides_about_propagation() {
        let table = "\
20 1 8:1 / / rw - ext4 /dev/vda rw
21 20 8:2 / /data rw shared:7 - ext4 /dev/vdb rw
22 21 8:3 / /data/own rw - tmpfs tmpfs rw
";
        for (path, shared) in [
            ("/x", false),
            ("/data/x", true),
            ("/data/own/x", false),
            ("/database", false),
        ] {
            assert_eq!(is_shared(table, Path::new(path)), shared, "{path}");
        }
    }
}
