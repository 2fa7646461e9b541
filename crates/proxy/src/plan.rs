//! From a service and its endpoints to what the packet filter shall do.

use std::net::Ipv4Addr;
use std::sync::Arc;

use base::Ipv4Cidr;

use crate::Config;
use crate::model::{Endpoint, Port, Service};

/// More endpoints of one port than this are left out.
pub(crate) const ENDPOINTS_MAX: usize = 1 << 16;
/// Numbers of a node's own endpoints start here.
pub(crate) const LOCAL_OFFSET: u32 = 1 << 16;

/// What a connection is recognised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Front {
    /// An address of the service.
    Address(Ipv4Addr, u8, u16),
    /// A port on any address of this machine.
    Node(u8, u16),
}

impl Front {
    pub(crate) fn protocol(&self) -> u8 {
        match self {
            Front::Address(_, protocol, _) | Front::Node(protocol, _) => *protocol,
        }
    }
}

/// Where endpoints are looked up: by the service's address, or by node port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Side {
    Address,
    Node,
}

/// What happens to a connection; all services that need the same share a chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Shape {
    /// There is no endpoint.
    Reject,
    /// There are endpoints, but not here, and only those here may be used.
    Drop,
    /// One of `count` endpoints at random, numbered from `offset`.
    Spread { side: Side, count: u32, offset: u32 },
    /// One of these at random, but for every client the same.
    Sticky(Arc<Sticky>),
    /// This one, and so it stays for this client.
    Stay { target: Target, seconds: u32 },
    /// From outside of the cluster: any endpoint, by way of this node.
    External(Arc<Shape>),
    /// From outside: only this node's endpoints, with the client's own address.
    /// Pods and the node itself use them all.
    ExternalLocal { all: Arc<Shape>, local: Arc<Shape> },
    /// For clients of these ranges only; others get no answer.
    Guarded {
        ranges: Arc<[Ipv4Cidr]>,
        then: Arc<Shape>,
    },
}

/// The endpoints of a service with session affinity, and how long that lasts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Sticky {
    pub(crate) targets: Vec<Target>,
    pub(crate) seconds: u32,
}

/// A way to reach an endpoint.
pub(crate) type Target = (Ipv4Addr, u16);

/// What one front leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) front: Front,
    pub(crate) shape: Shape,
    /// Endpoints by number.
    pub(crate) targets: Vec<(u32, Target)>,
}

/// All a service needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) entries: Vec<Entry>,
    /// Endpoints on this node: one of them may be its own client.
    pub(crate) local: Vec<Ipv4Addr>,
}

/// Decides for one service; `endpoints_of` knows the endpoints of a port.
pub(crate) fn plan(
    config: &Config,
    service: &Service,
    endpoints_of: impl Fn(&Port) -> Vec<Endpoint>,
) -> Plan {
    let mut plan = Plan::default();
    for port in &service.ports {
        let endpoints = endpoints_of(port);
        let choice = choose(config, service, &endpoints);
        let here = |target: &&Endpoint| is_possibly_local(config, target);
        plan.local
            .extend(endpoints.iter().filter(here).map(|e| e.address));
        plan.entries.extend(entries(service, port, &choice));
    }
    plan.local.sort();
    plan.local.dedup();
    plan
}

/// The endpoints traffic may use.
struct Choice {
    all: Vec<Target>,
    local: Vec<Target>,
    /// Whether there is any endpoint anywhere.
    any: bool,
}

