//! What a kind may be called.

use meta::{Faults, naming};
use serde_json::Value;

use super::{list, text};

/// Faults of `spec.names` or `status.acceptedNames`.
pub(super) fn validate(names: &Value, path: &str, faults: &mut Faults) {
    let label = |text: &str| naming::dns1035_label(text).join(",");
    for field in ["plural", "singular"] {
        let own = text(names, &format!("/{field}"));
        let broken = label(own);
        if !own.is_empty() && !broken.is_empty() {
            faults.invalid(format!("{path}.{field}"), own, broken);
        }
    }
    for field in ["kind", "listKind"] {
        let own = text(names, &format!("/{field}"));
        let broken = label(&own.to_lowercase());
        if !own.is_empty() && !broken.is_empty() {
            let rule = format!("may have mixed case, but should otherwise match: {broken}");
            faults.invalid(format!("{path}.{field}"), own, rule);
        }
    }
    several(names, "shortNames", path, faults);
    let (kind, list_kind) = (text(names, "/kind"), text(names, "/listKind"));
    if !kind.is_empty() && kind == list_kind {
        let rule = "kind and listKind may not be the same";
        faults.invalid(format!("{path}.listKind"), list_kind, rule);
    }
    several(names, "categories", path, faults);
}

fn several(names: &Value, field: &str, path: &str, faults: &mut Faults) {
    for (at, own) in list(names, &format!("/{field}")).iter().enumerate() {
        let own = own.as_str().unwrap_or("");
        let broken = naming::dns1035_label(own).join(",");
        if !broken.is_empty() {
            faults.invalid(format!("{path}.{field}[{at}]"), own, broken);
        }
    }
}
