//! Faults in volumes, and in how containers mount them.

use std::collections::{BTreeMap, BTreeSet};

use meta::{Faults, naming};
use serde_json::Value;

use super::containers::validate_field_ref;
use super::resources;
use crate::core::volume_source::{self, Holder};
use crate::metadata::{validate_annotations, validate_labels};
use crate::spot::{Spot, named, required, rules, unsupported};
use crate::tree::Tree;

/// Sound volumes by their names.
pub(super) type Volumes<'tree> = BTreeMap<&'tree str, &'tree Value>;

const MODE_RULE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
/// Where a volume's files come from, in upstream's order: of several the first is taken as meant,
/// the others as too much.
const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];
const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// Faults in all volumes; returns those that mounts may refer to.
pub(super) fn validate_volumes<'tree>(
    spec: &Spot<'tree>,
    pod: &str,
    faults: &mut Faults,
) -> Volumes<'tree> {
    let mut sound = Volumes::new();
    let claimed: BTreeSet<_> = spec
        .items("volumes")
        .filter(|volume| !pod.is_empty() && volume.has("ephemeral"))
        .map(|volume| format!("{pod}-{}", volume.text("name")))
        .collect();
    for volume in spec.items("volumes") {
        let mut own = Faults::new();
        validate_source(&volume, pod, &mut own);
        named(&volume, "name", naming::dns1123_label, &mut own);
        let name = volume.value.text("name");
        if sound.contains_key(name) {
            own.duplicate(volume.path("name"), name);
        }
        if own.is_empty() {
            sound.insert(name, volume.value);
        }
        faults.0.extend(own.0);
        let claim = volume.text("persistentVolumeClaim.claimName");
        if claimed.contains(claim) {
            let rule = "must not reference a PVC that gets created for an ephemeral volume";
            faults.invalid(volume.path("persistentVolumeClaim.claimName"), claim, rule);
        }
    }
    sound
}

fn validate_source(volume: &Spot<'_>, pod: &str, faults: &mut Faults) {
    let mut sources = SOURCES.iter().filter(|source| volume.has(source));
    let Some(source) = sources.next() else {
        return faults.required(volume.path.clone(), "must specify a volume type");
    };
    validate_one(volume, source, pod, faults);
    for extra in sources {
        let path = match *extra {
            // So upstream spells them here.
            "downwardAPI" => "downwarAPI",
            "cephfs" => "cephFS",
            extra => extra,
        };
        faults.forbidden(volume.path(path), "may not specify more than 1 volume type");
    }
}

fn validate_one(volume: &Spot<'_>, source: &str, pod: &str, faults: &mut Faults) {
    let spot = volume.child(source);
    match source {
        "emptyDir" => validate_size(&spot, faults),
        "hostPath" => validate_host_path(&spot, faults),
        "secret" => {
            required(&spot, "secretName", faults);
            validate_files(&spot, faults);
        }
        "configMap" => {
            required(&spot, "name", faults);
            validate_files(&spot, faults);
        }
        "persistentVolumeClaim" => required(&spot, "claimName", faults),
        "downwardAPI" => {
            validate_mode(&spot, "defaultMode", faults);
            for item in spot.items("items") {
                validate_downward(&item, &spot.path, faults);
            }
        }
        "projected" => validate_projected(&spot, faults),
        "csi" => validate_csi(&spot, faults),
        "ephemeral" => validate_ephemeral(volume, &spot, pod, faults),
        "image" => validate_image(&spot, pod, faults),
        other => {
            let holder = Holder::Pod(volume.text("name"));
            volume_source::validate(volume, other, holder, faults);
        }
    }
}

