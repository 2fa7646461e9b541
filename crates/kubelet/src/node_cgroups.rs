//! What all pods together may have of the node, and each of their classes; and what the machine's
//! own services are limited to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use linux::cgroup::Limits;
use meta::Quantity;

use crate::config::{Config, ReservedGroup};
use crate::events::{Kind, node_reference};
use crate::machine::{self, Machine};
use crate::memory_qos;
use crate::resources;
use crate::shared::Shared;

/// Pause after a limit could not be set: pods may use more than that, and are to be evicted first.
const RETRY: Duration = Duration::from_secs(60);
const ENFORCED: &str = "NodeAllocatableEnforced";
const NOT_ENFORCED: &str = "FailedNodeAllocatableEnforcement";

/// What the pods of a class ask for, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) burstable_milli_cpu: i64,
    pub(crate) burstable_memory: i64,
    pub(crate) guaranteed_memory: i64,
}

/// Amounts of a node as limits of one group.
fn limits_of(amounts: &BTreeMap<String, Quantity>, compressible_only: bool) -> Limits {
    let mut limits = Limits::default();
    if let Some(cpu) = amounts.get("cpu") {
        limits.cpu_shares = resources::shares(cpu.milli());
    }
    if compressible_only {
        return limits;
    }
    if let Some(memory) = amounts.get("memory") {
        limits.memory_bytes = memory.value();
        // Whether they have swap is said of containers.
        limits.swap_bytes = -1;
    }
    if let Some(ids) = amounts.get("pid") {
        limits.pids = ids.value();
    }
    for (name, bytes) in amounts {
        if let Some(size) = name.strip_prefix("hugepages-") {
            let size = resources::page_size(size);
            limits.huge_pages.insert(size, bytes.value());
        }
    }
    limits
}

/// Limits of all pods together.
fn of_all(machine: &Machine, config: &Config) -> Limits {
    let mut amounts = match config.enforce_allocatable {
        true => machine.unreserved(config),
        false => machine.capacity(config),
    };
    if let Some((ids, _)) = machine::process_ids() {
        let reserved = config.reserved.get("pid").copied();
        let reserved = reserved.filter(|_| config.enforce_allocatable);
        let left = Quantity::from_units(ids) - reserved.unwrap_or(Quantity::ZERO);
        amounts.insert("pid".to_owned(), left);
    }
    limits_of(&amounts, false)
}

/// The groups above pods', and their limits.
fn plan(machine: &Machine, config: &Config, asked: Asked) -> [(String, Limits); 3] {
    let root = &config.cgroup_root;
    let weight = |milli_cpu: i64| Limits {
        cpu_shares: resources::shares(milli_cpu),
        ..Limits::default()
    };
    let mut all = of_all(machine, config);
    let (mut burstable, mut best_effort) = (weight(asked.burstable_milli_cpu), weight(0));
    if let Some(percent) = config.qos_reserved_memory {
        let part = |bytes: i64| bytes.saturating_mul(percent) / 100;
        let memory = machine.unreserved(config).get("memory").copied();
        let left = memory.map_or(0, Quantity::value) - part(asked.guaranteed_memory);
        for (limits, left) in [
            (&mut burstable, left),
            (&mut best_effort, left - part(asked.burstable_memory)),
        ] {
            // No limit is another matter than none.
            limits.memory_bytes = left.max(1);
            limits.swap_bytes = -1;
        }
    }
    if let Some(settings) = memory_qos::in_force(config) {
        let kept = |bytes: i64| if settings.tiered { bytes } else { 0 };
        // A group protects what is below it no more than itself is protected.
        let whole = kept(asked.guaranteed_memory + asked.burstable_memory);
        keep(&mut all, memory_qos::MIN, whole);
        keep(
            &mut burstable,
            memory_qos::LOW,
            kept(asked.burstable_memory),
        );
    }
    [
        (root.clone(), all),
        (format!("{root}/burstable"), burstable),
        (format!("{root}/besteffort"), best_effort),
    ]
}

fn keep(limits: &mut Limits, file: &str, bytes: i64) {
    limits.unified.insert(file.to_owned(), bytes.to_string());
}

