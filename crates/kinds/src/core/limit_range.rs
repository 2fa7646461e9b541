//! LimitRange.

use jiff::Timestamp;
use serde_json::Value;

use super::pod::defaults::canonical_quantities;
use crate::plain::{self, Plain};
use crate::row::{Cells, Strategy};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = Plain::COLUMNS;

pub(crate) struct LimitRange;

impl Strategy for LimitRange {
    fn default(&self, object: &mut Value) {
        for item in object.list_mut("spec.limits") {
            for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
                if let Some(list) = item.at_mut(list) {
                    canonical_quantities(list);
                }
            }
            if item.text("type") == "Container" {
                default_item(item);
            }
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        plain::created(object, now)
    }
}

/// The default limit is the maximum, the default request the default limit or the minimum.
fn default_item(item: &mut Value) {
    for (target, source) in [
        ("default", "max"),
        ("defaultRequest", "default"),
        ("defaultRequest", "min"),
    ] {
        let Value::Object(source) = item.at(source).clone() else {
            continue;
        };
        item.fill_map(target);
        if let Some(Value::Object(target)) = item.at_mut(target) {
            for (resource, amount) in source {
                target.entry(resource).or_insert(amount);
            }
        }
    }
}
