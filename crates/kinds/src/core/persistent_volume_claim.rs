//! PersistentVolumeClaim.

use jiff::Timestamp;
use meta::{Faults, Quantity, naming};
use serde_json::Value;

use super::data_source;
use super::persistent_volume::{access_modes, class, phase};
use super::pod::defaults::canonical_quantities;
use crate::go::{CLAIM_SPEC, difference, equal};
use crate::metadata::IMMUTABLE;
use crate::row::{Cells, Strategy};
use crate::spot::{
    Spot, amount, immutable, label_selector, maybe_named, maybe_one_of, required, rules,
};
use crate::table::{age, cells, name, or, quantity};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Status, Volume, Capacity, Access Modes, StorageClass, \
     VolumeAttributesClass, Age, VolumeMode*";

/// Named the class before there was a field.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

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
        if let Some(spec) = object.at_mut("spec") {
            data_source::prepare(spec, &Value::Null);
            data_source::normalize(spec);
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        if let Some(spec) = object.at_mut("spec") {
            data_source::prepare(spec, old.at("spec"));
            data_source::normalize(spec);
        }
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        validate_spec(&Spot::new(object, "spec"), faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        self.validate_create(object, faults);
        validate_change(object, old, faults);
    }

    fn validate_status(&self, object: &Value, _old: &Value, faults: &mut Faults) {
        validate_progress(object, faults);
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["name"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("name", object.text("metadata.name").into())]
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        const OLD: [(&str, &str); 1] = [(
            "volume.beta.kubernetes.io/storage-class",
            "deprecated since v1.8; use \"storageClassName\" attribute instead",
        )];
        let mut warnings = crate::warnings::annotations(&Spot::new(object, ""), &OLD);
        warnings.extend(crate::warnings::claim_spec(&Spot::new(object, "spec")));
        warnings
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
    for source in ["dataSource", "dataSourceRef"] {
        if let Some(source) = claim.at_mut(source).filter(|source| source.is_object()) {
            source.fill("apiGroup", Value::Null);
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
    validate_sources(spec, faults);
}

/// Where a claim's first content comes from.
fn validate_sources(spec: &Spot<'_>, faults: &mut Faults) {
    let (old, new) = (spec.child("dataSource"), spec.child("dataSourceRef"));
    for source in [&old, &new].into_iter().filter(|source| !source.is_null()) {
        required(source, "name", faults);
        required(source, "kind", faults);
        let (group, kind) = (source.text("apiGroup"), source.text("kind"));
        if group.is_empty() && kind != "PersistentVolumeClaim" {
            let rule = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            faults.invalid(source.path.clone(), kind, rule);
        }
        maybe_named(source, "apiGroup", naming::dns1123_subdomain, faults);
    }
    maybe_named(&new, "namespace", naming::dns1123_label, faults);
    let rule = if old.is_null() || new.is_null() {
        return;
    } else if !new.text("namespace").is_empty() {
        "may not be specified when dataSourceRef.namespace is specified"
    } else if ["apiGroup", "kind", "name"]
        .iter()
        .any(|part| old.at(part) != new.at(part))
    {
        "must match dataSourceRef"
    } else {
        return;
    };
    // Upstream gives the field's path for a value, which shows as an empty structure.
    faults.add_shown(spec.path.clone(), meta::FaultKind::Invalid, "{}", rule);
}

/// Faults in a claim's status.
fn validate_progress(claim: &Value, faults: &mut Faults) {
    let status = Spot::new(claim, "status");
    let capacity = status.child("capacity");
    for (name, size) in capacity.fields("") {
        not_below_zero(&capacity.entry_path(name), size, faults);
    }
    const PROGRESS: [&str; 5] = [
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    let progress = status.child("allocatedResourceStatuses");
    for (name, state) in progress.fields("") {
        validate_key(name, &progress.path, faults);
        if !PROGRESS.contains(&state.as_str().unwrap_or("")) {
            let mut words = PROGRESS;
            words.sort_unstable();
            crate::spot::unsupported(faults, progress.path.clone(), name, &words);
        }
    }
    let allocated = status.child("allocatedResources");
    for (name, size) in allocated.fields("") {
        if validate_key(name, &allocated.path, faults) {
            not_below_zero(&allocated.entry_path(name), size, faults);
        }
    }
}

fn not_below_zero(path: &str, size: &Value, faults: &mut Faults) {
    if let Some(size) = amount(size).filter(|size| size.is_negative()) {
        faults.invalid(path, size.value(), "must be a valid resource quantity");
    }
}

/// Whether a resource is one that claims may have: storage, or a driver's own.
fn validate_key(name: &str, path: &str, faults: &mut Faults) -> bool {
    let broken = naming::qualified_name(name);
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    let sound = broken.is_empty() && (!native || name == "storage");
    if broken.is_empty() && !sound {
        crate::spot::unsupported(faults, path, name, &["storage"]);
    }
    rules(faults, path, name, broken);
    sound
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
    let (mut spec, mut before) = (claim.at("spec").clone(), old.at("spec").clone());
    if before.text("volumeName").is_empty() {
        before.set("volumeName", spec.at("volumeName").clone());
    }
    if claim.text("status.phase") == "Bound" {
        if spec.has("resources.requests") {
            spec.set(SIZE, before.at(SIZE).clone());
        }
        let class = "volumeAttributesClassName";
        spec.set(class, before.at(class).clone());
    }
    // A class that was never named may be named once: the default class does so. An annotation
    // from before the field is a name.
    let note = |claim: &Value| claim.at("metadata.annotations").get(CLASS).cloned();
    let (noted, note) = (note(old), note(claim));
    let class = spec.at("storageClassName").clone();
    let free = !before.has("storageClassName") && noted.as_ref().is_none_or(|own| *own == class);
    let becomes_field = free && noted.is_some() && !class.is_null() && note.is_none();
    if note != noted && !becomes_field {
        let value = note.unwrap_or_else(|| "".into());
        faults.invalid(format!("metadata.annotations.{CLASS}"), value, IMMUTABLE);
    }
    if free && !class.is_null() {
        before.set("storageClassName", class);
    }
    if !equal(&spec, &before, &CLAIM_SPEC) {
        let changed = difference(&before, &spec, &CLAIM_SPEC);
        let rule = "spec is immutable after creation except resources.requests and \
                    volumeAttributesClassName for bound claims";
        faults.forbidden("spec", format!("{rule}\n{changed}"));
    }
    let spec = claim.at("spec");
    let size = |value: &Value| amount(value).unwrap_or(Quantity::ZERO);
    let (new, then) = (size(spec.at(SIZE)), size(old.at("spec").at(SIZE)));
    if new < then && new <= size(old.at("status.capacity.storage")) {
        let rule = "field can not be less than status.capacity";
        faults.forbidden("spec.resources.requests.storage", rule);
    }
    let root = Spot {
        value: claim.at("spec"),
        path: "".into(),
    };
    immutable(&root, old.at("spec"), "volumeMode", faults);
    let class = "volumeAttributesClassName";
    let applied = old.has("status.currentVolumeAttributesClassName");
    let moved = spec.at(class) != old.at("spec").at(class);
    let rule = match spec.at(class).as_str() {
        None => {
            "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil"
        }
        Some("") => {
            "update to empty string is forbidden when status.currentVolumeAttributesClassName is \
             not nil"
        }
        Some(_) => return,
    };
    if applied && moved {
        faults.forbidden(format!("spec.{class}"), rule);
    }
}
