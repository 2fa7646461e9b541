//! What one object takes, by the names that quotas use.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use meta::{Object, Quantity};
use serde_json::Value;

use crate::resources::{Resources, add, of_container, of_pod_with_overhead, read};
use crate::tree::{list, spec, text};

/// Resources that quotas of plain counts know under a second name, which is their own.
const COUNTED_BY_NAME: [&str; 4] = [
    "configmaps",
    "resourcequotas",
    "replicationcontrollers",
    "secrets",
];
/// What cannot be limited: it is not stored, or comes by itself.
const IGNORED: [&str; 10] = [
    "bindings",
    "componentstatuses",
    "tokenreviews.authentication.k8s.io",
    "selfsubjectreviews.authentication.k8s.io",
    "subjectaccessreviews.authorization.k8s.io",
    "selfsubjectaccessreviews.authorization.k8s.io",
    "localsubjectaccessreviews.authorization.k8s.io",
    "selfsubjectrulesreviews.authorization.k8s.io",
    "events",
    "events.events.k8s.io",
];
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// A quota on these makes every container state them.
const MUST_STATE: [&str; 6] = [
    "cpu",
    "memory",
    "requests.cpu",
    "requests.memory",
    "limits.cpu",
    "limits.memory",
];
const CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";
const LEGACY_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const PODS: &str = "pods";
const SERVICES: &str = "services";
const CLAIMS: &str = "persistentvolumeclaims";

/// Whether quotas never count objects of this resource.
pub fn is_ignored(group_resource: &str) -> bool {
    IGNORED.contains(&group_resource)
}

/// The resource whose objects a name of `spec.hard` counts: `pods` for `limits.cpu`,
/// `deployments.apps` for `count/deployments.apps`.
pub fn counted_resource(name: &str) -> Option<String> {
    if let Some(resource) = name.strip_prefix("count/") {
        return Some(resource.into());
    }
    let of_claims = |name: &str| [CLAIMS, "requests.storage"].contains(&name);
    let by_class = name
        .split_once(CLASS_SUFFIX)
        .is_some_and(|(_, rest)| of_claims(rest));
    if of_claims(name) || by_class {
        return Some(CLAIMS.into());
    }
    if COUNTED_BY_NAME.contains(&name) {
        return Some(name.into());
    }
    if [SERVICES, "services.nodeports", "services.loadbalancers"].contains(&name) {
        return Some(SERVICES.into());
    }
    is_of_pods(name).then(|| PODS.into())
}

fn is_of_pods(name: &str) -> bool {
    let requested = name.strip_prefix("requests.");
    let compute = requested
        .or_else(|| name.strip_prefix("limits."))
        .unwrap_or(name);
    name == PODS
        || COMPUTE.contains(&compute)
        || requested.unwrap_or(name).starts_with("hugepages-")
        || requested.is_some_and(is_extended)
}

/// `vendor.com/device`, but nothing of Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

/// What an object takes now; `group_resource` is `pods` or `deployments.apps`.
pub fn usage(group_resource: &str, object: &Object) -> BTreeMap<String, Quantity> {
    usage_at(group_resource, object, Timestamp::now())
}

/// The same at a given time: a pod that should be gone already takes no more than its place.
pub fn usage_at(
    group_resource: &str,
    object: &Object,
    now: Timestamp,
) -> BTreeMap<String, Quantity> {
    let mut usage = Resources::from([(format!("count/{group_resource}"), Quantity::from_units(1))]);
    match group_resource {
        PODS => add(&mut usage, &of_pod(object, now)),
        SERVICES => add(&mut usage, &of_service(object)),
        CLAIMS => add(&mut usage, &of_claim(object)),
        name if COUNTED_BY_NAME.contains(&name) => {
            usage.insert(name.into(), Quantity::from_units(1));
        }
        _ => {}
    }
    usage
}

fn of_pod(pod: &Object, now: Timestamp) -> Resources {
    if is_over(pod, now) {
        return Resources::new();
    }
    let requests = of_pod_with_overhead(pod, "requests");
    let limits = of_pod_with_overhead(pod, "limits");
    stated(&requests, &limits)
}

