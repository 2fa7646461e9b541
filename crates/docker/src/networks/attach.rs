//! Containers on networks: addresses, interfaces, rules.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::Ipv4Cidr;
use network::user::{Bridge, Endpoint as Place};

use super::Network;
use crate::answer::Fault;
use crate::daemon::{Container, Daemon};
use crate::record::Record;
use crate::wire::Endpoint;

/// Whether it has an address on a bridge, which the rules then speak of.
fn has_place(record: &Record) -> bool {
    let addresses = record.networks.values();
    addresses.into_iter().any(|one| !one.ip_address.is_empty())
}

impl Daemon {
    /// Puts a container that starts on its networks; the record knows its addresses and ports then.
    pub(crate) async fn attach_networks(
        &self,
        container: &Arc<Container>,
        netns: &Path,
    ) -> Result<Record, Fault> {
        let _change = self.networks.change.lock().await;
        let record = container.snapshot();
        let main = record.network_mode().to_owned();
        let mut names: Vec<String> = record.networks.keys().cloned().collect();
        // The main network comes first, and with it the default route.
        names.sort_by_key(|name| (*name != main, name.clone()));
        let mut record = record;
        let mut routed = false;
        for (place, name) in names.iter().enumerate() {
            let network = self.networks.find(name)?;
            let Some(bridge) = network.bridge() else {
                continue;
            };
            let route = !routed && !bridge.internal;
            routed |= route;
            let endpoint = self
                .join(&mut record, name, &network, &bridge, netns, (place, route))
                .await?;
            record.networks.insert(name.clone(), endpoint);
        }
        record.state.ports = self.plan_ports(&record)?;
        let (networks, ports) = (record.networks.clone(), record.state.ports.clone());
        // On disk it is with the start's success; without that there is nothing to come back to.
        let record = container.note(|record| {
            record.networks = networks;
            record.state.ports = ports;
            record.state.attached = true;
        });
        if has_place(&record) {
            self.apply_rules()?;
        }
        Ok(record)
    }

    async fn join(
        &self,
        record: &mut Record,
        name: &str,
        network: &Network,
        bridge: &Bridge,
        netns: &Path,
        (place, default_route): (usize, bool),
    ) -> Result<Endpoint, Fault> {
        let mut endpoint = record.networks.get(name).cloned().unwrap_or_default();
        let address = self.free_address(record, name, bridge, endpoint.wanted_address())?;
        self.networks
            .links
            .ensure(bridge)
            .await
            .map_err(Fault::internal)?;
        let interface = format!("eth{place}");
        let near = network::user::host_interface(&record.id, place);
        self.networks
            .links
            .remove(&near)
            .await
            .map_err(Fault::internal)?;
        let hardware = endpoint.wanted_hardware_address()?;
        let place = Place {
            hardware,
            netns,
            interface: &interface,
            host_interface: &near,
            address,
            default_route,
        };
        self.networks
            .links
            .attach(bridge, &place)
            .await
            .map_err(Fault::internal)?;
        let [a, b, c, d] = address.octets();
        endpoint.network_id = network.id.clone();
        endpoint.endpoint_id = crate::names::fresh_id();
        let hardware = hardware.unwrap_or([0x0a, 0x58, a, b, c, d]);
        endpoint.mac_address = hardware.map(|byte| format!("{byte:02x}")).join(":");
        endpoint.ip_address = address.to_string();
        endpoint.ip_prefix_len = bridge.subnet.prefix();
        endpoint.gateway = match bridge.internal {
            true => String::new(),
            false => bridge.gateway.to_string(),
        };
        endpoint.interface = near;
        let mut names = vec![record.name.clone()];
        names.extend(endpoint.aliases.iter().flatten().cloned());
        names.push(record.short_id().to_owned());
        names.push(record.config.hostname.clone());
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        endpoint.dns_names = (!network.is_built_in()).then_some(names);
        Ok(endpoint)
    }

