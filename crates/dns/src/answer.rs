//! From a question and the records to an answer, without I/O.

use std::net::IpAddr;

use base::Ipv4Cidr;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::records::{Records, cluster_addresses, service_of};
use crate::{Config, Error};

/// How long an answer may be kept, in seconds.
const TTL: u32 = 5;
/// The specification these answers follow.
const VERSION: &str = "1.1.0";
/// Aliases that are followed within the cluster's domain.
const ALIASES_MAX: usize = 8;
/// What the weights of one name's SRV records add up to.
const WEIGHT: usize = 100;

/// The domain this server is the authority of.
#[derive(Clone, Debug)]
pub struct Zone {
    name: Name,
    labels: Vec<String>,
    own_address: Option<IpAddr>,
    private: Vec<Ipv4Cidr>,
}

/// What to do with a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Ours(Answer),
    /// A name of somebody else's.
    Foreign,
}

/// An answer with authority.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub code: ResponseCode,
    pub answers: Vec<Record>,
    pub authority: Vec<Record>,
    pub additional: Vec<Record>,
    /// The last alias leads out of the cluster: what is asked of this name belongs to the answer.
    pub follow: Option<Name>,
}

/// All that a name has.
#[derive(Default)]
struct Node {
    addresses: Vec<IpAddr>,
    ports: Vec<PortRecord>,
    alias: Option<Name>,
    text: Option<&'static str>,
    is_apex: bool,
}

struct PortRecord {
    port: u16,
    weight: u16,
    target: Name,
    addresses: Vec<IpAddr>,
}

impl Zone {
    /// The zone of a configuration.
    pub fn new(config: &Config) -> Result<Zone, Error> {
        let bad = || Error::BadDomain(config.cluster_domain.clone());
        let mut name = Name::from_ascii(&config.cluster_domain).map_err(|_| bad())?;
        if name.is_root() {
            return Err(bad());
        }
        name.set_fqdn(true);
        Ok(Zone {
            labels: labels(&name),
            name,
            own_address: config.service_address,
            private: config.private.clone(),
        })
    }

    /// A name within the zone.
    fn within(&self, parts: &[&str]) -> Option<Name> {
        let relative = Name::from_labels(parts.iter().map(|part| part.as_bytes())).ok()?;
        let mut name = relative.append_domain(&self.name).ok()?;
        name.set_fqdn(true);
        Some(name)
    }

    fn soa(&self) -> Record {
        let server = self.within(&["ns", "dns"]).unwrap_or_default();
        let mail = self.within(&["hostmaster"]).unwrap_or_default();
        let soa = SOA::new(server, mail, 1, 7200, 1800, 86400, TTL);
        Record::from_rdata(self.name.clone(), TTL, RData::SOA(soa))
    }

    /// The labels in front of the zone's; `None` for a name outside of it.
    fn relative<'a>(&self, labels: &'a [String]) -> Option<Vec<&'a str>> {
        let front = labels.strip_suffix(self.labels.as_slice())?;
        Some(front.iter().map(String::as_str).collect())
    }
}

/// Answers a question about `name`.
pub fn answer(zone: &Zone, records: &impl Records, name: &Name, kind: RecordType) -> Outcome {
    let asked = labels(name);
    if let Some(relative) = zone.relative(&asked) {
        let mut answer = Answer::new();
        fill(zone, records, name, &relative, kind, &mut answer);
        return Outcome::Ours(answer);
    }
    match reverse_address(&asked) {
        Some(address) => reverse(zone, records, name, address, kind),
        None => Outcome::Foreign,
    }
}

impl Answer {
    fn new() -> Answer {
        Answer {
            code: ResponseCode::NoError,
            answers: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
            follow: None,
        }
    }

    fn push(&mut self, name: &Name, data: RData) {
        self.answers
            .push(Record::from_rdata(name.clone(), TTL, data));
    }
}

