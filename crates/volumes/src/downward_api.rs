//! Volumes of a pod's own fields.

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, Pod};

use crate::VolumeError;
use crate::fields::{self, FieldError, PodFacts};
use crate::payload::Payload;

/// Adds the files a downward API source lists.
pub(crate) fn project(
    pod: &Pod,
    facts: &PodFacts,
    items: &[DownwardAPIVolumeFile],
    mode: u32,
    payload: &mut Payload,
) -> Result<(), VolumeError> {
    for item in items {
        let text = text_of(pod, facts, item).map_err(|e| VolumeError::Refused(e.to_string()))?;
        let mode = item.mode.map_or(mode, |mode| mode as u32);
        payload.add(&item.path, text.into_bytes(), mode)?;
    }
    Ok(())
}

fn text_of(
    pod: &Pod,
    facts: &PodFacts,
    item: &DownwardAPIVolumeFile,
) -> Result<String, FieldError> {
    if let Some(selector) = &item.field_ref {
        return fields::field(pod, facts, &selector.field_path);
    }
    let Some(selector) = &item.resource_field_ref else {
        return Ok(String::new());
    };
    let name = selector.container_name.as_deref().unwrap_or_default();
    let container =
        fields::container_of(pod, name).ok_or_else(|| FieldError::NoContainer(name.to_owned()))?;
    fields::resource(pod, container, facts, selector)
}
