//! What a new network is to be, from what its creator says.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base::{Ipv4Cidr, Ipv6Cidr};
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::options::{self, PARENT};
use super::{NETWORKS_MAX, Network, Networks, first, overlap, requests::CreateRequest};
use crate::answer::Fault;
use crate::record::now;
use crate::wire::Labels;

const OVERLAPS: &str = "invalid pool request: Pool overlaps with other one on this address space";

/// One entry of `IPAM.Config`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Pool {
    subnet: String,
    #[serde(rename = "IPRange")]
    ip_range: String,
    gateway: String,
    auxiliary_addresses: Option<BTreeMap<String, String>>,
}

/// Subnets of both families, as the network remembers them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pools {
    four: Option<Half>,
    six: Option<Half>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Half {
    subnet: String,
    ip_range: String,
    gateway: String,
    aux: Labels,
}

fn parse_pools(ipam: &Value, enable_ipv6: bool) -> Result<Pools, Fault> {
    let driver = ipam["Driver"].as_str().unwrap_or_default();
    if !["", "default"].contains(&driver) {
        return Err(Fault::bad(format!("invalid ipam driver: {driver:?}")));
    }
    let mut config = ipam["Config"].clone();
    for pool in config.as_array_mut().into_iter().flatten() {
        if let Some(pool) = pool.as_object_mut() {
            // Some clients write out what they do not say.
            pool.retain(|_, value| !value.is_null());
        }
    }
    let said: Option<Vec<Pool>> = serde_json::from_value(config)
        .map_err(|error| Fault::bad(format!("invalid IPAM configuration: {error}")))?;
    let mut pools = Pools::default();
    for pool in said.unwrap_or_default() {
        let six = pool.subnet.contains(':');
        if six && !enable_ipv6 {
            continue;
        }
        let half = check_pool(&pool, six)?;
        let place = match six {
            true => &mut pools.six,
            false => &mut pools.four,
        };
        if place.replace(half).is_some() {
            let message = "a network has one subnet of each address family";
            return Err(Fault::new(StatusCode::FORBIDDEN, message));
        }
    }
    Ok(pools)
}

/// One family's words, checked as docker does.
fn check_pool(pool: &Pool, six: bool) -> Result<Half, Fault> {
    let bad = |what: String| Fault::bad(format!("invalid network config:\n{what}"));
    let subnet = pool.subnet.as_str();
    let inside = |what: &str, text: &str| {
        let address: IpAddr = text
            .parse()
            .map_err(|_| bad(format!("invalid {what} {text}: invalid address")))?;
        match subnet.is_empty() || contains(subnet, address) {
            true => Ok(()),
            false => Err(bad(format!(
                "invalid {what} {text}: parent subnet {subnet} doesn't contain this address"
            ))),
        }
    };
    if !subnet.is_empty() {
        let plain = plain_range(subnet, six).ok_or_else(|| {
            bad(format!(
                "invalid subnet {subnet}: invalid CIDR block notation"
            ))
        })?;
        if plain != subnet && plain.parse::<Ipv4Cidr>().is_ok() {
            return Err(bad(format!(
                "invalid subnet {subnet}: it should be {plain}"
            )));
        }
    }
    if !pool.ip_range.is_empty() {
        let range = pool.ip_range.as_str();
        let plain = plain_range(range, six).ok_or_else(|| {
            bad(format!(
                "invalid ip-range {range}: invalid CIDR block notation"
            ))
        })?;
        let start = plain.split('/').next().unwrap_or_default();
        let start = start.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        if !contains(subnet, start) || prefix(range) < prefix(subnet) {
            return Err(bad(format!(
                "invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range"
            )));
        }
    }
    if !pool.gateway.is_empty() {
        inside("gateway", &pool.gateway)?;
    }
    let aux: Labels = pool.auxiliary_addresses.clone().unwrap_or_default();
    for address in aux.values() {
        inside("auxiliary address", address)?;
    }
    Ok(Half {
        subnet: pool.subnet.clone(),
        ip_range: pool.ip_range.clone(),
        gateway: pool.gateway.clone(),
        aux,
    })
}

fn plain_range(text: &str, six: bool) -> Option<String> {
    match six {
        true => text.parse::<Ipv6Cidr>().ok().map(|range| range.to_string()),
        false => text.parse::<Ipv4Cidr>().ok().map(|range| range.to_string()),
    }
}

fn prefix(range: &str) -> u8 {
    let bits = range.split_once('/').map(|(_, bits)| bits);
    bits.and_then(|bits| bits.parse().ok()).unwrap_or(0)
}

