//! A structural schema, read once from a definition: what pruning, defaulting and validation walk.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::formats::Format;

/// Schemas nest no deeper than this; what is below accepts anything.
const DEPTH_MAX: usize = 100;
/// Greatest size of a compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 10 << 20;

/// One node of a schema. Value validations below `allOf`, `anyOf`, `oneOf` and `not` are nodes too.
#[derive(Debug, Default)]
pub struct Structural {
    /// `object`, `array`, `string`, `integer`, `number`, `boolean`, or empty.
    pub kind: String,
    pub nullable: bool,
    pub default: Option<Value>,
    pub properties: BTreeMap<String, Structural>,
    pub additional: Option<Additional>,
    pub items: Option<Box<Structural>>,
    pub required: Vec<String>,
    /// Keeps fields that are not named.
    pub preserve_unknown: bool,
    /// Holds a whole object, with `apiVersion`, `kind` and `metadata`.
    pub embedded: bool,
    pub int_or_string: bool,
    /// `atomic`, `set`, `map`, or empty.
    pub list_type: String,
    pub list_keys: Vec<String>,
    /// `atomic`, `granular`, or empty.
    pub map_type: String,
    /// The `format` as written; empty where it is not one that is checked.
    pub format: String,
    pub checks: Checks,
    /// `x-kubernetes-validations` as written.
    pub rules: Vec<Value>,
}

/// What `additionalProperties` says.
#[derive(Debug)]
pub enum Additional {
    Allows(bool),
    Schema(Box<Structural>),
}

/// What values must fulfil beyond their type.
#[derive(Debug, Default)]
pub struct Checks {
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub multiple_of: Option<f64>,
    pub max_length: Option<i64>,
    pub min_length: Option<u64>,
    pub pattern: Option<Pattern>,
    pub max_items: Option<i64>,
    pub min_items: Option<u64>,
    pub max_properties: Option<i64>,
    pub min_properties: Option<u64>,
    pub enumeration: Vec<Value>,
    pub all_of: Vec<Structural>,
    pub any_of: Vec<Structural>,
    pub one_of: Vec<Structural>,
    pub not: Option<Box<Structural>>,
}

/// A regular expression, compiled at first use.
#[derive(Debug)]
pub struct Pattern {
    pub text: String,
    regex: OnceLock<Option<Regex>>,
}

impl Pattern {
    fn new(text: &str) -> Pattern {
        Pattern {
            text: text.to_owned(),
            regex: OnceLock::new(),
        }
    }

    /// Whether a text has a match; a pattern that does not compile has one everywhere.
    pub fn matches(&self, text: &str) -> bool {
        let regex = self.regex.get_or_init(|| compile(&self.text).ok());
        regex.as_ref().is_none_or(|regex| regex.is_match(text))
    }
}

/// Compiles a pattern of a schema.
pub(crate) fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .size_limit(PATTERN_BYTES_MAX)
        .build()
}

impl Structural {
    /// Reads `openAPIV3Schema`.
    pub fn read(schema: &Value) -> Structural {
        node(schema, 0)
    }

    /// The root of an object: as written, and an embedded object whether it says so or not.
    pub fn read_root(schema: &Value) -> Structural {
        Structural {
            embedded: true,
            ..node(schema, 0)
        }
    }

    /// The schema of a map's value or an object's field.
    pub fn field(&self, name: &str) -> Option<&Structural> {
        match (self.properties.get(name), &self.additional) {
            (Some(own), _) => Some(own),
            (None, Some(Additional::Schema(schema))) => Some(schema),
            (None, _) => None,
        }
    }

    /// The schema of the values of a map.
    pub fn values(&self) -> Option<&Structural> {
        match &self.additional {
            Some(Additional::Schema(schema)) => Some(schema),
            _ => None,
        }
    }

    /// Whether a schema below, or this one, fulfils a condition.
    pub fn any(&self, condition: &dyn Fn(&Structural) -> bool) -> bool {
        condition(self)
            || self.properties.values().any(|below| below.any(condition))
            || self
                .items
                .as_ref()
                .is_some_and(|below| below.any(condition))
            || self.values().is_some_and(|below| below.any(condition))
    }
}

