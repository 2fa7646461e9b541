//! Service.

use std::collections::BTreeSet;

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use super::service_rules;
use crate::row::{Cells, Strategy};
use crate::table::{age, cells, labels, name, or, plain};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Type, Cluster-IP, External-IP, Port(s), Age, Selector*";

pub(crate) struct Service;

impl Strategy for Service {
    fn default(&self, object: &mut Value) {
        default_service(object);
    }

    fn prepare_create(&self, service: &mut Value) {
        service.set("status.loadBalancer", serde_json::json!({}));
    }

    fn prepare_update(&self, service: &mut Value, old: &Value) {
        service_rules::drop_for_type(service, old);
    }

    fn validate_create(&self, service: &Value, faults: &mut Faults) {
        service_rules::validate(service, faults);
    }

    fn validate_update(&self, service: &Value, old: &Value, faults: &mut Faults) {
        service_rules::validate_change(service, old, faults);
        service_rules::validate(service, faults);
    }

    fn prepare_subresource(&self, subresource: &str, service: &mut Value, _old: &Value) {
        if subresource == "status" {
            default_modes(service);
        }
    }

    fn validate_status(&self, service: &Value, old: &Value, faults: &mut Faults) {
        service_rules::validate_status(service, old, faults);
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        meta::naming::dns1123_label(name)
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![
            ("spec.clusterIP", object.text("spec.clusterIP").into()),
            ("spec.type", object.text("spec.type").into()),
        ]
    }

    fn warnings(&self, service: &Value) -> Vec<String> {
        service_rules::warnings(service)
    }

    fn cells(&self, service: &Value, now: Timestamp) -> Cells {
        let cluster_ip = service.texts("spec.clusterIPs").next();
        cells![
            name(service),
            service.text("spec.type"),
            cluster_ip.unwrap_or("<none>"),
            external_ip(service),
            ports(service),
            age(service, now),
            labels(service, "spec.selector"),
        ]
    }
}

fn external_ip(service: &Value) -> String {
    let external = || service.texts("spec.externalIPs").map(str::to_owned);
    let found = match service.text("spec.type") {
        "ClusterIP" | "NodePort" => external().collect::<Vec<_>>(),
        "LoadBalancer" => {
            let balanced = balancers(service, "status.loadBalancer.ingress");
            let all: Vec<_> = balanced.into_iter().chain(external()).collect();
            return or(&all.join(","), "<pending>").to_owned();
        }
        "ExternalName" => return service.text("spec.externalName").to_owned(),
        _ => return "<unknown>".into(),
    };
    or(&found.join(","), "<none>").to_owned()
}

/// Addresses (or host names) of load balancers, sorted, each once.
pub(crate) fn balancers(object: &Value, path: &str) -> BTreeSet<String> {
    let address = |one: &Value| or(one.text("ip"), one.text("hostname")).to_owned();
    let addresses = object.list(path).iter().map(address);
    addresses.filter(|address| !address.is_empty()).collect()
}

fn ports(service: &Value) -> String {
    let port = |port: &Value| {
        let (number, protocol) = (port.int("port"), port.text("protocol"));
        match port.int("nodePort") {
            node_port if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
            _ => format!("{number}/{protocol}"),
        }
    };
    let ports: Vec<_> = service.list("spec.ports").iter().map(port).collect();
    or(&ports.join(","), "<none>").to_owned()
}

/// How long a client sticks to one pod.
const AFFINITY_SECONDS: i64 = 10_800;

fn default_service(service: &mut Value) {
    service.fill_map("spec");
    let Some(spec) = service.at_mut("spec") else {
        return;
    };
    spec.fill_text("sessionAffinity", "None");
    match spec.text("sessionAffinity") {
        "None" => spec.drop_field("sessionAffinityConfig"),
        "ClientIP" => spec.fill(
            "sessionAffinityConfig.clientIP.timeoutSeconds",
            AFFINITY_SECONDS,
        ),
        _ => {}
    }
    spec.fill_text("type", "ClusterIP");
    for port in spec.list_mut("ports") {
        port.fill_text("protocol", "TCP");
        if matches!(plain(port.at("targetPort")).as_str(), "" | "0") {
            let number = port.at("port").clone();
            port.set("targetPort", number);
        }
    }
    let kind = spec.text("type").to_owned();
    let balanced = kind == "LoadBalancer";
    if service_rules::is_external(spec) {
        spec.fill_text("externalTrafficPolicy", "Cluster");
    }
    if balanced || kind == "NodePort" || kind == "ClusterIP" {
        spec.fill("internalTrafficPolicy", "Cluster");
    }
    if balanced {
        spec.fill("allocateLoadBalancerNodePorts", true);
    }
    default_modes(service);
}

fn default_modes(service: &mut Value) {
    let balanced = service.text("spec.type") == "LoadBalancer";
    for address in service.list_mut("status.loadBalancer.ingress") {
        if balanced && !address.text("ip").is_empty() {
            address.fill("ipMode", "VIP");
        }
    }
}
