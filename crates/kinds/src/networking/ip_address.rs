//! IPAddress: one address given to one service.

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use crate::go::PARENT;
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, immutable_shown, maybe_named, named};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, ParentRef, Age";

pub(crate) struct IpAddress;

impl Strategy for IpAddress {
    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let Some(parent) = Spot::new(object, "spec").some("parentRef") else {
            return faults.required("spec.parentRef", "");
        };
        maybe_named(&parent, "group", naming::dns1123_subdomain, faults);
        named(&parent, "resource", naming::path_segment, faults);
        named(&parent, "name", naming::path_segment, faults);
        maybe_named(&parent, "namespace", naming::path_segment, faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        self.validate_create(object, faults);
        let (spec, before) = (Spot::new(object, "spec"), old.at("spec"));
        immutable_shown(&spec, before, "parentRef", &PARENT, faults);
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        naming::ip(name)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        cells![name(object), parent(object), age(object, now)]
    }
}

fn parent(object: &Value) -> String {
    let parent = object.at("spec.parentRef");
    if parent.is_null() {
        return "<none>".into();
    }
    let mut text = parent.text("resource").to_lowercase();
    if !parent.text("group").is_empty() {
        text = format!("{text}.{}", parent.text("group").to_lowercase());
    }
    if !parent.text("namespace").is_empty() {
        text = format!("{text}/{}", parent.text("namespace"));
    }
    format!("{text}/{}", parent.text("name"))
}
