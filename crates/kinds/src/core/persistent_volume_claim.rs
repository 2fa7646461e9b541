//! PersistentVolumeClaim.

use jiff::Timestamp;
use serde_json::Value;

use super::persistent_volume::{access_modes, class, phase};
use super::pod::defaults::canonical_quantities;
use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name, or, quantity};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Status, Volume, Capacity, Access Modes, StorageClass, \
     VolumeAttributesClass, Age, VolumeMode*";

pub(crate) struct PersistentVolumeClaim;

impl Strategy for PersistentVolumeClaim {
    fn default(&self, object: &mut Value) {
        object.fill_text("status.phase", "Pending");
        object.fill_map("spec");
        if let Some(spec) = object.at_mut("spec") {
            default_spec(spec);
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

    fn cells(&self, claim: &Value, now: Timestamp) -> Cells {
        let (capacity, modes) = match claim.text("spec.volumeName") {
            "" => (String::new(), String::new()),
            _ => (
                quantity(claim.at("status.capacity.storage")),
                access_modes(claim, "status.accessModes"),
            ),
        };
        cells![
            name(claim),
            phase(claim),
            claim.text("spec.volumeName"),
            capacity,
            modes,
            class(claim),
            or(claim.text("spec.volumeAttributesClassName"), "<unset>"),
            age(claim, now),
            or(claim.text("spec.volumeMode"), "<unset>"),
        ]
    }
}

/// Defaults of the specification of a claim or of a claim template.
pub(crate) fn default_spec(claim: &mut Value) {
    claim.fill("volumeMode", "Filesystem");
    for path in ["resources.requests", "resources.limits"] {
        if let Some(list) = claim.at_mut(path) {
            canonical_quantities(list);
        }
    }
}
