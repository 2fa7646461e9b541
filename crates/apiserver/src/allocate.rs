//! Addresses and ports of Services: who has which, and what a new one gets.
//!
//! What is taken is read off the caches of Services and IPAddresses; a write in flight holds a
//! reservation until they have seen it, so that no two Services ever get the same.

pub(crate) mod addresses;
pub(crate) mod claims;
pub(crate) mod pool;
pub(crate) mod ranges;
pub(crate) mod repair;
pub(crate) mod service;

use std::net::IpAddr;
use std::sync::Arc;

use meta::Status;
use parking_lot::Mutex;
use serde_json::Value;

use crate::cache::{Entry, Observer};
use crate::registry::Resource;
use addresses::Cidr;
use pool::Pool;
use ranges::Ranges;

/// Why allocations cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an IPv4 range of addresses")]
pub(crate) struct RangeError(pub(crate) String);

/// All addresses and ports that Services have.
#[derive(Clone)]
pub(crate) struct Allocations {
    /// The configured range, which is the one of the ServiceCIDR `kubernetes`.
    pub(crate) range: Cidr,
    pub(crate) ports: std::ops::RangeInclusive<u16>,
    pub(crate) taken: Arc<Mutex<Taken>>,
    /// Told where IPAddresses and Services contradict each other.
    pub(crate) doubt: Arc<tokio::sync::Notify>,
}

/// What is taken, and by which Service.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) addresses: Pool<IpAddr>,
    /// What IPAddresses stand for, whoever made them.
    pub(crate) claims: Pool<IpAddr>,
    pub(crate) ranges: Ranges,
    pub(crate) ports: Pool<(u16, String)>,
}

impl Taken {
    /// Whether anybody has an address.
    pub(crate) fn has(&self, address: &IpAddr) -> bool {
        self.addresses.is_taken(address) || self.claims.is_taken(address)
    }
}

/// What a write in flight holds; let go when dropped, which is after the caches have seen it.
pub(crate) struct Charge {
    taken: Option<Arc<Mutex<Taken>>>,
    addresses: Vec<IpAddr>,
    ports: Vec<(u16, String)>,
}

impl Charge {
    /// For writes that need nothing.
    pub(crate) fn nothing() -> Charge {
        Charge {
            taken: None,
            addresses: Vec::new(),
            ports: Vec::new(),
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(taken) = &self.taken {
            let mut taken = taken.lock();
            self.addresses
                .drain(..)
                .for_each(|own| taken.addresses.release(&own));
            self.ports
                .drain(..)
                .for_each(|own| taken.ports.release(&own));
        }
    }
}

impl Allocations {
    /// Nothing is taken but the network and broadcast addresses.
    pub(crate) fn new(
        range: &str,
        ports: std::ops::RangeInclusive<u16>,
    ) -> Result<Allocations, RangeError> {
        Ok(Allocations {
            range: Cidr::parse(range).ok_or_else(|| RangeError(range.to_owned()))?,
            ports,
            taken: Arc::default(),
            doubt: Arc::default(),
        })
    }

    /// Who follows the objects of a resource.
    pub(crate) fn observer(&self, group_resource: &str) -> Option<Arc<dyn Observer>> {
        match group_resource {
            "services" => Some(Arc::new(self.clone())),
            "ipaddresses.networking.k8s.io" => Some(Arc::new(claims::Follower(self.clone()))),
            "servicecidrs.networking.k8s.io" => Some(Arc::new(ranges::Follower(self.clone()))),
            _ => None,
        }
    }

    /// Gives a new Service what it needs.
    pub(crate) fn create(
        &self,
        resource: &Resource,
        key: &str,
        object: &mut Value,
        dry_run: bool,
    ) -> Result<Charge, Status> {
        match is_service(resource) {
            true => service::allocate(self, key, object, None, dry_run),
            false => Ok(Charge::nothing()),
        }
    }

    /// Gives a changed Service what it needs now.
    pub(crate) fn update(
        &self,
        resource: &Resource,
        key: &str,
        object: &mut Value,
        old: &Value,
        dry_run: bool,
    ) -> Result<Charge, Status> {
        match is_service(resource) {
            true => service::allocate(self, key, object, Some(old), dry_run),
            false => Ok(Charge::nothing()),
        }
    }
}

fn is_service(resource: &Resource) -> bool {
    let names = &resource.row.names;
    names.group.is_empty() && names.plural == "services"
}

impl Observer for Allocations {
    fn set(&self, entry: &Entry, _: Option<&meta::Object>) {
        let object = entry.decode().0;
        let mut taken = self.taken.lock();
        taken.addresses.set(&entry.key, service::addresses(&object));
        taken.ports.set(&entry.key, service::node_ports(&object));
    }

    fn remove(&self, entry: &Entry) {
        let mut taken = self.taken.lock();
        taken.addresses.set(&entry.key, Vec::new());
        taken.ports.set(&entry.key, Vec::new());
    }
}
