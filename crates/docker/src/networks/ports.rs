//! Published ports: which port of the machine leads where.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use network::user::{Published, Reach};

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

fn address(text: &str) -> Result<Option<IpAddr>, Fault> {
    match text.parse::<IpAddr>() {
        _ if text.is_empty() => Ok(None),
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(Fault::bad(format!("invalid IP address: {text:?}"))),
    }
}

impl Daemon {
    /// Decides which ports a container that starts gets.
    pub(super) fn plan_ports(&self, record: &Record) -> Result<Ports, Fault> {
        let mut wishes: BTreeMap<String, Vec<PortBinding>> = BTreeMap::new();
        let own = Own::of(record);
        if own.is_nowhere() {
            return Ok(wishes);
        }
        let main = self.networks.named(record.network_mode());
        let (usual, segment) = match main {
            Some(network) => (network.host_binding()?, network.segment()?),
            None => (None, None),
        };
        let routed = |host: &IpAddr| {
            let segment = segment.as_ref();
            let reach = match host {
                IpAddr::V4(_) => segment.and_then(|own| own.v4).map(|half| half.reach),
                IpAddr::V6(_) => segment.and_then(|own| own.v6).map(|half| half.reach),
            };
            reach == Some(Reach::Routed)
        };
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
        let mut taken: Vec<(String, IpAddr, u16)> = Vec::new();
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
                let hosts = own.hosts(address(&binding.host_ip)?, usual)?;
                let (open, hosts): (Vec<_>, Vec<_>) = hosts.into_iter().partition(routed);
                found.extend(open.into_iter().map(without_host_port));
                if !hosts.is_empty() {
                    found.extend(choose(record, (&port, &binding), &hosts, &mut taken)?);
                }
            }
            ports.insert(port, found);
        }
        Ok(ports)
    }
}

/// Of a routed network: the container's own port is open, the machine gives it none.
fn without_host_port(host: IpAddr) -> PortBinding {
    PortBinding {
        host_ip: any_of(host).to_string(),
        host_port: String::new(),
    }
}

/// All addresses of the same family.
fn any_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn key(port: &str, binding: &PortBinding) -> Option<(String, IpAddr, u16)> {
    let protocol = port.split('/').nth(1).unwrap_or("tcp").to_owned();
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let address = address(&binding.host_ip).ok()?.unwrap_or(any);
    Some((protocol, address, binding.host_port.parse().ok()?))
}

/// One port of the machine, the same on all these addresses.
fn choose(
    record: &Record,
    (port, wish): (&str, &PortBinding),
    hosts: &[IpAddr],
    taken: &mut Vec<(String, IpAddr, u16)>,
) -> Result<Vec<PortBinding>, Fault> {
    let protocol = port.split('/').nth(1).unwrap_or("tcp").to_owned();
    let clash = |host: &IpAddr, number: u16| {
        taken.iter().any(|(other, address, known)| {
            let any = address.is_unspecified() || host.is_unspecified();
            let same = address == host || (any && address.is_ipv4() == host.is_ipv4());
            *other == protocol && *known == number && same
        })
    };
    let fits = |number: &u16| {
        let mut hosts = hosts.iter();
        hosts.all(|host| !clash(host, *number) && free(&protocol, *host, *number).is_some())
    };
    let first = hosts.first().copied();
    let first = first.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let chosen = match range(&wish.host_port)? {
        None => (0..64).find_map(|_| free(&protocol, first, 0).filter(fits)),
        Some((from, to)) => (from..=to).find(fits),
    };
    let Some(number) = chosen else {
        return Err(Fault::internal(format!(
            "driver failed programming external connectivity on endpoint {}: Bind for {}:{} \
             failed: port is already allocated",
            record.name, first, wish.host_port
        )));
    };
    let bind = |host: &IpAddr| {
        taken.push((protocol.clone(), *host, number));
        PortBinding {
            host_ip: host.to_string(),
            host_port: number.to_string(),
        }
    };
    Ok(hosts.iter().map(bind).collect())
}

/// The port, or with 0 any, if no program of the machine has it.
fn free(protocol: &str, host: IpAddr, port: u16) -> Option<u16> {
    let address = SocketAddr::from((host, port));
    let bound = match protocol {
        "tcp" => TcpListener::bind(address).and_then(|socket| socket.local_addr()),
        "udp" => UdpSocket::bind(address).and_then(|socket| socket.local_addr()),
        _ => return (port != 0).then_some(port),
    };
    bound.ok().map(|address| address.port())
}

