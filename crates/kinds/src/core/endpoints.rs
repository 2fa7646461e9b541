//! Endpoints: the addresses behind a service, in one object.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Endpoints, Age";
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
