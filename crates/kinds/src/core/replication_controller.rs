//! ReplicationController.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use crate::apps::workload;
use crate::core::{default_pod_spec, drop_gated, validate_template, warnings};
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, not_negative};
use crate::table::{age, cells, containers, labels, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Desired:integer, Current:integer, Ready:integer, Age, \
     Containers*, Images*, Selector*";

pub(crate) struct ReplicationController;

impl Strategy for ReplicationController {
    fn default(&self, object: &mut Value) {
        object.fill("spec.replicas", 1);
        if object.count("spec.template.metadata.labels") > 0 {
            let labels = object.at("spec.template.metadata.labels").clone();
            if object.count("spec.selector") == 0 {
                object.set("spec.selector", labels.clone());
            }
            if object.count("metadata.labels") == 0 {
                object.set("metadata.labels", labels);
            }
        }
        if object.has("spec.template") {
            default_pod_spec(object, "spec.template.spec");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        drop_gated(object, &Value::Null, "spec.template.spec");
        object.set("status", serde_json::json!({"replicas": 0}));
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        drop_gated(object, old, "spec.template.spec");
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        not_negative(&spec, "minReadySeconds", faults);
        if spec.count("selector") == 0 {
            faults.required(spec.path("selector"), "");
        }
        not_negative(&spec, "replicas", faults);
        if !spec.has("template") {
            return faults.required(spec.path("template"), "");
        }
        let labels = spec.child("template.metadata.labels");
        let mut wanted = spec.fields("selector");
        if !wanted.all(|(key, value)| labels.get(key) == Some(value)) {
            let rule = "`selector` does not match template `labels`";
            faults.invalid(labels.path, labels.value.clone(), rule);
        }
        validate_template(object, "spec.template", faults);
        workload::validate_endless(&spec, "ReplicationController", faults);
    }

    fn validate_status(&self, object: &Value, _old: &Value, faults: &mut Faults) {
        let counted = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        workload::validate_counts(object, &counted, "readyReplicas", faults);
    }

    fn orphans_dependents(&self) -> bool {
        true
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let replicas = object.int("status.replicas");
        vec![("status.replicas", replicas.to_string())]
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
        cells![
            name(object),
            object.int("spec.replicas"),
            object.int("status.replicas"),
            object.int("status.readyReplicas"),
            age(object, now),
            names,
            images,
            labels(object, "spec.selector"),
        ]
    }
}
