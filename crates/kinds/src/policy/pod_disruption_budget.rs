//! PodDisruptionBudget.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::spot::{
    Spot, at_most_all, conditions, count_or_percent, label_selector, maybe_one_of, not_negative,
};
use crate::table::{age, cells, name, or, plain};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str =
    "Name, Min Available, Max Unavailable, Allowed Disruptions:integer, Age";

pub(crate) struct PodDisruptionBudget;

impl Strategy for PodDisruptionBudget {
    /// Upstream looks only at names that `generateName` makes.
    fn validate_name(&self, name: &str) -> Vec<String> {
        meta::naming::path_segment(name)
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        if spec.has("minAvailable") && spec.has("maxUnavailable") {
            let rule = "minAvailable and maxUnavailable cannot be both set";
            faults.invalid("spec", spec.value.clone(), rule);
        }
        for field in ["minAvailable", "maxUnavailable"] {
            count_or_percent(&spec, field, faults);
            at_most_all(&spec, field, faults);
        }
        label_selector(&spec.child("selector"), faults);
        let policies = ["AlwaysAllow", "IfHealthyBudget"];
        maybe_one_of(&spec, "unhealthyPodEvictionPolicy", &policies, faults);
    }

    fn validate_status(&self, object: &Value, _old: &Value, faults: &mut Faults) {
        let status = Spot::new(object, "status");
        conditions(&status, faults);
        for field in [
            "disruptionsAllowed",
            "currentHealthy",
            "desiredHealthy",
            "expectedPods",
        ] {
            not_negative(&status, field, faults);
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let amount = |path: &str| or(&plain(object.at(path)), "N/A").to_owned();
        cells![
            name(object),
            amount("spec.minAvailable"),
            amount("spec.maxUnavailable"),
            object.int("status.disruptionsAllowed"),
            age(object, now),
        ]
    }
}