/// Templates may leave the reference to whoever makes pods of them; they have no pod's name.
fn validate_image(image: &Spot<'_>, pod: &str, faults: &mut Faults) {
    if !pod.is_empty() {
        required(image, "reference", faults);
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    crate::spot::one_of(image, "pullPolicy", &policies, faults);
}

fn validate_size(directory: &Spot<'_>, faults: &mut Faults) {
    let size = crate::spot::amount(directory.at("sizeLimit"));
    if size.is_some_and(|size| size.is_negative()) {
        let rule = "SizeLimit field must be a valid resource quantity";
        faults.forbidden(directory.path("sizeLimit"), rule);
    }
}

/// Faults in `hostPath`.
pub(crate) fn validate_host_path(path: &Spot<'_>, faults: &mut Faults) {
    if path.text("path").is_empty() {
        return faults.required(path.path("path"), "");
    }
    no_backsteps(path.text("path"), &path.path("path"), faults);
    let kind = path.at("type");
    if !kind.is_null() && !HOST_PATH_TYPES.contains(&kind.as_str().unwrap_or("?")) {
        unsupported(faults, path.path("type"), kind.clone(), &HOST_PATH_TYPES);
    }
}

fn validate_files(source: &Spot<'_>, faults: &mut Faults) {
    validate_mode(source, "defaultMode", faults);
    for item in source.items("items") {
        validate_item(&item, faults);
    }
}

fn validate_item(item: &Spot<'_>, faults: &mut Faults) {
    required(item, "key", faults);
    required(item, "path", faults);
    validate_local_path(item, "path", faults);
    validate_mode(item, "mode", faults);
}

fn validate_mode(parent: &Spot<'_>, field: &str, faults: &mut Faults) {
    let mode = parent.maybe_int(field);
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        faults.invalid(parent.path(field), mode, MODE_RULE);
    }
}

/// A path that stays below where it starts and avoids the names that the kubelet uses itself.
pub(super) fn validate_local_path(parent: &Spot<'_>, field: &str, faults: &mut Faults) {
    let (path, target) = (parent.path(field), parent.text(field));
    descending(target, &path, faults);
    if target.starts_with("..") && !target.starts_with("../") {
        faults.invalid(path, target, "must not start with '..'");
    }
}

/// A path that stays below where it starts.
pub(crate) fn descending(target: &str, path: &str, faults: &mut Faults) {
    if target.starts_with('/') {
        faults.invalid(path, target, "must be a relative path");
    }
    no_backsteps(target, path, faults);
}

/// A path that never goes up.
pub(crate) fn no_backsteps(target: &str, path: &str, faults: &mut Faults) {
    if target.split('/').any(|part| part == "..") {
        faults.invalid(path, target, "must not contain '..'");
    }
}

/// `path` is where upstream reports: the source, not the item.
fn validate_downward(item: &Spot<'_>, path: &str, faults: &mut Faults) {
    let item = Spot {
        value: item.value,
        path: path.into(),
    };
    required(&item, "path", faults);
    validate_local_path(&item, "path", faults);
    const FIELDS: [&str; 5] = [
        "metadata.annotations",
        "metadata.labels",
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
    ];
    match (item.some("fieldRef"), item.some("resourceFieldRef")) {
        (Some(field), other) => {
            validate_field_ref(&field, &FIELDS, faults);
            if other.is_some() {
                let rule = "fieldRef and resourceFieldRef can not be specified simultaneously";
                faults.invalid(item.path.clone(), "resource", rule);
            }
        }
        (None, Some(resource)) => resources::validate_volume_field_ref(&resource, faults),
        (None, None) => {
            let rule = "one of fieldRef and resourceFieldRef is required";
            faults.required(item.path.clone(), rule);
        }
    }
    validate_mode(&item, "mode", faults);
}

