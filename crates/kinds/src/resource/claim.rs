//! ResourceClaim and its template: which devices somebody wants.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use super::rules::validate_devices;
use crate::go::{CLAIM, CLAIM_TEMPLATE};
use crate::metadata::{validate_annotations, validate_labels};
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, immutable_shown};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, State, Age";

pub(crate) struct ResourceClaim;

impl Strategy for ResourceClaim {
    fn default(&self, object: &mut Value) {
        default_requests(object, "spec.devices.requests");
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        validate_devices(&Spot::new(object, "spec.devices"), faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        let root = Spot::new(object, "");
        immutable_shown(&root, old, "spec", &CLAIM, faults);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        cells![name(object), state(object), age(object, now)]
    }
}

pub(crate) struct ResourceClaimTemplate;

impl Strategy for ResourceClaimTemplate {
    fn default(&self, object: &mut Value) {
        default_requests(object, "spec.spec.devices.requests");
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let metadata = Spot::new(object, "spec.metadata");
        let (labels, annotations) = (metadata.child("labels"), metadata.child("annotations"));
        validate_annotations(annotations.value, &annotations.path, faults);
        validate_labels(labels.value, &labels.path, faults);
        validate_devices(&Spot::new(object, "spec.spec.devices"), faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        self.validate_create(object, faults);
        let root = Spot::new(object, "");
        immutable_shown(&root, old, "spec", &CLAIM_TEMPLATE, faults);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        super::plain(object, now)
    }
}

fn default_requests(object: &mut Value, path: &str) {
    for request in object.list_mut(path) {
        if request.has("exactly")
            && let Some(exactly) = request.at_mut("exactly")
        {
            default_request(exactly);
        }
        for other in request.list_mut("firstAvailable") {
            default_request(other);
        }
    }
}

/// One device, unless more are asked for.
fn default_request(request: &mut Value) {
    request.fill_text("allocationMode", "ExactCount");
    if request.text("allocationMode") == "ExactCount" {
        request.fill_zero("count", 1);
    }
    for toleration in request.list_mut("tolerations") {
        toleration.fill_text("operator", "Equal");
    }
}

fn state(object: &Value) -> String {
    let mut states = Vec::new();
    let deleted = object.has("metadata.deletionTimestamp");
    if deleted {
        states.push("deleted");
    }
    match object.has("status.allocation") {
        false if !deleted => states.push("pending"),
        false => {}
        true => {
            states.push("allocated");
            if object.count("status.reservedFor") > 0 {
                states.push("reserved");
            }
        }
    }
    states.join(",")
}
