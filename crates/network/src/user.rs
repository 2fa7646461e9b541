//! Networks that users make: bridges with real prefixes and no way from one to another but by
//! published ports, interfaces that share one of the machine's (macvlan, ipvlan), bridges that span
//! machines (overlay).

mod links;
mod rules;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use base::{Ipv4Cidr, Ipv6Cidr};
use netfilter::Socket;
use parking_lot::Mutex;

use crate::links::{Connection, delete, find};
use crate::{Error, namespace, sysctl};

/// What names of overlays' bridges begin with.
const BRIDGE: &str = "br-";

/// One network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Of the interface: a bridge, or the parent of the containers' interfaces.
    pub interface: String,
    pub driver: Driver,
    /// At least one of both.
    pub v4: Option<Subnet<Ipv4Cidr, Ipv4Addr>>,
    pub v6: Option<Subnet<Ipv6Cidr, Ipv6Addr>>,
    /// Nothing leaves it.
    pub internal: bool,
    pub mtu: Option<u32>,
}

/// The half of a network that is of one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet<N, A> {
    pub subnet: N,
    /// Without it, nothing leads out.
    pub gateway: Option<A>,
    /// Whether a bridge has no address in it: another is the gateway, or nobody.
    pub bare: bool,
    pub reach: Reach,
}

/// What others than its own containers and this machine reach in a bridge's network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Ports that are published, by an address of the machine.
    #[default]
    Published,
    /// The same, and by the containers' own addresses everything.
    Everything,
    /// Ports that are published, by the containers' own addresses, which are theirs outside, too.
    Routed,
}

/// What a network is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    Bridge {
        /// Whether its containers reach each other.
        icc: bool,
        /// Whether what leaves it gets an address of the machine.
        masquerade: bool,
    },
    MacVlan(MacMode),
    IpVlan(IpMode, IpFlag),
    /// A bridge whose frames go to other machines, too, over UDP.
    Overlay {
        vni: u32,
        peers: Vec<IpAddr>,
    },
}

/// How interfaces of one parent see each other by macvlan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacMode {
    Bridge,
    Private,
    Vepa,
    Passthru,
}

/// The layer that ipvlan works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpMode {
    L2,
    L3,
    L3S,
}

/// How interfaces of one parent see each other by ipvlan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpFlag {
    Bridge,
    Private,
    Vepa,
}

impl Segment {
    /// Whether the packet filter and published ports know it.
    pub fn is_bridge(&self) -> bool {
        matches!(self.driver, Driver::Bridge { .. })
    }

    /// Whether the machine's end of an endpoint is an interface of its own.
    pub fn has_pairs(&self) -> bool {
        matches!(self.driver, Driver::Bridge { .. } | Driver::Overlay { .. })
    }

    /// Whether it can be the way to everything else.
    pub fn leads_out(&self) -> bool {
        let gateway = |half: Subnet<_, _>| half.gateway.is_some() || self.routes_by_device();
        self.v4.is_some_and(gateway)
    }

    /// The same for IPv6.
    pub fn leads_out6(&self) -> bool {
        let gateway = |half: Subnet<_, _>| half.gateway.is_some() || self.routes_by_device();
        self.v6.is_some_and(gateway)
    }

    /// Whether the default route needs no gateway.
    fn routes_by_device(&self) -> bool {
        matches!(self.driver, Driver::IpVlan(IpMode::L3 | IpMode::L3S, _))
    }
}

/// A container's end of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint<'a> {
    pub netns: &'a Path,
    pub interface: &'a str,
    /// The machine's end, where it has one.
    pub host_interface: &'a str,
    pub address: Option<Ipv4Addr>,
    pub address6: Option<Ipv6Addr>,
    /// More addresses, with the bits of their networks.
    pub others: &'a [(IpAddr, u8)],
    pub hardware: [u8; 6],
    /// Whether everything else is reached by this network's gateway.
    pub default_route: bool,
    /// The same for IPv6.
    pub default_route6: bool,
}

