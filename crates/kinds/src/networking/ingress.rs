//! Ingress.

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use crate::core::balancers;
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, maybe_named, named, present_named, rules, unsupported};
use crate::table::{age, cells, name, or};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Class, Hosts, Address, Ports, Age";
/// As many hosts a cell shows.
const SHOWN_MAX: usize = 3;

pub(crate) struct Ingress;

impl Strategy for Ingress {
    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        validate_spec(&Spot::new(object, "spec"), faults);
        let annotation = object.at("metadata.annotations").get(CLASS);
        let class = object.at("spec.ingressClassName");
        if let Some(annotation) = annotation.filter(|one| !class.is_null() && *one != class) {
            let rule = "must match `ingressClassName` when both are specified";
            faults.invalid(format!("annotations.{CLASS}"), annotation.clone(), rule);
        }
    }

    fn validate_update(&self, object: &Value, _old: &Value, faults: &mut Faults) {
        validate_spec(&Spot::new(object, "spec"), faults);
    }

    fn prepare_create(&self, object: &mut Value) {
        object.set("status.loadBalancer", serde_json::json!({}));
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let annotated = object.at("metadata.annotations").get(CLASS).is_some()
            && !object.has("spec.ingressClassName");
        let warning = "annotation \"kubernetes.io/ingress.class\" is deprecated, please use \
                       'spec.ingressClassName' instead";
        annotated.then(|| warning.to_owned()).into_iter().collect()
    }

    fn warnings_update(&self, _object: &Value, _old: &Value) -> Vec<String> {
        Vec::new()
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let addresses = balancers(object, "status.loadBalancer.ingress");
        let addresses: Vec<_> = addresses.into_iter().collect();
        let ports = match object.count("spec.tls") {
            0 => "80",
            _ => "80, 443",
        };
        cells![
            name(object),
            or(object.text("spec.ingressClassName"), "<none>"),
            hosts(object.list("spec.rules")),
            addresses.join(","),
            ports,
            age(object, now),
        ]
    }
}

fn hosts(rules: &[Value]) -> String {
    let hosts = rules.iter().map(|rule| rule.text("host"));
    let mut shown = Vec::new();
    for host in hosts {
        if shown.len() == SHOWN_MAX {
            let more = rules.len() - SHOWN_MAX;
            return format!("{} + {more} more...", shown.join(","));
        }
        if !host.is_empty() {
            shown.push(host);
        }
    }
    or(&shown.join(","), "*").to_owned()
}

const CLASS: &str = "kubernetes.io/ingress.class";

fn validate_spec(spec: &Spot<'_>, faults: &mut Faults) {
    if spec.count("rules") == 0 && !spec.has("defaultBackend") {
        let rule = "either `defaultBackend` or `rules` must be specified";
        faults.invalid(spec.path.clone(), spec.at("rules").clone(), rule);
    }
    if let Some(backend) = spec.some("defaultBackend") {
        validate_backend(&backend, faults);
    }
    for rule in spec.items("rules") {
        if rule.text("host").parse::<std::net::IpAddr>().is_ok() {
            let broken = "must be a DNS name, not an IP address";
            faults.invalid(rule.path("host"), rule.text("host"), broken);
        }
        validate_host(rule.text("host"), &rule.path("host"), faults);
        if let Some(http) = rule.some("http") {
            if http.count("paths") == 0 {
                faults.required(http.path("paths"), "");
            }
            for path in http.items("paths") {
                validate_path(&path, faults);
            }
        }
    }
    for tls in spec.items("tls") {
        for host in tls.items("hosts") {
            let text = host.as_str().unwrap_or("");
            rules(faults, host.path.clone(), text, host_rules(text));
        }
        maybe_named(&tls, "secretName", naming::dns1123_subdomain, faults);
    }
    present_named(spec, "ingressClassName", naming::dns1123_subdomain, faults);
}

fn validate_host(host: &str, path: &str, faults: &mut Faults) {
    if !host.is_empty() {
        rules(faults, path, host, host_rules(host));
    }
}

fn host_rules(host: &str) -> Vec<String> {
    match host.contains('*') {
        true => naming::wildcard_dns1123_subdomain(host),
        false => naming::dns1123_subdomain(host),
    }
}

fn validate_path(spot: &Spot<'_>, faults: &mut Faults) {
    let path = spot.text("path");
    let exact = match spot.at("pathType").as_str() {
        None => return faults.required(spot.path("pathType"), "pathType must be specified"),
        Some("Exact" | "Prefix") => true,
        Some("ImplementationSpecific") => false,
        Some(other) => {
            let words = ["Exact", "ImplementationSpecific", "Prefix"];
            return unsupported(faults, spot.path("pathType"), other, &words);
        }
    };
    if !path.starts_with('/') && (exact || !path.is_empty()) {
        faults.invalid(spot.path("path"), path, "must be an absolute path");
    }
    if exact && !path.is_empty() {
        for part in ["//", "/./", "/../", "%2f", "%2F"] {
            if path.contains(part) {
                faults.invalid(
                    spot.path("path"),
                    path,
                    format!("must not contain '{part}'"),
                );
            }
        }
        for end in ["/..", "/."] {
            if path.ends_with(end) {
                faults.invalid(spot.path("path"), path, format!("cannot end with '{end}'"));
            }
        }
    }
    validate_backend(&spot.child("backend"), faults);
}

fn validate_backend(backend: &Spot<'_>, faults: &mut Faults) {
    let path = backend.path.clone();
    let service = match (backend.some("resource"), backend.some("service")) {
        (Some(_), Some(_)) => {
            return faults.invalid(path, "", "cannot set both resource and service backends");
        }
        (None, None) => {
            return faults.invalid(path, "", "resource or service backend is required");
        }
        (Some(resource), None) => {
            present_named(&resource, "apiGroup", naming::dns1123_subdomain, faults);
            named(&resource, "kind", naming::path_segment, faults);
            return named(&resource, "name", naming::path_segment, faults);
        }
        (None, Some(service)) => service,
    };
    named(&service, "name", naming::dns1123_label, faults);
    let (name, number) = (service.text("port.name"), service.int("port.number"));
    match (name, number) {
        ("", 0) => faults.required(path, "port name or number is required"),
        ("", number) => {
            let broken = naming::port_number(number);
            rules(faults, service.path("port.number"), number, broken);
        }
        (name, 0) => rules(
            faults,
            service.path("port.name"),
            name,
            naming::port_name(name),
        ),
        _ => faults.invalid(path, "", "cannot set both port name & port number"),
    }
}
