//! Looks after the node: watches its resources, wins some back, and ends pods
//! where that is not enough.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::Stop;
use k8s_openapi::api::core::v1::Pod;
use meta::Quantity;
use node_api::ContainerState;
use tokio::time::Instant;

use super::{
    Candidate, Observation, Observations, Pressure, Signal, Threshold, Usage, message, rank,
};
use crate::events::{Kind, node_reference};
use crate::image_gc;
use crate::inbox::Eviction;
use crate::machine;
use crate::pod::PodExt;
use crate::pods::PodView;
use crate::shared::Shared;
use crate::status::EVICTED;

/// How often the node is looked at; what it looks at sends no events.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// How long one pod has to end before the next has to go.
const CLEANUP_MAX: Duration = Duration::from_secs(30);
/// A pod that goes by a hard threshold has so many seconds.
const HARD_GRACE_SECONDS: i64 = 1;

/// Keeps the node from running dry; ends when the process stops.
pub(crate) async fn keep_well(shared: Arc<Shared>, stop: Stop) {
    let mut pressure = Pressure::default();
    loop {
        let gone = synchronize(&shared, &mut pressure).await;
        let pause = async {
            match gone {
                Some(uid) => wait_for_end(&shared, &uid).await,
                None => tokio::time::sleep(CHECK_INTERVAL).await,
            }
        };
        tokio::select! {
            () = pause => {}
            () = stop.raised() => return,
        }
    }
}

async fn wait_for_end(shared: &Shared, uid: &str) {
    let Some(mut shown) = shared.pods.follow(uid) else {
        return;
    };
    let over = |view: &PodView| {
        let mut all = view.containers.values();
        all.all(|status| status.state == ContainerState::Exited)
    };
    let ended = tokio::time::timeout(CLEANUP_MAX, shown.wait_for(over)).await;
    if ended.is_err() {
        tracing::warn!(uid, "an evicted pod takes long to end");
    }
}

/// Looks once. Returns the uid of the pod that has to go, if any.
async fn synchronize(shared: &Arc<Shared>, pressure: &mut Pressure) -> Option<String> {
    let config = &shared.config.eviction;
    let seen = observe(shared).await;
    let crossed = pressure.note(config, &seen, Instant::now());
    let conditions = pressure.conditions();
    if *shared.pressure.borrow() != conditions {
        tracing::warn!(?conditions, "pressure on the node changed");
        shared.pressure.send_replace(conditions);
    }
    if shared.config.local_storage_isolation
        && let Some(uid) = over_own_limit(shared).await
    {
        return Some(uid);
    }
    let threshold = crossed.first()?;
    let resource = threshold.signal.resource();
    let told = format!("Attempting to reclaim {resource}");
    let about = node_reference(&shared.config.node_name);
    shared
        .recorder
        .tell(about, Kind::Warning, "EvictionThresholdMet", told);
    if threshold.signal.is_disk() {
        if let Err(error) = image_gc::remove_unused(shared).await {
            tracing::warn!(%error, "images not removed under pressure");
        }
        let again = observe(shared).await;
        let now = again.get(&threshold.signal).copied().unwrap_or_default();
        if !threshold.is_crossed(now, true) {
            return None;
        }
    }
    let seen = seen.get(&threshold.signal).copied().unwrap_or_default();
    evict_one(shared, threshold, seen).await
}

async fn evict_one(
    shared: &Arc<Shared>,
    threshold: &Threshold,
    seen: Observation,
) -> Option<String> {
    let mut candidates = candidates(shared, threshold.signal).await;
    rank(threshold.signal, &mut candidates);
    let Some(first) = candidates.first() else {
        tracing::warn!(resource = threshold.signal.resource(), "no pod to evict");
        return None;
    };
    let grace = match threshold.grace.is_zero() {
        true => HARD_GRACE_SECONDS,
        false => {
            let most = shared.config.eviction.max_pod_grace_seconds;
            most.min(first.pod.grace_seconds()).max(HARD_GRACE_SECONDS)
        }
    };
    let message = message(threshold, seen, first);
    Some(evict(shared, &first.pod, grace, message))
}

