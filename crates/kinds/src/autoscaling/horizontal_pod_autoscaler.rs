//! HorizontalPodAutoscaler.

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::{Value, json};

use crate::row::{Cells, Strategy};
use crate::spot::{Spot, maybe_one_of, named, unsupported};
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
        named(&target, "kind", naming::path_segment, faults);
        named(&target, "name", naming::path_segment, faults);
        for metric in spec.items("metrics") {
            validate_metric(&metric, faults);
        }
        for rules in ["behavior.scaleUp", "behavior.scaleDown"] {
            if let Some(rules) = spec.some(rules) {
                validate_rules(&rules, faults);
            }
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
            metrics(object),
            min,
            object.int("spec.maxReplicas"),
            object.int("status.currentReplicas"),
            age(object, now),
        ]
    }
}

fn metrics(object: &Value) -> String {
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

fn validate_metric(metric: &Spot<'_>, faults: &mut Faults) {
    let kinds = [
        ("ContainerResource", "containerResource"),
        ("External", "external"),
        ("Object", "object"),
        ("Pods", "pods"),
        ("Resource", "resource"),
    ];
    let kind = metric.text("type");
    let Some((_, field)) = kinds.iter().find(|(word, _)| *word == kind) else {
        if kind.is_empty() {
            return faults.required(metric.path("type"), "must specify a metric source type");
        }
        return unsupported(
            faults,
            metric.path("type"),
            kind,
            &kinds.map(|(word, _)| word),
        );
    };
    for (_, other) in kinds.iter().filter(|(_, other)| other != field) {
        if metric.has(other) {
            let rule = "must populate the given metric source only";
            faults.forbidden(metric.path(other), rule);
        }
    }
    let Some(source) = metric.some(field) else {
        let rule = "must populate information for the given metric source";
        return faults.required(metric.path(field), rule);
    };
    if field.to_lowercase().ends_with("resource") && source.text("name").is_empty() {
        faults.required(source.path("name"), "must specify a resource name");
    }
    let target = source.child("target");
    match target.text("type") {
        "" => faults.required(target.path("type"), "must specify a metric target type"),
        "Utilization" | "Value" | "AverageValue" => {}
        other => {
            let rule = "must be either Utilization, Value, or AverageValue";
            faults.invalid(target.path("type"), other, rule);
        }
    }
    let percent = target.maybe_int("averageUtilization");
    if let Some(percent) = percent.filter(|percent| *percent < 1) {
        let rule = "must be greater than 0";
        faults.invalid(target.path("averageUtilization"), percent, rule);
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
