//! Networks that users make: a bridge each, real prefixes, no way from one to another but by
//! published ports.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;

use base::Ipv4Cidr;
use netfilter::{
    Batch, Element, Hook, HookKind, Load, Register, Rule, SetSpec, Socket, Type, Value, Verdict,
    priority,
};
use parking_lot::Mutex;

use crate::links::{self, Connection, Pair};
use crate::{Error, namespace, sysctl};

const TABLE: &str = "sampan-docker";
const PORTS: &str = "host-ports";
const ADDRESS_PORTS: &str = "host-address-ports";
const HAIRPIN: &str = "hairpin";
const LOOPBACK: (Ipv4Addr, u8) = (Ipv4Addr::new(127, 0, 0, 0), 8);

/// One network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Of the interface.
    pub name: String,
    pub subnet: Ipv4Cidr,
    pub gateway: Ipv4Addr,
    /// Nothing leaves it.
    pub internal: bool,
}

/// A container's end of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint<'a> {
    pub netns: &'a Path,
    pub interface: &'a str,
    pub host_interface: &'a str,
    pub address: Ipv4Addr,
    /// Without it the interface has a hardware address that goes with its address.
    pub hardware: Option<[u8; 6]>,
    /// Whether everything else is reached by this network's gateway.
    pub default_route: bool,
}

/// A port of the machine that leads to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Number of the protocol.
    pub protocol: u8,
    /// `None` is every address of the machine.
    pub host_address: Option<Ipv4Addr>,
    pub host_port: u16,
    pub address: Ipv4Addr,
    pub port: u16,
}

/// All networks of one machine, and their table in the packet filter.
pub struct UserNetworks {
    socket: Mutex<Socket>,
}

impl UserNetworks {
    /// Opens the packet filter of the calling thread's network namespace.
    pub fn open() -> Result<UserNetworks, Error> {
        let socket = Mutex::new(Socket::open()?);
        Ok(UserNetworks { socket })
    }

    /// Makes a network's bridge unless it is there.
    pub async fn ensure(&self, bridge: &Bridge) -> Result<(), Error> {
        let (name, gateway) = (bridge.name.clone(), bridge.gateway);
        let prefix = bridge.subnet.prefix();
        Connection::open()?
            .run(|handle| async move {
                links::ensure_bridge(&handle, &name, gateway, prefix, None).await
            })
            .await?;
        sysctl::set("ip_forward", "1")?;
        sysctl::set(&format!("conf/{}/route_localnet", bridge.name), "1")
    }

    /// Removes an interface: a network's bridge, or the near end of an endpoint.
    pub async fn remove(&self, interface: &str) -> Result<(), Error> {
        let name = interface.to_owned();
        Connection::open()?
            .run(|handle| async move { links::delete(&handle, &name).await })
            .await
    }

    /// Gives a container an interface in a network.
    pub async fn attach(&self, bridge: &Bridge, endpoint: &Endpoint<'_>) -> Result<(), Error> {
        let netns = namespace::open(endpoint.netns)?;
        let inside = namespace::inside(netns.clone(), Connection::open).await?;
        let name = bridge.name.clone();
        let index = Connection::open()?
            .run(|handle| async move { links::find(&handle, &name).await })
            .await?;
        let missing = || Error::NoInterface {
            name: bridge.name.clone(),
            netns: "/proc/self/ns/net".into(),
        };
        let pair = Pair {
            host_interface: endpoint.host_interface,
            interface: endpoint.interface,
            netns: netns.as_raw_fd(),
            address: endpoint.address,
            bridge: index.ok_or_else(missing)?,
            mtu: None,
            hardware: endpoint.hardware,
        };
        Connection::open()?
            .run(|node| async move { links::create_pair(&node, &pair).await })
            .await?;
        let gateway = endpoint.default_route.then_some(bridge.gateway);
        let (interface, address) = (endpoint.interface.to_owned(), endpoint.address);
        let prefix = bridge.subnet.prefix();
        inside
            .run(|handle| async move {
                links::configure_endpoint(&handle, &interface, address, prefix, gateway).await
            })
            .await
    }

    /// Replaces all rules by those for these networks and ports, in one step.
    pub fn apply(&self, bridges: &[Bridge], ports: &[Published]) -> Result<(), Error> {
        let mut elements: Vec<(&str, Element)> = ports.iter().map(element).collect();
        // One for each container, however many ports it has.
        let addresses: BTreeSet<Ipv4Addr> = ports.iter().map(|port| port.address).collect();
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
        Ok(self
            .socket
            .lock()
            .put_table(TABLE, &sets, add_frame, content)?)
    }
}

