//! Pod.

mod cells;
pub(crate) mod defaults;
pub(crate) mod gates;
mod image;
mod paths;
mod prepare;
pub(crate) mod validate;
pub(crate) mod warnings;

pub use prepare::qos_class;

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Ready, Status, Restarts, Age, IP*, Node*, \
     Nominated Node*, Readiness Gates*";

const SELECTABLE: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
];

pub(crate) struct Pod;

impl Strategy for Pod {
    fn default(&self, pod: &mut Value) {
        defaults::default_pod(pod);
    }

    fn prepare_create(&self, pod: &mut Value) {
        gates::drop_gated(pod, &Value::Null, "spec");
        prepare::prepare_create(pod);
    }

    fn prepare_update(&self, pod: &mut Value, old: &Value) {
        gates::drop_gated(pod, old, "spec");
        prepare::prepare_update(pod);
    }

    fn validate_create(&self, pod: &Value, faults: &mut Faults) {
        validate::validate_create(pod, faults);
    }

    fn validate_update(&self, pod: &Value, old: &Value, faults: &mut Faults) {
        validate::validate_update(pod, old, faults);
    }

    fn prepare_subresource(&self, subresource: &str, pod: &mut Value, old: &Value) {
        validate::prepare_subresource(subresource, pod, old);
    }

    fn validate_subresource(
        &self,
        subresource: &str,
        pod: &Value,
        old: &Value,
        faults: &mut Faults,
    ) {
        validate::validate_subresource(subresource, pod, old, faults);
    }

    fn validate_status(&self, pod: &Value, old: &Value, faults: &mut Faults) {
        validate::validate_status(pod, old, faults);
    }

    fn warnings(&self, pod: &Value) -> Vec<String> {
        warnings::of_pod(pod)
    }

    /// People seldom change pods themselves.
    fn warnings_update(&self, _pod: &Value, _old: &Value) -> Vec<String> {
        Vec::new()
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        SELECTABLE
    }

    fn selectable_fields(&self, pod: &Value) -> Vec<(&'static str, String)> {
        let value = |field: &str| match field {
            "spec.hostNetwork" => pod.flag(field).to_string(),
            "status.podIP" => cells::first_ip(pod).to_owned(),
            path => pod.text(path).to_owned(),
        };
        let fields = SELECTABLE.iter();
        fields.map(|field| (*field, value(field))).collect()
    }

    fn cells(&self, pod: &Value, now: Timestamp) -> Cells {
        cells::cells(pod, now)
    }

    fn grace_period_seconds(&self, pod: &Value, asked: Option<i64>) -> Option<i64> {
        let own = pod.maybe_int("spec.terminationGracePeriodSeconds");
        let finished = matches!(pod.text("status.phase"), "Failed" | "Succeeded");
        // No kubelet knows of a pod that has no node, and none runs a finished one.
        if pod.text("spec.nodeName").is_empty() || finished {
            return Some(0);
        }
        match asked.or(own).unwrap_or(0) {
            // Upstream's smallest period: 0 is only what the kubelet itself may ask for.
            negative if negative < 0 => Some(1),
            seconds => Some(seconds),
        }
    }
}
