//! Node.

use std::collections::BTreeSet;

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use super::pod::defaults::canonical_quantities;
use super::pod::validate::{validate_amount, validate_effect};
use crate::go::{NODE_ADDRESS, TAINT, shown};
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, rules};
use crate::table::{age, cells, name, or};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Status, Roles, Age, Version, Internal-IP*, External-IP*, \
     OS-Image*, Kernel-Version*, Container-Runtime*";

pub(crate) struct Node;

impl Strategy for Node {
    fn default(&self, object: &mut Value) {
        sync_ranges(object);
        for path in ["status.capacity", "status.allocatable"] {
            if let Some(list) = object.at_mut(path) {
                canonical_quantities(list);
            }
        }
        if !object.has("status.allocatable") && object.has("status.capacity") {
            let capacity = object.at("status.capacity").clone();
            object.set("status.allocatable", capacity);
        }
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        validate_taints(object, faults);
        validate_resources(object, faults);
        validate_features(object, faults);
        let swap = object.maybe_int("status.nodeInfo.swap.capacity");
        if let Some(capacity) = swap.filter(|capacity| *capacity <= 0) {
            // So upstream calls the field.
            let path = "metadata.nodeSwapStatus.capacity";
            faults.invalid(path, capacity, "must be greater than zero");
        }
        validate_ranges(object, faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        validate_resources(object, faults);
        validate_ranges(object, faults);
        let (ranges, before) = (object.list("spec.podCIDRs"), old.list("spec.podCIDRs"));
        if !before.is_empty() && ranges != before {
            let rule = "node updates may not change podCIDR except from \"\" to valid";
            faults.forbidden("spec.podCIDRs", rule);
        }
        let provider = old.text("spec.providerID");
        if !provider.is_empty() && provider != object.text("spec.providerID") {
            let rule = "node updates may not change providerID except from \"\" to valid";
            faults.forbidden("spec.providerID", rule);
        }
        if object.text("spec.externalID") != old.text("spec.externalID") {
            faults.forbidden("spec.externalID", "may not be updated");
        }
        // Upstream looks at them twice here.
        validate_taints(object, faults);
        validate_taints(object, faults);
    }

    fn validate_status(&self, object: &Value, _old: &Value, faults: &mut Faults) {
        validate_resources(object, faults);
        validate_features(object, faults);
        let mut seen: Vec<&Value> = Vec::new();
        for (index, address) in object.list("status.addresses").iter().enumerate() {
            if seen.contains(&address) {
                let path = format!("status.addresses[{index}]");
                let shown = shown(address, &NODE_ADDRESS);
                faults.add_shown(path, meta::FaultKind::Duplicate, shown, "");
            }
            seen.push(address);
        }
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let unschedulable = object.flag("spec.unschedulable");
        vec![("spec.unschedulable", unschedulable.to_string())]
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let mut warnings = Vec::new();
        if object.has("spec.configSource") {
            warnings.push("spec.configSource: the feature is removed".into());
        }
        if !object.text("spec.externalID").is_empty() {
            let warning = "spec.externalID: this field is deprecated, and is unused by Kubernetes";
            warnings.push(warning.into());
        }
        let ranges = Spot::new(object, "spec").items("podCIDRs");
        warnings.extend(crate::warnings::each(ranges, crate::warnings::cidr));
        warnings
    }

    fn cells(&self, node: &Value, now: Timestamp) -> Cells {
        let info = node.at("status.nodeInfo");
        let mut kernel = or(info.text("kernelVersion"), "<unknown>").to_owned();
        if !info.text("architecture").is_empty() {
            kernel = format!("{kernel} ({})", info.text("architecture"));
        }
        cells![
            name(node),
            status(node),
            roles(node),
            age(node, now),
            info.text("kubeletVersion"),
            address(node, "InternalIP"),
            address(node, "ExternalIP"),
            or(info.text("osImage"), "<unknown>"),
            kernel,
            or(info.text("containerRuntimeVersion"), "<unknown>"),
        ]
    }
}

fn status(node: &Value) -> String {
    let conditions = node.list("status.conditions").iter().rev();
    let ready = conditions.clone().find(|one| one.text("type") == "Ready");
    let mut status = match ready.map(|ready| ready.text("status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node.flag("spec.unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(node: &Value) -> String {
    let role = |(key, value): (&str, &Value)| {
        let role = match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => role,
            None if key == "kubernetes.io/role" => value.as_str().unwrap_or(""),
            None => "",
        };
        (!role.is_empty()).then(|| role.to_owned())
    };
    let roles: BTreeSet<_> = node.fields("metadata.labels").filter_map(role).collect();
    let roles: Vec<_> = roles.into_iter().collect();
    or(&roles.join(","), "<none>").to_owned()
}

fn address(node: &Value, kind: &str) -> String {
    let mut addresses = node.list("status.addresses").iter();
    let found = addresses.find(|address| address.text("type") == kind);
    found.map_or("<none>", |one| one.text("address")).to_owned()
}

fn validate_resources(node: &Value, faults: &mut Faults) {
    for path in ["status.capacity", "status.allocatable"] {
        for (name, amount) in node.fields(path) {
            validate_amount(name, amount, &format!("{path}.{name}"), faults);
        }
    }
}

/// Ranges of pods: sound ones, and of two families where there are two.
fn validate_ranges(node: &Value, faults: &mut Faults) {
    for range in Spot::new(node, "spec").items("podCIDRs") {
        let text = range.as_str().unwrap_or("");
        rules(faults, range.path.clone(), text, naming::cidr(text));
    }
    let ranges = node.list("spec.podCIDRs");
    if ranges.len() < 2 {
        return;
    }
    for (index, range) in node.texts("spec.podCIDRs").enumerate() {
        if !naming::cidr(range).is_empty() {
            let why = format!(
                "invalid PodCIDRs. failed to check with dual stack with error:invalid \
                 CIDR[{index}]: <nil> (invalid CIDR address: {range})"
            );
            faults.add("spec.podCIDRs", meta::FaultKind::Internal, Value::Null, why);
            break;
        }
    }
    let sixes = node.texts("spec.podCIDRs").filter(|own| own.contains(':'));
    if ranges.len() > 2 || sixes.count() != 1 {
        let rule = "may specify no more than one CIDR for each IP family";
        faults.invalid("spec.podCIDRs", ranges.to_vec(), rule);
    }
}

/// Names of features are sorted, and made of words that begin with capitals.
fn validate_features(node: &Value, faults: &mut Faults) {
    const MAX: usize = 253;
    let mut before: Option<String> = None;
    for feature in Spot::new(node, "status").items("declaredFeatures") {
        let name = feature.as_str().unwrap_or("");
        let rule = if name.len() > MAX {
            format!("invalid feature name {name:?}: must be no more than {MAX} characters")
        } else if !is_feature(name) {
            format!(
                "invalid feature name {name:?}: must start with an UpperCamelCase segment, with \
                 subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), \
                 and contain only alphanumeric characters and slashes"
            )
        } else {
            String::new()
        };
        if !rule.is_empty() {
            faults.invalid(feature.path.clone(), name, rule);
        }
        match before.as_deref() {
            Some(last) if last == name => faults.duplicate(feature.path.clone(), name),
            Some(last) if last > name => {
                let rule = "list must be sorted alphabetically";
                faults.invalid(feature.path.clone(), name, rule);
            }
            _ => {}
        }
        before = Some(name.to_owned());
    }
}

fn is_feature(name: &str) -> bool {
    let word = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphabetic())
            && part.bytes().all(|one| one.is_ascii_alphanumeric())
    };
    name.starts_with(|first: char| first.is_ascii_uppercase()) && name.split('/').all(word)
}

/// Upstream reports taints below `metadata`, so that is where users look for them.
fn validate_taints(node: &Value, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    let metadata = Spot {
        value: node.at("spec"),
        path: "metadata".into(),
    };
    for taint in metadata.items("taints") {
        let (key, value) = (taint.text("key"), taint.text("value"));
        rules(faults, taint.path("key"), key, naming::qualified_name(key));
        let broken = naming::label_value(value);
        if !broken.is_empty() {
            faults.invalid(taint.path("value"), value, broken.join(";"));
        }
        match taint.text("effect") {
            "" => faults.required(taint.path("effect"), ""),
            _ => validate_effect(&taint, faults),
        }
        if !seen.insert((taint.text("effect").to_owned(), key.to_owned())) {
            let kind = meta::FaultKind::Duplicate;
            let detail = "taints must be unique by key and effect pair";
            let shown = shown(taint.value, &TAINT);
            faults.add_shown(taint.path.clone(), kind, shown, detail);
        }
    }
}

/// Keeps the old field for one range and the new one for several the same.
fn sync_ranges(node: &mut Value) {
    let one = node.text("spec.podCIDR").to_owned();
    let first = node.texts("spec.podCIDRs").next().map(str::to_owned);
    match first {
        Some(first) if one.is_empty() => node.set("spec.podCIDR", first),
        first if !one.is_empty() && first.as_ref() != Some(&one) => {
            node.set("spec.podCIDRs", vec![one]);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_range_is_the_first_of_several() {
        for spec in [
            json!({"podCIDR": "10.0.0.0/24"}),
            json!({"podCIDRs": ["10.0.0.0/24"]}),
        ] {
            let mut node = json!({ "spec": spec });
            Node.default(&mut node);
            let expected = json!({"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]});
            assert_eq!(node["spec"], expected);
        }
    }
}
