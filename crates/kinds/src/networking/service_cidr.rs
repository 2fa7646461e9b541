//! ServiceCIDR: a range from which services get their addresses.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, CIDRs, Age";

pub(crate) struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let ranges: Vec<_> = object.texts("spec.cidrs").collect();
        cells![name(object), ranges.join(","), age(object, now)]
    }
}
