//! CSINode: which storage drivers a node has.

use std::collections::BTreeSet;

use jiff::Timestamp;
use meta::{FaultKind, Faults, naming};
use serde_json::Value;

use crate::core::validate_driver;
use crate::go::{NODE_DRIVER, shown};
use crate::metadata::IMMUTABLE;
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, not_negative, rules, same};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Drivers:integer, Age";
const NODE_ID_MAX: usize = 256;

pub(crate) struct CsiNode;

impl Strategy for CsiNode {
    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let mut seen = BTreeSet::new();
        for driver in Spot::new(object, "spec").items("drivers") {
            validate(&driver, faults);
            let name = driver.text("name");
            if !seen.insert(name.to_owned()) {
                faults.duplicate(driver.path("name"), name);
            }
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        self.validate_create(object, faults);
        // A driver may change how much it can attach, but nothing else.
        let fixed = |driver: &Value| {
            let mut driver = driver.clone();
            driver.drop_field("allocatable");
            driver
        };
        for before in old.list("spec.drivers") {
            for now in object.list("spec.drivers") {
                let (old, new) = (fixed(before), fixed(now));
                if now.text("name") == before.text("name") && !same(&new, &old) {
                    let shown = shown(&new, &NODE_DRIVER);
                    faults.add_shown("spec.drivers", FaultKind::Invalid, shown, IMMUTABLE);
                }
            }
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        cells![name(object), object.count("spec.drivers"), age(object, now),]
    }
}

fn validate(driver: &Spot<'_>, faults: &mut Faults) {
    validate_driver(driver, "name", faults);
    let node = driver.text("nodeID");
    if node.is_empty() {
        faults.required(driver.path("nodeID"), "");
    }
    if node.len() > NODE_ID_MAX {
        let rule = format!("must be {NODE_ID_MAX} characters or less");
        faults.invalid(driver.path("nodeID"), node, rule);
    }
    not_negative(&driver.child("allocatable"), "count", faults);
    let mut seen = BTreeSet::new();
    for key in driver.texts("topologyKeys") {
        if key.is_empty() {
            faults.required(driver.path.clone(), "");
        }
        if !seen.insert(key) {
            faults.duplicate(driver.path.clone(), key);
        }
        rules(
            faults,
            driver.path.clone(),
            key,
            naming::qualified_name(key),
        );
    }
}
