//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: their shape, and expressions that compile.

use std::collections::BTreeSet;

use cel::{Env, Type};
use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use super::conditions::policy_conditions;
use super::expressions::{Environments, Source};
use super::matching::{default_match, validate_match};
use crate::path::Path;
use crate::row::{Cells, Strategy};
use crate::spot::{
    Spot, conditions, maybe_one_of, one_given, one_of, required, rules, unsupported,
};
use crate::tree::Tree;

const ANNOTATIONS_MAX: usize = 20;
const ANNOTATION_EXPRESSION_MAX: usize = 5 * 1024;
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
const PATCH_TYPES: [&str; 2] = ["ApplyConfiguration", "JSONPatch"];

/// The rules of both kinds of policies.
pub(super) struct Policies {
    pub(super) mutating: bool,
    pub(super) cells: fn(&Value, Timestamp) -> Cells,
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
        self.validate(object, true, faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        let fields = ["spec.paramKind", "spec.matchConditions"];
        let changed = fields.iter().any(|field| object.at(field) != old.at(field));
        self.validate(object, changed, faults);
    }

    fn validate_status(&self, object: &Value, _old: &Value, faults: &mut Faults) {
        let status = Spot::new(object, "status");
        for warning in status.child("typeChecking").items("expressionWarnings") {
            required(&warning, "warning", faults);
            if warning.text("fieldRef").trim().is_empty() {
                faults.required(warning.path("fieldRef"), "");
            }
        }
        conditions(&status, faults);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        crate::warnings::static_suffix(object)
    }

    fn has_free_finalizers(&self) -> bool {
        true
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        (self.cells)(object, now)
    }
}

impl Policies {
    fn validate(&self, object: &Value, conditions: bool, faults: &mut Faults) {
        let spec = &Spot::new(object, "spec");
        one_given(spec, "failurePolicy", &["Fail", "Ignore"], faults);
        if let Some(kind) = spec.some("paramKind") {
            validate_kind(&kind, faults);
        }
        match spec.some("matchConstraints") {
            None => faults.required(spec.path("matchConstraints"), ""),
            Some(resources) => {
                validate_match(&resources, false, faults);
                if resources.count("resourceRules") == 0 {
                    faults.required(resources.path("resourceRules"), "");
                }
                if self.mutating {
                    super::matching::validate_mutating(&resources, faults);
                }
            }
        }
        if conditions {
            policy_conditions(spec, faults);
        }
        let environments = Environments::new(spec, self.mutating).declare(spec, faults);
        match self.mutating {
            true => mutations(&environments.rules, spec, faults),
            false => {
                let name = object.text("metadata.name");
                validations(&environments, spec, name, faults);
            }
        }
    }
}

fn validate_kind(kind: &Spot<'_>, faults: &mut Faults) {
    let (path, text) = (kind.path("apiVersion"), kind.text("apiVersion"));
    let parts: Vec<&str> = text.split('/').collect();
    match parts.as_slice() {
        _ if text.is_empty() => faults.required(path, ""),
        ["", ""] => faults.invalid(path, text, "version must be specified"),
        [version] => validate_version(version, text, path, faults),
        [group, version] => {
            let broken = match *group {
                "" => Vec::new(),
                group => naming::dns1123_subdomain(group),
            };
            if !broken.is_empty() {
                faults.invalid(path.clone(), *group, broken.join(","));
            }
            validate_version(version, text, path, faults);
        }
        _ => {
            let rule = format!("unexpected GroupVersion string: {text}");
            faults.invalid(path, text, rule);
        }
    }
    let name = kind.text("kind");
    if name.is_empty() {
        return faults.required(kind.path("kind"), "");
    }
    let broken = naming::dns1035_label(&name.to_lowercase());
    if !broken.is_empty() {
        let rule = "may have mixed case, but should otherwise match: ";
        let rule = format!("{rule}{}", broken.join(","));
        faults.invalid(kind.path("kind"), name, rule);
    }
}

fn validate_version(version: &str, text: &str, path: Path, faults: &mut Faults) {
    if version.is_empty() {
        return faults.invalid(path, text, "version must be specified");
    }
    let broken = naming::dns1035_label(version);
    if !broken.is_empty() {
        faults.invalid(path, version, broken.join(","));
    }
}

