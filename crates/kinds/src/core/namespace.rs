//! Namespace.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::spot::rules;
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Status, Age";

pub(crate) struct Namespace;

impl Strategy for Namespace {
    fn default(&self, object: &mut Value) {
        let name = object.text("metadata.name").to_owned();
        if !name.is_empty() {
            object.fill_map("metadata.labels");
            if let Some(Value::Object(labels)) = object.at_mut("metadata.labels") {
                labels.insert("kubernetes.io/metadata.name".into(), name.into());
            }
        }
        object.fill_text("status.phase", "Active");
    }

    fn prepare_create(&self, object: &mut Value) {
        // The server may have made up the name just now.
        self.default(object);
        object.set("status", serde_json::json!({"phase": "Active"}));
        if !object
            .texts("spec.finalizers")
            .any(|one| one == "kubernetes")
        {
            object.fill("spec.finalizers", Vec::<Value>::new());
            if let Some(Value::Array(list)) = object.at_mut("spec.finalizers") {
                list.push("kubernetes".into());
            }
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        let finalizers = old.at("spec.finalizers").clone();
        object.set("spec.finalizers", finalizers);
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        for finalizer in object.texts("spec.finalizers") {
            validate_finalizer("spec.finalizers", finalizer, faults);
        }
    }

    fn validate_update(&self, _object: &Value, _old: &Value, _faults: &mut Faults) {}

    fn validate_subresource(
        &self,
        _subresource: &str,
        object: &Value,
        _old: &Value,
        faults: &mut Faults,
    ) {
        for (index, finalizer) in object.texts("spec.finalizers").enumerate() {
            validate_finalizer(&format!("spec.finalizers[{index}]"), finalizer, faults);
        }
    }

    fn validate_status(&self, object: &Value, _old: &Value, faults: &mut Faults) {
        let (phase, deleted) = (
            object.text("status.phase"),
            object.has("metadata.deletionTimestamp"),
        );
        let rule = match (deleted, phase) {
            (false, "Active") | (true, "Terminating") => return,
            (false, _) => "may only be 'Active' if `deletionTimestamp` is empty",
            (true, _) => "may only be 'Terminating' if `deletionTimestamp` is not empty",
        };
        faults.invalid("status.Phase", phase, rule);
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        meta::naming::dns1123_label(name)
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["name", "status.phase"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![
            ("name", object.text("metadata.name").into()),
            ("status.phase", object.text("status.phase").into()),
        ]
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        cells![name(object), object.text("status.phase"), age(object, now)]
    }
}

/// One of Kubernetes' own names, or one with a domain.
fn validate_finalizer(path: &str, finalizer: &str, faults: &mut Faults) {
    let broken = meta::naming::qualified_name(finalizer);
    rules(faults, path, finalizer, broken);
    let standard = matches!(finalizer, "kubernetes" | "orphan" | "foregroundDeletion");
    if !standard && !finalizer.contains('/') {
        let rule = "name is neither a standard finalizer name nor is it fully qualified";
        faults.invalid(path, finalizer, rule);
    }
}
