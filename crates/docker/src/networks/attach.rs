//! Containers on networks: addresses, interfaces, rules.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use network::user::{Endpoint as Place, Segment};

use super::Network;
use super::addresses::Addresses;
use crate::answer::Fault;
use crate::daemon::{Container, Daemon};
use crate::record::Record;
use crate::wire::Endpoint;

/// The option of an endpoint that names the container's end.
const INTERFACE_NAME: &str = "com.docker.network.endpoint.ifname";

/// Whether it has an address on a bridge, which the rules then speak of.
fn has_place(record: &Record) -> bool {
    let mut endpoints = record.networks.values();
    endpoints.any(|one| !one.ip_address.is_empty() || !one.global_ipv6_address.is_empty())
}

/// Where a container joins a network.
struct Spot<'a> {
    /// The number of its interface.
    place: usize,
    netns: &'a Path,
    /// Whether its default routes lead there.
    route: bool,
    route6: bool,
}

/// The name of the container's end; it may be wished for.
fn interface(network: &Network, endpoint: &Endpoint, place: usize) -> Result<String, Fault> {
    let options = endpoint.driver_opts.as_ref();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match options.and_then(|options| options.get(INTERFACE_NAME)) {
        None => Ok(format!("{}{place}", network.container_prefix()?)),
        Some(name) if (1..=15).contains(&name.len()) && name.chars().all(plain) => Ok(name.clone()),
        Some(name) => Err(Fault::bad(format!("invalid interface name {name:?}"))),
    }
}

/// What an endpoint shows while its container is up.
fn fill(endpoint: &mut Endpoint, segment: &Segment, own: &Addresses, hardware: [u8; 6]) {
    endpoint.mac_address = hardware.map(|byte| format!("{byte:02x}")).join(":");
    let gateway = |text: Option<String>| match segment.internal {
        true => String::new(),
        false => text.unwrap_or_default(),
    };
    if let Some((four, half)) = own.four.zip(segment.v4) {
        endpoint.ip_address = four.to_string();
        endpoint.ip_prefix_len = half.subnet.prefix();
        endpoint.gateway = gateway(half.gateway.map(|one| one.to_string()));
    }
    if let Some((six, half)) = own.six.zip(segment.v6) {
        endpoint.global_ipv6_address = six.to_string();
        endpoint.global_ipv6_prefix_len = half.subnet.prefix();
        endpoint.ipv6_gateway = gateway(half.gateway.map(|one| one.to_string()));
    }
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
        let (mut routed, mut routed6) = (false, false);
        for (place, name) in names.iter().enumerate() {
            let network = self.networks.find(name)?;
            let Some(segment) = network.segment()? else {
                continue;
            };
            let open = !segment.internal;
            let spot = Spot {
                place,
                netns,
                route: !routed && open && segment.leads_out(),
                route6: !routed6 && open && segment.leads_out6(),
            };
            routed |= spot.route;
            routed6 |= spot.route6;
            let endpoint = self.join(&mut record, &network, &segment, &spot).await?;
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
        network: &Network,
        segment: &Segment,
        spot: &Spot<'_>,
    ) -> Result<Endpoint, Fault> {
        let links = &self.networks.links;
        let known = record.networks.get(&network.name);
        let mut endpoint = known.cloned().unwrap_or_default();
        let own = self.choose_addresses(record, network, segment, &endpoint)?;
        links.ensure(segment).await.map_err(Fault::internal)?;
        let interface = interface(network, &endpoint, spot.place)?;
        let near = network::user::host_interface(&record.id, spot.place);
        links.remove(&near).await.map_err(Fault::internal)?;
        let hardware = match endpoint.wanted_hardware_address()? {
            Some(hardware) => hardware,
            None => own.hardware(),
        };
        let place = Place {
            hardware,
            netns: spot.netns,
            interface: &interface,
            host_interface: &near,
            address: own.four,
            address6: own.six,
            others: &endpoint.link_local_addresses()?,
            default_route: spot.route,
            default_route6: spot.route6,
        };
        let attached = links.attach(segment, &place).await;
        attached.map_err(Fault::internal)?;
        endpoint.network_id = network.id.clone();
        endpoint.endpoint_id = crate::names::fresh_id();
        fill(&mut endpoint, segment, &own, hardware);
        if !segment.has_pairs() {
            endpoint.inner_interface = interface;
        }
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
        let segments = self.networks.segments();
        let mut ports = Vec::new();
        for container in self.all() {
            let record = container.record.read();
            if record.state.attached {
                ports.extend(super::ports::published(&record));
            }
        }
        self.networks
            .links
            .apply(&segments, &ports)
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
            && let Some(segment) = network.segment()?
        {
            let netns = PathBuf::from(format!("/proc/{}/ns/net", record.state.pid));
            let used: BTreeSet<String> = record
                .networks
                .values()
                .map(|endpoint| endpoint.interface.clone())
                .collect();
            let free =
                |place: &usize| !used.contains(&network::user::host_interface(&record.id, *place));
            let spot = Spot {
                place: (0..).find(free).unwrap_or_default(),
                netns: &netns,
                route: false,
                route6: false,
            };
            joined = self.join(&mut record, network, &segment, &spot).await?;
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
        if !endpoint.inner_interface.is_empty() {
            let netns = format!("/proc/{}/ns/net", container.record.read().state.pid);
            let links = &self.networks.links;
            let inside = &endpoint.inner_interface;
            let removed = links.remove_inside(Path::new(&netns), inside).await;
            removed.map_err(Fault::internal)?;
        } else if !endpoint.interface.is_empty() {
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
        &mut endpoint.inner_interface,
        &mut endpoint.ipv6_gateway,
        &mut endpoint.global_ipv6_address,
    ] {
        text.clear();
    }
    endpoint.ip_prefix_len = 0;
    endpoint.global_ipv6_prefix_len = 0;
}
