//! IPv6 networks in the notation `fd00::/64`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// An IPv6 network; bits behind the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ipv6Cidr {
    address: Ipv6Addr,
    prefix: u8,
}

/// Not an IPv6 network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv6 network such as fd00::/64")]
pub struct InvalidCidr6(String);

impl Ipv6Cidr {
    /// The network of `prefix` bits that `address` lies in; a prefix above 128 counts as 128.
    pub const fn new(address: Ipv6Addr, prefix: u8) -> Ipv6Cidr {
        let prefix = if prefix > 128 { 128 } else { prefix };
        let address = Ipv6Addr::from_bits(address.to_bits() & mask(prefix));
        Ipv6Cidr { address, prefix }
    }

    /// The network's own address, its first.
    pub fn address(&self) -> Ipv6Addr {
        self.address
    }

    /// Bits that all its addresses share.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The address `index` places behind the first; `None` when that lies outside.
    pub fn nth(&self, index: u32) -> Option<Ipv6Addr> {
        let address = self.address.to_bits().checked_add(u128::from(index))?;
        let address = Ipv6Addr::from_bits(address);
        self.contains(address).then_some(address)
    }

    /// Whether the address lies in it.
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.address.to_bits()
    }
}

const fn mask(prefix: u8) -> u128 {
    match prefix {
        0 => 0,
        prefix => u128::MAX << (128 - prefix as u32),
    }
}

impl fmt::Display for Ipv6Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Ipv6Cidr {
    type Err = InvalidCidr6;

    fn from_str(text: &str) -> Result<Ipv6Cidr, InvalidCidr6> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let (address, prefix) = (address.parse().ok()?, prefix.parse().ok()?);
            (prefix <= 128).then(|| Ipv6Cidr::new(address, prefix))
        };
        parse().ok_or_else(|| InvalidCidr6(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_know_their_bounds() {
        let net: Ipv6Cidr = "fd00:1::5/64".parse().unwrap();
        assert_eq!(net.to_string(), "fd00:1::/64");
        assert_eq!(net.nth(2), Some("fd00:1::2".parse().unwrap()));
        assert!(!net.contains("fd00:1:0:1::1".parse().unwrap()));
        let small: Ipv6Cidr = "fd00::/127".parse().unwrap();
        assert_eq!(small.nth(2), None);
        for text in ["fd00::", "fd00::/129", "10.0.0.0/8", ""] {
            assert!(text.parse::<Ipv6Cidr>().is_err(), "{text}");
        }
    }
}
