//! EndpointSlices of services with a selector, at most 100 endpoints each.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Change, Client, DeleteOptions, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::Status;
use reconcile::owners::controller_reference;
use reconcile::{Outcome, Reconcile, Recorder, feed};

use super::service_pods::{self as behind, address, matters, target_port};
use crate::context::Context;
use crate::pods;

const NAME: &str = "endpointslice-controller";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Most endpoints in one slice.
const SLICE_MAX: usize = 100;
const WORKERS: usize = 5;

/// What has to happen to the slices of one service.
#[derive(Debug, Default)]
pub struct Plan {
    pub create: Vec<EndpointSlice>,
    pub replace: Vec<EndpointSlice>,
    pub delete: Vec<Arc<EndpointSlice>>,
}

/// Compares a service's slices with the pods behind it. Pure.
pub fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    slices: &[Arc<EndpointSlice>],
    zone_of: impl Fn(&str) -> Option<String>,
) -> Plan {
    let mut plan = Plan::default();
    let mut groups = wanted(service, pods, zone_of);
    if groups.is_empty() {
        // A slice without endpoints says that the service was looked at.
        groups.push((Vec::new(), Vec::new()));
    }
    let labels = labels_of(service);
    for slice in slices {
        let fits = slice.address_type == "IPv4";
        let group = groups
            .iter_mut()
            .find(|(ports, _)| same_ports(ports, slice))
            .filter(|_| fits);
        let Some((_, endpoints)) = group else {
            plan.delete.push(slice.clone());
            continue;
        };
        let kept = keep(slice, endpoints);
        plan.replace.push(EndpointSlice {
            endpoints: Some(kept),
            metadata: ObjectMeta {
                labels: Some(labels.clone()),
                ..slice.metadata.clone()
            },
            ..slice.as_ref().clone()
        });
    }
    for (ports, mut endpoints) in groups {
        let mut has_slice = false;
        for slice in plan
            .replace
            .iter_mut()
            .filter(|slice| same_ports(&ports, slice))
        {
            let room = SLICE_MAX.saturating_sub(size(slice)).min(endpoints.len());
            slice
                .endpoints
                .get_or_insert_default()
                .extend(endpoints.drain(..room));
            has_slice = true;
        }
        while !endpoints.is_empty() || !has_slice {
            let room = SLICE_MAX.min(endpoints.len());
            let endpoints = endpoints.drain(..room).collect();
            plan.create
                .push(new_slice(service, &labels, ports.clone(), endpoints));
            has_slice = true;
        }
    }
    drop_spare_slices(&mut plan, slices);
    plan
}

/// Empty slices go, but for the last; unchanged ones are left alone.
fn drop_spare_slices(plan: &mut Plan, slices: &[Arc<EndpointSlice>]) {
    let mut filled = plan.create.len() + plan.replace.iter().filter(|s| size(s) > 0).count();
    let mut replace = Vec::new();
    for slice in std::mem::take(&mut plan.replace) {
        let known = slices
            .iter()
            .find(|known| known.metadata.uid == slice.metadata.uid);
        if size(&slice) == 0 && filled > 0 {
            plan.delete.extend(known.cloned());
            continue;
        }
        filled = filled.max(1);
        if known.is_none_or(|known| *known.as_ref() != slice) {
            replace.push(slice);
        }
    }
    plan.replace = replace;
}

type Group = (Vec<EndpointPort>, Vec<Endpoint>);

/// The endpoints that should exist, by the ports they have in common.
fn wanted(
    service: &Service,
    pods: &[Arc<Pod>],
    zone_of: impl Fn(&str) -> Option<String>,
) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let service_ports = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.clone())
        .unwrap_or_default();
    for pod in pods {
        let mut ports = Vec::new();
        for port in &service_ports {
            if let Some(number) = target_port(port, pod) {
                ports.push(EndpointPort {
                    name: Some(port.name.clone().unwrap_or_default()),
                    port: Some(number),
                    protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
                    app_protocol: port.app_protocol.clone(),
                });
            }
        }
        if ports.is_empty() && !service_ports.is_empty() {
            continue;
        }
        let endpoint = endpoint(service, pod, &zone_of);
        match groups.iter_mut().find(|(known, _)| *known == ports) {
            Some((_, endpoints)) => endpoints.push(endpoint),
            None => groups.push((ports, vec![endpoint])),
        }
    }
    groups
}

