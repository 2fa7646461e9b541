//! Volumes of a Secret's keys; in memory, never on disk.

use k8s_openapi::api::core::v1::{KeyToPath, SecretVolumeSource};

use crate::VolumeError;
use crate::payload::{MODE_DEFAULT, Payload, mode_or};
use crate::sources::Sources;

pub(crate) async fn payload(
    sources: &Sources,
    namespace: &str,
    source: &SecretVolumeSource,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::default();
    let mode = mode_or(source.default_mode, MODE_DEFAULT);
    let optional = source.optional == Some(true);
    let name = source.secret_name.as_deref().unwrap_or_default();
    let named = (name, source.items.as_ref());
    project(sources, namespace, named, (mode, optional), &mut payload).await?;
    Ok(payload)
}

/// Adds a Secret's keys to a payload.
pub(crate) async fn project(
    sources: &Sources,
    namespace: &str,
    (name, items): (&str, Option<&Vec<KeyToPath>>),
    (mode, optional): (u32, bool),
    payload: &mut Payload,
) -> Result<(), VolumeError> {
    match sources.secret(namespace, name).await? {
        Some(object) => {
            let data = object.data.iter().flatten();
            let data = data
                .map(|(key, value)| (key.clone(), value.0.clone()))
                .collect();
            let missing = "references non-existent secret key";
            payload.add_keys(data, items, mode, optional, missing)
        }
        None if optional => Ok(()),
        None => Err(VolumeError::Refused(format!("secret {name:?} not found"))),
    }
}
