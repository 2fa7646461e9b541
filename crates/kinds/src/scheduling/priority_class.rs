//! PriorityClass.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str =
    "Name, Value:integer, Global-Default:boolean, Age, PreemptionPolicy*";

pub(crate) struct PriorityClass;

impl Strategy for PriorityClass {
    fn default(&self, object: &mut Value) {
        object.fill("preemptionPolicy", "PreemptLowerPriority");
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        cells![
            name(object),
            object.int("value"),
            object.flag("globalDefault"),
            age(object, now),
            object.text("preemptionPolicy"),
        ]
    }
}
