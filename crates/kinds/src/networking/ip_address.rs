//! IPAddress: one address given to one service.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, ParentRef, Age";

pub(crate) struct IpAddress;

impl Strategy for IpAddress {
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
