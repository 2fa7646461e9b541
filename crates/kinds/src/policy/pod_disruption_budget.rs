//! PodDisruptionBudget.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name, or, plain};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str =
    "Name, Min Available, Max Unavailable, Allowed Disruptions:integer, Age";

pub(crate) struct PodDisruptionBudget;

impl Strategy for PodDisruptionBudget {
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
