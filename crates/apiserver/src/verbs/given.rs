//! Which options of writes are refused, and how: 422 in upstream's words.

use meta::{FaultKind, Faults, Reason, Status};
use serde_json::Value;

use crate::chain::Call;

/// Longest name of a field manager, in bytes.
const MANAGER_BYTES_MAX: usize = 128;

/// The media type of an apply.
pub(crate) const APPLY: &str = "application/apply-patch+yaml";

/// Checks the options in the query of a create, update or patch; those of a deletion stand in its
/// body too.
pub(crate) fn check(call: &Call) -> Result<(), Status> {
    let kind = match call.info.verb {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        "patch" => "PatchOptions",
        _ => return Ok(()),
    };
    let is_apply = call.info.verb == "patch" && call.content_type() == APPLY;
    // Nobody pays who names none.
    if call.query.is_empty() && !is_apply {
        return Ok(());
    }
    let mut faults = Faults::new();
    let manager = call.query.get("fieldManager").unwrap_or("");
    if kind == "PatchOptions" {
        let force = call.query.all("force").next();
        if is_apply && manager.is_empty() {
            faults.required("fieldManager", "is required for apply patch");
        }
        if !is_apply && force.is_some() {
            faults.forbidden("force", "may not be specified for non-apply patch");
        }
    }
    manager_faults(manager, &mut faults);
    let runs: Vec<&str> = call.query.all("dryRun").collect();
    dry_run_faults(&runs, &mut faults);
    let validation = call.query.get("fieldValidation").unwrap_or("");
    let known = ["", "Ignore", "Strict", "Warn"];
    if !known.contains(&validation) {
        faults.not_supported("fieldValidation", validation, &known);
    }
    verdict(kind, &faults)
}

fn manager_faults(manager: &str, faults: &mut Faults) {
    if manager.len() > MANAGER_BYTES_MAX {
        faults.too_long("fieldManager", MANAGER_BYTES_MAX);
    }
    for (at, sign) in manager.char_indices().filter(|(_, sign)| sign.is_control()) {
        let rule = format!(
            "invalid character U+{:04X} (at position {at})",
            u32::from(sign)
        );
        faults.invalid("fieldManager", manager, rule);
    }
}

/// A dry run is of all stages, or none.
pub(crate) fn dry_run_faults(runs: &[&str], faults: &mut Faults) {
    if runs.iter().any(|run| *run != "All") {
        let runs: Vec<Value> = runs.iter().map(|run| Value::from(*run)).collect();
        let detail = "supported values: \"All\"";
        faults.add("dryRun", FaultKind::NotSupported, runs.into(), detail);
    }
}

/// 422 about options of this kind, unless there are no faults.
pub(crate) fn verdict(kind: &str, faults: &Faults) -> Result<(), Status> {
    if faults.is_empty() {
        return Ok(());
    }
    let text = format!("{kind}.meta.k8s.io \"\" is invalid: {}", faults.summary());
    let mut status = Status::new(Reason::Invalid, text);
    status.group = "meta.k8s.io".into();
    status.kind = kind.into();
    status.causes = faults.causes();
    Err(status)
}
