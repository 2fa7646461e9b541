//! FlowSchema.

use jiff::Timestamp;
use meta::Faults;
use serde_json::{Value, json};

use crate::go::DISTINGUISHER;
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, unsupported_shown};
use crate::table::{age, cells, name, or};
use crate::tree::Tree;

const PRECEDENCE_DEFAULT: i64 = 1000;
const PRECEDENCE_MAX: i64 = 10_000;
const VERBS: [&str; 9] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "proxy",
    "update",
    "watch",
];

pub(crate) struct FlowSchema;

impl Strategy for FlowSchema {
    fn default(&self, object: &mut Value) {
        object.fill_zero("spec.matchingPrecedence", PRECEDENCE_DEFAULT);
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        meta::naming::dns1123_subdomain(name)
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        let own = object.text("metadata.name");
        validate_spec(&spec, own, faults);
        if let Some((precedence, method)) = mandatory(own)
            && !is_as_mandatory(&spec, own, precedence, method)
        {
            let rule = format!("spec of '{own}' must equal the fixed value");
            faults.invalid("spec", spec.value.clone(), rule);
        }
        validate_conditions(object, faults);
    }

    fn validate_status(&self, object: &Value, _old: &Value, faults: &mut Faults) {
        validate_conditions(object, faults);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let mut conditions = object.list("status.conditions").iter();
        let dangling = conditions.find(|one| one.text("type") == "Dangling");
        cells![
            name(object),
            object.text("spec.priorityLevelConfiguration.name"),
            object.int("spec.matchingPrecedence"),
            or(object.text("spec.distinguisherMethod.type"), "<none>"),
            age(object, now),
            dangling.map_or("?", |condition| condition.text("status")),
        ]
    }
}

/// Precedence and distinguisher of the schemas that are always there.
fn mandatory(name: &str) -> Option<(i64, &'static str)> {
    match name {
        "exempt" => Some((1, "")),
        "catch-all" => Some((10_000, "ByUser")),
        _ => None,
    }
}

fn is_as_mandatory(spec: &Spot<'_>, name: &str, precedence: i64, method: &str) -> bool {
    let everybody = match name {
        "exempt" => vec!["system:masters"],
        _ => vec!["system:unauthenticated", "system:authenticated"],
    };
    let subjects: Vec<Value> = everybody
        .iter()
        .map(|group| json!({"kind": "Group", "group": {"name": group}}))
        .collect();
    let rules = json!([{"subjects": subjects,
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
            "clusterScope": true, "namespaces": ["*"]}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]);
    spec.int("matchingPrecedence") == precedence
        && spec.text("distinguisherMethod.type") == method
        && spec.text("priorityLevelConfiguration.name") == name
        && *spec.at("rules") == rules
}

fn validate_spec(spec: &Spot<'_>, name: &str, faults: &mut Faults) {
    let precedence = spec.int("matchingPrecedence");
    let path = spec.path("matchingPrecedence");
    if precedence <= 0 {
        faults.invalid(&path, precedence, "must be a positive value");
    }
    if precedence > PRECEDENCE_MAX {
        let rule = format!("must not be greater than {PRECEDENCE_MAX}");
        faults.invalid(&path, precedence, rule);
    }
    if precedence == 1 && name != "exempt" {
        let rule = "only the schema named 'exempt' may have matchingPrecedence 1";
        faults.invalid(&path, precedence, rule);
    }
    if let Some(method) = spec.some("distinguisherMethod") {
        let kinds = ["ByNamespace", "ByUser"];
        if !kinds.contains(&method.text("type")) {
            let method = Spot {
                path: method.path("type"),
                ..method
            };
            unsupported_shown(faults, &method, &DISTINGUISHER, &kinds);
        }
    }
    let level = spec.child("priorityLevelConfiguration");
    match level.text("name") {
        "" => faults.required(level.path("name"), "must reference a priority level"),
        own => {
            for why in meta::naming::dns1123_subdomain(own) {
                faults.invalid(level.path("name"), own, why);
            }
        }
    }
    spec.items("rules")
        .for_each(|rule| validate_rule(&rule, faults));
}

fn validate_rule(rule: &Spot<'_>, faults: &mut Faults) {
    if rule.count("subjects") == 0 {
        let rule_text = "subjects must contain at least one value";
        faults.required(rule.path("subjects"), rule_text);
    }
    rule.items("subjects")
        .for_each(|subject| validate_subject(&subject, faults));
    if rule.count("resourceRules") == 0 && rule.count("nonResourceRules") == 0 {
        let text = "at least one of resourceRules and nonResourceRules has to be non-empty";
        faults.required(rule.path.clone(), text);
    }
    rule.items("resourceRules")
        .for_each(|own| validate_resource_rule(&own, faults));
    for own in rule.items("nonResourceRules") {
        validate_verbs(&own, faults);
        validate_urls(&own, faults);
    }
}

