//! Options of networks, and what a network is to the machine.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use network::user::{Driver, IpFlag, IpMode, MacMode, Reach, Segment, Subnet};

use super::Network;
use crate::answer::Fault;

pub(super) const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
pub(super) const PARENT: &str = "parent";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const GATEWAY_MODES: [&str; 2] = [
    "com.docker.network.bridge.gateway_mode_ipv4",
    "com.docker.network.bridge.gateway_mode_ipv6",
];
const INHIBIT: &str = "com.docker.network.bridge.inhibit_ipv4";
const MTU: &str = "com.docker.network.driver.mtu";
const PREFIX: &str = "com.docker.network.container_iface_prefix";
const VNI: &str = "com.docker.network.driver.overlay.vxlanid_list";
const PEERS: &str = "peers";
/// Machines that one overlay joins.
const PEERS_MAX: usize = 64;
/// Docker's own overlays begin here.
const VNI_FIRST: u32 = 4096;

/// How one family of a bridge's network meets others.
#[derive(Clone, Copy, Default)]
struct Gateway {
    reach: Reach,
    /// The bridge has no address there.
    bare: bool,
    /// Nobody is the gateway, if nobody is named.
    none: bool,
}

/// Whether a gateway is chosen when nobody names one, for each family.
pub(super) fn has_gateway(network: &Network) -> Result<[bool; 2], Fault> {
    Ok(match network.driver.as_str() {
        "bridge" => gateways(network)?.map(|own| !own.none),
        "ipvlan" => [!matches!(option(network, "ipvlan_mode"), "" | "l2"); 2],
        _ => [false; 2],
    })
}

/// The gateway modes of both families.
fn gateways(network: &Network) -> Result<[Gateway; 2], Fault> {
    let isolated = Gateway {
        bare: true,
        none: true,
        ..Gateway::default()
    };
    let mode = |name: &str| {
        let reach = match option(network, name) {
            "" | "nat" => Reach::Published,
            "nat-unprotected" => Reach::Everything,
            "routed" => Reach::Routed,
            "isolated" if !network.internal => {
                return Err(Fault::internal(
                    "gateway mode 'isolated' can only be used for an internal network",
                ));
            }
            "isolated" => return Ok(isolated),
            other => {
                return Err(Fault::bad(format!(
                    "failed to parse {name} value: {other} (unknown gateway mode {other})"
                )));
            }
        };
        Ok(Gateway {
            reach,
            ..Gateway::default()
        })
    };
    let mut four = mode(GATEWAY_MODES[0])?;
    if truth(network, INHIBIT, false)? {
        four.bare = true;
        four.none |= network.internal;
    }
    Ok([four, mode(GATEWAY_MODES[1])?])
}

fn option<'a>(network: &'a Network, name: &str) -> &'a str {
    network.options.get(name).map_or("", String::as_str)
}

/// Truth as Go reads it.
fn truth(network: &Network, name: &str, default: bool) -> Result<bool, Fault> {
    match option(network, name) {
        "" => Ok(default),
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(Fault::bad(format!(
            "failed to parse {name} value: {other:?} (strconv.ParseBool: parsing {other:?}: \
             invalid syntax)"
        ))),
    }
}

impl Network {
    /// What it is to the machine; `None` for those that are nothing there.
    pub(crate) fn segment(&self) -> Result<Option<Segment>, Fault> {
        let driver = match self.driver.as_str() {
            "bridge" => self.bridge_driver()?,
            "macvlan" => Driver::MacVlan(mac_mode(option(self, "macvlan_mode"))?),
            "ipvlan" => Driver::IpVlan(
                ip_mode(option(self, "ipvlan_mode"))?,
                ip_flag(option(self, "ipvlan_flag"))?,
            ),
            "overlay" => self.overlay_driver()?,
            _ => return Ok(None),
        };
        let mtu = match option(self, MTU) {
            "" | "0" => None,
            text => match text.parse() {
                Ok(mtu @ 68..=65_535) => Some(mtu),
                _ => return Err(Fault::bad(format!("invalid MTU: {text:?}"))),
            },
        };
        let [four, six] = match self.driver.as_str() {
            "bridge" => gateways(self)?,
            _ => Default::default(),
        };
        self.container_prefix()?;
        self.host_binding()?;
        Ok(Some(Segment {
            interface: self.interface.clone(),
            driver,
            v4: half(&self.subnet, &self.gateway, four)?,
            v6: half(&self.subnet6, &self.gateway6, six)?,
            internal: self.internal,
            mtu,
        }))
    }

