//! NetworkPolicy.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name, selector};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Pod-Selector, Age";

pub(crate) struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn default(&self, object: &mut Value) {
        for rules in ["spec.ingress", "spec.egress"] {
            for rule in object.list_mut(rules) {
                for port in rule.list_mut("ports") {
                    port.fill("protocol", "TCP");
                }
            }
        }
        if object.count("spec.policyTypes") == 0 {
            let mut kinds = vec!["Ingress"];
            if object.count("spec.egress") > 0 {
                kinds.push("Egress");
            }
            object.set("spec.policyTypes", kinds);
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let pods = selector(object, "spec.podSelector");
        cells![name(object), pods, age(object, now)]
    }
}