/// Answers from within the zone, along its aliases.
fn fill(
    zone: &Zone,
    records: &impl Records,
    name: &Name,
    relative: &[&str],
    kind: RecordType,
    answer: &mut Answer,
) {
    match node(zone, records, relative) {
        None => answer.code = ResponseCode::NXDomain,
        Some(node) => select(zone, name, &node, kind, answer),
    }
    let target = match answer.answers.last().map(|record| &record.data) {
        Some(RData::CNAME(CNAME(target))) if kind != RecordType::CNAME => target.clone(),
        Some(_) => return,
        None => return answer.authority.push(zone.soa()),
    };
    let asked = labels(&target);
    match zone.relative(&asked) {
        Some(_) if answer.answers.len() >= ALIASES_MAX => {}
        Some(relative) => fill(zone, records, &target, &relative, kind, answer),
        None => answer.follow = Some(target),
    }
}

/// What of a name's records the question is about.
fn select(zone: &Zone, name: &Name, node: &Node, kind: RecordType, answer: &mut Answer) {
    if let Some(alias) = &node.alias {
        return answer.push(name, RData::CNAME(CNAME(alias.clone())));
    }
    match kind {
        RecordType::A | RecordType::AAAA => {
            for address in &node.addresses {
                answer.answers.extend(address_record(name, *address, kind));
            }
        }
        RecordType::SRV => {
            for port in &node.ports {
                let target = port.target.clone();
                let srv = SRV::new(0, port.weight, port.port, target.clone());
                answer.push(name, RData::SRV(srv));
                for (address, kind) in both(&port.addresses) {
                    let record = address_record(&target, address, kind);
                    let fresh = record.filter(|record| !answer.additional.contains(record));
                    answer.additional.extend(fresh);
                }
            }
        }
        RecordType::TXT => {
            if let Some(text) = node.text {
                answer.push(name, RData::TXT(TXT::new(vec![text.to_owned()])));
            }
        }
        RecordType::SOA if node.is_apex => answer.answers.push(zone.soa()),
        RecordType::NS if node.is_apex => {
            if let Some(server) = zone.within(&["ns", "dns"]) {
                answer.push(name, RData::NS(NS(server.clone())));
                let own: Vec<IpAddr> = zone.own_address.into_iter().collect();
                let own = both(&own).filter_map(|(a, kind)| address_record(&server, a, kind));
                answer.additional.extend(own);
            }
        }
        _ => {}
    }
}

fn both(addresses: &[IpAddr]) -> impl Iterator<Item = (IpAddr, RecordType)> {
    let kind = |address: &IpAddr| match address {
        IpAddr::V4(_) => RecordType::A,
        IpAddr::V6(_) => RecordType::AAAA,
    };
    addresses
        .iter()
        .map(move |address| (*address, kind(address)))
}

fn address_record(name: &Name, address: IpAddr, kind: RecordType) -> Option<Record> {
    let data = match (address, kind) {
        (IpAddr::V4(address), RecordType::A) => RData::A(A(address)),
        (IpAddr::V6(address), RecordType::AAAA) => RData::AAAA(AAAA(address)),
        _ => return None,
    };
    Some(Record::from_rdata(name.clone(), TTL, data))
}

/// What there is at a name; `None` when there is no such name.
fn node(zone: &Zone, records: &impl Records, relative: &[&str]) -> Option<Node> {
    let empty = Node::default;
    match *relative {
        [] => Some(Node {
            is_apex: true,
            ..empty()
        }),
        ["dns-version"] => Some(Node {
            text: Some(VERSION),
            ..empty()
        }),
        ["dns" | "svc" | "pod"] => Some(empty()),
        ["ns", "dns"] => Some(Node {
            addresses: zone.own_address.into_iter().collect(),
            ..empty()
        }),
        [namespace, "svc" | "pod"] => records.namespace_exists(namespace).then(empty),
        [dashed, namespace, "pod"] => {
            let address = undashed(dashed).filter(|_| records.namespace_exists(namespace))?;
            Some(Node {
                addresses: vec![address],
                ..empty()
            })
        }
        [name, namespace, "svc"] => {
            let service = records.service(namespace, name)?;
            whole_service(zone, records, &service, |_, _| true)
        }
        [protocol, name, namespace, "svc"] if protocol.starts_with('_') => {
            let service = records.service(namespace, name)?;
            let node = whole_service(zone, records, &service, |_, found| {
                is_named(protocol, found)
            })?;
            (!node.ports.is_empty()).then(empty)
        }
        [host, name, namespace, "svc"] => {
            records.service(namespace, name)?;
            endpoint(records, host, name, namespace)
        }
        [port, protocol, name, namespace, "svc"] => {
            let service = records.service(namespace, name)?;
            let node = whole_service(zone, records, &service, |a, b| {
                is_named(port, a) && is_named(protocol, b)
            })?;
            // Such a name has ports or does not exist.
            (!node.ports.is_empty()).then_some(Node {
                addresses: Vec::new(),
                ..node
            })
        }
        _ => None,
    }
}

