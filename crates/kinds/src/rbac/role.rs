//! Role and ClusterRole.

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use crate::plain;
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, label_selector};
use crate::tree::Tree;

pub(crate) const CLUSTER: Role = Role { cluster: true };
pub(crate) const NAMESPACED: Role = Role { cluster: false };

pub(crate) struct Role {
    cluster: bool,
}

impl Strategy for Role {
    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let root = Spot::new(object, "");
        for rule in root.items("rules") {
            validate_rule(&rule, self.cluster, faults);
        }
        let Some(aggregation) = root.some("aggregationRule") else {
            return;
        };
        if aggregation.count("clusterRoleSelectors") == 0 {
            let rule = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            faults.required(aggregation.path("clusterRoleSelectors"), rule);
        }
        for selector in aggregation.items("clusterRoleSelectors") {
            label_selector(&selector, faults);
            let mut labels = selector.fields("matchLabels");
            let sound = |(key, value): (&str, &Value)| {
                let value = value.as_str().unwrap_or("");
                naming::qualified_name(key).is_empty() && naming::label_value(value).is_empty()
            };
            if !labels.all(sound) || meta::LabelSelector::from_value(selector.value).is_err() {
                // Upstream shows what it could not make: nothing.
                let rule = "invalid label selector.";
                faults.invalid(selector.path.clone(), Value::Null, rule);
            }
        }
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        meta::naming::path_segment(name)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        plain::created(object, now)
    }
}

fn validate_rule(rule: &Spot<'_>, cluster: bool, faults: &mut Faults) {
    if rule.count("verbs") == 0 {
        let broken = "verbs must contain at least one value";
        faults.required(rule.path("verbs"), broken);
    }
    if rule.count("nonResourceURLs") > 0 {
        let (path, urls) = (rule.path("nonResourceURLs"), rule.at("nonResourceURLs"));
        if !cluster {
            let broken = "namespaced rules cannot apply to non-resource URLs";
            faults.invalid(path.clone(), urls.clone(), broken);
        }
        let resources = ["apiGroups", "resources", "resourceNames"];
        if resources.iter().any(|field| rule.count(field) > 0) {
            let broken = "rules cannot apply to both regular resources and non-resource URLs";
            faults.invalid(path, urls.clone(), broken);
        }
        return;
    }
    if rule.count("apiGroups") == 0 {
        let broken = "resource rules must supply at least one api group";
        faults.required(rule.path("apiGroups"), broken);
    }
    if rule.count("resources") == 0 {
        let broken = "resource rules must supply at least one resource";
        faults.required(rule.path("resources"), broken);
    }
}
