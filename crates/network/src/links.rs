//! Interfaces, addresses and routes, by rtnetlink.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;

use base::Ipv4Cidr;
use futures::TryStreamExt;
use nix::libc;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::{InfoBridgePort, InfoData, InfoKind, InfoVeth};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType,
};
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth,
    RouteMessageBuilder,
};

use crate::Error;

/// A netlink connection that nobody drives yet; bound to the network namespace
/// it was made in.
pub(crate) struct Connection {
    drive: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
    handle: Handle,
}

impl Connection {
    /// Connects to the calling thread's network namespace.
    pub(crate) fn open() -> Result<Connection, Error> {
        let opened = rtnetlink::new_connection();
        let (connection, handle, _) = opened.map_err(Error::io("open netlink"))?;
        let drive = Box::pin(connection);
        Ok(Connection { drive, handle })
    }

    /// Runs `work` on the connection, then closes it.
    pub(crate) async fn run<T, F>(self, work: impl FnOnce(Handle) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let work = work(self.handle);
        tokio::select! {
            result = work => result,
            () = self.drive => Err(Error::Interrupted),
        }
    }
}

/// Brings `lo` of the calling thread's network namespace up.
pub async fn bring_up_loopback() -> Result<(), Error> {
    Connection::open()?
        .run(|handle| async move { set_loopback_up(&handle).await })
        .await
}

/// Brings `lo` of the network namespace up that a path names.
pub async fn bring_up_loopback_of(netns: &std::path::Path) -> Result<(), Error> {
    let netns = crate::namespace::open(netns)?;
    let inside = crate::namespace::inside(netns, Connection::open).await?;
    inside
        .run(|handle| async move { set_loopback_up(&handle).await })
        .await
}

/// The IPv4 address of the interface that the default route leaves by.
pub async fn default_route_address() -> Result<Option<Ipv4Addr>, Error> {
    let connection = Connection::open()?;
    connection
        .run(|handle| async move { find_default_address(&handle).await })
        .await
}

/// The loopback interface has index 1 in every namespace.
const LOOPBACK: u32 = 1;

pub(crate) async fn set_loopback_up(handle: &Handle) -> Result<(), Error> {
    let message = LinkUnspec::new_with_index(LOOPBACK).up().build();
    let result = handle.link().set(message).execute().await;
    result.map_err(Error::link("bring lo up"))
}

/// The index of an interface, if there is one of that name.
pub(crate) async fn find(handle: &Handle, name: &str) -> Result<Option<u32>, Error> {
    let request = handle.link().get().match_name(name);
    match request.execute().try_next().await {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(error) if has_code(&error, libc::ENODEV) => Ok(None),
        Err(error) => Err(Error::link(format!("look for {name}"))(error)),
    }
}

/// Deletes an interface; one that is gone is no error.
pub(crate) async fn delete(handle: &Handle, name: &str) -> Result<(), Error> {
    let message = LinkUnspec::new_with_name(name).build();
    match handle.link().del_with_message(message).execute().await {
        Err(error) if !has_code(&error, libc::ENODEV) => {
            Err(Error::link(format!("delete {name}"))(error))
        }
        _ => Ok(()),
    }
}

/// Creates the bridge, with the hardware address that goes with the gateway's, unless it is there.
pub(crate) async fn ensure_bridge(
    handle: &Handle,
    name: &str,
    gateway: IpAddr,
    mtu: Option<u32>,
) -> Result<u32, Error> {
    // With an address of its own the bridge does not take on those of its
    // ports, so pods never see the gateway's change.
    let message = LinkBridge::new(name)
        .address(hardware_address(gateway).to_vec())
        .up();
    let message = match mtu {
        Some(mtu) => message.mtu(mtu),
        None => message,
    };
    match handle.link().add(message.build()).execute().await {
        Err(error) if !has_code(&error, libc::EEXIST) => {
            return Err(Error::link(format!("create bridge {name}"))(error));
        }
        _ => {}
    }
    let index = find(handle, name).await?.ok_or(Error::Interrupted)?;
    let up = LinkUnspec::new_with_index(index).up().build();
    let result = handle.link().set(up).execute().await;
    result.map_err(Error::link(format!("bring {name} up")))?;
    Ok(index)
}

/// The hardware address that goes with an address: whoever gets the
/// address next has the same, so no neighbour's memory of it is ever stale.
pub(crate) fn hardware_address(address: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = match address {
        IpAddr::V4(address) => address.octets(),
        // The end of it is what differs among neighbours.
        IpAddr::V6(address) => (address.to_bits() as u32).to_be_bytes(),
    };
    [0x0a, 0x58, a, b, c, d]
}

/// One pair of interfaces, from the node's bridge into a pod.
pub(crate) struct Pair<'a> {
    pub(crate) host_interface: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) netns: RawFd,
    /// The far end's address.
    pub(crate) hardware: [u8; 6],
    pub(crate) bridge: u32,
    pub(crate) mtu: Option<u32>,
}

