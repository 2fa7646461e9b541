//! CustomResourceDefinition itself: its defaults, preparation and validation.

mod approval;
mod columns;
mod conversion;
mod defaults;
mod names;
mod rules;
mod schema;
mod spec;
mod structural;
mod versions;

use jiff::Timestamp;
use kinds::{Cells, Strategy};
use meta::{Faults, naming};
use serde_json::{Map, Value, json};

use crate::formats::Format;

pub use approval::condition as approval_condition;
pub use structural::faults as structural_faults;

/// The finalizer that holds a definition until its instances are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// Port of a webhook's service that names none.
const SERVICE_PORT: u16 = 443;

/// The rules of CustomResourceDefinition.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefinitionStrategy;

/// Text at a JSON pointer.
fn text<'a>(tree: &'a Value, pointer: &str) -> &'a str {
    tree.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

/// List at a JSON pointer.
fn list<'a>(tree: &'a Value, pointer: &str) -> &'a [Value] {
    let list = tree.pointer(pointer).and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}

/// A structure as upstream shows it in faults: its fields in their order.
fn structure(fields: &[(&str, Value)]) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{{}}}", fields.join(","))
}

fn flag(tree: &Value, field: &str) -> bool {
    tree.get(field).and_then(Value::as_bool).unwrap_or(false)
}

/// Whether a condition of a definition is true.
pub fn is_true(definition: &Value, condition: &str) -> bool {
    let mut own = list(definition, "/status/conditions").iter();
    own.any(|own| own["type"] == condition && own["status"] == "True")
}

/// Sets a condition. The time moves only when the status does.
pub fn set_condition(
    definition: &mut Value,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
) {
    let body = meta::object::map_at(definition, "status");
    let conditions = body.entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    let known = conditions.iter_mut().find(|own| own["type"] == kind);
    let Some(known) = known else {
        conditions.push(json!({"type": kind, "status": status, "reason": reason,
            "message": message, "lastTransitionTime": meta::time::now()}));
        return;
    };
    if known["status"] != status || known["lastTransitionTime"].is_null() {
        known["lastTransitionTime"] = meta::time::now().into();
    }
    known["status"] = status.into();
    known["reason"] = reason.into();
    known["message"] = message.into();
}

/// Removes a condition.
pub fn remove_condition(definition: &mut Value, kind: &str) {
    let conditions = definition.pointer_mut("/status/conditions");
    if let Some(conditions) = conditions.and_then(Value::as_array_mut) {
        conditions.retain(|own| own["type"] != kind);
    }
}

fn storage_version(definition: &Value) -> Option<&str> {
    let mut stored = list(definition, "/spec/versions").iter();
    stored
        .find(|version| flag(version, "storage"))
        .map(|version| text(version, "/name"))
}

/// The version that objects are stored in is one that objects are stored in.
fn note_stored(definition: &mut Value) {
    let Some(version) = storage_version(definition).map(str::to_owned) else {
        return;
    };
    let status = meta::object::map_at(definition, "status");
    let stored = status.entry("storedVersions").or_insert_with(|| json!([]));
    if let Some(stored) = stored.as_array_mut()
        && !stored.iter().any(|own| *own == *version)
    {
        stored.push(version.into());
    }
}

fn default_names(names: &mut Map<String, Value>) {
    let kind = names.get("kind").and_then(Value::as_str).unwrap_or("");
    let (singular, list_kind) = (kind.to_lowercase(), format!("{kind}List"));
    let empty = |names: &Map<String, Value>, field: &str| {
        let own = names.get(field).and_then(Value::as_str);
        own.is_none_or(str::is_empty)
    };
    if kind.is_empty() {
        return;
    }
    if empty(names, "singular") {
        names.insert("singular".into(), singular.into());
    }
    if empty(names, "listKind") {
        names.insert("listKind".into(), list_kind.into());
    }
}

