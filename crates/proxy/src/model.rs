//! What the proxy wants to know of Services and EndpointSlices. IPv4 only.

use std::net::Ipv4Addr;
use std::time::Duration;

use base::Ipv4Cidr;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
const SCTP: u8 = 132;

/// Marks services that another proxy cares for.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// Marks services and slices that are never proxied.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// `sessionAffinityConfig.clientIP.timeoutSeconds` when absent.
const AFFINITY_SECONDS: i32 = 10_800;

/// A service the proxy has work with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) cluster_ips: Vec<Ipv4Addr>,
    /// `externalIPs`.
    pub(crate) external_ips: Vec<Ipv4Addr>,
    /// Addresses of the load balancer that deliver packets as they are.
    pub(crate) balancer_ips: Vec<Ipv4Addr>,
    /// Who may use those; everybody when empty.
    pub(crate) source_ranges: Vec<Ipv4Cidr>,
    pub(crate) ports: Vec<Port>,
    /// How long a client sticks to its endpoint.
    pub(crate) affinity: Option<Duration>,
    /// `internalTrafficPolicy: Local`.
    pub(crate) internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub(crate) external_local: bool,
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    pub(crate) node_port: Option<u16>,
}

/// One way to reach one port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    pub(crate) node: Option<String>,
    pub(crate) hint_nodes: Vec<String>,
    pub(crate) hint_zones: Vec<String>,
}

impl Service {
    /// `None` when there is nothing to do: headless, an alias, somebody else's.
    pub(crate) fn of(service: &core::Service) -> Option<Service> {
        let labels = service.metadata.labels.as_ref();
        let labelled = |label| labels.is_some_and(|labels| labels.contains_key(label));
        let spec = service.spec.as_ref()?;
        let cluster_ip = spec.cluster_ip.as_deref().unwrap_or_default();
        let alias = spec.type_.as_deref() == Some("ExternalName");
        if alias || matches!(cluster_ip, "" | "None") || labelled(OTHER_PROXY) || labelled(HEADLESS)
        {
            return None;
        }
        let cluster_ips = spec.cluster_ips.iter().flatten().map(String::as_str);
        let mut cluster_ips = addresses(cluster_ips);
        if cluster_ips.is_empty() {
            cluster_ips = addresses([cluster_ip]);
        }
        let external = spec.external_ips.iter().flatten().map(String::as_str);
        let ranges = spec.load_balancer_source_ranges.iter().flatten();
        let mut source_ranges: Vec<Ipv4Cidr> = ranges
            .filter_map(|range| range.trim().parse().ok())
            .collect();
        if source_ranges.is_empty()
            && spec
                .load_balancer_source_ranges
                .as_ref()
                .is_some_and(|ranges| !ranges.is_empty())
        {
            // Ranges of another family let nobody of ours in.
            source_ranges.push(Ipv4Cidr::new(Ipv4Addr::UNSPECIFIED, 32));
        }
        let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            let config = spec.session_affinity_config.as_ref();
            let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
            Duration::from_secs(seconds.unwrap_or(AFFINITY_SECONDS).max(1) as u64)
        });
        Some(Service {
            cluster_ips,
            external_ips: addresses(external),
            balancer_ips: addresses(balancer_ips(service)),
            source_ranges,
            ports: spec.ports.iter().flatten().filter_map(Port::of).collect(),
            affinity,
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        })
    }
}

impl Port {
    fn of(port: &core::ServicePort) -> Option<Port> {
        let node_port = port.node_port.and_then(|port| u16::try_from(port).ok());
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: protocol(port.protocol.as_deref())?,
            port: u16::try_from(port.port).ok()?,
            node_port: node_port.filter(|port| *port != 0),
        })
    }
}

/// The endpoints slices offer for a port of a service. The same address in two
/// slices counts once: while an endpoint moves between slices, the better of
/// its states holds.
pub(crate) fn endpoints<'a>(
    slices: impl IntoIterator<Item = &'a discovery::EndpointSlice>,
    port: &Port,
) -> Vec<Endpoint> {
    let mut found = Vec::new();
    for slice in slices {
        if slice.address_type != "IPv4" || is_headless(slice) {
            continue;
        }
        let numbers = slice.ports.iter().flatten().filter(|candidate| {
            candidate.name.as_deref().unwrap_or_default() == port.name
                && protocol(candidate.protocol.as_deref()) == Some(port.protocol)
        });
        for number in numbers.filter_map(|candidate| u16::try_from(candidate.port?).ok()) {
            let endpoints = slice.endpoints.iter().flatten();
            found.extend(endpoints.filter_map(|endpoint| Endpoint::of(endpoint, number)));
        }
    }
    let state = |e: &Endpoint| (!e.ready, !e.serving, e.terminating);
    found.sort_by_key(|e| (e.address, e.port, state(e)));
    found.dedup_by_key(|e| (e.address, e.port));
    found
}

impl Endpoint {
    fn of(endpoint: &discovery::Endpoint, port: u16) -> Option<Endpoint> {
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
        let hints = endpoint.hints.as_ref();
        let nodes = hints.and_then(|hints| hints.for_nodes.as_ref());
        let zones = hints.and_then(|hints| hints.for_zones.as_ref());
        Some(Endpoint {
            // All addresses of an endpoint are the same pod; upstream takes the first as well.
            address: endpoint.addresses.first()?.parse().ok()?,
            port,
            ready,
            serving: conditions.and_then(|c| c.serving).unwrap_or(true),
            terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
            node: endpoint.node_name.clone(),
            hint_nodes: nodes
                .into_iter()
                .flatten()
                .map(|n| n.name.clone())
                .collect(),
            hint_zones: zones
                .into_iter()
                .flatten()
                .map(|z| z.name.clone())
                .collect(),
        })
    }
}

fn is_headless(slice: &discovery::EndpointSlice) -> bool {
    let labels = slice.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(HEADLESS))
}

/// Addresses of the load balancer that deliver packets as they are.
fn balancer_ips(service: &core::Service) -> impl Iterator<Item = &str> {
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    let ingress = ingress.into_iter().flatten();
    let direct = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    direct.filter_map(|ingress| ingress.ip.as_deref())
}

/// Addresses of our family, each once.
fn addresses<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<Ipv4Addr> {
    let mut addresses: Vec<Ipv4Addr> = Vec::new();
    for address in texts.into_iter().filter_map(|text| text.parse().ok()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

fn protocol(name: Option<&str>) -> Option<u8> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(TCP),
        "UDP" => Some(UDP),
        "SCTP" => Some(SCTP),
        _ => None,
    }
}
