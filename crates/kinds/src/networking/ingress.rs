//! Ingress.

use jiff::Timestamp;
use serde_json::Value;

use crate::core::balancers;
use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name, or};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Class, Hosts, Address, Ports, Age";
/// As many hosts a cell shows.
const SHOWN_MAX: usize = 3;

pub(crate) struct Ingress;

impl Strategy for Ingress {
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
