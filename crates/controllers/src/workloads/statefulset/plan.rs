//! What a StatefulSet does next: living replicas first, then surplus ones, then the roll-out. Pure.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::identity::{ordinal_of, revision_of};
use crate::pods;
use crate::workloads::control::plain;
use crate::workloads::rollout::resolve;

/// One thing to do; a plan's steps are independent of each other.
#[derive(Debug)]
pub(crate) enum Step {
    /// Make the pod of an ordinal, from the update revision or the current one.
    Create {
        ordinal: i32,
        is_update: bool,
    },
    /// Remove a pod that ended, to make it anew.
    Recreate(Arc<Pod>),
    Delete(Arc<Pod>),
    /// See that the claims of a living pod exist.
    Claims {
        ordinal: i32,
    },
    /// Give an adopted pod its identity labels.
    Identify {
        pod: Arc<Pod>,
        ordinal: i32,
    },
}

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// Wanted ordinals that have a pod.
    pub(crate) living: Vec<i32>,
    /// Pods beyond the wanted range.
    pub(crate) condemned: Vec<(i32, Arc<Pod>)>,
    pub(crate) status: StatefulSetStatus,
    /// When a ready pod becomes available.
    pub(crate) again_in: Option<Duration>,
}

/// Names of the revisions a set moves between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Revisions<'a> {
    pub(crate) current: &'a str,
    pub(crate) update: &'a str,
    pub(crate) collisions: Option<i32>,
}

struct View<'a> {
    spec: &'a StatefulSetSpec,
    revisions: Revisions<'a>,
    /// By ordinal from the first on; `None` where a pod is missing.
    replicas: Vec<Option<Arc<Pod>>>,
    /// Highest ordinal first.
    condemned: Vec<(i32, Arc<Pod>)>,
    start: i32,
    is_ordered: bool,
    now: Timestamp,
}

/// Plans one round for the pods the set controls.
pub(crate) fn plan(
    set: &StatefulSet,
    revisions: Revisions<'_>,
    own: &[Arc<Pod>],
    now: Timestamp,
) -> Plan {
    let mut plan = Plan {
        steps: Vec::new(),
        living: Vec::new(),
        condemned: Vec::new(),
        status: StatefulSetStatus::default(),
        again_in: None,
    };
    let Some(spec) = &set.spec else { return plan };
    let view = View::new(set, spec, revisions, own, now);
    plan.status = view.status(set, own);
    plan.again_in = view.until_available(own);
    if set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    plan.condemned = view.condemned.clone();
    let alive = (first_ordinal(spec)..).zip(&view.replicas);
    plan.living = alive
        .filter(|(_, pod)| pod.is_some())
        .map(|(at, _)| at)
        .collect();
    let done = view.living(set, &mut plan.steps)
        && view.surplus(&mut plan.steps)
        && spec
            .update_strategy
            .as_ref()
            .and_then(|s| s.type_.as_deref())
            != Some("OnDelete");
    if done {
        view.update(&mut plan.steps);
    }
    plan
}

/// The first ordinal.
fn first_ordinal(spec: &StatefulSetSpec) -> i32 {
    spec.ordinals
        .as_ref()
        .and_then(|ordinals| ordinals.start)
        .unwrap_or(0)
}

