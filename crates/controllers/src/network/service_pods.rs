//! Which pods stand behind a service, at which ports. Shared by the
//! controllers of EndpointSlice and Endpoints.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use meta::LabelSelector;

use crate::pods;

/// The service's selector, unless the service has none and its endpoints are somebody else's.
pub(crate) fn selector(service: &Service) -> Option<LabelSelector> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let labels = spec.selector.as_ref().filter(|labels| !labels.is_empty())?;
    Some(LabelSelector::equal(labels.clone()))
}

/// The pods a service selects that have an address and have not ended.
pub(crate) fn behind(selector: &LabelSelector, nearby: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let serves = |pod: &&Arc<Pod>| {
        pods::matches(selector, &pod.metadata) && !pods::is_terminal(pod) && address(pod).is_some()
    };
    nearby.iter().filter(serves).cloned().collect()
}

/// The pod's primary address.
pub(crate) fn address(pod: &Pod) -> Option<&str> {
    pod.status
        .as_ref()?
        .pod_ip
        .as_deref()
        .filter(|ip| !ip.is_empty())
}

/// The port of `pod` that a service port leads to; a named port the pod lacks leads nowhere.
pub(crate) fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten();
            let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
            let mut ports = spec
                .containers
                .iter()
                .chain(sidecars)
                .flat_map(|one| one.ports.iter().flatten());
            let named = ports.find(|one| {
                one.name.as_deref() == Some(name)
                    && one.protocol.as_deref().unwrap_or("TCP") == protocol
            });
            named.map(|one| one.container_port)
        }
    }
}

/// Whether addresses count as ready before their pods are.
pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.publish_not_ready_addresses)
        == Some(true)
}

/// The pod's own name under a headless service, if it asked for one.
pub(crate) fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let mine = spec.subdomain.is_some()
        && spec.subdomain == service.metadata.name
        && pod.metadata.namespace == service.metadata.namespace;
    spec.hostname
        .clone()
        .filter(|name| mine && !name.is_empty())
}

/// Whether a change of a pod can change anything behind a service.
pub(crate) fn matters(old: &Pod, new: &Pod) -> bool {
    let facts = |pod: &Pod| {
        (
            pod.metadata.labels.clone(),
            pod.metadata.deletion_timestamp.is_some(),
            address(pod).map(str::to_owned),
            pods::is_ready(pod),
            pods::is_terminal(pod),
            pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            pod.metadata.uid.clone(),
        )
    };
    facts(old) != facts(new)
}
