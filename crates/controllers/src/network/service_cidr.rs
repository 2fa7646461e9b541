//! ServiceCIDRs: says that they are ready, and lets a deleted one go only when no address that
//! is in use would be left outside all others.

use std::sync::Arc;
use std::time::Duration;

use client::{Client, Informer, Key, Patch, WriteOptions};
use futures::future::BoxFuture;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::jiff::Timestamp;
use meta::Status;
use reconcile::{Outcome, Reconcile, Recorder, feed};
use serde_json::{Value, json};

use super::prefix::Prefix;
use crate::context::Context;

const NAME: &str = "service-cidr-controller";
const ACCOUNT: &str = "service-cidrs-controller";
const WORKERS: usize = 5;
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const READY: &str = "Ready";
const TERMINATING: &str = "Terminating";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";
/// API servers may still give away addresses of a range for so long after its deletion.
const GRACE: Duration = Duration::from_secs(10);
const BLOCKED: &str = "There are still IPAddresses referencing the ServiceCIDR, please remove \
    them or create a new ServiceCIDR";

#[derive(Clone)]
struct Controller {
    client: Client,
    recorder: Recorder,
    ranges: Informer<ServiceCIDR>,
    addresses: Informer<IPAddress>,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let controller = Controller {
        client: context.client(ACCOUNT),
        recorder: context.recorder(ACCOUNT),
        ranges: context.hub.informer(),
        addresses: context.hub.informer(),
    };
    let ranges = controller.ranges.clone();
    feed(NAME, &controller.ranges, &queue, &context.crew, {
        let ranges = ranges.clone();
        move |change| {
            let mut keys = vec![change.key.clone()];
            // One that comes or goes may free others to go, or keep them.
            let about = match (&change.old, &change.new) {
                (None, Some(one)) | (Some(one), None) => prefixes(one),
                _ => Vec::new(),
            };
            let near = |other: &Arc<ServiceCIDR>| {
                let mut own = prefixes(other).into_iter();
                own.any(|own| about.iter().any(|one| one.overlaps(&own)))
            };
            let all = ranges.list();
            keys.extend(
                all.iter()
                    .filter(|one| near(one))
                    .map(|one| Key::of(one.as_ref())),
            );
            keys
        }
    });
    feed(NAME, &controller.addresses, &queue, &context.crew, {
        move |change| {
            let one = change.new.as_ref().or(change.old.as_ref());
            let moved = change.new.is_none() || change.old.is_none();
            let Some(address) = one.filter(|_| moved).and_then(|one| allocated(one)) else {
                return Vec::new();
            };
            let all = ranges.list();
            let holding = all.iter().filter(|range| {
                let mut own = prefixes(range).into_iter();
                own.any(|own| own.holds(address))
            });
            holding.map(|range| Key::of(range.as_ref())).collect()
        }
    });
    let (one, two) = (controller.ranges.clone(), controller.addresses.clone());
    context.drive(Arc::new(controller), &queue, WORKERS, async move {
        one.synced().await;
        two.synced().await;
    });
}

fn prefixes(range: &ServiceCIDR) -> Vec<Prefix> {
    let texts = range.spec.as_ref().and_then(|spec| spec.cidrs.as_deref());
    let texts = texts.unwrap_or_default().iter();
    texts.filter_map(|text| Prefix::parse(text)).collect()
}

/// The address that an IPAddress stands for, if an API server gave it to a service.
fn allocated(address: &IPAddress) -> Option<std::net::IpAddr> {
    let labels = address.metadata.labels.as_ref()?;
    let ours = labels.get(MANAGED_BY).is_some_and(|own| own == ALLOCATOR);
    address
        .metadata
        .name
        .as_ref()
        .filter(|_| ours)?
        .parse()
        .ok()
}

/// What a range needs now.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// It is in use: it has the finalizer and is ready.
    Use,
    /// It is deleted, but addresses of it are in use.
    Blocked,
    /// It may go after this time.
    Release(Duration),
}

/// Pure.
fn plan(
    range: &ServiceCIDR,
    all: &[Arc<ServiceCIDR>],
    addresses: &[Arc<IPAddress>],
    now: Timestamp,
) -> Plan {
    let Some(deleted) = &range.metadata.deletion_timestamp else {
        return Plan::Use;
    };
    let others = || {
        all.iter()
            .filter(|one| one.metadata.name != range.metadata.name)
    };
    let own = prefixes(range);
    let covered = own
        .iter()
        .all(|own| others().any(|other| prefixes(other).iter().any(|other| other.covers(own))));
    let needed = |address: &Arc<IPAddress>| {
        allocated(address).is_some_and(|address| {
            let mut others = others().flat_map(|other| prefixes(other));
            own.iter().any(|own| own.holds(address)) && !others.any(|other| other.holds(address))
        })
    };
    if !covered && addresses.iter().any(needed) {
        return Plan::Blocked;
    }
    let gone = now.duration_since(deleted.0).unsigned_abs();
    Plan::Release(GRACE.saturating_sub(gone))
}

fn finalizers(range: &ServiceCIDR) -> &[String] {
    range.metadata.finalizers.as_deref().unwrap_or_default()
}

