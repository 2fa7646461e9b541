//! LimitRanger: containers without requests and limits get the namespace's defaults, and nothing
//! goes below or beyond what its LimitRanges allow.

use std::sync::Arc;

use meta::object::map_at;
use meta::{Object, Quantity, Status};
use serde_json::Value;

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::resources::{Resources, of_container, of_pod, read};
use crate::tree::{list, list_mut, spec, text};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub(crate) struct LimitRanger;

impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        if request.operation == Operation::Create && request.is_on("pods") {
            for range in ranges(request, lookup) {
                complete(object, &range);
            }
        }
        Ok(())
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let Some(object) = object.filter(|_| concerns(request)) else {
            return Ok(());
        };
        for range in ranges(request, lookup) {
            let faults = match request.resource_is("pods") {
                true => faults_of_pod(object, &range),
                false => faults_of_claim(object, &range),
            };
            if let Some(why) = joined(faults) {
                return Err(request.refused(Some(object), &why));
            }
        }
        Ok(())
    }
}

/// New pods, resized pods, and claims; not what is going away already.
fn concerns(request: &Request<'_>) -> bool {
    let dying = request
        .old
        .is_some_and(|old| old.deletion_timestamp().is_some());
    let asked = match (request.operation, request.subresource) {
        (Operation::Create, "") => {
            request.resource_is("pods") || request.resource_is("persistentvolumeclaims")
        }
        (Operation::Update, "") => request.resource_is("persistentvolumeclaims"),
        (Operation::Update, "resize") => request.resource_is("pods"),
        _ => false,
    };
    asked && !dying
}

fn ranges(request: &Request<'_>, lookup: &dyn Lookup) -> Vec<Arc<Object>> {
    lookup.list("limitranges", request.namespace)
}

fn limits_of_type<'a>(range: &'a Object, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    list(spec(range), "limits").filter(move |limit| text(limit, "type") == kind)
}

/// Gives containers the defaults, and tells so in an annotation.
fn complete(pod: &mut Object, range: &Object) {
    let (mut requests, mut limits) = (Resources::new(), Resources::new());
    for limit in limits_of_type(range, "Container") {
        requests.extend(read(limit.get("defaultRequest")));
        limits.extend(read(limit.get("default")));
    }
    let mut told = Vec::new();
    if let Some(spec) = pod.0.get_mut("spec") {
        for (field, word) in [
            ("containers", "container"),
            ("initContainers", "init container"),
        ] {
            for container in list_mut(spec, field) {
                for (which, defaults) in [("requests", &requests), ("limits", &limits)] {
                    let added = fill(container, which, defaults);
                    if !added.is_empty() {
                        let (added, kind) = (added.join(", "), which.trim_end_matches('s'));
                        let name = text(container, "name");
                        told.push(format!("{added} {kind} for {word} {name}"));
                    }
                }
            }
        }
    }
    if !told.is_empty() {
        let text = format!("LimitRanger plugin set: {}", told.join("; "));
        pod.metadata_mut();
        if let Some(metadata) = pod.0.get_mut("metadata") {
            map_at(metadata, "annotations").insert(ANNOTATION.into(), text.into());
        }
    }
}

/// Adds what a container lacks; returns the names of what was added.
fn fill(container: &mut Value, which: &str, defaults: &Resources) -> Vec<String> {
    let given = container.pointer(&format!("/resources/{which}"));
    let has = |name: &str| given.is_some_and(|given| given.get(name).is_some());
    let lacking: Vec<String> = defaults.keys().filter(|name| !has(name)).cloned().collect();
    if lacking.is_empty() {
        return lacking;
    }
    map_at(container, "resources");
    if let Some(resources) = container.get_mut("resources") {
        let list = map_at(resources, which);
        for name in &lacking {
            list.insert(name.clone(), defaults[name].to_string().into());
        }
    }
    lacking
}

fn faults_of_pod(pod: &Object, range: &Object) -> Vec<String> {
    let mut faults = Vec::new();
    for limit in limits_of_type(range, "Container") {
        for field in ["containers", "initContainers"] {
            for container in list(spec(pod), field) {
                let requests = of_container(container, "requests");
                let limits = of_container(container, "limits");
                judge("Container", limit, &requests, &limits, &mut faults);
            }
        }
    }
    for limit in limits_of_type(range, "Pod") {
        let (requests, limits) = (of_pod(pod, "requests"), of_pod(pod, "limits"));
        judge("Pod", limit, &requests, &limits, &mut faults);
    }
    faults
}

