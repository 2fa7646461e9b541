//! Pods' subresources: status, ephemeral containers, and resizing in place.

use meta::Faults;
use serde_json::Value;

use super::{MIRROR, validate_pod};
use crate::core::pod::defaults::default_pod;
use crate::core::pod::prepare::qos_class;
use crate::go::{EPHEMERAL_CONTAINER, difference};
use crate::spot::same;
use crate::tree::Tree;

const EPHEMERAL: &str = "spec.ephemeralContainers";

/// Keeps what the subresource may change; the rest is as it was.
pub(crate) fn prepare_subresource(subresource: &str, pod: &mut Value, old: &Value) {
    match subresource {
        "status" => {
            // Old kubelets drop it, but it never changes.
            let class = old.at("status.qosClass").clone();
            if pod.has("status") && !class.is_null() {
                pod.fill("status.qosClass", class);
            }
            sync_addresses(pod);
        }
        "ephemeralcontainers" => {
            let given = pod.at(EPHEMERAL).clone();
            restore(pod, old);
            // A list that is not there stays away.
            if !given.is_null() || old.has(EPHEMERAL) {
                pod.set(EPHEMERAL, given);
            }
            default_pod(pod);
        }
        "resize" => {
            let given = pod.at("spec").clone();
            restore(pod, old);
            take_sizes(pod, &given);
            default_pod(pod);
        }
        _ => {}
    }
}

/// Keeps the old fields for one address and the new ones for several the same.
fn sync_addresses(pod: &mut Value) {
    for (one, many) in [
        ("status.podIP", "status.podIPs"),
        ("status.hostIP", "status.hostIPs"),
    ] {
        let first = pod
            .list(many)
            .first()
            .map(|address| address.text("ip").to_owned());
        match (pod.text(one).to_owned(), first) {
            (ip, None) if !ip.is_empty() => pod.set(many, serde_json::json!([{ "ip": ip }])),
            (ip, Some(first)) if ip != first => pod.set(one, first),
            _ => {}
        }
    }
}

/// Puts back all but the metadata, which the generic path has checked.
fn restore(pod: &mut Value, old: &Value) {
    for part in ["spec", "status"] {
        pod.set(part, old.at(part).clone());
    }
}

/// Takes the resources over when the containers are the same; else all, for validation to refuse.
fn take_sizes(pod: &mut Value, given: &Value) {
    for list in ["containers", "initContainers"] {
        let new = given.list(list);
        let Some(spec) = pod.at_mut("spec") else {
            return;
        };
        let names = |list: &[Value]| -> Vec<String> {
            list.iter().map(|one| one.text("name").to_owned()).collect()
        };
        if names(spec.list(list)) != names(new) {
            spec.set(list, given.at(list).clone());
            continue;
        }
        for (container, new) in spec.list_mut(list).iter_mut().zip(new) {
            for field in ["resources", "resizePolicy"] {
                match new.at(field) {
                    Value::Null => container.drop_field(field),
                    value => container.set(field, value.clone()),
                }
            }
        }
    }
    match given.at("resources") {
        Value::Null => pod.drop_field("spec.resources"),
        value => pod.set("spec.resources", value.clone()),
    }
}

/// Faults of a write to a subresource.
pub(crate) fn validate_subresource(
    subresource: &str,
    pod: &Value,
    old: &Value,
    faults: &mut Faults,
) {
    match subresource {
        "ephemeralcontainers" => validate_ephemeral(pod, old, faults),
        "resize" => validate_resize(pod, old, faults),
        _ => {}
    }
}

fn is_mirror(pod: &Value) -> bool {
    pod.at("metadata.annotations").get(MIRROR).is_some()
}

