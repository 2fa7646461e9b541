//! PersistentVolume.

use jiff::Timestamp;
use serde_json::Value;

use super::pod::defaults::canonical_quantities;
use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name, or, quantity};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Capacity, Access Modes, Reclaim Policy, Status, Claim, \
     StorageClass, VolumeAttributesClass, Reason, Age, VolumeMode*";

pub(crate) struct PersistentVolume;

impl Strategy for PersistentVolume {
    fn default(&self, object: &mut Value) {
        object.fill_text("status.phase", "Pending");
        object.fill_text("spec.persistentVolumeReclaimPolicy", "Retain");
        object.fill("spec.volumeMode", "Filesystem");
        if let Some(capacity) = object.at_mut("spec.capacity") {
            canonical_quantities(capacity);
        }
        if let Some(path) = object.at_mut("spec.hostPath").filter(|path| path.is_object()) {
            path.fill("type", "");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object.set("status", serde_json::json!({"phase": "Pending"}));
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["name"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("name", object.text("metadata.name").into())]
    }

    fn cells(&self, volume: &Value, now: Timestamp) -> Cells {
        let claim = match volume.has("spec.claimRef") {
            true => format!(
                "{}/{}",
                volume.text("spec.claimRef.namespace"),
                volume.text("spec.claimRef.name")
            ),
            false => String::new(),
        };
        cells![
            name(volume),
            quantity(volume.at("spec.capacity.storage")),
            access_modes(volume, "spec.accessModes"),
            volume.text("spec.persistentVolumeReclaimPolicy"),
            phase(volume),
            claim,
            class(volume),
            or(volume.text("spec.volumeAttributesClassName"), "<unset>"),
            volume.text("status.reason"),
            age(volume, now),
            or(volume.text("spec.volumeMode"), "<unset>"),
        ]
    }
}

/// `Terminating` while it is being deleted, else the phase.
pub(super) fn phase(object: &Value) -> &str {
    match object.has("metadata.deletionTimestamp") {
        true => "Terminating",
        false => object.text("status.phase"),
    }
}

/// The storage class, also by the annotation from before the field existed.
pub(super) fn class(object: &Value) -> &str {
    let annotations = object.at("metadata.annotations");
    match annotations.get("volume.beta.kubernetes.io/storage-class") {
        Some(class) => class.as_str().unwrap_or(""),
        None => object.text("spec.storageClassName"),
    }
}

/// Access modes as `RWO,ROX,RWX,RWOP`, each once.
pub(super) fn access_modes(object: &Value, path: &str) -> String {
    const SHORT: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let held = |(long, _): &&(&str, &str)| object.texts(path).any(|mode| mode == *long);
    let short: Vec<_> = SHORT.iter().filter(held).map(|(_, short)| *short).collect();
    short.join(",")
}
