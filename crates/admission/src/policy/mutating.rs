//! Evaluation of mutating policies.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{Budget, Value};
use meta::status::Cause;
use meta::{Object, Reason, Status};
use schema::{ListKind, MapKind, Shape};
use serde_json::{Value as Json, json};

use super::compile::{Binding, Compiled, Mutation, Policy, Rules};
use super::evaluate::{conditions, invocations, namespace_of, run_named};
use super::scene::{Rights, Scene, request_json};
use super::{Hook, Policies};
use crate::plugin::{Lookup, Operation, Request};

/// Lets all policies change the object, one after the other.
pub(super) fn change(
    policies: &Policies,
    hooks: &[Hook],
    request: &Request<'_>,
    object: &mut Object,
    lookup: &dyn Lookup,
    again: bool,
) -> Result<(), Status> {
    if !matches!(request.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    let found = invocations(hooks, request, Some(object), lookup);
    let mut refused = Refused(Vec::new());
    let rights = policies.rights(request);
    let namespace = namespace_of(request, lookup);
    for invocation in found {
        let invocation = match invocation {
            Ok(invocation) => invocation,
            Err(unready) => {
                refused.add(unready.policy, unready.binding, &unready.message, false);
                continue;
            }
        };
        let Rules::Mutate {
            mutations,
            again: reinvoked,
        } = &invocation.policy.rules
        else {
            continue;
        };
        if again && !reinvoked {
            continue;
        }
        let json = request_json(request, &invocation.version);
        let (policy, binding) = (invocation.policy, invocation.binding);
        let stage = Stage {
            policy,
            old: request.old,
            request: &json,
            namespace: namespace.as_deref(),
            param: invocation.param.as_deref(),
            rights: &rights,
        };
        match conditions(policy, &stage.scene(object)) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(error) => {
                refused.add(policy, Some(binding), &error, true);
                continue;
            }
        }
        for mutation in mutations {
            let changed = {
                let scene = stage.scene(object);
                match mutation {
                    Mutation::Apply(source, program) => {
                        apply(source, program, &scene, request, object, lookup)
                    }
                    Mutation::JsonPatch(source, program) => patch(source, program, &scene, object),
                }
            };
            match changed {
                Ok(changed) => object.0 = changed,
                Err(error) => refused.add(policy, Some(binding), &error, true),
            }
        }
    }
    refused.status(request, object)
}

/// What one policy sees, but for the object that it changes.
struct Stage<'s> {
    policy: &'s Policy,
    old: Option<&'s Object>,
    request: &'s Json,
    namespace: Option<&'s Object>,
    param: Option<&'s Object>,
    rights: &'s Arc<Rights>,
}

impl Stage<'_> {
    fn scene<'o>(&'o self, object: &'o Object) -> Scene<'o> {
        let objects = (Some(object), self.old);
        Scene::new(
            self.policy,
            objects,
            self.request,
            self.namespace,
            self.param,
            self.rights,
        )
    }
}

/// What went wrong and matters.
struct Refused(Vec<(String, bool)>);

impl Refused {
    fn add(&mut self, policy: &Policy, binding: Option<&Binding>, error: &str, invalid: bool) {
        if policy.fails {
            let message = match binding {
                Some(binding) => {
                    format!(
                        "policy '{}' with binding '{}' denied request: {error}",
                        policy.name, binding.name
                    )
                }
                None => format!("policy {:?} denied request: {error}", policy.name),
            };
            self.0.push((message, invalid));
        }
    }

    fn status(self, request: &Request<'_>, object: &Object) -> Result<(), Status> {
        let Some((message, invalid)) = self.0.first() else {
            return Ok(());
        };
        let mut status = request.refused(Some(object), "");
        status.message.clone_from(message);
        if *invalid {
            // Upstream changes the reason and leaves the code.
            status.reason = Reason::Invalid;
        }
        let cause = |(message, _): (String, bool)| Cause {
            reason: String::new(),
            message,
            field: String::new(),
        };
        status.causes = self.0.into_iter().map(cause).collect();
        Err(status)
    }
}

