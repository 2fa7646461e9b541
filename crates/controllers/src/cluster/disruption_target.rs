//! Condition `DisruptionTarget`: why a pod is about to be deleted by the cluster.

use client::{Client, Patch, WriteOptions};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use meta::Status;
use serde_json::json;

/// What to say of a pod.
pub(super) struct Target {
    /// Empty: only fail the pod.
    pub reason: &'static str,
    pub message: &'static str,
    /// Nobody else will say that the pod has ended.
    pub fail: bool,
}

/// Marks a pod; one that is gone or was replaced is left alone.
pub(super) async fn mark(client: &Client, pod: &Pod, target: &Target) -> Result<(), Status> {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    let known = conditions.unwrap_or_default().iter();
    let marked = target.reason.is_empty()
        || known
            .filter(|one| one.type_ == "DisruptionTarget")
            .any(|one| one.status == "True" && one.reason.as_deref() == Some(target.reason));
    let fail = target.fail && !crate::pods::is_terminal(pod);
    if marked && !fail {
        return Ok(());
    }
    let mut body = json!({"metadata": {"uid": pod.metadata.uid}, "status": {}});
    if !marked {
        body["status"]["conditions"] = json!([{
            "type": "DisruptionTarget", "status": "True", "reason": target.reason,
            "message": target.message, "lastTransitionTime": Time(Timestamp::now()),
            "observedGeneration": pod.metadata.generation,
        }]);
    }
    if fail {
        body["status"]["phase"] = "Failed".into();
    }
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let api = client.beside(pod);
    let patch = Patch::Strategic(body);
    match api
        .patch_status(name, &patch, &WriteOptions::default())
        .await
    {
        Err(status) if !status.is_not_found() && !status.is_conflict() => Err(status),
        _ => Ok(()),
    }
}
