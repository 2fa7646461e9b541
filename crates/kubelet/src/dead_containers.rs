//! How many ended containers stay, for those who want to know how they ended.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::Stop;
use node_api::{ContainerState, ContainerStatus};
use tokio::time::Instant;

use crate::pod::{PodExt, instant};
use crate::pods::PodView;
use crate::shared::Shared;

/// How often all of the node's are counted.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Which ended containers stay. The newest container of a name always does: by it the kubelet knows
/// how things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadContainers {
    /// Beside the newest container of a name; `None`: all.
    pub per_container_max: Option<usize>,
    /// Of the node; `None`: all.
    pub in_all_max: Option<usize>,
    /// Whatever there is stays so long.
    pub age_min: Duration,
}

impl Default for DeadContainers {
    /// Upstream's.
    fn default() -> DeadContainers {
        DeadContainers {
            per_container_max: Some(1),
            in_all_max: None,
            age_min: Duration::ZERO,
        }
    }
}

/// Has ended containers removed where the node has too many; ends when the process stops.
pub(crate) async fn keep_few(shared: Arc<Shared>, most: usize, stop: Stop) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
            () = stop.raised() => return,
        }
        let old = |status: &ContainerStatus| {
            let ended = shared.config.clock.happened(instant(status.finished_at));
            Instant::now().duration_since(ended) >= shared.config.dead_containers.age_min
        };
        let units = shared
            .pods
            .all()
            .iter()
            .flat_map(|view| dead(view, old))
            .collect();
        for one in surplus(units, most) {
            shared.pods.tell(&one.uid, |news| {
                news.surplus.insert(one.id);
            });
        }
    }
}

/// An ended container.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Dead {
    uid: String,
    id: String,
    created_at: i64,
    /// It has no successor.
    is_newest: bool,
}

/// The ended containers of a pod, by name.
fn dead(view: &PodView, old: impl Fn(&ContainerStatus) -> bool) -> Vec<Vec<Dead>> {
    let mut units: HashMap<&str, Vec<Dead>> = HashMap::new();
    let all = view.containers.values();
    for status in all.filter(|c| c.state == ContainerState::Exited && old(c)) {
        let name = status.config.name.as_str();
        let newest = crate::plan::newest_container(&view.containers, name);
        units.entry(name).or_default().push(Dead {
            uid: view.pod.uid().to_owned(),
            id: status.id.clone(),
            created_at: status.created_at,
            is_newest: newest.is_some_and(|newest| newest.id == status.id),
        });
    }
    units.into_values().collect()
}

/// Those that go so that no more stay: first each name keeps as many as the others, then the oldest go.
fn surplus(mut units: Vec<Vec<Dead>>, most: usize) -> Vec<Dead> {
    let count = |units: &[Vec<Dead>]| units.iter().map(Vec::len).sum::<usize>();
    if count(&units) <= most {
        return Vec::new();
    }
    let each = (most / units.len()).max(1);
    let mut gone = Vec::new();
    for unit in &mut units {
        unit.sort_by_key(|dead| Reverse(dead.created_at));
        gone.extend(unit.split_off(each.min(unit.len())));
    }
    let left = count(&units).saturating_sub(most);
    let mut rest: Vec<Dead> = units.into_iter().flatten().collect();
    rest.sort_by_key(|dead| dead.created_at);
    gone.extend(rest.into_iter().take(left));
    gone.retain(|dead| !dead.is_newest);
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_as_many_as_others_and_then_the_oldest_go() {
        let unit = |name: &str, times: &[i64], runs: bool| -> Vec<Dead> {
            let newest = times.iter().max().copied();
            let one = |at: &i64| Dead {
                uid: name.to_owned(),
                id: format!("{name}{at}"),
                created_at: *at,
                is_newest: !runs && Some(*at) == newest,
            };
            times.iter().map(one).collect()
        };
        let gone = |most: usize| {
            let units = vec![
                unit("a", &[1, 5, 6, 7], true),
                unit("b", &[2], true),
                unit("c", &[3, 4], false),
            ];
            let mut ids: Vec<_> = surplus(units, most)
                .into_iter()
                .map(|dead| dead.id)
                .collect();
            ids.sort();
            ids
        };
        assert!(gone(7).is_empty());
        assert_eq!(gone(6), ["a1", "a5"]);
        assert_eq!(gone(3), ["a1", "a5", "a6", "c3"]);
        assert_eq!(gone(2), ["a1", "a5", "a6", "b2", "c3"]);
        // Of `c` none runs: its newest stays.
        assert_eq!(gone(0), ["a1", "a5", "a6", "a7", "b2", "c3"]);
    }
}