fn evict(shared: &Shared, pod: &Pod, grace_seconds: i64, message: String) -> String {
    tracing::warn!(pod = pod.display(), message, "evicting");
    shared.pods.tell(pod.uid(), |news| {
        news.evicted = Some(Eviction {
            reason: EVICTED,
            grace_seconds: Some(grace_seconds),
            message,
        });
    });
    pod.uid().to_owned()
}

async fn observe(shared: &Shared) -> Observations {
    let mut seen = Observations::new();
    let memory = Observation {
        capacity: shared.machine.memory_bytes,
        available: machine::memory("MemAvailable:"),
    };
    seen.insert(Signal::Memory, memory);
    if let Some(memory) = pod_memory(shared).await {
        seen.insert(Signal::PodMemory, memory);
    }
    if let Some((capacity, taken)) = machine::process_ids() {
        let available = capacity - taken;
        seen.insert(
            Signal::ProcessIds,
            Observation {
                capacity,
                available,
            },
        );
    }
    let images = shared.images.image_fs_info().await.ok();
    let images = images.map(|(images, _)| images.mountpoint);
    let images = images.unwrap_or_else(|| shared.config.root_dir.clone());
    for (path, bytes, inodes) in [
        (
            &shared.config.root_dir,
            Signal::NodeDisk,
            Signal::NodeInodes,
        ),
        (&images, Signal::ImageDisk, Signal::ImageInodes),
    ] {
        let Some(disk) = machine::disk(path) else {
            continue;
        };
        let space = Observation {
            capacity: disk.total,
            available: disk.available,
        };
        seen.insert(bytes, space);
        // Some file systems make inodes as they need them, and count none.
        if disk.inodes > 0 {
            let room = Observation {
                capacity: disk.inodes,
                available: disk.inodes_free,
            };
            seen.insert(inodes, room);
        }
    }
    seen
}

/// Memory as pods have it; where nothing is reserved for others, the node says it all.
async fn pod_memory(shared: &Shared) -> Option<Observation> {
    let unreserved = shared.machine.unreserved(&shared.config);
    let capacity = unreserved.get("memory")?.value();
    if capacity >= shared.machine.memory_bytes / 1024 * 1024 {
        return None;
    }
    let stats = shared.runtime.list_container_stats().await.ok()?;
    let used: i64 = stats
        .iter()
        .map(|one| whole(one.memory_working_set_bytes))
        .sum();
    Some(Observation {
        capacity,
        available: capacity - used,
    })
}

/// The pods that may have to go, with what they use; of the disk only if it is about that.
async fn candidates(shared: &Arc<Shared>, signal: Signal) -> Vec<Candidate> {
    let stats = shared
        .runtime
        .list_container_stats()
        .await
        .unwrap_or_default();
    let mut by_pod: HashMap<String, Vec<(String, Usage)>> = HashMap::new();
    for one in stats {
        let usage = Usage {
            memory: whole(one.memory_working_set_bytes),
            processes: whole(one.process_count),
            ..Usage::default()
        };
        by_pod
            .entry(one.pod_uid)
            .or_default()
            .push((one.name, usage));
    }
    let mut candidates = Vec::new();
    for view in running(shared)
        .into_iter()
        .filter(|view| !view.pod.is_critical())
    {
        let mut containers = by_pod.remove(view.pod.uid()).unwrap_or_default();
        let mut usage = Usage::default();
        if signal.is_disk() {
            for (name, own) in &mut containers {
                own.add(disk_of_container(shared, &view, name).await);
            }
            usage.add(measure(volume_folders(shared, &view.pod)).await);
        }
        for (_, own) in &containers {
            usage.add(*own);
        }
        candidates.push(Candidate {
            pod: view.pod,
            usage,
            containers,
        });
    }
    candidates
}