fn validate_projected(projected: &Spot<'_>, faults: &mut Faults) {
    validate_mode(projected, "defaultMode", faults);
    let mut paths = BTreeSet::new();
    let mut once = |path: &str, who: &str, faults: &mut Faults| {
        if !path.is_empty() && !paths.insert(path.to_owned()) {
            faults.invalid(projected.path.clone(), who, "conflicting duplicate paths");
        }
    };
    for source in projected.items("sources") {
        let kinds = source.fields("").filter(|(_, value)| !value.is_null());
        if kinds.count() > 1 {
            let rule = "may not specify more than 1 volume type per source";
            faults.forbidden(source.path.clone(), rule);
        }
        for kind in ["secret", "configMap"] {
            let Some(files) = source.some(kind) else {
                continue;
            };
            required(&files, "name", faults);
            for item in files.items("items") {
                validate_item(&item, faults);
                once(item.text("path"), files.text("name"), faults);
            }
        }
        if let Some(downward) = source.some("downwardAPI") {
            for item in downward.items("items") {
                validate_downward(&item, &downward.path, faults);
                once(item.text("path"), item.text("path"), faults);
            }
        }
        if let Some(token) = source.some("serviceAccountToken") {
            validate_token(&token, projected, faults);
        }
        if let Some(bundle) = source.some("clusterTrustBundle") {
            validate_bundle(&bundle, faults);
            once(bundle.text("path"), bundle.text("path"), faults);
        }
        if let Some(certificate) = source.some("podCertificate") {
            validate_certificate(&certificate, faults);
            for field in CERTIFICATE_PATHS {
                once(certificate.text(field), certificate.text(field), faults);
            }
        }
    }
}

fn validate_bundle(bundle: &Spot<'_>, faults: &mut Faults) {
    match (bundle.has("name"), bundle.has("signerName")) {
        (true, true) => {
            let rule = "only one of name and signerName may be used";
            faults.invalid(bundle.path.clone(), bundle.value.clone(), rule);
        }
        (true, false) => {
            let name = bundle.text("name");
            if name.is_empty() {
                faults.required(bundle.path("name"), "must be a valid object name");
            }
            // The name of a signer stands before the rest, with its slash as a colon.
            let own = name.rsplit_once(':').map_or(name, |(_, own)| own);
            for rule in naming::dns1123_subdomain(own) {
                let rule = format!("not a valid clustertrustbundlename: {rule}");
                faults.invalid(bundle.path("name"), name, rule);
            }
            if let Some(selector) = bundle.some("labelSelector") {
                let rule = "labelSelector must be unset if name is specified";
                faults.invalid(selector.path, selector.value.clone(), rule);
            }
        }
        (false, true) => {
            if bundle.text("signerName").is_empty() {
                let rule = "must be a valid signer name";
                faults.required(bundle.path("signerName"), rule);
            }
            validate_signer(bundle, faults);
            crate::spot::label_selector(&bundle.child("labelSelector"), faults);
        }
        (false, false) => {
            let rule = "either name or signerName must be specified";
            faults.required(bundle.path.clone(), rule);
        }
    }
    required(bundle, "path", faults);
    validate_local_path(bundle, "path", faults);
}

const CERTIFICATE_PATHS: [&str; 3] = ["credentialBundlePath", "keyPath", "certificateChainPath"];

fn validate_certificate(certificate: &Spot<'_>, faults: &mut Faults) {
    validate_signer(certificate, faults);
    let keys = [
        "RSA3072",
        "RSA4096",
        "ECDSAP256",
        "ECDSAP384",
        "ECDSAP521",
        "ED25519",
    ];
    let key = certificate.text("keyType");
    if !keys.contains(&key) {
        unsupported(faults, certificate.path("keyType"), key, &keys);
    }
    let path = certificate.path("maxExpirationSeconds");
    if let Some(seconds) = certificate.maybe_int("maxExpirationSeconds") {
        // A day by Kubernetes' own signers, a quarter of a year by others.
        let kubernetes = certificate.text("signerName").starts_with("kubernetes.io/");
        let most = if kubernetes { 86_400 } else { 7_862_400 };
        if seconds < 3600 {
            let rule = "if provided, maxExpirationSeconds must be >= 3600";
            faults.invalid(path.clone(), seconds, rule);
        }
        if seconds > most {
            let rule = format!("if provided, maxExpirationSeconds must be <= {most}");
            faults.invalid(path, seconds, rule);
        }
    }
    let mut given = CERTIFICATE_PATHS
        .iter()
        .filter(|field| !certificate.text(field).is_empty());
    for field in given.clone() {
        validate_local_path(certificate, field, faults);
    }
    if given.next().is_none() {
        let rule =
            "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        faults.required(certificate.path.clone(), rule);
    }
}

