//! EndpointSlice: some of the addresses behind a service.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name, or};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, AddressType, Ports, Endpoints, Age";
/// As many ports or addresses a cell shows.
const SHOWN_MAX: usize = 3;

pub(crate) struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn default(&self, object: &mut Value) {
        for port in object.list_mut("ports") {
            port.fill("name", "");
            port.fill("protocol", "TCP");
        }
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

fn shown(all: Vec<String>) -> String {
    match all.len().saturating_sub(SHOWN_MAX) {
        0 => or(&all.join(","), "<unset>").to_owned(),
        more => format!("{} + {more} more...", all[..SHOWN_MAX].join(",")),
    }
}
