//! The rules for `metadata` that all kinds share. The generic path calls these
//! beside the kind's own validation.

use std::collections::BTreeSet;

use meta::{FaultKind, Faults, Names, naming};
use serde_json::Value;

use crate::row::Strategy;
use crate::tree::Tree;

/// What upstream says of every field that may not change.
pub(crate) const IMMUTABLE: &str = "field is immutable";
/// All annotations of an object together, in bytes.
const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;
/// Names that are generated end in this many random characters.
const GENERATED_SUFFIX: &str = "xxxxx";

/// Faults in the metadata of a new object; its name has been generated already.
pub fn validate_create(
    names: &Names,
    object: &Value,
    strategy: &dyn Strategy,
    faults: &mut Faults,
) {
    validate_name(object.at("metadata"), strategy, faults);
    validate_namespace(names, object.text("metadata.namespace"), faults);
    if object.int("metadata.generation") < 0 {
        let generation = object.at("metadata.generation").clone();
        let rule = "must be greater than or equal to 0";
        faults.invalid("metadata.generation", generation, rule);
    }
    validate_common(object.at("metadata"), faults);
    validate_finalizers(object.at("metadata"), faults);
    validate_short_finalizers(object.at("metadata"), strategy, faults);
}

/// Faults in the metadata of a changed object. The generic path carries bookkeeping
/// (uid, times) over from `old` when the request leaves it out. `whole` is false where only a
/// part of the object changes, such as its status.
pub fn validate_update(
    names: &Names,
    object: &Value,
    old: &Value,
    strategy: &dyn Strategy,
    whole: bool,
    faults: &mut Faults,
) {
    let (new, old) = (object.at("metadata"), old.at("metadata"));
    let (mut common, mut finalizers) = (Faults::new(), Faults::new());
    validate_common(new, &mut common);
    validate_finalizers(new, &mut finalizers);
    let mut change = Faults::new();
    validate_change(new, old, &mut change);
    change.0.extend(common.0.iter().cloned());
    // For all kinds alike, upstream looks at the object and at what changed.
    validate_name(new, strategy, faults);
    validate_namespace(names, object.text("metadata.namespace"), faults);
    faults.0.extend(common.0.iter().cloned());
    faults.0.extend(finalizers.0.iter().cloned());
    faults.0.extend(change.0.iter().cloned());
    // Then most kinds look again at what changed, many at the whole object too.
    let looks = match Looks::of(names) {
        // Their status is judged without its metadata.
        _ if !whole && matches!(&*names.kind, "CronJob" | "VolumeAttachment") => Looks::Never,
        looks => looks,
    };
    match looks {
        Looks::Never => {}
        Looks::AtWholesTwice if whole => {
            faults.0.extend(common.0.iter().cloned());
            faults.0.extend(finalizers.0.iter().cloned());
            validate_short_finalizers(new, strategy, faults);
        }
        _ => {
            faults.0.extend(change.0);
            validate_short_finalizers(new, strategy, faults);
        }
    }
    if matches!(looks, Looks::Twice | Looks::AtWholesTwice) && whole {
        faults.0.extend(common.0);
        faults.0.extend(finalizers.0);
        validate_short_finalizers(new, strategy, faults);
    }
}

/// How often upstream's rules of a kind look at metadata when an object changes, besides the
/// rules that all kinds share: faults are told as often.
#[derive(PartialEq)]
enum Looks {
    Never,
    Once,
    Twice,
    /// Both times at the whole object, not at what changed.
    AtWholesTwice,
}

impl Looks {
    fn of(names: &Names) -> Looks {
        match (&*names.group, &*names.kind) {
            ("", "Event") | ("policy", "PodDisruptionBudget") => Looks::Never,
            ("", "PersistentVolume") => Looks::AtWholesTwice,
            (
                "",
                "ConfigMap"
                | "Endpoints"
                | "Namespace"
                | "Node"
                | "PersistentVolumeClaim"
                | "Pod"
                | "Secret"
                | "ServiceAccount",
            )
            | ("apiregistration.k8s.io", "APIService")
            | ("apps", "ControllerRevision")
            | ("batch", "Job")
            | ("certificates.k8s.io", "CertificateSigningRequest")
            | ("networking.k8s.io", "Ingress" | "IngressClass" | "IPAddress")
            | ("node.k8s.io", "RuntimeClass")
            | ("rbac.authorization.k8s.io", _)
            | ("resource.k8s.io", "ResourceClaim" | "ResourceClaimTemplate" | "DeviceClass")
            | ("storage.k8s.io", "StorageClass" | "CSIStorageCapacity" | "VolumeAttributesClass") => {
                Looks::Twice
            }
            _ => Looks::Once,
        }
    }
}

