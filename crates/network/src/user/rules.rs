//! The packet filter's two tables for users' networks: what passes, what is translated.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netfilter::{
    Batch, Element, Family, Hook, HookKind, Load, Register, Rule, SetSpec, Socket, Type, Value,
    Verdict, priority,
};

use super::{Driver, Published, Reach, Segment};
use crate::Error;

const TABLE: &str = "sampan-docker";
const PORTS: &str = "host-ports";
const ADDRESS_PORTS: &str = "host-address-ports";
const HAIRPIN: &str = "hairpin";
/// Ports of containers that are reached by the containers' own addresses.
const OPEN: &str = "open-ports";
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const LOOPBACK: (Ipv4Addr, u8) = (Ipv4Addr::new(127, 0, 0, 0), 8);

/// Replaces the IPv4 table.
pub(super) fn put(
    socket: &mut Socket,
    bridges: &[&Segment],
    ports: &[Published],
) -> Result<(), Error> {
    let mut elements: Vec<(&str, Element)> = ports.iter().filter_map(element).collect();
    // One for each container, however many ports it has.
    let four = |port: &Published| match port.address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    };
    let mapped = ports.iter().filter(|port| port.host_port != 0);
    let addresses: BTreeSet<Ipv4Addr> = mapped.filter_map(four).collect();
    for address in addresses {
        let own = Value::new().address(address).address(address);
        elements.push((HAIRPIN, Element::Key(own)));
    }
    let content = |batch: &mut Batch| {
        add_rules(batch, bridges);
        for (set, element) in &elements {
            batch.add_elements(set, [element]);
        }
    };
    let sets = [PORTS, ADDRESS_PORTS, HAIRPIN, OPEN];
    Ok(socket.put_table(TABLE, &sets, add_frame, content)?)
}

/// Replaces the IPv6 table. It has a rule for each port instead of maps: there are few.
pub(super) fn put6(
    socket: &mut Socket,
    bridges: &[&Segment],
    ports: &[Published],
) -> Result<(), Error> {
    let content = |batch: &mut Batch| add_rules6(batch, bridges, ports);
    Ok(socket.put_table_of(Family::Ipv6, TABLE, &[], add_chains, content)?)
}

/// Sets and base chains.
fn add_frame(batch: &mut Batch) {
    use Type::{Ipv4Address, Port, Protocol};
    let endpoint = [Ipv4Address, Port];
    batch.add_set(&SetSpec::map(PORTS, &[Protocol, Port], &endpoint));
    let key = [Ipv4Address, Protocol, Port];
    batch.add_set(&SetSpec::map(ADDRESS_PORTS, &key, &endpoint));
    batch.add_set(&SetSpec::set(HAIRPIN, &[Ipv4Address, Ipv4Address]));
    batch.add_set(&SetSpec::set(OPEN, &[Ipv4Address, Protocol, Port]));
    add_chains(batch);
}

fn add_chains(batch: &mut Batch) {
    let mut base = |name, kind, priority, nat| {
        let hook = Hook {
            kind,
            priority,
            nat,
        };
        batch.add_chain(name, Some(hook));
    };
    base("guard", HookKind::Prerouting, priority::RAW, false);
    base("forward", HookKind::Forward, priority::FILTER, false);
    base("prerouting", HookKind::Prerouting, priority::DNAT, true);
    base("output", HookKind::Output, priority::DNAT, true);
    base("postrouting", HookKind::Postrouting, priority::SNAT, true);
}

fn jump(chain: &str) -> Rule {
    Rule::new().verdict(Verdict::Jump(chain.to_owned()))
}

fn add_rules(batch: &mut Batch, bridges: &[&Segment]) {
    let (first, second) = (Register(0), Register(1));
    let dnat = |rule: Rule, key: &[Load], map: &str| {
        let rule = rule.load_key(key, first).value_of(map, first, first);
        rule.dnat(first, second)
    };
    batch.add_chain("host-ports", None);
    let key = [
        Load::DestinationAddress,
        Load::Protocol,
        Load::DestinationPort,
    ];
    batch.add_rule("host-ports", &dnat(Rule::new(), &key, ADDRESS_PORTS));
    let local = Rule::new().to_this_machine();
    batch.add_rule("host-ports", &dnat(local, &key[1..], PORTS));
    batch.add_rule("prerouting", &jump("host-ports"));
    batch.add_rule("output", &jump("host-ports"));
    let pair = [Load::SourceAddress, Load::DestinationAddress];
    let hairpin = Rule::new().load_key(&pair, first).is_in(HAIRPIN, first);
    batch.add_rule("postrouting", &hairpin.masquerade());
    let open = Rule::new().load_key(&key, first).is_in(OPEN, first);
    add_passage(batch, bridges, &[open], |bridge| {
        Some((bridge.v4?.reach, ICMP))
    });
    for bridge in bridges {
        let through = |side| Rule::new().interface(side, &bridge.interface);
        let from_loopback =
            through(Load::OutputInterface).address(Load::SourceAddress, true, LOOPBACK);
        batch.add_rule("postrouting", &from_loopback.masquerade());
        if let Some(half) = bridge.v4.filter(|half| masquerades(bridge, half.reach)) {
            let net = (half.subnet.address(), half.subnet.prefix());
            let leaving = Rule::new().address(Load::SourceAddress, true, net);
            let leaving = leaving.address(Load::DestinationAddress, false, net);
            batch.add_rule("postrouting", &leaving.masquerade());
        }
        // As for pods: nothing on the bridge may reach what listens on loopback only.
        for side in [Load::DestinationAddress, Load::SourceAddress] {
            let loopback = through(Load::InputInterface).address(side, true, LOOPBACK);
            batch.add_rule("guard", &loopback.verdict(Verdict::Drop));
        }
    }
}

