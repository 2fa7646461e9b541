//! Lease.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Holder, Age";

pub(crate) struct Lease;

impl Strategy for Lease {
    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let holder = object.text("spec.holderIdentity");
        cells![name(object), holder, age(object, now)]
    }
}
