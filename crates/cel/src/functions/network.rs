//! Addresses and networks.

use std::net::IpAddr;

use super::{Outcome, Spec, fault, no_overload};
use crate::opaque::Opaque;
use crate::value::Value;

const IS: &[&str] = &["net.IP . -> bool"];

pub(super) const TABLE: &[Spec] = &[
    Spec {
        name: "ip",
        call: ip,
        overloads: &["string -> net.IP", "net.CIDR . -> net.IP"],
    },
    Spec {
        name: "isIP",
        call: |args| text(args, |text| Ok(Value::Bool(parse_ip(text).is_ok()))),
        overloads: &["string -> bool"],
    },
    Spec {
        name: "ip.isCanonical",
        call: |args| {
            text(args, |text| match parse_ip(text) {
                Ok(own) => Ok(Value::Bool(own.to_string() == text)),
                Err(error) => fault(error),
            })
        },
        overloads: &["string -> bool"],
    },
    Spec {
        name: "family",
        call: |args| address(args, |own| Value::Int(if own.is_ipv4() { 4 } else { 6 })),
        overloads: &["net.IP . -> int"],
    },
    Spec {
        name: "isUnspecified",
        call: |args| address(args, |own| Value::Bool(own.is_unspecified())),
        overloads: IS,
    },
    Spec {
        name: "isLoopback",
        call: |args| address(args, |own| Value::Bool(own.is_loopback())),
        overloads: IS,
    },
    Spec {
        name: "isLinkLocalMulticast",
        call: |args| address(args, |own| Value::Bool(link_local_multicast(own))),
        overloads: IS,
    },
    Spec {
        name: "isLinkLocalUnicast",
        call: |args| address(args, |own| Value::Bool(link_local(own))),
        overloads: IS,
    },
    Spec {
        name: "isGlobalUnicast",
        call: |args| address(args, |own| Value::Bool(global(own))),
        overloads: IS,
    },
    Spec {
        name: "cidr",
        call: |args| {
            text(args, |text| match parse_cidr(text) {
                Ok((own, length)) => Ok(Value::opaque(Opaque::Cidr(own, length))),
                Err(error) => fault(error),
            })
        },
        overloads: &["string -> net.CIDR"],
    },
    Spec {
        name: "isCIDR",
        call: |args| text(args, |text| Ok(Value::Bool(parse_cidr(text).is_ok()))),
        overloads: &["string -> bool"],
    },
    Spec {
        name: "containsIP",
        call: contains_ip,
        overloads: &["net.CIDR . string -> bool", "net.CIDR . net.IP -> bool"],
    },
    Spec {
        name: "containsCIDR",
        call: contains_cidr,
        overloads: &["net.CIDR . string -> bool", "net.CIDR . net.CIDR -> bool"],
    },
    Spec {
        name: "prefixLength",
        call: |args| match args {
            [value] => cidr(value)
                .map_or_else(no_overload, |(_, length)| Ok(Value::Int(i64::from(length)))),
            _ => no_overload(),
        },
        overloads: &["net.CIDR . -> int"],
    },
    Spec {
        name: "masked",
        call: |args| match args {
            [value] => cidr(value).map_or_else(no_overload, |(own, length)| {
                Ok(Value::opaque(Opaque::Cidr(masked(own, length), length)))
            }),
            _ => no_overload(),
        },
        overloads: &["net.CIDR . -> net.CIDR"],
    },
];

fn text<'a>(args: &[Value<'a>], then: fn(&str) -> Outcome<'a>) -> Outcome<'a> {
    match args {
        [Value::String(text)] => then(text),
        _ => no_overload(),
    }
}

fn parse_ip(text: &str) -> Result<IpAddr, String> {
    let mapped = || format!("IPv4-mapped IPv6 address {text:?} is not allowed");
    if text.contains('%') {
        return Err(format!(
            "IP address {text:?} with zone value is not allowed"
        ));
    }
    match text.parse() {
        Ok(IpAddr::V6(own)) if own.to_ipv4_mapped().is_some() => Err(mapped()),
        Ok(own) => Ok(own),
        Err(_) => {
            let why = "unable to parse IP";
            Err(format!(
                "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): {why}"
            ))
        }
    }
}

