//! The labels and annotations by which sandboxes and containers are known
//! again after a restart; upstream's keys, so that its tools find them too.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::pod::PodExt;

pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub(crate) const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
pub(crate) const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub(crate) const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub(crate) const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// How often all containers of the pod had been started anew together (`RestartAllContainers`).
pub(crate) const ROUND: &str = "sampan.io/container-round";
pub(crate) const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

type Map = BTreeMap<String, String>;

/// Labels of a sandbox: the pod's own and its identity.
pub(crate) fn of_sandbox(pod: &Pod) -> Map {
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.extend(identity(pod));
    labels
}

/// Labels of a container.
pub(crate) fn of_container(pod: &Pod, container: &Container) -> Map {
    let mut labels = identity(pod);
    labels.insert(CONTAINER_NAME.into(), container.name.clone());
    labels
}

/// Annotations of a container.
pub(crate) fn annotations(pod: &Pod, container: &Container, attempt: u32, round: u32) -> Map {
    let path = container
        .termination_message_path
        .clone()
        .unwrap_or_default();
    let policy = container
        .termination_message_policy
        .clone()
        .unwrap_or_default();
    let mut annotations = Map::from([
        (CONTAINER_HASH.into(), hash(container)),
        (RESTART_COUNT.into(), attempt.to_string()),
        (MESSAGE_PATH.into(), path),
        (MESSAGE_POLICY.into(), policy),
    ]);
    if round > 0 {
        annotations.insert(ROUND.into(), round.to_string());
    }
    if let Some(seconds) = pod.spec().termination_grace_period_seconds {
        annotations.insert(GRACE_PERIOD.into(), seconds.to_string());
    }
    annotations
}

/// What of a container may change only by a restart: its name and image (FNV-1a, in hex).
pub(crate) fn hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    let text = serde_json::json!({"image": image, "name": container.name}).to_string();
    format!("{:x}", fnv1a(text.as_bytes()))
}

/// 32-bit FNV-1a.
pub(crate) fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

fn identity(pod: &Pod) -> Map {
    Map::from([
        (POD_NAME.into(), pod.name().to_owned()),
        (POD_NAMESPACE.into(), pod.namespace().to_owned()),
        (POD_UID.into(), pod.uid().to_owned()),
    ])
}