fn faults_of_claim(claim: &Object, range: &Object) -> Vec<String> {
    let kind = "PersistentVolumeClaim";
    let requests = of_container(spec(claim), "requests");
    let mut faults = Vec::new();
    for limit in limits_of_type(range, kind) {
        for (name, least) in read(limit.get("min")) {
            faults.extend(below(kind, &name, least, &requests, &Resources::new()));
        }
        for (name, most) in read(limit.get("max")) {
            let start = format!("maximum {name} usage per {kind} is {most}");
            match requests.get(&name) {
                None => faults.push(format!("{start}.  No request is specified")),
                Some(request) if *request > most => {
                    faults.push(format!("{start}, but request is {request}"));
                }
                Some(_) => {}
            }
        }
    }
    faults
}

fn judge(
    kind: &str,
    limit: &Value,
    requests: &Resources,
    limits: &Resources,
    faults: &mut Vec<String>,
) {
    for (name, least) in read(limit.get("min")) {
        faults.extend(below(kind, &name, least, requests, limits));
    }
    for (name, most) in read(limit.get("max")) {
        faults.extend(above(kind, &name, most, requests, limits));
    }
    for (name, greatest) in read(limit.get("maxLimitRequestRatio")) {
        faults.extend(apart(kind, &name, greatest, requests, limits));
    }
}

fn below(
    kind: &str,
    name: &str,
    least: Quantity,
    requests: &Resources,
    limits: &Resources,
) -> Option<String> {
    let start = format!("minimum {name} usage per {kind} is {least}");
    match (requests.get(name), limits.get(name)) {
        (None, _) => Some(format!("{start}.  No request is specified")),
        (Some(request), _) if *request < least => {
            Some(format!("{start}, but request is {request}"))
        }
        (_, Some(limit)) if *limit < least => Some(format!("{start}, but limit is {limit}")),
        _ => None,
    }
}

fn above(
    kind: &str,
    name: &str,
    most: Quantity,
    requests: &Resources,
    limits: &Resources,
) -> Option<String> {
    let start = format!("maximum {name} usage per {kind} is {most}");
    match (limits.get(name), requests.get(name)) {
        (None, _) => Some(format!("{start}.  No limit is specified")),
        (Some(limit), _) if *limit > most => Some(format!("{start}, but limit is {limit}")),
        (_, Some(request)) if *request > most => Some(format!("{start}, but request is {request}")),
        _ => None,
    }
}

fn apart(
    kind: &str,
    name: &str,
    greatest: Quantity,
    requests: &Resources,
    limits: &Resources,
) -> Option<String> {
    let start = format!("{name} max limit to request ratio per {kind} is {greatest}");
    let given = |from: &Resources| from.get(name).copied().filter(|amount| !amount.is_zero());
    let Some(request) = given(requests) else {
        return Some(format!(
            "{start}, but no request is specified or request is 0"
        ));
    };
    let Some(limit) = given(limits) else {
        return Some(format!("{start}, but no limit is specified or limit is 0"));
    };
    let ratio = limit.nano() as f64 / request.nano() as f64;
    let exceeds = ratio * 1000.0 > greatest.milli() as f64;
    exceeds.then(|| format!("{start}, but provided ratio is {ratio:.6}"))
}