/// A container's addresses in its first network, where published ports lead.
struct Own {
    four: Option<Ipv4Addr>,
    six: Option<Ipv6Addr>,
}

impl Own {
    fn of(record: &Record) -> Own {
        let main = record.networks.get(record.network_mode());
        // What shares an interface of the machine's is reached there.
        let main = main.filter(|main| main.inner_interface.is_empty());
        Own {
            four: main.and_then(|main| main.ip_address.parse().ok()),
            six: main.and_then(|main| main.global_ipv6_address.parse().ok()),
        }
    }

    fn is_nowhere(&self) -> bool {
        self.four.is_none() && self.six.is_none()
    }

    /// The machine's addresses that a binding means.
    fn hosts(&self, wish: Option<IpAddr>, usual: Option<Ipv4Addr>) -> Result<Vec<IpAddr>, Fault> {
        let any4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let any6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        Ok(match (wish, usual) {
            // Whoever has no such address is not published there.
            (None, Some(_)) | (Some(IpAddr::V4(_)), _) if self.four.is_none() => Vec::new(),
            (None, Some(usual)) => vec![IpAddr::V4(usual)],
            (None, None) => {
                let four = self.four.map(|_| any4);
                four.into_iter().chain(self.six.map(|_| any6)).collect()
            }
            (Some(IpAddr::V6(_)), _) if self.six.is_none() => {
                // Clients that name both families mean "everywhere".
                return match wish == Some(any6) {
                    true => Ok(vec![any4]),
                    false => Err(Fault::bad(
                        "cannot publish on an IPv6 address: the container has none",
                    )),
                };
            }
            (Some(wish), _) => vec![wish],
        })
    }
}

/// A container's ports, for the packet filter.
pub(super) fn published(record: &Record) -> Vec<Published> {
    let own = Own::of(record);
    let mut ports = Vec::new();
    for (port, bindings) in &record.state.ports {
        let Ok((number, protocol)) = port_and_protocol(port) else {
            continue;
        };
        for binding in bindings {
            let host = address(&binding.host_ip).ok().flatten();
            let host_port = match binding.host_port.as_str() {
                "" => Ok(0),
                text => text.parse(),
            };
            let Ok(host_port) = host_port else { continue };
            let target = match host {
                Some(IpAddr::V6(_)) => own.six.map(IpAddr::V6),
                _ => own.four.map(IpAddr::V4),
            };
            let Some(target) = target else { continue };
            ports.push(Published {
                protocol: match protocol.as_str() {
                    "UDP" => 17,
                    "SCTP" => 132,
                    _ => 6,
                },
                host_address: host.filter(|host| !host.is_unspecified()),
                host_port,
                address: target,
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
        assert_eq!(address("::").unwrap(), Some(Ipv6Addr::UNSPECIFIED.into()));
    }

    #[test]
    fn where_a_port_is_published() {
        let text = |own: &Own, wish: &str, usual: Option<Ipv4Addr>| {
            let hosts = own.hosts(address(wish).unwrap(), usual);
            hosts.map(|hosts| hosts.iter().map(IpAddr::to_string).collect::<Vec<_>>())
        };
        let four = Some(Ipv4Addr::new(10, 0, 0, 2));
        let both = Own {
            four,
            six: Some("fd00::2".parse().unwrap()),
        };
        assert_eq!(text(&both, "", None).unwrap(), ["0.0.0.0", "::"]);
        assert_eq!(text(&both, "::", None).unwrap(), ["::"]);
        let usual = Some(Ipv4Addr::LOCALHOST);
        assert_eq!(text(&both, "", usual).unwrap(), ["127.0.0.1"]);
        let one = Own { four, six: None };
        assert_eq!(text(&one, "", None).unwrap(), ["0.0.0.0"]);
        assert_eq!(text(&one, "::", None).unwrap(), ["0.0.0.0"]);
        assert!(text(&one, "fd00::9", None).is_err());
        let six = Own {
            four: None,
            six: both.six,
        };
        assert_eq!(text(&six, "", None).unwrap(), ["::"]);
        assert_eq!(text(&six, "0.0.0.0", None).unwrap(), [""; 0]);
        assert_eq!(text(&six, "", usual).unwrap(), [""; 0]);
        let open = without_host_port("192.0.2.1".parse().unwrap());
        assert_eq!(
            (open.host_ip.as_str(), open.host_port.as_str()),
            ("0.0.0.0", "")
        );
    }
}
