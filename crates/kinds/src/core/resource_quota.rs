//! ResourceQuota.

use jiff::Timestamp;
use serde_json::Value;

use super::pod::defaults::canonical_quantities;
use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name, quantity};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Request, Limit, Age";

pub(crate) struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn default(&self, object: &mut Value) {
        for path in ["spec.hard", "status.hard", "status.used"] {
            if let Some(list) = object.at_mut(path) {
                canonical_quantities(list);
            }
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let used = object.at("status.used");
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (resource, hard) in object.fields("status.hard") {
            let used = quantity(used.get(resource).unwrap_or(&Value::Null));
            let part = format!("{resource}: {used}/{}", quantity(hard));
            match resource.starts_with("limits.") {
                true => limits.push(part),
                false => requests.push(part),
            }
        }
        let [requests, limits] = [requests, limits].map(|parts| parts.join(", "));
        cells![name(object), requests, limits, age(object, now)]
    }
}