fn parse_cidr(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = |why: &str| {
        Err(format!(
            "network address parse error during conversion from string: netip.ParsePrefix({text:?}): {why}"
        ))
    };
    let Some((address, length)) = text.rsplit_once('/') else {
        return wrong("no '/'");
    };
    let digits = !length.is_empty() && length.bytes().all(|c| c.is_ascii_digit());
    let plain = digits && (length.len() == 1 || !length.starts_with('0'));
    let own: IpAddr = match address.parse() {
        Ok(IpAddr::V6(own)) if own.to_ipv4_mapped().is_some() => {
            return Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"));
        }
        Ok(own) => own,
        Err(_) => return wrong("unable to parse IP"),
    };
    match length.parse::<u8>() {
        Ok(length) if plain && length <= bits(own) => Ok((own, length)),
        Ok(_) if plain => wrong("prefix length out of range"),
        _ => wrong(&format!("bad bits after slash: {length:?}")),
    }
}

fn bits(own: IpAddr) -> u8 {
    if own.is_ipv4() { 32 } else { 128 }
}

fn masked(own: IpAddr, length: u8) -> IpAddr {
    match own {
        IpAddr::V4(own) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((u32::from(own) & mask).into())
        }
        IpAddr::V6(own) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((u128::from(own) & mask).into())
        }
    }
}

fn link_local(own: IpAddr) -> bool {
    match own {
        IpAddr::V4(own) => own.is_link_local(),
        IpAddr::V6(own) => own.is_unicast_link_local(),
    }
}

fn link_local_multicast(own: IpAddr) -> bool {
    match own {
        IpAddr::V4(own) => own.octets()[..3] == [224, 0, 0],
        IpAddr::V6(own) => own.segments()[0] & 0xff0f == 0xff02,
    }
}

/// As Go means it: private addresses count.
fn global(own: IpAddr) -> bool {
    let broadcast = matches!(own, IpAddr::V4(own) if own.is_broadcast());
    !(broadcast
        || own.is_unspecified()
        || own.is_loopback()
        || own.is_multicast()
        || link_local(own))
}

fn ip<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text)] => match parse_ip(text) {
            Ok(own) => Ok(Value::opaque(Opaque::Ip(own))),
            Err(error) => fault(error),
        },
        [value] => {
            cidr(value).map_or_else(no_overload, |(own, _)| Ok(Value::opaque(Opaque::Ip(own))))
        }
        _ => no_overload(),
    }
}

fn ip_of(value: &Value<'_>) -> Option<IpAddr> {
    match value {
        Value::Opaque(opaque) => match **opaque {
            Opaque::Ip(own) => Some(own),
            _ => None,
        },
        _ => None,
    }
}

fn cidr(value: &Value<'_>) -> Option<(IpAddr, u8)> {
    match value {
        Value::Opaque(opaque) => match **opaque {
            Opaque::Cidr(own, length) => Some((own, length)),
            _ => None,
        },
        _ => None,
    }
}

fn address<'a>(args: &[Value<'a>], then: fn(IpAddr) -> Value<'a>) -> Outcome<'a> {
    match args {
        [value] => ip_of(value).map_or_else(no_overload, |own| Ok(then(own))),
        _ => no_overload(),
    }
}

fn within(network: (IpAddr, u8), own: IpAddr) -> bool {
    network.0.is_ipv4() == own.is_ipv4() && masked(own, network.1) == masked(network.0, network.1)
}

fn contains_ip<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [network, other] = args else {
        return no_overload();
    };
    let Some(network) = cidr(network) else {
        return no_overload();
    };
    let own = match other {
        Value::String(text) => match parse_ip(text) {
            Ok(own) => Some(own),
            Err(error) => return fault(error),
        },
        other => ip_of(other),
    };
    own.map_or_else(no_overload, |own| Ok(Value::Bool(within(network, own))))
}

fn contains_cidr<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [network, other] = args else {
        return no_overload();
    };
    let Some(network) = cidr(network) else {
        return no_overload();
    };
    let own = match other {
        Value::String(text) => match parse_cidr(text) {
            Ok(own) => Some(own),
            Err(error) => return fault(error),
        },
        other => cidr(other),
    };
    own.map_or_else(no_overload, |(own, length)| {
        Ok(Value::Bool(
            length >= network.1 && within(network, masked(own, length)),
        ))
    })
}
