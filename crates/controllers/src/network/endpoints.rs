//! Endpoints: the older form of what EndpointSlices say, kept for those who read it.

use std::sync::Arc;

use client::{Client, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::Status;
use reconcile::{Outcome, Reconcile, feed};

use super::endpointslice::affected;
use super::service_pods::{self as behind, address, target_port};
use crate::context::Context;
use crate::pods;

const NAME: &str = "endpoint-controller";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
const MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
/// More addresses are cut off, as upstream does.
const ADDRESSES_MAX: usize = 1000;
const WORKERS: usize = 5;

/// The subsets of a service's endpoints. Pure.
pub fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let mut subsets: Vec<EndpointSubset> = Vec::new();
    let service_ports = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.clone())
        .unwrap_or_default();
    let public = behind::publishes_not_ready(service);
    for pod in pods.iter().take(ADDRESSES_MAX) {
        if pod.metadata.deletion_timestamp.is_some() && !public {
            continue;
        }
        let mut ports = Vec::new();
        for port in &service_ports {
            if let Some(number) = target_port(port, pod) {
                ports.push(EndpointPort {
                    name: port.name.clone(),
                    port: number,
                    protocol: port.protocol.clone(),
                    app_protocol: port.app_protocol.clone(),
                });
            }
        }
        if ports.is_empty() && !service_ports.is_empty() {
            continue;
        }
        let ports = Some(ports).filter(|ports| !ports.is_empty());
        let at = subsets
            .iter()
            .position(|subset| subset.ports == ports)
            .unwrap_or_else(|| {
                subsets.push(EndpointSubset {
                    ports,
                    ..EndpointSubset::default()
                });
                subsets.len() - 1
            });
        let address = EndpointAddress {
            ip: address(pod).unwrap_or_default().to_owned(),
            hostname: behind::hostname(pod, service),
            node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".into()),
                namespace: pod.metadata.namespace.clone(),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
                ..ObjectReference::default()
            }),
        };
        let subset = &mut subsets[at];
        let list = match public || pods::is_ready(pod) {
            true => &mut subset.addresses,
            false => &mut subset.not_ready_addresses,
        };
        list.get_or_insert_default().push(address);
    }
    for subset in &mut subsets {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses]
            .into_iter()
            .flatten()
        {
            list.sort_by(|one, other| one.ip.cmp(&other.ip));
        }
    }
    subsets
}

struct Controller {
    client: Client,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let controller = Controller {
        client: context.client(NAME),
        services: context.hub.informer(),
        pods: context.hub.informer(),
        endpoints: context.hub.informer(),
    };
    feed(
        NAME,
        &controller.services,
        &queue,
        &context.crew,
        |change| vec![change.key.clone()],
    );
    feed(
        NAME,
        &controller.endpoints,
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
    let (one, two, three) = (
        controller.services.clone(),
        controller.pods.clone(),
        controller.endpoints.clone(),
    );
    let synced = async move {
        one.synced().await;
        two.synced().await;
        three.synced().await;
    };
    context.drive(Arc::new(controller), &queue, WORKERS, synced);
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let api = self.client.namespaced::<Endpoints>(&key.namespace);
            let known = self.endpoints.get_key(key);
            let Some(service) = self.services.get_key(key) else {
                // Endpoints go with their service, unless somebody else keeps them.
                if known.is_some_and(|known| is_managed(&known)) {
                    match api
                        .delete(&key.name, &client::DeleteOptions::default())
                        .await
                    {
                        Err(status) if !status.is_not_found() => return Err(status),
                        _ => {}
                    }
                }
                return Ok(Outcome::Done);
            };
            let Some(selector) = behind::selector(&service) else {
                return Ok(Outcome::Done);
            };
            let pods = behind::behind(&selector, &self.pods.list_in(&key.namespace));
            let wanted = object(&service, subsets(&service, &pods));
            match known {
                None => self.endpoints.absorb(api.create(&wanted).await?),
                Some(known) if same(&known, &wanted) => {}
                Some(known) => {
                    let mut next = known.as_ref().clone();
                    next.subsets = wanted.subsets;
                    next.metadata.labels = wanted.metadata.labels;
                    self.endpoints.absorb(api.replace(&next).await?);
                }
            }
            Ok(Outcome::Done)
        })
    }
}

fn is_managed(endpoints: &Endpoints) -> bool {
    endpoints
        .metadata
        .labels
        .as_ref()
        .is_some_and(|labels| labels.contains_key(MANAGED_BY_LABEL))
}

fn same(known: &Endpoints, wanted: &Endpoints) -> bool {
    let subsets = |one: &Endpoints| one.subsets.clone().unwrap_or_default();
    subsets(known) == subsets(wanted) && known.metadata.labels == wanted.metadata.labels
}

fn object(service: &Service, subsets: Vec<EndpointSubset>) -> Endpoints {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY_LABEL.into(), NAME.into());
    if service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.as_deref())
        == Some("None")
    {
        labels.insert(HEADLESS_LABEL.into(), String::new());
    }
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        subsets: Some(subsets).filter(|subsets| !subsets.is_empty()),
    }
}
