//! `/networks`.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Network;
use crate::answer::{self, Answer, Fault};
use crate::call::{Call, Filters};
use crate::daemon::Daemon;
use crate::record::moment;
use crate::wire::{Endpoint, Labels};

/// Body of `POST /networks/create`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CreateRequest {
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) internal: bool,
    pub(crate) attachable: bool,
    #[serde(rename = "EnableIPv4")]
    pub(crate) enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    pub(crate) enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    pub(crate) ipam: Value,
    pub(crate) options: Option<Labels>,
    pub(crate) labels: Option<Labels>,
}

/// Body of connect and disconnect.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Membership {
    container: String,
    endpoint_config: Endpoint,
    force: bool,
}

fn event(daemon: &Daemon, network: &Network, action: &str, container: Option<&str>) {
    let mut attributes = BTreeMap::from([
        ("name".to_owned(), network.name.clone()),
        ("type".to_owned(), network.driver.clone()),
    ]);
    if let Some(container) = container {
        attributes.insert("container".to_owned(), container.to_owned());
    }
    daemon
        .events
        .tell("network", action, &network.id, attributes);
}

/// Ids of the containers that have the network, whether or not they are up.
fn users(daemon: &Daemon, network: &Network) -> Vec<String> {
    let all = daemon.all().into_iter();
    let uses = all.filter(|container| container.record.read().networks.contains_key(&network.name));
    uses.map(|container| container.id.clone()).collect()
}

/// Whether somebody is on it just now.
fn is_active(daemon: &Daemon, network: &Network) -> bool {
    daemon.all().iter().any(|container| {
        let record = container.record.read();
        record.state.attached && record.networks.contains_key(&network.name)
    })
}

fn show(daemon: &Daemon, network: &Network, with_users: bool) -> Value {
    let mut containers = Map::new();
    for container in daemon.all().iter().filter(|_| with_users) {
        let record = container.record.read();
        let Some(endpoint) = record
            .networks
            .get(&network.name)
            .filter(|_| record.state.is_up())
        else {
            continue;
        };
        let with = |address: &str, prefix: u8| match address {
            "" => String::new(),
            address => format!("{address}/{prefix}"),
        };
        let address = with(&endpoint.ip_address, endpoint.ip_prefix_len);
        let prefix6 = endpoint.global_ipv6_prefix_len;
        let address6 = with(&endpoint.global_ipv6_address, prefix6);
        containers.insert(
            record.id.clone(),
            json!({
                "Name": record.name, "EndpointID": endpoint.endpoint_id,
                "MacAddress": endpoint.mac_address, "IPv4Address": address, "IPv6Address": address6,
            }),
        );
    }
    json!({
        "Name": network.name, "Id": network.id, "Created": moment(network.created),
        "Scope": "local", "Driver": network.driver, "EnableIPv4": network.has_ipv4(),
        "EnableIPv6": network.enable_ipv6,
        "IPAM": {"Driver": "default", "Options": null, "Config": pools(network)},
        "Internal": network.internal, "Attachable": network.attachable, "Ingress": false,
        "ConfigFrom": {"Network": ""}, "ConfigOnly": false, "Containers": containers,
        "Options": network.options, "Labels": network.labels,
    })
}

/// Its subnets, as `IPAM.Config` has them.
fn pools(network: &Network) -> Vec<Value> {
    let four = (&network.subnet, &network.ip_range, &network.gateway, false);
    let six = (
        &network.subnet6,
        &network.ip_range6,
        &network.gateway6,
        true,
    );
    let mut shown = Vec::new();
    for (subnet, range, gateway, is_six) in [four, six] {
        if subnet.is_empty() {
            continue;
        }
        let mut pool = json!({ "Subnet": subnet });
        for (name, text) in [("IPRange", range), ("Gateway", gateway)] {
            if !text.is_empty() {
                pool[name] = json!(text);
            }
        }
        let mut aux = network.aux.clone();
        aux.retain(|_, address| address.contains(':') == is_six);
        if !aux.is_empty() {
            pool["AuxiliaryAddresses"] = json!(aux);
        }
        shown.push(pool);
    }
    shown
}

/// `GET /networks`.
pub(crate) async fn list(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.only(&[
        "dangling", "driver", "id", "label", "label!", "name", "scope", "type",
    ])?;
    let daemon = &call.daemon;
    let networks = daemon.networks.all();
    let shown: Vec<Value> = networks
        .iter()
        .filter(|network| fits(daemon, network, &filters))
        .map(|network| show(daemon, network, false))
        .collect();
    answer::ok(&shown)
}

fn fits(daemon: &Daemon, network: &Network, filters: &Filters) -> bool {
    filters.fits("name", |wish| network.name.contains(wish))
        && filters.fits("driver", |wish| network.driver == wish)
        && filters.fits("id", |wish| network.id.starts_with(wish))
        && filters.fits("scope", |wish| wish == "local")
        && filters.fits("type", |wish| (wish == "builtin") == network.is_built_in())
        && filters.fits("dangling", |wish| {
            let unused = !network.is_built_in() && users(daemon, network).is_empty();
            matches!(wish, "1" | "true") == unused
        })
        && filters.labels(&network.labels)
}

/// `GET /networks/{id}`.
pub(crate) async fn inspect(call: Call, wish: &str) -> Answer {
    let network = call.daemon.networks.find(wish)?;
    answer::ok(&show(&call.daemon, &network, true))
}