fn validate_change(new: &Value, old: &Value, change: &mut Faults) {
    if old.has("deletionTimestamp") {
        validate_no_new_finalizers(new, old, change);
    }
    if new.int("generation") < old.int("generation") {
        let generation = new.at("generation").clone();
        change.invalid("metadata.generation", generation, "must not be decremented");
    }
    let fixed = [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ];
    for field in fixed {
        if !same(new.at(field), old.at(field)) {
            let value = new.at(field).clone();
            change.invalid(format!("metadata.{field}"), value, IMMUTABLE);
        }
    }
}

/// Without a domain, a finalizer must be one of Kubernetes' own.
fn validate_short_finalizers(metadata: &Value, strategy: &dyn Strategy, faults: &mut Faults) {
    if strategy.has_free_finalizers() {
        return;
    }
    for (at, name) in metadata.texts("finalizers").enumerate() {
        let standard = matches!(name, "kubernetes" | "orphan" | "foregroundDeletion");
        if !standard && !name.contains('/') {
            let rule = "name is neither a standard finalizer name nor is it fully qualified";
            faults.invalid(format!("metadata.finalizers[{at}]"), name, rule);
        }
    }
}

/// Whether two fields are equal; an empty text is as good as an absent one.
fn same(new: &Value, old: &Value) -> bool {
    let empty = |value: &Value| value.is_null() || value == "";
    new == old || (empty(new) && empty(old))
}

fn validate_name(metadata: &Value, strategy: &dyn Strategy, faults: &mut Faults) {
    let prefix = metadata.text("generateName");
    if !prefix.is_empty() {
        // A prefix may end in what the generated part will follow.
        let sample = format!("{prefix}{GENERATED_SUFFIX}");
        let limited = strategy.validate_name(&sample);
        for rule in limited.into_iter().filter(|rule| !is_length(rule)) {
            faults.invalid("metadata.generateName", prefix, rule);
        }
    }
    let name = metadata.text("name");
    if name.is_empty() {
        faults.required("metadata.name", "name or generateName is required");
        return;
    }
    for rule in strategy.validate_name(name) {
        faults.invalid("metadata.name", name, rule);
    }
}

/// Prefixes that are too long are cut before the random part is added.
fn is_length(rule: &str) -> bool {
    rule.starts_with("must be no more than")
}

fn validate_namespace(names: &Names, namespace: &str, faults: &mut Faults) {
    match (names.is_namespaced(), namespace) {
        (true, "") => faults.required("metadata.namespace", ""),
        (true, namespace) => {
            for rule in naming::dns1123_label(namespace) {
                faults.invalid("metadata.namespace", namespace, rule);
            }
        }
        (false, "") => {}
        (false, _) => faults.forbidden("metadata.namespace", "not allowed on this type"),
    }
}

/// Faults in the metadata of an object that stands inside another, at `path`.
pub fn validate_embedded(metadata: &Value, path: &str, faults: &mut Faults) {
    let mut own = Faults::new();
    for (field, rules) in [
        ("name", naming::path_segment as fn(&str) -> Vec<String>),
        ("namespace", naming::dns1123_label),
    ] {
        let text = metadata.text(field);
        for rule in rules(text).into_iter().filter(|_| !text.is_empty()) {
            own.invalid(format!("metadata.{field}"), text, rule);
        }
    }
    validate_common(metadata, &mut own);
    validate_finalizers(metadata, &mut own);
    for mut fault in own.0 {
        let below = fault.field.strip_prefix("metadata").unwrap_or_default();
        fault.field = format!("{path}{below}");
        faults.0.push(fault);
    }
}

