//! Lease.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::spot::{NOT_NEGATIVE, Spot};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Holder, Age";

pub(crate) struct Lease;

impl Strategy for Lease {
    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        let duration = spec.maybe_int("leaseDurationSeconds");
        if let Some(seconds) = duration.filter(|seconds| *seconds <= 0) {
            let path = spec.path("leaseDurationSeconds");
            faults.invalid(path, seconds, "must be greater than 0");
        }
        let transitions = spec.int("leaseTransitions");
        if transitions < 0 {
            faults.invalid(spec.path("leaseTransitions"), transitions, NOT_NEGATIVE);
        }
        if !spec.text("preferredHolder").is_empty() && spec.text("strategy").is_empty() {
            let rule = "may only be specified if `strategy` is defined";
            faults.forbidden(spec.path("preferredHolder"), rule);
        }
    }

    fn has_free_finalizers(&self) -> bool {
        true
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let holder = object.text("spec.holderIdentity");
        cells![name(object), holder, age(object, now)]
    }
}
