//! The proxy's table: its sets, its base chains, and a chain per shape.

use std::net::Ipv4Addr;
use std::time::Duration;

use base::Ipv4Cidr;
use netfilter::{
    Batch, Hook, HookKind, Load, Register, Rule, SetSpec, Type, Value, Verdict, priority,
};

use crate::Config;
use crate::plan::{Front, Shape, Side, Sticky, Target};

pub(crate) const TABLE: &str = "sampan-proxy";
/// Who remembers which client went where.
const AFFINITY: &str = "affinity";

const SERVICES: &str = "services";
const NODE_PORTS: &str = "node-ports";
const ENDPOINTS: &str = "endpoints";
const NODE_ENDPOINTS: &str = "node-endpoints";
const HAIRPIN: &str = "hairpin";
/// Where packets end that no rule has sent on.
const ASTRAY: &str = "astray";

/// The bit of a packet's mark that asks for masquerading, as upstream's.
const MASQUERADE: u32 = 0x4000;
/// Clients that can be remembered at once.
const CLIENTS_MAX: u32 = 1 << 18;

/// The sets that hold what is desired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Set {
    Services,
    NodePorts,
    Endpoints,
    NodeEndpoints,
    Hairpin,
}

impl Set {
    pub(crate) const ALL: [Set; 5] = [
        Set::Services,
        Set::NodePorts,
        Set::Endpoints,
        Set::NodeEndpoints,
        Set::Hairpin,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Set::Services => SERVICES,
            Set::NodePorts => NODE_PORTS,
            Set::Endpoints => ENDPOINTS,
            Set::NodeEndpoints => NODE_ENDPOINTS,
            Set::Hairpin => HAIRPIN,
        }
    }
}

/// The element that leads from a front to its chain.
pub(crate) fn front_key(front: Front) -> (Set, Value) {
    match front {
        Front::Address(address, protocol, port) => {
            let key = Value::new().address(address).protocol(protocol).port(port);
            (Set::Services, key)
        }
        Front::Node(protocol, port) => (Set::NodePorts, Value::new().protocol(protocol).port(port)),
    }
}

/// The element that holds endpoint number `index` of a front.
pub(crate) fn endpoint_key(front: Front, index: u32) -> (Set, Value) {
    let (set, key) = front_key(front);
    let set = match set {
        Set::NodePorts => Set::NodeEndpoints,
        _ => Set::Endpoints,
    };
    (set, key.mark(index))
}

/// The element that says an endpoint may be its own client.
pub(crate) fn hairpin_key(address: Ipv4Addr) -> (Set, Value) {
    (Set::Hairpin, Value::new().address(address).address(address))
}

/// Sets and base chains, as far as they are not there already.
pub(crate) fn add_frame(batch: &mut Batch) {
    use Type::{Ipv4Address, Mark, Port, Protocol};
    let front = [Ipv4Address, Protocol, Port];
    let endpoint = [Ipv4Address, Port];
    batch.add_set(&SetSpec::verdicts(SERVICES, &front));
    batch.add_set(&SetSpec::verdicts(NODE_PORTS, &front[1..]));
    let numbered = [Ipv4Address, Protocol, Port, Mark];
    batch.add_set(&SetSpec::map(ENDPOINTS, &numbered, &endpoint));
    batch.add_set(&SetSpec::map(NODE_ENDPOINTS, &numbered[1..], &endpoint));
    batch.add_set(&SetSpec::set(HAIRPIN, &[Ipv4Address, Ipv4Address]));
    let client = [Ipv4Address, Ipv4Address, Protocol, Port];
    batch.add_set(&SetSpec::set(AFFINITY, &client).dynamic(CLIENTS_MAX));

    let mut base = |name, kind, priority, nat| {
        let hook = Hook {
            kind,
            priority,
            nat,
        };
        batch.add_chain(name, Some(hook));
    };
    base("prerouting", HookKind::Prerouting, priority::DNAT, true);
    base("output", HookKind::Output, priority::DNAT, true);
    base("postrouting", HookKind::Postrouting, priority::SNAT, true);
    base(ASTRAY, HookKind::Postrouting, priority::FILTER, false);
}