fn validate_common(metadata: &Value, faults: &mut Faults) {
    validate_labels(metadata.at("labels"), "metadata.labels", faults);
    validate_annotations(metadata.at("annotations"), "metadata.annotations", faults);
    validate_owners(metadata, faults);
}

/// Faults in a map of labels at `path`.
pub(crate) fn validate_labels(labels: &Value, path: &str, faults: &mut Faults) {
    for (key, value) in labels.fields("") {
        for rule in naming::qualified_name(key) {
            faults.invalid(path, key, rule);
        }
        let value = value.as_str().unwrap_or("");
        for rule in naming::label_value(value) {
            faults.invalid(path, value, rule);
        }
    }
}

/// Faults in a map of annotations at `path`.
pub(crate) fn validate_annotations(annotations: &Value, path: &str, faults: &mut Faults) {
    let mut bytes = 0;
    for (key, value) in annotations.fields("") {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        // Case does not matter here, unlike in labels.
        for rule in naming::qualified_name(&key.to_lowercase()) {
            faults.invalid(path, key, rule);
        }
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        faults.too_long(path, ANNOTATIONS_BYTES_MAX);
    }
}

fn validate_owners(metadata: &Value, faults: &mut Faults) {
    const PATH: &str = "metadata.ownerReferences";
    let mut controller: Option<String> = None;
    for owner in metadata.list("ownerReferences") {
        let version = owner.text("apiVersion");
        let parts = version.split('/').count();
        if version.is_empty() || version.ends_with('/') || parts > 2 {
            let rule = "version must not be empty";
            faults.invalid(format!("{PATH}.apiVersion"), version, rule);
        }
        for field in ["kind", "name", "uid"] {
            if owner.text(field).is_empty() {
                faults.invalid(format!("{PATH}.{field}"), "", "must not be empty");
            }
        }
        if version == "v1" && owner.text("kind") == "Event" {
            let rule = "/v1, Kind=Event is disallowed from being an owner";
            faults.add_shown(PATH, FaultKind::Invalid, shown_owner(owner), rule);
        }
        if !owner.flag("controller") {
            continue;
        }
        let this = format!("{}/{}", owner.text("kind"), owner.text("name"));
        match &controller {
            None => controller = Some(this),
            Some(first) => {
                let rule = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in \
                     references for {first} and {this}"
                );
                let owners = metadata.list("ownerReferences").iter().map(shown_owner);
                let owners: Vec<String> = owners.collect();
                let shown = format!("[{}]", owners.join(","));
                faults.add_shown(PATH, FaultKind::Invalid, shown, rule);
            }
        }
    }
}

/// An owner with its fields in upstream's order.
fn shown_owner(owner: &Value) -> String {
    const ORDER: [&str; 6] = [
        "apiVersion",
        "kind",
        "name",
        "uid",
        "controller",
        "blockOwnerDeletion",
    ];
    let fields = ORDER.iter().filter(|field| owner.has(field));
    let fields: Vec<String> = fields
        .map(|field| format!("\"{field}\":{}", owner.at(field)))
        .collect();
    format!("{{{}}}", fields.join(","))
}

fn validate_finalizers(metadata: &Value, faults: &mut Faults) {
    const PATH: &str = "metadata.finalizers";
    for finalizer in metadata.texts("finalizers") {
        for rule in naming::qualified_name(finalizer) {
            faults.invalid(PATH, finalizer, rule);
        }
    }
    let holds = |name: &str| metadata.texts("finalizers").any(|one| one == name);
    if holds("orphan") && holds("foregroundDeletion") {
        let rule = "finalizer orphan and foregroundDeletion cannot be both set";
        faults.invalid(PATH, metadata.at("finalizers").clone(), rule);
    }
}

fn validate_no_new_finalizers(new: &Value, old: &Value, faults: &mut Faults) {
    let had: BTreeSet<_> = old.texts("finalizers").collect();
    let has: BTreeSet<_> = new.texts("finalizers").collect();
    let added: Vec<_> = has
        .difference(&had)
        .map(|one| format!("\"{one}\""))
        .collect();
    if !added.is_empty() {
        let rule = format!(
            "no new finalizers can be added if the object is being deleted, found new \
             finalizers []string{{{}}}",
            added.join(", ")
        );
        faults.forbidden("metadata.finalizers", rule);
    }
}
