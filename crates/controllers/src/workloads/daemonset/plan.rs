//! What a DaemonSet does next: a pod on every eligible node, then the roll-out. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod, PodTemplateSpec};
use k8s_openapi::jiff::Timestamp;

use super::eligible::{Verdict, judge, node_of};
use crate::pods;
use crate::workloads::control::{BURST_MAX, plain};
use crate::workloads::rollout::resolve;

#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Names of nodes that get a pod.
    pub(crate) create: Vec<String>,
    pub(crate) delete: Vec<Arc<Pod>>,
    /// Pods that ended: node and pod. Failed ones are deleted after a while, which the driver knows.
    pub(crate) ended: Vec<(String, Arc<Pod>)>,
    pub(crate) status: DaemonSetStatus,
    pub(crate) again_in: Option<Duration>,
}

struct View<'a> {
    spec: &'a DaemonSetSpec,
    hash: &'a str,
    /// By node, oldest first.
    by_node: BTreeMap<String, Vec<Arc<Pod>>>,
    verdicts: BTreeMap<String, Verdict>,
    max_surge: i32,
    max_unavailable: i32,
    now: Timestamp,
}

/// Plans one round. `template` has the daemon's tolerations; `hash` is its revision's.
pub(crate) fn plan(
    set: &DaemonSet,
    template: &PodTemplateSpec,
    hash: &str,
    nodes: &[Arc<Node>],
    own: &[Arc<Pod>],
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &set.spec else { return plan };
    let view = View::new(spec, template, hash, nodes, own, now);
    plan.status = view.status(set);
    plan.again_in = view.until_available(own);
    if set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    view.place(&mut plan);
    view.prune_lost(own, &mut plan);
    let strategy = spec.update_strategy.as_ref();
    let on_delete = strategy.and_then(|one| one.type_.as_deref()) == Some("OnDelete");
    // One thing at a time: what is placed now changes what may be replaced.
    if !on_delete && plan.create.is_empty() && plan.delete.is_empty() {
        if view.max_surge == 0 {
            view.replace(&mut plan);
        } else {
            view.surge(&mut plan);
        }
    }
    plan.create.truncate(BURST_MAX);
    plan.delete.truncate(BURST_MAX);
    plan
}

/// The up to date and the outdated pod of a node.
type Pair<'view> = (Option<&'view Arc<Pod>>, Option<&'view Arc<Pod>>);

fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