fn validations(environments: &Environments, spec: &Spot<'_>, name: &str, faults: &mut Faults) {
    if spec.count("validations") == 0 && spec.count("auditAnnotations") == 0 {
        for field in ["validations", "auditAnnotations"] {
            let text = "validations or auditAnnotations must contain at least one item";
            faults.required(spec.path(field), text);
        }
        return;
    }
    for validation in spec.items("validations") {
        validate_validation(environments, &validation, faults);
    }
    let count = spec.count("auditAnnotations");
    if count > ANNOTATIONS_MAX {
        let rule = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        let given = spec.at("auditAnnotations").clone();
        faults.invalid(spec.path("auditAnnotations"), given, rule);
    }
    let mut keys = BTreeSet::new();
    for annotation in spec.items("auditAnnotations") {
        validate_annotation(&environments.rules, &annotation, name, faults);
        let key = annotation.text("key");
        if !keys.insert(key.to_owned()) {
            faults.duplicate(annotation.path("key"), key);
        }
    }
}

fn validate_validation(environments: &Environments, validation: &Spot<'_>, faults: &mut Faults) {
    const BLANK: &str = "must be non-empty if specified";
    let missing = "expression is not specified";
    let source = Source::of(validation, "expression");
    source.compile(&environments.rules, missing, &[Type::Bool], faults);
    let computed = validation.text("messageExpression");
    if !computed.is_empty() && computed.trim().is_empty() {
        faults.invalid(validation.path("messageExpression"), computed, BLANK);
    } else if !computed.is_empty() {
        let source = Source::of(validation, "messageExpression");
        source.compile(&environments.messages, "", &[Type::String], faults);
    }
    let message = validation.text("message");
    if !message.is_empty() && message.trim().is_empty() {
        faults.invalid(validation.path("message"), message, BLANK);
    } else if message.trim().contains(['\n', '\r']) {
        let rule = "must not contain line breaks";
        faults.invalid(validation.path("message"), message, rule);
    }
    maybe_one_of(validation, "reason", &REASONS, faults);
}

fn validate_annotation(env: &Env, annotation: &Spot<'_>, name: &str, faults: &mut Faults) {
    let (path, key) = (annotation.path("key"), annotation.text("key"));
    match name {
        "" => faults.invalid(path, key, "requires metadata.name be non-empty"),
        name => {
            let key = format!("{name}/{key}");
            let broken = naming::qualified_name(&key);
            rules(faults, path, key, broken);
        }
    }
    if annotation.text("valueExpression").trim().len() > ANNOTATION_EXPRESSION_MAX {
        let rule = format!("must not exceed {ANNOTATION_EXPRESSION_MAX} bytes in length");
        return faults.required(annotation.path("valueExpression"), rule);
    }
    let source = Source::of(annotation, "valueExpression").trimmed();
    let missing = "valueExpression is not specified";
    source.compile(env, missing, &[Type::String, Type::Null], faults);
}

fn mutations(env: &Env, spec: &Spot<'_>, faults: &mut Faults) {
    if spec.count("mutations") == 0 {
        let missing = "mutations must contain at least one item";
        faults.required(spec.path("mutations"), missing);
    }
    for mutation in spec.items("mutations") {
        let (field, other, ty) = match mutation.text("patchType") {
            "JSONPatch" => (
                "jsonPatch",
                "applyConfiguration",
                Type::list(Type::object("JSONPatch", [])),
            ),
            "ApplyConfiguration" => (
                "applyConfiguration",
                "jsonPatch",
                Type::object("Object", []),
            ),
            "" => {
                faults.required(mutation.path("patchType"), "");
                continue;
            }
            word => {
                unsupported(faults, mutation.path("patchType"), word, &PATCH_TYPES);
                continue;
            }
        };
        let kind = mutation.text("patchType");
        match mutation.some(field) {
            Some(patch) => {
                let source = Source::of(&patch, "expression").shown_trimmed();
                source.compile(env, "", &[ty], faults);
            }
            None => {
                let text = format!("must be specified when patchType is {kind}");
                faults.required(mutation.path(field), text);
            }
        }
        if mutation.has(other) {
            let rule = format!("must not be specified when patchType is {kind}");
            faults.invalid(mutation.path(other), format!("{{{other}}}"), rule);
        }
    }
    one_of(spec, "reinvocationPolicy", &["IfNeeded", "Never"], faults);
}

#[cfg(test)]
mod tests;
