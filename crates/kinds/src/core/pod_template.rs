//! PodTemplate.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use crate::core::{default_pod_spec, drop_gated, validate_template, warnings};
use crate::row::{Cells, Strategy};
use crate::table::{cells, containers, labels, name};

pub(crate) const COLUMNS: &str = "Name, Containers, Images, Pod Labels";

pub(crate) struct PodTemplate;

impl Strategy for PodTemplate {
    fn default(&self, object: &mut Value) {
        default_pod_spec(object, "template.spec");
    }

    fn prepare_create(&self, object: &mut Value) {
        drop_gated(object, &Value::Null, "template.spec");
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        drop_gated(object, old, "template.spec");
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        validate_template(object, "template", faults);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings::of_template(object, "template")
    }

    fn warnings_update(&self, object: &Value, old: &Value) -> Vec<String> {
        warnings::of_changed_template(object, old, "template")
    }

    fn cells(&self, object: &Value, _now: Timestamp) -> Cells {
        let [names, images] = containers(object, "template.spec");
        cells![
            name(object),
            names,
            images,
            labels(object, "template.metadata.labels"),
        ]
    }
}
