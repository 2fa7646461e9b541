//! DaemonSet.

use std::num::IntErrorKind;

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use super::workload;
use crate::core::{default_pod_spec, drop_gated, validate_template, warnings};
use crate::go::STRATEGY;
use crate::row::{Cells, Strategy};
use crate::spot::{
    Spot, at_most_all, count_or_percent, immutable, label_selector, not_negative, same, selects,
    unsupported_shown,
};
use crate::table::{age, cells, containers, labels, name, selector};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Desired:integer, Current:integer, Ready:integer, \
     Up-to-date:integer, Available:integer, Node Selector, Age, Containers*, Images*, Selector*";

pub(crate) struct DaemonSet;

impl Strategy for DaemonSet {
    fn default(&self, object: &mut Value) {
        object.fill_text("spec.updateStrategy.type", "RollingUpdate");
        if object.text("spec.updateStrategy.type") == "RollingUpdate" {
            object.fill("spec.updateStrategy.rollingUpdate.maxUnavailable", 1);
            object.fill("spec.updateStrategy.rollingUpdate.maxSurge", 0);
        }
        object.fill("spec.revisionHistoryLimit", 10);
        default_pod_spec(object, "spec.template.spec");
    }

    fn misread(&self, object: &Value) -> Option<String> {
        let annotations = object.at("metadata.annotations");
        let text = annotations
            .get(TEMPLATE_GENERATION)
            .and_then(Value::as_str)?;
        let why = match text.parse::<i64>() {
            Ok(_) => return None,
            Err(error) => match error.kind() {
                IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                _ => "invalid syntax",
            },
        };
        Some(format!("strconv.ParseInt: parsing {text:?}: {why}"))
    }

    fn prepare_create(&self, object: &mut Value) {
        drop_gated(object, &Value::Null, "spec.template.spec");
        object.set("status", serde_json::json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0}));
        set_template_generation(object, 1);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        drop_gated(object, old, "spec.template.spec");
        let changed = !same(object.at("spec.template"), old.at("spec.template"));
        let annotations = old.at("metadata.annotations");
        let before = annotations.get(TEMPLATE_GENERATION).and_then(Value::as_str);
        let before = before
            .and_then(|text| text.parse::<i64>().ok())
            .unwrap_or(1);
        set_template_generation(object, before.saturating_add(i64::from(changed)));
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        let selector = spec.child("selector");
        label_selector(&selector, faults);
        let labels = spec.child("template.metadata.labels");
        let sound = workload::is_selector(&selector);
        if sound && (selector.is_null() || !selects(selector.value, labels.value)) {
            let rule = "`selector` does not match template `labels`";
            faults.invalid(labels.path, labels.value.clone(), rule);
        }
        let chosen = selector.count("matchLabels") + selector.count("matchExpressions");
        if !selector.is_null() && chosen == 0 {
            let rule = "empty selector is invalid for daemonset";
            faults.invalid(selector.path.clone(), selector.value.clone(), rule);
        }
        validate_template(object, "spec.template", faults);
        workload::validate_endless(&spec, "DaemonSet", faults);
        not_negative(&spec, "minReadySeconds", faults);
        validate_strategy(&spec, faults);
        not_negative(&spec, "revisionHistoryLimit", faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        immutable(
            &Spot::new(object, "spec"),
            old.at("spec"),
            "selector",
            faults,
        );
        self.validate_create(object, faults);
    }

    fn validate_status(&self, object: &Value, _: &Value, faults: &mut Faults) {
        let status = Spot::new(object, "status");
        for field in [
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ] {
            not_negative(&status, field, faults);
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings::of_template(object, "spec.template")
    }

    fn warnings_update(&self, object: &Value, old: &Value) -> Vec<String> {
        warnings::of_changed_template(object, old, "spec.template")
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let [names, images] = containers(object, "spec.template.spec");
        cells![
            name(object),
            object.int("status.desiredNumberScheduled"),
            object.int("status.currentNumberScheduled"),
            object.int("status.numberReady"),
            object.int("status.updatedNumberScheduled"),
            object.int("status.numberAvailable"),
            labels(object, "spec.template.spec.nodeSelector"),
            age(object, now),
            names,
            images,
            selector(object, "spec.selector"),
        ]
    }
}

/// Counts changes of the template, for clients of a time before controller revisions.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn set_template_generation(object: &mut Value, generation: i64) {
    object.fill_map("metadata.annotations");
    if let Some(Value::Object(annotations)) = object.at_mut("metadata.annotations") {
        annotations.insert(TEMPLATE_GENERATION.into(), generation.to_string().into());
    }
}

fn validate_strategy(spec: &Spot<'_>, faults: &mut Faults) {
    let strategy = spec.child("updateStrategy");
    let rolling = strategy.child("rollingUpdate");
    match strategy.text("type") {
        "OnDelete" => {}
        "RollingUpdate" if rolling.is_null() => faults.required(rolling.path, ""),
        "RollingUpdate" => {
            let fields = ["maxUnavailable", "maxSurge"];
            for field in fields {
                count_or_percent(&rolling, field, faults);
            }
            for field in fields {
                at_most_all(&rolling, field, faults);
            }
            match fields.map(|field| workload::is_none(rolling.at(field))) {
                [false, false] => {
                    let rule = "may not be set when maxUnavailable is non-zero";
                    let surge = rolling.at("maxSurge").clone();
                    faults.invalid(rolling.path("maxSurge"), surge, rule);
                }
                [true, true] => {
                    let rule = "cannot be 0 when maxSurge is 0";
                    faults.required(rolling.path("maxUnavailable"), rule);
                }
                _ => {}
            }
        }
        _ => {
            let words = ["RollingUpdate", "OnDelete"];
            unsupported_shown(faults, &strategy, &STRATEGY, &words);
        }
    }
}
