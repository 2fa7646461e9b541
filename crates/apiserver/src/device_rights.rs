//! Who may reach devices that others use: claims of namespaces that are marked for it.

use admission::Lookup as _;
use meta::Faults;
use serde_json::Value;

use crate::verbs::write::Write;

const GROUP: &str = "resource.k8s.io";
/// The mark of a namespace whose claims may ask for this.
const LABEL: &str = "resource.kubernetes.io/admin-access";

/// Adds what a new claim, or a template of claims, may not ask for in its namespace.
pub(crate) fn check(write: &Write<'_>, claim: &Value, faults: &mut Faults) {
    let names = write.names();
    let path = match names.plural.as_str() {
        _ if names.group != GROUP => return,
        "resourceclaims" => "/spec/devices/requests",
        "resourceclaimtemplates" => "/spec/spec/devices/requests",
        _ => return,
    };
    let requests = claim.pointer(path).and_then(Value::as_array);
    let mut requests = requests.into_iter().flatten();
    let is_admin = |request: &Value| request.pointer("/exactly/adminAccess") == Some(&true.into());
    let Some(at) = requests.position(is_admin) else {
        return;
    };
    // Upstream names this place for templates too.
    need_mark(
        write,
        format!("spec.devices.requests[{at}].adminAccess"),
        faults,
    );
}

/// Adds what an allocation may not grant in its namespace; what was granted stays.
pub(crate) fn check_status(write: &Write<'_>, new: &Value, old: &Value, faults: &mut Faults) {
    let granted = |claim: &Value| {
        let results = claim.pointer("/status/allocation/devices/results");
        let results = results.and_then(Value::as_array);
        let mut results = results.into_iter().flatten();
        results.position(|result| result["adminAccess"] == true)
    };
    if let (Some(at), None) = (granted(new), granted(old)) {
        let path = format!("status.allocation.devices.results[{at}].adminAccess");
        need_mark(write, path, faults);
    }
}

fn need_mark(write: &Write<'_>, path: String, faults: &mut Faults) {
    let namespace = write.core.lookup.get("namespaces", "", write.namespace);
    if namespace.is_none_or(|namespace| namespace.label(LABEL) != Some("true")) {
        let rule = format!(
            "admin access to devices requires the `{LABEL}: true` label on the containing \
             namespace"
        );
        faults.forbidden(path, rule);
    }
}
