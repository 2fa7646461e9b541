//! Published ports: which port of the machine leads where.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use network::user::Published;

use crate::answer::Fault;
use crate::daemon::Daemon;
use crate::record::Record;
use crate::translate::port_and_protocol;
use crate::wire::{HostConfig, PortBinding};

/// What `PortBindings` come to.
pub(crate) type Ports = BTreeMap<String, Vec<PortBinding>>;

/// Refuses bindings that are none.
pub(crate) fn check(host: &HostConfig) -> Result<(), Fault> {
    for (port, bindings) in &host.port_bindings {
        port_and_protocol(port)?;
        for binding in bindings.iter().flatten() {
            range(&binding.host_port)?;
            address(&binding.host_ip)?;
        }
    }
    Ok(())
}

/// `8080`, `8000-8010`, or nothing for any free one.
fn range(text: &str) -> Result<Option<(u16, u16)>, Fault> {
    let wrong = |_| Fault::bad(format!("invalid port specification: {text:?}"));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    Ok(Some((
        first.parse().map_err(wrong)?,
        last.parse().map_err(wrong)?,
    )))
}

fn address(text: &str) -> Result<Option<Ipv4Addr>, Fault> {
    match text.parse::<IpAddr>() {
        _ if text.is_empty() => Ok(None),
        Ok(IpAddr::V4(address)) => Ok(Some(address)),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => Ok(None),
        Ok(IpAddr::V6(_)) => Err(Fault::unable("ports of IPv6 addresses are not supported")),
        Err(_) => Err(Fault::bad(format!("invalid IP address: {text:?}"))),
    }
}

impl Daemon {
    /// Decides which ports a container that starts gets.
    pub(super) fn plan_ports(&self, record: &Record) -> Result<Ports, Fault> {
        let mut wishes: BTreeMap<String, Vec<PortBinding>> = BTreeMap::new();
        if main_address(record).is_none() {
            return Ok(wishes);
        }
        for (port, bindings) in &record.host.port_bindings {
            let (number, protocol) = port_and_protocol(port)?;
            let name = format!("{number}/{}", protocol.to_ascii_lowercase());
            wishes.insert(name, bindings.clone().unwrap_or_default());
        }
        if record.host.publish_all_ports {
            for port in record.config.exposed_ports.keys() {
                let bindings = wishes.entry(port.clone()).or_default();
                if bindings.is_empty() {
                    bindings.push(PortBinding::default());
                }
            }
        }
        let mut taken: Vec<(String, Ipv4Addr, u16)> = Vec::new();
        for container in self.all() {
            let other = container.record.read();
            if other.id != record.id {
                for (port, bindings) in &other.state.ports {
                    taken.extend(bindings.iter().filter_map(|binding| key(port, binding)));
                }
            }
        }
        let mut ports = Ports::new();
        for (port, bindings) in wishes {
            let mut found = Vec::new();
            for binding in bindings {
                found.push(choose(record, &port, &binding, &mut taken)?);
            }
            ports.insert(port, found);
        }
        Ok(ports)
    }
}

fn key(port: &str, binding: &PortBinding) -> Option<(String, Ipv4Addr, u16)> {
    let protocol = port.split('/').nth(1).unwrap_or("tcp").to_owned();
    let address = address(&binding.host_ip)
        .ok()?
        .unwrap_or(Ipv4Addr::UNSPECIFIED);
    Some((protocol, address, binding.host_port.parse().ok()?))
}

fn choose(
    record: &Record,
    port: &str,
    wish: &PortBinding,
    taken: &mut Vec<(String, Ipv4Addr, u16)>,
) -> Result<PortBinding, Fault> {
    let host = address(&wish.host_ip)?.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let protocol = port.split('/').nth(1).unwrap_or("tcp").to_owned();
    let clash = |number: u16| {
        taken.iter().any(|(other, address, known)| {
            let same = *address == host || address.is_unspecified() || host.is_unspecified();
            *other == protocol && *known == number && same
        })
    };
    let chosen = match range(&wish.host_port)? {
        None => (0..64).find_map(|_| free(&protocol, host, 0).filter(|port| !clash(*port))),
        Some((first, last)) => (first..=last)
            .find(|number| !clash(*number) && free(&protocol, host, *number).is_some()),
    };
    let Some(number) = chosen else {
        return Err(Fault::internal(format!(
            "driver failed programming external connectivity on endpoint {}: Bind for {host}:{} \
             failed: port is already allocated",
            record.name, wish.host_port
        )));
    };
    taken.push((protocol, host, number));
    Ok(PortBinding {
        host_ip: host.to_string(),
        host_port: number.to_string(),
    })
}

/// The port, or with 0 any, if no program of the machine has it.
fn free(protocol: &str, host: Ipv4Addr, port: u16) -> Option<u16> {
    let address = SocketAddr::from((host, port));
    let bound = match protocol {
        "tcp" => TcpListener::bind(address).and_then(|socket| socket.local_addr()),
        "udp" => UdpSocket::bind(address).and_then(|socket| socket.local_addr()),
        _ => return (port != 0).then_some(port),
    };
    bound.ok().map(|address| address.port())
}

fn main_address(record: &Record) -> Option<Ipv4Addr> {
    let main = record.networks.get(record.network_mode());
    main?.ip_address.parse().ok()
}

/// A container's ports, for the packet filter.
pub(super) fn published(record: &Record) -> Vec<Published> {
    let Some(own) = main_address(record) else {
        return Vec::new();
    };
    let mut ports = Vec::new();
    for (port, bindings) in &record.state.ports {
        let Ok((number, protocol)) = port_and_protocol(port) else {
            continue;
        };
        for binding in bindings {
            let host = address(&binding.host_ip).ok().flatten();
            let Ok(host_port) = binding.host_port.parse() else {
                continue;
            };
            ports.push(Published {
                protocol: match protocol.as_str() {
                    "UDP" => 17,
                    "SCTP" => 132,
                    _ => 6,
                },
                host_address: host.filter(|host| !host.is_unspecified()),
                host_port,
                address: own,
                port: number,
            });
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_every_writing() {
        assert_eq!(range("").unwrap(), None);
        assert_eq!(range("80").unwrap(), Some((80, 80)));
        assert_eq!(range("80-90").unwrap(), Some((80, 90)));
        assert!(range("http").is_err() && address("1.2.3").is_err());
        assert_eq!(address("::").unwrap(), None);
    }
}
