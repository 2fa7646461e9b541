//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: defaults, and expressions that compile.

use cel::{AdmissionVariables, Env, Type, admission_env};
use jiff::Timestamp;
use meta::Faults;
use serde_json::{Value, json};

use crate::row::{Cells, Strategy};
use crate::spot::Spot;
use crate::tree::Tree;

/// The rules of both kinds of policies.
pub(super) struct Policies {
    pub(super) mutating: bool,
    pub(super) cells: fn(&Value, Timestamp) -> Cells,
}

/// The rules of both kinds of bindings.
pub(super) struct Bindings {
    pub(super) mutating: bool,
    pub(super) cells: fn(&Value, Timestamp) -> Cells,
}

/// Fills what `matchConstraints` and `matchResources` leave out.
fn default_match(resources: &mut Value) {
    resources.fill("matchPolicy", "Equivalent");
    resources.fill("namespaceSelector", json!({}));
    resources.fill("objectSelector", json!({}));
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in resources.list_mut(list) {
            rule.fill("scope", "*");
        }
    }
}

impl Strategy for Policies {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else {
            return;
        };
        spec.fill("failurePolicy", "Fail");
        if let Some(resources) = spec
            .get_mut("matchConstraints")
            .filter(|own| own.is_object())
        {
            default_match(resources);
        }
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        self.validate(&Spot::new(object, "spec"), faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        // What was stored stays valid, whatever this version thinks of it.
        if object.at("spec") != old.at("spec") {
            self.validate_create(object, faults);
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        crate::warnings::static_suffix(object)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        (self.cells)(object, now)
    }
}

impl Policies {
    fn validate(&self, spec: &Spot<'_>, faults: &mut Faults) {
        if !spec.has("matchConstraints") {
            faults.required(spec.path("matchConstraints"), "");
        } else if spec.count("matchConstraints.resourceRules") == 0 {
            faults.required(spec.path("matchConstraints.resourceRules"), "");
        }
        let mut variables = AdmissionVariables {
            params: spec.has("paramKind"),
            authorizer: true,
            patches: false,
        };
        let conditions = admission_env(variables);
        for condition in spec.items("matchConditions") {
            compile(
                &conditions,
                &condition,
                "expression",
                "",
                &[Type::Bool],
                faults,
            );
        }
        variables.patches = self.mutating;
        let mut env =
            admission_env(variables).declare("variables", Type::object("kubernetes.variables", []));
        for variable in spec.items("variables") {
            let missing = "expression is not specified";
            let ty = compile(&env, &variable, "expression", missing, &[], faults);
            env = env.declare(format!("variables.{}", variable.text("name")), ty);
        }
        match self.mutating {
            true => mutations(&env, spec, faults),
            false => validations(&env, spec, faults),
        }
    }
}

fn validations(env: &Env, spec: &Spot<'_>, faults: &mut Faults) {
    if spec.count("validations") == 0 && spec.count("auditAnnotations") == 0 {
        for field in ["validations", "auditAnnotations"] {
            let text = "validations or auditAnnotations must contain at least one item";
            faults.required(spec.path(field), text);
        }
    }
    for validation in spec.items("validations") {
        let missing = "expression is not specified";
        compile(
            env,
            &validation,
            "expression",
            missing,
            &[Type::Bool],
            faults,
        );
        if !validation.text("messageExpression").is_empty() {
            compile(
                env,
                &validation,
                "messageExpression",
                "",
                &[Type::String],
                faults,
            );
        }
        let (message, expression) = (validation.text("message"), validation.text("expression"));
        if message.contains('\n') {
            faults.invalid(
                validation.path("message"),
                message,
                "must not contain line breaks",
            );
        }
        if expression.trim().contains('\n') && message.trim().is_empty() {
            let text = "message must be specified if expression contains line breaks";
            faults.required(validation.path("message"), text);
        }
    }
    for annotation in spec.items("auditAnnotations") {
        let missing = "valueExpression is not specified";
        compile(
            env,
            &annotation,
            "valueExpression",
            missing,
            &[Type::String, Type::Null],
            faults,
        );
    }
}

fn mutations(env: &Env, spec: &Spot<'_>, faults: &mut Faults) {
    if spec.count("mutations") == 0 {
        faults.required(
            spec.path("mutations"),
            "mutations must contain at least one item",
        );
    }
    if spec.text("reinvocationPolicy").is_empty() {
        faults.required(spec.path("reinvocationPolicy"), "");
    }
    for mutation in spec.items("mutations") {
        let (field, ty) = match mutation.text("patchType") {
            "JSONPatch" => ("jsonPatch", Type::list(Type::object("JSONPatch", []))),
            "ApplyConfiguration" => ("applyConfiguration", Type::object("Object", [])),
            "" => {
                faults.required(mutation.path("patchType"), "");
                continue;
            }
            _ => continue,
        };
        match mutation.has(field) {
            true => drop(compile(
                env,
                &mutation.child(field),
                "expression",
                "",
                &[ty],
                faults,
            )),
            false => {
                let kind = mutation.text("patchType");
                let text = format!("must be specified when patchType is {kind}");
                faults.required(mutation.path(field), text);
            }
        }
    }
}

/// The type of an expression; anything if it does not compile, which is a fault.
fn compile(
    env: &Env,
    spot: &Spot<'_>,
    field: &str,
    missing: &str,
    allowed: &[Type],
    faults: &mut Faults,
) -> Type {
    let source = spot.text(field);
    if source.trim().is_empty() {
        faults.required(spot.path(field), missing);
        return Type::Dyn;
    }
    match env.compile_to(source, allowed) {
        Ok(program) => program.result_type().clone(),
        Err(error) => {
            faults.invalid(spot.path(field), source, error);
            Type::Dyn
        }
    }
}

impl Strategy for Bindings {
    fn default(&self, object: &mut Value) {
        let resources = object.pointer_mut("/spec/matchResources");
        if let Some(resources) = resources.filter(|own| own.is_object()) {
            default_match(resources);
        }
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        if spec.text("policyName").is_empty() {
            faults.required(spec.path("policyName"), "");
        }
        if spec.has("paramRef") {
            let param = spec.child("paramRef");
            match (param.text("name").is_empty(), param.has("selector")) {
                (true, false) => faults.required(
                    param.path.clone(),
                    "one of name or selector must be specified",
                ),
                (false, true) => {
                    let text = "name and selector are mutually exclusive";
                    faults.forbidden(param.path("name"), text);
                }
                _ => {}
            }
            if param.text("parameterNotFoundAction").is_empty() {
                faults.required(param.path("parameterNotFoundAction"), "");
            }
        }
        if !self.mutating && spec.count("validationActions") == 0 {
            faults.required(
                spec.path("validationActions"),
                "at least one validation action is required",
            );
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        crate::warnings::static_suffix(object)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        (self.cells)(object, now)
    }
}