/// All rules that do not depend on services.
pub(crate) fn add_common_rules(batch: &mut Batch, config: &Config) {
    let reject = chain(&Shape::Reject);
    batch.add_chain(&reject, None);
    // A reset is not rate-limited, so clients need not wait and try again.
    batch.add_rule(&reject, &Rule::new().reset());
    batch.add_rule(&reject, &Rule::new().reject());
    batch.add_chain("find", None);
    for rule in find_rules(config) {
        batch.add_rule("find", &rule);
    }
    // A packet whose way through the rules began before a commit and meets an element made by it
    // is led to a chain that is empty for it, and leaves as it came. Let go, its connection would
    // be remembered as one that is not translated; dropped, the next attempt finds its way.
    let astray = Rule::new().address(Load::DestinationAddress, true, net(config.service_cidr));
    batch.add_rule(ASTRAY, &astray.verdict(Verdict::Drop));
    // Who is not of the cluster may not know the way back from a pod.
    let stranger = Rule::new()
        .address(Load::DestinationAddress, true, net(config.service_cidr))
        .address(Load::SourceAddress, false, net(config.cluster_cidr));
    batch.add_rule("prerouting", &stranger.set_mark(MASQUERADE));
    let jump = Rule::new().verdict(Verdict::Jump("find".to_owned()));
    batch.add_rule("prerouting", &jump);
    batch.add_rule("output", &jump);
    let marked = Rule::new().has_mark(MASQUERADE).clear_mark(MASQUERADE);
    batch.add_rule("postrouting", &marked.masquerade());
    let itself = [Load::SourceAddress, Load::DestinationAddress];
    let itself = Rule::new().load_key(&itself, Register(0));
    batch.add_rule(
        "postrouting",
        &itself.is_in(HAIRPIN, Register(0)).masquerade(),
    );
}

/// Service addresses, then what is left of their range, then node ports.
fn find_rules(config: &Config) -> [Rule; 3] {
    let service = Rule::new()
        .load_key(&front(Side::Address), Register(0))
        .verdict_of(SERVICES, Register(0));
    let unknown = Rule::new()
        .address(Load::DestinationAddress, true, net(config.service_cidr))
        .verdict(verdict(&Shape::Reject));
    let node_port = Rule::new()
        .to_this_machine()
        .load_key(&front(Side::Node), Register(0))
        .verdict_of(NODE_PORTS, Register(0));
    [service, unknown, node_port]
}

/// Where the packet filter goes on for a shape.
pub(crate) fn verdict(shape: &Shape) -> Verdict {
    match shape {
        Shape::Drop => Verdict::Drop,
        shape => Verdict::Goto(chain(shape)),
    }
}

/// The shapes whose chains a shape's chain leads to.
pub(crate) fn needs(shape: &Shape) -> Vec<Shape> {
    match shape {
        Shape::Reject | Shape::Drop | Shape::Spread { .. } | Shape::Stay { .. } => Vec::new(),
        Shape::Sticky(sticky) => stays(sticky).collect(),
        Shape::External(all) => vec![(**all).clone()],
        Shape::ExternalLocal { all, local } => vec![(**all).clone(), (**local).clone()],
        Shape::Guarded { then, .. } => vec![(**then).clone()],
    }
}

/// Chains lead only to chains of less depth.
pub(crate) fn depth(shape: &Shape) -> u32 {
    match shape {
        Shape::Reject | Shape::Drop | Shape::Spread { .. } | Shape::Stay { .. } => 0,
        Shape::Sticky(_) => 1,
        Shape::External(_) | Shape::ExternalLocal { .. } => 2,
        Shape::Guarded { .. } => 3,
    }
}

/// Whether the shape has a chain that comes and goes with its users.
pub(crate) fn has_chain(shape: &Shape) -> bool {
    !matches!(shape, Shape::Reject | Shape::Drop)
}

/// The name of a shape's chain.
pub(crate) fn chain(shape: &Shape) -> String {
    match shape {
        Shape::Reject => "refuse".to_owned(),
        Shape::Drop => "drop".to_owned(),
        Shape::Spread {
            side,
            count,
            offset,
        } => {
            let map = map_of(*side);
            let local = if *offset > 0 { "local-" } else { "" };
            format!("{local}{map}-{count}")
        }
        Shape::Sticky(sticky) => {
            let (count, seconds) = (sticky.targets.len(), sticky.seconds);
            let bytes = sticky
                .targets
                .iter()
                .flat_map(|(address, port)| address.octets().into_iter().chain(port.to_be_bytes()));
            format!("sticky-{count}-{seconds}-{:016x}", digest(bytes))
        }
        Shape::Stay {
            target: (address, port),
            seconds,
        } => {
            format!("stay-{seconds}-{address}-{port}")
        }
        Shape::External(all) => format!("external-{}", chain(all)),
        Shape::ExternalLocal { all, local } => {
            format!("external-{}-{}", chain(all), chain(local))
        }
        Shape::Guarded { ranges, then } => {
            let bytes = ranges.iter().flat_map(|range| {
                let prefix = [range.prefix()];
                range.address().octets().into_iter().chain(prefix)
            });
            format!("for-{:016x}-{}", digest(bytes), chain(then))
        }
    }
}