    fn free_address(
        &self,
        record: &Record,
        network: &str,
        bridge: &Bridge,
        wish: Option<Ipv4Addr>,
    ) -> Result<Ipv4Addr, Fault> {
        let mut taken = BTreeSet::from([bridge.gateway]);
        for container in self.all() {
            let other = container.record.read();
            if other.id != record.id
                && let Some(endpoint) = other.networks.get(network)
            {
                let used = endpoint.ip_address.parse::<Ipv4Addr>().ok();
                taken.extend(used.or(endpoint.wanted_address()));
            }
        }
        if let Some(wish) = wish {
            return match (bridge.subnet.contains(wish), taken.contains(&wish)) {
                (true, false) => Ok(wish),
                (true, true) => Err(Fault::new(
                    http::StatusCode::FORBIDDEN,
                    "Address already in use",
                )),
                (false, _) => Err(Fault::bad(format!(
                    "invalid endpoint settings: no configured subnet contains IP address {wish}"
                ))),
            };
        }
        let subnet: Ipv4Cidr = bridge.subnet;
        let end = subnet.last();
        (1..)
            .map_while(|index| subnet.nth(index))
            .find(|address| *address != end && !taken.contains(address))
            .ok_or_else(|| {
                Fault::internal(format!("no available IPv4 addresses on network {network}"))
            })
    }

    /// Takes a container's places away after its end; the interfaces went with its namespace.
    pub(crate) async fn detach_networks(&self, container: &Arc<Container>) -> Result<(), Fault> {
        if !container.record.read().state.attached {
            self.stop_resolver(&container.id);
            return Ok(());
        }
        self.detach_networks_and(container, |_| {}).await.map(drop)
    }

    /// The same with one more change of the record, written together.
    pub(crate) async fn detach_networks_and(
        &self,
        container: &Arc<Container>,
        also: impl FnOnce(&mut Record),
    ) -> Result<Record, Fault> {
        self.stop_resolver(&container.id);
        let _change = self.networks.change.lock().await;
        let ruled = {
            let record = container.record.read();
            record.state.attached && has_place(&record)
        };
        let record = container.save(false, |record| {
            for endpoint in record.networks.values_mut() {
                clear(endpoint);
            }
            record.state.ports.clear();
            record.state.attached = false;
            also(record);
        })?;
        if ruled {
            self.apply_rules()?;
        }
        Ok(record)
    }

    /// Puts the rules of all networks and all published ports in place of whatever there is.
    pub(crate) fn apply_rules(&self) -> Result<(), Fault> {
        let networks = self.networks.all();
        let bridges: Vec<Bridge> = networks.iter().filter_map(Network::bridge).collect();
        let mut ports = Vec::new();
        for container in self.all() {
            let record = container.record.read();
            if record.state.attached {
                ports.extend(super::ports::published(&record));
            }
        }
        self.networks
            .links
            .apply(&bridges, &ports)
            .map_err(Fault::internal)
    }

    /// Puts a running container on one more network.
    pub(crate) async fn join_running(
        &self,
        container: &Arc<Container>,
        network: &Network,
        endpoint: Endpoint,
    ) -> Result<(), Fault> {
        let _change = self.networks.change.lock().await;
        let mut record = container.snapshot();
        record
            .networks
            .insert(network.name.clone(), endpoint.clone());
        let mut joined = endpoint;
        if record.state.is_up()
            && let Some(bridge) = network.bridge()
        {
            let netns = PathBuf::from(format!("/proc/{}/ns/net", record.state.pid));
            let used: BTreeSet<String> = record
                .networks
                .values()
                .map(|endpoint| endpoint.interface.clone())
                .collect();
            let free =
                |place: &usize| !used.contains(&network::user::host_interface(&record.id, *place));
            let place = (0..).find(free).unwrap_or_default();
            joined = self
                .join(
                    &mut record,
                    &network.name,
                    network,
                    &bridge,
                    &netns,
                    (place, false),
                )
                .await?;
        }
        container.save(true, |record| {
            record.networks.insert(network.name.clone(), joined);
        })?;
        self.apply_rules()
    }

    /// Takes a container from a network.
    pub(crate) async fn leave(
        &self,
        container: &Arc<Container>,
        network: &Network,
    ) -> Result<(), Fault> {
        let _change = self.networks.change.lock().await;
        let left = container.snapshot().networks.remove(&network.name);
        let Some(endpoint) = left else {
            return Err(Fault::new(
                http::StatusCode::FORBIDDEN,
                format!(
                    "container {} is not connected to network {}",
                    container.id, network.name
                ),
            ));
        };
        if !endpoint.interface.is_empty() {
            let removed = self.networks.links.remove(&endpoint.interface).await;
            removed.map_err(Fault::internal)?;
        }
        container.save(true, |record| {
            record.networks.remove(&network.name);
        })?;
        self.apply_rules()
    }
}

fn clear(endpoint: &mut Endpoint) {
    for text in [
        &mut endpoint.endpoint_id,
        &mut endpoint.gateway,
        &mut endpoint.ip_address,
        &mut endpoint.mac_address,
        &mut endpoint.interface,
    ] {
        text.clear();
    }
    endpoint.ip_prefix_len = 0;
}
