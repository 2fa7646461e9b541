//! NetworkPolicy.

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::spot::{Spot, label_selector, maybe_one_of, rules, unsupported};
use crate::table::{age, cells, name, selector};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Pod-Selector, Age";

pub(crate) struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn default(&self, object: &mut Value) {
        for rules in ["spec.ingress", "spec.egress"] {
            for rule in object.list_mut(rules) {
                for port in rule.list_mut("ports") {
                    port.fill("protocol", "TCP");
                }
            }
        }
        if object.count("spec.policyTypes") == 0 {
            let mut kinds = vec!["Ingress"];
            if object.count("spec.egress") > 0 {
                kinds.push("Egress");
            }
            object.set("spec.policyTypes", kinds);
        }
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        label_selector(&spec.child("podSelector"), faults);
        for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
            for rule in spec.items(rules) {
                for port in rule.items("ports") {
                    validate_port(&port, faults);
                }
                for peer in rule.items(peers) {
                    validate_peer(&peer, faults);
                }
            }
        }
        if spec.count("policyTypes") > 2 {
            let kinds = spec.at("policyTypes").clone();
            let rule = "may not specify more than two policyTypes";
            return faults.invalid(spec.path("policyTypes"), kinds, rule);
        }
        for kind in spec.items("policyTypes") {
            let word = kind.as_str().unwrap_or("");
            if !matches!(word, "Ingress" | "Egress") {
                unsupported(faults, kind.path.clone(), word, &["Ingress", "Egress"]);
            }
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let spec = Spot::new(object, "spec");
        let mut warnings = Vec::new();
        for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
            let rules = spec.items(rules);
            for peer in rules.flat_map(|rule| rule.items(peers).collect::<Vec<_>>()) {
                let block = peer.child("ipBlock");
                let ranges = std::iter::once(block.child("cidr")).chain(block.items("except"));
                warnings.extend(crate::warnings::each(ranges, crate::warnings::cidr));
            }
        }
        warnings
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let pods = selector(object, "spec.podSelector");
        cells![name(object), pods, age(object, now)]
    }
}

fn validate_port(port: &Spot<'_>, faults: &mut Faults) {
    maybe_one_of(port, "protocol", &["TCP", "UDP", "SCTP"], faults);
    let end = port.maybe_int("endPort");
    let path = port.path("endPort");
    match (port.at("port"), end) {
        (Value::Null, None) => {}
        (Value::Null, Some(end)) => {
            faults.invalid(
                path,
                end,
                "may not be specified when `port` is not specified",
            );
        }
        (Value::String(name), end) => {
            if let Some(end) = end {
                let rule = "may not be specified when `port` is non-numeric";
                faults.invalid(path, end, rule);
            }
            rules(
                faults,
                port.path("port"),
                name.as_str(),
                naming::port_name(name),
            );
        }
        (number, end) => {
            let number = number.as_i64().unwrap_or(0);
            rules(
                faults,
                port.path("port"),
                number,
                naming::port_number(number),
            );
            let Some(end) = end else { return };
            if end < number {
                let rule = "must be greater than or equal to `port`";
                faults.invalid(path.clone(), number, rule);
            }
            rules(faults, path, end, naming::port_number(end));
        }
    }
}

fn validate_peer(peer: &Spot<'_>, faults: &mut Faults) {
    let mut count = 0;
    for selector in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = peer.some(selector) {
            count += 1;
            label_selector(&selector, faults);
        }
    }
    match peer.some("ipBlock") {
        Some(block) => {
            validate_block(&block, faults);
            if count > 0 {
                let rule = "may not specify both ipBlock and another peer";
                faults.forbidden(peer.path.clone(), rule);
            }
        }
        None if count == 0 => faults.required(peer.path.clone(), "must specify a peer"),
        None => {}
    }
}

fn validate_block(block: &Spot<'_>, faults: &mut Faults) {
    let range = block.text("cidr");
    if range.is_empty() {
        return faults.required(block.path("cidr"), "");
    }
    rules(faults, block.path("cidr"), range, naming::cidr(range));
    let Some(outer) = bits(range) else { return };
    for except in block.items("except") {
        let text = except.as_str().unwrap_or("");
        rules(faults, except.path.clone(), text, naming::cidr(text));
        let Some(inner) = bits(text) else { continue };
        let same_family = range.contains(':') == text.contains(':');
        // Both are aligned to 128 bits, so that the prefix is what both share.
        let shift = 128 - outer.1;
        let inside = shift == 128 || inner.0 >> shift == outer.0 >> shift;
        if !same_family || !inside || outer.1 >= inner.1 {
            let rule = "must be a strict subset of `cidr`";
            faults.invalid(except.path.clone(), text, rule);
        }
    }
}

/// A range's first address, aligned to the left, and the length of its prefix.
fn bits(range: &str) -> Option<(u128, u32)> {
    let (address, length) = range.split_once('/')?;
    let length: u32 = length.parse().ok()?;
    match address.parse().ok()? {
        std::net::IpAddr::V4(v4) if length <= 32 => Some((u128::from(u32::from(v4)) << 96, length)),
        std::net::IpAddr::V6(v6) if length <= 128 => Some((u128::from(v6), length)),
        _ => None,
    }
}