/// A socket inside another network namespace.
pub async fn bind_inside(netns: &Path, address: SocketAddr) -> Result<UdpSocket, Error> {
    let netns = namespace::open(netns)?;
    namespace::inside(netns, move || {
        let bound = UdpSocket::bind(address).and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        bound.map_err(Error::io(format!("bind {address}")))
    })
    .await
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
    base("forward", HookKind::Forward, priority::FILTER, false);
    base("prerouting", HookKind::Prerouting, priority::DNAT, true);
    base("output", HookKind::Output, priority::DNAT, true);
    base("postrouting", HookKind::Postrouting, priority::SNAT, true);
}

fn add_rules(batch: &mut Batch, bridges: &[Bridge]) {
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
    let jump = |chain: &str| Rule::new().verdict(Verdict::Jump(chain.to_owned()));
    batch.add_rule("prerouting", &jump("host-ports"));
    batch.add_rule("output", &jump("host-ports"));
    let pair = [Load::SourceAddress, Load::DestinationAddress];
    let hairpin = Rule::new().load_key(&pair, first).is_in(HAIRPIN, first);
    batch.add_rule("postrouting", &hairpin.masquerade());
    batch.add_chain("other-network", None);
    for bridge in bridges {
        let net = (bridge.subnet.address(), bridge.subnet.prefix());
        let through = |side| Rule::new().interface(side, &bridge.name);
        let (came, goes) = (Load::InputInterface, Load::OutputInterface);
        let stays = through(came).interface(goes, &bridge.name);
        batch.add_rule("forward", &stays.verdict(Verdict::Accept));
        if bridge.internal {
            batch.add_rule("forward", &through(came).verdict(Verdict::Drop));
            batch.add_rule("forward", &through(goes).verdict(Verdict::Drop));
        }
        batch.add_rule("other-network", &through(goes).verdict(Verdict::Drop));
        let from_loopback = through(goes).address(Load::SourceAddress, true, LOOPBACK);
        batch.add_rule("postrouting", &from_loopback.masquerade());
        if !bridge.internal {
            let leaving = Rule::new().address(Load::SourceAddress, true, net).address(
                Load::DestinationAddress,
                false,
                net,
            );
            batch.add_rule("postrouting", &leaving.masquerade());
        }
        // As for pods: nothing on the bridge may reach what listens on loopback only.
        for side in [Load::DestinationAddress, Load::SourceAddress] {
            let loopback = through(came).address(side, true, LOOPBACK);
            batch.add_rule("guard", &loopback.verdict(Verdict::Drop));
        }
    }
    // Behind all that stays within its network.
    for bridge in bridges {
        let leaving = Rule::new().interface(Load::InputInterface, &bridge.name);
        let other = leaving.verdict(Verdict::Jump("other-network".to_owned()));
        batch.add_rule("forward", &other);
    }
}

fn element(port: &Published) -> (&'static str, Element) {
    let data = Value::new().address(port.address).port(port.port);
    let (set, key) = match port.host_address {
        None => (PORTS, Value::new()),
        Some(address) => (ADDRESS_PORTS, Value::new().address(address)),
    };
    let key = key.protocol(port.protocol).port(port.host_port);
    (set, Element::Data(key, data))
}

/// Networks that the machine has a way to, the default route left out.
pub async fn routed_networks() -> Result<Vec<Ipv4Cidr>, Error> {
    let text = tokio::fs::read_to_string("/proc/net/route").await;
    let text = text.map_err(Error::io("read /proc/net/route"))?;
    let number = |field: Option<&str>| {
        let bits = u32::from_str_radix(field?, 16).ok()?;
        Some(u32::from_be(bits))
    };
    let network = |line: &str| {
        let mut fields = line.split_whitespace();
        let address = number(fields.nth(1))?;
        let mask = number(fields.nth(5))?;
        let prefix = u8::try_from(mask.leading_ones()).ok()?;
        (prefix > 0).then(|| Ipv4Cidr::new(Ipv4Addr::from_bits(address), prefix))
    };
    Ok(text.lines().skip(1).filter_map(network).collect())
}

/// The name of the near end of an endpoint: always the same for the same container and place.
pub fn host_interface(container: &str, place: usize) -> String {
    let short: String = container.chars().take(9).collect();
    format!("sdv{short}{place}")
}
