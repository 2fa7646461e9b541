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
    let namespace = write.core.lookup.get("namespaces", "", write.namespace);
    if namespace.is_none_or(|namespace| namespace.label(LABEL) != Some("true")) {
        let rule = format!(
            "admin access to devices requires the `{LABEL}: true` label on the containing \
             namespace"
        );
        // Upstream names this place for templates too.
        faults.forbidden(format!("spec.devices.requests[{at}].adminAccess"), rule);
    }
}