/// Ready endpoints; while there is none, those that still serve on their way out.
fn choose(config: &Config, service: &Service, endpoints: &[Endpoint]) -> Choice {
    let leaving = |e: &&Endpoint| e.serving && e.terminating;
    let usable = |candidates: &mut dyn Iterator<Item = &'_ Endpoint>| -> Vec<Target> {
        let candidates: Vec<&Endpoint> = candidates.collect();
        let ready: Vec<&Endpoint> = candidates.iter().copied().filter(|e| e.ready).collect();
        let chosen = match ready.is_empty() {
            true => candidates.into_iter().filter(leaving).collect(),
            false => ready,
        };
        let targets = chosen.into_iter().map(|e| (e.address, e.port));
        targets.take(ENDPOINTS_MAX).collect()
    };
    let near = nearby(config, endpoints);
    let all = usable(&mut near.into_iter());
    let is_local = |e: &&Endpoint| e.node.as_deref() == Some(&config.node_name);
    let local = match service.internal_local || service.external_local {
        true => usable(&mut endpoints.iter().filter(is_local)),
        false => Vec::new(),
    };
    let any = !all.is_empty() || !local.is_empty();
    Choice { all, local, any }
}

/// Those endpoints whose hints name this node, else this zone; all of them
/// when the hints are incomplete or would leave nothing.
fn nearby<'a>(config: &Config, endpoints: &'a [Endpoint]) -> Vec<&'a Endpoint> {
    let hinted = |hints: fn(&Endpoint) -> &[String], here: &str| -> Option<Vec<&'a Endpoint>> {
        let mut ready = endpoints.iter().filter(|e| e.ready);
        if ready.any(|e| hints(e).is_empty()) {
            return None;
        }
        let for_us = |e: &&Endpoint| e.ready && hints(e).iter().any(|hint| hint == here);
        let chosen: Vec<&Endpoint> = endpoints.iter().filter(for_us).collect();
        (!chosen.is_empty()).then_some(chosen)
    };
    let by_node = hinted(|e| &e.hint_nodes, &config.node_name);
    let by_zone = || hinted(|e| &e.hint_zones, config.zone.as_deref()?);
    let chosen = by_node.or_else(by_zone);
    chosen.unwrap_or_else(|| endpoints.iter().collect())
}

/// An endpoint without a node may be anywhere.
fn is_possibly_local(config: &Config, endpoint: &Endpoint) -> bool {
    let node = endpoint.node.as_deref();
    node.is_none_or(|node| node == config.node_name)
}

fn entries(service: &Service, port: &Port, choice: &Choice) -> Vec<Entry> {
    let sticky = service
        .affinity
        .map(|time| time.as_secs().min(u64::from(u32::MAX)) as u32);
    let pick = |side, targets: &[Target], offset| match (targets.len(), sticky) {
        (0, _) if choice.any => Shape::Drop,
        (0, _) => Shape::Reject,
        (count, None) => Shape::Spread {
            side,
            count: count as u32,
            offset,
        },
        (_, Some(seconds)) => {
            let targets = targets.to_vec();
            Shape::Sticky(Arc::new(Sticky { targets, seconds }))
        }
    };
    let internal = match service.internal_local {
        true => &choice.local,
        false => &choice.all,
    };
    let cluster_ips = service.cluster_ips.iter().map(|address| Entry {
        front: Front::Address(*address, port.protocol, port.port),
        shape: pick(Side::Address, internal, 0),
        targets: number(internal, 0).collect(),
    });
    let external = |front, side| {
        let all = pick(side, &choice.all, 0);
        let mut targets: Vec<_> = number(&choice.all, 0).collect();
        let shape = match (choice.any, service.external_local) {
            (false, _) => Shape::Reject,
            (true, false) => Shape::External(Arc::new(all)),
            (true, true) => {
                targets.extend(number(&choice.local, LOCAL_OFFSET));
                let local = Arc::new(pick(side, &choice.local, LOCAL_OFFSET));
                Shape::ExternalLocal {
                    all: Arc::new(all),
                    local,
                }
            }
        };
        Entry {
            front,
            shape,
            targets,
        }
    };
    let external_ips = service.external_ips.iter().map(|address| {
        let front = Front::Address(*address, port.protocol, port.port);
        external(front, Side::Address)
    });
    let node_port = port.node_port.map(|node_port| {
        let front = Front::Node(port.protocol, node_port);
        external(front, Side::Node)
    });
    let balancer_ips = service.balancer_ips.iter().map(|address| {
        let front = Front::Address(*address, port.protocol, port.port);
        guard(service, external(front, Side::Address))
    });
    let open = cluster_ips.chain(external_ips).chain(node_port);
    open.chain(balancer_ips).collect()
}