/// Merges the object that the expression makes, as server-side apply would, but owned by nobody.
fn apply(
    source: &str,
    program: &Compiled,
    scene: &Scene<'_>,
    request: &Request<'_>,
    object: &Object,
    lookup: &dyn Lookup,
) -> Result<Json, String> {
    let value = run_named(source, program, scene, &mut Budget::new())?;
    if !matches!(value, Value::Object(_)) {
        return Err("unsupported return type from ApplyConfiguration expression".into());
    }
    check_names(&value, "Object").map_err(|error| format!("type mismatch: {error}"))?;
    let mut applied = value.to_json().ok_or("invalid return type: not JSON")?;
    let shape = lookup.shape(request.names);
    let shape = shape.ok_or_else(|| format!("Resource kind {} not found", request.names.kind))?;
    for field in ["apiVersion", "kind"] {
        applied[field] = object.0.get(field).cloned().unwrap_or_default();
    }
    let mut atomics = Vec::new();
    find_atomics(
        &Shape::Struct(shape.clone()),
        &applied,
        &mut String::new(),
        &mut atomics,
    );
    if !atomics.is_empty() {
        let atomics = atomics.join(", ");
        return Err(format!(
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {atomics}"
        ));
    }
    let mut live = object.0.clone();
    let managed = live
        .get_mut("metadata")
        .and_then(Json::as_object_mut)
        .and_then(|own| own.remove("managedFields"));
    let version = object.api_version().to_owned();
    let options = schema::ApplyOptions {
        manager: "policy",
        force: true,
        api_version: &version,
        subresource: request.subresource,
        now: "",
        reset: &[],
    };
    let merged = schema::apply(shape.get(), Some(&live), &applied, options);
    let mut merged = merged.map_err(|error| format!("error applying patch: {error}"))?;
    let metadata = meta::object::map_at(&mut merged, "metadata");
    match managed {
        Some(managed) => drop(metadata.insert("managedFields".into(), managed)),
        None => drop(metadata.remove("managedFields")),
    }
    Ok(merged)
}

/// Objects are named by the way to them: `Object.spec` is what `spec` of `Object` holds.
fn check_names(value: &Value<'_>, path: &str) -> Result<(), String> {
    match value {
        Value::Object(made) => {
            if *made.name != *path {
                return Err(format!(
                    "unexpected type name {:?}, expected {path:?}, which matches field name path from root Object type",
                    made.name
                ));
            }
            made.fields
                .iter()
                .try_for_each(|(name, field)| check_names(field, &format!("{path}.{name}")))
        }
        Value::List(items) => items.iter().try_for_each(|item| check_names(item, path)),
        Value::Map(map) => map.values().try_for_each(|item| check_names(item, path)),
        _ => Ok(()),
    }
}

/// The parts of a configuration that could only be replaced whole.
fn find_atomics(shape: &Shape, value: &Json, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match (shape, value) {
        (Shape::Struct(ty), Json::Object(map)) => {
            let ty = ty.get();
            if ty.atomic {
                found.push(path.clone());
            }
            for (name, value) in map {
                if let Some(field) = ty.field(name) {
                    path.push('.');
                    path.push_str(name);
                    find_atomics(&field.shape, value, path, found);
                    path.truncate(length);
                }
            }
        }
        (Shape::Map(inner, kind), Json::Object(map)) => {
            if *kind == MapKind::Atomic {
                found.push(path.clone());
            }
            for (name, value) in map {
                path.push('.');
                path.push_str(name);
                find_atomics(inner, value, path, found);
                path.truncate(length);
            }
        }
        (Shape::List(inner, kind), Json::Array(items)) => {
            if *kind == ListKind::Atomic {
                found.push(path.clone());
            }
            for (index, value) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                find_atomics(inner, value, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// Applies the list of operations that the expression makes.
fn patch(
    source: &str,
    program: &Compiled,
    scene: &Scene<'_>,
    object: &Object,
) -> Result<Json, String> {
    let value = run_named(source, program, scene, &mut Budget::new())?;
    let Value::List(operations) = &value else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".into());
    };
    let operations = operations
        .iter()
        .map(operation)
        .collect::<Result<Vec<Json>, String>>()?;
    let bytes = Json::Array(operations).to_string();
    match schema::json_patch(&object.0, bytes.as_bytes()) {
        Ok(changed) => Ok(changed),
        // A test that does not hold is how an expression says: not this one.
        Err(error) if error.to_string().ends_with("test failed") => Ok(object.0.clone()),
        Err(error) => Err(format!("JSON Patch: {error}")),
    }
}

fn operation(value: &Value<'_>) -> Result<Json, String> {
    let Value::Object(made) = value else {
        return Err(
            "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".into(),
        );
    };
    let mut tree = json!({});
    let fields: BTreeMap<_, _> = made.fields.iter().collect();
    for (name, field) in fields {
        if let ("value", Value::Object(object)) = (name.as_str(), field) {
            check_names(field, &object.name).map_err(|error| format!("type mismatch: {error}"))?;
        }
        let json = field.to_json();
        tree[name.as_str()] = json.ok_or(
            "JSONPath valueExpression evaluated to a type that could not marshal to JSON: unsupported type",
        )?;
    }
    Ok(tree)
}
