//! ResourceSlice: devices that a driver offers.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Node, Driver, Pool, Age";

pub(crate) struct ResourceSlice;

impl Strategy for ResourceSlice {
    fn default(&self, object: &mut Value) {
        for device in object.list_mut("spec.devices") {
            for taint in device.list_mut("taints") {
                taint.fill("timeAdded", meta::time::now());
            }
            let mappings = device.at_mut("nodeAllocatableResourceMappings");
            let mappings = mappings.and_then(Value::as_object_mut);
            for mapping in mappings.into_iter().flat_map(|all| all.values_mut()) {
                mapping.fill("allocationMultiplier", "1");
            }
        }
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let field = |name: &'static str| (name, object.text(name).to_owned());
        self.selectable_field_names()
            .iter()
            .map(|name| field(name))
            .collect()
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["spec.nodeName", "spec.driver"]
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        cells![
            name(object),
            object.text("spec.nodeName"),
            object.text("spec.driver"),
            object.text("spec.pool.name"),
            age(object, now),
        ]
    }
}