impl Strategy for DefinitionStrategy {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else {
            return;
        };
        if spec.get("names").is_some_and(Value::is_object) {
            default_names(meta::object::map_at(spec, "names"));
        }
        if spec.get("conversion").is_none_or(Value::is_null) {
            spec["conversion"] = json!({"strategy": "None"});
        }
        let service = spec.pointer_mut("/conversion/webhook/clientConfig/service");
        if let Some(service) = service.and_then(Value::as_object_mut) {
            service.entry("port").or_insert_with(|| SERVICE_PORT.into());
        }
        if list(object, "/status/storedVersions").is_empty() && object.get("status").is_some() {
            note_stored(object);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"acceptedNames": {"kind": "", "plural": ""}, "conditions": null,
            "storedVersions": []});
        note_stored(object);
    }

    fn prepare_update(&self, object: &mut Value, _: &Value) {
        note_stored(object);
    }

    fn prepare_delete(&self, object: &mut Value) {
        let metadata = meta::object::map_at(object, "metadata");
        let finalizers = metadata.entry("finalizers").or_insert_with(|| json!([]));
        if let Some(finalizers) = finalizers.as_array_mut()
            && !finalizers.iter().any(|own| own == FINALIZER)
        {
            finalizers.push(FINALIZER.into());
        }
        let text = "CustomResourceDefinition marked for deletion; CustomResource deletion will \
                    begin soon";
        set_condition(
            object,
            "Terminating",
            "True",
            "InstanceDeletionPending",
            text,
        );
    }

    fn has_free_finalizers(&self) -> bool {
        true
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let name = text(object, "/metadata/name");
        let wanted = format!(
            "{}.{}",
            text(object, "/spec/names/plural"),
            text(object, "/spec/group")
        );
        if !name.is_empty() && name != wanted {
            let rule = "must be spec.names.plural+\".\"+spec.group";
            faults.invalid("metadata.name", name, rule);
        }
        spec::validate(object, None, faults);
        validate_status(object, faults);
        versions::validate_stored(object, faults);
        approval::validate(object, None, faults);
        validate_preserving(object, None, faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        spec::validate(object, Some(old), faults);
        validate_status(object, faults);
        versions::validate_stored(object, faults);
        approval::validate(object, Some(old), faults);
        validate_preserving(object, Some(old), faults);
    }

    fn validate_status(&self, object: &Value, _: &Value, faults: &mut Faults) {
        validate_status(object, faults);
    }

    fn moves_generation(&self, object: &Value, old: &Value) -> bool {
        object.get("spec") != old.get("spec")
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        naming::dns1123_subdomain(name)
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        unknown_formats(object)
            .iter()
            .map(|own| warning(own))
            .collect()
    }

    fn warnings_update(&self, object: &Value, old: &Value) -> Vec<String> {
        let before = unknown_formats(old);
        let mut new = unknown_formats(object);
        new.retain(|own| !before.contains(own));
        new.iter().map(|own| warning(own)).collect()
    }

    fn cells(&self, object: &Value, _: Timestamp) -> Cells {
        let created = object.pointer("/metadata/creationTimestamp").cloned();
        vec![
            text(object, "/metadata/name").into(),
            created.unwrap_or_default(),
        ]
    }
}

fn warning(format: &str) -> String {
    format!("unrecognized format {format:?}")
}

/// Formats in all schemas that nothing checks.
fn unknown_formats(definition: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for version in list(definition, "/spec/versions") {
        let Some(schema) = version.pointer("/schema/openAPIV3Schema") else {
            continue;
        };
        schema::visit(schema, &mut |node| {
            let (kind, format) = (text(node, "/type"), text(node, "/format"));
            if !format.is_empty() && !Format::is_known(kind, format) {
                found.push(format.to_owned());
            }
        });
    }
    found
}

fn validate_status(object: &Value, faults: &mut Faults) {
    if let Some(accepted) = object.pointer("/status/acceptedNames") {
        names::validate(accepted, "status.acceptedNames", faults);
    }
}

fn validate_preserving(object: &Value, old: Option<&Value>, faults: &mut Faults) {
    let preserves = |tree: &Value| {
        let own = tree.pointer("/spec/preserveUnknownFields");
        own.and_then(Value::as_bool) == Some(true)
    };
    if preserves(object) && !old.is_some_and(preserves) {
        let rule = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                    spec.versions[*].schema instead";
        faults.invalid("spec.preserveUnknownFields", true, rule);
    }
}

#[cfg(test)]
mod tests;