/// Tells lists apart in names (FNV-1a).
fn digest(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Creates a shape's chain.
pub(crate) fn add_shape(batch: &mut Batch, config: &Config, shape: &Shape) {
    let name = chain(shape);
    batch.add_chain(&name, None);
    let mut add = |rule: Rule| batch.add_rule(&name, &rule);
    match shape {
        Shape::Reject | Shape::Drop => {}
        Shape::Spread {
            side,
            count,
            offset,
        } => add(spread_rule(*side, *count, *offset)),
        Shape::Sticky(sticky) => sticky_rules(sticky).for_each(add),
        Shape::Stay { target, seconds } => stay_rules(*target, *seconds).into_iter().for_each(add),
        Shape::External(all) => {
            add(Rule::new().set_mark(MASQUERADE));
            add(Rule::new().verdict(verdict(all)));
        }
        Shape::ExternalLocal { all, local } => {
            let pods = Rule::new().address(Load::SourceAddress, true, net(config.cluster_cidr));
            add(pods.verdict(verdict(all)));
            add(Rule::new().from_this_machine().set_mark(MASQUERADE));
            add(Rule::new().from_this_machine().verdict(verdict(all)));
            add(Rule::new().verdict(verdict(local)));
        }
        Shape::Guarded { ranges, then } => {
            for range in ranges.iter() {
                let within = Rule::new().address(Load::SourceAddress, true, net(*range));
                add(within.verdict(verdict(then)));
            }
            // The node itself comes from wherever its routes say.
            add(Rule::new().from_this_machine().verdict(verdict(then)));
            add(Rule::new().verdict(Verdict::Drop));
        }
    }
}

/// Draws a number and sends the connection to the endpoint of that number.
fn spread_rule(side: Side, count: u32, offset: u32) -> Rule {
    let mut numbered = front(side);
    numbered.push(Load::Random {
        modulus: count,
        offset,
    });
    let (key, port) = (Register(0), Register(1));
    let rule = Rule::new().load_key(&numbered, key);
    rule.value_of(map_of(side), key, key).dnat(key, port)
}

fn stays(sticky: &Sticky) -> impl Iterator<Item = Shape> {
    let seconds = sticky.seconds;
    let targets = sticky.targets.iter();
    targets.map(move |target| Shape::Stay {
        target: *target,
        seconds,
    })
}

/// Who has been somewhere before goes there again; others are spread.
fn sticky_rules(sticky: &Sticky) -> impl Iterator<Item = Rule> {
    let known = sticky
        .targets
        .iter()
        .zip(stays(sticky))
        .map(|(target, stay)| {
            let rule = client_key(*target).is_in(AFFINITY, Register(0));
            rule.verdict(verdict(&stay))
        });
    let count = sticky.targets.len() as u32;
    let spread = stays(sticky).zip(0..).map(move |(stay, index)| {
        let rule = Rule::new();
        let rule = match count - index {
            1 => rule,
            modulus => {
                let draw = Load::Random { modulus, offset: 0 };
                rule.load(draw, Register(0))
                    .compare(Register(0), true, &[0; 4])
            }
        };
        rule.verdict(verdict(&stay))
    });
    known.chain(spread)
}

fn stay_rules(target: Target, seconds: u32) -> [Rule; 2] {
    let time = Duration::from_secs(u64::from(seconds));
    let (address, port) = (Register(0), Register(1));
    let remember = client_key(target).remember(AFFINITY, address, time);
    let go = Rule::new()
        .constant(&target.0.octets(), address)
        .constant(&target.1.to_be_bytes(), port);
    [remember, go.dnat(address, port)]
}

/// Client and endpoint, as the affinity set knows them.
fn client_key((address, port): Target) -> Rule {
    Rule::new()
        .load(Load::SourceAddress, Register(0))
        .constant(&address.octets(), Register(1))
        .load(Load::Protocol, Register(2))
        .constant(&port.to_be_bytes(), Register(3))
}

fn map_of(side: Side) -> &'static str {
    match side {
        Side::Address => ENDPOINTS,
        Side::Node => NODE_ENDPOINTS,
    }
}

fn front(side: Side) -> Vec<Load> {
    let parts = [
        Load::DestinationAddress,
        Load::Protocol,
        Load::DestinationPort,
    ];
    match side {
        Side::Address => parts.to_vec(),
        Side::Node => parts[1..].to_vec(),
    }
}

fn net(cidr: Ipv4Cidr) -> (Ipv4Addr, u8) {
    (cidr.address(), cidr.prefix())
}
