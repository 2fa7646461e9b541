//! Other versions of kinds that are kept once: what clients read and write in one shape
//! is stored in another. A view needs no storage of its own.

use std::sync::{Arc, LazyLock};

use meta::Names;
use serde_json::{Map, Value, json};

use crate::row::{Row, Strategy};
use crate::tree::Tree;

/// A kind whose objects are those of another row, seen differently.
#[derive(Clone, Debug)]
pub struct View {
    /// Names of this version; columns, verbs and rules are those of the stored kind.
    pub names: Names,
    /// Group and kind of the row that keeps the objects, as for [`crate::row`].
    pub stored: (&'static str, &'static str),
    /// Fields that selectors may name, each with its name in the stored version; when empty, they
    /// are those of the stored kind.
    pub fields: &'static [(&'static str, &'static str)],
    /// Rules that only this version has; else those of the stored kind.
    pub strategy: Option<fn() -> Arc<dyn Strategy>>,
    /// Turns an object of this version into one of the stored version.
    pub to_stored: fn(&mut Value),
    /// Turns a stored object into one of this version.
    pub from_stored: fn(&mut Value),
}

impl View {
    /// This version as a row: its strategy takes objects of the *stored* version.
    pub fn row(&self) -> Option<Row> {
        let stored = crate::row(self.stored.0, self.stored.1)?;
        let mut row = stored.clone();
        row.names = self.names.clone();
        if let Some(strategy) = self.strategy {
            row.strategy = strategy();
        }
        Some(row)
    }
}

static VIEWS: LazyLock<Vec<View>> = LazyLock::new(|| {
    let autoscaler = Names::namespaced(
        "autoscaling",
        "v1",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
    );
    vec![
        View {
            names: Names::namespaced("events.k8s.io", "v1", "Event", "events").short(&["ev"]),
            stored: ("", "Event"),
            fields: &EVENT_SELECTORS,
            strategy: Some(|| Arc::new(crate::core::event::STRICT)),
            to_stored: event_to_core,
            from_stored: event_from_core,
        },
        View {
            names: autoscaler.short(&["hpa"]).categories(&["all"]),
            stored: ("autoscaling", "HorizontalPodAutoscaler"),
            fields: &[],
            strategy: None,
            to_stored: autoscaler_to_v2,
            from_stored: autoscaler_from_v2,
        },
    ]
});

/// The versions of built-in kinds that are views of others.
pub fn views() -> &'static [View] {
    &VIEWS
}

/// What selects events: in `events.k8s.io/v1` and in `v1`.
const EVENT_SELECTORS: [(&str, &str); 10] = [
    ("reason", "reason"),
    ("regarding.kind", "involvedObject.kind"),
    ("regarding.namespace", "involvedObject.namespace"),
    ("regarding.name", "involvedObject.name"),
    ("regarding.uid", "involvedObject.uid"),
    ("regarding.apiVersion", "involvedObject.apiVersion"),
    (
        "regarding.resourceVersion",
        "involvedObject.resourceVersion",
    ),
    ("regarding.fieldPath", "involvedObject.fieldPath"),
    ("reportingController", "reportingComponent"),
    ("type", "type"),
];

/// The fields of an event that have two names: in `events.k8s.io/v1` and in `v1`.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn event_to_core(event: &mut Value) {
    let pairs = EVENT_FIELDS.iter().map(|(new, core)| (*new, *core));
    rename(event, "v1", pairs);
}

fn event_from_core(event: &mut Value) {
    let pairs = EVENT_FIELDS.iter().map(|(new, core)| (*core, *new));
    rename(event, "events.k8s.io/v1", pairs);
}

fn rename<'a>(tree: &mut Value, version: &str, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
    let Value::Object(map) = tree else { return };
    for (from, to) in pairs {
        if let Some(value) = map.remove(from) {
            map.insert(to.into(), value);
        }
    }
    map.insert("apiVersion".into(), version.into());
}

const CPU_SPEC: &str = "targetCPUUtilizationPercentage";
const CPU_STATUS: &str = "currentCPUUtilizationPercentage";
/// Where the first version keeps what it has no fields for.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn cpu_metric(target: &str, percent: Value) -> Value {
    let amount = match target {
        "target" => json!({"type": "Utilization", "averageUtilization": percent}),
        _ => json!({"averageUtilization": percent}),
    };
    json!({"type": "Resource", "resource": {"name": "cpu", target: amount}})
}