/// Lets in only those the service allows at its load balancer's address.
fn guard(service: &Service, entry: Entry) -> Entry {
    if service.source_ranges.is_empty() {
        return entry;
    }
    let shape = Shape::Guarded {
        ranges: service.source_ranges.as_slice().into(),
        then: Arc::new(entry.shape),
    };
    Entry { shape, ..entry }
}

fn number(targets: &[Target], offset: u32) -> impl Iterator<Item = (u32, Target)> {
    (offset..).zip(targets.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(zone: Option<&str>) -> Config {
        Config {
            node_name: "here".to_owned(),
            zone: zone.map(str::to_owned),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            service_cidr: "10.96.0.0/12".parse().unwrap(),
        }
    }

    fn service() -> Service {
        Service {
            cluster_ips: vec!["10.96.0.1".parse().unwrap()],
            ports: vec![Port {
                name: String::new(),
                protocol: 6,
                port: 80,
                node_port: None,
            }],
            ..Service::default()
        }
    }

    /// A ready endpoint with hints.
    fn endpoint(last: u8, nodes: &[&str], zones: &[&str]) -> Endpoint {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Endpoint {
            address: Ipv4Addr::new(10, 244, 0, last),
            port: 8080,
            ready: true,
            serving: true,
            terminating: false,
            node: Some(if last == 1 { "here" } else { "there" }.to_owned()),
            hint_nodes: own(nodes),
            hint_zones: own(zones),
        }
    }

    fn chosen(config: &Config, service: &Service, endpoints: &[Endpoint]) -> Vec<u8> {
        let plan = plan(config, service, |_| endpoints.to_vec());
        let targets = plan.entries[0].targets.iter();
        targets
            .map(|(_, (address, _))| address.octets()[3])
            .collect()
    }

    #[test]
    fn hints_narrow_the_choice_when_all_have_them() {
        let by_node = [endpoint(1, &["here"], &[]), endpoint(2, &["there"], &[])];
        assert_eq!(chosen(&config(None), &service(), &by_node), [1]);
        let incomplete = [endpoint(1, &["here"], &[]), endpoint(2, &[], &[])];
        assert_eq!(chosen(&config(None), &service(), &incomplete), [1, 2]);
        let elsewhere = [endpoint(1, &["x"], &[]), endpoint(2, &["y"], &[])];
        assert_eq!(chosen(&config(None), &service(), &elsewhere), [1, 2]);
        let by_zone = [endpoint(1, &[], &["a"]), endpoint(2, &[], &["b", "c"])];
        assert_eq!(chosen(&config(Some("c")), &service(), &by_zone), [2]);
        assert_eq!(chosen(&config(None), &service(), &by_zone), [1, 2]);
    }

    #[test]
    fn a_local_policy_falls_back_to_local_endpoints_on_their_way_out() {
        let mut local = service();
        local.internal_local = true;
        let mut leaving = endpoint(1, &[], &[]);
        (leaving.ready, leaving.terminating) = (false, true);
        let all = [leaving, endpoint(2, &[], &[])];
        assert_eq!(chosen(&config(None), &local, &all), [1]);
        let away = &all[1..];
        assert!(chosen(&config(None), &local, away).is_empty());
        let plan = plan(&config(None), &local, |_| away.to_vec());
        assert_eq!(plan.entries[0].shape, Shape::Drop);
    }

    #[test]
    fn services_of_one_shape_share_it() {
        let two = [endpoint(1, &[], &[]), endpoint(2, &[], &[])];
        let mut other = service();
        other.cluster_ips = vec!["10.96.0.2".parse().unwrap()];
        let shape = |service: &Service| {
            let plan = plan(&config(None), service, |_| two.to_vec());
            plan.entries[0].shape.clone()
        };
        assert_eq!(shape(&service()), shape(&other));
    }
}
