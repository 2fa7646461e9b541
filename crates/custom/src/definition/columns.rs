//! Printer columns, and the paths of subresources.

use meta::Faults;
use serde_json::Value;

use super::{list, text};

const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const FORMATS: [&str; 8] = [
    "byte",
    "date",
    "date-time",
    "double",
    "float",
    "int32",
    "int64",
    "password",
];

/// Faults of `additionalPrinterColumns`.
pub(super) fn validate(version: &Value, path: &str, faults: &mut Faults) {
    for (at, column) in list(version, "/additionalPrinterColumns")
        .iter()
        .enumerate()
    {
        validate_column(column, &format!("{path}[{at}]"), faults);
    }
}

fn validate_column(column: &Value, path: &str, faults: &mut Faults) {
    if text(column, "/name").is_empty() {
        faults.required(format!("{path}.name"), "");
    }
    let types = || format!("must be one of {}", TYPES.join(","));
    match text(column, "/type") {
        "" => faults.required(format!("{path}.type"), types()),
        own if TYPES.contains(&own) => {}
        own => faults.invalid(format!("{path}.type"), own, types()),
    }
    let format = text(column, "/format");
    if !format.is_empty() && !FORMATS.contains(&format) {
        let rule = format!("must be one of {}", FORMATS.join(","));
        faults.invalid(format!("{path}.format"), format, rule);
    }
    let at = format!("{path}.JSONPath");
    match text(column, "/jsonPath") {
        "" => faults.required(at, ""),
        own => drop(simple_path(own, &at, faults)),
    }
}

/// Whether a path begins with a dot.
fn simple_path(path: &str, at: &str, faults: &mut Faults) -> bool {
    let sound = path.starts_with('.');
    if !sound {
        faults.invalid(at, path, "must be a simple json path starting with .");
    }
    sound
}

/// Faults of `subresources`.
pub(super) fn validate_subresources(version: &Value, path: &str, faults: &mut Faults) {
    let Some(scale) = version.pointer("/subresources/scale") else {
        return;
    };
    for (field, root) in [
        ("specReplicasPath", ".spec"),
        ("statusReplicasPath", ".status"),
    ] {
        let at = format!("{path}.scale.{field}");
        match text(scale, &format!("/{field}")) {
            "" => faults.required(at, ""),
            own => {
                if simple_path(own, &at, faults) && !own.starts_with(&format!("{root}.")) {
                    faults.invalid(at, own, format!("should be a json path under {root}"));
                }
            }
        }
    }
    let own = text(scale, "/labelSelectorPath");
    let at = format!("{path}.scale.labelSelectorPath");
    let below = own.starts_with(".spec.") || own.starts_with(".status.");
    if !own.is_empty() && simple_path(own, &at, faults) && !below {
        faults.invalid(
            at,
            own,
            "should be a json path under either .spec or .status",
        );
    }
}
