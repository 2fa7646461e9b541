//! A job's pod: how it is made, and what it tells. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::jiff::Timestamp;

use crate::pods;

/// Keeps a pod from vanishing before it is counted.
pub(crate) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// Longest host name.
const HOSTNAME_MAX: usize = 63;
/// Characters the API server adds to a generated name.
const SUFFIX: usize = 5;

/// Whether each completion has an index.
pub(crate) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// A pod's completion index.
pub(crate) fn index_of(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()
}

/// How often its index had failed before this pod.
pub(crate) fn failures_before(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(INDEX_FAILURES))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// Whether the pod waits to be counted.
pub(crate) fn is_tracked(pod: &Pod) -> bool {
    let finalizers = pod.metadata.finalizers.as_deref().unwrap_or_default();
    finalizers.iter().any(|one| one == FINALIZER)
}

/// Whether new pods take the place of failed ones only, not of those still ending.
pub(crate) fn replaces_only_failed(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed")
}

/// Whether the pod counts as failed. One that is leaving does, unless told to wait for its end;
/// one that never reached a node has no end to wait for.
pub(crate) fn has_failed(spec: &JobSpec, pod: &Pod) -> bool {
    let unbound = pod
        .spec
        .as_ref()
        .is_none_or(|spec| spec.node_name.is_none());
    match pods::phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => pod.metadata.deletion_timestamp.is_some() && (unbound || !replaces_only_failed(spec)),
    }
}

/// When the pod ended, as far as it tells.
pub(crate) fn ended_at(pod: &Pod, now: Timestamp) -> Timestamp {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|s| s.container_statuses.as_deref());
    let ends = statuses.unwrap_or_default().iter().filter_map(|status| {
        let ended = status.state.as_ref()?.terminated.as_ref()?;
        Some(ended.finished_at.as_ref()?.0)
    });
    let left = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    ends.max().or(left).unwrap_or(now).min(now)
}

/// Restarts of the containers in a pod.
pub(crate) fn restarts(pod: &Pod) -> i32 {
    let Some(status) = &pod.status else { return 0 };
    let all = [&status.init_container_statuses, &status.container_statuses];
    let containers = all.into_iter().flatten().flatten();
    containers.map(|container| container.restart_count).sum()
}

/// A pod for the job, or for one of its indexes after so many failures of it.
pub(crate) fn build(job: &Job, spec: &JobSpec, index: Option<(i32, i32)>) -> Pod {
    let mut pod = pods::from_template(&spec.template, job);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|one| one == FINALIZER) {
        finalizers.push(FINALIZER.into());
    }
    let Some((index, failures)) = index else {
        return pod;
    };
    let name = job.metadata.name.as_deref().unwrap_or_default();
    pod.metadata.generate_name = Some(generate_name(name, index));
    let text = index.to_string();
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.into(), text.clone());
    if spec.backoff_limit_per_index.is_some() {
        annotations.insert(INDEX_FAILURES.into(), failures.to_string());
    }
    let labels: &mut BTreeMap<_, _> = pod.metadata.labels.get_or_insert_default();
    labels.insert(INDEX.into(), text);
    if let Some(spec) = pod.spec.as_mut() {
        spec.hostname = Some(format!("{name}-{index}")).filter(|host| host.len() <= HOSTNAME_MAX);
        let init = spec.init_containers.iter_mut().flatten();
        spec.containers.iter_mut().chain(init).for_each(tell_index);
    }
    pod
}

fn generate_name(job: &str, index: i32) -> String {
    let tail = format!("-{index}-");
    let room = HOSTNAME_MAX.saturating_sub(SUFFIX + tail.len());
    let head: String = job.chars().take(room).collect();
    head + &tail
}

fn tell_index(container: &mut Container) {
    let env = container.env.get_or_insert_default();
    if env.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let source = EnvVarSource {
        field_ref: Some(ObjectFieldSelector {
            api_version: None,
            field_path: format!("metadata.labels['{INDEX}']"),
        }),
        ..EnvVarSource::default()
    };
    env.push(EnvVar {
        name: INDEX_VARIABLE.into(),
        value: None,
        value_from: Some(source),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_indexed_pod_knows_its_index() {
        let job: Job = serde_json::from_value(json!({"metadata": {"name": "sum", "uid": "u"},
            "spec": {"completionMode": "Indexed", "completions": 3,
                "template": {"spec": {"containers": [{"name": "c"}]}}}}))
        .unwrap();
        let pod = build(&job, job.spec.as_ref().unwrap(), Some((2, 0)));
        let tree = serde_json::to_value(&pod).unwrap();
        assert_eq!(tree["metadata"]["generateName"], "sum-2-");
        assert_eq!(tree["spec"]["hostname"], "sum-2");
        assert_eq!(
            tree["spec"]["containers"][0]["env"][0]["name"],
            INDEX_VARIABLE
        );
        assert_eq!((index_of(&pod), is_tracked(&pod)), (Some(2), true));
    }
}
