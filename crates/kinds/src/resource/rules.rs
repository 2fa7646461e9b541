//! Rules that claims, classes and slices share.

use std::collections::{BTreeMap, BTreeSet};

use meta::{Faults, naming};
use serde_json::Value;

use crate::core::validate_driver;
use crate::spot::{Spot, required, rules, unsupported};
use crate::tree::Tree;

const REQUESTS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const CONSTRAINTS_MAX: usize = 32;
const CONFIGURATIONS_MAX: usize = 32;
const SELECTORS_MAX: usize = 32;
const PARAMETERS_BYTES_MAX: usize = 10 << 10;
const IDENTIFIER_MAX: usize = 32;

/// Names of a claim's requests, each with those of its alternatives.
type Requests<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// Whether a list is short enough to be looked at; if not, that is all there is to say.
fn fits(holder: &Spot<'_>, field: &str, most: usize, faults: &mut Faults) -> bool {
    let count = holder.count(field);
    if count > most {
        faults.too_many(holder.path(field), count, most);
    }
    count <= most
}

fn label(holder: &Spot<'_>, field: &str, faults: &mut Faults) {
    let text = holder.text(field);
    let broken = naming::dns1123_label(text);
    rules(faults, holder.path(field), text, broken);
}

/// Faults in the `devices` of a claim.
pub(super) fn validate_devices(devices: &Spot<'_>, faults: &mut Faults) {
    let known: Requests<'_> = devices
        .list("requests")
        .iter()
        .map(|request| {
            let others = request.list("firstAvailable").iter();
            let others = others.map(|other| other.text("name")).collect();
            (request.text("name"), others)
        })
        .collect();
    if fits(devices, "requests", REQUESTS_MAX, faults) {
        for request in devices.items("requests") {
            validate_request(&request, faults);
        }
        unique_names(devices, "requests", faults);
    }
    if fits(devices, "constraints", CONSTRAINTS_MAX, faults) {
        for constraint in devices.items("constraints") {
            validate_references(&constraint, &known, faults);
            validate_constraint(&constraint, faults);
        }
    }
    if fits(devices, "config", CONFIGURATIONS_MAX, faults) {
        for config in devices.items("config") {
            validate_references(&config, &known, faults);
            validate_configuration(&config, faults);
        }
    }
}

/// No two items of a list have the same name.
pub(super) fn unique_names(holder: &Spot<'_>, field: &str, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    for item in holder.items(field) {
        let name = item.text("name");
        if !seen.insert(name.to_owned()) {
            faults.duplicate(item.path.clone(), name);
        }
    }
}

fn validate_request(request: &Spot<'_>, faults: &mut Faults) {
    label(request, "name", faults);
    match (request.count("firstAvailable") > 0, request.some("exactly")) {
        (false, None) => {
            let rule = "exactly one of `exactly` or `firstAvailable` is required";
            faults.required(request.path.clone(), rule);
        }
        (true, Some(_)) => {
            let rule = "exactly one of `exactly` or `firstAvailable` is required, but multiple \
                        fields are set";
            faults.invalid(request.path.clone(), Value::Null, rule);
        }
        (false, Some(exactly)) => validate_one(&exactly, faults),
        (true, None) => {
            if fits(request, "firstAvailable", ALTERNATIVES_MAX, faults) {
                for other in request.items("firstAvailable") {
                    label(&other, "name", faults);
                    validate_one(&other, faults);
                }
                unique_names(request, "firstAvailable", faults);
            }
        }
    }
}

fn validate_one(request: &Spot<'_>, faults: &mut Faults) {
    crate::spot::named(
        request,
        "deviceClassName",
        naming::dns1123_subdomain,
        faults,
    );
    validate_selectors(request, faults);
    let count = request.int("count");
    match request.text("allocationMode") {
        "All" if count != 0 => {
            let rule = "must not be specified when allocationMode is 'All'";
            faults.invalid(request.path("count"), count, rule);
        }
        "All" => {}
        "ExactCount" if count <= 0 => {
            faults.invalid(request.path("count"), count, "must be greater than zero");
        }
        "ExactCount" => {}
        other => {
            let path = request.path("allocationMode");
            unsupported(faults, path, other, &["All", "ExactCount"]);
        }
    }
    for toleration in request.items("tolerations") {
        validate_toleration(&toleration, faults);
    }
}

fn validate_toleration(toleration: &Spot<'_>, faults: &mut Faults) {
    let key = toleration.text("key");
    if !key.is_empty() {
        rules(
            faults,
            toleration.path("key"),
            key,
            naming::qualified_name(key),
        );
    }
    let value = toleration.text("value");
    match toleration.text("operator") {
        "Exists" if !value.is_empty() => {
            let rule = "must be empty for operator `Exists`";
            faults.invalid(toleration.path("value"), value, rule);
        }
        "Exists" => {}
        "Equal" => rules(
            faults,
            toleration.path("value"),
            value,
            naming::label_value(value),
        ),
        "" => faults.required(toleration.path("operator"), ""),
        other => {
            let path = toleration.path("operator");
            unsupported(faults, path, other, &["Equal", "Exists"]);
        }
    }
    let effect = toleration.text("effect");
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        unsupported(faults, toleration.path("effect"), effect, &EFFECTS);
    }
}

