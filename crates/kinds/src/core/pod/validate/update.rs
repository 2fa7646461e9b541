//! What may change in a pod once it exists: little.

use meta::{Faults, naming};
use serde_json::Value;

use super::containers::untrimmed_image;
use super::scheduling;
use super::validate_pod;
use crate::go::{POD_SPEC, difference, equal};
use crate::spot::{Spot, required, rules, same};
use crate::tree::Tree;

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,\
    `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// Faults of a changed pod.
pub(crate) fn validate_update(pod: &Value, old: &Value, faults: &mut Faults) {
    validate_pod(pod, faults);
    let (spec, before) = (Spot::new(pod, "spec"), old.at("spec"));
    for list in ["containers", "initContainers"] {
        if spec.count(list) != before.count(list) {
            let rule = "pod updates may not add or remove containers";
            return faults.forbidden(spec.path(list), rule);
        }
        for container in spec.items(list) {
            required(&container, "image", faults);
            untrimmed_image(&container, faults);
        }
    }
    if !validate_deadline(&spec, before, faults) {
        return;
    }
    validate_tolerations(&spec, before, faults);
    validate_gates(&spec, before, faults);
    let mut rest = spec.value.clone();
    undo_allowed(&mut rest, before);
    if before.count("schedulingGates") > 0 {
        validate_gated(&spec, before, &mut rest, faults);
    }
    let (mut rest_then, mut rest_now) = (before.clone(), rest);
    for tree in [&mut rest_then, &mut rest_now] {
        // Containers that debug a running pod come by a subresource of their own.
        tree.drop_field("serviceAccount");
    }
    if !equal(&rest_now, &rest_then, &POD_SPEC) {
        let changed = difference(&rest_then, &rest_now, &POD_SPEC);
        let rule = format!("pod updates may not change fields other than {UPDATABLE}\n{changed}");
        faults.forbidden("spec", rule);
    }
}

/// Puts back what users may change, so that what remains must be equal.
fn undo_allowed(spec: &mut Value, before: &Value) {
    for list in ["containers", "initContainers"] {
        let images: Vec<_> = before
            .list(list)
            .iter()
            .map(|one| one.at("image").clone())
            .collect();
        for (container, image) in spec.list_mut(list).iter_mut().zip(images) {
            container.set("image", image);
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        spec.set(field, before.at(field).clone());
    }
    let grace = "terminationGracePeriodSeconds";
    if before.int(grace) < 0 && spec.maybe_int(grace) == Some(1) {
        spec.set(grace, before.at(grace).clone());
    }
}

fn validate_deadline(spec: &Spot<'_>, before: &Value, faults: &mut Faults) -> bool {
    const FIELD: &str = "activeDeadlineSeconds";
    let path = spec.path(FIELD);
    match (spec.maybe_int(FIELD), before.maybe_int(FIELD)) {
        (Some(new), _) if !naming::in_range(new, 0, i64::from(i32::MAX)).is_empty() => {
            let broken = naming::in_range(new, 0, i64::from(i32::MAX));
            rules(faults, path, new, broken);
            false
        }
        (Some(new), Some(old)) if old < new => {
            faults.invalid(path, new, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            let rule = "must not update from a positive integer to nil value";
            faults.invalid(path, Value::Null, rule);
            true
        }
        _ => true,
    }
}

fn validate_tolerations(spec: &Spot<'_>, before: &Value, faults: &mut Faults) {
    let timeless = |toleration: &Value| {
        let mut toleration = toleration.clone();
        toleration.drop_field("tolerationSeconds");
        toleration
    };
    let now: Vec<_> = spec.list("tolerations").iter().map(timeless).collect();
    let mut then = before.list("tolerations").iter().map(timeless);
    if !then.all(|old| now.iter().any(|new| same(new, &old))) {
        let rule = "existing toleration can not be modified except its tolerationSeconds";
        return faults.forbidden(spec.path("tolerations"), rule);
    }
    scheduling::validate_tolerations(spec, faults);
}

fn validate_gates(spec: &Spot<'_>, before: &Value, faults: &mut Faults) {
    let had = |name: &str| {
        let mut gates = before.list("schedulingGates").iter();
        gates.any(|gate| gate.text("name") == name)
    };
    for gate in spec.items("schedulingGates") {
        let name = gate.text("name");
        if !had(name) {
            let rule = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            faults.forbidden(gate.path("name"), rule);
        }
    }
}

/// While a pod is gated, its choice of nodes may become narrower.
fn validate_gated(spec: &Spot<'_>, before: &Value, rest: &mut Value, faults: &mut Faults) {
    let selector = spec.at("nodeSelector");
    let mut kept = before.fields("nodeSelector");
    if !kept.all(|(key, value)| selector.get(key) == Some(value)) {
        let rule = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        faults.invalid(spec.path("nodeSelector"), selector.clone(), rule);
    }
    rest.set("nodeSelector", before.at("nodeSelector").clone());
    let path = format!("nodeAffinity.{REQUIRED}.nodeSelectorTerms");
    let affinity = spec.child("affinity");
    let (now, then) = (affinity.list(&path), before.at("affinity").list(&path));
    if !then.is_empty() && then.len() != now.len() {
        let rule = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        faults.invalid(affinity.path(&path), now.to_vec(), rule);
    } else {
        for (index, (new, old)) in now.iter().zip(then).enumerate() {
            if !only_additions(new, old) {
                let rule = "only additions are allowed (no mutations or deletions)";
                let path = format!("{}[{index}]", affinity.path(&path));
                faults.invalid(path, new.clone(), rule);
            }
        }
    }
    let nodes = before.at("affinity.nodeAffinity");
    if !same(rest.at("affinity.nodeAffinity"), nodes) {
        let pods = ["affinity.podAffinity", "affinity.podAntiAffinity"];
        let alone = !pods.iter().any(|path| rest.has(path));
        match before.has("affinity") || !alone {
            true => rest.set("affinity.nodeAffinity", nodes.clone()),
            false => rest.set("affinity", Value::Null),
        }
    }
}

fn only_additions(new: &Value, old: &Value) -> bool {
    let lists = ["matchExpressions", "matchFields"];
    if lists.iter().all(|list| old.count(list) == 0) {
        return lists.iter().all(|list| new.count(list) == 0);
    }
    lists
        .iter()
        .all(|list| new.list(list).starts_with(old.list(list)))
}
