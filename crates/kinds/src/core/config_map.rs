//! ConfigMap.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Data, Age";

pub(crate) struct ConfigMap;

impl Strategy for ConfigMap {
    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let count = object.count("data") + object.count("binaryData");
        cells![name(object), count, age(object, now)]
    }
}