impl<'a> View<'a> {
    fn new(
        spec: &'a DaemonSetSpec,
        template: &PodTemplateSpec,
        hash: &'a str,
        nodes: &[Arc<Node>],
        own: &[Arc<Pod>],
        now: Timestamp,
    ) -> View<'a> {
        let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in own {
            // One that ended and is leaving holds no place.
            if pods::is_terminal(pod) && is_leaving(pod) {
                continue;
            }
            if let Some(node) = node_of(pod) {
                by_node
                    .entry(node.to_owned())
                    .or_default()
                    .push(pod.clone());
            }
        }
        for pods in by_node.values_mut() {
            pods.sort_by_key(|pod| {
                let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
                (created, pod.metadata.name.clone())
            });
        }
        let template = template.spec.clone().unwrap_or_default();
        let name = |node: &Node| node.metadata.name.clone().unwrap_or_default();
        let verdicts: BTreeMap<_, _> = nodes
            .iter()
            .map(|node| (name(node), judge(&template, node)))
            .collect();
        let wanted = verdicts.values().filter(|one| one.should_run).count();
        let wanted = i32::try_from(wanted).unwrap_or(i32::MAX);
        let rolling = spec
            .update_strategy
            .as_ref()
            .and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
        let lost = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let max_surge = surge.map_or(0, |value| resolve(value, wanted, true));
        let mut max_unavailable = lost.map_or(1, |value| resolve(value, wanted, true));
        if max_surge == 0 && max_unavailable == 0 {
            max_unavailable = 1;
        }
        View {
            spec,
            hash,
            by_node,
            verdicts,
            max_surge,
            max_unavailable,
            now,
        }
    }

    fn is_available(&self, pod: &Pod) -> bool {
        let least = self.spec.min_ready_seconds.unwrap_or(0);
        pods::seconds_to_available(pod, least, self.now) == Some(0)
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        let labels = pod.metadata.labels.as_ref();
        labels
            .and_then(|labels| labels.get("controller-revision-hash"))
            .map(String::as_str)
            == Some(self.hash)
    }

    fn until_available(&self, own: &[Arc<Pod>]) -> Option<Duration> {
        let least = self.spec.min_ready_seconds.unwrap_or(0);
        let waits = own
            .iter()
            .filter_map(|pod| pods::seconds_to_available(pod, least, self.now));
        let next = waits.filter(|seconds| *seconds > 0).min()?;
        Some(Duration::from_secs(next.unsigned_abs()))
    }

    /// A pod where there should be one, none where there should not.
    fn place(&self, plan: &mut Plan) {
        for (node, verdict) in &self.verdicts {
            let Some(pods) = self.by_node.get(node) else {
                if verdict.should_run {
                    plan.create.push(node.clone());
                }
                continue;
            };
            let staying = pods.iter().filter(|pod| !is_leaving(pod));
            if !verdict.may_stay {
                plan.delete.extend(staying.cloned());
                continue;
            }
            let mut running = Vec::new();
            for pod in staying {
                if pods::is_terminal(pod) {
                    plan.ended.push((node.clone(), pod.clone()));
                } else {
                    running.push(pod.clone());
                }
            }
            if running.len() > 1 {
                self.thin_out(running, plan);
            }
        }
    }

    /// More than one pod on a node: the oldest stays; while surging, the oldest of each kind,
    /// until the new one is available.
    fn thin_out(&self, running: Vec<Arc<Pod>>, plan: &mut Plan) {
        if self.max_surge == 0 {
            plan.delete.extend(running.into_iter().skip(1));
            return;
        }
        let (new, old): (Vec<_>, Vec<_>) =
            running.into_iter().partition(|pod| self.is_updated(pod));
        let ready_new = new.first().is_some_and(|pod| self.is_available(pod));
        plan.delete.extend(new.into_iter().skip(1));
        plan.delete
            .extend(old.into_iter().skip(usize::from(!ready_new)));
    }

    /// Pods of nodes that are gone: those never bound would wait for ever.
    fn prune_lost(&self, own: &[Arc<Pod>], plan: &mut Plan) {
        for pod in own.iter().filter(|pod| !is_leaving(pod)) {
            let unbound = pod
                .spec
                .as_ref()
                .is_none_or(|spec| spec.node_name.is_none());
            let lost = node_of(pod).is_none_or(|node| !self.verdicts.contains_key(node));
            if unbound && lost {
                plan.delete.push(pod.clone());
            }
        }
    }

    /// The new and the old pod of each node; `None` when there are several of one kind.
    fn pairs(&self) -> Vec<(&str, Option<Pair<'_>>)> {
        self.by_node
            .iter()
            .map(|(node, pods)| {
                let staying: Vec<_> = pods.iter().filter(|pod| !is_leaving(pod)).collect();
                let (new, old): (Vec<_>, Vec<_>) =
                    staying.into_iter().partition(|pod| self.is_updated(pod));
                let clear = new.len() <= 1 && old.len() <= 1;
                let pair = clear.then(|| (new.first().copied(), old.first().copied()));
                (node.as_str(), pair)
            })
            .collect()
    }

    /// Deletes as many outdated pods as `maxUnavailable` allows; the next round makes new ones.
    fn replace(&self, plan: &mut Plan) {
        let mut unavailable = 0;
        let mut candidates = Vec::new();
        for (_, pair) in self.pairs() {
            match pair {
                None | Some((None, None) | (Some(_), Some(_))) => unavailable += 1,
                Some((Some(new), None)) => unavailable += i32::from(!self.is_available(new)),
                // It does not serve anyway.
                Some((None, Some(old))) if !self.is_available(old) => {
                    unavailable += 1;
                    plan.delete.push(old.clone());
                }
                Some((None, Some(old))) => candidates.push(old.clone()),
            }
        }
        let room = usize::try_from(self.max_unavailable - unavailable).unwrap_or(0);
        plan.delete.extend(candidates.into_iter().take(room));
    }

    /// Makes new pods beside outdated ones as far as `maxSurge` allows.
    fn surge(&self, plan: &mut Plan) {
        let mut surging = 0;
        let mut candidates = Vec::new();
        for (node, pair) in self.pairs() {
            let should_run = self.verdicts.get(node).is_some_and(|one| one.should_run);
            match pair {
                None => surging += 1,
                Some((_, None)) => {}
                Some((None, Some(_))) if !should_run => {}
                Some((None, Some(old))) if !self.is_available(old) => {
                    plan.create.push(node.to_owned());
                }
                Some((None, Some(_))) => candidates.push(node.to_owned()),
                Some((Some(new), Some(old))) => {
                    if self.is_available(new) || !self.is_available(old) {
                        plan.delete.push(old.clone());
                    } else {
                        surging += 1;
                    }
                }
            }
        }
        let room = usize::try_from(self.max_surge - surging).unwrap_or(0);
        plan.create.extend(candidates.into_iter().take(room));
    }

    fn status(&self, set: &DaemonSet) -> DaemonSetStatus {
        let (mut wanted, mut placed, mut astray, mut ready) = (0, 0, 0, 0);
        let (mut available, mut updated) = (0, 0);
        for (node, verdict) in &self.verdicts {
            let pods = self.by_node.get(node).map_or(&[][..], Vec::as_slice);
            if !verdict.should_run {
                astray += i32::from(!pods.is_empty());
                continue;
            }
            wanted += 1;
            let Some(oldest) = pods.first() else { continue };
            placed += 1;
            if pods::is_ready(oldest) {
                ready += 1;
                available += i32::from(self.is_available(oldest));
            }
            updated += i32::from(self.is_updated(oldest));
        }
        let before = set.status.as_ref();
        DaemonSetStatus {
            desired_number_scheduled: wanted,
            current_number_scheduled: placed,
            number_misscheduled: astray,
            number_ready: ready,
            number_available: plain(available),
            number_unavailable: plain(wanted - available),
            updated_number_scheduled: plain(updated),
            observed_generation: set.metadata.generation,
            collision_count: before.and_then(|status| status.collision_count),
            conditions: before.and_then(|status| status.conditions.clone()),
        }
    }
}
