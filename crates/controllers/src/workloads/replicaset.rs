//! ReplicaSet: keeps a number of pods of one template.

use std::sync::Arc;
use std::time::Duration;

use client::{Client, DeleteOptions, Informer, Key, WriteOptions};
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use meta::Status;
use reconcile::owners::{controller_of, controller_reference, controllers, is_controlled_by};
use reconcile::{Outcome, Queue, Reconcile, Recorder, feed};
use serde_json::json;

use crate::context::Context;
use crate::{patch, pods};

const NAME: &str = "replicaset-controller";
/// Most pods created or deleted in one round.
const BURST_MAX: usize = 500;
const WORKERS: usize = 5;

/// What one round does.
#[derive(Debug, Default)]
pub struct Plan {
    /// How many pods to create.
    pub create: usize,
    pub delete: Vec<Arc<Pod>>,
    pub adopt: Vec<Arc<Pod>>,
    pub release: Vec<Arc<Pod>>,
    /// The status as it should be, without the outcome of this round.
    pub status: ReplicaSetStatus,
    /// When a ready pod becomes available.
    pub again_in: Option<Duration>,
}

/// Compares a set with the pods of its namespace that match it or are controlled by it. Pure.
pub fn plan(set: &ReplicaSet, candidates: &[Arc<Pod>], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &set.spec else { return plan };
    let Some(selector) = pods::selector(&spec.selector) else {
        return plan;
    };
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let terminating = set.metadata.deletion_timestamp.is_some();
    let mut own = Vec::new();
    for pod in candidates {
        let matching = pods::matches(&selector, &pod.metadata);
        match controller_of(&pod.metadata) {
            Some(owner) if owner.uid == uid && matching => own.push(pod.clone()),
            Some(owner) if owner.uid == uid && !terminating => plan.release.push(pod.clone()),
            None if matching && !terminating && pods::is_active(pod) => {
                plan.adopt.push(pod.clone());
                own.push(pod.clone());
            }
            _ => {}
        }
    }
    let mut active: Vec<_> = own
        .iter()
        .filter(|pod| pods::is_active(pod))
        .cloned()
        .collect();
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    if !terminating {
        plan.create = wanted.saturating_sub(active.len()).min(BURST_MAX);
        let surplus = active.len().saturating_sub(wanted).min(BURST_MAX);
        active.sort_by_cached_key(|pod| pods::deletion_order(pod));
        plan.delete = active[..surplus].to_vec();
    }
    count(set, &own, now, &mut plan);
    plan
}

fn count(set: &ReplicaSet, own: &[Arc<Pod>], now: Timestamp, plan: &mut Plan) {
    let Some(spec) = &set.spec else { return };
    let template = spec
        .template
        .as_ref()
        .and_then(|template| template.metadata.as_ref());
    let wanted = template
        .and_then(|metadata| metadata.labels.clone())
        .unwrap_or_default();
    let (mut replicas, mut labelled, mut ready, mut available, mut leaving) = (0, 0, 0, 0, 0);
    for pod in own {
        if !pods::is_active(pod) {
            leaving += i32::from(!pods::is_terminal(pod));
            continue;
        }
        replicas += 1;
        let labels = pod.metadata.labels.as_ref();
        let has = |(key, value): (&String, &String)| labels.and_then(|l| l.get(key)) == Some(value);
        labelled += i32::from(wanted.iter().all(has));
        match pods::seconds_to_available(pod, spec.min_ready_seconds.unwrap_or(0), now) {
            None => {}
            Some(0) => {
                ready += 1;
                available += 1;
            }
            Some(seconds) => {
                ready += 1;
                let wait = Duration::from_secs(seconds.unsigned_abs());
                plan.again_in = Some(plan.again_in.map_or(wait, |known| known.min(wait)));
            }
        }
    }
    let conditions = set
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone());
    plan.status = ReplicaSetStatus {
        replicas,
        fully_labeled_replicas: Some(labelled),
        ready_replicas: Some(ready),
        available_replicas: Some(available),
        terminating_replicas: Some(leaving),
        observed_generation: set.metadata.generation,
        conditions,
    };
}

