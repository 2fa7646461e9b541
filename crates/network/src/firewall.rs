//! The pod network's own table in the packet filter: masquerading, host ports,
//! and the guards that go with them.

use std::net::{IpAddr, Ipv4Addr};

use base::Ipv4Cidr;
use netfilter::{
    Batch, Element, Hook, HookKind, Load, Register, Rule, SetSpec, Socket, Type, Value, Verdict,
    priority,
};
use nix::libc;
use node_api::PortMapping;
use parking_lot::Mutex;

use crate::addresses::Allocation;
use crate::{Config, Error};

const TABLE: &str = "sampan-network";
/// Host ports on all addresses of the node.
const PORTS: &str = "host-ports";
/// Host ports on one address.
const ADDRESS_PORTS: &str = "host-address-ports";
/// Pods that may reach themselves through a host port.
const HAIRPIN: &str = "hairpin";

const LOOPBACK: (Ipv4Addr, u8) = (Ipv4Addr::new(127, 0, 0, 0), 8);
const MULTICAST: (Ipv4Addr, u8) = (Ipv4Addr::new(224, 0, 0, 0), 4);

/// The table, open for changes.
#[derive(Debug)]
pub(crate) struct Firewall {
    socket: Mutex<Socket>,
}

impl Firewall {
    /// Puts the table in place of an earlier run's, in one step.
    pub(crate) fn open<'a>(
        config: &Config,
        allocations: impl Iterator<Item = &'a Allocation>,
    ) -> Result<Firewall, Error> {
        let mut socket = Socket::open()?;
        let mut ports = Vec::new();
        for allocation in allocations {
            ports.extend(port_elements(allocation)?);
        }
        let content = |batch: &mut Batch| {
            add_rules(batch, config);
            for (set, element) in &ports {
                batch.add_elements(set, [element]);
            }
        };
        let sets = [PORTS, ADDRESS_PORTS, HAIRPIN];
        socket.put_table(TABLE, &sets, add_frame, content)?;
        allow_forwarding(&mut socket, config)?;
        let socket = Mutex::new(socket);
        Ok(Firewall { socket })
    }

    /// Opens the host ports of a pod.
    pub(crate) fn open_ports(&self, allocation: &Allocation) -> Result<(), Error> {
        let mut batch = Batch::new(TABLE);
        for (set, element) in port_elements(allocation)? {
            batch.add_elements(set, [&element]);
        }
        match self.socket.lock().apply(batch) {
            // Which of the two depends on the age of the kernel.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) => {
                let ports = allocation.port_mappings.iter();
                let ports: Vec<String> = ports.map(|port| port.host_port.to_string()).collect();
                Err(Error::HostPortTaken(ports.join(", ")))
            }
            result => Ok(result?),
        }
    }

    /// Closes the host ports of a pod; ports that are closed are no error.
    pub(crate) fn close_ports(&self, allocation: &Allocation) -> Result<(), Error> {
        if allocation.port_mappings.is_empty() {
            return Ok(());
        }
        let mut socket = self.socket.lock();
        // Another pod may have taken over the port since: only what leads here goes.
        for set in [PORTS, ADDRESS_PORTS] {
            let mine = |value: &Value| value.as_bytes().starts_with(&allocation.address.octets());
            let elements = socket.map_elements(TABLE, set)?;
            let keys = elements.into_iter().filter(|(_, value)| mine(value));
            socket.forget_elements(TABLE, set, keys.map(|(key, _)| key))?;
        }
        let address = allocation.address;
        let hairpin = Value::new().address(address).address(address);
        Ok(socket.forget_elements(TABLE, HAIRPIN, [hairpin])?)
    }
}

/// Other software (Docker, for one) makes the node drop what it forwards unless
/// a rule of iptables' own table says otherwise. No rule of ours elsewhere can
/// overrule that, so there, and only there, pods get a rule.
fn allow_forwarding(socket: &mut Socket, config: &Config) -> Result<(), Error> {
    const TABLE: &str = "filter";
    const CHAIN: &str = "FORWARD";
    const COMMENT: &str = "sampan: pods";
    if !socket.drops_by_default(TABLE, CHAIN)? || socket.has_rule(TABLE, CHAIN, COMMENT)? {
        return Ok(());
    }
    let pods = (config.cluster_cidr.address(), config.cluster_cidr.prefix());
    let mut batch = Batch::new(TABLE);
    for side in [Load::SourceAddress, Load::DestinationAddress] {
        let rule = Rule::new().address(side, true, pods);
        batch.add_commented_rule(CHAIN, &rule.verdict(Verdict::Accept), COMMENT);
    }
    tracing::info!("the node drops forwarded packets by default; pods are excepted");
    Ok(socket.apply(batch)?)
}

