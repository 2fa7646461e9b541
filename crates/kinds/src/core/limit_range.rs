//! LimitRange.

use jiff::Timestamp;
use serde_json::Value;

use crate::plain::{self, Plain};
use crate::row::{Cells, Strategy};

pub(crate) const COLUMNS: &str = Plain::COLUMNS;

pub(crate) struct LimitRange;

impl Strategy for LimitRange {
    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        plain::created(object, now)
    }
}