fn validate_ephemeral(pod: &Value, old: &Value, faults: &mut Faults) {
    validate_pod(pod, faults);
    if is_mirror(old) {
        faults.forbidden("", "static pods do not support ephemeral containers");
    }
    for before in old.list(EPHEMERAL) {
        let name = before.text("name");
        let mut now = pod.list(EPHEMERAL).iter();
        let what = match now.find(|container| container.text("name") == name) {
            None => "removed\n".to_owned(),
            Some(now) if !same(now, before) => {
                format!("changed\n{}", difference(before, now, &EPHEMERAL_CONTAINER))
            }
            Some(_) => continue,
        };
        let rule = format!("existing ephemeral containers \"{name}\" may not be {what}");
        faults.forbidden(EPHEMERAL, rule);
    }
}

fn validate_resize(pod: &Value, old: &Value, faults: &mut Faults) {
    validate_pod(pod, faults);
    if is_mirror(old) {
        return faults.forbidden("", "static pods cannot be resized");
    }
    if old.text("spec.os.name") == "windows" {
        return faults.forbidden("", "windows pods cannot be resized");
    }
    if qos_class(pod) != qos_class(old) {
        let rule = "Pod QOS Class may not change as a result of resizing";
        faults.invalid("spec", pod.text("status.qosClass"), rule);
    }
    // Nodes that can resize say what their running containers have.
    let mut statuses = old.list("status.containerStatuses").iter();
    let running = statuses.find(|one| one.has("state.running"));
    if running.is_some_and(|one| !one.has("resources")) {
        let rule = "Pod running on node without support for resize";
        faults.forbidden("spec", rule);
    }
    validate_pod_sizes(pod.at("spec"), old.at("spec"), faults);
    if old.count("status.nodeAllocatableResourceClaimStatuses") > 0 {
        let rule = "pods with node allocatable resource claims cannot be resized";
        faults.forbidden("spec", rule);
    }
    if !is_in_order(pod.at("spec"), old.at("spec"), faults) {
        return;
    }
    for list in ["containers", "initContainers"] {
        let (now, then) = (pod.at("spec").list(list), old.at("spec").list(list));
        for (index, (new, before)) in now.iter().zip(then).enumerate() {
            let path = format!("spec.{list}[{index}]");
            validate_sizes(new, before, (list, &path), faults);
        }
    }
}

/// Whether the containers are the same, one by one.
fn is_in_order(spec: &Value, before: &Value, faults: &mut Faults) -> bool {
    let mut sound = true;
    for list in ["containers", "initContainers"] {
        let (now, then) = (spec.list(list), before.list(list));
        if now.len() != then.len() {
            let rule = format!("{list} may not be added or removed on resize");
            faults.forbidden(format!("spec.{list}"), rule);
            sound = false;
            continue;
        }
        let mut pairs = now.iter().zip(then);
        let moved = pairs.position(|(new, before)| new.text("name") != before.text("name"));
        if let Some(index) = moved {
            let rule = format!("{list} may not be renamed or reordered on resize");
            faults.forbidden(format!("spec.{list}[{index}].name"), rule);
            sound = false;
        }
    }
    sound
}

/// Resources of the pod as a whole.
fn validate_pod_sizes(spec: &Value, before: &Value, faults: &mut Faults) {
    if before.has("resources") && !spec.has("resources") {
        let rule = "pod-level resources cannot be removed";
        return faults.forbidden("spec.resources", rule);
    }
    for list in ["requests", "limits"] {
        let now = spec.at("resources").at(list);
        let mut then = before.at("resources").fields(list);
        if then.any(|(name, _)| now.get(name).is_none()) {
            let rule = format!("pod-level resource {list} cannot be removed");
            faults.forbidden(format!("spec.resources.{list}"), rule);
        }
    }
    if !same(
        without_sizes(spec).at("resources"),
        without_sizes(before).at("resources"),
    ) {
        let rule = "only cpu and memory resources are mutable at pod-level";
        faults.forbidden("spec", rule);
    }
}

/// The same without what a resize may change.
fn without_sizes(holder: &Value) -> Value {
    let mut resources = holder.at("resources").clone();
    for list in ["requests", "limits"] {
        for resource in ["cpu", "memory"] {
            resources.drop_field(&format!("{list}.{resource}"));
        }
        if resources.count(list) == 0 {
            resources.drop_field(list);
        }
    }
    // Whoever names claims is told so elsewhere.
    resources.drop_field("claims");
    let mut holder = holder.clone();
    holder.set("resources", resources);
    holder
}

