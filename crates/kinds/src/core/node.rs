//! Node.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::pod::defaults::canonical_quantities;
use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name, or};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Status, Roles, Age, Version, Internal-IP*, External-IP*, \
     OS-Image*, Kernel-Version*, Container-Runtime*";

pub(crate) struct Node;

impl Strategy for Node {
    fn default(&self, object: &mut Value) {
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

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let unschedulable = object.flag("spec.unschedulable");
        vec![("spec.unschedulable", unschedulable.to_string())]
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
