//! Policies and bindings as they are evaluated: read and compiled once, when they are stored.

use std::sync::Arc;

use cel::{AdmissionVariables, Env, Program, Type, admission_env};
use meta::{LabelSelector, Object};
use serde_json::Value;

use super::matching::Match;

/// An expression, ready or not: what does not compile fails when it is needed.
pub(super) type Compiled = Result<Program, String>;

/// One policy.
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) constraints: Match,
    /// Each with its text.
    pub(super) conditions: Vec<(String, Compiled)>,
    /// Each under its full name (`variables.x`), in order.
    pub(super) variables: Vec<(String, Compiled)>,
    pub(super) rules: Rules,
    /// Whether what goes wrong refuses the write.
    pub(super) fails: bool,
    pub(super) param_kind: Option<ParamKind>,
}

/// What a policy does.
pub(super) enum Rules {
    Validate {
        validations: Vec<Validation>,
        annotations: Vec<Annotation>,
    },
    Mutate {
        mutations: Vec<Mutation>,
        /// Whether it is asked again when the object has changed since.
        again: bool,
    },
}

/// One rule of a validating policy.
pub(super) struct Validation {
    pub(super) expression: String,
    pub(super) program: Compiled,
    pub(super) message: String,
    pub(super) message_expression: Option<Compiled>,
    pub(super) reason: String,
}

/// One audit annotation of a validating policy.
pub(super) struct Annotation {
    pub(super) key: String,
    pub(super) source: String,
    pub(super) program: Compiled,
}

/// One change of a mutating policy.
pub(super) enum Mutation {
    Apply(String, Compiled),
    JsonPatch(String, Compiled),
}

/// The kind of a policy's parameters.
pub(super) struct ParamKind {
    pub(super) api_version: String,
    pub(super) kind: String,
}

/// One binding.
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) policy: String,
    pub(super) resources: Option<Match>,
    pub(super) actions: Vec<String>,
    pub(super) param: Option<ParamRef>,
}

/// Which parameters a binding chooses.
pub(super) struct ParamRef {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) selector: Option<Result<LabelSelector, String>>,
    pub(super) deny_missing: bool,
}

pub(super) fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn list<'v>(value: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> {
    value
        .get(field)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// The variables' environment and programs.
struct Compiler {
    env: Env,
    /// Of messages, which ask nobody for rights.
    messages: Env,
    conditions: Env,
    variables: Vec<(String, Compiled)>,
}

impl Compiler {
    fn new(spec: &Value, patches: bool) -> Compiler {
        let params = spec.get("paramKind").is_some_and(|kind| !kind.is_null());
        let env = |authorizer: bool, patches: bool| {
            admission_env(AdmissionVariables {
                params,
                authorizer,
                patches,
            })
        };
        let composed =
            |env: Env| env.declare("variables", Type::object("kubernetes.variables", []));
        let mut own = composed(env(true, false));
        let mut rules = composed(env(true, patches));
        let mut messages = composed(env(false, false));
        let mut compiled = Vec::new();
        for variable in list(spec, "variables") {
            let name = format!("variables.{}", text(variable, "name"));
            let program = own.compile_to(text(variable, "expression"), &[]);
            let ty = program
                .as_ref()
                .map_or(Type::Dyn, |program| program.result_type().clone());
            let declare = |env: Env| env.declare(name.clone(), ty.clone());
            (own, rules, messages) = (declare(own), declare(rules), declare(messages));
            compiled.push((name, program));
        }
        Compiler {
            env: rules,
            messages,
            conditions: env(true, false),
            variables: compiled,
        }
    }

    fn conditions(&self, spec: &Value) -> Vec<(String, Compiled)> {
        let one = |condition: &Value| {
            let source = text(condition, "expression").trim();
            let program = self.conditions.compile_to(source, &[Type::Bool]);
            (source.to_owned(), program)
        };
        list(spec, "matchConditions").map(one).collect()
    }
}

