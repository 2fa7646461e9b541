//! What there is to be known of services and their endpoints.

use std::net::IpAddr;
use std::sync::Arc;

use client::{Hub, Informer, Key};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// The service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const BY_ADDRESS: &str = "dns/address";
const BY_SERVICE: &str = "dns/service";

/// Lookups that answers are made from.
pub trait Records {
    fn namespace_exists(&self, name: &str) -> bool;
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    /// The slices of a service.
    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>>;
    /// Services that have this cluster address.
    fn services_at(&self, address: IpAddr) -> Vec<Arc<Service>>;
    /// Slices in which this address is an endpoint.
    fn slices_at(&self, address: IpAddr) -> Vec<Arc<EndpointSlice>>;
}

/// The records in the caches of this process.
#[derive(Clone)]
pub struct Cached {
    namespaces: Informer<Namespace>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
}

impl Cached {
    /// Records of a hub's caches, which start to fill now.
    pub fn new(hub: &Hub) -> Cached {
        let services = hub.informer::<Service>();
        let slices = hub.informer::<EndpointSlice>();
        services.add_index(BY_ADDRESS, service_addresses);
        slices.add_index(BY_ADDRESS, slice_addresses);
        slices.add_index(BY_SERVICE, |slice| {
            let key = service_of(slice).map(|key| key.to_string());
            key.into_iter().collect()
        });
        Cached {
            namespaces: hub.informer::<Namespace>(),
            services,
            slices,
        }
    }

    /// Waits until the caches are filled.
    pub async fn synced(&self) {
        self.namespaces.synced().await;
        self.services.synced().await;
        self.slices.synced().await;
    }
}

impl Records for Cached {
    fn namespace_exists(&self, name: &str) -> bool {
        self.namespaces.get("", name).is_some()
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.get(namespace, name)
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let key = Key::new(namespace, service).to_string();
        self.slices.by_index(BY_SERVICE, &key)
    }

    fn services_at(&self, address: IpAddr) -> Vec<Arc<Service>> {
        self.services.by_index(BY_ADDRESS, &address.to_string())
    }

    fn slices_at(&self, address: IpAddr) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(BY_ADDRESS, &address.to_string())
    }
}

/// The service a slice belongs to.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    Some(Key::new(namespace, name))
}

/// Cluster addresses of a service; none when it is headless.
pub(crate) fn cluster_addresses(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let all = spec.cluster_ips.iter().flatten();
    let mut addresses: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
    if addresses.is_empty() {
        let one = spec.cluster_ip.as_deref();
        addresses.extend(one.and_then(|ip| ip.parse::<IpAddr>().ok()));
    }
    addresses
}

fn service_addresses(service: &Service) -> Vec<String> {
    let addresses = cluster_addresses(service).into_iter();
    addresses.map(|address| address.to_string()).collect()
}

fn slice_addresses(slice: &EndpointSlice) -> Vec<String> {
    let endpoints = slice.endpoints.iter().flatten();
    let addresses = endpoints.flat_map(|endpoint| &endpoint.addresses);
    let parsed = addresses.filter_map(|text| text.parse::<IpAddr>().ok());
    parsed.map(|address| address.to_string()).collect()
}
