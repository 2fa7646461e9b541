//! Endpoints: the addresses behind a service, in one object.

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::spot::{Spot, maybe_named, named, one_of, rules, same};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Endpoints, Age";
/// Since when there is something better.
pub(crate) const DEPRECATION: &str =
    "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";
/// As many addresses a cell shows.
const SHOWN_MAX: usize = 3;

pub(crate) struct Endpoints;

impl Strategy for Endpoints {
    fn default(&self, object: &mut Value) {
        for subset in object.list_mut("subsets") {
            for port in subset.list_mut("ports") {
                port.fill_text("protocol", "TCP");
            }
        }
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        for subset in Spot::new(object, "").items("subsets") {
            validate_subset(&subset, faults);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        // What was accepted once may stay as it is.
        if !same(object.at("subsets"), old.at("subsets")) {
            self.validate_create(object, faults);
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let labels = object.at("metadata.labels");
        let manager = labels.get("endpoints.kubernetes.io/managed-by");
        if manager.is_some_and(|own| own == "endpoint-controller") {
            return Vec::new();
        }
        let mut warnings = Vec::new();
        for subset in Spot::new(object, "").items("subsets") {
            for list in ["addresses", "notReadyAddresses"] {
                let ips = subset.items(list).map(|address| address.child("ip"));
                warnings.extend(crate::warnings::each(ips, crate::warnings::ip));
            }
        }
        warnings
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        cells![name(object), addresses(object), age(object, now)]
    }
}

fn addresses(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in object.list("subsets") {
        let ips = || subset.list("addresses").iter().map(|one| one.text("ip"));
        if subset.count("ports") == 0 {
            all.extend(ips().map(str::to_owned));
        }
        for port in subset.list("ports") {
            all.extend(ips().map(|ip| match ip.contains(':') {
                true => format!("[{ip}]:{}", port.int("port")),
                false => format!("{ip}:{}", port.int("port")),
            }));
        }
    }
    match all.len() {
        0 => "<none>".into(),
        count if count > SHOWN_MAX => {
            let shown = all[..SHOWN_MAX].join(",");
            format!("{shown} + {} more...", count - SHOWN_MAX)
        }
        _ => all.join(","),
    }
}

fn validate_subset(subset: &Spot<'_>, faults: &mut Faults) {
    if subset.count("addresses") + subset.count("notReadyAddresses") == 0 {
        let rule = "must specify `addresses` or `notReadyAddresses`";
        faults.required(subset.path.clone(), rule);
    }
    for list in ["addresses", "notReadyAddresses"] {
        for address in subset.items(list) {
            validate_listed_ip(address.text("ip"), &address.path("ip"), faults);
            maybe_named(&address, "hostname", naming::dns1123_label, faults);
            if let Some(name) = address.some("nodeName") {
                let text = name.value.as_str().unwrap_or("");
                rules(faults, name.path, text, naming::dns1123_subdomain(text));
            }
        }
    }
    for port in subset.items("ports") {
        match subset.count("ports") {
            0 | 1 => maybe_named(&port, "name", naming::dns1123_label, faults),
            _ => named(&port, "name", naming::dns1123_label, faults),
        }
        let number = port.int("port");
        rules(
            faults,
            port.path("port"),
            number,
            naming::port_number(number),
        );
        one_of(&port, "protocol", &["SCTP", "TCP", "UDP"], faults);
        validate_protocol(&port, faults);
    }
}

/// Which protocol a port speaks above TCP, when anything is said of that.
pub(super) fn validate_protocol(port: &Spot<'_>, faults: &mut Faults) {
    if let Some(protocol) = port.some("appProtocol") {
        let text = protocol.value.as_str().unwrap_or("");
        rules(faults, protocol.path, text, naming::qualified_name(text));
    }
}

/// The same as [`validate_ip`], where upstream reports what is no address twice.
pub(super) fn validate_listed_ip(ip: &str, path: &str, faults: &mut Faults) {
    validate_ip(ip, path, faults);
    if ip.parse::<std::net::IpAddr>().is_err() {
        faults.invalid(path, ip, "must be a valid IP address");
    }
}

/// An address behind a service: sound, and not one of the machine's own kinds.
pub(crate) fn validate_ip(ip: &str, path: &str, faults: &mut Faults) {
    let broken = naming::ip(ip);
    let Ok(address) = ip.parse::<std::net::IpAddr>() else {
        return rules(faults, path, ip, broken);
    };
    rules(faults, path, ip, broken);
    let (local, group) = match address {
        std::net::IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        std::net::IpAddr::V6(v6) => {
            let head = v6.segments()[0];
            (head & 0xffc0 == 0xfe80, head & 0xff0f == 0xff02)
        }
    };
    if address.is_unspecified() {
        faults.invalid(path, ip, format!("may not be unspecified ({ip})"));
    }
    if address.is_loopback() {
        let rule = "may not be in the loopback range (127.0.0.0/8, ::1/128)";
        faults.invalid(path, ip, rule);
    }
    if local {
        let rule = "may not be in the link-local range (169.254.0.0/16, fe80::/10)";
        faults.invalid(path, ip, rule);
    }
    if group {
        let rule = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
        faults.invalid(path, ip, rule);
    }
}