fn endpoint(service: &Service, pod: &Pod, zone_of: &impl Fn(&str) -> Option<String>) -> Endpoint {
    let serving = pods::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let ready = behind::publishes_not_ready(service) || (serving && !terminating);
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    Endpoint {
        addresses: address(pod).map(str::to_owned).into_iter().collect(),
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: behind::hostname(pod, service),
        zone: node.as_deref().and_then(zone_of),
        node_name: node,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

/// Takes out of `wanted` the endpoints that the slice has already, as they should be now.
fn keep(slice: &EndpointSlice, wanted: &mut Vec<Endpoint>) -> Vec<Endpoint> {
    let same = |one: &Endpoint, other: &Endpoint| {
        let uid = |endpoint: &Endpoint| endpoint.target_ref.as_ref().and_then(|t| t.uid.clone());
        one.addresses == other.addresses && uid(one) == uid(other)
    };
    let mut kept = Vec::new();
    for known in slice.endpoints.iter().flatten() {
        if let Some(at) = wanted.iter().position(|endpoint| same(known, endpoint)) {
            kept.push(wanted.remove(at));
        }
    }
    kept
}

fn size(slice: &EndpointSlice) -> usize {
    slice.endpoints.as_ref().map_or(0, Vec::len)
}

fn same_ports(ports: &[EndpointPort], slice: &EndpointSlice) -> bool {
    slice.ports.as_deref().unwrap_or_default() == ports
}

fn labels_of(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(
        SERVICE_LABEL.into(),
        service.metadata.name.clone().unwrap_or_default(),
    );
    labels.insert(MANAGED_BY_LABEL.into(), MANAGER.into());
    let ip = service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.as_deref());
    match ip {
        Some("None") => labels.insert(HEADLESS_LABEL.into(), String::new()),
        _ => labels.remove(HEADLESS_LABEL),
    };
    labels
}

fn new_slice(
    service: &Service,
    labels: &BTreeMap<String, String>,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels.clone()),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: "IPv4".into(),
        ports: Some(ports).filter(|ports| !ports.is_empty()),
        endpoints: Some(endpoints),
    }
}

struct Controller {
    client: Client,
    services: Informer<Service>,
    pods: Informer<Pod>,
    slices: Informer<EndpointSlice>,
    nodes: Informer<Node>,
    recorder: Recorder,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let controller = Controller {
        client: context.client(NAME),
        services: context.hub.informer(),
        pods: context.hub.informer(),
        slices: context.hub.informer(),
        nodes: context.hub.informer(),
        recorder: context.recorder(NAME),
    };
    feed(
        NAME,
        &controller.services,
        &queue,
        &context.crew,
        |change| vec![change.key.clone()],
    );
    let services = controller.services.clone();
    feed(
        NAME,
        &controller.pods,
        &queue,
        &context.crew,
        move |change| affected(&services, change),
    );
    feed(NAME, &controller.slices, &queue, &context.crew, |change| {
        let labels = |slice: &Arc<EndpointSlice>| slice.metadata.labels.clone();
        let slice = change.new.as_ref().or(change.old.as_ref());
        let labels = slice.and_then(labels).unwrap_or_default();
        let mine = labels.get(MANAGED_BY_LABEL).is_some_and(|by| by == MANAGER);
        let service = labels.get(SERVICE_LABEL).filter(|_| mine);
        service
            .map(|name| Key::new(change.key.namespace.clone(), name))
            .into_iter()
            .collect()
    });
    let (one, two, three, four) = (
        controller.services.clone(),
        controller.pods.clone(),
        controller.slices.clone(),
        controller.nodes.clone(),
    );
    let synced = async move {
        one.synced().await;
        two.synced().await;
        three.synced().await;
        four.synced().await;
    };
    context.drive(Arc::new(controller), &queue, WORKERS, synced);
}

/// The services whose pods changed.
pub(super) fn affected(services: &Informer<Service>, change: &Change<Pod>) -> Vec<Key> {
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && !matters(old, new)
    {
        return Vec::new();
    }
    let pods: Vec<_> = [&change.old, &change.new].into_iter().flatten().collect();
    let nearby = services.list_in(&change.key.namespace).into_iter();
    let concerned = nearby.filter(|service| {
        let selector = behind::selector(service);
        selector.is_some_and(|s| pods.iter().any(|pod| pods::matches(&s, &pod.metadata)))
    });
    concerned.map(|service| Key::of(service.as_ref())).collect()
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            // The garbage collector removes the slices of a service that is gone.
            let Some(service) = self.services.get_key(key) else {
                return Ok(Outcome::Done);
            };
            let Some(selector) = behind::selector(&service) else {
                return Ok(Outcome::Done);
            };
            if service.metadata.deletion_timestamp.is_some() {
                return Ok(Outcome::Done);
            }
            let pods = behind::behind(&selector, &self.pods.list_in(&key.namespace));
            let mut slices = self.slices.list_in(&key.namespace);
            slices.retain(|slice| {
                let labels = slice.metadata.labels.as_ref();
                let label = |name| labels.and_then(|map| map.get(name)).map(String::as_str);
                label(SERVICE_LABEL) == Some(key.name.as_str())
                    && label(MANAGED_BY_LABEL) == Some(MANAGER)
                    && slice.metadata.deletion_timestamp.is_none()
            });
            let zone = |node: &str| self.zone(node);
            let plan = plan(&service, &pods, &slices, zone);
            self.act(&service, plan).await.inspect_err(|status| {
                if !status.is_conflict() && !status.is_not_found() {
                    let message =
                        format!("Error updating Endpoint Slices for Service {key}: {status}");
                    let reason = "FailedToUpdateEndpointSlices";
                    self.recorder.warning(service.as_ref(), reason, message);
                }
            })?;
            Ok(Outcome::Done)
        })
    }
}