fn validate_sizes(new: &Value, before: &Value, (list, path): (&str, &str), faults: &mut Faults) {
    for (list, what) in [("requests", "requests"), ("limits", "limits")] {
        let now = new.at("resources").at(list);
        let mut then = before.at("resources").fields(list);
        if then.any(|(name, _)| now.get(name).is_none()) {
            let rule = format!("resource {what} cannot be removed");
            faults.forbidden(format!("{path}.resources.{list}"), rule);
        }
    }
    let fixed = same(&without_sizes(new), &without_sizes(before));
    if list == "containers" {
        if !fixed {
            faults.forbidden("spec", "only cpu and memory resources are mutable");
        }
        return;
    }
    if !fixed {
        let rule = "only cpu and memory resources for init or sidecar containers are mutable";
        faults.forbidden(path, rule);
    }
    if !same(new, before) && before.text("restartPolicy") != "Always" {
        let rule = "non-sidecar init containers with a resize policy of RestartContainer cannot \
                    be resized";
        let policies = new.list("resizePolicy").iter();
        for _ in policies.filter(|one| one.text("restartPolicy") == "RestartContainer") {
            faults.forbidden(path, rule);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Value {
        let mut pod = json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"serviceAccountName": "default", "containers": [{"name": "a", "image": "b",
                "resources": {"requests": {"cpu": "1"}}}]},
        });
        default_pod(&mut pod);
        pod
    }

    fn check(subresource: &str, change: impl Fn(&mut Value), expected: &[&str]) {
        let (old, mut new) = (pod(), pod());
        change(&mut new);
        prepare_subresource(subresource, &mut new, &old);
        let mut faults = Faults::new();
        validate_subresource(subresource, &new, &old, &mut faults);
        let faults: Vec<_> = faults.0.iter().map(ToString::to_string).collect();
        assert_eq!(faults, expected);
    }

    #[test]
    fn sizes_may_change_but_not_vanish() {
        let cpu = "/spec/containers/0/resources/requests/cpu";
        check(
            "resize",
            |pod| *pod.pointer_mut(cpu).unwrap() = json!("2"),
            &[],
        );
        check(
            "resize",
            |pod| pod["spec"]["nodeName"] = json!("ignored"),
            &[],
        );
        check(
            "resize",
            |pod| pod["spec"]["containers"][0]["resources"] = json!({"requests": {"memory": "1"}}),
            &[
                "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
            ],
        );
        check(
            "resize",
            |pod| pod["spec"]["containers"][0]["resources"] = json!({}),
            &[
                "spec: Invalid value: \"\": Pod QOS Class may not change as a result of resizing",
                "spec.containers[0].resources.requests: Forbidden: resource requests cannot be \
                 removed",
            ],
        );
    }

    #[test]
    fn a_status_keeps_its_class_and_addresses() {
        let old = json!({"status": {"qosClass": "Burstable"}});
        let mut new = json!({"status": {"podIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.2"}]}});
        prepare_subresource("status", &mut new, &old);
        let expected = json!({"qosClass": "Burstable",
            "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
            "hostIP": "10.0.0.2", "hostIPs": [{"ip": "10.0.0.2"}]});
        assert_eq!(new["status"], expected);
    }

    #[test]
    fn ephemeral_containers_may_be_added() {
        let add = |pod: &mut Value| {
            pod["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": "busybox"}]);
        };
        check("ephemeralcontainers", add, &[]);
        let clash = |pod: &mut Value| {
            pod["spec"]["ephemeralContainers"] = json!([{"name": "a", "image": "busybox"}]);
        };
        check(
            "ephemeralcontainers",
            clash,
            &["spec.ephemeralContainers[0].name: Duplicate value: \"a\""],
        );
    }
}