/// Whether a label such as `_http` names `HTTP`.
fn is_named(label: &str, name: &str) -> bool {
    label
        .strip_prefix('_')
        .is_some_and(|label| label.eq_ignore_ascii_case(name))
}

/// A service's addresses, and those of its ports whose name and protocol are wanted.
fn whole_service(
    zone: &Zone,
    records: &impl Records,
    service: &Service,
    wanted: impl Fn(&str, &str) -> bool,
) -> Option<Node> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        let mut alias = Name::from_ascii(spec.external_name.as_deref()?).ok()?;
        alias.set_fqdn(true);
        return Some(Node {
            alias: Some(alias),
            ..Node::default()
        });
    }
    let name = service.metadata.name.as_deref()?;
    let namespace = service.metadata.namespace.as_deref()?;
    let addresses = cluster_addresses(service);
    if addresses.is_empty() {
        return headless(zone, records, service, &wanted);
    }
    let target = zone.within(&[name, namespace, "svc"])?;
    let ports = spec.ports.iter().flatten().filter(|port| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        wanted(port.name.as_deref().unwrap_or_default(), protocol)
    });
    let ports = ports.filter_map(|port| u16::try_from(port.port).ok());
    let ports = ports.map(|port| PortRecord {
        port,
        weight: WEIGHT as u16,
        target: target.clone(),
        addresses: addresses.clone(),
    });
    let ports = ports.collect();
    Some(Node {
        addresses,
        ports,
        ..Node::default()
    })
}

/// A service without an address is its endpoints; without those it has no name.
fn headless(
    zone: &Zone,
    records: &impl Records,
    service: &Service,
    wanted: impl Fn(&str, &str) -> bool,
) -> Option<Node> {
    let name = service.metadata.name.as_deref()?;
    let namespace = service.metadata.namespace.as_deref()?;
    let all = service.spec.as_ref()?.publish_not_ready_addresses == Some(true);
    let slices = records.slices(namespace, name);
    let mut node = Node::default();
    for slice in &slices {
        for endpoint in ready_endpoints(slice, all) {
            for address in addresses(endpoint) {
                node.addresses.push(address);
                let host = host_of(endpoint, address);
                let target = zone.within(&[&host, name, namespace, "svc"])?;
                let ports = slice.ports.iter().flatten().filter(|port| {
                    let protocol = port.protocol.as_deref().unwrap_or("TCP");
                    wanted(port.name.as_deref().unwrap_or_default(), protocol)
                });
                let numbers = ports.filter_map(|port| u16::try_from(port.port?).ok());
                node.ports.extend(numbers.map(|port| PortRecord {
                    port,
                    weight: 0,
                    target: target.clone(),
                    addresses: vec![address],
                }));
            }
        }
    }
    node.addresses.sort();
    node.addresses.dedup();
    node.ports
        .sort_by(|a, b| (&a.target, a.port).cmp(&(&b.target, b.port)));
    node.ports
        .dedup_by(|a, b| (&a.target, a.port) == (&b.target, b.port));
    let weight = (WEIGHT / node.ports.len().max(1)).max(1) as u16;
    node.ports.iter_mut().for_each(|port| port.weight = weight);
    (!node.addresses.is_empty()).then_some(node)
}

/// One endpoint of a service by its host name or its dashed address.
fn endpoint(records: &impl Records, host: &str, name: &str, namespace: &str) -> Option<Node> {
    let service = records.service(namespace, name)?;
    let all = service.spec.as_ref()?.publish_not_ready_addresses == Some(true);
    let mut found = Vec::new();
    for slice in records.slices(namespace, name) {
        for endpoint in ready_endpoints(&slice, all) {
            let here = addresses(endpoint);
            found.extend(
                here.filter(|address| host_of(endpoint, *address).eq_ignore_ascii_case(host)),
            );
        }
    }
    found.sort();
    found.dedup();
    (!found.is_empty()).then_some(Node {
        addresses: found,
        ..Node::default()
    })
}

