//! The downward API: what a pod's own fields and resources read as text, for
//! files and for environment variables.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use meta::Quantity;

/// A field that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("unsupported fieldPath: {0}")]
    UnsupportedField(String),
    #[error("invalid subscript in fieldPath: {0}")]
    Subscript(String),
    #[error("unsupported container resource : {0}")]
    UnsupportedResource(String),
    #[error("container {0:?} not found")]
    NoContainer(String),
    #[error("divisor {0:?} is not a quantity")]
    Divisor(String),
}

/// What the node knows of a pod beyond its object.
#[derive(Clone, Debug, Default)]
pub struct PodFacts {
    pub pod_ips: Vec<IpAddr>,
    pub host_ips: Vec<IpAddr>,
    /// The node's allocatable resources: the limit of a container without one.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// The text of `path` (`metadata.name`, `metadata.labels['a']`, `status.podIP`, …).
pub fn field(pod: &Pod, facts: &PodFacts, path: &str) -> Result<String, FieldError> {
    if let Some((map, rest)) = path.split_once('[') {
        return subscript(pod, map, rest, path);
    }
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    let join = |ips: &[IpAddr]| {
        let texts: Vec<_> = ips.iter().map(IpAddr::to_string).collect();
        texts.join(",")
    };
    let first = |ips: &[IpAddr]| ips.first().map(IpAddr::to_string).unwrap_or_default();
    Ok(match path {
        "metadata.name" => metadata.name.clone().unwrap_or_default(),
        "metadata.namespace" => metadata.namespace.clone().unwrap_or_default(),
        "metadata.uid" => metadata.uid.clone().unwrap_or_default(),
        "metadata.labels" => format_map(metadata.labels.as_ref()),
        "metadata.annotations" => format_map(metadata.annotations.as_ref()),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec
            .and_then(|s| s.service_account_name.clone())
            .unwrap_or_default(),
        "spec.restartPolicy" => spec
            .and_then(|s| s.restart_policy.clone())
            .unwrap_or_default(),
        "status.podIP" => first(&facts.pod_ips),
        "status.podIPs" => join(&facts.pod_ips),
        "status.hostIP" => first(&facts.host_ips),
        "status.hostIPs" => join(&facts.host_ips),
        other => return Err(FieldError::UnsupportedField(other.to_owned())),
    })
}

fn subscript(pod: &Pod, map: &str, rest: &str, path: &str) -> Result<String, FieldError> {
    let key = rest
        .strip_suffix(']')
        .map(|key| key.trim_matches(['\'', '"']));
    let Some(key) = key else {
        return Err(FieldError::Subscript(path.to_owned()));
    };
    let map = match map {
        "metadata.labels" => pod.metadata.labels.as_ref(),
        "metadata.annotations" => pod.metadata.annotations.as_ref(),
        _ => return Err(FieldError::UnsupportedField(path.to_owned())),
    };
    Ok(map
        .and_then(|map| map.get(key))
        .cloned()
        .unwrap_or_default())
}

/// `key="value"` lines in order of keys, as upstream writes maps to files.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    lines.join("\n")
}

/// The container a selector names: its own, or that of `container_name`.
pub fn container_of<'pod>(pod: &'pod Pod, name: &str) -> Option<&'pod Container> {
    let spec = pod.spec.as_ref()?;
    let inits = spec.init_containers.iter().flatten();
    inits
        .chain(&spec.containers)
        .find(|container| container.name == name)
}

