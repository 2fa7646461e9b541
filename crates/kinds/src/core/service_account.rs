//! ServiceAccount.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Age";

const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

pub(crate) struct ServiceAccount;

impl Strategy for ServiceAccount {
    fn prepare_create(&self, object: &mut Value) {
        keep_names(object);
    }

    fn prepare_update(&self, object: &mut Value, _old: &Value) {
        keep_names(object);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let annotated = object.at("metadata.annotations").get(ENFORCE).is_some();
        let warning = format!(
            "metadata.annotations[{ENFORCE}]: deprecated in v1.32+; prefer separate namespaces to \
             isolate access to mounted secrets"
        );
        annotated.then_some(warning).into_iter().collect()
    }

    fn warnings_update(&self, object: &Value, old: &Value) -> Vec<String> {
        match old.at("metadata.annotations").get(ENFORCE) {
            Some(_) => Vec::new(),
            None => self.warnings(object),
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        cells![name(object), age(object, now)]
    }
}

/// References to secrets are names, whatever else was given.
fn keep_names(object: &mut Value) {
    for secret in object.list_mut("secrets") {
        let name = secret.at("name").clone();
        *secret = serde_json::json!({});
        if !name.is_null() {
            secret.set("name", name);
        }
    }
}
