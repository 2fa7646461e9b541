//! RuntimeClass.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Handler, Age";

pub(crate) struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        cells![name(object), object.text("handler"), age(object, now)]
    }
}
