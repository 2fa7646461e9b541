//! LimitRange.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use super::pod::defaults::canonical_quantities;
use super::pod::validate::{is_overcommitted, validate_container_name, validate_resource_name};
use crate::plain::{self, Plain};
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, amount, null_if_empty};
use crate::table::quantity;
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = Plain::COLUMNS;

pub(crate) struct LimitRange;

impl Strategy for LimitRange {
    fn default(&self, object: &mut Value) {
        object.fill_map("spec");
        null_if_empty(object, "spec", "limits");
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

    fn prepare_create(&self, object: &mut Value) {
        if object.text("metadata.name").is_empty() {
            let uid = object.at("metadata.uid").clone();
            object.set("metadata.name", uid);
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

/// Two lists of an item of which the first may not exceed the second.
struct Order {
    low: &'static str,
    high: &'static str,
    /// Where a fault is reported, and the list whose amount it shows.
    at: [&'static str; 2],
    words: [&'static str; 2],
}

const fn order(
    [low, high]: [&'static str; 2],
    at: [&'static str; 2],
    words: [&'static str; 2],
) -> Order {
    Order {
        low,
        high,
        at,
        words,
    }
}

/// min ≤ default request ≤ default ≤ max.
const ORDERS: [Order; 6] = [
    order(["min", "max"], ["min", "min"], ["min value", "max value"]),
    order(
        ["min", "defaultRequest"],
        ["defaultRequest", "defaultRequest"],
        ["min value", "default request value"],
    ),
    order(
        ["defaultRequest", "max"],
        ["defaultRequest", "defaultRequest"],
        ["default request value", "max value"],
    ),
    order(
        ["defaultRequest", "default"],
        ["defaultRequest", "defaultRequest"],
        ["default request value", "default limit value"],
    ),
    order(
        ["min", "default"],
        ["default", "min"],
        ["min value", "default value"],
    ),
    order(
        ["default", "max"],
        ["default", "max"],
        ["default value", "max value"],
    ),
];

fn validate_order(item: &Spot<'_>, name: &str, faults: &mut Faults) {
    let value = |list: &str| item.value.at(list).get(name);
    for order in &ORDERS {
        let (Some(low), Some(high)) = (value(order.low), value(order.high)) else {
            continue;
        };
        if amount(low) > amount(high) {
            let [low_word, high_word] = order.words;
            let (small, large) = (quantity(low), quantity(high));
            let rule = format!("{low_word} {small} is greater than {high_word} {large}");
            let [at, shown] = order.at;
            let shown = value(shown).map_or(small, quantity);
            faults.invalid(item.child(at).entry_path(name), shown, rule);
        }
    }
    if let Some(ratio) = value("maxLimitRequestRatio") {
        validate_ratio(item, name, ratio, faults);
    }
    let (limit, request) = (value("default"), value("defaultRequest"));
    if let (Some(limit), Some(request)) = (limit, request)
        && amount(limit) != amount(request)
        && !is_overcommitted(name)
    {
        let (limit, request) = (quantity(limit), quantity(request));
        let rule =
            format!("default value {limit} must equal to defaultRequest value {request} in {name}");
        faults.invalid(item.child("defaultRequest").entry_path(name), request, rule);
    }
}

/// How many times its request a limit may be: at least once, at most what the bounds leave room
/// for.
fn validate_ratio(item: &Spot<'_>, name: &str, ratio: &Value, faults: &mut Faults) {
    let path = item.child("maxLimitRequestRatio").entry_path(name);
    let (text, ratio) = (quantity(ratio), amount(ratio));
    if ratio < Some(meta::Quantity::from_units(1)) {
        let rule = format!("ratio {text} is less than 1");
        faults.invalid(path.clone(), text.as_str(), rule);
    }
    let bound = |list: &str| item.value.at(list).get(name).and_then(amount);
    if let (Some(ratio), Some(min), Some(max)) = (ratio, bound("min"), bound("max")) {
        let most = max.milli() as f64 / min.milli() as f64;
        if ratio.milli() as f64 / 1000.0 > most {
            let rule = format!("ratio {text} is greater than max/min = {most:.6}");
            faults.invalid(path, text, rule);
        }
    }
}
