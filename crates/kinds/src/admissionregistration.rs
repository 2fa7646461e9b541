//! The group `admissionregistration.k8s.io`: webhooks and policies.

mod binding;
mod conditions;
mod expressions;
mod matching;
mod policy;
mod rule;
mod target;
mod webhook;

use jiff::Timestamp;
use meta::Names;
use serde_json::Value;

use crate::row::{Cells, Row};
use crate::table::{age, cells, name};
use crate::tree::Tree;

#[rustfmt::skip]
pub(crate) fn rows() -> Vec<Row> {
    let names = |kind, plural| Names::cluster("admissionregistration.k8s.io", "v1", kind, plural).categories(&["api-extensions"]);
    let rows = [
        Row::new(names("MutatingAdmissionPolicy", "mutatingadmissionpolicies"), "Name, Mutations:integer, ParamKind, Age", policy::Policies { mutating: true, cells: mutating_policy }),
        Row::new(names("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings"), BINDING, binding::Bindings { mutating: true, cells: binding }),
        Row::new(names("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"), webhook::COLUMNS, webhook::Webhooks { mutating: true }),
        Row::new(names("ValidatingAdmissionPolicy", "validatingadmissionpolicies"), "Name, Validations:integer, ParamKind, Age", policy::Policies { mutating: false, cells: validating_policy }).status(),
        Row::new(names("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"), BINDING, binding::Bindings { mutating: false, cells: binding }),
        Row::new(names("ValidatingWebhookConfiguration", "validatingwebhookconfigurations"), webhook::COLUMNS, webhook::Webhooks { mutating: false }),
    ];
    let rows = rows.into_iter();
    rows.map(|row| row.generation().needs_version()).collect()
}

const BINDING: &str = "Name, PolicyName, ParamRef, Age";

fn validating_policy(object: &Value, now: Timestamp) -> Cells {
    policy_cells(object, "spec.validations", now)
}

fn mutating_policy(object: &Value, now: Timestamp) -> Cells {
    policy_cells(object, "spec.mutations", now)
}

fn policy_cells(object: &Value, rules: &str, now: Timestamp) -> Cells {
    let kind = object.at("spec.paramKind");
    let kind = match kind {
        Value::Null => "<unset>".to_owned(),
        kind => format!("{}/{}", kind.text("apiVersion"), kind.text("kind")),
    };
    cells![name(object), object.count(rules), kind, age(object, now)]
}

fn binding(object: &Value, now: Timestamp) -> Cells {
    let reference = object.at("spec.paramRef");
    let parameter = match (reference.text("namespace"), reference.text("name")) {
        ("", "") if reference.has("selector") => crate::table::selector(reference, "selector"),
        (_, "") => "<unset>".to_owned(),
        ("", name) => format!("*/{name}"),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    let policy = object.text("spec.policyName");
    cells![name(object), policy, parameter, age(object, now)]
}