fn validate_subject(subject: &Spot<'_>, faults: &mut Faults) {
    const FIELDS: [(&str, &str); 3] = [
        ("ServiceAccount", "serviceAccount"),
        ("User", "user"),
        ("Group", "group"),
    ];
    let kind = subject.text("kind");
    let Some((_, field)) = FIELDS.iter().find(|(own, _)| *own == kind) else {
        let kinds = FIELDS.map(|(kind, _)| kind);
        return faults.not_supported(subject.path("kind"), kind, &kinds);
    };
    match subject.some(field) {
        None => faults.required(
            subject.path(field),
            format!("{field} is required when subject kind is '{kind}'"),
        ),
        Some(own) if *field == "serviceAccount" => validate_account(&own, faults),
        Some(own) => {
            if own.text("name").is_empty() {
                faults.required(own.path("name"), "");
            }
        }
    }
    for (other, field) in FIELDS.iter().filter(|(other, _)| *other != kind) {
        if subject.has(field) {
            let rule = format!("{field} is forbidden when subject kind is not '{other}'");
            faults.forbidden(subject.path(field), rule);
        }
    }
}

fn validate_account(account: &Spot<'_>, faults: &mut Faults) {
    match account.text("name") {
        "" => faults.required(account.path("name"), ""),
        "*" => {}
        name => {
            for why in meta::naming::dns1123_subdomain(name) {
                faults.invalid(account.path("name"), name, why);
            }
        }
    }
    match account.text("namespace") {
        "" => {
            let rule = "must specify namespace for service account";
            faults.required(account.path("namespace"), rule);
        }
        namespace => {
            for why in meta::naming::dns1123_label(namespace) {
                faults.invalid(account.path("namespace"), namespace, why);
            }
        }
    }
}

fn has_star(spot: &Spot<'_>, field: &str) -> bool {
    spot.texts(field).any(|text| text == "*")
}

fn validate_verbs(rule: &Spot<'_>, faults: &mut Faults) {
    let (path, value) = (rule.path("verbs"), rule.at("verbs"));
    if rule.count("verbs") == 0 {
        faults.required(path, "verbs must contain at least one value");
    } else if has_star(rule, "verbs") {
        if rule.count("verbs") > 1 {
            let text = "if '*' is present, must not specify other verbs";
            faults.invalid(path, value.clone(), text);
        }
    } else if rule.texts("verbs").any(|verb| !VERBS.contains(&verb)) {
        faults.not_supported(path, value.clone(), &VERBS);
    }
}

/// A list that has something, and `*` only alone.
fn validate_star(rule: &Spot<'_>, field: &str, needed: &str, others: &str, faults: &mut Faults) {
    let count = rule.count(field);
    if count == 0 {
        faults.required(rule.path(field), needed);
    } else if count > 1 && has_star(rule, field) {
        let text = format!("if '*' is present, must not specify other {others}");
        faults.invalid(rule.path(field), rule.at(field).clone(), text);
    }
}

fn validate_resource_rule(rule: &Spot<'_>, faults: &mut Faults) {
    validate_verbs(rule, faults);
    let needed = "resource rules must supply at least one api group";
    validate_star(rule, "apiGroups", needed, "api groups", faults);
    let needed = "resource rules must supply at least one resource";
    validate_star(rule, "resources", needed, "resources", faults);
    if rule.count("namespaces") == 0 && rule.flag("clusterScope") {
        return;
    }
    let needed = "resource rules that are not cluster scoped must supply at least one namespace";
    validate_star(rule, "namespaces", needed, "namespaces", faults);
    if has_star(rule, "namespaces") {
        return;
    }
    for namespace in rule.items("namespaces") {
        let text = namespace.value.as_str().unwrap_or_default();
        for why in meta::naming::dns1123_label(text) {
            let rule = format!("each member of this list must be '*' or a DNS-1123 label; {why}");
            faults.invalid(namespace.path.clone(), text, rule);
        }
    }
}

fn validate_urls(rule: &Spot<'_>, faults: &mut Faults) {
    const FIELD: &str = "nonResourceURLs";
    let needed = "nonResourceURLs must contain at least one value";
    validate_star(rule, FIELD, needed, "non-resource URLs", faults);
    if has_star(rule, FIELD) {
        return;
    }
    for url in rule.items(FIELD) {
        let text = url.value.as_str().unwrap_or_default();
        let stars = text.matches('*').count();
        let why = if text.is_empty() {
            "must not be empty"
        } else if !text.starts_with('/') {
            "must start with slash"
        } else if text.contains(' ') {
            "must not contain white-space"
        } else if text.contains("//") {
            "must not contain double slash"
        } else if stars > 1 || (stars == 1 && !text.ends_with("/*")) {
            "wildcard can only do suffix matching"
        } else {
            continue;
        };
        faults.invalid(url.path.clone(), text, why);
    }
}

/// Conditions of either kind.
pub(super) fn validate_conditions(object: &Value, faults: &mut Faults) {
    let mut seen = Vec::new();
    for condition in Spot::new(object, "status").items("conditions") {
        let kind = condition.value.text("type");
        if seen.contains(&kind) {
            faults.duplicate(condition.path("type"), kind);
        }
        seen.push(kind);
        if kind.is_empty() {
            faults.required(condition.path("type"), "");
        }
    }
}