/// Sets limits of a group above pods'. What its pods use already must be enough for them, if they
/// do not give some of it back.
async fn limit(shared: &Shared, path: &str, limits: &Limits) -> Result<(), String> {
    let by_class = shared.config.cgroup_root != path && limits.memory_bytes != 0;
    // Version 2 would end processes there and then.
    if !(by_class && shared.config.cgroups.unified) {
        let limited = shared.cgroups.limit_pods(path, limits).await;
        if limited.is_ok() || !by_class {
            return limited;
        }
    }
    let used = shared.cgroups.memory_of_pods(path).await.unwrap_or(0);
    let limits = Limits {
        memory_bytes: limits.memory_bytes.max(used),
        ..limits.clone()
    };
    shared.cgroups.limit_pods(path, &limits).await
}

/// Keeps the limits of groups above pods' as they should be.
pub(crate) async fn keep_limits(shared: Arc<Shared>) {
    if !shared.config.cgroups_per_qos {
        return;
    }
    let mut changes = shared.allocations.changes();
    let mut set: BTreeMap<String, Limits> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let mut whole = true;
        for (path, limits) in plan(&shared.machine, &shared.config, shared.allocations.asked()) {
            if set.get(&path) == Some(&limits) {
                continue;
            }
            let limited = limit(&shared, &path, &limits).await;
            tell(&shared, &path, &limited, set.contains_key(&path));
            match limited {
                Ok(()) => drop(set.insert(path, limits)),
                Err(_) => whole = false,
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(RETRY), if !whole => {}
        }
    }
}

/// Says how it went with all pods together.
fn tell(shared: &Shared, path: &str, limited: &Result<(), String>, known: bool) {
    let config = &shared.config;
    let is_whole = path == config.cgroup_root;
    let (kind, reason, message) = match limited {
        Ok(()) if is_whole && !known => (
            Kind::Normal,
            ENFORCED,
            "Updated Node Allocatable limit across pods".to_owned(),
        ),
        Ok(()) => return,
        Err(why) if is_whole => (
            Kind::Warning,
            NOT_ENFORCED,
            format!("Failed to update Node Allocatable Limits {path:?}: {why}"),
        ),
        Err(why) => {
            tracing::warn!(path, why, "limits of pods' quality of service not set");
            return;
        }
    };
    let about = node_reference(&config.node_name);
    shared.recorder.tell(about, kind, reason, message);
}

/// Limits the machine's own services to what is reserved for them; the error says which cannot be.
pub(crate) async fn enforce_reserved(shared: &Shared) -> Result<(), String> {
    for group in &shared.config.reserved_groups {
        let path = &group.path;
        let about = node_reference(&shared.config.node_name);
        let limited = match group.amounts.is_empty() {
            true => Err(format!("{path:?} cgroup is not configured properly")),
            false => {
                let limits = of_reserved(group, &shared.config);
                shared.cgroups.limit_reserved(path, &limits).await
            }
        };
        let recorder = &shared.recorder;
        if let Err(why) = limited {
            let compressible = if group.compressible {
                " Compressible"
            } else {
                ""
            };
            let message = format!(
                "Failed to enforce {} Reserved{compressible} Cgroup Limits on {path:?}: {why}",
                group.name
            );
            recorder.tell(about, Kind::Warning, NOT_ENFORCED, message.clone());
            return Err(message);
        }
        let name = group.name.to_lowercase();
        let message = format!("Updated limits on {name} reserved cgroup {path}");
        recorder.tell(about, Kind::Normal, ENFORCED, message);
    }
    Ok(())
}

fn of_reserved(group: &ReservedGroup, config: &Config) -> Limits {
    let mut limits = limits_of(&group.amounts, group.compressible);
    let memory = limits.memory_bytes;
    if memory_qos::in_force(config).is_some() && memory != 0 {
        keep(&mut limits, memory_qos::MIN, memory);
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_become_limits() {
        let amount = |text: &str| Quantity::parse(text).unwrap();
        let amounts = BTreeMap::from([
            ("cpu".to_owned(), amount("1500m")),
            ("memory".to_owned(), amount("2Gi")),
            ("pid".to_owned(), amount("1000")),
            ("hugepages-2Mi".to_owned(), amount("8Mi")),
            ("ephemeral-storage".to_owned(), amount("1Gi")),
        ]);
        let all = limits_of(&amounts, false);
        let expected = Limits {
            cpu_shares: 1536,
            memory_bytes: 2 << 30,
            swap_bytes: -1,
            pids: 1000,
            huge_pages: [("2MB".to_owned(), 8 << 20)].into(),
            ..Limits::default()
        };
        assert_eq!(all, expected);
        let compressible = Limits {
            cpu_shares: 1536,
            ..Limits::default()
        };
        assert_eq!(limits_of(&amounts, true), compressible);
    }
}
