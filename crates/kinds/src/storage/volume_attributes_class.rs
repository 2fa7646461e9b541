//! VolumeAttributesClass: what of a volume may change while it is in use.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use super::storage_class::{validate_parameters, validate_provisioner};
use crate::row::{Cells, Strategy};
use crate::spot::same;
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, DriverName, Age";

pub(crate) struct VolumeAttributesClass;

impl Strategy for VolumeAttributesClass {
    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        validate_provisioner(object, "driverName", faults);
        validate_parameters(object, faults);
        if object.count("parameters") == 0 {
            let rule = "must contain at least one key/value pair";
            faults.required("parameters", rule);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        for field in ["driverName", "parameters"] {
            if !same(object.at(field), old.at(field)) {
                let rule = format!("updates to {field} are forbidden.");
                faults.forbidden(field, rule);
            }
        }
        self.validate_create(object, faults);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        cells![name(object), object.text("driverName"), age(object, now)]
    }
}
