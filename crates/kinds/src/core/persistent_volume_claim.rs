//! PersistentVolumeClaim.

use jiff::Timestamp;
use meta::{Faults, Quantity, naming};
use serde_json::Value;

use super::persistent_volume::{access_modes, class, phase};
use super::pod::defaults::canonical_quantities;
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, amount, immutable, label_selector, maybe_named, maybe_one_of, same};
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

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        validate_spec(&Spot::new(object, "spec"), faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        self.validate_create(object, faults);
        validate_change(object, old, faults);
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

/// Faults in the specification of a claim or of a claim template.
pub(crate) fn validate_spec(spec: &Spot<'_>, faults: &mut Faults) {
    if spec.count("accessModes") == 0 {
        let rule = "at least 1 access mode is required";
        faults.required(spec.path("accessModes"), rule);
    }
    label_selector(&spec.child("selector"), faults);
    validate_access_modes(spec, faults);
    let path = format!("{}[storage]", spec.path("resources"));
    let size = spec.at("resources.requests.storage");
    match amount(size) {
        None => faults.required(path, ""),
        Some(wanted) if wanted.is_zero() || wanted.is_negative() => {
            faults.invalid(path, quantity(size), "must be greater than zero");
        }
        Some(_) => {}
    }
    for class in ["storageClassName", "volumeAttributesClassName"] {
        maybe_named(spec, class, naming::dns1123_subdomain, faults);
    }
    maybe_one_of(spec, "volumeMode", &["Block", "Filesystem"], faults);
    for field in ["dataSource", "dataSourceRef"] {
        if let Some(source) = spec.some(field) {
            for part in ["name", "kind"] {
                if source.text(part).is_empty() {
                    faults.required(source.path(part), "");
                }
            }
        }
    }
}

/// Faults in the access modes of a claim or volume.
pub(super) fn validate_access_modes(spec: &Spot<'_>, faults: &mut Faults) {
    let words = [
        "ReadOnlyMany",
        "ReadWriteMany",
        "ReadWriteOnce",
        "ReadWriteOncePod",
    ];
    let path = spec.path("accessModes");
    for mode in spec
        .texts("accessModes")
        .filter(|mode| !words.contains(mode))
    {
        crate::spot::unsupported(faults, path.clone(), mode, &words);
    }
    let single = |mode: &str| mode == "ReadWriteOncePod";
    let modes = || {
        spec.texts("accessModes")
            .filter(|mode| words.contains(mode))
    };
    if modes().any(single) && !modes().all(single) {
        let rule = "may not use ReadWriteOncePod with other access modes";
        faults.forbidden(path, rule);
    }
}

fn validate_change(claim: &Value, old: &Value, faults: &mut Faults) {
    const SIZE: &str = "resources.requests.storage";
    let (spec, mut before) = (claim.at("spec").clone(), old.at("spec").clone());
    if before.text("volumeName").is_empty() {
        before.set("volumeName", spec.at("volumeName").clone());
    }
    if claim.text("status.phase") == "Bound" {
        for field in [SIZE, "volumeAttributesClassName"] {
            before.set(field, spec.at(field).clone());
        }
    }
    // A class that was never named may be named once: the default class does so.
    if !before.has("storageClassName") {
        before.set("storageClassName", spec.at("storageClassName").clone());
    }
    if !same(&spec, &before) {
        let rule = "spec is immutable after creation except resources.requests and \
                    volumeAttributesClassName for bound claims";
        faults.forbidden("spec", rule);
    }
    let sizes = (amount(spec.at(SIZE)), amount(old.at("spec").at(SIZE)));
    if let (Some(new), Some(then)) = sizes {
        let held = amount(old.at("status.capacity.storage")).unwrap_or(Quantity::ZERO);
        if new < then && new <= held {
            let rule = "field can not be less than status.capacity";
            faults.forbidden("spec.resources.requests.storage", rule);
        }
    }
    let root = Spot {
        value: claim.at("spec"),
        path: String::new(),
    };
    immutable(&root, old.at("spec"), "volumeMode", faults);
}