/// What a taint of a device does.
pub(super) const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

/// Faults in `selectors`.
pub(super) fn validate_selectors(holder: &Spot<'_>, faults: &mut Faults) {
    if !fits(holder, "selectors", SELECTORS_MAX, faults) {
        return;
    }
    for selector in holder.items("selectors") {
        match selector.some("cel") {
            None => faults.required(selector.path("cel"), ""),
            Some(cel) => super::selectors::validate(&cel, faults),
        }
    }
}

/// `requests` names requests of the claim, or alternatives of one.
fn validate_references(holder: &Spot<'_>, known: &Requests<'_>, faults: &mut Faults) {
    if !fits(holder, "requests", REQUESTS_MAX, faults) {
        return;
    }
    const RULE: &str = "must be the name of a request in the claim or the name of a request and a \
                        subrequest separated by '/'";
    let mut seen = BTreeSet::new();
    for reference in holder.items("requests") {
        let text = reference.as_str().unwrap_or("");
        let (first, rest) = match text.split_once('/') {
            Some((first, rest)) => (first, Some(rest)),
            None => (text, None),
        };
        if rest.is_some_and(|rest| rest.contains('/')) {
            faults.invalid(reference.path.clone(), text, RULE);
            continue;
        }
        for part in [Some(first), rest].into_iter().flatten() {
            let broken = naming::dns1123_label(part);
            rules(faults, reference.path.clone(), part, broken);
        }
        let others = known.get(first);
        if !others.is_some_and(|others| rest.is_none_or(|rest| others.contains(rest))) {
            faults.invalid(reference.path.clone(), text, RULE);
        }
        if !seen.insert(text.to_owned()) {
            faults.duplicate(reference.path.clone(), text);
        }
    }
}

fn validate_constraint(constraint: &Spot<'_>, faults: &mut Faults) {
    for field in ["matchAttribute", "distinctAttribute"] {
        if constraint.has(field) {
            let (name, path) = (constraint.text(field), constraint.path(field));
            validate_qualified(name, &path, faults);
            if !name.contains('/') {
                let rule = "a fully qualified name must be a domain and a name separated by a \
                            slash";
                faults.invalid(path, name, rule);
            }
            return;
        }
    }
    let rule = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but \
                multiple fields are set";
    faults.required(constraint.path.clone(), rule);
}

/// The name of an attribute or capacity, with or without a domain.
pub(super) fn validate_qualified(name: &str, path: &str, faults: &mut Faults) {
    let identifier = |text: &str, faults: &mut Faults| {
        if text.len() > IDENTIFIER_MAX {
            faults.too_long(path, IDENTIFIER_MAX);
        }
        let mut bytes = text.bytes();
        let starts = bytes
            .next()
            .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        if !starts || !bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            let rule = "a valid C identifier must start with alphabetic character or '_', \
                        followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  \
                        or 'MY_NAME',  or 'MyName', regex used for validation is \
                        '[A-Za-z_][A-Za-z0-9_]*')";
            faults.invalid(path, text, rule);
        }
    };
    match name.split_once('/') {
        None => identifier(name, faults),
        Some((domain, rest)) => {
            if domain.is_empty() {
                faults.invalid(path, "", "the domain must not be empty");
            } else {
                let broken = naming::dns1123_subdomain(&domain.to_lowercase());
                rules(faults, path, domain, broken);
            }
            if rest.is_empty() {
                faults.invalid(path, "", "the name must not be empty");
            } else {
                identifier(rest, faults);
            }
        }
    }
}

/// Faults in one entry of `config`.
pub(super) fn validate_configuration(config: &Spot<'_>, faults: &mut Faults) {
    let Some(opaque) = config.some("opaque") else {
        return faults.required(config.path("opaque"), "");
    };
    validate_driver(&opaque, "driver", faults);
    let parameters = opaque.child("parameters");
    match parameters.value {
        Value::Null => faults.required(parameters.path, ""),
        Value::Object(_) if parameters.value.to_string().len() > PARAMETERS_BYTES_MAX => {
            faults.too_long(parameters.path, PARAMETERS_BYTES_MAX);
        }
        Value::Object(_) => {}
        _ => faults.invalid(
            parameters.path,
            "<value omitted>",
            "must be a valid JSON object",
        ),
    }
}

/// The configurations of a class.
pub(super) fn validate_configurations(spec: &Spot<'_>, faults: &mut Faults) {
    if fits(spec, "config", CONFIGURATIONS_MAX, faults) {
        for config in spec.items("config") {
            validate_configuration(&config, faults);
        }
    }
}

/// The name of a pool: subdomains between slashes.
pub(super) fn validate_pool(pool: &Spot<'_>, field: &str, faults: &mut Faults) {
    const POOL_NAME_MAX: usize = 253;
    let (name, path) = (pool.text(field), pool.path(field));
    if name.is_empty() {
        return required(pool, field, faults);
    }
    if name.len() > POOL_NAME_MAX {
        faults.too_long(path.clone(), POOL_NAME_MAX);
    }
    for part in name.split('/') {
        rules(faults, path.clone(), part, naming::dns1123_subdomain(part));
    }
}
