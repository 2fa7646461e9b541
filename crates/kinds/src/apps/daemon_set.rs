//! DaemonSet.

use jiff::Timestamp;
use serde_json::Value;

use crate::core::default_pod_spec;
use crate::row::{Cells, Strategy};
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
