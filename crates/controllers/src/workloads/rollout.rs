//! How far each set of a deployment may grow or shrink in one step. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DeploymentSpec, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// What the arithmetic needs to know of one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    pub is_newest: bool,
    /// `spec.replicas`.
    pub replicas: i32,
    /// `status.replicas`.
    pub running: i32,
    pub available: i32,
    /// `deployment.kubernetes.io/max-replicas` from the last time the set was sized; 0 if never.
    pub max_before: i32,
    /// `deployment.kubernetes.io/desired-replicas` likewise.
    pub desired_before: Option<i32>,
}

/// `maxSurge` and `maxUnavailable` as numbers of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub max_surge: i32,
    pub max_unavailable: i32,
}

/// Reads a set.
pub(crate) fn view(set: &ReplicaSet, newest: Option<&Arc<ReplicaSet>>) -> Set {
    let status = set.status.as_ref();
    let annotations = set.metadata.annotations.as_ref();
    let number = |name: &str| {
        let full = format!("deployment.kubernetes.io/{name}");
        annotations
            .and_then(|map| map.get(&full))
            .and_then(|text| text.parse::<i32>().ok())
    };
    Set {
        is_newest: newest.is_some_and(|newest| newest.metadata.uid == set.metadata.uid),
        replicas: set
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(0),
        running: status.map_or(0, |status| status.replicas),
        available: status
            .and_then(|status| status.available_replicas)
            .unwrap_or(0),
        max_before: number("max-replicas").unwrap_or(0),
        desired_before: number("desired-replicas"),
    }
}

/// Resolves percentages: surge rounds up, unavailability down; both zero would never move.
pub(crate) fn bounds(spec: &DeploymentSpec) -> Bounds {
    let replicas = spec.replicas.unwrap_or(1);
    let strategy = spec.strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
        return Bounds {
            max_surge: 0,
            max_unavailable: 0,
        };
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".into());
    let surge = rolling
        .and_then(|rolling| rolling.max_surge.as_ref())
        .unwrap_or(&quarter);
    let lost = rolling
        .and_then(|rolling| rolling.max_unavailable.as_ref())
        .unwrap_or(&quarter);
    let max_surge = resolve(surge, replicas, true);
    let mut max_unavailable = resolve(lost, replicas, false);
    if max_surge == 0 && max_unavailable == 0 {
        max_unavailable = 1;
    }
    Bounds {
        max_surge,
        max_unavailable: max_unavailable.min(replicas),
    }
}

/// A number, or a percentage of `whole` rounded up or down; nonsense is 0.
pub(crate) fn resolve(value: &IntOrString, whole: i32, round_up: bool) -> i32 {
    let percent = match value {
        IntOrString::Int(number) => return (*number).max(0),
        IntOrString::String(text) => text.strip_suffix('%').and_then(|p| p.parse::<i64>().ok()),
    };
    let product = percent.unwrap_or(0).max(0) * i64::from(whole);
    let rounded = if round_up {
        (product + 99) / 100
    } else {
        product / 100
    };
    i32::try_from(rounded).unwrap_or(i32::MAX)
}

/// The size at which a new set starts.
pub(crate) fn first_size(spec: &DeploymentSpec, strategy: &str, old: &[Set]) -> i32 {
    let wanted = spec.replicas.unwrap_or(1);
    if strategy == "Recreate" {
        // The step that follows decides, once the old pods are gone.
        return if old.iter().all(|set| set.replicas == 0 && set.running == 0) {
            wanted
        } else {
            0
        };
    }
    let total: i32 = old.iter().map(|set| set.replicas).sum();
    (wanted + bounds(spec).max_surge - total).clamp(0, wanted)
}

/// The size each set should have now, in the order given.
pub(crate) fn targets(spec: &DeploymentSpec, sets: &[Set], old_pods_remain: bool) -> Vec<i32> {
    let recreate = spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate");
    let wanted = spec.replicas.unwrap_or(1);
    if spec.paused == Some(true) || was_resized(sets, wanted) {
        return proportional(spec, sets, recreate);
    }
    if recreate {
        let old_done = !old_pods_remain
            && sets
                .iter()
                .filter(|set| !set.is_newest)
                .all(|set| set.replicas == 0);
        let size = |set: &Set| match (set.is_newest, old_done) {
            (true, true) => wanted,
            (true, false) => set.replicas,
            (false, _) => 0,
        };
        return sets.iter().map(size).collect();
    }
    rolling(spec, sets)
}

