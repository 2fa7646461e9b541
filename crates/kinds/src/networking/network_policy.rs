//! NetworkPolicy.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name, selector};

pub(crate) const COLUMNS: &str = "Name, Pod-Selector, Age";

pub(crate) struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let pods = selector(object, "spec.podSelector");
        cells![name(object), pods, age(object, now)]
    }
}
