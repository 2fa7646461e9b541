//! HorizontalPodAutoscaler.

use jiff::Timestamp;
use meta::Faults;
use serde_json::{Value, json};

use super::metrics;
use crate::row::{Cells, Strategy};
use crate::spot::{NOT_NEGATIVE, Spot, amount, maybe_one_of, not_negative, unsupported};
use crate::table::{age, cells, name, plain, quantity};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Reference, Targets, MinPods, MaxPods, Replicas, Age";
/// As many metrics a cell shows.
const SHOWN_MAX: usize = 2;

/// What is aimed at when the user names no metric.
const CPU_PERCENT: i64 = 80;
/// How fast the number of pods may change; kind and amount per [`PERIOD_SECONDS`].
const UP_POLICIES: &[(&str, i64)] = &[("Pods", 4), ("Percent", 100)];
const DOWN_POLICIES: &[(&str, i64)] = &[("Percent", 100)];
const PERIOD_SECONDS: i64 = 15;

pub(crate) struct HorizontalPodAutoscaler;

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, object: &mut Value) {
        object.fill("spec.minReplicas", 1);
        if object.count("spec.metrics") == 0 {
            let target = json!({"type": "Utilization", "averageUtilization": CPU_PERCENT});
            let resource = json!({"name": "cpu", "target": target});
            object.set(
                "spec.metrics",
                json!([{"type": "Resource", "resource": resource}]),
            );
        }
        if object.has("spec.behavior") {
            default_rules(object, "spec.behavior.scaleUp", UP_POLICIES);
            object.fill("spec.behavior.scaleUp.stabilizationWindowSeconds", 0);
            default_rules(object, "spec.behavior.scaleDown", DOWN_POLICIES);
        }
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        validate(object, true, true, faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        // What was accepted once stays acceptable.
        let version = |reference: &Value, needs_group: bool| {
            metrics::api_version_fault(reference.text("apiVersion"), needs_group).is_none()
        };
        let target = version(old.at("spec.scaleTargetRef"), true);
        let mut objects = old.list("spec.metrics").iter();
        let objects = objects.all(|metric| version(metric.at("object.describedObject"), false));
        validate(object, target, objects, faults);
    }

    fn validate_status(&self, object: &Value, _old: &Value, faults: &mut Faults) {
        let status = Spot::new(object, "status");
        for field in ["currentReplicas", "desiredReplicas"] {
            not_negative(&status, field, faults);
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let target = object.at("spec.scaleTargetRef");
        let min = match object.at("spec.minReplicas") {
            Value::Null => "<unset>".to_owned(),
            min => plain(min),
        };
        cells![
            name(object),
            format!("{}/{}", target.text("kind"), target.text("name")),
            shown_metrics(object),
            min,
            object.int("spec.maxReplicas"),
            object.int("status.currentReplicas"),
            age(object, now),
        ]
    }
}

fn shown_metrics(object: &Value) -> String {
    let specs = object.list("spec.metrics");
    let statuses = object.list("status.currentMetrics");
    if specs.is_empty() {
        return "<none>".into();
    }
    let all: Vec<_> = specs
        .iter()
        .enumerate()
        .map(|(index, spec)| metric(spec, statuses.get(index).unwrap_or(&Value::Null)))
        .collect();
    match all.len().saturating_sub(SHOWN_MAX) {
        0 => all.join(", "),
        more => format!("{} + {more} more...", all[..SHOWN_MAX].join(", ")),
    }
}

fn metric(spec: &Value, status: &Value) -> String {
    let source = match spec.text("type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".into(),
    };
    let (spec, current) = (spec.at(source), status.at(source).at("current"));
    let average = spec.has("target.averageValue");
    let amount = |tree: &Value, field: &str| match tree.at(field) {
        Value::Null => "<unknown>".to_owned(),
        value => quantity(value),
    };
    match source {
        "pods" => format!(
            "{}/{}",
            amount(current, "averageValue"),
            amount(spec, "target.averageValue")
        ),
        "external" | "object" if average => format!(
            "{}/{} (avg)",
            amount(current, "averageValue"),
            amount(spec, "target.averageValue")
        ),
        "external" | "object" => {
            format!(
                "{}/{}",
                amount(current, "value"),
                amount(spec, "target.value")
            )
        }
        _ if average => format!(
            "{}: {}/{}",
            spec.text("name"),
            amount(current, "averageValue"),
            amount(spec, "target.averageValue")
        ),
        _ => {
            let percent = |tree: &Value, field: &str, otherwise: &str| {
                let value = tree.maybe_int(field);
                value.map_or(otherwise.to_owned(), |value| format!("{value}%"))
            };
            format!(
                "{}: {}/{}",
                spec.text("name"),
                percent(current, "averageUtilization", "<unknown>"),
                percent(spec, "target.averageUtilization", "<auto>")
            )
        }
    }
}

fn default_rules(object: &mut Value, path: &str, policies: &[(&str, i64)]) {
    object.fill(&format!("{path}.selectPolicy"), "Max");
    let policy = |(kind, value): &(&str, i64)| json!({"type": kind, "value": value, "periodSeconds": PERIOD_SECONDS});
    let policies: Vec<_> = policies.iter().map(policy).collect();
    object.fill(&format!("{path}.policies"), policies);
}

/// Faults in `spec`; whether the versions of the target and of described objects are looked at.
fn validate(object: &Value, target_version: bool, object_versions: bool, faults: &mut Faults) {
    let spec = Spot::new(object, "spec");
    let min = spec.maybe_int("minReplicas");
    if let Some(min) = min.filter(|min| *min < 1) {
        let rule = "must be greater than or equal to 1";
        faults.invalid(spec.path("minReplicas"), min, rule);
    }
    let max = spec.int("maxReplicas");
    let path = spec.path("maxReplicas");
    if max == 0 {
        faults.required(path.clone(), "must be set and greater than 0");
    } else if max < 0 {
        faults.invalid(path.clone(), max, "must be greater than or equal to 1");
    }
    if min.is_some_and(|min| max < min) {
        faults.invalid(path, max, "must be greater than or equal to `minReplicas`");
    }
    let target = spec.child("scaleTargetRef");
    metrics::reference(&target, target_version.then_some(true), faults);
    metrics::validate(&spec, object_versions, faults);
    for rules in ["behavior.scaleUp", "behavior.scaleDown"] {
        if let Some(rules) = spec.some(rules) {
            validate_rules(&rules, faults);
        }
    }
}

const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;

fn validate_rules(rules: &Spot<'_>, faults: &mut Faults) {
    let window = rules.maybe_int("stabilizationWindowSeconds").unwrap_or(0);
    let path = rules.path("stabilizationWindowSeconds");
    if window < 0 {
        faults.invalid(path, window, "must be greater than or equal to zero");
    } else if window > WINDOW_SECONDS_MAX {
        let rule = format!("must be less than or equal to {WINDOW_SECONDS_MAX}");
        faults.invalid(path, window, rule);
    }
    let tolerance = rules.at("tolerance");
    if amount(tolerance) < amount(&Value::from("0")) && !tolerance.is_null() {
        faults.invalid(rules.path("tolerance"), tolerance.clone(), NOT_NEGATIVE);
    }
    maybe_one_of(rules, "selectPolicy", &["Disabled", "Max", "Min"], faults);
    if rules.count("policies") == 0 {
        faults.required(rules.path("policies"), "must specify at least one Policy");
    }
    for policy in rules.items("policies") {
        let kind = policy.text("type");
        if !matches!(kind, "Percent" | "Pods") {
            unsupported(faults, policy.path("type"), kind, &["Percent", "Pods"]);
        }
        for field in ["value", "periodSeconds"] {
            if policy.int(field) <= 0 {
                let value = policy.int(field);
                faults.invalid(policy.path(field), value, "must be greater than zero");
            }
        }
        let period = policy.int("periodSeconds");
        if period > PERIOD_SECONDS_MAX {
            let rule = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
            faults.invalid(policy.path("periodSeconds"), period, rule);
        }
    }
}