/// Whether `spec.replicas` changed since the sets were last sized.
fn was_resized(sets: &[Set], wanted: i32) -> bool {
    let sized = sets.iter().filter(|set| set.replicas > 0);
    sized
        .filter_map(|set| set.desired_before)
        .any(|before| before != wanted)
}

/// One step of a rolling update: grow the newest set as far as the surge allows, then shrink old
/// ones as far as availability allows, unhealthy pods first.
fn rolling(spec: &DeploymentSpec, sets: &[Set]) -> Vec<i32> {
    let wanted = spec.replicas.unwrap_or(1);
    let bounds = bounds(spec);
    let mut sizes: Vec<i32> = sets.iter().map(|set| set.replicas).collect();
    let Some(newest) = sets.iter().position(|set| set.is_newest) else {
        return sizes;
    };
    let total: i32 = sizes.iter().sum();
    if sizes[newest] > wanted {
        sizes[newest] = wanted;
        return sizes;
    }
    let room = wanted + bounds.max_surge - total;
    if sizes[newest] < wanted && room > 0 {
        sizes[newest] += room.min(wanted - sizes[newest]);
        return sizes;
    }
    let least_available = wanted - bounds.max_unavailable;
    let newest_unavailable = sizes[newest] - sets[newest].available;
    let mut may_go = total - least_available - newest_unavailable;
    // Unhealthy old pods cost no availability.
    for (size, set) in sizes.iter_mut().zip(sets).filter(|(_, set)| !set.is_newest) {
        let unhealthy = (*size - set.available).clamp(0, may_go.max(0));
        *size -= unhealthy;
        may_go -= unhealthy;
    }
    let available: i32 = sets.iter().map(|set| set.available).sum();
    let mut spare = available - least_available;
    for (size, set) in sizes.iter_mut().zip(sets).filter(|(_, set)| !set.is_newest) {
        let healthy = (*size).min(spare).max(0);
        if set.replicas > 0 {
            *size -= healthy;
            spare -= healthy;
        }
    }
    sizes
}