/// One fault as it is, several in brackets, each once.
fn joined(faults: Vec<String>) -> Option<String> {
    let mut each: Vec<String> = Vec::new();
    for fault in faults {
        if !each.contains(&fault) {
            each.push(fault);
        }
    }
    match each.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{World, object, request};

    fn world(limit: Value) -> World {
        let range = json!({"metadata": {"name": "limits", "namespace": "default"},
            "spec": {"limits": [limit]}});
        World::default().with("limitranges", range)
    }

    fn pod(resources: Value) -> Object {
        object(json!({"metadata": {"name": "web"},
            "spec": {"containers": [{"name": "c", "resources": resources}]}}))
    }

    fn refusal(limit: Value, resources: Value) -> Option<String> {
        let asked = request(Operation::Create, "pods", "web");
        let judged = LimitRanger.validate(&asked.borrow(), Some(&pod(resources)), &world(limit));
        let prefix = "pods \"web\" is forbidden: ";
        judged
            .err()
            .map(|status| status.message.strip_prefix(prefix).unwrap().to_owned())
    }

    #[test]
    fn defaults_are_filled_in_and_told() {
        let world = world(json!({"type": "Container",
            "default": {"cpu": "1", "memory": "256Mi"},
            "defaultRequest": {"cpu": "100m", "memory": "128Mi"}}));
        let mut pod = pod(json!({"limits": {"cpu": "2"}}));
        let asked = request(Operation::Create, "pods", "web");
        LimitRanger
            .mutate(&asked.borrow(), &mut pod, &world)
            .unwrap();
        assert_eq!(
            pod.0["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "2", "memory": "256Mi"},
                "requests": {"cpu": "100m", "memory": "128Mi"}})
        );
        assert_eq!(
            pod.annotation(ANNOTATION),
            Some(
                "LimitRanger plugin set: cpu, memory request for container c; memory limit for \
                 container c"
            )
        );
    }

    #[test]
    fn containers_stay_between_minimum_and_maximum() {
        let limit = || json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}});
        let given = |request: &str, limit: &str| json!({"requests": {"cpu": request}, "limits": {"cpu": limit}});
        assert_eq!(refusal(limit(), given("100m", "1")), None);
        assert_eq!(
            refusal(limit(), given("50m", "1")).as_deref(),
            Some("minimum cpu usage per Container is 100m, but request is 50m")
        );
        assert_eq!(
            refusal(limit(), given("200m", "2")).as_deref(),
            Some("maximum cpu usage per Container is 1, but limit is 2")
        );
        assert_eq!(
            refusal(limit(), json!({})).as_deref(),
            Some(
                "[minimum cpu usage per Container is 100m.  No request is specified, maximum cpu \
                 usage per Container is 1.  No limit is specified]"
            )
        );
    }

    #[test]
    fn ratios_are_limited() {
        let limit = || json!({"type": "Container", "maxLimitRequestRatio": {"memory": "2"}});
        let given = |request: &str, limit: &str| json!({"requests": {"memory": request}, "limits": {"memory": limit}});
        assert_eq!(refusal(limit(), given("1Gi", "2Gi")), None);
        assert_eq!(
            refusal(limit(), given("1Gi", "3Gi")).as_deref(),
            Some(
                "memory max limit to request ratio per Container is 2, but provided ratio is 3.000000"
            )
        );
        assert_eq!(
            refusal(limit(), json!({})).as_deref(),
            Some(
                "memory max limit to request ratio per Container is 2, but no request is specified \
                 or request is 0"
            )
        );
    }

    #[test]
    fn pods_and_claims_have_limits_too() {
        assert_eq!(
            refusal(
                json!({"type": "Pod", "max": {"memory": "1Gi"}}),
                json!({"limits": {"memory": "2Gi"}})
            )
            .as_deref(),
            Some("maximum memory usage per Pod is 1Gi, but limit is 2Gi")
        );
        let world = world(json!({"type": "PersistentVolumeClaim",
            "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}));
        let refusal = |size: &str| {
            let claim = object(json!({"metadata": {"name": "d"},
                "spec": {"resources": {"requests": {"storage": size}}}}));
            let asked = request(Operation::Create, "persistentvolumeclaims", "d");
            let judged = LimitRanger.validate(&asked.borrow(), Some(&claim), &world);
            judged.err().map(|status| status.message)
        };
        assert_eq!(refusal("2Gi"), None);
        assert_eq!(
            refusal("3Gi").as_deref(),
            Some(
                "persistentvolumeclaims \"d\" is forbidden: maximum storage usage per \
                 PersistentVolumeClaim is 2Gi, but request is 3Gi"
            )
        );
    }

    #[test]
    fn updates_of_pods_are_left_alone() {
        let limit = json!({"type": "Container", "max": {"cpu": "1"}});
        let asked = request(Operation::Update, "pods", "web");
        let pod = pod(json!({}));
        assert_eq!(
            LimitRanger.validate(&asked.borrow(), Some(&pod), &world(limit)),
            Ok(())
        );
    }
}
