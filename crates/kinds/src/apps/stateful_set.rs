//! StatefulSet.

use std::collections::BTreeSet;

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use super::workload;
use crate::core::{
    default_claim_spec, default_pod_spec, drop_gated, drop_gated_stateful, validate_claim_spec,
    warnings,
};
use crate::go::{STATEFUL_STRATEGY, STATEFUL_UPDATE};
use crate::metadata::{validate_annotations, validate_labels};
use crate::row::{Cells, Strategy};
use crate::spot::{
    Spot, at_most_all, count_or_percent, invalid_shown, maybe_named, not_negative, same,
    unsupported,
};
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
            // Whatever the user called it.
            claim.set("apiVersion", "v1");
            claim.set("kind", "PersistentVolumeClaim");
            claim.fill("status.phase", "Pending");
            claim.fill_map("spec");
            if let Some(spec) = claim.at_mut("spec") {
                default_claim_spec(spec);
            }
        }
        default_pod_spec(object, "spec.template.spec");
    }

    fn prepare_create(&self, object: &mut Value) {
        drop_gated(object, &Value::Null, "spec.template.spec");
        drop_gated_stateful(object, &Value::Null);
        object.set(
            "status",
            serde_json::json!({"replicas": 0, "availableReplicas": 0}),
        );
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        drop_gated(object, old, "spec.template.spec");
        drop_gated_stateful(object, old);
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        validate_policies(&spec, faults);
        for claim in spec.items("volumeClaimTemplates") {
            validate_claim_spec(&claim.child("spec"), faults);
        }
        maybe_named(&spec, "serviceName", meta::naming::dns1123_label, faults);
        validate_spec(object, &spec, faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        validate_policies(&spec, faults);
        validate_spec(object, &spec, faults);
        let mut rest = spec.value.clone();
        for field in MUTABLE {
            rest.set(field, old.at("spec").at(field).clone());
        }
        if !same(&rest, old.at("spec")) {
            faults.forbidden("spec", ONLY_MUTABLE);
        }
    }

    fn validate_status(&self, object: &Value, _old: &Value, faults: &mut Faults) {
        let counted = [
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
        ];
        workload::validate_counts(object, &counted, "status.readyReplicas", faults);
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        meta::naming::dns1123_label(name)
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let mut warnings = warnings::of_template(object, "spec.template");
        warnings.extend(claims_and_history(object, "spec"));
        warnings
    }

    fn warnings_update(&self, object: &Value, old: &Value) -> Vec<String> {
        let mut warnings = warnings::of_changed_template(object, old, "spec.template");
        warnings.extend(claims_and_history(object, "Spec"));
        warnings
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

/// Warnings about templates of claims, whose specification upstream calls `spec` or `Spec`, and
/// about the history.
fn claims_and_history(object: &Value, spec: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for claim in Spot::new(object, "spec").items("volumeClaimTemplates") {
        let own = Spot {
            value: claim.at("spec"),
            path: claim.path(spec),
        };
        warnings.extend(crate::warnings::claim_spec(&own));
    }
    if object.int("spec.revisionHistoryLimit") < 0 {
        let warning = "spec.revisionHistoryLimit: a negative value retains all historical \
                       revisions; a value >= 0 is recommended";
        warnings.push(warning.into());
    }
    warnings
}

const MUTABLE: [&str; 7] = [
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
];
const ONLY_MUTABLE: &str = "updates to statefulset spec for fields other than 'replicas', \
    'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', \
    'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

fn validate_policies(spec: &Spot<'_>, faults: &mut Faults) {
    match spec.text("podManagementPolicy") {
        "" => faults.required(spec.path("podManagementPolicy"), ""),
        "OrderedReady" | "Parallel" => {}
        other => {
            let rule = "must be 'OrderedReady' or 'Parallel'";
            faults.invalid(spec.path("podManagementPolicy"), other, rule);
        }
    }
    let strategy = spec.child("updateStrategy");
    let rolling = strategy.child("rollingUpdate");
    match strategy.text("type") {
        "" => faults.required(strategy.path.clone(), ""),
        "OnDelete" if !rolling.is_null() => {
            let rule = "only allowed for updateStrategy 'RollingUpdate'";
            invalid_shown(faults, &rolling, &STATEFUL_UPDATE, rule);
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            not_negative(&rolling, "partition", faults);
            count_or_percent(&rolling, "maxUnavailable", faults);
            at_most_all(&rolling, "maxUnavailable", faults);
            let unavailable = rolling.at("maxUnavailable");
            if !unavailable.is_null() && workload::is_none(unavailable) {
                let path = rolling.path("maxUnavailable");
                faults.invalid(path, unavailable.clone(), "cannot be 0");
            }
        }
        _ => {
            let rule = "must be 'RollingUpdate' or 'OnDelete'";
            invalid_shown(faults, &strategy, &STATEFUL_STRATEGY, rule);
        }
    }
    let retention = spec.child("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        let word = retention.text(field);
        if !retention.is_null() && !matches!(word, "Retain" | "Delete") {
            unsupported(faults, retention.path(field), word, &["Retain", "Delete"]);
        }
    }
}

fn validate_spec(object: &Value, spec: &Spot<'_>, faults: &mut Faults) {
    not_negative(spec, "replicas", faults);
    not_negative(spec, "minReadySeconds", faults);
    not_negative(spec, "ordinals.start", faults);
    workload::validate_selector(spec, "statefulset", faults);
    let mut filled = object.clone();
    // The controller names pods itself.
    for field in ["hostname", "subdomain"] {
        filled.drop_field(&format!("spec.template.spec.{field}"));
    }
    add_claimed_volumes(&mut filled);
    if workload::validate_chosen(&filled, "", faults) {
        // Upstream looks at the template's own metadata twice.
        let metadata = spec.child("template.metadata");
        let template = spec.child("template");
        validate_labels(metadata.at("labels"), &template.path("labels"), faults);
        let path = template.path("annotations");
        validate_annotations(metadata.at("annotations"), &path, faults);
    }
    workload::validate_endless(spec, "StatefulSet", faults);
}

/// Mounts may refer to claim templates as if they were volumes.
fn add_claimed_volumes(object: &mut Value) {
    let claims = object.list("spec.volumeClaimTemplates").iter();
    let names: BTreeSet<String> = claims
        .map(|claim| claim.text("metadata.name").to_owned())
        .collect();
    if names.is_empty() {
        return;
    }
    let own = object.list("spec.template.spec.volumes").iter();
    let own = own
        .filter(|volume| !names.contains(volume.text("name")))
        .cloned();
    let own: Vec<Value> = own.collect();
    let claimed = names.iter().map(
        |name| serde_json::json!({"name": name, "persistentVolumeClaim": {"claimName": name}}),
    );
    let volumes: Vec<Value> = claimed.chain(own).collect();
    object.set("spec.template.spec.volumes", volumes);
}
