//! DeviceClass: what kinds of devices there are.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};

pub(crate) struct DeviceClass;

impl Strategy for DeviceClass {
    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        super::plain(object, now)
    }
}
