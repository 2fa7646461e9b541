//! Volumes of a ConfigMap's keys.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, ConfigMapVolumeSource, KeyToPath};

use crate::VolumeError;
use crate::payload::{MODE_DEFAULT, Payload, mode_or};
use crate::sources::Sources;

pub(crate) async fn payload(
    sources: &Sources,
    namespace: &str,
    source: &ConfigMapVolumeSource,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::default();
    let mode = mode_or(source.default_mode, MODE_DEFAULT);
    let optional = source.optional == Some(true);
    let named = (source.name.as_str(), source.items.as_ref());
    project(sources, namespace, named, (mode, optional), &mut payload).await?;
    Ok(payload)
}

/// Adds a ConfigMap's keys to a payload.
pub(crate) async fn project(
    sources: &Sources,
    namespace: &str,
    (name, items): (&str, Option<&Vec<KeyToPath>>),
    (mode, optional): (u32, bool),
    payload: &mut Payload,
) -> Result<(), VolumeError> {
    match sources.config_map(namespace, name).await? {
        Some(object) => {
            let missing = "configmap references non-existent config key";
            payload.add_keys(data_of(&object), items, mode, optional, missing)
        }
        None if optional => Ok(()),
        None => Err(VolumeError::Refused(format!(
            "configmap {name:?} not found"
        ))),
    }
}

fn data_of(object: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = object.data.iter().flatten();
    let text = text.map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = object.binary_data.iter().flatten();
    text.chain(binary.map(|(key, value)| (key.clone(), value.0.clone())))
        .collect()
}