    fn bridge_driver(&self) -> Result<Driver, Fault> {
        Ok(Driver::Bridge {
            icc: truth(self, ICC, true)?,
            masquerade: truth(self, MASQUERADE, true)?,
        })
    }

    fn overlay_driver(&self) -> Result<Driver, Fault> {
        let list = option(self, PEERS);
        let peers: Result<Vec<IpAddr>, _> = list
            .split(',')
            .map(str::trim)
            .filter(|peer| !peer.is_empty())
            .map(str::parse)
            .collect();
        let peers = peers.map_err(|_| Fault::bad(format!("invalid option peers: {list:?}")))?;
        if peers.is_empty() || peers.len() > PEERS_MAX {
            return Err(Fault::new(
                http::StatusCode::SERVICE_UNAVAILABLE,
                "This node is not a swarm manager. Without swarm an overlay network names the \
                 other machines: --opt peers=ADDRESS[,ADDRESS...], and --subnet with an \
                 --ip-range of this machine's own",
            ));
        }
        if peers
            .iter()
            .any(|peer| peer.is_ipv4() != peers[0].is_ipv4())
        {
            return Err(Fault::bad("peers are all of one address family"));
        }
        let text = option(self, VNI);
        let vni = match text {
            "" => VNI_FIRST,
            text => match text.parse() {
                Ok(vni @ 1..=0xff_ffff) => vni,
                _ => {
                    return Err(Fault::bad(format!(
                        "invalid vxlan id value {text:?} passed"
                    )));
                }
            },
        };
        Ok(Driver::Overlay { vni, peers })
    }

    /// How interfaces are called inside of containers.
    pub(super) fn container_prefix(&self) -> Result<&str, Fault> {
        match option(self, PREFIX) {
            "" => Ok("eth"),
            prefix if prefix.len() <= 12 && prefix.chars().all(|c| c.is_ascii_alphanumeric()) => {
                Ok(prefix)
            }
            other => Err(Fault::bad(format!("invalid interface prefix {other:?}"))),
        }
    }

    /// The machine's address that ports are published on, when nobody names one.
    pub(super) fn host_binding(&self) -> Result<Option<Ipv4Addr>, Fault> {
        match option(self, HOST_BINDING) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Fault::bad(format!("failed to parse {HOST_BINDING} value: {text:?}"))),
        }
    }
}

/// One family of a network, if it has that.
fn half<N: FromStr, A: FromStr>(
    subnet: &str,
    gateway: &str,
    how: Gateway,
) -> Result<Option<Subnet<N, A>>, Fault> {
    if subnet.is_empty() {
        return Ok(None);
    }
    let wrong = |_| Fault::internal(format!("subnet {subnet:?}"));
    Ok(Some(Subnet {
        subnet: subnet.parse().map_err(wrong)?,
        gateway: gateway.parse().ok(),
        bare: how.bare,
        reach: how.reach,
    }))
}

fn mac_mode(mode: &str) -> Result<MacMode, Fault> {
    Ok(match mode {
        "" | "bridge" => MacMode::Bridge,
        "private" => MacMode::Private,
        "vepa" => MacMode::Vepa,
        "passthru" => MacMode::Passthru,
        other => {
            return Err(Fault::bad(format!(
                "requested macvlan mode '{other}' is not valid, 'bridge' mode is the macvlan driver default"
            )));
        }
    })
}