impl Controller {
    async fn act(&self, service: &Service, plan: Plan) -> Result<(), Status> {
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let api = self.client.namespaced::<EndpointSlice>(namespace);
        for slice in &plan.create {
            self.slices.absorb(api.create(slice).await?);
        }
        for slice in &plan.replace {
            self.slices.absorb(api.replace(slice).await?);
        }
        for slice in &plan.delete {
            let options = DeleteOptions::uid(slice.metadata.uid.as_deref().unwrap_or_default());
            match api
                .delete(slice.metadata.name.as_deref().unwrap_or_default(), &options)
                .await
            {
                Err(status) if !status.is_not_found() => return Err(status),
                _ => {}
            }
        }
        Ok(())
    }

    fn zone(&self, node: &str) -> Option<String> {
        let node = self.nodes.get("", node)?;
        node.metadata
            .labels
            .as_ref()?
            .get("topology.kubernetes.io/zone")
            .cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service() -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "s"},
            "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.9",
                "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}
        }))
        .unwrap()
    }

    fn pod(number: usize, ready: bool, leaving: bool) -> Arc<Pod> {
        let status = if ready { "True" } else { "False" };
        let mut tree = json!({
            "metadata": {"name": format!("web-{number}"), "namespace": "default",
                "uid": format!("p{number}"), "labels": {"app": "web"}},
            "spec": {"nodeName": "n", "containers": [{"name": "c",
                "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIP": format!("10.244.0.{number}"),
                "conditions": [{"type": "Ready", "status": status}]}
        });
        if leaving {
            tree["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        Arc::new(serde_json::from_value(tree).unwrap())
    }

    fn stored(mut slice: EndpointSlice, uid: &str) -> Arc<EndpointSlice> {
        slice.metadata.uid = Some(uid.into());
        Arc::new(slice)
    }

    #[test]
    fn named_ports_resolve_and_conditions_follow_the_pod() {
        let pods = [
            pod(1, true, false),
            pod(2, false, false),
            pod(3, true, true),
        ];
        let plan = plan(&service(), &pods, &[], |_| None);
        assert_eq!(
            (plan.create.len(), plan.replace.len(), plan.delete.len()),
            (1, 0, 0)
        );
        let slice = &plan.create[0];
        assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(8080));
        let ready: Vec<_> = slice
            .endpoints
            .iter()
            .flatten()
            .map(|e| e.conditions.as_ref().unwrap().ready.unwrap())
            .collect();
        assert_eq!(ready, [true, false, false]);
        let leaving = slice.endpoints.as_ref().unwrap()[2]
            .conditions
            .as_ref()
            .unwrap();
        assert_eq!(
            (leaving.serving, leaving.terminating),
            (Some(true), Some(true))
        );
    }

    #[test]
    fn a_change_touches_only_its_slice() {
        let pods: Vec<_> = (1..=150).map(|number| pod(number, true, false)).collect();
        let first = plan(&service(), &pods, &[], |_| None);
        let sizes: Vec<_> = first.create.iter().map(size).collect();
        assert_eq!(sizes, [100, 50]);
        let slices: Vec<_> = first
            .create
            .into_iter()
            .enumerate()
            .map(|(n, s)| stored(s, &n.to_string()))
            .collect();
        let same = plan(&service(), &pods, &slices, |_| None);
        assert!(same.create.is_empty() && same.replace.is_empty() && same.delete.is_empty());
        let fewer = plan(&service(), &pods[1..], &slices, |_| None);
        assert_eq!(
            (fewer.create.len(), fewer.replace.len(), fewer.delete.len()),
            (0, 1, 0)
        );
    }

    #[test]
    fn without_pods_one_empty_slice_remains() {
        let first = plan(&service(), &[pod(1, true, false)], &[], |_| None);
        let slices = [stored(first.create[0].clone(), "a")];
        let none = plan(&service(), &[], &slices, |_| None);
        assert_eq!(none.create.len() + none.replace.len(), 1);
        assert!(
            none.create
                .iter()
                .chain(&none.replace)
                .all(|slice| size(slice) == 0)
        );
    }
}
