//! RuntimeClass.

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::spot::{Spot, immutable, named};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Handler, Age";

pub(crate) struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        named(
            &Spot::new(object, ""),
            "handler",
            naming::dns1123_label,
            faults,
        );
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        immutable(&Spot::new(object, ""), old, "handler", faults);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        cells![name(object), object.text("handler"), age(object, now)]
    }
}
