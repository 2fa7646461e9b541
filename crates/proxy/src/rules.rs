//! The proxy's table: its sets, its base chains, and a chain per shape.

use std::net::Ipv4Addr;
use std::time::Duration;

use base::Ipv4Cidr;
use netfilter::{
    Batch, Hook, HookKind, Load, Register, Rule, SetSpec, Type, Value, Verdict, priority,
};

use crate::Config;
use crate::plan::{Balance, Front, LOCAL_OFFSET, Shape, Side};

pub(crate) const TABLE: &str = "sampan-proxy";
/// Who remembers which client went where.
pub(crate) const AFFINITY: &str = "affinity";

const SERVICES: &str = "services";
const NODE_PORTS: &str = "node-ports";
const ENDPOINTS: &str = "endpoints";
const NODE_ENDPOINTS: &str = "node-endpoints";
const HAIRPIN: &str = "hairpin";

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
        Front::Node(protocol, port) => {
            (Set::NodePorts, Value::new().protocol(protocol).port(port))
        }
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

/// Everything that does not depend on services.
pub(crate) fn add_frame(batch: &mut Batch, config: &Config) {
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
    batch.add_set(&SetSpec::map(AFFINITY, &client, &endpoint).dynamic(CLIENTS_MAX));

    batch.add_chain(&chain(Shape::Reject), None);
    batch.add_rule(&chain(Shape::Reject), &Rule::new().reject());
    batch.add_chain("find", None);
    for rule in find_rules(config) {
        batch.add_rule("find", &rule);
    }
    let nat = |kind, priority| {
        Some(Hook { kind, priority, nat: true })
    };
    batch.add_chain("prerouting", nat(HookKind::Prerouting, priority::DNAT));
    // Who is not of the cluster may not know the way back from a pod.
    let stranger = Rule::new()
        .address(Load::DestinationAddress, true, net(config.service_cidr))
        .address(Load::SourceAddress, false, net(config.cluster_cidr));
    batch.add_rule("prerouting", &stranger.set_mark(MASQUERADE));
    let jump = Rule::new().verdict(Verdict::Jump("find".to_owned()));
    batch.add_rule("prerouting", &jump);
    batch.add_chain("output", nat(HookKind::Output, priority::DNAT));
    batch.add_rule("output", &jump);

    batch.add_chain("postrouting", nat(HookKind::Postrouting, priority::SNAT));
    let marked = Rule::new().has_mark(MASQUERADE).clear_mark(MASQUERADE);
    batch.add_rule("postrouting", &marked.masquerade());
    let itself = [Load::SourceAddress, Load::DestinationAddress];
    let itself = Rule::new().load_key(&itself, Register(0));
    batch.add_rule("postrouting", &itself.is_in(HAIRPIN, Register(0)).masquerade());
}

/// Service addresses, then what is left of their range, then node ports.
fn find_rules(config: &Config) -> [Rule; 3] {
    let service = Rule::new()
        .load_key(&front(Side::Address), Register(0))
        .verdict_of(SERVICES, Register(0));
    let unknown = Rule::new()
        .address(Load::DestinationAddress, true, net(config.service_cidr))
        .verdict(goto(Shape::Reject));
    let node_port = Rule::new()
        .to_this_machine()
        .load_key(&front(Side::Node), Register(0))
        .verdict_of(NODE_PORTS, Register(0));
    [service, unknown, node_port]
}

/// Where the packet filter goes on for a shape.
pub(crate) fn verdict(shape: Shape) -> Verdict {
    match shape {
        Shape::Drop => Verdict::Drop,
        shape => goto(shape),
    }
}

/// The chains a shape needs to exist before its own.
pub(crate) fn needs(shape: Shape) -> Option<Shape> {
    match shape {
        Shape::External(all) => Some(Shape::Balance(all)),
        Shape::ExternalLocal { all, .. } if all.count > 0 => Some(Shape::Balance(all)),
        _ => None,
    }
}

