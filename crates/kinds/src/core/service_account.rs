//! ServiceAccount.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name};

pub(crate) const COLUMNS: &str = "Name, Age";

pub(crate) struct ServiceAccount;

impl Strategy for ServiceAccount {
    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        cells![name(object), age(object, now)]
    }
}
