//! Ranges of addresses of either family, as ServiceCIDRs name them.

use std::net::IpAddr;

/// Such as `10.96.0.0/12` or `2001:db8::/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    is_v4: bool,
    first: u128,
    last: u128,
}

impl Prefix {
    /// Reads `address/bits`.
    pub(crate) fn parse(text: &str) -> Option<Prefix> {
        let (address, bits) = text.split_once('/')?;
        let (is_v4, number) = number(address.parse().ok()?);
        let width: u32 = if is_v4 { 32 } else { 128 };
        let bits: u32 = bits.parse().ok().filter(|bits| *bits <= width)?;
        let hosts = match width - bits {
            128 => u128::MAX,
            hosts => (1 << hosts) - 1,
        };
        let first = number & !hosts;
        Some(Prefix {
            is_v4,
            first,
            last: first | hosts,
        })
    }

    /// Whether the other range lies in this one, or is this one.
    pub(crate) fn covers(&self, other: &Prefix) -> bool {
        self.is_v4 == other.is_v4 && self.first <= other.first && other.last <= self.last
    }

    /// Whether they have addresses in common.
    pub(crate) fn overlaps(&self, other: &Prefix) -> bool {
        self.is_v4 == other.is_v4 && self.first <= other.last && other.first <= self.last
    }

    /// Whether a service may have the address: neither that of the network nor, in IPv4, that of
    /// all its hosts.
    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        let (is_v4, number) = number(address);
        let last = self.last.saturating_sub(is_v4.into());
        is_v4 == self.is_v4 && self.first < number && number <= last
    }
}

fn number(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(address) => (true, u32::from(address).into()),
        IpAddr::V6(address) => (false, address.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_know_their_addresses() {
        let of = |text: &str| Prefix::parse(text).unwrap();
        let holds = |range: &str, address: &str| of(range).holds(address.parse().unwrap());
        assert!(holds("10.0.0.0/30", "10.0.0.1") && holds("10.0.0.0/30", "10.0.0.2"));
        assert!(!holds("10.0.0.0/30", "10.0.0.0") && !holds("10.0.0.0/30", "10.0.0.3"));
        assert!(!holds("10.0.0.0/30", "::1"));
        assert!(holds("2001:db8::/126", "2001:db8::3") && !holds("2001:db8::/126", "2001:db8::"));
        assert!(holds("::/0", "::1") && !holds("0.0.0.0/32", "0.0.0.0"));
        assert!(of("10.0.0.0/8").covers(&of("10.1.0.0/16")));
        assert!(of("10.0.0.0/8").covers(&of("10.0.0.0/8")));
        assert!(!of("10.1.0.0/16").covers(&of("10.0.0.0/8")));
        assert!(of("10.1.0.0/16").overlaps(&of("10.0.0.0/8")));
        assert!(!of("10.1.0.0/16").overlaps(&of("10.2.0.0/16")));
        assert!(Prefix::parse("10.0.0.0/33").is_none() && Prefix::parse("x/8").is_none());
    }
}
