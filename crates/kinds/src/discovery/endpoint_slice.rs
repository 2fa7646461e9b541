//! EndpointSlice: some of the addresses behind a service.

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use crate::core::validate_endpoint_ip;
use crate::metadata::validate_labels;
use crate::row::{Cells, Strategy, is_moved};
use crate::spot::{Spot, immutable, maybe_named, maybe_one_of, one_of, present_named, rules, same};
use crate::table::{age, cells, name, or};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, AddressType, Ports, Endpoints, Age";
/// As many ports or addresses a cell shows.
const SHOWN_MAX: usize = 3;

pub(crate) struct EndpointSlice;

impl Strategy for EndpointSlice {
    /// Labels count, too: they say whose endpoints these are.
    fn moves_generation(&self, object: &Value, old: &Value) -> bool {
        let labels = "metadata.labels";
        is_moved(object, old) || !same(object.at(labels), old.at(labels))
    }

    fn default(&self, object: &mut Value) {
        for port in object.list_mut("ports") {
            port.fill("name", "");
            port.fill("protocol", "TCP");
        }
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        validate(object, &Value::Null, faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        validate(object, old, faults);
        immutable(&Spot::new(object, ""), old, "addressType", faults);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let mut warnings = Vec::new();
        if object.text("addressType") == "FQDN" {
            warnings.push("spec.addressType: FQDN endpoints are deprecated".into());
        }
        warnings.extend(odd_addresses(object));
        warnings
    }

    fn warnings_update(&self, object: &Value, _old: &Value) -> Vec<String> {
        odd_addresses(object)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let port = |port: &Value| match (port.maybe_int("port"), port.at("name").as_str()) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.to_owned(),
            (None, None) => "*".to_owned(),
        };
        let ports = object.list("ports").iter().map(port).collect();
        let endpoints = object.list("endpoints").iter();
        let addresses = endpoints.flat_map(|endpoint| endpoint.texts("addresses"));
        let addresses = addresses.map(str::to_owned).collect();
        cells![
            name(object),
            object.text("addressType"),
            shown(ports),
            shown(addresses),
            age(object, now),
        ]
    }
}

/// Addresses that are better written otherwise; controllers write them well.
fn odd_addresses(object: &Value) -> Vec<String> {
    let labels = object.at("metadata.labels");
    let manager = labels.get("endpointslice.kubernetes.io/managed-by");
    let manager = manager.and_then(Value::as_str).unwrap_or("");
    let known = [
        "endpointslice-controller.k8s.io",
        "endpointslicemirroring-controller.k8s.io",
    ];
    if known.contains(&manager) {
        return Vec::new();
    }
    let endpoints = Spot::new(object, "").items("endpoints");
    let addresses = endpoints.flat_map(|one| one.items("addresses").collect::<Vec<_>>());
    crate::warnings::each(addresses, crate::warnings::ip)
}

fn shown(all: Vec<String>) -> String {
    match all.len().saturating_sub(SHOWN_MAX) {
        0 => or(&all.join(","), "<unset>").to_owned(),
        more => format!("{} + {more} more...", all[..SHOWN_MAX].join(",")),
    }
}

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const TOPOLOGY_MAX: usize = 16;
const HINTS_MAX: usize = 8;

fn validate(slice: &Value, old: &Value, faults: &mut Faults) {
    let root = Spot::new(slice, "");
    one_of(&root, "addressType", &["FQDN", "IPv4", "IPv6"], faults);
    validate_ports(&root, faults);
    if !same(slice.at("endpoints"), old.at("endpoints")) {
        if too_many(&root, "endpoints", ENDPOINTS_MAX, faults) {
            return;
        }
        for endpoint in root.items("endpoints") {
            validate_endpoint(&endpoint, slice.text("addressType"), faults);
        }
    }
}

fn too_many(parent: &Spot<'_>, list: &str, most: usize, faults: &mut Faults) -> bool {
    let count = parent.count(list);
    if count > most {
        faults.too_many(parent.path(list), count, most);
    }
    count > most
}

fn validate_ports(root: &Spot<'_>, faults: &mut Faults) {
    if too_many(root, "ports", PORTS_MAX, faults) {
        return;
    }
    let mut names = Vec::new();
    for port in root.items("ports") {
        maybe_named(&port, "name", naming::dns1123_label, faults);
        let name = port.text("name").to_owned();
        if names.contains(&name) {
            faults.duplicate(port.path("name"), name.as_str());
        }
        names.push(name);
        maybe_one_of(&port, "protocol", &["SCTP", "TCP", "UDP"], faults);
        present_named(&port, "appProtocol", naming::qualified_name, faults);
    }
}

fn validate_endpoint(endpoint: &Spot<'_>, kind: &str, faults: &mut Faults) {
    if endpoint.count("addresses") == 0 {
        let rule = "must contain at least 1 address";
        faults.required(endpoint.path("addresses"), rule);
    }
    too_many(endpoint, "addresses", ADDRESSES_MAX, faults);
    for address in endpoint.items("addresses") {
        let text = address.as_str().unwrap_or("");
        if kind == "FQDN" {
            let broken = naming::dns1123_subdomain(text.strip_suffix('.').unwrap_or(text));
            rules(faults, address.path.clone(), text, broken);
            continue;
        }
        if kind == "IPv4" && text.contains(':') {
            faults.invalid(endpoint.path("addresses"), text, "must be an IPv4 address");
        }
        if kind == "IPv6" && !text.contains(':') {
            faults.invalid(endpoint.path("addresses"), text, "must be an IPv6 address");
        }
        validate_endpoint_ip(text, &address.path, faults);
    }
    present_named(endpoint, "nodeName", naming::dns1123_subdomain, faults);
    present_named(endpoint, "hostname", naming::dns1123_label, faults);
    let topology = endpoint.child("deprecatedTopology");
    let count = endpoint.count("deprecatedTopology");
    if count > TOPOLOGY_MAX {
        faults.too_many(topology.path.clone(), count, TOPOLOGY_MAX);
    }
    validate_labels(topology.value, &topology.path, faults);
    if let Some(hints) = endpoint.some("hints")
        && validate_hints(&hints, "forZones", naming::label_value, faults)
    {
        validate_hints(&hints, "forNodes", naming::dns1123_subdomain, faults);
    }
}

/// Whether the hints are few enough to be looked at.
fn validate_hints(
    hints: &Spot<'_>,
    list: &str,
    rule: fn(&str) -> Vec<String>,
    faults: &mut Faults,
) -> bool {
    if too_many(hints, list, HINTS_MAX, faults) {
        return false;
    }
    let mut names = Vec::new();
    for hint in hints.items(list) {
        let (name, path) = (hint.text("name").to_owned(), hint.path("name"));
        if names.contains(&name) {
            faults.duplicate(path.clone(), name.as_str());
        }
        rules(faults, path, name.as_str(), rule(&name));
        names.push(name);
    }
    true
}
