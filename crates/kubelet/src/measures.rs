//! What was measured before: counters, by which uses become rates, and disks, which are walked
//! once a minute at most, and only when somebody asks.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::Path;
use std::time::Duration;

use node_api::{ContainerStats, FilesystemUsage};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::shared::Shared;

/// Disks are walked again after this time.
const WALK_AFTER: Duration = Duration::from_secs(60);
/// Rates hold for at least this time.
const RATE_NANOS_MIN: i64 = 1_000_000_000;
/// What nobody asked about for so long is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// Only above so many entries is anything forgotten.
const ENTRIES_KEPT: usize = 1_024;

type Disks = HashMap<String, (Instant, FilesystemUsage)>;

/// Counters of one moment, and the rate up to then.
struct Rate {
    seen: Instant,
    at: i64,
    cpu: u64,
    nano_cores: Option<u64>,
}

/// What was measured before.
#[derive(Default)]
pub(crate) struct Measures {
    rates: Mutex<HashMap<String, Rate>>,
    /// Locked while somebody walks: others would find the same.
    disks: tokio::sync::Mutex<Disks>,
    images: tokio::sync::Mutex<Option<(Instant, FilesystemUsage, FilesystemUsage)>>,
}

impl Measures {
    /// How busy something is, if it was asked about before.
    pub(crate) fn nano_cores(&self, key: &str, stats: &ContainerStats) -> Option<u64> {
        let mut rates = self.rates.lock();
        forget(&mut rates, |rate| rate.seen);
        let (at, cpu) = (stats.timestamp, stats.cpu_usage_core_nanos);
        let rate = rates.entry(key.to_owned()).or_insert(Rate {
            seen: Instant::now(),
            at,
            cpu,
            nano_cores: None,
        });
        rate.seen = Instant::now();
        let passed = at - rate.at;
        if cpu < rate.cpu {
            // It began anew.
            (rate.at, rate.cpu, rate.nano_cores) = (at, cpu, None);
        } else if passed >= RATE_NANOS_MIN {
            let used = u128::from(cpu - rate.cpu) * 1_000_000_000;
            let busy = used / u128::from(passed.unsigned_abs());
            (rate.at, rate.cpu) = (at, cpu);
            rate.nano_cores = u64::try_from(busy).ok();
        }
        rate.nano_cores
    }

    /// What a container has written to its own file system.
    pub(crate) async fn layer(&self, shared: &Shared, id: &str) -> FilesystemUsage {
        let mut disks = self.disks.lock().await;
        if let Some((_, usage)) = disks.get(id).filter(|(at, _)| at.elapsed() < WALK_AFTER) {
            return usage.clone();
        }
        let usage = shared.runtime.writable_layer(id).await.unwrap_or_default();
        note(&mut disks, id, usage)
    }

    /// What is in a folder.
    pub(crate) async fn folder(&self, path: &Path) -> FilesystemUsage {
        let key = path.to_string_lossy();
        let mut disks = self.disks.lock().await;
        if let Some((_, usage)) = disks.get(&*key).filter(|(at, _)| at.elapsed() < WALK_AFTER) {
            return usage.clone();
        }
        let measured = crate::eviction::measure(vec![path.to_owned()]).await;
        let usage = FilesystemUsage {
            mountpoint: path.to_owned(),
            used_bytes: u64::try_from(measured.disk).unwrap_or(0),
            inodes_used: u64::try_from(measured.inodes).unwrap_or(0),
        };
        note(&mut disks, &key, usage)
    }

    /// What images and containers take, if the runtime tells.
    pub(crate) async fn images(
        &self,
        shared: &Shared,
    ) -> Option<(FilesystemUsage, FilesystemUsage)> {
        let mut known = self.images.lock().await;
        if known
            .as_ref()
            .is_none_or(|(at, ..)| at.elapsed() >= WALK_AFTER)
        {
            let (images, containers) = shared.images.image_fs_info().await.ok()?;
            *known = Some((Instant::now(), images, containers));
        }
        let (_, images, containers) = known.as_ref()?;
        Some((images.clone(), containers.clone()))
    }
}

fn note(disks: &mut Disks, key: &str, usage: FilesystemUsage) -> FilesystemUsage {
    forget(disks, |(at, _)| *at);
    disks.insert(key.to_owned(), (Instant::now(), usage.clone()));
    usage
}

fn forget<K: Eq + Hash, V>(map: &mut HashMap<K, V>, seen: impl Fn(&V) -> Instant) {
    if map.len() > ENTRIES_KEPT {
        map.retain(|_, value| seen(value).elapsed() < FORGET_AFTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_need_two_looks_some_time_apart() {
        let measures = Measures::default();
        let look = |at: i64, cpu: u64| {
            let stats = ContainerStats {
                timestamp: at * 1_000_000,
                cpu_usage_core_nanos: cpu,
                ..ContainerStats::default()
            };
            measures.nano_cores("a", &stats)
        };
        assert_eq!(look(1_000, 0), None);
        assert_eq!(look(1_500, 400), None);
        assert_eq!(look(3_000, 1_000), Some(500));
        assert_eq!(look(3_100, 9_000), Some(500));
        assert_eq!(look(9_000, 10), None);
    }

    #[tokio::test(start_paused = true)]
    async fn folders_are_walked_once_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let measures = Measures::default();
        let inodes = async || measures.folder(folder.path()).await.inodes_used;
        assert_eq!(inodes().await, 1);
        std::fs::write(folder.path().join("a"), "b").unwrap();
        assert_eq!(inodes().await, 1);
        tokio::time::advance(WALK_AFTER).await;
        assert_eq!(inodes().await, 2);
    }
}