/// The condition as it should be, unless it is.
fn condition(range: &ServiceCIDR, ready: bool) -> Option<Value> {
    let (status, reason, message) = match ready {
        true => ("True", "", "Kubernetes Service CIDR is ready"),
        false => ("False", TERMINATING, BLOCKED),
    };
    let known = range
        .status
        .as_ref()
        .and_then(|own| own.conditions.as_deref());
    let mut known = known.unwrap_or_default().iter();
    let same = known.any(|own| {
        own.type_ == READY && own.status == status && own.reason == reason && own.message == message
    });
    (!same).then(|| {
        json!({
            "type": READY, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": meta::time::now(),
        })
    })
}

impl Controller {
    async fn finalize(&self, range: &ServiceCIDR) -> Result<(), Status> {
        if finalizers(range).iter().any(|own| own == FINALIZER) {
            return Ok(());
        }
        let body = json!({"metadata": {"finalizers": [FINALIZER]}});
        self.patch(range, body).await
    }

    async fn release(&self, range: &ServiceCIDR) -> Result<(), Status> {
        if !finalizers(range).iter().any(|own| own == FINALIZER) {
            return Ok(());
        }
        let body = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
        self.patch(range, body).await
    }

    async fn patch(&self, range: &ServiceCIDR, body: Value) -> Result<(), Status> {
        let name = range.metadata.name.as_deref().unwrap_or_default();
        let api = self.client.all::<ServiceCIDR>();
        let patch = Patch::Strategic(body);
        match api.patch(name, &patch, &WriteOptions::default()).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }

    async fn say(&self, range: &ServiceCIDR, ready: bool) -> Result<(), Status> {
        let Some(condition) = condition(range, ready) else {
            return Ok(());
        };
        let name = range.metadata.name.as_deref().unwrap_or_default();
        let body = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": name}, "status": {"conditions": [condition]},
        });
        let options = WriteOptions {
            field_manager: Some(NAME.into()),
            force: true,
            ..WriteOptions::default()
        };
        let api = self.client.all::<ServiceCIDR>();
        let written = api.patch_status(name, &Patch::Apply(body), &options).await;
        if written.is_err() && ready {
            let message = "The ServiceCIDR Status can not be set to Ready=True";
            self.recorder
                .warning(range, "KubernetesServiceCIDRError", message);
        }
        self.ranges.absorb(written?);
        Ok(())
    }
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(range) = self.ranges.get_key(key) else {
                return Ok(Outcome::Done);
            };
            let (all, addresses) = (self.ranges.list(), self.addresses.list());
            match plan(&range, &all, &addresses, Timestamp::now()) {
                Plan::Use => {
                    self.finalize(&range).await?;
                    self.say(&range, true).await?;
                }
                Plan::Blocked => self.say(&range, false).await?,
                Plan::Release(Duration::ZERO) => self.release(&range).await?,
                Plan::Release(left) => return Ok(Outcome::After(left)),
            }
            Ok(Outcome::Done)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELETED: &str = "2026-01-01T00:00:00Z";

    fn range(name: &str, cidr: &str, deleted: bool) -> Arc<ServiceCIDR> {
        let mut tree = json!({"metadata": {"name": name}, "spec": {"cidrs": [cidr]}});
        if deleted {
            tree["metadata"]["deletionTimestamp"] = DELETED.into();
        }
        Arc::new(serde_json::from_value(tree).unwrap())
    }

    fn address(name: &str, manager: &str) -> Arc<IPAddress> {
        let tree = json!({"metadata": {"name": name, "labels": {MANAGED_BY: manager}},
            "spec": {"parentRef": {"resource": "services", "name": "x"}}});
        Arc::new(serde_json::from_value(tree).unwrap())
    }

    #[test]
    fn a_range_stays_while_addresses_need_it() {
        let check = |others: &[(&str, bool)], used: &[Arc<IPAddress>], expected: Plan| {
            let own = range("own", "10.1.0.0/24", true);
            let mut all = vec![Arc::clone(&own)];
            all.extend(
                others
                    .iter()
                    .map(|(cidr, deleted)| range(cidr, cidr, *deleted)),
            );
            let now = "2026-01-01T00:00:04Z".parse().unwrap();
            assert_eq!(plan(&own, &all, used, now), expected);
        };
        let free = || Plan::Release(Duration::from_secs(6));
        let used = [address("10.1.0.7", ALLOCATOR)];
        check(&[], &[], free());
        check(&[], &used, Plan::Blocked);
        check(&[], &[address("10.1.0.7", "somebody")], free());
        check(&[], &[address("10.2.0.7", ALLOCATOR)], free());
        check(&[("10.1.0.0/16", false)], &used, free());
        check(&[("10.1.0.0/28", false)], &used, free());
        check(&[("10.1.0.128/28", false)], &used, Plan::Blocked);
        let lasting = range("a", "10.1.0.0/24", false);
        assert_eq!(plan(&lasting, &[], &used, Timestamp::now()), Plan::Use);
    }

    #[test]
    fn conditions_are_written_once() {
        let fresh = range("a", "10.1.0.0/24", false);
        let said = condition(&fresh, true).unwrap();
        let mut known = fresh.as_ref().clone();
        known.status = serde_json::from_value(json!({"conditions": [said]})).unwrap();
        assert_eq!(condition(&known, true), None);
        assert_eq!(condition(&known, false).unwrap()["reason"], TERMINATING);
    }
}
