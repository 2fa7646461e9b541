//! `spec` of a definition, from its group to its conversion.

use meta::{Faults, naming};
use serde_json::Value;

use super::{columns, conversion, is_true, list, names, schema, text, versions};

/// Fields that selectors may name, at most.
const SELECTABLE_MAX: usize = 8;
/// What versions may say each for themselves; where all say the same, upstream speaks of it as
/// of the whole definition.
const SHARED: [(&str, &str); 4] = [
    ("schema", "validation"),
    ("subresources", "subresources"),
    ("additionalPrinterColumns", "additionalPrinterColumns"),
    ("selectableFields", "selectableFields"),
];

/// Faults of the specification, of a new definition or of a changed one.
pub(super) fn validate(definition: &Value, old: Option<&Value>, faults: &mut Faults) {
    validate_group(text(definition, "/spec/group"), faults);
    match text(definition, "/spec/scope") {
        "" => faults.required("spec.scope", ""),
        "Cluster" | "Namespaced" => {}
        other => faults.not_supported("spec.scope", other, &["Cluster", "Namespaced"]),
    }
    let all = list(definition, "/spec/versions");
    for (at, version) in all.iter().enumerate() {
        if version.pointer("/schema/openAPIV3Schema").is_none() {
            faults.required(format!("spec.versions[{at}].schema.openAPIV3Schema"), "");
        }
    }
    for (at, version) in all.iter().enumerate() {
        let path = format!("spec.versions[{at}]");
        versions::validate_one(version, &path, faults);
        validate_parts(version, all, (&path, old), faults);
    }
    versions::validate(all, faults);
    for field in ["plural", "singular", "kind", "listKind"] {
        if text(definition, &format!("/spec/names/{field}")).is_empty() {
            faults.required(format!("spec.names.{field}"), "");
        }
    }
    if let Some(own) = definition.pointer("/spec/names") {
        names::validate(own, "spec.names", faults);
    }
    if let Some(first) = all.first() {
        validate_shared(first, all, old, faults);
    }
    conversion::validate(definition, old, faults);
    if let Some(old) = old {
        validate_unchanged(definition, old, faults);
    }
}

fn validate_group(group: &str, faults: &mut Faults) {
    if group.is_empty() {
        return faults.required("spec.group", "");
    }
    let broken = naming::dns1123_subdomain(group).join(",");
    if !broken.is_empty() {
        faults.invalid("spec.group", group, broken);
    } else if !group.contains('.') {
        let rule = "should be a domain with at least one dot";
        faults.invalid("spec.group", group, rule);
    }
}

/// Whether all versions say the same there.
fn is_shared(all: &[Value], field: &str) -> bool {
    let first = all.first().and_then(|first| first.get(field));
    all.iter().all(|version| version.get(field) == first)
}

/// What one version says for itself.
fn validate_parts(
    version: &Value,
    all: &[Value],
    (path, old): (&str, Option<&Value>),
    faults: &mut Faults,
) {
    for (field, _) in SHARED {
        if version.get(field).is_some() && !is_shared(all, field) {
            let path = format!("{path}.{field}");
            validate_part(version, field, (&path, old), faults);
        }
    }
}

/// What all versions say.
fn validate_shared(first: &Value, all: &[Value], old: Option<&Value>, faults: &mut Faults) {
    for (field, name) in SHARED {
        if first.get(field).is_some() && is_shared(all, field) {
            validate_part(first, field, (&format!("spec.{name}"), old), faults);
        }
    }
}

fn validate_part(
    version: &Value,
    field: &str,
    (path, old): (&str, Option<&Value>),
    faults: &mut Faults,
) {
    match field {
        "schema" => {
            // What its rules may cost was settled when the schema came.
            let same = |before: &&Value| {
                before.get("name") == version.get("name")
                    && before.get("schema") == version.get("schema")
            };
            let before = old.map(|old| list(old, "/spec/versions"));
            let is_known = before.is_some_and(|before| before.iter().any(|one| same(&one)));
            schema::validate(version, path, is_known, faults);
        }
        "subresources" => columns::validate_subresources(version, path, faults),
        "additionalPrinterColumns" => columns::validate(version, path, faults),
        _ => validate_selectable(version, path, faults),
    }
}

fn validate_selectable(version: &Value, path: &str, faults: &mut Faults) {
    let Some(schema) = version.pointer("/schema/openAPIV3Schema") else {
        let rule = match path == "spec.selectableFields" {
            true => "may only be set when validations.schema is included",
            false => "may only be set when `version.schema.openAPIV3Schema` is not included",
        };
        return faults.invalid(path, "", rule);
    };
    let mut seen: Vec<&str> = Vec::new();
    for (at, field) in list(version, "/selectableFields").iter().enumerate() {
        let own = text(field, "/jsonPath");
        let at = format!("{path}[{at}].jsonPath");
        if own.is_empty() {
            faults.required(at, "");
            continue;
        }
        let found = match schema::plain_field(schema, own) {
            Ok(found) => found,
            Err(why) => {
                faults.invalid(at, own, format!("is an invalid path: {why}"));
                continue;
            }
        };
        if own == ".metadata" || own.starts_with(".metadata.") {
            let rule = "must not point to fields in metadata";
            faults.invalid(at.as_str(), own, rule);
        }
        if !matches!(text(found, "/type"), "string" | "boolean" | "integer") {
            let rule = "must point to a field of type string, boolean or integer. Enum string \
                        fields and strings with formats are allowed.";
            faults.invalid(at.as_str(), own, rule);
        }
        match seen.contains(&own) {
            true => faults.duplicate(at, own),
            false => seen.push(own),
        }
    }
    if seen.len() > SELECTABLE_MAX {
        faults.too_many(path, seen.len(), SELECTABLE_MAX);
    }
}

/// What decides where objects are stored stays as it is.
fn validate_unchanged(definition: &Value, old: &Value, faults: &mut Faults) {
    let mut fixed = vec!["group", "names.plural"];
    if is_true(old, "Established") {
        fixed.splice(0..0, ["scope", "names.kind"]);
    }
    for field in fixed {
        let pointer = format!("/spec/{}", field.replace('.', "/"));
        let (now, before) = (text(definition, &pointer), text(old, &pointer));
        if now != before {
            faults.invalid(format!("spec.{field}"), now, "field is immutable");
        }
    }
}