/// Whether a pod has ended, or was to be gone by now.
fn is_over(pod: &Object, now: Timestamp) -> bool {
    if matches!(pod.text("/status/phase"), "Failed" | "Succeeded") {
        return true;
    }
    let grace = pod
        .0
        .pointer("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_i64);
    let deleted = pod.deletion_timestamp().and_then(meta::time::parse);
    let end = deleted
        .zip(grace)
        .and_then(|(deleted, grace)| deleted.checked_add(SignedDuration::from_secs(grace)).ok());
    end.is_some_and(|end| now > end)
}

/// Requests and limits under the names that quotas have for them.
fn stated(requests: &Resources, limits: &Resources) -> Resources {
    let mut named = Resources::from([(PODS.into(), Quantity::from_units(1))]);
    for (name, amount) in requests {
        let plain = COMPUTE.contains(&name.as_str()) || name.starts_with("hugepages-");
        if plain {
            named.insert(name.clone(), *amount);
        }
        if plain || is_extended(name) {
            named.insert(format!("requests.{name}"), *amount);
        }
    }
    for (name, amount) in limits
        .iter()
        .filter(|(name, _)| COMPUTE.contains(&name.as_str()))
    {
        named.insert(format!("limits.{name}"), *amount);
    }
    named
}

fn of_service(service: &Object) -> Resources {
    let spec = spec(service);
    let ports = list(spec, "ports");
    let balanced = text(spec, "type") == "LoadBalancer";
    let allocates = spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false));
    let chosen = |port: &&Value| port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) != 0;
    let node_ports = match text(spec, "type") {
        "NodePort" => ports.len(),
        "LoadBalancer" if allocates => ports.len(),
        "LoadBalancer" => ports.filter(chosen).count(),
        _ => 0,
    };
    let count = |count: usize| Quantity::from_units(i64::try_from(count).unwrap_or(i64::MAX));
    Resources::from([
        (SERVICES.into(), count(1)),
        (
            "services.loadbalancers".into(),
            count(usize::from(balanced)),
        ),
        ("services.nodeports".into(), count(node_ports)),
    ])
}

fn of_claim(claim: &Object) -> Resources {
    let one = Quantity::from_units(1);
    let mut usage = Resources::from([(CLAIMS.into(), one)]);
    let given = text(spec(claim), "storageClassName");
    let class = claim.annotation(LEGACY_CLASS).unwrap_or(given);
    let storage = |from: Option<&Value>| read(from).get("storage").copied();
    let requested = storage(claim.0.pointer("/spec/resources/requests"));
    let allocated = storage(claim.0.pointer("/status/allocatedResources"));
    let mut count = |name: &str, amount: Quantity| {
        if !class.is_empty() {
            usage.insert(format!("{class}{CLASS_SUFFIX}{name}"), amount);
        }
        usage.insert(name.into(), amount);
    };
    count(CLAIMS, one);
    if let Some(requested) = requested {
        count(
            "requests.storage",
            requested.max(allocated.unwrap_or(requested)),
        );
    }
    usage
}

