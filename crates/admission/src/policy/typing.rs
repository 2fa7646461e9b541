//! Type checking of validating policies against the kinds they are about: warnings, not refusals.

use std::collections::HashMap;
use std::sync::Arc;

use cel::{AdmissionVariables, Decl, Env, ObjectType, Type, admission_env};
use meta::Names;
use schema::{Shape, TypeRef};
use serde_json::{Value, json};

use super::compile::{list, text};

/// Kinds looked at for one policy.
const MAX_KINDS: usize = 10;
/// Types within types.
const MAX_DEPTH: usize = 40;

/// What the checker must know of kinds.
pub trait Kinds {
    /// Names and shape of a resource in a version; `None` if it is not served.
    fn resource(
        &self,
        group: &str,
        version: &str,
        plural: &str,
    ) -> Option<(Names, Option<TypeRef>)>;
    /// The shape of a kind.
    fn kind(&self, group: &str, version: &str, kind: &str) -> Option<TypeRef>;
}

/// The `expressionWarnings` for a ValidatingAdmissionPolicy's specification.
pub fn warnings(spec: &Value, kinds: &dyn Kinds) -> Vec<Value> {
    let params = spec.get("paramKind").filter(|kind| !kind.is_null());
    let param_type = params.and_then(|kind| {
        let version = text(kind, "apiVersion");
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        kinds.kind(group, version, text(kind, "kind"))
    });
    let types = resources(spec, kinds);
    let environments: Vec<(String, Env)> = types
        .iter()
        .map(|(names, shape)| {
            let variables = AdmissionVariables {
                params: params.is_some(),
                authorizer: true,
                patches: false,
            };
            let mut env = admission_env(variables);
            let object = root(shape, &names.kind);
            env = env
                .declare("object", object.clone())
                .declare("oldObject", object);
            if let Some(shape) = &param_type {
                env = env.declare("params", root(shape, "Params"));
            }
            (
                format!("{}, Kind={}", names.api_version(), names.kind),
                with_variables(env, spec),
            )
        })
        .collect();
    let mut warnings = Vec::new();
    for (index, validation) in list(spec, "validations").enumerate() {
        for field in ["expression", "messageExpression"] {
            let source = text(validation, field);
            let check = |(kind, env): &(String, Env)| {
                let error = env.compile_to(source, &[]).err()?;
                Some(format!("{kind}: {error}\n"))
            };
            let found: Vec<String> = environments
                .iter()
                .filter(|_| !source.is_empty())
                .filter_map(check)
                .collect();
            if !found.is_empty() {
                let field = format!("spec.validations[{index}].{field}");
                warnings.push(json!({"fieldRef": field, "warning": found.join("\n")}));
            }
        }
    }
    warnings
}

fn with_variables(mut env: Env, spec: &Value) -> Env {
    env = env.declare("variables", Type::object("kubernetes.variables", []));
    for variable in list(spec, "variables") {
        let program = env.compile_to(text(variable, "expression"), &[]);
        let ty = program.map_or(Type::Dyn, |program| program.result_type().clone());
        env = env.declare(format!("variables.{}", text(variable, "name")), ty);
    }
    env
}

/// The kinds that the rules name without a wildcard, in order.
fn resources(spec: &Value, kinds: &dyn Kinds) -> Vec<(Names, TypeRef)> {
    let constraints = spec.get("matchConstraints").unwrap_or(&Value::Null);
    let mut found: Vec<(Names, TypeRef)> = Vec::new();
    for rule in list(constraints, "resourceRules") {
        let words = |field: &str| {
            list(rule, field)
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
        };
        let (groups, versions) = (words("apiGroups"), words("apiVersions"));
        if groups
            .iter()
            .chain(&versions)
            .any(|word| word.contains('*'))
        {
            continue;
        }
        for group in groups {
            for version in &versions {
                for plural in words("resources") {
                    let resource = match plural.contains(['*', '/']) {
                        true => None,
                        false => kinds.resource(group, version, plural),
                    };
                    if let Some((names, Some(shape))) = resource
                        && found.iter().all(|(own, _)| *own != names)
                        && found.len() < MAX_KINDS
                    {
                        found.push((names, shape));
                    }
                }
            }
        }
    }
    found.sort_by(|(one, _), (two, _)| {
        (&one.group, &one.version, &one.kind).cmp(&(&two.group, &two.version, &two.kind))
    });
    found
}

/// The type of a whole object.
fn root(shape: &TypeRef, name: &str) -> Type {
    let mut builder = Builder {
        known: HashMap::new(),
    };
    match builder.structure(shape, 0) {
        Type::Object(object) => {
            let fields = object.fields.clone();
            Type::Object(Arc::new(ObjectType {
                name: name.to_owned(),
                fields,
            }))
        }
        other => other,
    }
}

struct Builder {
    known: HashMap<String, Type>,
}

impl Builder {
    fn structure(&mut self, shape: &TypeRef, depth: usize) -> Type {
        if let Some(known) = self.known.get(shape.name()) {
            return known.clone();
        }
        let ty = shape.get();
        // What holds itself is open from there on.
        self.known.insert(shape.name().to_owned(), Type::Dyn);
        let fields = ty.fields.iter().map(|field| {
            let inner = if depth < MAX_DEPTH {
                self.shape(&field.shape, depth + 1)
            } else {
                Type::Dyn
            };
            (field.json.clone().into_owned(), Decl::from(inner))
        });
        let fields: Vec<(String, Decl)> = fields.collect();
        let made = match fields.is_empty() {
            true => Type::Dyn,
            false => Type::object(shape.name(), fields),
        };
        // Types of custom resources need not have names of their own.
        match shape {
            TypeRef::Builtin(_) => drop(self.known.insert(shape.name().to_owned(), made.clone())),
            TypeRef::Owned(_) => drop(self.known.remove(shape.name())),
        }
        made
    }

    fn shape(&mut self, shape: &Shape, depth: usize) -> Type {
        match shape {
            Shape::Bool => Type::Bool,
            Shape::Int32 | Shape::Int64 => Type::Int,
            Shape::Double => Type::Double,
            Shape::Text | Shape::Quantity | Shape::Duration => Type::String,
            Shape::Bytes => Type::Bytes,
            Shape::Time | Shape::MicroTime => Type::Timestamp,
            Shape::IntOrString | Shape::Json | Shape::Raw | Shape::FieldsV1 | Shape::OneOf(_) => {
                Type::Dyn
            }
            Shape::Struct(ty) => self.structure(ty, depth),
            Shape::List(inner, _) => Type::list(self.shape(inner, depth)),
            Shape::Map(inner, _) => Type::map(Type::String, self.shape(inner, depth)),
        }
    }
}