fn ip_mode(mode: &str) -> Result<IpMode, Fault> {
    Ok(match mode {
        "" | "l2" => IpMode::L2,
        "l3" => IpMode::L3,
        "l3s" => IpMode::L3S,
        other => {
            return Err(Fault::bad(format!(
                "requested ipvlan mode '{other}' is not valid, 'l2' mode is the ipvlan driver default"
            )));
        }
    })
}

fn ip_flag(flag: &str) -> Result<IpFlag, Fault> {
    Ok(match flag {
        "" | "bridge" => IpFlag::Bridge,
        "private" => IpFlag::Private,
        "vepa" => IpFlag::Vepa,
        other => {
            return Err(Fault::bad(format!(
                "requested ipvlan flag '{other}' is not valid, 'bridge' is the ipvlan driver default"
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(driver: &str, options: &[(&str, &str)]) -> Network {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Network {
            driver: driver.to_owned(),
            subnet: "10.0.0.0/24".to_owned(),
            options: options.iter().map(pair).collect(),
            ..Network::default()
        }
    }

    fn driver(driver: &str, options: &[(&str, &str)]) -> Result<Driver, String> {
        let segment = network(driver, options).segment();
        segment
            .map(|segment| segment.unwrap().driver)
            .map_err(|fault| fault.message)
    }

    #[test]
    fn options_of_drivers() {
        assert_eq!(
            driver("bridge", &[(ICC, "false"), (MASQUERADE, "0")]),
            Ok(Driver::Bridge {
                icc: false,
                masquerade: false
            })
        );
        assert_eq!(
            driver("macvlan", &[("macvlan_mode", "vepa")]),
            Ok(Driver::MacVlan(MacMode::Vepa))
        );
        assert_eq!(
            driver("ipvlan", &[("ipvlan_mode", "l3")]),
            Ok(Driver::IpVlan(IpMode::L3, IpFlag::Bridge))
        );
        let overlay = driver("overlay", &[(PEERS, "192.0.2.1, 192.0.2.2"), (VNI, "5000")]);
        assert!(matches!(overlay, Ok(Driver::Overlay { vni: 5000, peers }) if peers.len() == 2));
    }

    #[test]
    fn gateways_of_both_families() {
        let mut wish = network(
            "bridge",
            &[(GATEWAY_MODES[0], "routed"), (GATEWAY_MODES[1], "isolated")],
        );
        wish.subnet6 = "fd00::/64".to_owned();
        let fault = wish.segment().unwrap_err().message;
        assert!(fault.ends_with("can only be used for an internal network"));
        wish.internal = true;
        assert_eq!(has_gateway(&wish).unwrap(), [true, false]);
        let segment = wish.segment().unwrap().unwrap();
        let (four, six) = (segment.v4.unwrap(), segment.v6.unwrap());
        assert_eq!((four.reach, four.bare), (Reach::Routed, false));
        assert_eq!((six.reach, six.bare), (Reach::Published, true));
        let wish = network("bridge", &[(INHIBIT, "1")]);
        assert_eq!(has_gateway(&wish).unwrap(), [true, true]);
        assert!(wish.segment().unwrap().unwrap().v4.unwrap().bare);
    }

    #[test]
    fn what_is_no_option_is_refused() {
        for (kind, name, value) in [
            ("bridge", ICC, "perhaps"),
            ("bridge", MTU, "60"),
            ("bridge", GATEWAY_MODES[0], "isolated"),
            ("bridge", GATEWAY_MODES[1], "open"),
            ("bridge", INHIBIT, "never"),
            ("bridge", HOST_BINDING, "nowhere"),
            ("bridge", PREFIX, "a/b"),
            ("macvlan", "macvlan_mode", "loud"),
            ("ipvlan", "ipvlan_mode", "l4"),
            ("overlay", PEERS, "somewhere"),
            ("overlay", PEERS, ""),
        ] {
            assert!(driver(kind, &[(name, value)]).is_err(), "{name}={value}");
        }
    }
}
