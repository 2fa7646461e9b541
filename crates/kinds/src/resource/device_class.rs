//! DeviceClass: what kinds of devices there are.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use super::rules::{validate_configurations, validate_selectors};
use crate::core::pod::validate::is_extended;
use crate::row::{Cells, Strategy};
use crate::spot::Spot;
use crate::tree::Tree;

pub(crate) struct DeviceClass;

impl Strategy for DeviceClass {
    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        validate_selectors(&spec, faults);
        validate_configurations(&spec, faults);
        let name = spec.text("extendedResourceName");
        if spec.has("extendedResourceName") && !is_extended(name) {
            let path = spec.path("extendedResourceName");
            faults.invalid(path, name, "must be a valid extended resource name");
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        super::plain(object, now)
    }
}