fn ready_endpoints(slice: &EndpointSlice, all: bool) -> impl Iterator<Item = &Endpoint> {
    let is_ready = move |endpoint: &&Endpoint| {
        let conditions = endpoint.conditions.as_ref();
        all || conditions
            .and_then(|conditions| conditions.ready)
            .unwrap_or(true)
    };
    slice.endpoints.iter().flatten().filter(is_ready)
}

fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> {
    endpoint
        .addresses
        .iter()
        .filter_map(|address| address.parse().ok())
}

fn host_of(endpoint: &Endpoint, address: IpAddr) -> String {
    match endpoint.hostname.as_deref() {
        Some(hostname) if !hostname.is_empty() => hostname.to_owned(),
        _ => address.to_string().replace(['.', ':'], "-"),
    }
}

/// `10-1-2-3` or `fd00--1` as an address.
fn undashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse().map(IpAddr::V4);
    let v6 = || label.replace('-', ":").parse().map(IpAddr::V6);
    v4.or_else(|_| v6()).ok()
}

/// Who has an address: services, and endpoints of services without one.
fn reverse(
    zone: &Zone,
    records: &impl Records,
    name: &Name,
    address: IpAddr,
    kind: RecordType,
) -> Outcome {
    let mut owners: Vec<Name> = Vec::new();
    for service in records.services_at(address) {
        let (Some(name), Some(namespace)) = (&service.metadata.name, &service.metadata.namespace)
        else {
            continue;
        };
        owners.extend(zone.within(&[name, namespace, "svc"]));
    }
    if owners.is_empty() {
        for slice in records.slices_at(address) {
            owners.extend(endpoint_names(zone, records, &slice, address));
        }
    }
    owners.sort();
    owners.dedup();
    let mut answer = Answer::new();
    match owners.is_empty() {
        true if is_private(zone, address) => answer.code = ResponseCode::NXDomain,
        true => return Outcome::Foreign,
        false if kind == RecordType::PTR => {
            for owner in owners {
                answer.push(name, RData::PTR(PTR(owner)));
            }
        }
        false => {}
    }
    if answer.answers.is_empty() {
        answer.authority.push(zone.soa());
    }
    Outcome::Ours(answer)
}

fn endpoint_names(
    zone: &Zone,
    records: &impl Records,
    slice: &EndpointSlice,
    address: IpAddr,
) -> Vec<Name> {
    let named = || {
        let key = service_of(slice)?;
        let service = records.service(&key.namespace, &key.name)?;
        if !cluster_addresses(&service).is_empty() {
            return None;
        }
        let all = service.spec.as_ref()?.publish_not_ready_addresses == Some(true);
        let hosts = ready_endpoints(slice, all)
            .filter(|endpoint| addresses(endpoint).any(|candidate| candidate == address))
            .map(|endpoint| host_of(endpoint, address));
        let name = |host: String| zone.within(&[&host, &key.name, &key.namespace, "svc"]);
        Some(hosts.filter_map(name).collect())
    };
    named().unwrap_or_default()
}

fn is_private(zone: &Zone, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => zone.private.iter().any(|range| range.contains(address)),
        IpAddr::V6(_) => false,
    }
}

/// The address a whole reverse name stands for.
fn reverse_address(labels: &[String]) -> Option<IpAddr> {
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    match *labels.as_slice() {
        [d, c, b, a, "in-addr", "arpa"] => format!("{a}.{b}.{c}.{d}").parse().ok(),
        [ref nibbles @ .., "ip6", "arpa"] if nibbles.len() == 32 => {
            if nibbles.iter().any(|nibble| nibble.len() != 1) {
                return None;
            }
            let digits: String = nibbles.iter().rev().copied().collect();
            let bits = u128::from_str_radix(&digits, 16).ok()?;
            Some(IpAddr::V6(bits.into()))
        }
        _ => None,
    }
}

fn labels(name: &Name) -> Vec<String> {
    let lower = |label: &[u8]| String::from_utf8_lossy(label).to_ascii_lowercase();
    name.iter().map(lower).collect()
}
