//! Deployment.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use super::workload;
use crate::core::{default_pod_spec, drop_gated, warnings};
use crate::go::STRATEGY;
use crate::row::{Cells, Strategy};
use crate::spot::{
    Spot, at_most_all, count_or_percent, immutable, not_negative, unsupported_shown,
};
use crate::table::{age, cells, containers, name, sorted};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str =
    "Name, Ready, Up-to-date, Available, Age, Containers*, Images*, Selector*";

pub(crate) struct Deployment;

impl Strategy for Deployment {
    fn default(&self, object: &mut Value) {
        object.fill("spec.replicas", 1);
        object.fill_text("spec.strategy.type", "RollingUpdate");
        if object.text("spec.strategy.type") == "RollingUpdate" {
            object.fill("spec.strategy.rollingUpdate.maxUnavailable", "25%");
            object.fill("spec.strategy.rollingUpdate.maxSurge", "25%");
        }
        object.fill("spec.revisionHistoryLimit", 10);
        object.fill("spec.progressDeadlineSeconds", 600);
        default_pod_spec(object, "spec.template.spec");
    }

    fn prepare_create(&self, object: &mut Value) {
        drop_gated(object, &Value::Null, "spec.template.spec");
        object.set("status", serde_json::json!({}));
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        drop_gated(object, old, "spec.template.spec");
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        not_negative(&spec, "replicas", faults);
        workload::validate_selector(&spec, "deployment", faults);
        workload::validate_template(object, "ReplicaSet", faults);
        validate_strategy(&spec, faults);
        not_negative(&spec, "minReadySeconds", faults);
        not_negative(&spec, "revisionHistoryLimit", faults);
        not_negative(&spec, "progressDeadlineSeconds", faults);
        let deadline = spec.maybe_int("progressDeadlineSeconds");
        let ready = spec.int("minReadySeconds");
        if let Some(deadline) = deadline.filter(|deadline| *deadline <= ready) {
            let path = spec.path("progressDeadlineSeconds");
            faults.invalid(path, deadline, "must be greater than minReadySeconds");
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        self.validate_create(object, faults);
        immutable(
            &Spot::new(object, "spec"),
            old.at("spec"),
            "selector",
            faults,
        );
    }

    fn validate_status(&self, object: &Value, _old: &Value, faults: &mut Faults) {
        let counted = ["updatedReplicas", "readyReplicas", "availableReplicas"];
        workload::validate_counts(object, &counted, "readyReplicas", faults);
    }

    /// Annotations count too: they are copied to the replica sets.
    fn moves_generation(&self, object: &Value, old: &Value) -> bool {
        object.at("spec") != old.at("spec")
            || object.at("metadata.annotations") != old.at("metadata.annotations")
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let host = warnings::host_name(object, "Pod names and hostnames").into_iter();
        host.chain(warnings::of_template(object, "spec.template"))
            .collect()
    }

    fn warnings_update(&self, object: &Value, old: &Value) -> Vec<String> {
        warnings::of_changed_template(object, old, "spec.template")
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let [names, images] = containers(object, "spec.template.spec");
        let selector = match meta::LabelSelector::from_value(object.at("spec.selector")) {
            Ok(selector) => sorted(selector).to_string(),
            Err(_) => "<invalid>".into(),
        };
        let ready = object.int("status.readyReplicas");
        cells![
            name(object),
            format!("{ready}/{}", object.int("spec.replicas")),
            object.int("status.updatedReplicas"),
            object.int("status.availableReplicas"),
            age(object, now),
            names,
            images,
            selector,
        ]
    }
}

fn validate_strategy(spec: &Spot<'_>, faults: &mut Faults) {
    let strategy = spec.child("strategy");
    let rolling = strategy.child("rollingUpdate");
    match strategy.text("type") {
        "Recreate" if rolling.is_null() => {}
        "Recreate" => {
            let rule = "may not be specified when strategy `type` is 'Recreate'";
            faults.forbidden(rolling.path, rule);
        }
        "RollingUpdate" if rolling.is_null() => {
            let rule = "this should be defaulted and never be nil";
            faults.required(rolling.path, rule);
        }
        "RollingUpdate" => {
            count_or_percent(&rolling, "maxUnavailable", faults);
            count_or_percent(&rolling, "maxSurge", faults);
            let unavailable = rolling.at("maxUnavailable");
            if workload::is_none(unavailable) && workload::is_none(rolling.at("maxSurge")) {
                let rule = "may not be 0 when `maxSurge` is 0";
                faults.invalid(rolling.path("maxUnavailable"), unavailable.clone(), rule);
            }
            at_most_all(&rolling, "maxUnavailable", faults);
        }
        _ => {
            let words = ["Recreate", "RollingUpdate"];
            unsupported_shown(faults, &strategy, &STRATEGY, &words);
        }
    }
}