fn contains(subnet: &str, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => subnet
            .parse::<Ipv4Cidr>()
            .is_ok_and(|net| net.contains(address)),
        IpAddr::V6(address) => subnet
            .parse::<Ipv6Cidr>()
            .is_ok_and(|net| net.contains(address)),
    }
}

fn overlap6(a: Ipv6Cidr, b: Ipv6Cidr) -> bool {
    a.contains(b.address()) || b.contains(a.address())
}

/// A range of this machine's own (RFC 4193), drawn from the network's id.
fn own_subnet6(id: &str) -> Ipv6Cidr {
    let bits = u64::from_str_radix(id.get(..14).unwrap_or_default(), 16).unwrap_or(0);
    let bits = (0xfd << 56) | bits;
    Ipv6Cidr::new(Ipv6Addr::from_bits(u128::from(bits) << 64), 64)
}

impl Networks {
    /// Settles what a new network is.
    pub(super) async fn plan(&self, wish: &CreateRequest) -> Result<Network, Fault> {
        let driver = match wish.driver.as_str() {
            "" => "bridge",
            driver @ ("bridge" | "macvlan" | "ipvlan" | "overlay") => driver,
            name @ ("host" | "null") => {
                let message = format!("only one instance of {name:?} network is allowed");
                return Err(Fault::new(StatusCode::FORBIDDEN, message));
            }
            other => return Err(Fault::missing(format!("plugin {other:?} not found"))),
        };
        let enable_ipv4 = wish.enable_ipv4.unwrap_or(true);
        if !enable_ipv4 && driver == "overlay" {
            let message = "IPv4 cannot be disabled in a Swarm scoped network";
            return Err(Fault::bad(message));
        }
        if !enable_ipv4 && !wish.enable_ipv6 {
            return Err(Fault::bad("IPv4 or IPv6 must be enabled"));
        }
        if self.known.lock().len() >= NETWORKS_MAX {
            return Err(Fault::conflict(format!(
                "there are {NETWORKS_MAX} networks"
            )));
        }
        let pools = parse_pools(&wish.ipam, wish.enable_ipv6)?;
        let id = crate::names::fresh_id();
        let short = id.get(..12).unwrap_or(&id);
        let mut network = Network {
            interface: format!("br-{short}"),
            name: wish.name.clone(),
            created: now(),
            driver: driver.to_owned(),
            internal: wish.internal,
            attachable: wish.attachable,
            options: wish.options.clone().unwrap_or_default(),
            labels: wish.labels.clone().unwrap_or_default(),
            enable_ipv6: wish.enable_ipv6,
            id: id.clone(),
            ..Network::default()
        };
        let [gateway, gateway6] = options::has_gateway(&network)?;
        if enable_ipv4 {
            let half = pools.four.unwrap_or_default();
            self.plan_ipv4(&mut network, half, gateway).await?;
        }
        if wish.enable_ipv6 {
            self.plan_ipv6(&mut network, pools.six.unwrap_or_default(), gateway6)?;
        }
        self.plan_interface(&mut network).await?;
        // Whatever is wrong with the options is told now.
        network.segment()?;
        Ok(network)
    }

    async fn subnet(&self, wish: &str) -> Result<Ipv4Cidr, Fault> {
        if wish.is_empty() {
            return self.free_subnet().await;
        }
        let wrong = |_| Fault::bad(format!("invalid subnet {wish:?}"));
        let subnet: Ipv4Cidr = wish.parse().map_err(wrong)?;
        let mut others = self.all().into_iter();
        if others.any(|other| other.subnet.parse().is_ok_and(|o| overlap(subnet, o))) {
            return Err(Fault::new(StatusCode::FORBIDDEN, OVERLAPS));
        }
        match subnet.prefix() > 30 {
            true => Err(Fault::bad(format!("subnet {subnet} is too small"))),
            false => Ok(subnet),
        }
    }

    async fn plan_ipv4(
        &self,
        network: &mut Network,
        half: Half,
        gateway: bool,
    ) -> Result<(), Fault> {
        let subnet = self.subnet(&half.subnet).await?;
        network.subnet = subnet.to_string();
        network.gateway = match half.gateway.is_empty() && gateway {
            true => first(subnet).to_string(),
            false => half.gateway,
        };
        network.ip_range = half.ip_range;
        network.aux = half.aux;
        Ok(())
    }

