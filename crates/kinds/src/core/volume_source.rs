//! Faults in the sources of volumes that pods and persistent volumes share, drivers of old among
//! them. Some need more where they stand in a persistent volume.

use meta::{Faults, naming};
use serde_json::Value;

use super::pod::validate::validate_driver;
use crate::spot::{Spot, maybe_one_of, named, required, rules, unsupported};
use crate::tree::Tree;

/// Fields that must not be empty, by source.
const REQUIRED: [(&str, &[&str]); 16] = [
    ("awsElasticBlockStore", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("azureFile", &["secretName", "shareName"]),
    ("cinder", &["volumeID"]),
    ("flexVolume", &["driver"]),
    ("gcePersistentDisk", &["pdName"]),
    ("gitRepo", &["repository"]),
    ("glusterfs", &["endpoints", "path"]),
    ("iscsi", &["targetPortal"]),
    ("nfs", &["server", "path"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("quobyte", &[]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("storageos", &[]),
    ("vsphereVolume", &["volumePath"]),
];

/// What holds the source.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder<'a> {
    /// A volume of a pod, by its name.
    Pod(&'a str),
    /// A persistent volume, by its name.
    Persistent(&'a str),
}

/// Faults in the source `field` of `parent`; other sources than those shared are not looked at.
pub(super) fn validate(parent: &Spot<'_>, field: &str, holder: Holder<'_>, faults: &mut Faults) {
    let mut source = parent.child(field);
    if field == "gcePersistentDisk" {
        // So upstream calls it.
        source.path = parent.path("persistentDisk");
    }
    let needed = REQUIRED.iter().find(|(own, _)| *own == field);
    for name in needed.into_iter().flat_map(|(_, fields)| *fields) {
        required(&source, name, faults);
    }
    match field {
        "nfs" => absolute(&source, faults),
        "gitRepo" => {
            super::pod::validate::descending(
                source.text("directory"),
                &source.path("directory"),
                faults,
            );
        }
        "gcePersistentDisk" | "awsElasticBlockStore" => partition(&source, faults),
        "glusterfs" => glusterfs(&source, holder, faults),
        "flocker" => flocker(&source, faults),
        "rbd" | "cephfs" if source.count("monitors") == 0 => {
            faults.required(source.path("monitors"), "");
        }
        "quobyte" => quobyte(&source, faults),
        "iscsi" => iscsi(parent, &source, holder, faults),
        "fc" => fibre_channel(&source, faults),
        "flexVolume" => options(&source, faults),
        "azureDisk" => azure_disk(&source, faults),
        "azureFile" if source.at("secretNamespace") == "" => {
            faults.required(source.path("secretNamespace"), "");
        }
        "cinder" => secret(&source, holder, faults),
        "storageos" => {
            named(&source, "volumeName", naming::dns1123_label, faults);
            crate::spot::maybe_named(&source, "volumeNamespace", naming::dns1123_label, faults);
            secret(&source, holder, faults);
        }
        _ => {}
    }
}

fn absolute(nfs: &Spot<'_>, faults: &mut Faults) {
    let path = nfs.text("path");
    if !path.starts_with('/') {
        faults.invalid(nfs.path("path"), path, "must be an absolute path");
    }
}

fn partition(disk: &Spot<'_>, faults: &mut Faults) {
    let number = disk.int("partition");
    if !(0..=255).contains(&number) {
        let rule = "must be between 1 and 255, inclusive";
        faults.invalid(disk.path("partition"), number, rule);
    }
}

fn unit(source: &Spot<'_>, faults: &mut Faults) {
    let number = source.int("lun");
    rules(
        faults,
        source.path("lun"),
        number,
        naming::in_range(number, 0, 255),
    );
}

fn glusterfs(source: &Spot<'_>, holder: Holder<'_>, faults: &mut Faults) {
    let Holder::Persistent(_) = holder else {
        return;
    };
    let path = source.path("endpointsNamespace");
    match source.at("endpointsNamespace").as_str() {
        None => {}
        Some("") => {
            let rule = "if the endpointnamespace is set, it must be a valid namespace name";
            faults.invalid(path, "", rule);
        }
        Some(namespace) => rules(faults, path, namespace, naming::dns1123_label(namespace)),
    }
}

fn flocker(source: &Spot<'_>, faults: &mut Faults) {
    let (name, uuid) = (source.text("datasetName"), source.text("datasetUUID"));
    if name.is_empty() && uuid.is_empty() {
        let rule = "one of datasetName and datasetUUID is required";
        faults.required(source.path.clone(), rule);
    }
    if !name.is_empty() && !uuid.is_empty() {
        let rule = "datasetName and datasetUUID can not be specified simultaneously";
        faults.invalid(source.path.clone(), "resource", rule);
    }
    if name.contains('/') {
        faults.invalid(source.path("datasetName"), name, "must not contain '/'");
    }
}

fn quobyte(source: &Spot<'_>, faults: &mut Faults) {
    let rule = "must be a host:port pair or multiple pairs separated by commas";
    let registry = source.text("registry");
    if registry.is_empty() {
        faults.required(source.path("registry"), rule);
    } else if source.text("tenant").len() >= 65 {
        let rule = "must be a UUID and may not exceed a length of 64 characters";
        faults.required(source.path("tenant"), rule);
    } else {
        let odd = |text: &&str| {
            let pair = text.rsplit_once(':');
            pair.is_none_or(|(host, _)| host.contains(':'))
        };
        for _ in registry.split(',').filter(odd) {
            faults.invalid(source.path("registry"), registry, rule);
        }
    }
    required(source, "volume", faults);
}

/// Which rule of names of initiators and targets the text breaks, if any.
fn qualified_name(text: &str) -> Option<&'static str> {
    const RULE: &str = "must be valid format";
    let word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    // One character follows the three letters, whichever it is.
    let serial = |text: &str, length: usize| {
        let mut rest = text.chars();
        rest.nth(3).is_some_and(|one| one != '\n') && {
            let rest = rest.as_str();
            rest.len() == length && word(rest)
        }
    };
    let sound = match text.get(..3) {
        Some("iqn") => text.strip_prefix("iqn.").is_some_and(|rest| {
            let (date, rest) = rest.split_at_checked(8).unwrap_or(("", rest));
            let dated = date.len() == 8
                && digits(&date[..4])
                && &date[4..5] == "-"
                && digits(&date[5..7])
                && date.ends_with('.');
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
            let odd = |one: char| ",;*&$|".contains(one) || one.is_ascii_whitespace();
            let parts = rest.split_once(':');
            dated
                && parts.is_some_and(|(authority, name)| {
                    !authority.is_empty()
                        && authority.bytes().all(plain)
                        && !name.is_empty()
                        && !name.contains(odd)
                })
        }),
        Some("eui") => serial(text, 16),
        Some("naa") => serial(text, 32),
        _ => return Some("must be valid format starting with iqn, eui, or naa"),
    };
    (!sound).then_some(RULE)
}

fn iscsi(parent: &Spot<'_>, source: &Spot<'_>, holder: Holder<'_>, faults: &mut Faults) {
    const LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 \
                        characters if iscsi.initiatorName is specified.";
    let portal = source.text("targetPortal");
    let name = match holder {
        Holder::Pod(name) | Holder::Persistent(name) => name,
    };
    let long = source.has("initiatorName") && name.len() + 1 + portal.len() > 64;
    if long && matches!(holder, Holder::Persistent(_)) {
        faults.invalid(source.path("targetportal"), portal, LONG);
    }
    let rule_of = |text: &str| match holder {
        Holder::Pod(_) => qualified_name(text),
        Holder::Persistent(_) => qualified_name(text).map(|_| "must be valid format"),
    };
    match source.text("iqn") {
        "" => faults.required(source.path("iqn"), ""),
        iqn => {
            if let Some(rule) = rule_of(iqn) {
                faults.invalid(source.path("iqn"), iqn, rule);
            }
        }
    }
    unit(source, faults);
    let asks = source.flag("chapAuthDiscovery") || source.flag("chapAuthSession");
    if asks && !source.has("secretRef") {
        faults.required(source.path("secretRef"), "");
    }
    if let Some(secret) = source.some("secretRef")
        && matches!(holder, Holder::Persistent(_))
    {
        required(&secret, "name", faults);
    }
    if let Some(initiator) = source.at("initiatorName").as_str()
        && let Some(rule) = rule_of(initiator)
    {
        faults.invalid(source.path("initiatorname"), initiator, rule);
    }
    if long && matches!(holder, Holder::Pod(_)) {
        faults.invalid(parent.path("name"), name, LONG);
    }
}

fn fibre_channel(source: &Spot<'_>, faults: &mut Faults) {
    let (names, ids) = (source.count("targetWWNs"), source.count("wwids"));
    if names == 0 && ids == 0 {
        let rule = "must specify either targetWWNs or wwids, but not both";
        faults.required(source.path("targetWWNs"), rule);
    }
    if names > 0 && ids > 0 {
        let rule = "targetWWNs and wwids can not be specified simultaneously";
        let list = source.at("targetWWNs").clone();
        faults.invalid(source.path("targetWWNs"), list, rule);
    }
    if names > 0 && !source.has("lun") {
        let rule = "lun is required if targetWWNs is specified";
        faults.required(source.path("lun"), rule);
    } else if names > 0 {
        unit(source, faults);
    }
}

fn options(source: &Spot<'_>, faults: &mut Faults) {
    let options = source.child("options");
    for (key, _) in options.fields("") {
        let namespace = key.split_once('/').map_or(key, |(namespace, _)| namespace);
        let namespace = format!(".{}", namespace.to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            let rule = "kubernetes.io and k8s.io namespaces are reserved";
            faults.invalid(options.entry_path(key), key, rule);
        }
    }
}

fn azure_disk(source: &Spot<'_>, faults: &mut Faults) {
    maybe_one_of(
        source,
        "cachingMode",
        &["None", "ReadOnly", "ReadWrite"],
        faults,
    );
    maybe_one_of(source, "kind", &["Dedicated", "Managed", "Shared"], faults);
    let uri = source.text("diskURI");
    let (start, form) = match source.at("kind") {
        Value::Null => return,
        kind if kind == "Managed" => (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/\
             disks/{disk-id}",
        ),
        _ => (
            "https://",
            "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd",
        ),
    };
    if !uri.starts_with(start) {
        unsupported(faults, source.path("diskURI"), uri, &[form]);
    }
}

/// A secret; that of a persistent volume says where it is.
fn secret(source: &Spot<'_>, holder: Holder<'_>, faults: &mut Faults) {
    let Some(secret) = source.some("secretRef") else {
        return;
    };
    required(&secret, "name", faults);
    if matches!(holder, Holder::Persistent(_)) {
        required(&secret, "namespace", faults);
    }
}

/// Faults in the `csi` of a persistent volume.
pub(super) fn validate_csi(csi: &Spot<'_>, faults: &mut Faults) {
    validate_driver(csi, "driver", faults);
    required(csi, "volumeHandle", faults);
    for field in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        if let Some(secret) = csi.some(field) {
            named(&secret, "name", naming::dns1123_subdomain, faults);
            named(&secret, "namespace", naming::dns1123_label, faults);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(field: &str, source: Value, persistent: bool, expected: &[&str]) {
        let parent = json!({ field: source });
        let spot = Spot {
            value: &parent,
            path: "spec".into(),
        };
        let holder = match persistent {
            true => Holder::Persistent("v"),
            false => Holder::Pod("v"),
        };
        let mut faults = Faults::new();
        validate(&spot, field, holder, &mut faults);
        let found: Vec<_> = faults.0.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{field} {source}");
    }

    #[test]
    fn sources_have_what_they_need() {
        let none: &[&str] = &[];
        check("nfs", json!({"server": "a", "path": "/b"}), false, none);
        check(
            "nfs",
            json!({"server": "a", "path": "b"}),
            true,
            &["spec.nfs.path: Invalid value: \"b\": must be an absolute path"],
        );
        check(
            "gcePersistentDisk",
            json!({"partition": 256}),
            false,
            &[
                "spec.persistentDisk.pdName: Required value",
                "spec.persistentDisk.partition: Invalid value: 256: must be between 1 and 255, \
                 inclusive",
            ],
        );
        check(
            "rbd",
            json!({}),
            false,
            &["spec.rbd.monitors: Required value"],
        );
        check(
            "flexVolume",
            json!({"driver": "d", "options": {"a.k8s.io/x": "", "b/x": ""}}),
            false,
            &[
                "spec.flexVolume.options[a.k8s.io/x]: Invalid value: \"a.k8s.io/x\": \
                 kubernetes.io and k8s.io namespaces are reserved",
            ],
        );
        check(
            "fc",
            json!({"targetWWNs": ["x"]}),
            false,
            &["spec.fc.lun: Required value: lun is required if targetWWNs is specified"],
        );
        let cinder = json!({"volumeID": "v", "secretRef": {"name": "s"}});
        check("cinder", cinder.clone(), false, none);
        check(
            "cinder",
            cinder,
            true,
            &["spec.cinder.secretRef.namespace: Required value"],
        );
        check(
            "azureDisk",
            json!({"diskName": "d", "diskURI": "x", "kind": "Managed"}),
            false,
            &[
                "spec.azureDisk.diskURI: Unsupported value: \"x\": supported values: \
                 \"/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/\
                 microsoft.compute/disks/{disk-id}\"",
            ],
        );
    }

    #[test]
    fn targets_have_qualified_names() {
        let check_name = |iqn: &str, persistent: bool, expected: Option<&str>| {
            let expected =
                expected.map(|rule| format!("spec.iscsi.iqn: Invalid value: {iqn:?}: {rule}"));
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            let source = json!({"targetPortal": "p", "iqn": iqn, "lun": 1});
            check("iscsi", source, persistent, &expected);
        };
        check_name("iqn.2001-04.com.example:storage.a", false, None);
        check_name("eui.0123456789ABCDEF", false, None);
        let broken = Some("must be valid format");
        check_name("iqn.2001-04.com.example", false, broken);
        check_name("iqn.2001-4.com.example:a", false, broken);
        check_name("iqn.2001-04.com.example:a b", false, broken);
        check_name("eui.0123", false, broken);
        check_name("naa.x", true, broken);
        let start = Some("must be valid format starting with iqn, eui, or naa");
        check_name("abc", false, start);
        check_name("abc", true, broken);
    }
}
