//! PriorityClass.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::spot::{Spot, immutable, maybe_one_of};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str =
    "Name, Value:integer, Global-Default:boolean, Age, PreemptionPolicy";

pub(crate) struct PriorityClass;

impl Strategy for PriorityClass {
    fn default(&self, object: &mut Value) {
        object.fill("preemptionPolicy", "PreemptLowerPriority");
    }

    /// Upstream counts a class once, and none of its changes.
    fn moves_generation(&self, _object: &Value, _old: &Value) -> bool {
        false
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let (name, value) = (object.text("metadata.name"), object.int("value"));
        if name.starts_with("system-") {
            validate_system(object, name, value, faults);
        } else if value > USERS_MAX {
            let rule = format!("maximum allowed value of a user defined priority is {USERS_MAX}");
            faults.forbidden("value", rule);
        }
        let policies = ["PreemptLowerPriority", "Never"];
        if object.text("preemptionPolicy").is_empty() {
            faults.required("preemptionPolicy", "");
        } else {
            let root = Spot::new(object, "");
            maybe_one_of(&root, "preemptionPolicy", &policies, faults);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        if object.int("value") != old.int("value") {
            faults.forbidden("value", "may not be changed in an update.");
        }
        immutable(&Spot::new(object, ""), old, "preemptionPolicy", faults);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        cells![
            name(object),
            object.int("value"),
            object.flag("globalDefault"),
            age(object, now),
            object.text("preemptionPolicy"),
        ]
    }
}

/// Above this are only the system's own classes.
const USERS_MAX: i64 = 1_000_000_000;
const SYSTEM: [(&str, i64); 2] = [
    ("system-node-critical", 2 * USERS_MAX + 1000),
    ("system-cluster-critical", 2 * USERS_MAX),
];

fn validate_system(object: &Value, name: &str, value: i64, faults: &mut Faults) {
    let known = SYSTEM.iter().find(|(known, _)| *known == name);
    let error = match known {
        None => format!("{name} is not a known system priority class"),
        Some((_, wanted)) if *wanted != value => {
            format!("value of {name} PriorityClass must be {wanted}")
        }
        Some(_) if object.flag("globalDefault") => {
            format!("globalDefault of {name} PriorityClass must be false")
        }
        Some(_) => return,
    };
    let rule = format!(
        "priority class names with 'system-' prefix are reserved for system use only. error: {error}"
    );
    faults.forbidden("metadata.name", rule);
}
