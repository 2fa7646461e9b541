//! IPv4 networks in the notation `10.0.0.0/8`.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 network; bits behind the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ipv4Cidr {
    address: Ipv4Addr,
    prefix: u8,
}

/// Not an IPv4 network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 network such as 10.0.0.0/8")]
pub struct InvalidCidr(String);

impl Ipv4Cidr {
    /// The network of `prefix` bits that `address` lies in; a prefix above 32 counts as 32.
    pub const fn new(address: Ipv4Addr, prefix: u8) -> Ipv4Cidr {
        let prefix = if prefix > 32 { 32 } else { prefix };
        let address = Ipv4Addr::from_bits(address.to_bits() & mask(prefix));
        Ipv4Cidr { address, prefix }
    }

    /// The network's own address, its first.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Bits that all its addresses share.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Its last address.
    pub fn last(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !mask(self.prefix))
    }

    /// The address `index` places behind the first; `None` when that lies outside.
    pub fn nth(&self, index: u32) -> Option<Ipv4Addr> {
        let address = self.address.to_bits().checked_add(index)?;
        let address = Ipv4Addr::from_bits(address);
        self.contains(address).then_some(address)
    }

    /// Whether the address lies in it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.address.to_bits()
    }
}

const fn mask(prefix: u8) -> u32 {
    match prefix {
        0 => 0,
        prefix => u32::MAX << (32 - prefix as u32),
    }
}

impl fmt::Display for Ipv4Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Ipv4Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Ipv4Cidr, InvalidCidr> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let (address, prefix) = (address.parse().ok()?, prefix.parse().ok()?);
            (prefix <= 32).then(|| Ipv4Cidr::new(address, prefix))
        };
        parse().ok_or_else(|| InvalidCidr(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_know_their_bounds() {
        let net: Ipv4Cidr = "10.244.3.7/24".parse().unwrap();
        assert_eq!(net.to_string(), "10.244.3.0/24");
        assert_eq!(net.nth(1), Some(Ipv4Addr::new(10, 244, 3, 1)));
        assert_eq!(net.nth(256), None);
        assert_eq!(net.last(), Ipv4Addr::new(10, 244, 3, 255));
        assert!(!net.contains(Ipv4Addr::new(10, 244, 4, 0)));
        let all: Ipv4Cidr = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains(Ipv4Addr::new(1, 2, 3, 4)));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["10.0.0.0", "10.0.0.0/33", "ten/8", "::/0", ""] {
            assert!(text.parse::<Ipv4Cidr>().is_err(), "{text}");
        }
    }
}
