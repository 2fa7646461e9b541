//! How workload controllers make, take over and remove their pods.

use std::sync::Arc;

use client::{Client, DeleteOptions, Informer, Kind, Patch, WriteOptions};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::{LabelSelector, Reason, Status};
use reconcile::Recorder;
use reconcile::owners::{controller_of, controller_reference};
use serde_json::json;

use crate::context::Context;
use crate::pods;

/// Most pods one round of one controller creates or deletes.
pub(crate) const BURST_MAX: usize = 500;
/// Pods created or deleted at one time.
const PARALLEL_MAX: usize = 32;
/// Index of the pod cache: the controller's uid, or the namespace of those that have none.
const BY_CONTROLLER: &str = "controller";

/// The pods of a workload, and what to do about those that do not fit.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// Controlled by the workload, or about to be.
    pub own: Vec<Arc<Pod>>,
    pub adopt: Vec<Arc<Pod>>,
    /// Controlled, but the selector no longer matches.
    pub release: Vec<Arc<Pod>>,
}

/// Sorts pods by whom they belong to. A workload that is being deleted takes and gives nothing. Pure.
pub(crate) fn claim(
    owner: &ObjectMeta,
    selector: &LabelSelector,
    candidates: &[Arc<Pod>],
) -> Claims {
    let uid = owner.uid.as_deref().unwrap_or_default();
    let terminating = owner.deletion_timestamp.is_some();
    let mut claims = Claims::default();
    for pod in candidates {
        let matching = pods::matches(selector, &pod.metadata);
        match controller_of(&pod.metadata) {
            Some(owner) if owner.uid == uid && matching => claims.own.push(pod.clone()),
            Some(owner) if owner.uid == uid && !terminating => claims.release.push(pod.clone()),
            None if matching && !terminating && pods::is_active(pod) => {
                claims.adopt.push(pod.clone());
                claims.own.push(pod.clone());
            }
            _ => {}
        }
    }
    claims
}

/// A count as upstream writes most of them: nothing when zero. The API server drops such zeros,
/// so a status that had them would never equal the one it keeps.
pub(crate) fn plain(number: i32) -> Option<i32> {
    Some(number).filter(|number| *number != 0)
}

/// Whether a write failed because its namespace is being deleted: nothing more will come of it.
pub(crate) fn is_namespace_terminating(status: &Status) -> bool {
    let cause = |cause: &meta::status::Cause| cause.reason == "NamespaceTerminating";
    status.reason == Reason::Forbidden && status.causes.iter().any(cause)
}

/// Forgives what no retry can mend: the namespace is going away.
pub(crate) fn settle(outcome: Result<(), Status>) -> Result<(), Status> {
    outcome.or_else(|status| {
        if is_namespace_terminating(&status) {
            Ok(())
        } else {
            Err(status)
        }
    })
}

/// Replaces an object's status and shows the answer to the cache.
pub(crate) async fn write_status<K: Kind>(
    client: &Client,
    cache: &Informer<K>,
    object: &K,
) -> Result<(), Status> {
    match client.beside(object).replace_status(object).await {
        Ok(written) => cache.absorb(written),
        Err(status) if status.is_not_found() => {}
        Err(status) => return Err(status),
    }
    Ok(())
}

/// One controller's hands on pods.
#[derive(Clone)]
pub(crate) struct PodControl {
    client: Client,
    pub(crate) pods: Informer<Pod>,
    pub(crate) recorder: Recorder,
}

impl PodControl {
    /// The hands of the controller with this service account.
    pub(crate) fn new(context: &Context, account: &str, recorder: Recorder) -> PodControl {
        let pods: Informer<Pod> = context.hub.informer();
        pods.add_index(BY_CONTROLLER, controller_keys);
        PodControl {
            client: context.client(account),
            pods,
            recorder,
        }
    }

    /// The pods an object controls, and those of its namespace that nobody controls.
    pub(crate) fn candidates(&self, owner: &ObjectMeta) -> Vec<Arc<Pod>> {
        let mut found = self.controlled(owner.uid.as_deref().unwrap_or_default());
        let namespace = owner.namespace.as_deref().unwrap_or_default();
        found.extend(self.pods.by_index(BY_CONTROLLER, &orphans_key(namespace)));
        found
    }

    /// The pods that the object with `uid` controls.
    pub(crate) fn controlled(&self, uid: &str) -> Vec<Arc<Pod>> {
        self.pods.by_index(BY_CONTROLLER, uid)
    }

    /// Adopts and releases pods.
    pub(crate) async fn settle_claims<K: Kind>(
        &self,
        owner: &K,
        claims: &Claims,
    ) -> Result<(), Status> {
        for pod in &claims.adopt {
            let body = json!({"metadata": {"uid": pod.metadata.uid,
                "ownerReferences": [controller_reference(owner)]}});
            self.patch(pod, body).await?;
        }
        for pod in &claims.release {
            let body = json!({"metadata": {"uid": pod.metadata.uid,
                "ownerReferences": [{"$patch": "delete", "uid": owner.metadata().uid}]}});
            self.patch(pod, body).await?;
        }
        Ok(())
    }

