//! The group `networking.k8s.io`.

mod ingress;
mod ingress_class;
mod ip_address;
mod network_policy;
mod service_cidr;

use meta::Names;

use crate::row::Row;

const GROUP: &str = "networking.k8s.io";

#[rustfmt::skip]
pub(crate) fn rows() -> Vec<Row> {
    let namespaced = |kind, plural| Names::namespaced(GROUP, "v1", kind, plural);
    let cluster = |kind, plural| Names::cluster(GROUP, "v1", kind, plural);
    vec![
        Row::new(cluster("IngressClass", "ingressclasses"), ingress_class::COLUMNS, ingress_class::IngressClass).generation(),
        Row::new(namespaced("Ingress", "ingresses").short(&["ing"]), ingress::COLUMNS, ingress::Ingress).status().generation(),
        Row::new(cluster("IPAddress", "ipaddresses").short(&["ip"]), ip_address::COLUMNS, ip_address::IpAddress),
        Row::new(namespaced("NetworkPolicy", "networkpolicies").short(&["netpol"]), network_policy::COLUMNS, network_policy::NetworkPolicy).generation(),
        Row::new(cluster("ServiceCIDR", "servicecidrs"), service_cidr::COLUMNS, service_cidr::ServiceCidr).status(),
    ]
}