/// Sets and base chains.
fn add_frame(batch: &mut Batch) {
    use Type::{Ipv4Address, Port, Protocol};
    let endpoint = [Ipv4Address, Port];
    batch.add_set(&SetSpec::map(PORTS, &[Protocol, Port], &endpoint));
    let key = [Ipv4Address, Protocol, Port];
    batch.add_set(&SetSpec::map(ADDRESS_PORTS, &key, &endpoint));
    batch.add_set(&SetSpec::set(HAIRPIN, &[Ipv4Address, Ipv4Address]));
    let mut base = |name, kind, priority, nat| {
        let hook = Hook {
            kind,
            priority,
            nat,
        };
        batch.add_chain(name, Some(hook));
    };
    base("guard", HookKind::Prerouting, priority::RAW, false);
    base("prerouting", HookKind::Prerouting, priority::DNAT, true);
    base("output", HookKind::Output, priority::DNAT, true);
    base("postrouting", HookKind::Postrouting, priority::SNAT, true);
}

fn add_rules(batch: &mut Batch, config: &Config) {
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
    let jump = Rule::new().verdict(Verdict::Jump("host-ports".to_owned()));
    batch.add_rule("prerouting", &jump);
    batch.add_rule("output", &jump);

    let net = |cidr: Ipv4Cidr| (cidr.address(), cidr.prefix());
    let hairpin = [Load::SourceAddress, Load::DestinationAddress];
    let hairpin = Rule::new().load_key(&hairpin, first).is_in(HAIRPIN, first);
    batch.add_rule("postrouting", &hairpin.masquerade());
    let from_loopback = Rule::new()
        .interface(Load::OutputInterface, &config.bridge)
        .address(Load::SourceAddress, true, LOOPBACK);
    batch.add_rule("postrouting", &from_loopback.masquerade());
    let leaving = Rule::new()
        .address(Load::SourceAddress, true, net(config.pod_cidr))
        .address(Load::DestinationAddress, false, net(config.cluster_cidr))
        .address(Load::DestinationAddress, false, MULTICAST);
    batch.add_rule("postrouting", &leaving.masquerade());

    // The bridge routes loopback addresses, for host ports on 127.0.0.1; nothing
    // on it may use that to reach what listens on loopback only.
    for side in [Load::DestinationAddress, Load::SourceAddress] {
        let loopback = Rule::new()
            .interface(Load::InputInterface, &config.bridge)
            .address(side, true, LOOPBACK);
        batch.add_rule("guard", &loopback.verdict(Verdict::Drop));
    }
}

/// What a pod's host ports are in the sets.
fn port_elements(allocation: &Allocation) -> Result<Vec<(&'static str, Element)>, Error> {
    let address = allocation.address;
    let mut elements = Vec::new();
    let mappings = allocation.port_mappings.iter();
    for mapping in mappings.filter(|mapping| mapping.host_port != 0) {
        let protocol = protocol_number(&mapping.protocol)?;
        let data = Value::new().address(address).port(mapping.container_port);
        let (set, key) = match wanted_address(mapping) {
            Wanted::Any => (PORTS, Value::new()),
            Wanted::One(host) => (ADDRESS_PORTS, Value::new().address(host)),
            Wanted::Other => continue,
        };
        let key = key.protocol(protocol).port(mapping.host_port);
        elements.push((set, Element::Data(key, data)));
    }
    if !elements.is_empty() {
        let key = Value::new().address(address).address(address);
        elements.push((HAIRPIN, Element::Key(key)));
    }
    Ok(elements)
}

enum Wanted {
    Any,
    One(Ipv4Addr),
    /// An address of a family this network does not have.
    Other,
}

fn wanted_address(mapping: &PortMapping) -> Wanted {
    match mapping.host_ip {
        None => Wanted::Any,
        Some(address) if address.is_unspecified() => Wanted::Any,
        Some(IpAddr::V4(address)) => Wanted::One(address),
        Some(IpAddr::V6(_)) => Wanted::Other,
    }
}

fn protocol_number(name: &str) -> Result<u8, Error> {
    match name.to_ascii_uppercase().as_str() {
        "TCP" | "" => Ok(6),
        "UDP" => Ok(17),
        "SCTP" => Ok(132),
        _ => Err(Error::BadProtocol(name.to_owned())),
    }
}