/// Creates a pair, its far end straight in the pod's namespace.
pub(crate) async fn create_pair(handle: &Handle, pair: &Pair<'_>) -> Result<(), Error> {
    let mut far = LinkMessageBuilder::<LinkUnspec>::new()
        .name(pair.interface)
        .address(pair.hardware.to_vec())
        .setns_by_fd(pair.netns);
    let mut near = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(pair.host_interface)
        .controller(pair.bridge)
        .up();
    if let Some(mtu) = pair.mtu {
        (far, near) = (far.mtu(mtu), near.mtu(mtu));
    }
    let near = near.set_info_data(InfoData::Veth(InfoVeth::Peer(far.build())));
    let result = handle.link().add(near.build()).execute().await;
    result.map_err(Error::link(format!("create {}", pair.host_interface)))?;
    // Where br_netfilter translates on the bridge itself, a pod that reaches
    // itself through a service is sent back out of the port it came in by.
    let Some(index) = find(handle, pair.host_interface).await? else {
        return Err(Error::Interrupted);
    };
    let port = LinkBridgePort::new(index).append_info_data(InfoBridgePort::HairpinMode(true));
    let result = handle.link().set_port(port.build()).execute().await;
    result.map_err(Error::link(format!(
        "set hairpin mode of {}",
        pair.host_interface
    )))
}

/// Sets up a pod's end: loopback, address, and everything by the gateway.
pub(crate) async fn configure_pod(
    handle: &Handle,
    interface: u32,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
) -> Result<(), Error> {
    set_loopback_up(handle).await?;
    add_address(handle, interface, IpAddr::V4(address), 32).await?;
    let up = LinkUnspec::new_with_index(interface).up().build();
    let result = handle.link().set(up).execute().await;
    result.map_err(Error::link("bring the pod's interface up"))?;
    let to_gateway = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(gateway, 32)
        .output_interface(interface)
        .scope(RouteScope::Link);
    add_route(handle, to_gateway.build()).await?;
    let by_gateway = RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(gateway)
        .output_interface(interface);
    add_route(handle, by_gateway.build()).await
}

/// Routes the services' range to the bridge. The packet filter translates or
/// rejects it before it gets there; the route makes local connections
/// possible at all, and keeps them off the default route without the filter.
pub(crate) async fn route_services(
    handle: &Handle,
    services: Ipv4Cidr,
    bridge: u32,
    gateway: Ipv4Addr,
) -> Result<(), Error> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(services.address(), services.prefix())
        .output_interface(bridge)
        .pref_source(gateway)
        .scope(RouteScope::Link);
    add_route(handle, route.build()).await
}

/// Makes the range unreachable where no longer prefix leads on.
pub(crate) async fn block(handle: &Handle, range: Ipv4Cidr) -> Result<(), Error> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(range.address(), range.prefix())
        .kind(RouteType::Unreachable);
    add_route(handle, route.build()).await
}

pub(crate) async fn add_route(handle: &Handle, route: RouteMessage) -> Result<(), Error> {
    let result = handle.route().add(route).replace().execute().await;
    result.map_err(Error::link("add a route"))
}

pub(crate) async fn add_address(
    handle: &Handle,
    index: u32,
    address: IpAddr,
    prefix: u8,
) -> Result<(), Error> {
    let mut request = handle.address().add(index, address, prefix);
    if address.is_ipv6() {
        // Whoever gives addresses out knows that nobody else has this one; nobody waits for that.
        let message = request.message_mut();
        message.header.flags |= AddressHeaderFlags::Nodad;
    }
    let result = request.replace().execute().await;
    result.map_err(Error::link(format!("add address {address}")))
}

async fn find_default_address(handle: &Handle) -> Result<Option<Ipv4Addr>, Error> {
    let request = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let mut routes = handle.route().get(request).execute();
    let mut interface = None;
    while let Some(route) = routes
        .try_next()
        .await
        .map_err(Error::link("list routes"))?
    {
        if route.header.destination_prefix_length != 0 || route.header.kind != RouteType::Unicast {
            continue;
        }
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::PrefSource(RouteAddress::Inet(source)) => return Ok(Some(*source)),
                RouteAttribute::Oif(index) => {
                    interface.get_or_insert(*index);
                }
                _ => {}
            }
        }
    }
    let Some(interface) = interface else {
        return Ok(None);
    };
    let mut addresses = handle
        .address()
        .get()
        .set_link_index_filter(interface)
        .execute();
    let listing = Error::link("list addresses");
    let mut found = None;
    while let Some(message) = match addresses.try_next().await {
        Ok(message) => message,
        Err(error) => return Err(listing(error)),
    } {
        found = found.or_else(|| global_address(&message));
    }
    Ok(found)
}

fn global_address(message: &AddressMessage) -> Option<Ipv4Addr> {
    if message.header.scope != AddressScope::Universe {
        return None;
    }
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        })
}

pub(crate) fn has_code(error: &rtnetlink::Error, code: i32) -> bool {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            io::Error::from(message.clone()).raw_os_error() == Some(code)
        }
        _ => false,
    }
}
