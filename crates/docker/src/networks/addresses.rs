//! Which addresses a container gets in a network.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base::{Ipv4Cidr, Ipv6Cidr};
use http::StatusCode;
use network::user::Segment;

use super::Network;
use crate::answer::Fault;
use crate::daemon::Daemon;
use crate::record::Record;
use crate::wire::Endpoint;

/// What a container gets in a network: one of each family that the network has.
pub(super) struct Addresses {
    pub(super) four: Option<Ipv4Addr>,
    pub(super) six: Option<Ipv6Addr>,
}

impl Addresses {
    /// The hardware address that goes with them.
    pub(super) fn hardware(&self) -> [u8; 6] {
        let six = || self.six.map(IpAddr::V6);
        let address = self.four.map(IpAddr::V4).or_else(six);
        network::user::hardware_address(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
    }
}

/// Addresses that an endpoint has; and those that it will want again.
fn taken_by(endpoint: &Endpoint, has: &mut BTreeSet<IpAddr>, wants: &mut BTreeSet<IpAddr>) {
    for text in [&endpoint.ip_address, &endpoint.global_ipv6_address] {
        has.extend(text.parse::<IpAddr>());
    }
    wants.extend(endpoint.wanted_address().map(IpAddr::V4));
    wants.extend(endpoint.wanted_address6().map(IpAddr::V6));
}

fn take(wish: IpAddr, within: bool, taken: &BTreeSet<IpAddr>) -> Result<(), Fault> {
    if !within {
        return Err(Fault::bad(format!(
            "invalid endpoint settings: no configured subnet contains IP address {wish}"
        )));
    }
    match taken.contains(&wish) {
        true => Err(Fault::new(StatusCode::FORBIDDEN, "Address already in use")),
        false => Ok(()),
    }
}

fn exhausted(family: &str, network: &Network) -> Fault {
    let name = &network.name;
    Fault::internal(format!("no available {family} addresses on network {name}"))
}

impl Daemon {
    /// Addresses of a network that nobody else may have, and those that nobody gets unasked: who
    /// is down wants them again, but another may come to replace it.
    fn taken(&self, record: &Record, network: &Network) -> (BTreeSet<IpAddr>, BTreeSet<IpAddr>) {
        let texts = [&network.gateway, &network.gateway6].into_iter();
        let texts = texts.chain(network.aux.values());
        let mut taken: BTreeSet<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
        let mut wanted = BTreeSet::new();
        for container in self.all() {
            let other = container.record.read();
            if other.id != record.id
                && let Some(endpoint) = other.networks.get(&network.name)
            {
                taken_by(endpoint, &mut taken, &mut wanted);
            }
        }
        wanted.extend(&taken);
        (taken, wanted)
    }

    /// The addresses a container that joins a network gets: those it wants, or free ones.
    pub(super) fn choose_addresses(
        &self,
        record: &Record,
        network: &Network,
        segment: &Segment,
        endpoint: &Endpoint,
    ) -> Result<Addresses, Fault> {
        let (taken, avoided) = self.taken(record, network);
        let four = match (endpoint.wanted_address(), segment.v4) {
            (Some(wish), half) => {
                let within = half.is_some_and(|half| half.subnet.contains(wish));
                take(IpAddr::V4(wish), within, &taken)?;
                Some(wish)
            }
            (None, Some(half)) => {
                let range = network.ip_range.parse().unwrap_or(half.subnet);
                let found = free(half.subnet, range, &avoided);
                Some(found.ok_or_else(|| exhausted("IPv4", network))?)
            }
            (None, None) => None,
        };
        let six = match (endpoint.wanted_address6(), segment.v6) {
            (Some(wish), half) => {
                let within = half.is_some_and(|half| half.subnet.contains(wish));
                take(IpAddr::V6(wish), within, &taken)?;
                Some(wish)
            }
            (None, Some(half)) => {
                let range = network.ip_range6.parse().unwrap_or(half.subnet);
                let found = free6(half.subnet, range, &avoided);
                Some(found.ok_or_else(|| exhausted("IPv6", network))?)
            }
            (None, None) => None,
        };
        Ok(Addresses { four, six })
    }
}

/// The first address of the range that is nobody's; a subnet's first and last are no host's.
fn free(subnet: Ipv4Cidr, range: Ipv4Cidr, taken: &BTreeSet<IpAddr>) -> Option<Ipv4Addr> {
    let host = |address: &Ipv4Addr| *address != subnet.address() && *address != subnet.last();
    (0..)
        .map_while(|index| range.nth(index))
        .find(|address| host(address) && !taken.contains(&IpAddr::V4(*address)))
}

fn free6(subnet: Ipv6Cidr, range: Ipv6Cidr, taken: &BTreeSet<IpAddr>) -> Option<Ipv6Addr> {
    (0..)
        .map_while(|index| range.nth(index))
        .find(|address| *address != subnet.address() && !taken.contains(&IpAddr::V6(*address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_free_address_of_a_range() {
        let taken: BTreeSet<IpAddr> = ["10.0.0.1", "10.0.0.2", "10.0.0.128", "fd00::1"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let check = |range: &str, expect: Option<&str>| {
            let found = free(
                "10.0.0.0/24".parse().unwrap(),
                range.parse().unwrap(),
                &taken,
            );
            assert_eq!(found.map(|address| address.to_string()).as_deref(), expect);
        };
        check("10.0.0.0/24", Some("10.0.0.3"));
        check("10.0.0.128/25", Some("10.0.0.129"));
        check("10.0.0.128/32", None);
        check("10.0.0.255/32", None);
        let six = "fd00::/64".parse().unwrap();
        assert_eq!(free6(six, six, &taken), Some("fd00::2".parse().unwrap()));
    }
}