/// A port of the machine that leads to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Number of the protocol.
    pub protocol: u8,
    /// `None` is every address of the machine of the same family as `address`.
    pub host_address: Option<IpAddr>,
    /// 0 for none: the container's own port is reached, where its network is routed.
    pub host_port: u16,
    pub address: IpAddr,
    pub port: u16,
}

/// All networks of one machine, and their tables in the packet filter.
pub struct UserNetworks {
    socket: Mutex<Socket>,
    /// Whether there is an IPv6 table, which most machines can do without.
    six: AtomicBool,
}

impl UserNetworks {
    /// Opens the packet filter of the calling thread's network namespace.
    pub fn open() -> Result<UserNetworks, Error> {
        Ok(UserNetworks {
            socket: Mutex::new(Socket::open()?),
            six: AtomicBool::new(false),
        })
    }

    /// Whether the machine has an interface of that name.
    pub async fn has(&self, interface: &str) -> Result<bool, Error> {
        let name = interface.to_owned();
        Connection::open()?
            .run(|handle| async move { Ok(find(&handle, &name).await?.is_some()) })
            .await
    }

    /// Makes a network's interface unless it is there.
    pub async fn ensure(&self, segment: &Segment) -> Result<(), Error> {
        let made = segment.clone();
        Connection::open()?
            .run(|handle| async move { links::ensure(&handle, &made).await })
            .await?;
        if !segment.is_bridge() {
            return Ok(());
        }
        if segment.v4.is_some() {
            sysctl::set("ip_forward", "1")?;
            sysctl::set(&format!("conf/{}/route_localnet", segment.interface), "1")?;
        }
        match segment.v6 {
            // Not even an address that the kernel gives it.
            Some(half) if half.bare => {
                sysctl::set6(&format!("conf/{}/disable_ipv6", segment.interface), "1")
            }
            Some(_) => sysctl::set6("conf/all/forwarding", "1"),
            None => Ok(()),
        }
    }

    /// Removes what [`UserNetworks::ensure`] has made, or the near end of an endpoint.
    pub async fn remove(&self, interface: &str) -> Result<(), Error> {
        // Ends of containers, which come and go often, have none.
        let tunnel = interface.strip_prefix(BRIDGE).map(links::tunnel);
        let names = tunnel.into_iter().chain([interface.to_owned()]);
        Connection::open()?
            .run(|handle| async move {
                for name in names {
                    delete(&handle, &name).await?;
                }
                Ok(())
            })
            .await
    }

    /// Takes an interface of a container away that has no end on the machine.
    pub async fn remove_inside(&self, netns: &Path, interface: &str) -> Result<(), Error> {
        let name = interface.to_owned();
        namespace::inside(namespace::open(netns)?, Connection::open)
            .await?
            .run(|handle| async move { delete(&handle, &name).await })
            .await
    }

    /// Gives a container an interface in a network.
    pub async fn attach(&self, segment: &Segment, endpoint: &Endpoint<'_>) -> Result<(), Error> {
        let netns = namespace::open(endpoint.netns)?;
        let inside = namespace::inside(netns.clone(), Connection::open).await?;
        let place = links::Place::new(segment, endpoint, netns.as_raw_fd());
        Connection::open()?
            .run(|node| async move { links::create(&node, &place).await })
            .await?;
        let plan = links::Inside::new(segment, endpoint);
        inside
            .run(|handle| async move { links::configure(&handle, &plan).await })
            .await
    }

    /// Replaces all rules by those for these networks and ports, in one step for each family.
    pub fn apply(&self, segments: &[Segment], ports: &[Published]) -> Result<(), Error> {
        let mut socket = self.socket.lock();
        let bridges: Vec<&Segment> = segments.iter().filter(|one| one.is_bridge()).collect();
        rules::put(&mut socket, &bridges, ports)?;
        let wanted = bridges.iter().any(|bridge| bridge.v6.is_some());
        if wanted || self.six.load(Ordering::Relaxed) {
            rules::put6(&mut socket, &bridges, ports)?;
            self.six.store(wanted, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The hardware address that an endpoint has by its address, if nobody wishes for another.
pub fn hardware_address(address: IpAddr) -> [u8; 6] {
    crate::links::hardware_address(address)
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