/// After a change of `spec.replicas` in the middle of a roll-out (or while paused), every set
/// keeps its share.
fn proportional(spec: &DeploymentSpec, sets: &[Set], recreate: bool) -> Vec<i32> {
    let wanted = spec.replicas.unwrap_or(1);
    let mut sizes: Vec<i32> = sets.iter().map(|set| set.replicas).collect();
    let active: Vec<usize> = (0..sets.len()).filter(|at| sizes[*at] > 0).collect();
    let only = match active.as_slice() {
        [] => sets.iter().position(|set| set.is_newest),
        [one] => Some(*one),
        _ => None,
    };
    if let Some(only) = only {
        sizes[only] = wanted;
        return sizes;
    }
    let newest_full = sets
        .iter()
        .position(|set| set.is_newest && set.available == wanted);
    if let Some(newest) = newest_full.filter(|newest| sizes[*newest] == wanted) {
        for (at, size) in sizes.iter_mut().enumerate() {
            *size = if at == newest { wanted } else { 0 };
        }
        return sizes;
    }
    let allowed = if wanted > 0 && !recreate {
        wanted + bounds(spec).max_surge
    } else {
        wanted
    };
    let total: i32 = sizes.iter().sum();
    let mut left = allowed - total;
    // The largest sets take their share first; what rounding leaves goes to the largest.
    let mut order = active;
    order.sort_by_key(|at| std::cmp::Reverse((sizes[*at], sets[*at].is_newest)));
    let before = sizes.clone();
    for at in &order {
        let base = if sets[*at].max_before > 0 {
            sets[*at].max_before
        } else {
            total
        };
        let share = f64::from(before[*at]) * f64::from(allowed) / f64::from(base.max(1));
        let change = (share.round() as i32 - before[*at]).clamp(left.min(0), left.max(0));
        sizes[*at] = (before[*at] + change).max(0);
        left -= sizes[*at] - before[*at];
    }
    if let Some(first) = order.first() {
        sizes[*first] = (sizes[*first] + left).max(0);
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(replicas: i32, surge: &str, unavailable: &str) -> DeploymentSpec {
        serde_json::from_value(json!({
            "replicas": replicas, "selector": {}, "template": {},
            "strategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
        }))
        .unwrap()
    }

    fn set(is_newest: bool, replicas: i32, available: i32) -> Set {
        Set {
            is_newest,
            replicas,
            running: replicas,
            available,
            max_before: 0,
            desired_before: None,
        }
    }

    #[test]
    fn percentages_round_as_upstream() {
        assert_eq!(
            bounds(&spec(10, "25%", "25%")),
            Bounds {
                max_surge: 3,
                max_unavailable: 2
            }
        );
        assert_eq!(
            bounds(&spec(1, "0%", "0%")),
            Bounds {
                max_surge: 0,
                max_unavailable: 1
            }
        );
        assert_eq!(
            bounds(&spec(3, "25%", "25%")),
            Bounds {
                max_surge: 1,
                max_unavailable: 0
            }
        );
    }

    /// Plays a roll-out in which every pod becomes available at once.
    fn play(spec: &DeploymentSpec, mut old: i32) -> Vec<(i32, i32)> {
        let mut new = 0;
        let mut trace = Vec::new();
        for _ in 0..50 {
            let sizes = targets(spec, &[set(false, old, old), set(true, new, new)], false);
            if (sizes[0], sizes[1]) == (old, new) {
                break;
            }
            (old, new) = (sizes[0], sizes[1]);
            trace.push((old, new));
        }
        trace
    }

    #[test]
    fn a_rollout_ends_and_keeps_its_bounds() {
        assert_eq!(
            play(&spec(3, "25%", "25%"), 3),
            [(3, 1), (2, 1), (2, 2), (1, 2), (1, 3), (0, 3)]
        );
        let trace = play(&spec(10, "30%", "20%"), 10);
        assert_eq!(trace.last(), Some(&(0, 10)));
        for (old, new) in trace {
            assert!(old + new <= 13 && old + new >= 8, "{old}+{new}");
        }
    }

    #[test]
    fn a_broken_template_stops_at_the_bounds() {
        let sets = [set(false, 3, 3), set(true, 1, 0)];
        assert_eq!(targets(&spec(3, "25%", "25%"), &sets, false), [3, 1]);
    }

    #[test]
    fn broken_old_pods_go_first() {
        let sets = [set(false, 4, 0), set(true, 0, 0)];
        let spec = spec(4, "25%", "25%");
        assert_eq!(targets(&spec, &sets, false), [4, 1]);
        let sets = [set(false, 4, 0), set(true, 1, 0)];
        assert_eq!(targets(&spec, &sets, false), [3, 1]);
    }

    #[test]
    fn recreate_waits_for_the_old_pods() {
        let mut spec = spec(2, "0", "0");
        spec.strategy = serde_json::from_value(json!({"type": "Recreate"})).unwrap();
        let (old, new) = (set(false, 2, 2), set(true, 0, 0));
        assert_eq!(targets(&spec, &[old, new.clone()], true), [0, 0]);
        assert_eq!(
            targets(&spec, &[set(false, 0, 0), new.clone()], true),
            [0, 0]
        );
        assert_eq!(targets(&spec, &[set(false, 0, 0), new], false), [0, 2]);
    }

    #[test]
    fn resizing_in_the_middle_keeps_the_shares() {
        let sized = |is_newest, replicas| Set {
            desired_before: Some(10),
            max_before: 13,
            ..set(is_newest, replicas, replicas)
        };
        let sizes = targets(
            &spec(20, "30%", "20%"),
            &[sized(false, 8), sized(true, 5)],
            false,
        );
        assert_eq!(sizes, [16, 10]);
    }
}
