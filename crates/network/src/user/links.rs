//! Interfaces of users' networks: the machine's, and those of containers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

use nix::libc;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::link::{InfoBridgePort, IpVlanFlags, IpVlanMode, MacVlanMode};
use rtnetlink::packet_route::{RouteNetlinkMessage, link::LinkMessage, neighbour::NeighbourFlags};
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkDummy, LinkIpVlan, LinkMacVlan, LinkMessageBuilder,
    LinkUnspec, LinkVlan, LinkVxlan, RouteMessageBuilder,
};

use super::{BRIDGE, Driver, Endpoint, IpFlag, IpMode, MacMode, Segment};
use crate::Error;
use crate::links::{self, Pair, find, has_code};

/// Where overlays' frames go: the number that IANA gave, and docker's, too.
const OVERLAY_PORT: u16 = 4789;
/// What overlays' own headers take of a frame of 1500 bytes.
const OVERLAY_MTU: u32 = 1450;

/// The interface that leads from an overlay's bridge to other machines, by the rest of its name.
pub(super) fn tunnel(id: &str) -> String {
    format!("vx-{id}")
}

/// Makes what a network needs on the machine, unless it is there.
pub(super) async fn ensure(handle: &Handle, segment: &Segment) -> Result<(), Error> {
    match &segment.driver {
        Driver::Bridge { .. } => {
            let addresses = bridge_addresses(segment);
            // Without an address in the network it has what is nobody else's there.
            let first = addresses.first().map(|(address, _)| *address);
            let first = first
                .or_else(|| Some(IpAddr::V4(segment.v4?.subnet.address())))
                .or_else(|| Some(IpAddr::V6(segment.v6?.subnet.address())));
            let first = first.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            let name = &segment.interface;
            let index = links::ensure_bridge(handle, name, first, segment.mtu).await?;
            for (address, prefix) in addresses {
                links::add_address(handle, index, address, prefix).await?;
            }
            Ok(())
        }
        Driver::Overlay { vni, peers } => ensure_overlay(handle, segment, *vni, peers).await,
        Driver::MacVlan(_) | Driver::IpVlan(..) => ensure_parent(handle, &segment.interface).await,
    }
}

/// The machine's own addresses in a bridge's network: its containers' gateways.
fn bridge_addresses(segment: &Segment) -> Vec<(IpAddr, u8)> {
    let four = segment.v4.filter(|half| !half.bare).map(|half| {
        // Whoever names no gateway can still be reached by the machine.
        let address = half.gateway.unwrap_or(half.subnet.address());
        (IpAddr::V4(address), half.subnet.prefix())
    });
    let six = segment.v6.filter(|half| !half.bare);
    let six = six.and_then(|half| Some((IpAddr::V6(half.gateway?), half.subnet.prefix())));
    four.into_iter().chain(six).collect()
}

/// A parent that is not there may be made: `eth0.10` is VLAN 10 of `eth0`, `dm-…` leads nowhere.
async fn ensure_parent(handle: &Handle, name: &str) -> Result<(), Error> {
    if find(handle, name).await?.is_some() {
        return Ok(());
    }
    let wrong = || Error::BadParent(name.to_owned());
    let message: LinkMessage = match name.rsplit_once('.') {
        Some((parent, id)) => {
            let id: u16 = id.parse().map_err(|_| wrong())?;
            let index = find(handle, parent).await?.ok_or_else(wrong)?;
            LinkVlan::new(name, index, id).up().build()
        }
        None if name.starts_with("dm-") => LinkDummy::new(name).up().build(),
        None => return Err(wrong()),
    };
    add(handle, message, name).await
}

async fn add(handle: &Handle, message: LinkMessage, name: &str) -> Result<(), Error> {
    match handle.link().add(message).execute().await {
        Err(error) if has_code(&error, libc::EEXIST) => Ok(()),
        result => result.map_err(Error::link(format!("create {name}"))),
    }
}