fn validate_signer(holder: &Spot<'_>, faults: &mut Faults) {
    crate::certificates::validate_signer(holder, faults);
}

fn validate_token(token: &Spot<'_>, projected: &Spot<'_>, faults: &mut Faults) {
    let seconds = token.int("expirationSeconds");
    if seconds < TOKEN_SECONDS_MIN {
        let rule = "may not specify a duration less than 10 minutes";
        faults.invalid(token.path("expirationSeconds"), seconds, rule);
    }
    if seconds > TOKEN_SECONDS_MAX {
        let rule = "may not specify a duration larger than 2^32 seconds";
        faults.invalid(token.path("expirationSeconds"), seconds, rule);
    }
    let spot = Spot {
        value: token.value,
        path: projected.path.clone(),
    };
    required(&spot, "path", faults);
    validate_local_path(&spot, "path", faults);
}

fn validate_csi(csi: &Spot<'_>, faults: &mut Faults) {
    validate_driver(csi, "driver", faults);
    let Some(secret) = csi.some("nodePublishSecretRef") else {
        return;
    };
    match secret.text("name") {
        "" => faults.required(secret.path("name"), ""),
        // Upstream reports the name as if it were the driver's.
        name => rules(
            faults,
            csi.path("name"),
            name,
            naming::dns1123_subdomain(name),
        ),
    }
}

/// The name of a storage driver.
pub(crate) fn validate_driver(parent: &Spot<'_>, field: &str, faults: &mut Faults) {
    let name = parent.text(field);
    if name.is_empty() {
        return faults.required(parent.path(field), "");
    }
    if name.len() > 63 {
        faults.too_long(parent.path(field), 63);
    }
    let broken = naming::dns1123_subdomain(&name.to_lowercase());
    rules(faults, parent.path(field), name, broken);
}

fn validate_ephemeral(volume: &Spot<'_>, spot: &Spot<'_>, pod: &str, faults: &mut Faults) {
    let name = volume.text("name");
    if !spot.has("volumeClaimTemplate") {
        faults.required(spot.path("volumeClaimTemplate"), "");
    } else {
        let metadata = spot.child("volumeClaimTemplate.metadata");
        validate_template_metadata(&metadata, faults);
        let spec = spot.child("volumeClaimTemplate.spec");
        crate::core::validate_claim_spec(&spec, faults);
    }
    if !pod.is_empty() && !name.is_empty() {
        let claim = format!("{pod}-{name}");
        for rule in naming::dns1123_subdomain(&claim) {
            let rule = format!("PVC name \"{claim}\": {rule}");
            faults.invalid(volume.path("name"), name, rule);
        }
    }
}

/// A template of claims has labels and annotations only.
fn validate_template_metadata(metadata: &Spot<'_>, faults: &mut Faults) {
    let annotations = metadata.child("annotations");
    validate_annotations(annotations.value, &annotations.path, faults);
    let labels = metadata.child("labels");
    validate_labels(labels.value, &labels.path, faults);
    for (field, value) in metadata.fields("") {
        let known = matches!(field, "annotations" | "labels" | "creationTimestamp");
        if !known && !crate::spot::is_empty(value) {
            faults.forbidden(metadata.path(field), "cannot be set");
        }
    }
}

