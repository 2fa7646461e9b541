//! IPAddresses: they say which Service has which address, and come and go in the same
//! transaction as what the Service says.

use std::net::IpAddr;

use meta::{Faults, Names, Object, Status};
use serde_json::{Value, json};

use super::{Allocations, Charge, is_service, service};
use crate::cache::{Entry, Observer, encode};
use crate::keep::Beside;
use crate::registry::Resource;
use crate::server::Core;

/// The resource of IPAddresses.
pub(crate) const RESOURCE: &str = "ipaddresses.networking.k8s.io";
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGER: &str = "ipallocator.k8s.io";
const FIELD_MANAGER: &str = "kube-apiserver";

/// What is written beside a Service that is created or changed: IPAddresses of what it got, and
/// the end of those it no longer has.
pub(crate) fn beside_write(
    core: &Core,
    key: &str,
    charge: &Charge,
    (new, old): (&Value, Option<&Value>),
    resource: &Resource,
) -> Result<Beside, Status> {
    let mut beside = Beside::default();
    if !is_service(resource) {
        return Ok(beside);
    }
    if let Some(old) = old {
        let kept = service::addresses(new);
        let lost = service::addresses(old);
        let lost = lost.into_iter().filter(|own| !kept.contains(own));
        release(core, key, lost, &mut beside);
    }
    let resources = core.registry.now();
    let Some(own) = resources.by_name(RESOURCE) else {
        return Ok(beside);
    };
    let cache = own.cache()?;
    for address in &charge.addresses {
        let tree = claim(own, address, key);
        let at = cache.storage_key(&address.to_string());
        let value = cache.seal(&at, encode(&tree).into());
        beside.put(at, value.map_err(Status::internal)?);
    }
    Ok(beside)
}

/// What a new Service is told whose address was claimed in the very same moment.
pub(crate) fn lost(name: &str, service: &Value) -> Status {
    let given = service.pointer("/spec/clusterIPs").cloned();
    let own = service::addresses(service);
    let first = own.first().map(ToString::to_string).unwrap_or_default();
    let rule = format!("failed to allocate IP {first}: provided IP is already allocated");
    let mut faults = Faults::new();
    faults.invalid("spec.clusterIPs", given.unwrap_or_default(), rule);
    let names = Names::namespaced("", "v1", "Service", "services");
    Status::invalid(&names, name, &faults)
}

/// What goes with a Service.
pub(crate) fn beside_removal(core: &Core, resource: &Resource, key: &str, old: &Value) -> Beside {
    let mut beside = Beside::default();
    if is_service(resource) {
        release(core, key, service::addresses(old), &mut beside);
    }
    beside
}

fn release(
    core: &Core,
    key: &str,
    addresses: impl IntoIterator<Item = IpAddr>,
    beside: &mut Beside,
) {
    let resources = core.registry.now();
    let own = resources.by_name(RESOURCE);
    let Some(cache) = own.and_then(|own| own.cache.as_ref()) else {
        return;
    };
    for address in addresses {
        let name = address.to_string();
        if cache
            .get(&name)
            .is_some_and(|entry| is_of(&entry.decode(), key))
        {
            beside.remove(cache.storage_key(&name));
        }
    }
}

/// Whether an IPAddress is ours, speaks of this Service, and is held by nobody.
fn is_of(address: &Object, key: &str) -> bool {
    let held = address.0.pointer("/metadata/finalizers");
    let held = held.and_then(Value::as_array);
    let held = held.is_some_and(|list| !list.is_empty());
    !held && is_ours(&address.0) && parent(&address.0).as_deref() == Some(key)
}

/// The key of the Service that an IPAddress speaks of.
pub(crate) fn parent(address: &Value) -> Option<String> {
    let parent = address.pointer("/spec/parentRef")?;
    let text = |field: &str| parent.get(field).and_then(Value::as_str).unwrap_or("");
    let service = text("group").is_empty() && text("resource") == "services";
    service.then(|| format!("{}/{}", text("namespace"), text("name")))
}

/// Whether an IPAddress is kept by this server.
pub(crate) fn is_ours(address: &Value) -> bool {
    let labels = address.pointer("/metadata/labels");
    let manager = labels.and_then(|labels| labels.get(MANAGED_BY));
    manager.is_some_and(|manager| manager == MANAGER)
}

/// The IPAddress of what a Service has.
pub(crate) fn tree(address: &IpAddr, key: &str) -> Value {
    let (namespace, name) = key.split_once('/').unwrap_or(("", key));
    let family = match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    };
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {
            "name": address.to_string(),
            "labels": {FAMILY: family, MANAGED_BY: MANAGER},
        },
        "spec": {"parentRef": {
            "resource": "services", "namespace": namespace, "name": name,
        }},
    })
}

/// The same as it is stored.
fn claim(resource: &Resource, address: &IpAddr, key: &str) -> Value {
    let now = meta::time::now();
    let mut tree = tree(address, key);
    let metadata = meta::object::map_at(&mut tree, "metadata");
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), now.clone().into());
    if let Some(ty) = &resource.ty {
        let options = schema::UpdateOptions {
            manager: FIELD_MANAGER,
            api_version: &resource.row.names.api_version(),
            subresource: "",
            now: &now,
            reset: &[],
        };
        schema::update_managed_fields(ty.get(), None, &mut tree, options);
    }
    tree
}

/// Follows IPAddresses: each is taken, whoever made it. Where one contradicts the Services, it is
/// looked into.
pub(crate) struct Follower(pub(crate) Allocations);

impl Observer for Follower {
    fn set(&self, entry: &Entry, _: Option<&meta::Object>) {
        let Ok(address) = entry.name().parse() else {
            return;
        };
        let object = entry.decode().0;
        let mut taken = self.0.taken.lock();
        taken.claims.set(&entry.key, vec![address]);
        let agreed = match taken.addresses.owner(&address) {
            Some(owner) => is_ours(&object) && parent(&object).as_deref() == Some(owner),
            None => !is_ours(&object),
        };
        drop(taken);
        if !agreed {
            self.0.doubt.notify_one();
        }
    }

    fn remove(&self, entry: &Entry) {
        let mut taken = self.0.taken.lock();
        taken.claims.set(&entry.key, Vec::new());
        let address = entry.name().parse().ok();
        let needed = address.is_some_and(|address| taken.addresses.owner(&address).is_some());
        drop(taken);
        if needed {
            self.0.doubt.notify_one();
        }
    }
}