fn autoscaler_to_v2(tree: &mut Value) {
    let mut aside = |name: &str| {
        let annotations = tree.at_mut("metadata.annotations")?.as_object_mut()?;
        let text = annotations.remove(name)?;
        serde_json::from_str::<Value>(text.as_str()?).ok()
    };
    let mut metrics = list(aside(METRICS));
    let mut current = list(aside(CURRENT_METRICS));
    let (conditions, behavior) = (aside(CONDITIONS), aside(BEHAVIOR));
    for (part, field, target, metrics) in [
        ("spec", CPU_SPEC, "target", &mut metrics),
        ("status", CPU_STATUS, "current", &mut current),
    ] {
        let path = format!("{part}.{field}");
        if tree.has(&path) {
            metrics.insert(0, cpu_metric(target, tree.at(&path).clone()));
        }
        tree.drop_field(&path);
    }
    let parts = [
        (
            "spec.metrics",
            (!metrics.is_empty()).then(|| metrics.into()),
        ),
        (
            "status.currentMetrics",
            (!current.is_empty()).then(|| current.into()),
        ),
        ("status.conditions", conditions),
        ("spec.behavior", behavior),
    ];
    for (path, value) in parts {
        if let Some(value) = value {
            tree.set(path, value);
        }
    }
    tree.set("apiVersion", "autoscaling/v2");
}

fn list(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn autoscaler_from_v2(tree: &mut Value) {
    let is_cpu =
        |metric: &Value| metric.text("type") == "Resource" && metric.text("resource.name") == "cpu";
    let mut annotations = Map::new();
    for (path, field, target, annotation) in [
        ("spec.metrics", CPU_SPEC, "target", METRICS),
        (
            "status.currentMetrics",
            CPU_STATUS,
            "current",
            CURRENT_METRICS,
        ),
    ] {
        let (part, _) = path.split_once('.').unwrap_or((path, ""));
        let percent = |metric: &Value| {
            let path = format!("resource.{target}.averageUtilization");
            metric.maybe_int(&path)
        };
        let mut rest: Vec<Value> = tree.list(path).to_vec();
        let cpu = rest
            .iter()
            .position(|one| is_cpu(one) && percent(one).is_some());
        if let Some(index) = cpu {
            let percent = percent(&rest.remove(index));
            tree.set(&format!("{part}.{field}"), percent);
        }
        if !rest.is_empty() {
            annotations.insert(annotation.into(), Value::from(rest).to_string().into());
        }
        tree.drop_field(path);
    }
    for (path, annotation) in [
        ("status.conditions", CONDITIONS),
        ("spec.behavior", BEHAVIOR),
    ] {
        if tree.has(path) {
            annotations.insert(annotation.into(), tree.at(path).to_string().into());
        }
        tree.drop_field(path);
    }
    if !annotations.is_empty() {
        tree.fill_map("metadata.annotations");
        if let Some(Value::Object(all)) = tree.at_mut("metadata.annotations") {
            all.extend(annotations);
        }
    }
    if tree.has("status") {
        tree.fill("status.currentReplicas", 0);
    }
    tree.set("apiVersion", "autoscaling/v1");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(view: &View, own: Value, stored: Value) {
        let mut tree = own.clone();
        (view.to_stored)(&mut tree);
        assert_eq!(tree, stored);
        (view.from_stored)(&mut tree);
        assert_eq!(tree, own);
    }

    #[test]
    fn events_have_two_shapes() {
        check(
            &views()[0],
            json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "pulled",
                "regarding": {"kind": "Pod"}, "reportingController": "kubelet", "action": "Pull"}),
            json!({"apiVersion": "v1", "kind": "Event", "message": "pulled",
                "involvedObject": {"kind": "Pod"}, "reportingComponent": "kubelet",
                "action": "Pull"}),
        );
    }

    #[test]
    fn autoscalers_have_two_shapes() {
        check(
            &views()[1],
            json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
                "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}}),
            json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
                "spec": {"maxReplicas": 3, "metrics": [{"type": "Resource", "resource": {
                    "name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 50}}}]}}),
        );
    }

    #[test]
    fn views_refer_to_rows() {
        for view in views() {
            let row = view.row();
            assert!(row.is_some(), "{:?}", view.names);
            let known = row.map(|row| row.strategy.selectable_field_names());
            let known = known.unwrap_or_default();
            for (_, stored) in view.fields {
                assert!(known.contains(stored), "{stored}");
            }
        }
    }
}
