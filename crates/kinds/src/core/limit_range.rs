//! LimitRange.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use super::pod::defaults::canonical_quantities;
use super::pod::validate::{validate_container_name, validate_resource_name};
use crate::plain::{self, Plain};
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, amount};
use crate::table::quantity;
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = Plain::COLUMNS;

pub(crate) struct LimitRange;

impl Strategy for LimitRange {
    fn default(&self, object: &mut Value) {
        for item in object.list_mut("spec.limits") {
            for list in [
                "max",
                "min",
                "default",
                "defaultRequest",
                "maxLimitRequestRatio",
            ] {
                if let Some(list) = item.at_mut(list) {
                    canonical_quantities(list);
                }
            }
            if item.text("type") == "Container" {
                default_item(item);
            }
        }
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let mut seen = Vec::new();
        for item in Spot::new(object, "spec").items("limits") {
            validate_kind(&item, faults);
            let kind = item.text("type").to_owned();
            if seen.contains(&kind) {
                faults.duplicate(item.path("type"), kind.as_str());
            }
            seen.push(kind);
            validate_item(&item, faults);
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

fn validate_kind(item: &Spot<'_>, faults: &mut Faults) {
    let kind = item.text("type");
    let broken = meta::naming::qualified_name(kind);
    let standard = matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim");
    if !broken.is_empty() {
        crate::spot::rules(faults, item.path("type"), kind, broken);
    } else if !standard && !kind.contains('/') {
        let rule = "must be a standard limit type or fully qualified";
        faults.invalid(item.path("type"), kind, rule);
    }
}

fn validate_item(item: &Spot<'_>, faults: &mut Faults) {
    const LISTS: [&str; 5] = [
        "max",
        "min",
        "default",
        "defaultRequest",
        "maxLimitRequestRatio",
    ];
    let pod = item.text("type") == "Pod";
    let mut names = Vec::new();
    for list in LISTS {
        let list_spot = item.child(list);
        if pod && list.starts_with("default") {
            if list_spot.count("") > 0 {
                faults.forbidden(list_spot.path, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (name, _) in list_spot.value.fields("") {
            let path = list_spot.entry_path(name);
            match item.text("type") {
                "Pod" | "Container" => validate_container_name(name, &path, faults),
                _ => drop(validate_resource_name(name, &path, faults)),
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let storage = |list: &str| item.at(list).get("storage").is_some();
    if item.text("type") == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        let rule = "either minimum or maximum storage value is required, but neither was provided";
        faults.required(item.path("limits"), rule);
    }
    for name in names {
        validate_order(item, name, faults);
    }
}

/// min ≤ default request ≤ default ≤ max.
fn validate_order(item: &Spot<'_>, name: &str, faults: &mut Faults) {
    let orders = [
        ("min", "max", "min", "min value", "max value"),
        (
            "min",
            "defaultRequest",
            "defaultRequest",
            "min value",
            "default request value",
        ),
        (
            "defaultRequest",
            "max",
            "defaultRequest",
            "default request value",
            "max value",
        ),
        (
            "defaultRequest",
            "default",
            "defaultRequest",
            "default request value",
            "default limit value",
        ),
        ("min", "default", "default", "min value", "default value"),
        ("default", "max", "default", "default value", "max value"),
    ];
    let value = |list: &str| item.value.at(list).get(name);
    for (low, high, shown, low_word, high_word) in orders {
        let (Some(low), Some(high)) = (value(low), value(high)) else {
            continue;
        };
        if amount(low) > amount(high) {
            let (small, large) = (quantity(low), quantity(high));
            let rule = format!("{low_word} {small} is greater than {high_word} {large}");
            let at = value(shown).map_or(small, quantity);
            faults.invalid(item.child(shown).entry_path(name), at, rule);
        }
    }
    let ratio = value("maxLimitRequestRatio");
    if let Some(ratio) = ratio.filter(|ratio| amount(ratio) < Some(meta::Quantity::from_units(1))) {
        let text = quantity(ratio);
        let rule = format!("ratio {text} is less than 1");
        faults.invalid(
            item.child("maxLimitRequestRatio").entry_path(name),
            text,
            rule,
        );
    }
}
