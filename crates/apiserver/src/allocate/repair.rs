//! Makes Services and IPAddresses agree where they do not: Services from before there were
//! IPAddresses, and IPAddresses that somebody changed or deleted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base::Stop;
use client::Client;
use http::Method;
use meta::Status;
use serde_json::{Value, json};

use super::claims;
use crate::registry::Resource;
use crate::server::Core;

/// How long after a failure it is tried anew.
const RETRY: Duration = Duration::from_secs(10);

/// What has to be done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Addresses without an IPAddress, and the Services that have them.
    missing: Vec<(IpAddr, String)>,
    /// IPAddresses that do not say who has the address: names and uids.
    wrong: Vec<(String, String)>,
}

/// Runs until the server stops.
pub(crate) async fn run(core: Arc<Core>, client: Client, stop: Stop) {
    let doubt = Arc::clone(&core.allocations.doubt);
    loop {
        core.feed.fresh().await;
        let failed = match repair(&core, &client).await {
            Ok(()) => false,
            Err(error) => {
                tracing::warn!(%error, "addresses of services cannot be repaired");
                true
            }
        };
        tokio::select! {
            () = doubt.notified() => {}
            () = tokio::time::sleep(RETRY), if failed => {}
            () = stop.raised() => return,
        }
    }
}

async fn repair(core: &Core, client: &Client) -> Result<(), Status> {
    let resources = core.registry.now();
    let Some(own) = resources.by_name(claims::RESOURCE) else {
        return Ok(());
    };
    let own = Arc::clone(own);
    drop(resources);
    let plan = plan(core, &own)?;
    let path = |name: Option<&str>| own.row.names.path(None, name);
    for (name, uid) in plan.wrong {
        tracing::info!(
            address = name,
            "IPAddress has a wrong reference; cleaning up"
        );
        let options = json!({"preconditions": {"uid": uid}});
        let gone = client.delete_value(&path(Some(&name)), Some(options)).await;
        if let Err(status) = gone
            && !status.is_not_found()
            && !status.is_conflict()
        {
            return Err(status);
        }
    }
    for (address, service) in plan.missing {
        tracing::info!(%address, service, "cluster address is not allocated; repairing");
        let tree = claims::tree(&address, &service);
        let made = client.send_value(Method::POST, &path(None), &tree).await;
        if let Err(status) = made
            && !status.is_already_exists()
        {
            return Err(status);
        }
    }
    Ok(())
}

fn plan(core: &Core, own: &Resource) -> Result<Plan, Status> {
    let snapshot = own.cache()?.snapshot(0);
    let entries: Vec<Value> = snapshot
        .map
        .range("")
        .map(|entry| entry.decode().0)
        .collect();
    let taken = core.allocations.taken.lock();
    let owners = taken.addresses.owners();
    Ok(compare(owners, &entries))
}

/// Pure.
fn compare<'a>(owners: impl Iterator<Item = (&'a IpAddr, &'a str)>, addresses: &[Value]) -> Plan {
    let mut owners: std::collections::BTreeMap<IpAddr, &str> =
        owners.map(|(address, key)| (*address, key)).collect();
    let mut plan = Plan::default();
    for one in addresses {
        let text = |field: &str| one["metadata"][field].as_str().unwrap_or("").to_owned();
        let Ok(address) = text("name").parse::<IpAddr>() else {
            continue;
        };
        match owners.remove(&address) {
            Some(key) if claims::parent(one).as_deref() == Some(key) && claims::is_ours(one) => {}
            None if !claims::is_ours(one) => {}
            _ => plan.wrong.push((text("name"), text("uid"))),
        }
    }
    let missing = owners.into_iter();
    plan.missing = missing
        .map(|(address, key)| (address, key.to_owned()))
        .collect();
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_addresses_are_brought_together() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let one = |name: &str, service: &str| {
            let mut tree = claims::tree(&address(name), service);
            tree["metadata"]["uid"] = format!("u-{name}").into();
            tree
        };
        let mut foreign = one("10.0.0.9", "a/x");
        foreign["metadata"]["labels"] = json!({});
        let mut stripped = one("10.0.0.3", "a/c");
        stripped["metadata"]["labels"] = json!({});
        let kept = [
            (address("10.0.0.1"), "a/a"),
            (address("10.0.0.2"), "a/b"),
            (address("10.0.0.3"), "a/c"),
            (address("10.0.0.4"), "a/d"),
        ];
        let addresses = [
            one("10.0.0.1", "a/a"),
            one("10.0.0.2", "a/other"),
            stripped,
            one("10.0.0.5", "a/gone"),
            foreign,
        ];
        let owners = kept.iter().map(|(address, key)| (address, *key));
        let plan = compare(owners, &addresses);
        assert_eq!(plan.missing, [(address("10.0.0.4"), "a/d".to_owned())]);
        let wrong: Vec<_> = plan.wrong.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(wrong, ["10.0.0.2", "10.0.0.3", "10.0.0.5"]);
        assert_eq!(plan.wrong[0].1, "u-10.0.0.2");
    }
}