    fn plan_ipv6(&self, network: &mut Network, half: Half, gateway: bool) -> Result<(), Fault> {
        let subnet = match half.subnet.as_str() {
            "" => own_subnet6(&network.id),
            wish => wish.parse().map_err(Fault::internal)?,
        };
        let mut others = self.all().into_iter();
        if others.any(|other| other.subnet6.parse().is_ok_and(|o| overlap6(subnet, o))) {
            return Err(Fault::new(StatusCode::FORBIDDEN, OVERLAPS));
        }
        if subnet.prefix() > 126 {
            return Err(Fault::bad(format!("subnet {subnet} is too small")));
        }
        network.subnet6 = subnet.to_string();
        network.gateway6 = match (half.gateway.is_empty() && gateway, subnet.nth(1)) {
            (true, Some(first)) => first.to_string(),
            _ => half.gateway,
        };
        network.ip_range6 = half.ip_range;
        network.aux.extend(half.aux);
        Ok(())
    }

    /// The name of the network's interface, and whether the machine has it already.
    async fn plan_interface(&self, network: &mut Network) -> Result<(), Fault> {
        let short = network.id.get(..12).unwrap_or(&network.id).to_owned();
        let wish = match network.driver.as_str() {
            "bridge" => network.options.get(options::BRIDGE_NAME).cloned(),
            "macvlan" | "ipvlan" => match network.options.get(PARENT).map(String::as_str) {
                // What shares nobody's interface stays within itself.
                None | Some("") => {
                    network.internal = true;
                    Some(format!("dm-{short}"))
                }
                Some(parent) => Some(parent.to_owned()),
            },
            _ => None,
        };
        let Some(name) = wish.filter(|name| !name.is_empty()) else {
            return Ok(());
        };
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':');
        if name.len() > 15 || !name.chars().all(plain) || [".", ".."].contains(&name.as_str()) {
            return Err(Fault::bad(format!("invalid interface name {name:?}")));
        }
        if let Some(other) = self.all().iter().find(|other| other.interface == name) {
            let message = match network.driver.as_str() {
                "bridge" => format!(
                    "cannot create network {} ({name}): conflicts with network {} ({name}): \
                     networks have same bridge name",
                    network.id, other.id
                ),
                _ => format!(
                    "network {} is already using parent interface {name}",
                    other.id
                ),
            };
            return Err(Fault::new(StatusCode::FORBIDDEN, message));
        }
        network.found = self.links.has(&name).await.map_err(Fault::internal)?;
        network.interface = name;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(ipam: Value) -> String {
        parse_pools(&ipam, true).unwrap_err().message
    }

    #[test]
    fn pools_of_both_families() {
        let ipam = json!({"Driver": "default", "Config": [
            {"Subnet": "10.1.0.0/16", "IPRange": "10.1.5.0/24", "Gateway": "10.1.0.9",
             "AuxiliaryAddresses": {"host": "10.1.5.1"}},
            {"Subnet": "fd00:1::/64", "IPRange": null, "AuxiliaryAddresses": null},
        ]});
        let pools = parse_pools(&ipam, true).unwrap();
        assert_eq!(pools.four.unwrap().ip_range, "10.1.5.0/24");
        assert_eq!(pools.six.unwrap().subnet, "fd00:1::/64");
        assert_eq!(parse_pools(&ipam, false).unwrap().six, None);
    }

    #[test]
    fn faults_in_dockers_words() {
        let one = |pool: Value| refused(json!({ "Config": [pool] }));
        let expect = "invalid subnet 10.1.0.5/16: it should be 10.1.0.0/16";
        assert!(one(json!({"Subnet": "10.1.0.5/16"})).ends_with(expect));
        let expect =
            "invalid ip-range 10.2.0.0/24: parent subnet 10.1.0.0/16 doesn't contain ip-range";
        assert!(one(json!({"Subnet": "10.1.0.0/16", "IPRange": "10.2.0.0/24"})).ends_with(expect));
        let expect =
            "invalid gateway 10.2.0.1: parent subnet 10.1.0.0/16 doesn't contain this address";
        assert!(one(json!({"Subnet": "10.1.0.0/16", "Gateway": "10.2.0.1"})).ends_with(expect));
        let twice = json!({"Config": [{"Subnet": "10.1.0.0/16"}, {"Subnet": "10.2.0.0/16"}]});
        assert!(refused(twice).contains("one subnet of each"));
        assert!(refused(json!({"Driver": "dhcp"})).contains("ipam driver"));
    }

    #[test]
    fn an_own_range_is_private() {
        let range = own_subnet6("0123456789abcdef0123");
        assert_eq!(range.to_string(), "fd01:2345:6789:abcd::/64");
    }
}
