//! Defaults must be values that the schema would accept.

use meta::Faults;
use serde_json::{Value, json};

use crate::rules::{self, Run};
use crate::structural::Structural;
use crate::{check, embedded, prune};

/// Faults of all defaults of a schema.
pub(super) fn validate(schema: &Value, path: &str, faults: &mut Faults) {
    let root = Structural::read_root(schema);
    if root.any(&|node| node.default.is_some()) {
        let place = Place {
            path: path.to_owned(),
            in_meta: None,
            raw: schema,
        };
        walk(&root, &place, faults);
    }
}

struct Place<'s> {
    path: String,
    /// Inside the metadata of an object: the fields from the object's root on.
    in_meta: Option<Vec<String>>,
    /// The schema as it is written, with its rules.
    raw: &'s Value,
}

impl<'s> Place<'s> {
    fn below(&self, step: &str, name: Option<&str>, is_object: bool) -> Place<'s> {
        let raw = match name {
            Some(name) => self.raw.get("properties").and_then(|all| all.get(name)),
            None => self.raw.get("items"),
        };
        let is_meta = |name: &str| matches!(name, "metadata" | "apiVersion" | "kind");
        let in_meta = match (&self.in_meta, name) {
            (Some(way), Some(name)) if !is_object => {
                Some(way.iter().cloned().chain([name.to_owned()]).collect())
            }
            (_, Some(name)) if is_object && is_meta(name) => Some(vec![name.to_owned()]),
            _ => None,
        };
        Place {
            path: format!("{}{step}", self.path),
            in_meta,
            raw: raw.unwrap_or(&Value::Null),
        }
    }
}

fn walk(schema: &Structural, place: &Place<'_>, faults: &mut Faults) {
    if let Some(default) = &schema.default {
        let at = format!("{}.default", place.path);
        let mut found = Faults::new();
        match &place.in_meta {
            Some(way) if !schema.embedded => meta_default(schema, default, way, &at, &mut found),
            _ => plain_default(schema, default, &at, &mut found),
        }
        if found.is_empty() {
            ask_rules(place.raw, default, &at, &mut found);
        }
        faults.0.extend(found.0);
    }
    // Values of maps may not have defaults that anybody would fill in.
    if let Some(items) = schema.items.as_deref() {
        walk(items, &place.below(".items", None, schema.embedded), faults);
    }
    for (name, below) in &schema.properties {
        let step = format!(".properties[{name}]");
        walk(
            below,
            &place.below(&step, Some(name), schema.embedded),
            faults,
        );
    }
}

/// A default must satisfy the schema's rules: when it stays as it is, and when it comes anew.
fn ask_rules(schema: &Value, default: &Value, at: &str, faults: &mut Faults) {
    let Some(rules) = rules::Rules::of_part(schema) else {
        return;
    };
    let mut found = Faults::new();
    Run::strictly(&rules, default, Some(default), &mut found);
    if found.is_empty() {
        Run::strictly(&rules, default, None, &mut found);
    }
    for mut fault in found.0 {
        fault.field = match fault.field.as_str() {
            "<nil>" => at.to_owned(),
            field if field.starts_with('[') => format!("{at}{field}"),
            field => format!("{at}.{field}"),
        };
        faults.0.push(fault);
    }
}

fn plain_default(schema: &Structural, default: &Value, at: &str, faults: &mut Faults) {
    let mut pruned = default.clone();
    if !prune::prune(schema, &mut pruned).is_empty() {
        faults.invalid(at, default.clone(), "must not have unknown fields");
    }
    if schema.embedded {
        let mut found = Faults::new();
        embedded::check_identity(default, at, &mut found);
        if !found.is_empty() {
            return faults.0.extend(found.0);
        }
    }
    check::validate(schema, default, None, at, faults);
}

/// A default of a part of the metadata must make sound metadata.
fn meta_default(
    schema: &Structural,
    default: &Value,
    way: &[String],
    at: &str,
    faults: &mut Faults,
) {
    let mut object = json!({"apiVersion": "validation/v1", "kind": "Validation"});
    let inner = way
        .iter()
        .rev()
        .fold(default.clone(), |below, name| json!({name: below}));
    if let (Some(object), Value::Object(inner)) = (object.as_object_mut(), inner) {
        object.extend(inner);
    }
    let mut found = Faults::new();
    if let Err(why) = embedded::coerce_metadata(&mut object) {
        let rule = format!("must result in valid metadata: {why}");
        return faults.invalid(at, default.clone(), rule);
    }
    embedded::check_identity(&object, "", &mut found);
    if !found.is_empty() {
        let rule = format!("must result in valid metadata: {}", found.summary());
        return faults.invalid(at, default.clone(), rule);
    }
    check::validate(schema, default, None, at, faults);
}