/// `POST /networks/create`.
pub(crate) async fn create(mut call: Call) -> Answer {
    let wish: CreateRequest = call.body().await?;
    let daemon = &call.daemon;
    if wish.name.trim().is_empty() {
        return Err(Fault::bad("invalid network name: name is empty"));
    }
    let _change = daemon.networks.change.lock().await;
    if daemon.networks.named(&wish.name).is_some() {
        let message = format!("network with name {} already exists", wish.name);
        return Err(Fault::conflict(message));
    }
    let network = daemon.networks.plan(&wish).await?;
    if let Some(segment) = network.segment()?
        && let Err(error) = daemon.networks.links.ensure(&segment).await
    {
        daemon.networks.dismantle(&network).await?;
        return Err(match error {
            network::Error::BadParent(_) => Fault::bad(error.to_string()),
            other => Fault::internal(other),
        });
    }
    daemon.networks.add(network.clone())?;
    daemon.apply_rules()?;
    event(daemon, &network, "create", None);
    Ok(answer::json(
        StatusCode::CREATED,
        &json!({"Id": network.id, "Warning": ""}),
    ))
}

async fn take_away(daemon: &Daemon, network: &Network) -> Result<(), Fault> {
    daemon.networks.forget(&network.id)?;
    daemon.apply_rules()?;
    daemon.networks.dismantle(network).await?;
    event(daemon, network, "destroy", None);
    Ok(())
}

/// `DELETE /networks/{id}`.
pub(crate) async fn remove(call: Call, wish: &str) -> Answer {
    let daemon = &call.daemon;
    let _change = daemon.networks.change.lock().await;
    let network = daemon.networks.find(wish)?;
    let refuse = |message: String| Err(Fault::new(StatusCode::FORBIDDEN, message));
    if network.is_built_in() {
        let name = &network.name;
        return refuse(format!(
            "{name} is a pre-defined network and cannot be removed"
        ));
    }
    if is_active(daemon, &network) {
        return refuse(format!(
            "error while removing network: network {} id {} has active endpoints",
            network.name, network.id
        ));
    }
    take_away(daemon, &network).await?;
    answer::done()
}

/// `POST /networks/prune`.
pub(crate) async fn prune(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.only(&["label", "label!", "until"])?;
    let daemon = &call.daemon;
    let until = match filters.get("until").first() {
        Some(text) => crate::containers::until_moment(text)?,
        None => i64::MAX,
    };
    let _change = daemon.networks.change.lock().await;
    let mut gone = Vec::new();
    for network in daemon.networks.all() {
        let wanted = network.created <= until && filters.labels(&network.labels);
        if wanted && !network.is_built_in() && users(daemon, &network).is_empty() {
            take_away(daemon, &network).await?;
            gone.push(network.name);
        }
    }
    answer::ok(&json!({ "NetworksDeleted": gone }))
}

/// `POST /networks/{id}/connect`.
pub(crate) async fn connect(mut call: Call, wish: &str) -> Answer {
    let body: Membership = call.body().await?;
    let daemon = &call.daemon;
    let network = daemon.networks.find(wish)?;
    let container = daemon.find(&body.container)?;
    let record = container.snapshot();
    let refuse = |message: String| Err(Fault::new(StatusCode::FORBIDDEN, message));
    if ["host", "none"].contains(&network.name.as_str())
        || ["host", "none"].contains(&record.network_mode())
    {
        let message = "container cannot be connected to host network or disconnected from it, nor to networks beside none";
        return refuse(message.to_owned());
    }
    if record.networks.contains_key(&network.name) {
        return refuse(format!(
            "endpoint with name {} already exists in network {}",
            record.name, network.name
        ));
    }
    if crate::containers::other_container(&record.host.network_mode).is_some() {
        return refuse("container sharing network namespace with another container or host cannot be connected to any other network".to_owned());
    }
    let had_names = daemon.has_names(&container);
    let mut endpoint = body.endpoint_config;
    endpoint.wanted_mac_address = std::mem::take(&mut endpoint.mac_address);
    daemon.join_running(&container, &network, endpoint).await?;
    if record.state.is_up() && !had_names && daemon.has_names(&container) {
        daemon.write_resolv_conf(&container)?;
        let netns = format!("/proc/{}/ns/net", record.state.pid);
        daemon
            .start_resolver(&container, std::path::Path::new(&netns))
            .await;
    }
    event(daemon, &network, "connect", Some(&record.id));
    Ok(answer::empty(StatusCode::OK))
}

/// `POST /networks/{id}/disconnect`.
pub(crate) async fn disconnect(mut call: Call, wish: &str) -> Answer {
    let body: Membership = call.body().await?;
    let daemon = &call.daemon;
    let network = daemon.networks.find(wish)?;
    let container = match daemon.find(&body.container) {
        // Nothing is left of it to be taken away.
        Err(fault) if body.force && fault.status == StatusCode::NOT_FOUND => {
            return Ok(answer::empty(StatusCode::OK));
        }
        found => found?,
    };
    if network.name == "host" {
        let message = "container cannot be disconnected from host network";
        return Err(Fault::new(StatusCode::FORBIDDEN, message));
    }
    daemon.leave(&container, &network).await?;
    event(daemon, &network, "disconnect", Some(&container.id));
    Ok(answer::empty(StatusCode::OK))
}