/// A resource of a container, divided and rounded up. Where it has no limit, that of the pod counts.
pub fn resource(
    pod: &Pod,
    container: &Container,
    facts: &PodFacts,
    selector: &ResourceFieldSelector,
) -> Result<String, FieldError> {
    let unsupported = || FieldError::UnsupportedResource(selector.resource.clone());
    let (side, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let known =
        matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !known {
        return Err(unsupported());
    }
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|r| r.limits.as_ref());
    let requests = resources.and_then(|r| r.requests.as_ref());
    let whole = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let whole = whole.and_then(|r| r.limits.as_ref());
    let read = |map: Option<
        &BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    >| {
        map.and_then(|map| map.get(name))
            .and_then(|q| Quantity::parse(&q.0).ok())
    };
    let amount = match side {
        "limits" => read(limits)
            .filter(|q| !q.is_zero())
            .or_else(|| read(whole).filter(|q| !q.is_zero()))
            .or_else(|| facts.allocatable.get(name).copied()),
        "requests" => read(requests),
        _ => return Err(unsupported()),
    };
    let amount = amount.unwrap_or(Quantity::ZERO);
    let divisor = match &selector.divisor {
        Some(text) if text.0 != "0" => {
            Quantity::parse(&text.0).map_err(|_| FieldError::Divisor(text.0.clone()))?
        }
        _ => Quantity::from_units(1),
    };
    let (amount, divisor) = match name {
        "cpu" => (amount.milli(), divisor.milli()),
        _ => (amount.value(), divisor.value()),
    };
    Ok(ceil_div(amount, divisor.max(1)).to_string())
}

fn ceil_div(amount: i64, divisor: i64) -> i64 {
    amount / divisor + i64::from(amount % divisor > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u1",
                "labels": {"b": "2", "a": "1"}, "annotations": {"note": "say \"hi\""}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "resources": {
                "limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}}]}
        }))
        .unwrap()
    }

    #[test]
    fn fields_read_as_upstream_writes_them() {
        let facts = PodFacts {
            pod_ips: vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
            ..PodFacts::default()
        };
        for (path, expected) in [
            ("metadata.name", "web"),
            ("metadata.labels", "a=\"1\"\nb=\"2\""),
            ("metadata.annotations", "note=\"say \\\"hi\\\"\""),
            ("metadata.labels['b']", "2"),
            ("metadata.labels['none']", ""),
            ("status.podIP", "10.0.0.7"),
            ("status.podIPs", "10.0.0.7,fd00::7"),
            ("spec.nodeName", "n1"),
        ] {
            assert_eq!(field(&pod(), &facts, path).unwrap(), expected, "{path}");
        }
        assert!(field(&pod(), &facts, "spec.containers").is_err());
        assert!(field(&pod(), &facts, "metadata.labels['x").is_err());
    }

    #[test]
    fn resources_divide_and_round_up() {
        let facts = PodFacts {
            allocatable: BTreeMap::from([("ephemeral-storage".into(), Quantity::from_units(77))]),
            ..PodFacts::default()
        };
        let pod = pod();
        let container = container_of(&pod, "c").unwrap();
        for (resource_name, divisor, expected) in [
            ("limits.cpu", None, "2"),
            ("limits.cpu", Some("1m"), "1500"),
            ("requests.cpu", None, "1"),
            ("limits.memory", Some("1Mi"), "64"),
            ("limits.ephemeral-storage", None, "77"),
            ("requests.memory", None, "0"),
        ] {
            let selector = ResourceFieldSelector {
                resource: resource_name.into(),
                divisor: divisor.map(|d: &str| {
                    k8s_openapi::apimachinery::pkg::api::resource::Quantity(d.into())
                }),
                container_name: None,
            };
            let got = resource(&pod, container, &facts, &selector).unwrap();
            assert_eq!(got, expected, "{resource_name} by {divisor:?}");
        }
        let mut pod = pod.clone();
        pod.spec.as_mut().unwrap().resources = serde_json::from_value(
            serde_json::json!({"limits": {"cpu": "3", "ephemeral-storage": "5"}}),
        )
        .unwrap();
        for (resource_name, expected) in [("limits.cpu", "2"), ("limits.ephemeral-storage", "5")] {
            let selector = ResourceFieldSelector {
                resource: resource_name.into(),
                ..ResourceFieldSelector::default()
            };
            let container = container_of(&pod, "c").unwrap();
            let got = resource(&pod, container, &facts, &selector).unwrap();
            assert_eq!(got, expected, "{resource_name} of a pod");
        }
    }
}
