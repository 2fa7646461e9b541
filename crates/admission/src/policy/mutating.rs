//! Evaluation of mutating policies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use cel::{Budget, Value};
use meta::status::Cause;
use meta::{Names, Object, Reason, Status};
use schema::{ListKind, MapKind, Shape, TypeRef};
use serde_json::{Value as Json, json};

use super::compile::{Binding, Compiled, Mutation, Policy, Rules};
use super::evaluate::{Failure, Invocation, conditions, invocations, namespace_of, run};
use super::measure::{self, Outcome};
use super::scene::{Rights, Scene};
use super::subject::Subject;
use super::versions::show;
use super::{Hook, Policies};
use crate::rounds::Rounds;

/// One pass of all policies over one object.
pub(super) struct Change<'c> {
    policies: &'c Policies,
    subject: &'c Subject<'c>,
    old: Option<&'c Json>,
    rounds: &'c mut Rounds,
    again: bool,
    /// Whether any policy has been heard out.
    pub(super) changed: bool,
}

impl<'c> Change<'c> {
    pub(super) fn new(
        policies: &'c Policies,
        subject: &'c Subject<'c>,
        old: Option<&'c Json>,
        rounds: &'c mut Rounds,
        again: bool,
    ) -> Change<'c> {
        Change {
            policies,
            subject,
            old,
            rounds,
            again,
            changed: false,
        }
    }

    /// Lets all policies change the object, one after the other.
    pub(super) async fn run(&mut self, hooks: &[Hook], mut object: Json) -> Result<Json, Status> {
        let found = invocations(hooks, self.subject, (Some(&object), self.old));
        if found.is_empty() {
            return Ok(object);
        }
        let mut refused = Refused(Vec::new());
        let rights = self.policies.rights(self.subject);
        let namespace = namespace_of(self.subject)?;
        for invocation in found {
            match invocation {
                Ok(invocation) => {
                    let space = namespace.as_deref();
                    object = self
                        .invoke(&invocation, object, space, &rights, &mut refused)
                        .await?;
                }
                Err(unready) => {
                    refused.add(unready.policy, unready.binding, &unready.message, false);
                }
            }
        }
        if self.changed {
            self.rounds.require();
        }
        refused.status(self.subject, &object)?;
        Ok(object)
    }

    /// Lets one policy change the object.
    async fn invoke(
        &mut self,
        invocation: &Invocation<'_>,
        mut object: Json,
        namespace: Option<&Object>,
        rights: &Arc<Rights>,
        refused: &mut Refused,
    ) -> Result<Json, Status> {
        let (policy, binding) = (invocation.policy, invocation.binding);
        let (subject, names) = (self.subject, &*invocation.names);
        let Rules::Mutate { mutations, again } = &policy.rules else {
            return Ok(object);
        };
        let old = match show(subject, names, self.old).await {
            Ok(old) => old,
            Err(status) => {
                let text = format!("failed to configure policy: {}", status.message);
                refused.add(policy, None, &text, false);
                return Ok(object);
            }
        };
        let request = subject.request(names);
        let stage = Stage {
            policy,
            old: old.as_deref(),
            request: &request,
            namespace: namespace.map(|namespace| &namespace.0),
            param: invocation.param.as_deref().map(|param| &param.0),
            rights,
        };
        {
            let shown = subject.views.shown(names, &object).await?;
            match conditions(policy, &stage.scene(&shown, None)) {
                Ok(true) => {}
                Ok(false) => return Ok(object),
                Err(error) => {
                    refused.add(policy, Some(binding), &error, true);
                    return Ok(object);
                }
            }
        }
        let key = key_of(invocation);
        if self.again && !self.rounds.is_due(&key) {
            return Ok(object);
        }
        let shape = subject.views.shape(names);
        let shape = shape.ok_or_else(|| unknown(subject, names))?;
        for mutation in mutations {
            let shown = subject.views.shown(names, &object).await?;
            let begun = Instant::now();
            let changed = stage.apply(mutation, &shown, &shape, subject.subresource);
            let outcome = match &changed {
                Ok(_) => Outcome::Judged,
                Err(error) => Outcome::of_error(error),
            };
            measure::mutated(policy, binding, outcome, begun.elapsed());
            match changed {
                Ok(changed) => {
                    let changed = subject.views.kept(names, changed, &object).await?;
                    if changed != object {
                        self.rounds.require();
                    }
                    self.changed = true;
                    object = changed;
                }
                Err(error) => refused.add(policy, Some(binding), &error, true),
            }
        }
        if *again {
            self.rounds.called(key);
        }
        Ok(object)
    }
}