async fn ensure_overlay(
    handle: &Handle,
    segment: &Segment,
    vni: u32,
    peers: &[IpAddr],
) -> Result<(), Error> {
    let mtu = segment.mtu.unwrap_or(OVERLAY_MTU);
    let name = &segment.interface;
    // No address: what is in the overlay does not meet the machine.
    add(handle, LinkBridge::new(name).mtu(mtu).up().build(), name).await?;
    let bridge = find(handle, name).await?.ok_or(Error::Interrupted)?;
    let id = name.strip_prefix(BRIDGE).unwrap_or(name);
    let tunnel = tunnel(id);
    if find(handle, &tunnel).await?.is_none() {
        let message = LinkVxlan::new(&tunnel, vni).port(OVERLAY_PORT);
        let message = message.learning(true).controller(bridge).mtu(mtu).up();
        add(handle, message.build(), &tunnel).await?;
    } else {
        return Ok(());
    }
    let index = find(handle, &tunnel).await?.ok_or(Error::Interrupted)?;
    for peer in peers {
        add_peer(handle, index, *peer).await?;
    }
    Ok(())
}

/// One more machine that gets what goes to everybody; who is where is learned from what comes.
async fn add_peer(handle: &Handle, index: u32, peer: IpAddr) -> Result<(), Error> {
    let request = handle.neighbours();
    let request = request.add_bridge(index, &[0; 6]).destination(peer);
    // For the tunnel itself, not for the bridge that it is a port of.
    let mut request = request.flags(NeighbourFlags::Own);
    let message = request.message_mut().clone();
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(message));
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND;
    let failed = Error::link(format!("add the peer {peer}"));
    let mut handle = handle.clone();
    let mut answers = match handle.request(message) {
        Ok(answers) => answers,
        Err(error) => return Err(failed(error)),
    };
    while let Some(answer) = futures::StreamExt::next(&mut answers).await {
        if let NetlinkPayload::Error(error) = answer.payload
            && error.code.is_some()
        {
            return Err(failed(rtnetlink::Error::NetlinkError(error)));
        }
    }
    Ok(())
}

/// An endpoint to be made on the machine's side.
pub(super) struct Place {
    parent: String,
    driver: Driver,
    host_interface: String,
    interface: String,
    netns: RawFd,
    hardware: [u8; 6],
    mtu: Option<u32>,
}

impl Place {
    pub(super) fn new(segment: &Segment, endpoint: &Endpoint<'_>, netns: RawFd) -> Place {
        let usual = matches!(segment.driver, Driver::Overlay { .. }).then_some(OVERLAY_MTU);
        Place {
            parent: segment.interface.clone(),
            driver: segment.driver.clone(),
            host_interface: endpoint.host_interface.to_owned(),
            interface: endpoint.interface.to_owned(),
            netns,
            hardware: endpoint.hardware,
            mtu: segment.mtu.or(usual),
        }
    }
}

/// Makes an endpoint, its end straight in the container's namespace.
pub(super) async fn create(handle: &Handle, place: &Place) -> Result<(), Error> {
    let parent = find(handle, &place.parent).await?;
    let parent = parent.ok_or_else(|| Error::NoInterface {
        name: place.parent.clone(),
        netns: "/proc/self/ns/net".into(),
    })?;
    let name = place.interface.as_str();
    let message = match &place.driver {
        Driver::Bridge { .. } | Driver::Overlay { .. } => {
            return create_pair(handle, place, parent).await;
        }
        // It shares its parent's hardware address, or takes it over.
        Driver::MacVlan(MacMode::Passthru) => inside(
            LinkMacVlan::new(name, parent, MacVlanMode::Passthrough),
            place,
        ),
        Driver::MacVlan(mode) => {
            let link = LinkMacVlan::new(name, parent, mac_mode(*mode));
            inside(link.address(place.hardware.to_vec()), place)
        }
        Driver::IpVlan(mode, flag) => {
            let link = LinkIpVlan::new(name, parent, ip_mode(*mode));
            inside(link.flag(ip_flag(*flag)), place)
        }
    };
    let result = handle.link().add(message).execute().await;
    result.map_err(Error::link(format!("create {name} of {}", place.parent)))
}

/// An interface that is to be in the container's namespace.
fn inside<T>(link: LinkMessageBuilder<T>, place: &Place) -> LinkMessage {
    let link = link.setns_by_fd(place.netns);
    match place.mtu {
        Some(mtu) => link.mtu(mtu).build(),
        None => link.build(),
    }
}

