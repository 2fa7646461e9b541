//! Who a StatefulSet's pod is: its name, labels, host name and volume claims. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use reconcile::owners::controller_reference;

use crate::pods;

/// Carries the name of the pod's revision.
pub(crate) const REVISION_LABEL: &str = "controller-revision-hash";
const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

fn set_name(set: &StatefulSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

/// The ordinal of a pod that bears this set's name.
pub(crate) fn ordinal_of(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let name = pod.metadata.name.as_deref()?;
    let digits = name.strip_prefix(set_name(set))?.strip_prefix('-')?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

/// A pod's revision.
pub(crate) fn revision_of(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(REVISION_LABEL))
        .map_or("", String::as_str)
}

/// The pod of an ordinal, from a revision's template.
pub(crate) fn build(
    set: &StatefulSet,
    template: &PodTemplateSpec,
    revision: &str,
    ordinal: i32,
) -> Pod {
    let mut pod = pods::from_template(template, set);
    let name = format!("{}-{ordinal}", set_name(set));
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.extend(identity_labels(&name, ordinal));
    labels.insert(REVISION_LABEL.into(), revision.into());
    let claims = claims(set, ordinal);
    let service = set.spec.as_ref().and_then(|spec| spec.service_name.clone());
    if let Some(spec) = pod.spec.as_mut() {
        spec.hostname = Some(name);
        spec.subdomain = service.filter(|service| !service.is_empty());
        if !claims.is_empty() {
            spec.volumes = Some(volumes(spec.volumes.take(), &claims));
        }
    }
    pod
}

fn identity_labels(name: &str, ordinal: i32) -> [(String, String); 2] {
    [
        (POD_NAME_LABEL.into(), name.into()),
        (POD_INDEX_LABEL.into(), ordinal.to_string()),
    ]
}

/// The identity labels a pod lacks.
pub(crate) fn missing_labels(pod: &Pod, ordinal: i32) -> BTreeMap<String, String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let known = pod.metadata.labels.as_ref();
    identity_labels(name, ordinal)
        .into_iter()
        .filter(|(key, value)| known.and_then(|labels| labels.get(key)) != Some(value))
        .collect()
}

/// Claims take the place of template volumes of the same name.
fn volumes(from: Option<Vec<Volume>>, claims: &[(String, PersistentVolumeClaim)]) -> Vec<Volume> {
    let volume = |(template, claim): &(String, PersistentVolumeClaim)| Volume {
        name: template.clone(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.metadata.name.clone().unwrap_or_default(),
            read_only: Some(false),
        }),
        ..Volume::default()
    };
    let taken = |one: &Volume| claims.iter().any(|(template, _)| *template == one.name);
    let others = from.into_iter().flatten().filter(|one| !taken(one));
    claims.iter().map(volume).chain(others).collect()
}

/// The claims of an ordinal, each with its template's name.
pub(crate) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<(String, PersistentVolumeClaim)> {
    let Some(spec) = &set.spec else {
        return Vec::new();
    };
    let templates = spec.volume_claim_templates.as_deref().unwrap_or_default();
    let claim = |from: &PersistentVolumeClaim| {
        let template = from.metadata.name.clone().unwrap_or_default();
        let mut labels = from.metadata.labels.clone().unwrap_or_default();
        labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
        let claim = PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(format!("{template}-{}-{ordinal}", set_name(set))),
                namespace: set.metadata.namespace.clone(),
                labels: Some(labels),
                annotations: from.metadata.annotations.clone(),
                ..ObjectMeta::default()
            },
            spec: from.spec.clone(),
            status: None,
        };
        (template, claim)
    };
    templates.iter().map(claim).collect()
}

/// The owners a claim should have under the set's retention policy. `pod` is the claim's pod when
/// that is about to be scaled away; references of others are left alone.
pub(crate) fn claim_owners(
    set: &StatefulSet,
    claim: &PersistentVolumeClaim,
    condemned: Option<&Pod>,
) -> Vec<OwnerReference> {
    let spec = set.spec.as_ref();
    let policy = spec.and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    let deletes = |when: Option<&String>| when.is_some_and(|when| when == "Delete");
    let when_scaled = deletes(policy.and_then(|policy| policy.when_scaled.as_ref()));
    let when_deleted = deletes(policy.and_then(|policy| policy.when_deleted.as_ref()));
    let known = claim.metadata.owner_references.clone().unwrap_or_default();
    let ours = |owner: &OwnerReference| {
        let of_set = owner.kind == "StatefulSet" && owner.name == set_name(set);
        let pod = owner.name.strip_prefix(set_name(set));
        let of_pod = owner.kind == "Pod" && pod.is_some_and(|rest| rest.starts_with('-'));
        of_set || of_pod
    };
    let mut owners: Vec<_> = known.into_iter().filter(|owner| !ours(owner)).collect();
    match condemned.filter(|_| when_scaled) {
        Some(pod) => owners.push(controller_reference(pod)),
        None if when_deleted => owners.push(controller_reference(set)),
        None => {}
    }
    owners
}