fn flag(schema: &Value, field: &str) -> bool {
    schema.get(field).and_then(Value::as_bool).unwrap_or(false)
}

fn word(schema: &Value, field: &str) -> String {
    let word = schema.get(field).and_then(Value::as_str);
    word.unwrap_or_default().to_owned()
}

fn words(schema: &Value, field: &str) -> Vec<String> {
    let list = schema.get(field).and_then(Value::as_array);
    let words = list.into_iter().flatten().filter_map(Value::as_str);
    words.map(str::to_owned).collect()
}

fn node(schema: &Value, depth: usize) -> Structural {
    if depth > DEPTH_MAX {
        return Structural {
            preserve_unknown: true,
            ..Structural::default()
        };
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let properties = properties.into_iter().flatten();
    let kind = word(schema, "type");
    let int_or_string = flag(schema, "x-kubernetes-int-or-string");
    let format = word(schema, "format");
    let known = Format::is_known(if int_or_string { "?" } else { &kind }, &format);
    Structural {
        nullable: flag(schema, "nullable"),
        default: schema.get("default").filter(|own| !own.is_null()).cloned(),
        properties: properties
            .map(|(name, below)| (name.clone(), node(below, depth + 1)))
            .collect(),
        additional: match schema.get("additionalProperties") {
            Some(Value::Bool(allows)) => Some(Additional::Allows(*allows)),
            Some(below @ Value::Object(_)) => {
                Some(Additional::Schema(Box::new(node(below, depth + 1))))
            }
            _ => None,
        },
        items: schema
            .get("items")
            .filter(|below| below.is_object())
            .map(|below| Box::new(node(below, depth + 1))),
        required: words(schema, "required"),
        preserve_unknown: flag(schema, "x-kubernetes-preserve-unknown-fields"),
        embedded: flag(schema, "x-kubernetes-embedded-resource"),
        list_type: word(schema, "x-kubernetes-list-type"),
        list_keys: words(schema, "x-kubernetes-list-map-keys"),
        map_type: word(schema, "x-kubernetes-map-type"),
        format: if known { format } else { String::new() },
        checks: checks(schema, depth),
        rules: list(schema, "x-kubernetes-validations").to_vec(),
        int_or_string,
        kind,
    }
}

fn list<'a>(schema: &'a Value, field: &str) -> &'a [Value] {
    let list = schema.get(field).and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}

fn checks(schema: &Value, depth: usize) -> Checks {
    let number = |field: &str| schema.get(field).and_then(Value::as_f64);
    let count = |field: &str| schema.get(field).and_then(Value::as_u64);
    // Nothing is as short as upstream lets a limit be.
    let most = |field: &str| schema.get(field).and_then(Value::as_i64);
    let several = |field: &str| -> Vec<Structural> {
        let below = list(schema, field).iter();
        below.map(|below| node(below, depth + 1)).collect()
    };
    let pattern = schema.get("pattern").and_then(Value::as_str);
    Checks {
        maximum: number("maximum"),
        exclusive_maximum: flag(schema, "exclusiveMaximum"),
        minimum: number("minimum"),
        exclusive_minimum: flag(schema, "exclusiveMinimum"),
        multiple_of: number("multipleOf"),
        max_length: most("maxLength"),
        min_length: count("minLength"),
        pattern: pattern.filter(|text| !text.is_empty()).map(Pattern::new),
        max_items: most("maxItems"),
        min_items: count("minItems"),
        max_properties: most("maxProperties"),
        min_properties: count("minProperties"),
        enumeration: list(schema, "enum").to_vec(),
        all_of: several("allOf"),
        any_of: several("anyOf"),
        one_of: several("oneOf"),
        not: schema
            .get("not")
            .filter(|below| below.is_object())
            .map(|below| Box::new(node(below, depth + 1))),
    }
}
