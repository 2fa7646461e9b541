//! CSINode: which storage drivers a node has.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Drivers:integer, Age";

pub(crate) struct CsiNode;

impl Strategy for CsiNode {
    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        cells![name(object), object.count("spec.drivers"), age(object, now),]
    }
}
