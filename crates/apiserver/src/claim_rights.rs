//! Who may say what about a claim of devices: its allocation and reservations are the scheduler's to
//! write, the state of devices is their drivers'.

use std::collections::{BTreeMap, BTreeSet};

use admission::Lookup as _;
use auth::Attributes;
use meta::{Faults, naming};
use serde_json::Value;

use crate::device_rights;
use crate::verbs::write::{Write, text};

/// Names the node of whom a service account's token was made for.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Adds what the user may not change in the status of a claim.
pub(crate) fn check(write: &Write<'_>, new: &Value, old: &Value, faults: &mut Faults) {
    if write.names().group_resource() != "resourceclaims.resource.k8s.io" {
        return;
    }
    device_rights::check_status(write, new, old, faults);
    let moved = |path: &str| new.pointer(path) != old.pointer(path);
    if moved("/status/allocation") || moved("/status/reservedFor") {
        check_binding(write, faults);
    }
    if new
        .pointer("/status/allocation")
        .is_some_and(|own| !own.is_null())
    {
        check_devices(write, (new, old), faults);
    }
}

fn check_binding(write: &Write<'_>, faults: &mut Faults) {
    let asked = Attributes {
        subresource: "binding".into(),
        ..asked(write)
    };
    if !write.core.lookup.may(&write.call.user, &asked) {
        let rule = format!(
            "changing status.allocation or status.reservedFor requires \
             resource=\"resourceclaims/binding\", verb=\"{}\" permission: {}",
            asked.verb,
            refusal(write, &asked)
        );
        faults.forbidden("status.allocation", rule);
    }
}

fn check_devices(write: &Write<'_>, (new, old): (&Value, &Value), faults: &mut Faults) {
    let verb = write.call.info.verb;
    let mut verbs = vec![format!("arbitrary-node:{verb}")];
    if is_beside(write, new) {
        verbs.insert(0, format!("associated-node:{verb}"));
    }
    for driver in changed_drivers(new, old) {
        let ways = verbs.iter().map(|verb| Attributes {
            verb: verb.clone(),
            subresource: "driver".into(),
            name: driver.to_owned(),
            namespace: write.namespace.to_owned(),
            ..asked(write)
        });
        let ways: Vec<Attributes> = ways.collect();
        let may = |asked: &Attributes| write.core.lookup.may(&write.call.user, asked);
        if !ways.iter().any(may) {
            let rule = format!(
                "changing status.devices requires resource=\"resourceclaims/driver\", \
                 verb=\"[{}]\" permission: {}",
                verbs.join(" "),
                refusal(write, &ways[0])
            );
            faults.forbidden("status.devices", rule);
        }
    }
}

fn asked(write: &Write<'_>) -> Attributes {
    let info = &write.call.info;
    Attributes {
        verb: info.verb.into(),
        group: info.group.clone(),
        version: info.version.clone(),
        resource: info.resource.clone(),
        ..Attributes::default()
    }
}

fn refusal(write: &Write<'_>, asked: &Attributes) -> String {
    auth::forbidden(&write.call.user, asked, "").message
}

/// Drivers of devices whose state is new, changed or gone.
fn changed_drivers<'v>(new: &'v Value, old: &'v Value) -> BTreeSet<&'v str> {
    let (new, old) = (devices(new), devices(old));
    let both = new.iter().chain(&old);
    let changed = both.filter(|(key, _)| new.get(*key) != old.get(*key));
    changed.map(|(key, _)| key[0]).collect()
}

fn devices(claim: &Value) -> BTreeMap<[&str; 4], &Value> {
    let list = claim.pointer("/status/devices").and_then(Value::as_array);
    let devices = list.into_iter().flatten();
    let keyed = devices.map(|device| {
        let key = ["/driver", "/pool", "/device", "/shareID"].map(|path| text(device, path));
        (key, device)
    });
    keyed.collect()
}

/// Whether a service account speaks from the node that the claim was allocated on.
fn is_beside(write: &Write<'_>, claim: &Value) -> bool {
    let user = &write.call.user;
    let nodes = user.extra.get(NODE_NAME).map(Vec::as_slice);
    match nodes {
        Some([node]) if user.name.starts_with("system:serviceaccount:") => {
            naming::dns1123_subdomain(node).is_empty() && allocated_on(claim) == Some(node.as_str())
        }
        _ => false,
    }
}

/// The one node of an allocation.
fn allocated_on(claim: &Value) -> Option<&str> {
    let path = "/status/allocation/nodeSelector/nodeSelectorTerms";
    let [term] = claim.pointer(path)?.as_array()?.as_slice() else {
        return None;
    };
    let expressions = term.get("matchExpressions").and_then(Value::as_array);
    let [field] = term.get("matchFields")?.as_array()?.as_slice() else {
        return None;
    };
    let [node] = field.get("values")?.as_array()?.as_slice() else {
        return None;
    };
    let by_name = text(field, "/key") == "metadata.name" && text(field, "/operator") == "In";
    let fits = by_name && expressions.is_none_or(Vec::is_empty);
    node.as_str().filter(|_| fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn drivers_answer_for_their_devices() {
        let claim = |devices: Value| json!({"status": {"devices": devices}});
        let device = |driver: &str, device: &str, data: u8| json!({"driver": driver, "pool": "p", "device": device, "data": data});
        let old = claim(json!([
            device("a", "1", 1),
            device("b", "1", 1),
            device("c", "1", 1)
        ]));
        let new = claim(json!([
            device("b", "1", 1),
            device("c", "1", 2),
            device("d", "1", 1)
        ]));
        let changed: Vec<&str> = changed_drivers(&new, &old).into_iter().collect();
        assert_eq!(changed, ["a", "c", "d"]);
        assert!(changed_drivers(&old, &old).is_empty());
    }

    #[test]
    fn an_allocation_may_name_one_node() {
        let claim = |term: Value| json!({"status": {"allocation": {"nodeSelector": {"nodeSelectorTerms": [term]}}}});
        let field = json!({"key": "metadata.name", "operator": "In", "values": ["n1"]});
        assert_eq!(
            allocated_on(&claim(json!({"matchFields": [field]}))),
            Some("n1")
        );
        let more = json!({"matchFields": [field], "matchExpressions": [{"key": "a"}]});
        assert_eq!(allocated_on(&claim(more)), None);
        assert_eq!(allocated_on(&json!({})), None);
    }
}
