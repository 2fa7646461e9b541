//! HorizontalPodAutoscaler.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name, plain, quantity};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str =
    "Name, Reference, Targets, MinPods, MaxPods, Replicas, Age";
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
            object.set("spec.metrics", json!([{"type": "Resource", "resource": resource}]));
        }
        if object.has("spec.behavior") {
            default_rules(object, "spec.behavior.scaleUp", UP_POLICIES);
            object.fill("spec.behavior.scaleUp.stabilizationWindowSeconds", 0);
            default_rules(object, "spec.behavior.scaleDown", DOWN_POLICIES);
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