struct Controller {
    client: Client,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    recorder: Recorder,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let controller = Controller {
        client: context.client(NAME),
        sets: context.hub.informer(),
        pods: context.hub.informer(),
        recorder: context.recorder(NAME),
    };
    feed(NAME, &controller.sets, &queue, &context.crew, |change| {
        vec![change.key.clone()]
    });
    watch_pods(context, &controller, &queue);
    let synced = {
        let (sets, pods) = (controller.sets.clone(), controller.pods.clone());
        async move {
            sets.synced().await;
            pods.synced().await;
        }
    };
    context.drive(Arc::new(controller), &queue, WORKERS, synced);
}

fn watch_pods(context: &Context, controller: &Controller, queue: &Queue<Key>) {
    let sets = controller.sets.clone();
    feed(
        NAME,
        &controller.pods,
        queue,
        &context.crew,
        move |change| {
            let keys = controllers(change, "ReplicaSet");
            let orphan = change
                .new
                .as_ref()
                .filter(|pod| controller_of(&pod.metadata).is_none());
            let Some(orphan) = orphan else { return keys };
            let matching = sets
                .list_in(&change.key.namespace)
                .into_iter()
                .filter(|set| {
                    let selector = set
                        .spec
                        .as_ref()
                        .and_then(|spec| pods::selector(&spec.selector));
                    selector.is_some_and(|selector| pods::matches(&selector, &orphan.metadata))
                });
            keys.into_iter()
                .chain(matching.map(|set| Key::of(set.as_ref())))
                .collect()
        },
    );
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(set) = self.sets.get_key(key) else {
                return Ok(Outcome::Done);
            };
            let plan = plan(&set, &self.pods.list_in(&key.namespace), Timestamp::now());
            let acted = self.act(&set, &plan).await;
            self.write_status(&set, &plan, acted.as_ref().err()).await?;
            acted?;
            Ok(plan.again_in.map_or(Outcome::Done, Outcome::After))
        })
    }
}

impl Controller {
    async fn act(&self, set: &ReplicaSet, plan: &Plan) -> Result<(), Status> {
        let api = self.client.beside::<Pod>(&Pod {
            metadata: set.metadata.clone(),
            ..Pod::default()
        });
        for pod in &plan.adopt {
            let body = json!({"metadata": {"uid": pod.metadata.uid,
                "ownerReferences": [controller_reference(set)]}});
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let patch = client::Patch::Strategic(body);
            self.pods
                .absorb(api.patch(name, &patch, &WriteOptions::default()).await?);
        }
        for pod in &plan.release {
            let body = json!({"metadata": {"uid": pod.metadata.uid,
                "ownerReferences": [{"$patch": "delete", "uid": set.metadata.uid}]}});
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let patch = client::Patch::Strategic(body);
            self.pods
                .absorb(api.patch(name, &patch, &WriteOptions::default()).await?);
        }
        let spec = set.spec.as_ref();
        if let Some(template) = spec.and_then(|spec| spec.template.as_ref()) {
            let pod = pods::from_template(template, set);
            for _ in 0..plan.create {
                match api.create(&pod).await {
                    Ok(created) => {
                        let name = created.metadata.name.clone().unwrap_or_default();
                        self.recorder.normal(
                            set,
                            "SuccessfulCreate",
                            format!("Created pod: {name}"),
                        );
                        self.pods.absorb(created);
                    }
                    Err(status) => {
                        self.recorder.warning(
                            set,
                            "FailedCreate",
                            format!("Error creating: {status}"),
                        );
                        return Err(status);
                    }
                }
            }
        }
        for pod in &plan.delete {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let options = DeleteOptions::uid(pod.metadata.uid.as_deref().unwrap_or_default());
            match api.delete_gracefully(name, &options).await {
                Ok(left) => {
                    if let Some(left) = left {
                        self.pods.absorb(left);
                    }
                    let message = format!("Deleted pod: {name}");
                    self.recorder.normal(set, "SuccessfulDelete", message);
                }
                Err(status) if status.is_not_found() || status.is_conflict() => {}
                Err(status) => return Err(status),
            }
        }
        Ok(())
    }

