//! The ranges that Services get addresses from: what ServiceCIDRs say.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use super::Allocations;
use super::addresses::Cidr;
use crate::cache::{Entry, Observer};

/// The ServiceCIDR of the configured range.
pub(crate) const DEFAULT: &str = "kubernetes";

/// All ServiceCIDRs by name.
#[derive(Default)]
pub(crate) struct Ranges {
    known: BTreeMap<String, Range>,
}

struct Range {
    cidrs: Vec<Cidr>,
    /// Whether addresses may be taken from it now.
    open: bool,
}

impl Ranges {
    /// Those that may be taken from now, the configured one first. It counts as open as long as
    /// nobody has said anything about it.
    fn open<'r>(&'r self, configured: &'r Cidr) -> impl Iterator<Item = &'r Cidr> {
        let own = self.known.get(DEFAULT);
        let unsaid = own.is_none().then_some(configured);
        let others = self.known.iter().filter(|(name, _)| *name != DEFAULT);
        let ranges = own.into_iter().chain(others.map(|(_, range)| range));
        let open = ranges.filter(|range| range.open);
        unsaid
            .into_iter()
            .chain(open.flat_map(|range| &range.cidrs))
    }

    /// Whether an address may be taken.
    pub(crate) fn contain(&self, configured: &Cidr, address: IpAddr) -> bool {
        self.open(configured).any(|range| range.contains(address))
    }

    /// A free address.
    pub(crate) fn pick(
        &self,
        configured: &Cidr,
        is_taken: impl Fn(&IpAddr) -> bool,
    ) -> Option<IpAddr> {
        self.open(configured)
            .find_map(|range| range.pick(&is_taken))
    }

    /// Learns what a ServiceCIDR says.
    pub(crate) fn set(&mut self, name: &str, object: &Value) {
        let cidrs = object.pointer("/spec/cidrs").and_then(Value::as_array);
        let texts = cidrs.into_iter().flatten().filter_map(Value::as_str);
        let range = Range {
            cidrs: texts.filter_map(Cidr::parse).collect(),
            open: is_open(object),
        };
        self.known.insert(name.to_owned(), range);
    }

    /// Forgets a ServiceCIDR.
    pub(crate) fn remove(&mut self, name: &str) {
        self.known.remove(name);
    }
}

/// One that nobody has judged yet is as good as a ready one.
fn is_open(object: &Value) -> bool {
    let conditions = object.pointer("/status/conditions");
    let conditions = conditions.and_then(Value::as_array).into_iter().flatten();
    let mut ready = conditions.filter(|one| one.get("type").is_some_and(|own| own == "Ready"));
    let ready = ready.next().is_none_or(|own| own["status"] == "True");
    ready && object.pointer("/metadata/deletionTimestamp").is_none()
}

/// Follows ServiceCIDRs.
pub(crate) struct Follower(pub(crate) Allocations);

impl Observer for Follower {
    fn set(&self, entry: &Entry, _: Option<&meta::Object>) {
        let object = entry.decode().0;
        self.0.taken.lock().ranges.set(&entry.key, &object);
    }

    fn remove(&self, entry: &Entry) {
        self.0.taken.lock().ranges.remove(&entry.key);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_come_from_open_ranges() {
        let configured = Cidr::parse("10.0.0.0/24").unwrap();
        let mut ranges = Ranges::default();
        let check = |ranges: &Ranges, address: &str, expected: bool| {
            let address = address.parse().unwrap();
            assert_eq!(ranges.contain(&configured, address), expected, "{address}");
        };
        check(&ranges, "10.0.0.1", true);
        check(&ranges, "10.0.0.0", false);
        let range = |cidr: &str, ready: &str| {
            json!({"spec": {"cidrs": [cidr, "2001:db8::/64"]},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}})
        };
        ranges.set(DEFAULT, &range("10.0.0.0/24", "False"));
        ranges.set("more", &range("10.1.0.0/30", "True"));
        check(&ranges, "10.0.0.1", false);
        check(&ranges, "10.1.0.2", true);
        let mut leaving = range("10.2.0.0/30", "True");
        leaving["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        ranges.set("less", &leaving);
        check(&ranges, "10.2.0.2", false);
        let first: IpAddr = "10.1.0.1".parse().unwrap();
        let second: IpAddr = "10.1.0.2".parse().unwrap();
        let picked = ranges.pick(&configured, |one| *one == first);
        assert_eq!(picked, Some(second));
        ranges.set("more", &json!({"spec": {"cidrs": ["10.1.0.0/30"]}}));
        check(&ranges, "10.1.0.1", true);
        ranges.remove("more");
        check(&ranges, "10.1.0.1", false);
    }
}
