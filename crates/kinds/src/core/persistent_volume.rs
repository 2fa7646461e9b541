//! PersistentVolume.

use jiff::Timestamp;
use meta::{Faults, Quantity, naming};
use serde_json::Value;

use super::persistent_volume_claim::validate_access_modes;
use super::pod::defaults::canonical_quantities;
use super::pod::validate::node_selector;
use super::volume_source::{self, Holder};
use crate::go::{VOLUME_AFFINITY, VOLUME_SOURCE, difference, equal, shown};
use crate::metadata::IMMUTABLE;
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, amount, immutable, maybe_named, maybe_one_of, rules};
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
        if let Some(path) = object
            .at_mut("spec.hostPath")
            .filter(|path| path.is_object())
        {
            path.fill("type", "");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        let since = meta::time::now();
        let status = serde_json::json!({"phase": "Pending", "lastPhaseTransitionTime": since});
        object.set("status", status);
    }

    fn prepare_subresource(&self, _subresource: &str, object: &mut Value, old: &Value) {
        let (new, before) = (object.at("status"), old.at("status"));
        let since = "lastPhaseTransitionTime";
        if new.text("phase") != before.text("phase") && new.at(since) == before.at(since) {
            object.set("status.lastPhaseTransitionTime", meta::time::now());
        }
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let name = object.text("metadata.name");
        validate_spec(&Spot::new(object, "spec"), name, faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        // Upstream validates the object by itself and as a changed one.
        self.validate_create(object, faults);
        self.validate_create(object, faults);
        let (spec, before) = (object.at("spec"), old.at("spec"));
        let mut spec = spec.clone();
        // The secret for growing may come later.
        let grow = "csi.controllerExpandSecretRef";
        if before.has("csi") && !before.has(grow) {
            spec.drop_field(grow);
        }
        if !equal(&spec, before, &VOLUME_SOURCE) {
            let changed = difference(before, &spec, &VOLUME_SOURCE);
            let rule =
                format!("spec.persistentvolumesource is immutable after creation\n{changed}");
            faults.forbidden("spec.persistentvolumesource", rule);
        }
        let root = Spot {
            value: object.at("spec"),
            path: "".into(),
        };
        immutable(&root, old.at("spec"), "volumeMode", faults);
        if old.has("spec.nodeAffinity") {
            affinity_kept(&root, old.at("spec.nodeAffinity"), faults);
        }
        let class = "spec.volumeAttributesClassName";
        if old.has(class) && !object.has(class) {
            faults.forbidden(class, "update from non-nil value to nil is forbidden");
        }
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["name"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("name", object.text("metadata.name").into())]
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        const OLD: [(&str, &str); 2] = [
            (
                "volume.beta.kubernetes.io/storage-class",
                "deprecated since v1.8; use \"storageClassName\" attribute instead",
            ),
            (
                "volume.beta.kubernetes.io/mount-options",
                "deprecated since v1.31; use \"mountOptions\" attribute instead",
            ),
        ];
        let mut warnings = crate::warnings::annotations(&Spot::new(object, ""), &OLD);
        let spec = Spot::new(object, "spec");
        if spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
            let path = spec.path("persistentVolumeReclaimPolicy");
            warnings.push(format!(
                "{path}: The Recycle reclaim policy is deprecated. Instead, the recommended \
                 approach is to use dynamic provisioning."
            ));
        }
        for term in spec
            .child("nodeAffinity.required")
            .items("nodeSelectorTerms")
        {
            warnings.extend(crate::warnings::expressions(&term));
        }
        for (source, since) in [
            ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
            (
                "photonPersistentDisk",
                "deprecated in v1.11, non-functional in v1.16+",
            ),
            ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
            ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
            ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
            ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
        ] {
            if spec.has(source) {
                let word = if source == "storageos" {
                    "storageOS"
                } else {
                    source
                };
                warnings.push(format!("{}: {since}", spec.path(word)));
            }
        }
        warnings
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

/// Which nodes reach a volume does not change; old labels may get their new names.
fn affinity_kept(root: &Spot<'_>, old: &Value, faults: &mut Faults) {
    const RENAMED: [(&str, &str); 5] = [
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        (
            "failure-domain.beta.kubernetes.io/region",
            "topology.kubernetes.io/region",
        ),
        (
            "failure-domain.beta.kubernetes.io/zone",
            "topology.kubernetes.io/zone",
        ),
        (
            "beta.kubernetes.io/instance-type",
            "node.kubernetes.io/instance-type",
        ),
    ];
    let new = root.at("nodeAffinity");
    let mut old = old.clone();
    let terms = old.list_mut("required.nodeSelectorTerms").iter_mut();
    for (at, term) in terms.enumerate() {
        let now = new.list("required.nodeSelectorTerms").get(at);
        for (at, one) in term.list_mut("matchExpressions").iter_mut().enumerate() {
            let now = now.and_then(|term| term.list("matchExpressions").get(at));
            let name = now.map_or("", |one| one.text("key"));
            // So upstream looks a key up that was never renamed.
            let is_known = RENAMED.iter().any(|(old, _)| *old == one.text("key"));
            let is_none = now.is_some() && name.is_empty() && !is_known;
            if is_none || RENAMED.contains(&(one.text("key"), name)) {
                one.set("key", name);
            }
        }
    }
    if !equal(new, &old, &VOLUME_AFFINITY) {
        let rule = format!("{IMMUTABLE}, except for updating from beta label to GA");
        let shown = shown(new, &VOLUME_AFFINITY);
        faults.add_shown("nodeAffinity", meta::FaultKind::Invalid, shown, rule);
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

/// Where a volume's bytes may be.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

fn validate_spec(spec: &Spot<'_>, name: &str, faults: &mut Faults) {
    if spec.count("accessModes") == 0 {
        faults.required(spec.path("accessModes"), "");
    }
    validate_access_modes(spec, faults);
    let capacity = spec.child("capacity");
    if capacity.count("") == 0 {
        faults.required(capacity.path.clone(), "");
    }
    if capacity.get("storage").is_none() || capacity.count("") > 1 {
        let path = capacity.path.clone();
        crate::spot::unsupported(faults, path, capacity.value.clone(), &["storage"]);
    }
    for (name, size) in capacity.fields("") {
        let own = amount(size);
        if own.is_some_and(|size| size.is_negative()) {
            let rule = "must be a valid resource quantity";
            let whole = own.map_or(0, Quantity::value);
            faults.invalid(capacity.entry_path(name), whole, rule);
        }
        if own.is_some_and(|size| size.is_zero() || size.is_negative()) {
            let rule = "must be greater than zero";
            faults.invalid(capacity.entry_path(name), quantity(size), rule);
        }
    }
    let policies = ["Delete", "Recycle", "Retain"];
    maybe_one_of(spec, "persistentVolumeReclaimPolicy", &policies, faults);
    match (
        spec.some("nodeAffinity"),
        spec.some("nodeAffinity.required"),
    ) {
        (_, Some(selector)) => node_selector(&selector, faults),
        (Some(affinity), None) => {
            let rule = "must specify required node constraints";
            faults.required(affinity.path("required"), rule);
        }
        (None, None) => {}
    }
    validate_source(spec, name, faults);
    let path = spec.text("hostPath.path");
    let root = path.split('/').all(|part| part.is_empty() || part == ".");
    let recycled = spec.text("persistentVolumeReclaimPolicy") == "Recycle";
    if spec.has("hostPath") && path.starts_with('/') && root && recycled {
        let rule = "may not be 'recycle' for a hostPath mount of '/'";
        faults.forbidden(spec.path("persistentVolumeReclaimPolicy"), rule);
    }
    maybe_named(spec, "storageClassName", naming::dns1123_subdomain, faults);
    maybe_one_of(spec, "volumeMode", &["Block", "Filesystem"], faults);
    validate_attributes(spec, faults);
}

fn validate_source(spec: &Spot<'_>, name: &str, faults: &mut Faults) {
    let mut sources = SOURCES.iter().filter(|source| spec.has(source));
    let Some(source) = sources.next() else {
        return faults.required(spec.path.clone(), "must specify a volume type");
    };
    let one = spec.child(source);
    match *source {
        "hostPath" => super::pod::validate::validate_host_path(&one, faults),
        "local" if one.text("path").is_empty() => faults.required(one.path("path"), ""),
        "local" => super::pod::validate::no_backsteps(one.text("path"), &one.path("path"), faults),
        "csi" => volume_source::validate_csi(&one, faults),
        source => volume_source::validate(spec, source, Holder::Persistent(name), faults),
    }
    if *source == "local" && !spec.has("nodeAffinity") {
        let rule = "Local volume requires node affinity";
        faults.required(spec.path("nodeAffinity"), rule);
    }
    for extra in sources {
        let path = if *extra == "cephfs" { "cephFS" } else { extra };
        faults.forbidden(spec.path(path), "may not specify more than 1 volume type");
    }
}

/// The class of a volume's attributes, which only drivers know.
fn validate_attributes(spec: &Spot<'_>, faults: &mut Faults) {
    let Some(class) = spec.at("volumeAttributesClassName").as_str() else {
        return;
    };
    let path = spec.path("volumeAttributesClassName");
    match class {
        "" => faults.required(path, "an empty string is disallowed"),
        class => rules(faults, path, class, naming::dns1123_subdomain(class)),
    }
    if !spec.has("csi") {
        let rule = "has to be specified when using volumeAttributesClassName";
        faults.required(spec.path("csi"), rule);
    }
}