impl<'a> View<'a> {
    fn new(
        set: &StatefulSet,
        spec: &'a StatefulSetSpec,
        revisions: Revisions<'a>,
        own: &[Arc<Pod>],
        now: Timestamp,
    ) -> View<'a> {
        let start = first_ordinal(spec);
        let count = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
        let mut view = View {
            spec,
            revisions,
            replicas: vec![None; count],
            condemned: Vec::new(),
            start,
            is_ordered: spec.pod_management_policy.as_deref() != Some("Parallel"),
            now,
        };
        for pod in own {
            let Some(ordinal) = ordinal_of(set, pod) else {
                continue;
            };
            let slot = usize::try_from(i64::from(ordinal) - i64::from(start)).ok();
            match slot.and_then(|slot| view.replicas.get_mut(slot)) {
                Some(place) => *place = Some(pod.clone()),
                None => view.condemned.push((ordinal, pod.clone())),
            }
        }
        view.condemned
            .sort_by_key(|(ordinal, _)| -i64::from(*ordinal));
        view
    }

    fn is_available(&self, pod: &Pod) -> bool {
        let least = self.spec.min_ready_seconds.unwrap_or(0);
        pods::phase(pod) == "Running" && pods::seconds_to_available(pod, least, self.now) == Some(0)
    }

    /// Whether the pod serves and stays.
    fn is_healthy(&self, pod: &Pod) -> bool {
        self.is_available(pod) && pod.metadata.deletion_timestamp.is_none()
    }

    fn until_available(&self, own: &[Arc<Pod>]) -> Option<Duration> {
        let least = self.spec.min_ready_seconds.unwrap_or(0);
        let waits = own
            .iter()
            .filter_map(|pod| pods::seconds_to_available(pod, least, self.now));
        let next = waits.filter(|seconds| *seconds > 0).min()?;
        Some(Duration::from_secs(next.unsigned_abs()))
    }

    /// Whether the pod of this ordinal still belongs to the current revision.
    fn wants_current(&self, set: &StatefulSet, ordinal: i32) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let is_rolling = strategy.and_then(|s| s.type_.as_deref()) != Some("OnDelete");
        let border = match rolling {
            Some(rolling) => rolling.partition.unwrap_or(0),
            None if is_rolling => {
                let status = set.status.as_ref();
                status
                    .and_then(|status| status.current_replicas)
                    .unwrap_or(0)
            }
            None => return false,
        };
        i64::from(ordinal) < i64::from(self.start) + i64::from(border)
    }

    /// Brings every wanted ordinal to life, in order when order is asked for. Returns whether
    /// the next phase may begin.
    fn living(&self, set: &StatefulSet, steps: &mut Vec<Step>) -> bool {
        let mut go_on = true;
        for (slot, pod) in self.replicas.iter().enumerate() {
            let ordinal = self.start + i32::try_from(slot).unwrap_or(i32::MAX);
            let Some(pod) = pod else {
                let is_update = !self.wants_current(set, ordinal);
                steps.push(Step::Create { ordinal, is_update });
                if self.is_ordered {
                    return false;
                }
                continue;
            };
            if pods::is_terminal(pod) {
                if pod.metadata.deletion_timestamp.is_none() {
                    steps.push(Step::Recreate(pod.clone()));
                }
                go_on = false;
                if self.is_ordered {
                    return false;
                }
                continue;
            }
            if pods::phase(pod) == "Pending" {
                steps.push(Step::Claims { ordinal });
            }
            if !super::identity::missing_labels(pod, ordinal).is_empty() {
                let pod = pod.clone();
                steps.push(Step::Identify { pod, ordinal });
            }
            if self.is_ordered && !self.is_healthy(pod) {
                return false;
            }
        }
        go_on
    }

    /// Removes what lies beyond the wanted ordinals, highest first.
    fn surplus(&self, steps: &mut Vec<Step>) -> bool {
        let living = self.replicas.iter().flatten();
        let lowest = self.condemned.iter().rev().map(|(_, pod)| pod);
        let first_unhealthy = living.chain(lowest).find(|pod| !self.is_healthy(pod));
        for (_, pod) in &self.condemned {
            if pod.metadata.deletion_timestamp.is_some() {
                if self.is_ordered {
                    return false;
                }
                continue;
            }
            let is_first = first_unhealthy.is_some_and(|first| Arc::ptr_eq(first, pod));
            if self.is_ordered && !self.is_available(pod) && !is_first {
                return false;
            }
            steps.push(Step::Delete(pod.clone()));
            if self.is_ordered {
                return false;
            }
        }
        true
    }

    /// Replaces outdated pods from the highest ordinal down to the partition.
    fn update(&self, steps: &mut Vec<Step>) {
        let strategy = self.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
        let partition = usize::try_from(partition).unwrap_or(0);
        let count = self.spec.replicas.unwrap_or(1);
        let lost = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let mut budget = lost.map_or(1, |value| resolve(value, count, true)).max(1);
        for pod in self.replicas.iter().skip(partition).rev() {
            let Some(pod) = pod else {
                budget -= 1;
                if budget == 0 {
                    return;
                }
                continue;
            };
            let leaving = pod.metadata.deletion_timestamp.is_some();
            if revision_of(pod) != self.revisions.update && !leaving {
                steps.push(Step::Delete(pod.clone()));
            } else if self.is_healthy(pod) {
                continue;
            }
            budget -= 1;
            if budget == 0 {
                return;
            }
        }
    }

    fn status(&self, set: &StatefulSet, own: &[Arc<Pod>]) -> StatefulSetStatus {
        let revisions = self.revisions;
        let (mut replicas, mut ready, mut available, mut current, mut updated) = (0, 0, 0, 0, 0);
        for pod in own {
            replicas += 1;
            ready += i32::from(pods::phase(pod) == "Running" && pods::is_ready(pod));
            available += i32::from(self.is_available(pod));
            if pod.metadata.deletion_timestamp.is_none() {
                current += i32::from(revision_of(pod) == revisions.current);
                updated += i32::from(revision_of(pod) == revisions.update);
            }
        }
        let wanted = self.spec.replicas.unwrap_or(1);
        let strategy = self.spec.update_strategy.as_ref();
        let is_rolling = strategy.and_then(|s| s.type_.as_deref()) != Some("OnDelete");
        let complete = is_rolling && updated == wanted && ready == wanted && replicas == wanted;
        let (current_revision, current) = if complete {
            (revisions.update, updated)
        } else {
            (revisions.current, current)
        };
        let before = set.status.as_ref();
        StatefulSetStatus {
            replicas,
            ready_replicas: plain(ready),
            available_replicas: Some(available),
            current_replicas: plain(current),
            updated_replicas: plain(updated),
            current_revision: Some(current_revision.into()),
            update_revision: Some(revisions.update.into()),
            collision_count: revisions.collisions.or(Some(0)),
            observed_generation: set.metadata.generation,
            conditions: before.and_then(|status| status.conditions.clone()),
        }
    }
}
