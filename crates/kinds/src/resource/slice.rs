//! ResourceSlice: devices that a driver offers.

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use super::rules::{EFFECTS, unique_names, validate_pool, validate_qualified};
use crate::core::pod::validate::node_selector;
use crate::core::validate_driver;
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, immutable, rules, unsupported};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Node, Driver, Pool, Age";

pub(crate) struct ResourceSlice;

impl Strategy for ResourceSlice {
    fn default(&self, object: &mut Value) {
        for device in object.list_mut("spec.devices") {
            for taint in device.list_mut("taints") {
                taint.fill("timeAdded", meta::time::now());
            }
            let mappings = device.at_mut("nodeAllocatableResourceMappings");
            let mappings = mappings.and_then(Value::as_object_mut);
            for mapping in mappings.into_iter().flat_map(|all| all.values_mut()) {
                mapping.fill("allocationMultiplier", "1");
            }
        }
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        validate_origin(&spec, faults);
        validate_place(&spec, faults);
        validate_content(&spec, faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        validate_origin(&spec, faults);
        immutable(&spec.child("pool"), old.at("spec.pool"), "name", faults);
        for field in ["driver", "nodeName"] {
            immutable(&spec, old.at("spec"), field, faults);
        }
        validate_place(&spec, faults);
        validate_content(&spec, faults);
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let field = |name: &'static str| (name, object.text(name).to_owned());
        self.selectable_field_names()
            .iter()
            .map(|name| field(name))
            .collect()
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["spec.nodeName", "spec.driver"]
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let driver = object.text("spec.driver");
        let warning = format!(
            "spec.driver: driver names should be lowercase; {driver:?} contains uppercase characters"
        );
        let upper = driver.to_lowercase() != driver;
        upper.then_some(warning).into_iter().collect()
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        cells![
            name(object),
            object.text("spec.nodeName"),
            object.text("spec.driver"),
            object.text("spec.pool.name"),
            age(object, now),
        ]
    }
}

const DEVICES_MAX: usize = 128;
/// Where devices have taints, counters or lists.
const ADVANCED_DEVICES_MAX: usize = 64;
const TAINTS_MAX: usize = 16;
const ATTRIBUTES_MAX: usize = 32;

/// Faults of the driver and the pool.
fn validate_origin(spec: &Spot<'_>, faults: &mut Faults) {
    validate_driver(spec, "driver", faults);
    let pool = spec.child("pool");
    validate_pool(&pool, "name", faults);
    if pool.int("resourceSliceCount") <= 0 {
        let (path, count) = (
            pool.path("resourceSliceCount"),
            pool.int("resourceSliceCount"),
        );
        faults.invalid(path, count, "must be greater than zero");
    }
    if pool.int("generation") < 0 {
        let rule = "must be greater than or equal to zero";
        faults.invalid(pool.path("generation"), pool.int("generation"), rule);
    }
}

/// Faults of the devices and what they share.
fn validate_content(spec: &Spot<'_>, faults: &mut Faults) {
    if spec.has("sharedCounters") && spec.has("devices") {
        let rule = "only one of `sharedCounters` or `devices` is allowed";
        faults.invalid(spec.path.clone(), "", rule);
    }
    validate_devices(spec, faults);
}

/// One way, and only one, says which nodes have the devices.
fn validate_place(spec: &Spot<'_>, faults: &mut Faults) {
    const RULE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, \
                        `perDeviceNodeSelection` is required";
    let mut set = Vec::new();
    if let Some(node) = spec.at("nodeName").as_str() {
        if node.is_empty() {
            let rule = "must be either unset or set to a non-empty string";
            faults.invalid(spec.path("nodeName"), node, rule);
        } else {
            set.push("`nodeName`");
            rules(
                faults,
                spec.path("nodeName"),
                node,
                naming::dns1123_subdomain(node),
            );
        }
    }
    if let Some(selector) = spec.some("nodeSelector") {
        set.push("`nodeSelector`");
        node_selector(&selector, faults);
        if selector.count("nodeSelectorTerms") != 1 {
            let terms = selector.at("nodeSelectorTerms").clone();
            let rule = "must have exactly one node selector term";
            faults.invalid(selector.path("nodeSelectorTerms"), terms, rule);
        }
    }
    for (field, quoted) in [
        ("allNodes", "`allNodes`"),
        ("perDeviceNodeSelection", "`perDeviceNodeSelection`"),
    ] {
        match spec.at(field).as_bool() {
            Some(true) => set.push(quoted),
            Some(false) => {
                let rule = "must be either unset or set to true";
                faults.invalid(spec.path(field), false, rule);
            }
            None => {}
        }
    }
    match set.len() {
        0 => faults.required(spec.path.clone(), RULE),
        1 => {}
        _ => {
            let set = format!("{{{}}}", set.join(", "));
            let rule = format!("{RULE}, but multiple fields are set");
            faults.invalid(spec.path.clone(), set, rule);
        }
    }
}

fn validate_devices(spec: &Spot<'_>, faults: &mut Faults) {
    let lists = ["bools", "ints", "strings", "versions"];
    let advanced = |device: &Value| {
        let attributes = device.fields("attributes");
        let mut attributes = attributes.map(|(_, attribute)| attribute);
        device.count("taints") + device.count("consumesCounters") > 0
            || attributes.any(|one| lists.iter().any(|list| one.has(list)))
    };
    let most = match spec.list("devices").iter().any(advanced) {
        true => ADVANCED_DEVICES_MAX,
        false => DEVICES_MAX,
    };
    let count = spec.count("devices");
    if count > most {
        return faults.too_many(spec.path("devices"), count, most);
    }
    for device in spec.items("devices") {
        let name = device.text("name");
        rules(
            faults,
            device.path("name"),
            name,
            naming::dns1123_label(name),
        );
        let total = device.count("attributes") + device.count("capacity");
        if total > ATTRIBUTES_MAX {
            let rule = format!(
                "the total number of attributes and capacities must not exceed {ATTRIBUTES_MAX}"
            );
            faults.invalid(device.path.clone(), total, rule);
        }
        for field in ["attributes", "capacity"] {
            for (name, _) in device.fields(field) {
                validate_qualified(name, &device.path(field), faults);
            }
        }
        let attributes = device.child("attributes");
        for (name, value) in device.fields("attributes") {
            let path = attributes.entry_path(name);
            validate_attribute(&Spot { value, path }, faults);
        }
        if device.count("taints") > TAINTS_MAX {
            faults.too_many(device.path("taints"), device.count("taints"), TAINTS_MAX);
            continue;
        }
        for taint in device.items("taints") {
            validate_taint(&taint, faults);
        }
    }
    unique_names(spec, "devices", faults);
}

/// Ways in which an attribute says its value: alone, or several.
const VALUES: [&str; 8] = [
    "bool", "int", "string", "version", "bools", "ints", "strings", "versions",
];
const VALUE_BYTES_MAX: usize = 64;

fn validate_attribute(attribute: &Spot<'_>, faults: &mut Faults) {
    for field in ["string", "version"] {
        if let Some(value) = attribute.some(field) {
            validate_text(&value, field == "version", faults);
        }
    }
    for (field, version) in [("strings", false), ("versions", true)] {
        for item in attribute.items(field) {
            validate_text(&item, version, faults);
        }
    }
    let shown: Value = match VALUES.iter().filter(|one| attribute.has(one)).count() {
        1 => return,
        0 => "".into(),
        _ => attribute.value.clone(),
    };
    faults.invalid(
        attribute.path.clone(),
        shown,
        "exactly one value must be specified",
    );
}

fn validate_text(value: &Spot<'_>, version: bool, faults: &mut Faults) {
    let text = value.as_str().unwrap_or("");
    if version && cel::Version::parse(text).is_err() {
        let rule = "must be a string compatible with semver.org spec 2.0.0";
        faults.invalid(value.path.clone(), text, rule);
    }
    if text.len() > VALUE_BYTES_MAX {
        faults.too_long(value.path.clone(), VALUE_BYTES_MAX);
    }
}

fn validate_taint(taint: &Spot<'_>, faults: &mut Faults) {
    let (key, value) = (taint.text("key"), taint.text("value"));
    rules(faults, taint.path("key"), key, naming::qualified_name(key));
    rules(
        faults,
        taint.path("value"),
        value,
        naming::label_value(value),
    );
    match taint.text("effect") {
        "" => faults.required(taint.path("effect"), ""),
        effect if !EFFECTS.contains(&effect) => {
            unsupported(faults, taint.path("effect"), effect, &EFFECTS);
        }
        _ => {}
    }
}
