//! ConfigMap.

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::spot::{Spot, rules, same};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Data, Age";

pub(crate) struct ConfigMap;

impl Strategy for ConfigMap {
    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let mut bytes = 0;
        for field in ["data", "binaryData"] {
            let map = Spot::new(object, field);
            for (key, value) in map.fields("") {
                rules(faults, map.entry_path(key), key, naming::config_key(key));
                if field == "data" && object.at("binaryData").get(key).is_some() {
                    let rule = "duplicate of key present in binaryData";
                    faults.invalid(map.entry_path(key), key, rule);
                }
                bytes += match field {
                    "data" => value.as_str().map_or(0, str::len),
                    _ => decoded_length(value),
                };
            }
        }
        if bytes > SIZE_MAX {
            faults.too_long("", SIZE_MAX);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        validate_sealed(object, old, &["data", "binaryData"], faults);
        self.validate_create(object, faults);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let count = object.count("data") + object.count("binaryData");
        cells![name(object), count, age(object, now)]
    }
}

/// How many bytes a ConfigMap or a Secret may hold.
pub(super) const SIZE_MAX: usize = 1 << 20;

/// The bytes behind a base64 text.
pub(super) fn decoded_length(value: &Value) -> usize {
    let text = value.as_str().unwrap_or("");
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

/// What was once marked immutable stays so, with all that it holds.
pub(super) fn validate_sealed(object: &Value, old: &Value, fields: &[&str], faults: &mut Faults) {
    const RULE: &str = "field is immutable when `immutable` is set";
    if !old.flag("immutable") {
        return;
    }
    if !object.flag("immutable") {
        faults.forbidden("immutable", RULE);
    }
    for field in fields {
        if !same(object.at(field), old.at(field)) {
            faults.forbidden(*field, RULE);
        }
    }
}
