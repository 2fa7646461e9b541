//! StatefulSet.

use jiff::Timestamp;
use serde_json::Value;

use crate::core::{default_claim_spec, default_pod_spec};
use crate::row::{Cells, Strategy};
use crate::table::{age, cells, containers, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Ready, Age, Containers*, Images*";

pub(crate) struct StatefulSet;

impl Strategy for StatefulSet {
    fn default(&self, object: &mut Value) {
        object.fill_text("spec.podManagementPolicy", "OrderedReady");
        if object.text("spec.updateStrategy.type").is_empty() {
            object.set("spec.updateStrategy.type", "RollingUpdate");
            object.fill_map("spec.updateStrategy.rollingUpdate");
        }
        let rolling = object.text("spec.updateStrategy.type") == "RollingUpdate";
        if rolling && object.has("spec.updateStrategy.rollingUpdate") {
            object.fill("spec.updateStrategy.rollingUpdate.partition", 0);
        }
        for field in ["whenDeleted", "whenScaled"] {
            let path = format!("spec.persistentVolumeClaimRetentionPolicy.{field}");
            object.fill_text(&path, "Retain");
        }
        object.fill("spec.replicas", 1);
        object.fill("spec.revisionHistoryLimit", 10);
        for claim in object.list_mut("spec.volumeClaimTemplates") {
            claim.fill("apiVersion", "v1");
            claim.fill("kind", "PersistentVolumeClaim");
            claim.fill("status.phase", "Pending");
            claim.fill_map("spec");
            if let Some(spec) = claim.at_mut("spec") {
                default_claim_spec(spec);
            }
        }
        default_pod_spec(object, "spec.template.spec");
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        meta::naming::dns1123_label(name)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let [names, images] = containers(object, "spec.template.spec");
        let ready = object.int("status.readyReplicas");
        cells![
            name(object),
            format!("{ready}/{}", object.int("spec.replicas")),
            age(object, now),
            names,
            images,
        ]
    }
}
