//! Faults in what decides about a pod's node: affinity, tolerations, spreading.

use meta::{Faults, naming};

use serde_json::Value;

use crate::spot::{Spot, label_selector, maybe_one_of, rules, unsupported};
use crate::tree::Tree;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Faults in `affinity`.
pub(super) fn validate_affinity(spec: &Spot<'_>, faults: &mut Faults) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let affinity = spec.child("affinity");
    let nodes = affinity.child("nodeAffinity");
    if let Some(selector) = nodes.some(REQUIRED) {
        node_selector(&selector, faults);
    }
    for term in nodes.items(PREFERRED) {
        validate_weight(&term, faults);
        // Values of preferences are not checked, for compatibility with old objects.
        validate_node_term(&term.child("preference"), Values::Anything, faults);
    }
    for pods in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.child(pods);
        for term in pods.items(REQUIRED) {
            validate_pod_term(&term, faults);
        }
        for term in pods.items(PREFERRED) {
            validate_weight(&term, faults);
            validate_pod_term(&term.child("podAffinityTerm"), faults);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    Labels,
    Anything,
}

/// Faults in a `NodeSelector`.
pub(crate) fn node_selector(selector: &Spot<'_>, faults: &mut Faults) {
    if selector.count("nodeSelectorTerms") == 0 {
        let path = selector.path("nodeSelectorTerms");
        faults.required(path, "must have at least one node selector term");
    }
    for term in selector.items("nodeSelectorTerms") {
        validate_node_term(&term, Values::Labels, faults);
    }
}

fn validate_weight(term: &Spot<'_>, faults: &mut Faults) {
    let weight = term.int("weight");
    if !(1..=100).contains(&weight) {
        faults.invalid(term.path("weight"), weight, "must be in the range 1-100");
    }
}

fn validate_node_term(term: &Spot<'_>, values: Values, faults: &mut Faults) {
    for expression in term.items("matchExpressions") {
        validate_expression(&expression, values, faults);
    }
    for field in term.items("matchFields") {
        match field.text("operator") {
            "In" | "NotIn" if field.count("values") == 1 => {}
            "In" | "NotIn" => faults.required(
                field.path("values"),
                "must be only one value when `operator` is 'In' or 'NotIn' for node field \
                 selector",
            ),
            other => {
                let rule = "not a valid selector operator";
                faults.invalid(field.path("operator"), other, rule);
            }
        }
        if field.text("key") != "metadata.name" {
            let rule = "not a valid field selector key";
            faults.invalid(field.path("key"), field.text("key"), rule);
            continue;
        }
        for value in field.items("values") {
            let name = value.as_str().unwrap_or("");
            rules(
                faults,
                value.path.clone(),
                name,
                naming::dns1123_subdomain(name),
            );
        }
    }
}

fn validate_expression(expression: &Spot<'_>, values: Values, faults: &mut Faults) {
    let path = expression.path("values");
    let count = expression.count("values");
    match expression.text("operator") {
        "In" | "NotIn" if count == 0 => {
            faults.required(path, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if count > 0 => faults.forbidden(
            path,
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        "Gt" | "Lt" if count != 1 => faults.required(
            path,
            "must be specified single value when `operator` is 'Lt' or 'Gt'",
        ),
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => {
            let rule = "not a valid selector operator";
            faults.invalid(expression.path("operator"), other, rule);
        }
    }
    let key = expression.text("key");
    rules(
        faults,
        expression.path("key"),
        key,
        naming::qualified_name(key),
    );
    if values == Values::Labels {
        for value in expression.items("values") {
            let text = value.as_str().unwrap_or("");
            rules(faults, value.path.clone(), text, naming::label_value(text));
        }
    }
}

fn validate_pod_term(term: &Spot<'_>, faults: &mut Faults) {
    label_selector(&term.child("labelSelector"), faults);
    label_selector(&term.child("namespaceSelector"), faults);
    for name in term.texts("namespaces") {
        rules(
            faults,
            term.path("namespace"),
            name,
            naming::dns1123_label(name),
        );
    }
    validate_label_keys(term, faults);
    let key = term.text("topologyKey");
    if key.is_empty() {
        faults.required(term.path("topologyKey"), "can not be empty");
    }
    rules(
        faults,
        term.path("topologyKey"),
        key,
        naming::qualified_name(key),
    );
}

/// Keys whose values are taken from the pod's own labels.
fn validate_label_keys(term: &Spot<'_>, faults: &mut Faults) {
    for list in ["matchLabelKeys", "mismatchLabelKeys"] {
        if term.count(list) > 0 && !term.has("labelSelector") {
            let rule = "must not be specified when labelSelector is not set";
            faults.forbidden(term.path(list), rule);
            continue;
        }
        for key in term.items(list) {
            let text = key.as_str().unwrap_or("");
            rules(faults, key.path.clone(), text, naming::qualified_name(text));
        }
    }
    validate_merged_keys(term, faults);
    for key in term.items("matchLabelKeys") {
        let text = key.as_str().unwrap_or("");
        if term.texts("mismatchLabelKeys").any(|other| other == text) {
            let rule = "exists in both matchLabelKeys and mismatchLabelKeys";
            faults.invalid(key.path.clone(), text, rule);
        }
    }
}

/// By now the selector has a condition for each of the keys, so that a user's own is a second.
fn validate_merged_keys(term: &Spot<'_>, faults: &mut Faults) {
    let labels = term.fields("labelSelector.matchLabels");
    let mut seen: Vec<&str> = labels.map(|(key, _)| key).collect();
    for expression in term.list("labelSelector.matchExpressions") {
        let key = expression.text("key");
        let place = term.texts("matchLabelKeys").position(|one| one == key);
        if let Some(index) = place.filter(|_| seen.contains(&key)) {
            // Upstream leaves the list's name out.
            let path = format!("{}[{index}]", term.path);
            faults.invalid(path, key, "exists in both matchLabelKeys and labelSelector");
        }
        seen.push(key);
    }
}

/// Faults in `tolerations`.
pub(crate) fn validate_tolerations(spec: &Spot<'_>, faults: &mut Faults) {
    for toleration in spec.items("tolerations") {
        let path = toleration.path("operator");
        let (key, operator) = (toleration.text("key"), toleration.text("operator"));
        let (value, effect) = (toleration.text("value"), toleration.text("effect"));
        if !key.is_empty() {
            rules(
                faults,
                toleration.path("key"),
                key,
                naming::qualified_name(key),
            );
        } else if operator != "Exists" {
            let rule = "operator must be Exists when `key` is empty, which means \"match all \
                        values and all keys\"";
            faults.invalid(path.clone(), operator, rule);
        }
        if toleration.has("tolerationSeconds") && effect != "NoExecute" {
            let rule = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            faults.invalid(toleration.path("effect"), effect, rule);
        }
        match operator {
            "Equal" | "" => {
                let broken = naming::label_value(value);
                if !broken.is_empty() {
                    faults.invalid(path, value, broken.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                faults.invalid(
                    path,
                    value,
                    "value must be empty when `operator` is 'Exists'",
                );
            }
            "Exists" => {}
            "Lt" | "Gt" => {
                unsupported(faults, path, operator, &["Equal", "Exists", "Lt", "Gt"]);
            }
            other => unsupported(faults, path, other, &["Equal", "Exists"]),
        }
        validate_effect(&toleration, faults);
    }
}

/// The effect, when there is one, is one of the three.
pub(crate) fn validate_effect(taint: &Spot<'_>, faults: &mut Faults) {
    let effect = taint.text("effect");
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        unsupported(faults, taint.path("effect"), effect, &EFFECTS);
    }
}

/// Faults in `topologySpreadConstraints`.
pub(super) fn validate_spread(spec: &Spot<'_>, faults: &mut Faults) {
    let all = spec.list("topologySpreadConstraints");
    for (index, constraint) in spec.items("topologySpreadConstraints").enumerate() {
        let skew = constraint.int("maxSkew");
        if skew <= 0 {
            faults.invalid(
                constraint.path("maxSkew"),
                skew,
                "must be greater than zero",
            );
        }
        let key = constraint.text("topologyKey").to_owned();
        if key.is_empty() {
            faults.required(constraint.path("topologyKey"), "can not be empty");
        }
        let action = constraint.text("whenUnsatisfiable").to_owned();
        if !matches!(action.as_str(), "DoNotSchedule" | "ScheduleAnyway") {
            let words = ["DoNotSchedule", "ScheduleAnyway"];
            let path = constraint.path("whenUnsatisfiable");
            unsupported(faults, path, action.as_str(), &words);
        }
        validate_domains(&constraint, &action, faults);
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            maybe_one_of(&constraint, field, &["Honor", "Ignore"], faults);
        }
        validate_label_keys(&constraint, faults);
        label_selector(&constraint.child("labelSelector"), faults);
        let alike = |other: &&Value| {
            other.text("topologyKey") == key && other.text("whenUnsatisfiable") == action
        };
        if all[index + 1..].iter().any(|other| alike(&other)) {
            let path = constraint.path("{topologyKey, whenUnsatisfiable}");
            faults.duplicate(path, format!("{{{key}, {action}}}"));
        }
    }
}

fn validate_domains(constraint: &Spot<'_>, action: &str, faults: &mut Faults) {
    let Some(domains) = constraint.maybe_int("minDomains") else {
        return;
    };
    let path = constraint.path("minDomains");
    if domains <= 0 {
        faults.invalid(path.clone(), domains, "must be greater than zero");
    }
    if action != "DoNotSchedule" {
        let rule =
            format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
        faults.invalid(path, domains, rule);
    }
}