/// Whether what leaves gets an address of the machine.
fn masquerades(bridge: &Segment, reach: Reach) -> bool {
    let Driver::Bridge { masquerade, .. } = bridge.driver else {
        return false;
    };
    masquerade && !bridge.internal && reach != Reach::Routed
}

/// What passes between networks and the rest, in one of both families: `reach` tells how a network
/// is reached, and the number of the protocol that tells of faults; `open` finds ports that are
/// reached by their own addresses.
fn add_passage(
    batch: &mut Batch,
    bridges: &[&Segment],
    open: &[Rule],
    reach: impl Fn(&Segment) -> Option<(Reach, u8)>,
) {
    batch.add_chain("open", None);
    for rule in open {
        batch.add_rule("open", &rule.clone().verdict(Verdict::Accept));
    }
    batch.add_rule("open", &Rule::new().verdict(Verdict::Drop));
    let known = Rule::new().belongs_to_connection();
    batch.add_rule("forward", &known.verdict(Verdict::Accept));
    let (came, goes) = (Load::InputInterface, Load::OutputInterface);
    for bridge in bridges {
        let through = |side| Rule::new().interface(side, &bridge.interface);
        let stays = through(came).interface(goes, &bridge.interface);
        let verdict = match bridge.driver {
            Driver::Bridge { icc: false, .. } => Verdict::Drop,
            _ => Verdict::Accept,
        };
        batch.add_rule("forward", &stays.verdict(verdict));
        if bridge.internal {
            batch.add_rule("forward", &through(came).verdict(Verdict::Drop));
            batch.add_rule("forward", &through(goes).verdict(Verdict::Drop));
            continue;
        }
        match reach(bridge) {
            Some((Reach::Published, _)) => {
                let published = through(goes).is_redirected();
                batch.add_rule("forward", &published.verdict(Verdict::Accept));
                batch.add_rule("forward", &through(goes).verdict(Verdict::Drop));
            }
            Some((Reach::Routed, faults)) => {
                let faults = through(goes).protocol(faults);
                batch.add_rule("forward", &faults.verdict(Verdict::Accept));
                let open = Verdict::Jump("open".to_owned());
                batch.add_rule("forward", &through(goes).verdict(open));
            }
            Some((Reach::Everything, _)) | None => {}
        }
    }
}

fn add_rules6(batch: &mut Batch, bridges: &[&Segment], ports: &[Published]) {
    batch.add_chain("host-ports", None);
    let mut hairpins = BTreeSet::new();
    let mut open = Vec::new();
    for port in ports {
        match port.address {
            IpAddr::V6(address) if port.host_port == 0 => open.push(open6(port, address)),
            IpAddr::V6(address) => {
                batch.add_rule("host-ports", &port6(port, address));
                hairpins.insert(address);
            }
            IpAddr::V4(_) => {}
        }
    }
    batch.add_rule("prerouting", &jump("host-ports"));
    batch.add_rule("output", &jump("host-ports"));
    for address in hairpins {
        let own = (address, 128);
        let rule = Rule::new().address6(Load::SourceAddress6, true, own);
        let rule = rule.address6(Load::DestinationAddress6, true, own);
        batch.add_rule("postrouting", &rule.masquerade());
    }
    add_passage(batch, bridges, &open, |bridge| {
        Some((bridge.v6?.reach, ICMP6))
    });
    for bridge in bridges {
        let half = bridge.v6.filter(|half| masquerades(bridge, half.reach));
        let Some(half) = half else { continue };
        let net = (half.subnet.address(), half.subnet.prefix());
        let leaving = Rule::new().address6(Load::SourceAddress6, true, net);
        let leaving = leaving.address6(Load::DestinationAddress6, false, net);
        batch.add_rule("postrouting", &leaving.masquerade());
    }
}

/// Finds what goes to a port of a container.
fn open6(port: &Published, address: Ipv6Addr) -> Rule {
    let rule = Rule::new().address6(Load::DestinationAddress6, true, (address, 128));
    let rule = rule.protocol(port.protocol);
    let rule = rule.load(Load::DestinationPort, Register(0));
    rule.compare(Register(0), true, &port.port.to_be_bytes())
}

/// Leads a port of the machine to a container.
fn port6(port: &Published, address: Ipv6Addr) -> Rule {
    let (scratch, to, to_port) = (Register(0), Register(4), Register(8));
    let rule = match port.host_address {
        Some(IpAddr::V6(host)) => {
            Rule::new().address6(Load::DestinationAddress6, true, (host, 128))
        }
        _ => Rule::new().to_this_machine(),
    };
    rule.protocol(port.protocol)
        .load(Load::DestinationPort, scratch)
        .compare(scratch, true, &port.host_port.to_be_bytes())
        .constant(&address.octets(), to)
        .constant(&port.port.to_be_bytes(), to_port)
        .dnat_of(Family::Ipv6, to, to_port)
}

fn element(port: &Published) -> Option<(&'static str, Element)> {
    let IpAddr::V4(address) = port.address else {
        return None;
    };
    if port.host_port == 0 {
        let key = Value::new().address(address).protocol(port.protocol);
        return Some((OPEN, Element::Key(key.port(port.port))));
    }
    let data = Value::new().address(address).port(port.port);
    let (set, key) = match port.host_address {
        None => (PORTS, Value::new()),
        Some(IpAddr::V4(host)) => (ADDRESS_PORTS, Value::new().address(host)),
        Some(IpAddr::V6(_)) => return None,
    };
    let key = key.protocol(port.protocol).port(port.host_port);
    Some((set, Element::Data(key, data)))
}
