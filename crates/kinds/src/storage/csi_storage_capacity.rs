//! CSIStorageCapacity.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{cells, name, quantity};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, StorageClassName, Capacity";

pub(crate) struct CsiStorageCapacity;

impl Strategy for CsiStorageCapacity {
    fn cells(&self, object: &Value, _now: Timestamp) -> Cells {
        let capacity = match object.at("capacity") {
            Value::Null => "<unset>".to_owned(),
            capacity => quantity(capacity),
        };
        cells![name(object), object.text("storageClassName"), capacity]
    }
}