/// What one evaluation of a policy is known by.
fn key_of(invocation: &Invocation<'_>) -> String {
    let param = invocation.param.as_deref();
    let param = param.map(|param| format!("{}/{}", param.namespace(), param.name()));
    let (policy, binding) = (&invocation.policy.name, &invocation.binding.name);
    format!("{policy}/{binding}/{}", param.unwrap_or_default())
}

fn unknown(subject: &Subject<'_>, names: &Names) -> Status {
    let [group, version, kind] = subject.views.kind(names);
    let group = match group.as_str() {
        "" => String::from("/"),
        group => format!("{group}/"),
    };
    let text = format!(
        "Resource kind {group}{version}, Kind={kind} not found. There can be a delay between when \
         CustomResourceDefinitions are created and when they are available."
    );
    Status::new(Reason::ServiceUnavailable, text)
}

/// What one policy sees, but for the object that it changes.
struct Stage<'s> {
    policy: &'s Policy,
    old: Option<&'s Json>,
    request: &'s Json,
    namespace: Option<&'s Json>,
    param: Option<&'s Json>,
    rights: &'s Arc<Rights>,
}

impl Stage<'_> {
    fn scene<'o>(&'o self, object: &'o Json, namespace: Option<&'o Json>) -> Scene<'o> {
        let objects = (Some(object), self.old);
        let scene = Scene::new(self.policy, objects, self.request, self.param, self.rights);
        scene.with_namespace(namespace)
    }

    fn apply(
        &self,
        mutation: &Mutation,
        object: &Json,
        shape: &TypeRef,
        subresource: &str,
    ) -> Result<Json, String> {
        let scene = self.scene(object, self.namespace);
        match mutation {
            Mutation::Apply(source, program) => {
                let applied = configuration(source, program, &scene)?;
                merge(applied, object, shape, subresource)
            }
            Mutation::JsonPatch(source, program) => patch(source, program, &scene, object),
        }
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

    fn status(self, subject: &Subject<'_>, object: &Json) -> Result<(), Status> {
        let Some((message, invalid)) = self.0.first() else {
            return Ok(());
        };
        let mut status = subject.refused(Some(object), "");
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

/// The object that the expression makes.
fn configuration(source: &str, program: &Compiled, scene: &Scene<'_>) -> Result<Json, String> {
    let value = run(source, program, scene, &mut Budget::new()).map_err(Failure::text)?;
    if !matches!(value, Value::Object(_)) {
        return Err("unsupported return type from ApplyConfiguration expression".into());
    }
    check_names(&value, "Object").map_err(|error| format!("type mismatch: {error}"))?;
    let made = value.to_json();
    made.ok_or_else(|| "invalid return type: not JSON".into())
}

/// Merges a configuration as server-side apply would, but owned by nobody.
fn merge(
    mut applied: Json,
    object: &Json,
    shape: &TypeRef,
    subresource: &str,
) -> Result<Json, String> {
    for field in ["apiVersion", "kind"] {
        applied[field] = object.get(field).cloned().unwrap_or_default();
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
    let mut live = object.clone();
    let managed = live
        .get_mut("metadata")
        .and_then(Json::as_object_mut)
        .and_then(|own| own.remove("managedFields"));
    let version = object.get("apiVersion").and_then(Json::as_str);
    let options = schema::ApplyOptions {
        manager: "policy",
        force: true,
        api_version: version.unwrap_or_default(),
        subresource,
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
    object: &Json,
) -> Result<Json, String> {
    let value = run(source, program, scene, &mut Budget::new()).map_err(Failure::text)?;
    let Value::List(operations) = &value else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".into());
    };
    let operations = operations
        .iter()
        .map(operation)
        .collect::<Result<Vec<Json>, String>>()?;
    let bytes = Json::Array(operations).to_string();
    match schema::json_patch(object, bytes.as_bytes()) {
        Ok(changed) => Ok(changed),
        // A test that does not hold is how an expression says: not this one.
        Err(error) if error.to_string().ends_with("test failed") => Ok(object.clone()),
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