    /// Changes a pod by strategic merge; one that is gone is left alone.
    pub(crate) async fn patch(&self, pod: &Pod, body: serde_json::Value) -> Result<(), Status> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let patch = Patch::Strategic(body);
        let api = self.client.beside(pod);
        match api.patch(name, &patch, &WriteOptions::default()).await {
            Ok(patched) => self.pods.absorb(patched),
            Err(status) if status.is_not_found() => {}
            Err(status) => return Err(status),
        }
        Ok(())
    }

    /// Creates pods in batches that double, so that a fault that hits them all is met once and
    /// not hundreds of times.
    pub(crate) async fn create_all<K: Kind>(&self, owner: &K, pods: &[Pod]) -> Result<(), Status> {
        let (mut rest, mut size) = (pods, 1);
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(size.min(rest.len()));
            let made = join_all(batch.iter().map(|pod| self.create(owner, pod))).await;
            made.into_iter().collect::<Result<Vec<()>, Status>>()?;
            (rest, size) = (later, (size * 2).min(PARALLEL_MAX));
        }
        Ok(())
    }

    async fn create<K: Kind>(&self, owner: &K, pod: &Pod) -> Result<(), Status> {
        match self.create_silently(pod).await {
            Ok(name) => {
                let message = format!("Created pod: {name}");
                self.recorder.normal(owner, "SuccessfulCreate", message);
                Ok(())
            }
            Err(status) => {
                if !is_namespace_terminating(&status) {
                    let message = format!("Error creating: {status}");
                    self.recorder.warning(owner, "FailedCreate", message);
                }
                Err(status)
            }
        }
    }

    /// Creates a pod without an event; returns its name.
    pub(crate) async fn create_silently(&self, pod: &Pod) -> Result<String, Status> {
        let created = self.client.beside(pod).create(pod).await?;
        let name = created.metadata.name.clone().unwrap_or_default();
        self.pods.absorb(created);
        Ok(name)
    }

    /// Deletes pods, some at a time; the first fault is returned when all have been tried.
    pub(crate) async fn delete_all<K: Kind>(
        &self,
        owner: &K,
        pods: &[Arc<Pod>],
    ) -> Result<(), Status> {
        let mut outcome = Ok(());
        for batch in pods.chunks(PARALLEL_MAX) {
            let gone = join_all(batch.iter().map(|pod| self.delete(owner, pod))).await;
            let gone: Result<Vec<()>, Status> = gone.into_iter().collect();
            outcome = outcome.and(gone.map(drop));
        }
        outcome
    }

    async fn delete<K: Kind>(&self, owner: &K, pod: &Pod) -> Result<(), Status> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        match self.delete_silently(pod).await {
            Ok(true) => {
                let message = format!("Deleted pod: {name}");
                self.recorder.normal(owner, "SuccessfulDelete", message);
            }
            Ok(false) => {}
            Err(status) => {
                let message = format!("Error deleting: {status}");
                self.recorder.warning(owner, "FailedDelete", message);
                return Err(status);
            }
        }
        Ok(())
    }

    /// Deletes this incarnation of a pod without an event; returns whether there was one.
    pub(crate) async fn delete_silently(&self, pod: &Pod) -> Result<bool, Status> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let options = DeleteOptions::uid(pod.metadata.uid.as_deref().unwrap_or_default());
        match self
            .client
            .beside(pod)
            .delete_gracefully(name, &options)
            .await
        {
            Ok(left) => {
                if let Some(left) = left {
                    self.pods.absorb(left);
                }
                Ok(true)
            }
            Err(status) if status.is_not_found() || status.is_conflict() => Ok(false),
            Err(status) => Err(status),
        }
    }
}

fn controller_keys(pod: &Pod) -> Vec<String> {
    let key = match controller_of(&pod.metadata) {
        Some(owner) => owner.uid.clone(),
        None => orphans_key(pod.metadata.namespace.as_deref().unwrap_or_default()),
    };
    vec![key]
}

fn orphans_key(namespace: &str) -> String {
    // No uid contains a slash.
    format!("orphans/{namespace}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminating_namespace_is_final_and_other_refusals_are_not() {
        let mut status = Status::new(Reason::Forbidden, "namespace is being terminated");
        assert!(settle(Err(status.clone())).is_err(), "perhaps a quota");
        status.causes.push(meta::status::Cause {
            reason: "NamespaceTerminating".into(),
            message: String::new(),
            field: String::new(),
        });
        assert!(settle(Err(status)).is_ok());
    }
}
