//! The packet filter's two tables for users' networks: what passes, what is translated.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netfilter::{
    Batch, Element, Family, Hook, HookKind, Load, Register, Rule, SetSpec, Socket, Type, Value,
    Verdict, priority,
};

use super::{Driver, Published, Segment};
use crate::Error;

const TABLE: &str = "sampan-docker";
const PORTS: &str = "host-ports";
const ADDRESS_PORTS: &str = "host-address-ports";
const HAIRPIN: &str = "hairpin";
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
    let addresses: BTreeSet<Ipv4Addr> = ports.iter().filter_map(four).collect();
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
    let sets = [PORTS, ADDRESS_PORTS, HAIRPIN];
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
    add_passage(batch, bridges);
    for bridge in bridges {
        let through = |side| Rule::new().interface(side, &bridge.interface);
        let from_loopback =
            through(Load::OutputInterface).address(Load::SourceAddress, true, LOOPBACK);
        batch.add_rule("postrouting", &from_loopback.masquerade());
        if masquerades(bridge) {
            let net = (bridge.subnet.address(), bridge.subnet.prefix());
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

fn masquerades(bridge: &Segment) -> bool {
    let wanted = |driver: &Driver| {
        matches!(
            driver,
            Driver::Bridge {
                masquerade: true,
                ..
            }
        )
    };
    !bridge.internal && wanted(&bridge.driver)
}

/// What passes between networks and the rest; the same in both families.
fn add_passage(batch: &mut Batch, bridges: &[&Segment]) {
    batch.add_chain("other-network", None);
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
        }
        batch.add_rule("other-network", &through(goes).verdict(Verdict::Drop));
    }
    // Behind all that stays within its network.
    for bridge in bridges {
        let leaving = Rule::new().interface(came, &bridge.interface);
        let other = leaving.verdict(Verdict::Jump("other-network".to_owned()));
        batch.add_rule("forward", &other);
    }
}

fn add_rules6(batch: &mut Batch, bridges: &[&Segment], ports: &[Published]) {
    batch.add_chain("host-ports", None);
    let mut hairpins = BTreeSet::new();
    for port in ports {
        if let IpAddr::V6(address) = port.address {
            batch.add_rule("host-ports", &port6(port, address));
            hairpins.insert(address);
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
    add_passage(batch, bridges);
    for bridge in bridges.iter().filter(|bridge| masquerades(bridge)) {
        let Some(v6) = bridge.v6 else { continue };
        let net = (v6.subnet.address(), v6.subnet.prefix());
        let leaving = Rule::new().address6(Load::SourceAddress6, true, net);
        let leaving = leaving.address6(Load::DestinationAddress6, false, net);
        batch.add_rule("postrouting", &leaving.masquerade());
    }
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
    rule.load(Load::Protocol, scratch)
        .compare(scratch, true, &[port.protocol])
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
    let data = Value::new().address(address).port(port.port);
    let (set, key) = match port.host_address {
        None => (PORTS, Value::new()),
        Some(IpAddr::V4(host)) => (ADDRESS_PORTS, Value::new().address(host)),
        Some(IpAddr::V6(_)) => return None,
    };
    let key = key.protocol(port.protocol).port(port.host_port);
    Some((set, Element::Data(key, data)))
}