/// Faults in `volumeMounts`.
pub(super) fn validate_mounts(container: &Spot<'_>, volumes: &Volumes<'_>, faults: &mut Faults) {
    let list = container.path("volumeMounts");
    let device = |field: &str, text: &str| {
        let mut devices = container.list("volumeDevices").iter();
        devices.any(|device| device.text(field) == text)
    };
    let mut points = BTreeSet::new();
    for mount in container.items("volumeMounts") {
        let (name, point) = (mount.text("name"), mount.text("mountPath"));
        required(&mount, "name", faults);
        if !volumes.contains_key(name) {
            faults.not_found(mount.path("name"), name);
        }
        required(&mount, "mountPath", faults);
        if !points.insert(point.to_owned()) {
            faults.invalid(mount.path("mountPath"), point, "must be unique");
        }
        if device("name", name) {
            let rule = "must not already exist in volumeDevices";
            faults.invalid(mount.path("name"), name, rule);
        }
        if device("devicePath", point) {
            let rule = "must not already exist as a path in volumeDevices";
            faults.invalid(mount.path("mountPath"), point, rule);
        }
        let (plain, expression) = (mount.text("subPath"), mount.text("subPathExpr"));
        descending(plain, &format!("{list}.subPath"), faults);
        if !expression.is_empty() && !plain.is_empty() {
            let rule = "subPathExpr and subPath are mutually exclusive";
            faults.invalid(mount.path("subPathExpr"), expression, rule);
        }
        descending(expression, &format!("{list}.subPathExpr"), faults);
        validate_propagation(&mount, container, &list, faults);
    }
}

fn validate_propagation(mount: &Spot<'_>, container: &Spot<'_>, list: &str, faults: &mut Faults) {
    let words = ["Bidirectional", "HostToContainer", "None"];
    let propagation = mount.at("mountPropagation");
    let word = propagation.as_str().unwrap_or("");
    let path = format!("{list}.mountPropagation");
    if !propagation.is_null() && !words.contains(&word) {
        unsupported(faults, path.clone(), propagation.clone(), &words);
    }
    if word == "Bidirectional" && !container.flag("securityContext.privileged") {
        let rule = "Bidirectional mount propagation is available only to privileged containers";
        faults.forbidden(path, rule);
    }
    let path = format!("{list}.recursiveReadOnly");
    match mount.at("recursiveReadOnly") {
        Value::Null => {}
        value => match value.as_str().unwrap_or("") {
            "Disabled" => {}
            "Enabled" | "IfPossible" => {
                if !mount.flag("readOnly") {
                    faults.forbidden(path.clone(), "may only be specified when readOnly is true");
                }
                if !matches!(word, "" | "None") {
                    let rule =
                        "may only be specified when mountPropagation is None or not specified";
                    faults.forbidden(path, rule);
                }
            }
            other => unsupported(faults, path, other, &["Disabled", "Enabled", "IfPossible"]),
        },
    }
}

/// Faults in `volumeDevices`.
pub(super) fn validate_devices(container: &Spot<'_>, volumes: &Volumes<'_>, faults: &mut Faults) {
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    let mounted = |field: &str, text: &str| {
        let mut mounts = container.list("volumeMounts").iter();
        mounts.any(|mount| mount.text(field) == text)
    };
    for device in container.items("volumeDevices") {
        let (name, path) = (device.text("name"), device.text("devicePath"));
        required(&device, "name", faults);
        if !names.insert(name.to_owned()) {
            faults.invalid(device.path("name"), name, "must be unique");
        }
        match volumes.get(name) {
            None => faults.not_found(device.path("name"), name),
            Some(volume) if volume.has("persistentVolumeClaim") || volume.has("ephemeral") => {}
            Some(_) => {
                let rule = "can only use volume source type of PersistentVolumeClaim or \
                            Ephemeral for block mode";
                faults.invalid(device.path("name"), name, rule);
            }
        }
        required(&device, "devicePath", faults);
        if !paths.insert(path.to_owned()) {
            faults.invalid(device.path("devicePath"), path, "must be unique");
        }
        if path.split('/').any(|part| part == "..") {
            let rule = "can not contain backsteps ('..')";
            faults.invalid(device.path("devicePath"), path, rule);
        }
        if mounted("name", name) {
            let rule = "must not already exist in volumeMounts";
            faults.invalid(device.path("name"), name, rule);
        }
        if mounted("mountPath", path) {
            let rule = "must not already exist as a path in volumeMounts";
            faults.invalid(device.path("devicePath"), path, rule);
        }
    }
}