/// Whether the object states all that quotas on `names` need to know; the error is upstream's
/// sentence: `must specify cpu for: web`.
pub fn constraints(
    group_resource: &str,
    names: &BTreeSet<String>,
    object: &Object,
) -> Result<(), String> {
    let spec = spec(object);
    if group_resource != PODS || spec.get("resources").is_some_and(states_pod_level) {
        return Ok(());
    }
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in list(spec, "containers").chain(list(spec, "initContainers")) {
        let requests = of_container(container, "requests");
        let limits = of_container(container, "limits");
        let stated = stated(&requests, &limits);
        for name in MUST_STATE.into_iter().filter(|name| names.contains(*name)) {
            if !stated.contains_key(name) {
                missing
                    .entry(name)
                    .or_default()
                    .insert(text(container, "name"));
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let part = |(name, containers): (&str, BTreeSet<&str>)| {
        format!(
            "{name} for: {}",
            containers.into_iter().collect::<Vec<_>>().join(",")
        )
    };
    let parts: Vec<String> = missing.into_iter().map(part).collect();
    Err(format!("must specify {}", parts.join("; ")))
}

fn states_pod_level(resources: &Value) -> bool {
    let any = |which: &str| {
        let stated = resources.get(which).and_then(Value::as_object);
        stated.is_some_and(|stated| !stated.is_empty())
    };
    any("requests") || any("limits")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::shown;

    fn shows(resource: &str, tree: Value) -> String {
        shown(&usage(resource, &Object(tree)))
    }

    #[test]
    fn pods_take_what_they_state() {
        let resources = json!({"requests": {"cpu": "100m", "memory": "1Gi", "nvidia.com/gpu": "1",
            "hugepages-2Mi": "4Mi"}, "limits": {"cpu": "1"}});
        let pod = |extra: Value| {
            let mut pod = json!({"spec": {"containers": [{"name": "c", "resources": resources}]}});
            pod["status"] = extra;
            pod
        };
        assert_eq!(
            shows("pods", pod(json!({"phase": "Running"}))),
            "count/pods=1,cpu=100m,hugepages-2Mi=4Mi,limits.cpu=1,memory=1Gi,pods=1,\
             requests.cpu=100m,requests.hugepages-2Mi=4Mi,requests.memory=1Gi,\
             requests.nvidia.com/gpu=1"
        );
        assert_eq!(
            shows("pods", pod(json!({"phase": "Succeeded"}))),
            "count/pods=1"
        );
        let mut dying = pod(json!({}));
        dying["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z",
            "deletionGracePeriodSeconds": 30});
        let at = |time: &str| {
            shown(&usage_at(
                "pods",
                &Object(dying.clone()),
                time.parse().unwrap(),
            ))
        };
        assert!(at("2026-01-01T00:00:20Z").contains(",pods=1"));
        assert_eq!(at("2026-01-01T00:01:00Z"), "count/pods=1");
    }

    #[test]
    fn services_take_ports_and_balancers() {
        let service = |kind: &str, allocate: bool| {
            json!({"spec": {"type": kind, "allocateLoadBalancerNodePorts": allocate,
                "ports": [{"port": 1}, {"port": 2, "nodePort": 30001}]}})
        };
        let shows = |kind: &str, allocate: bool| shows("services", service(kind, allocate));
        let counts = |balancers: u8, ports: u8| {
            format!(
                "count/services=1,services=1,services.loadbalancers={balancers},\
                 services.nodeports={ports}"
            )
        };
        assert_eq!(shows("ClusterIP", true), counts(0, 0));
        assert_eq!(shows("NodePort", true), counts(0, 2));
        assert_eq!(shows("LoadBalancer", true), counts(1, 2));
        assert_eq!(shows("LoadBalancer", false), counts(1, 1));
    }

    #[test]
    fn claims_take_storage_of_their_class() {
        let claim = json!({"spec": {"storageClassName": "gold",
            "resources": {"requests": {"storage": "2Gi"}}}});
        assert_eq!(
            shows("persistentvolumeclaims", claim),
            "count/persistentvolumeclaims=1,\
             gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
             gold.storageclass.storage.k8s.io/requests.storage=2Gi,\
             persistentvolumeclaims=1,requests.storage=2Gi"
        );
    }

    #[test]
    fn everything_else_is_counted() {
        assert_eq!(
            shows("configmaps", json!({})),
            "configmaps=1,count/configmaps=1"
        );
        assert_eq!(
            shows("deployments.apps", json!({})),
            "count/deployments.apps=1"
        );
    }

    #[test]
    fn names_tell_what_they_count() {
        for (name, resource) in [
            ("pods", Some("pods")),
            ("limits.memory", Some("pods")),
            ("requests.nvidia.com/gpu", Some("pods")),
            ("hugepages-1Gi", Some("pods")),
            ("requests.storage", Some("persistentvolumeclaims")),
            (
                "x.storageclass.storage.k8s.io/requests.storage",
                Some("persistentvolumeclaims"),
            ),
            ("services.nodeports", Some("services")),
            ("secrets", Some("secrets")),
            ("count/jobs.batch", Some("jobs.batch")),
            ("nonsense", None),
        ] {
            assert_eq!(counted_resource(name).as_deref(), resource, "{name}");
        }
    }

    #[test]
    fn containers_must_state_what_is_limited() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let pod = Object(json!({"spec": {"containers": [
            {"name": "b"}, {"name": "a", "resources": {"requests": {"cpu": "1"}}}]}}));
        assert_eq!(
            constraints("pods", &names(&["cpu", "limits.memory", "pods"]), &pod),
            Err("must specify cpu for: b; limits.memory for: a,b".into())
        );
        assert_eq!(
            constraints("pods", &names(&["pods", "requests.x/y"]), &pod),
            Ok(())
        );
    }
}