impl Policy {
    /// Reads a ValidatingAdmissionPolicy.
    pub(super) fn validating(object: &Object) -> Arc<Policy> {
        let spec = object.0.get("spec").unwrap_or(&Value::Null);
        let compiler = Compiler::new(spec, false);
        let message = |text: &str| compiler.messages.compile_to(text, &[Type::String]);
        let validation = |validation: &Value| Validation {
            expression: text(validation, "expression").trim().to_owned(),
            program: compiler
                .env
                .compile_to(text(validation, "expression"), &[Type::Bool]),
            message: text(validation, "message").trim().to_owned(),
            message_expression: Some(text(validation, "messageExpression"))
                .filter(|text| !text.is_empty())
                .map(message),
            reason: text(validation, "reason").to_owned(),
        };
        let annotation = |annotation: &Value| {
            let source = text(annotation, "valueExpression").trim();
            Annotation {
                key: text(annotation, "key").to_owned(),
                source: source.to_owned(),
                program: compiler.env.compile_to(source, &[Type::String, Type::Null]),
            }
        };
        let rules = Rules::Validate {
            validations: list(spec, "validations").map(validation).collect(),
            annotations: list(spec, "auditAnnotations").map(annotation).collect(),
        };
        Policy::read(object, spec, compiler, rules)
    }

    /// Reads a MutatingAdmissionPolicy.
    pub(super) fn mutating(object: &Object) -> Arc<Policy> {
        let spec = object.0.get("spec").unwrap_or(&Value::Null);
        let compiler = Compiler::new(spec, true);
        let mutation = |mutation: &Value| {
            let expression = |field: &str| {
                mutation
                    .get(field)
                    .map_or("", |part| text(part, "expression").trim())
                    .to_owned()
            };
            match text(mutation, "patchType") {
                "JSONPatch" => {
                    let source = expression("jsonPatch");
                    let program = compiler
                        .env
                        .compile_to(&source, &[Type::list(Type::object("JSONPatch", []))]);
                    Mutation::JsonPatch(source, program)
                }
                _ => {
                    let source = expression("applyConfiguration");
                    let program = compiler
                        .env
                        .compile_to(&source, &[Type::object("Object", [])]);
                    Mutation::Apply(source, program)
                }
            }
        };
        let rules = Rules::Mutate {
            mutations: list(spec, "mutations").map(mutation).collect(),
            again: text(spec, "reinvocationPolicy") == "IfNeeded",
        };
        Policy::read(object, spec, compiler, rules)
    }

    fn read(object: &Object, spec: &Value, compiler: Compiler, rules: Rules) -> Arc<Policy> {
        let kind = spec.get("paramKind").filter(|kind| !kind.is_null());
        Arc::new(Policy {
            name: object.name().to_owned(),
            constraints: Match::read(spec.get("matchConstraints").unwrap_or(&Value::Null)),
            conditions: compiler.conditions(spec),
            variables: compiler.variables,
            rules,
            fails: text(spec, "failurePolicy") != "Ignore",
            param_kind: kind.map(|kind| ParamKind {
                api_version: text(kind, "apiVersion").to_owned(),
                kind: text(kind, "kind").to_owned(),
            }),
        })
    }
}

impl Binding {
    /// Reads a binding of either kind.
    pub(super) fn read(object: &Object) -> Arc<Binding> {
        let spec = object.0.get("spec").unwrap_or(&Value::Null);
        let given = |field: &str| spec.get(field).filter(|value| !value.is_null());
        let selector =
            |value: &Value| LabelSelector::from_value(value).map_err(|error| error.to_string());
        Arc::new(Binding {
            name: object.name().to_owned(),
            policy: text(spec, "policyName").to_owned(),
            resources: given("matchResources").map(Match::read),
            actions: list(spec, "validationActions")
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            param: given("paramRef").map(|param| ParamRef {
                name: text(param, "name").to_owned(),
                namespace: text(param, "namespace").to_owned(),
                selector: param
                    .get("selector")
                    .filter(|value| !value.is_null())
                    .map(selector),
                deny_missing: text(param, "parameterNotFoundAction") == "Deny",
            }),
        })
    }
}