    async fn write_status(
        &self,
        set: &ReplicaSet,
        plan: &Plan,
        fault: Option<&Status>,
    ) -> Result<(), Status> {
        let mut status = plan.status.clone();
        status.conditions = failure_condition(status.conditions, plan, fault);
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let api = self.client.beside(set);
        let patch = patch::status(&status);
        match api
            .patch_status(name, &patch, &WriteOptions::default())
            .await
        {
            Ok(set) => self.sets.absorb(set),
            Err(status) if status.is_not_found() => {}
            Err(status) => return Err(status),
        }
        Ok(())
    }
}

fn failure_condition(
    known: Option<Vec<ReplicaSetCondition>>,
    plan: &Plan,
    fault: Option<&Status>,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = known.unwrap_or_default();
    let standing = conditions
        .iter()
        .position(|one| one.type_ == "ReplicaFailure");
    match (fault, standing) {
        (None, Some(at)) => {
            conditions.remove(at);
        }
        (Some(fault), None) => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(
                if plan.create > 0 {
                    "FailedCreate"
                } else {
                    "FailedDelete"
                }
                .into(),
            ),
            message: Some(fault.message.clone()),
            last_transition_time: Some(Time(Timestamp::now())),
        }),
        _ => {}
    }
    Some(conditions).filter(|conditions| !conditions.is_empty())
}

/// Whether `pod` counts for `set`.
pub(crate) fn owns(set: &ReplicaSet, pod: &Pod) -> bool {
    is_controlled_by(
        &pod.metadata,
        set.metadata.uid.as_deref().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u1", "generation": 2},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}}
        }))
        .unwrap()
    }

    fn pod(name: &str, owner: Option<&str>, app: &str, phase: &str) -> Arc<Pod> {
        let owners: Vec<_> = owner
            .map(|uid| {
                json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web",
                "uid": uid, "controller": true})
            })
            .into_iter()
            .collect();
        let tree = json!({"metadata": {"name": name, "labels": {"app": app},
            "ownerReferences": owners}, "status": {"phase": phase}});
        Arc::new(serde_json::from_value(tree).unwrap())
    }

    #[test]
    fn missing_pods_are_made_and_surplus_ones_removed() {
        let pods = [
            pod("a", Some("u1"), "web", "Running"),
            pod("b", Some("u1"), "web", "Failed"),
            pod("c", Some("other"), "web", "Running"),
        ];
        assert_eq!(plan(&set(3), &pods, Timestamp::now()).create, 2);
        let less = plan(&set(0), &pods, Timestamp::now());
        assert_eq!(less.delete.len(), 1);
        assert_eq!(less.delete[0].metadata.name.as_deref(), Some("a"));
        assert_eq!(less.status.replicas, 1);
    }

    #[test]
    fn orphans_are_adopted_and_strays_released() {
        let pods = [
            pod("a", None, "web", "Running"),
            pod("b", Some("u1"), "db", "Running"),
        ];
        let plan = plan(&set(2), &pods, Timestamp::now());
        assert_eq!(
            (plan.adopt.len(), plan.release.len(), plan.create),
            (1, 1, 1)
        );
    }

    #[test]
    fn a_terminating_set_leaves_its_pods_alone() {
        let mut set = set(5);
        set.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
        let pods = [
            pod("a", Some("u1"), "web", "Running"),
            pod("b", None, "web", "Running"),
        ];
        let plan = plan(&set, &pods, Timestamp::now());
        assert_eq!(
            (plan.create, plan.delete.len(), plan.adopt.len()),
            (0, 0, 0)
        );
    }
}