/// Whether the shape has a chain that comes and goes with its users.
pub(crate) fn has_chain(shape: Shape) -> bool {
    !matches!(shape, Shape::Reject | Shape::Drop)
}

/// The name of a shape's chain.
pub(crate) fn chain(shape: Shape) -> String {
    let name = |balance: Balance| {
        let side = match balance.side {
            Side::Address => "endpoints",
            Side::Node => "node-endpoints",
        };
        let count = balance.count;
        match balance.sticky {
            Some(seconds) => format!("{side}-{count}-sticky-{seconds}"),
            None => format!("{side}-{count}"),
        }
    };
    match shape {
        Shape::Reject => "reject".to_owned(),
        Shape::Drop => "drop".to_owned(),
        Shape::Balance(balance) => name(balance),
        Shape::External(balance) => format!("external-{}", name(balance)),
        Shape::ExternalLocal { all, local } => format!("external-{}-local-{local}", name(all)),
    }
}

/// Creates a shape's chain.
pub(crate) fn add_shape(batch: &mut Batch, config: &Config, shape: Shape) {
    let name = chain(shape);
    batch.add_chain(&name, None);
    let mut add = |rule: Rule| batch.add_rule(&name, &rule);
    match shape {
        Shape::Reject | Shape::Drop => {}
        Shape::Balance(balance) => balance_rules(balance, 0).into_iter().for_each(add),
        Shape::External(all) => {
            add(Rule::new().set_mark(MASQUERADE));
            add(Rule::new().verdict(goto(Shape::Balance(all))));
        }
        Shape::ExternalLocal { all, local } => {
            if all.count > 0 {
                let all = goto(Shape::Balance(all));
                let pods = Rule::new().address(Load::SourceAddress, true, net(config.cluster_cidr));
                add(pods.verdict(all.clone()));
                add(Rule::new().from_this_machine().set_mark(MASQUERADE));
                add(Rule::new().from_this_machine().verdict(all));
            }
            if local == 0 {
                return add(Rule::new().verdict(Verdict::Drop));
            }
            let here = Balance { count: local, ..all };
            balance_rules(here, LOCAL_OFFSET).into_iter().for_each(add);
        }
    }
}

/// Draws an endpoint and sends the connection there.
fn balance_rules(balance: Balance, offset: u32) -> Vec<Rule> {
    let map = match balance.side {
        Side::Address => ENDPOINTS,
        Side::Node => NODE_ENDPOINTS,
    };
    let mut numbered = front(balance.side);
    numbered.push(Load::Random {
        modulus: balance.count,
        offset,
    });
    let Some(seconds) = balance.sticky else {
        let (key, port) = (Register(0), Register(1));
        let rule = Rule::new().load_key(&numbered, key).value_of(map, key, key);
        return vec![rule.dnat(key, port)];
    };
    // Who has come before keeps the endpoint and only extends its stay.
    let client = [
        Load::SourceAddress,
        Load::DestinationAddress,
        Load::Protocol,
        Load::DestinationPort,
    ];
    let (key, drawn) = (Register(0), Register(8));
    let time = Duration::from_secs(u64::from(seconds));
    let remember = Rule::new()
        .load_key(&numbered, drawn)
        .value_of(map, drawn, drawn)
        .load_key(&client, key)
        .remember(AFFINITY, key, drawn, time);
    let again = Rule::new().load_key(&client, key).value_of(AFFINITY, key, key);
    vec![remember, again.dnat(key, Register(1))]
}

fn front(side: Side) -> Vec<Load> {
    let parts = [Load::DestinationAddress, Load::Protocol, Load::DestinationPort];
    match side {
        Side::Address => parts.to_vec(),
        Side::Node => parts[1..].to_vec(),
    }
}

fn goto(shape: Shape) -> Verdict {
    Verdict::Goto(chain(shape))
}

fn net(cidr: Ipv4Cidr) -> (Ipv4Addr, u8) {
    (cidr.address(), cidr.prefix())
}
