//! Namespace.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
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
        object.set("status", serde_json::json!({"phase": "Active"}));
        if !object.texts("spec.finalizers").any(|one| one == "kubernetes") {
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