fn running(shared: &Shared) -> Vec<PodView> {
    let alive = |view: &PodView| {
        let mut all = view.containers.values();
        all.any(|status| status.state == ContainerState::Running)
    };
    let all = shared.pods.all().into_iter();
    all.filter(|view| !view.pod.is_deleting() && alive(view))
        .collect()
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What a container has written: its layer and its log.
async fn disk_of_container(shared: &Shared, view: &PodView, name: &str) -> Usage {
    let Some(status) = crate::plan::newest_container(&view.containers, name) else {
        return Usage::default();
    };
    let mut usage = Usage::default();
    if let Ok(layer) = shared.runtime.writable_layer(&status.id).await {
        usage.disk = whole(layer.used_bytes);
        usage.inodes = whole(layer.inodes_used);
    }
    let logs = shared.config.log_dir.join(view.pod.log_folder()).join(name);
    usage.add(measure(vec![logs]).await);
    usage
}

/// The folders of a pod's volumes that take room on the disk.
fn volume_folders(shared: &Shared, pod: &Pod) -> Vec<PathBuf> {
    let scratch = pod.spec().volumes.iter().flatten().filter(|volume| {
        let source = volume.empty_dir.as_ref();
        source.is_some_and(|source| source.medium.as_deref().unwrap_or_default().is_empty())
    });
    scratch
        .map(|volume| empty_dir(shared, pod, &volume.name))
        .collect()
}

fn empty_dir(shared: &Shared, pod: &Pod, name: &str) -> PathBuf {
    let folder = shared.volumes.pod_dir(pod.uid()).join("volumes");
    folder.join("kubernetes.io~empty-dir").join(name)
}

/// Walks folders.
pub(crate) async fn measure(folders: Vec<PathBuf>) -> Usage {
    let walked = tokio::task::spawn_blocking(move || {
        let mut usage = Usage::default();
        for folder in folders {
            walk(&folder, &mut usage);
        }
        usage
    });
    walked.await.unwrap_or_default()
}

fn walk(path: &Path, usage: &mut Usage) {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = std::fs::symlink_metadata(path) else {
        return;
    };
    usage.disk += whole(meta.blocks().saturating_mul(512));
    usage.inodes += 1;
    if meta.is_dir() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            walk(&entry.path(), usage);
        }
    }
}

/// Ends one pod that uses more of the disk than it set itself as a limit.
async fn over_own_limit(shared: &Arc<Shared>) -> Option<String> {
    for view in running(shared) {
        if let Some(message) = excess(shared, &view).await {
            return Some(evict(shared, &view.pod, HARD_GRACE_SECONDS, message));
        }
    }
    None
}

async fn excess(shared: &Shared, view: &PodView) -> Option<String> {
    let pod = view.pod.as_ref();
    let parse = |text: &str| Quantity::parse(text).ok().map(Quantity::value);
    for volume in pod.spec().volumes.iter().flatten() {
        let limit = volume
            .empty_dir
            .as_ref()
            .and_then(|e| e.size_limit.as_ref());
        let Some(limit) = limit.filter(|limit| parse(&limit.0).is_some_and(|n| n > 0)) else {
            continue;
        };
        let used = measure(vec![empty_dir(shared, pod, &volume.name)])
            .await
            .disk;
        if parse(&limit.0).is_some_and(|most| used > most) {
            return Some(format!(
                "Usage of EmptyDir volume {:?} exceeds the limit {:?}. ",
                volume.name, limit.0
            ));
        }
    }
    let (mut total, mut most, mut limited) = (0, 0, BTreeSet::new());
    for container in &pod.spec().containers {
        let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
        let Some(limit) = limits.and_then(|limits| limits.get("ephemeral-storage")) else {
            continue;
        };
        let used = disk_of_container(shared, view, &container.name).await.disk;
        let allowed = parse(&limit.0).unwrap_or(i64::MAX);
        if used > allowed {
            return Some(format!(
                "Container {} exceeded its local ephemeral storage limit {:?}. ",
                container.name, limit.0
            ));
        }
        total += used;
        most += allowed;
        limited.insert(&container.name);
    }
    if limited.is_empty() || limited.len() < pod.spec().containers.len() {
        return None;
    }
    total += measure(volume_folders(shared, pod)).await.disk;
    (total > most).then(|| {
        format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
            Quantity::from_bytes(most)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_measured_in_blocks_and_inodes() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("away")).unwrap();
        let mut usage = Usage::default();
        walk(folder.path(), &mut usage);
        assert_eq!(usage.inodes, 3);
        assert!((100_000..1_000_000).contains(&usage.disk), "{usage:?}");
    }
}
