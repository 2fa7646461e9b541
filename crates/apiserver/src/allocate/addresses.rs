//! A range of IPv4 addresses.

use std::net::{IpAddr, Ipv4Addr};

use rand::Rng;

/// Such as `10.96.0.0/12`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cidr {
    text: String,
    first: u32,
    bits: u32,
}

impl Cidr {
    /// Reads `address/bits`; at least four addresses.
    pub(crate) fn parse(text: &str) -> Option<Cidr> {
        let (address, bits) = text.split_once('/')?;
        let address: Ipv4Addr = address.parse().ok()?;
        let bits: u32 = bits.parse().ok().filter(|bits| (1..=30).contains(bits))?;
        let mask = u32::MAX << (32 - bits);
        let first = u32::from(address) & mask;
        Some(Cidr {
            text: format!("{}/{bits}", Ipv4Addr::from(first)),
            first,
            bits,
        })
    }

    /// How many addresses may be given away: all but the first and the last.
    pub(crate) fn size(&self) -> u32 {
        let all = 1_u64 << (32 - self.bits);
        u32::try_from(all - 2).unwrap_or(u32::MAX)
    }

    /// The address at a place, from 0.
    pub(crate) fn nth(&self, place: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(self.first + 1 + place))
    }

    /// Whether an address may be given away.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else {
            return false;
        };
        let place = u32::from(address).checked_sub(self.first + 1);
        place.is_some_and(|place| place < self.size())
    }

    /// A free address: from the upper part first, as the lower one is for those who choose
    /// theirs themselves.
    pub(crate) fn pick(&self, is_taken: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
        let size = self.size();
        let reserved = (size / 16).clamp(16, 256).min(size);
        let upper = size - reserved;
        let start = match upper {
            0 => 0,
            upper => rand::rng().random_range(0..upper),
        };
        let above = (0..upper).map(|step| reserved + (start + step) % upper);
        let below = 0..reserved;
        above
            .chain(below)
            .map(|place| self.nth(place))
            .find(|address| !is_taken(address))
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_away_all_but_the_ends() {
        let cidr = Cidr::parse("10.0.0.7/29").unwrap();
        assert_eq!(cidr.to_string(), "10.0.0.0/29");
        let mut taken = std::collections::HashSet::new();
        while let Some(address) = cidr.pick(|one| taken.contains(one)) {
            assert!(cidr.contains(address) && taken.insert(address));
        }
        assert_eq!(taken.len(), 6);
        assert!(!cidr.contains("10.0.0.0".parse().unwrap()));
        assert!(!cidr.contains("10.0.0.7".parse().unwrap()));
        assert!(Cidr::parse("10.0.0.0/33").is_none());
    }
}