async fn create_pair(handle: &Handle, place: &Place, bridge: u32) -> Result<(), Error> {
    let pair = Pair {
        host_interface: &place.host_interface,
        interface: &place.interface,
        netns: place.netns,
        hardware: place.hardware,
        bridge,
        mtu: place.mtu,
    };
    links::create_pair(handle, &pair).await?;
    if !matches!(place.driver, Driver::Bridge { icc: false, .. }) {
        return Ok(());
    }
    let index = find(handle, &place.host_interface).await?;
    let index = index.ok_or(Error::Interrupted)?;
    let port = LinkBridgePort::new(index).append_info_data(InfoBridgePort::Isolated(true));
    let result = handle.link().set_port(port.build()).execute().await;
    result.map_err(Error::link(format!("isolate {}", place.host_interface)))
}

fn mac_mode(mode: MacMode) -> MacVlanMode {
    match mode {
        MacMode::Bridge => MacVlanMode::Bridge,
        MacMode::Private => MacVlanMode::Private,
        MacMode::Vepa => MacVlanMode::Vepa,
        MacMode::Passthru => MacVlanMode::Passthrough,
    }
}

fn ip_mode(mode: IpMode) -> IpVlanMode {
    match mode {
        IpMode::L2 => IpVlanMode::L2,
        IpMode::L3 => IpVlanMode::L3,
        IpMode::L3S => IpVlanMode::L3S,
    }
}

fn ip_flag(flag: IpFlag) -> IpVlanFlags {
    match flag {
        IpFlag::Bridge => IpVlanFlags::empty(),
        IpFlag::Private => IpVlanFlags::Private,
        IpFlag::Vepa => IpVlanFlags::Vepa,
    }
}

/// What is done inside the container's namespace.
pub(super) struct Inside {
    interface: String,
    addresses: Vec<(IpAddr, u8)>,
    /// Default routes; without a gateway by the interface alone.
    route: Option<Option<Ipv4Addr>>,
    route6: Option<Option<Ipv6Addr>>,
}

impl Inside {
    pub(super) fn new(segment: &Segment, endpoint: &Endpoint<'_>) -> Inside {
        let four = endpoint.address.zip(segment.v4);
        let six = endpoint.address6.zip(segment.v6);
        let four = four.map(|(address, half)| (IpAddr::V4(address), half.subnet.prefix()));
        let six = six.map(|(address, half)| (IpAddr::V6(address), half.subnet.prefix()));
        let addresses = four.into_iter().chain(six);
        let by_device = segment.routes_by_device();
        let gateway = segment.v4.and_then(|half| half.gateway);
        let gateway6 = segment.v6.and_then(|half| half.gateway);
        let wanted = endpoint.default_route && segment.leads_out();
        let wanted6 = endpoint.default_route6 && segment.leads_out6();
        Inside {
            interface: endpoint.interface.to_owned(),
            addresses: addresses.chain(endpoint.others.iter().copied()).collect(),
            route: wanted.then_some(gateway.filter(|_| !by_device)),
            route6: wanted6.then_some(gateway6.filter(|_| !by_device)),
        }
    }
}

/// Sets up a container's end: loopback, addresses, perhaps default routes.
pub(super) async fn configure(handle: &Handle, plan: &Inside) -> Result<(), Error> {
    links::set_loopback_up(handle).await?;
    let found = find(handle, &plan.interface).await?;
    let index = found.ok_or(Error::Interrupted)?;
    for (address, prefix) in &plan.addresses {
        links::add_address(handle, index, *address, *prefix).await?;
    }
    let up = LinkUnspec::new_with_index(index).up().build();
    let result = handle.link().set(up).execute().await;
    result.map_err(Error::link(format!("bring {} up", plan.interface)))?;
    if let Some(gateway) = plan.route {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index);
        let route = gateway
            .into_iter()
            .fold(route, |route, way| route.gateway(way));
        links::add_route(handle, route.build()).await?;
    }
    if let Some(gateway) = plan.route6 {
        let route = RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index);
        let route = gateway
            .into_iter()
            .fold(route, |route, way| route.gateway(way));
        links::add_route(handle, route.build()).await?;
    }
    Ok(())
}
