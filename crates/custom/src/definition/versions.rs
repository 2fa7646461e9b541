//! `spec.versions`, and the versions that objects were stored in.

use std::collections::BTreeSet;

use meta::{FaultKind, Faults, naming};
use serde_json::Value;

use super::{flag, list, structure, text};

const STORED: &str = "status.storedVersions";
/// Longest `deprecationWarning`, in bytes.
const WARNING_BYTES_MAX: usize = 256;

/// Faults of the list of versions as a whole.
pub(super) fn validate(versions: &[Value], faults: &mut Faults) {
    let mut refuse = |rule: &str| {
        faults.add_shown("spec.versions", FaultKind::Invalid, shown(versions), rule);
    };
    let names: BTreeSet<&str> = versions.iter().map(|own| text(own, "/name")).collect();
    if names.len() != versions.len() {
        refuse("must contain unique version names");
    }
    let stored = versions.iter().filter(|own| flag(own, "storage")).count();
    if stored != 1 {
        refuse("must have exactly one version marked as storage version");
    }
    // The first version stands for the definition, once more.
    let first = versions.first().map_or("", |first| text(first, "/name"));
    let broken = naming::dns1035_label(first).join(",");
    if !first.is_empty() && !broken.is_empty() {
        faults.invalid("spec.version", first, broken);
    }
}

/// Versions as upstream shows them in faults: what all say alike is none of theirs.
fn shown(versions: &[Value]) -> String {
    let Some(first) = versions.first() else {
        return "null".into();
    };
    let is_shared = |field: &str| {
        versions
            .iter()
            .all(|own| own.get(field) == first.get(field))
    };
    let own = |version: &Value, field: &str| match is_shared(field) {
        true => Value::Null,
        false => version.get(field).cloned().unwrap_or_default(),
    };
    let versions: Vec<String> = versions
        .iter()
        .map(|version| {
            structure(&[
                ("Name", text(version, "/name").into()),
                ("Served", flag(version, "served").into()),
                ("Storage", flag(version, "storage").into()),
                ("Deprecated", flag(version, "deprecated").into()),
                (
                    "DeprecationWarning",
                    version
                        .get("deprecationWarning")
                        .cloned()
                        .unwrap_or_default(),
                ),
                ("Schema", own(version, "schema")),
                ("Subresources", own(version, "subresources")),
                (
                    "AdditionalPrinterColumns",
                    own(version, "additionalPrinterColumns"),
                ),
                ("SelectableFields", own(version, "selectableFields")),
            ])
        })
        .collect();
    format!("[{}]", versions.join(","))
}

/// Faults of a version's name and deprecation.
pub(super) fn validate_one(version: &Value, path: &str, faults: &mut Faults) {
    let name = text(version, "/name");
    let broken = naming::dns1035_label(name).join(",");
    if !broken.is_empty() {
        faults.invalid(format!("{path}.name"), name, broken);
    }
    let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) else {
        return;
    };
    let mut refuse = |rule: String| {
        faults.invalid(format!("{path}.deprecationWarning"), warning, rule);
    };
    if !flag(version, "deprecated") {
        return refuse("can only be set for deprecated versions".into());
    }
    if warning.len() > WARNING_BYTES_MAX {
        refuse(format!("must be <= {WARNING_BYTES_MAX} characters long"));
    }
    if warning.is_empty() {
        refuse("must not be an empty string".into());
    }
    if let Some((at, _)) = warning.char_indices().find(|(_, sign)| sign.is_control()) {
        refuse(format!(
            "must only contain printable UTF-8 characters; non-printable character found at \
             index {at}"
        ));
    }
}

/// Faults of `status.storedVersions`.
pub(super) fn validate_stored(definition: &Value, faults: &mut Faults) {
    let stored = list(definition, "/status/storedVersions");
    let versions = list(definition, "/spec/versions");
    if stored.is_empty() {
        let rule = "must have at least one stored version";
        return faults.invalid(STORED, Value::Null, rule);
    }
    let mut left: Vec<&Value> = stored.iter().collect();
    for version in versions {
        let name = text(version, "/name");
        let known = left.iter().position(|own| *own == name);
        if let Some(known) = known {
            left.remove(known);
        } else if flag(version, "storage") {
            let rule = format!("must have the storage version {name}");
            faults.invalid(STORED, stored.to_vec(), rule);
        }
    }
    for (at, name) in stored.iter().enumerate() {
        let name = name.as_str().unwrap_or("");
        if !versions.iter().any(|own| text(own, "/name") == name) {
            let rule = format!(
                "missing from spec.versions; {name} was previously a storage version, and must \
                 remain in spec.versions until a storage migration ensures no data remains \
                 persisted in {name} and removes {name} from status.storedVersions"
            );
            faults.invalid(format!("{STORED}[{at}]"), name, rule);
        }
    }
}
