//! The networks there always are: the engine's bridge, the machine's own, and none.

use serde_json::{Map, Value, json};

use crate::answer::{self, Answer, Fault};
use crate::call::Call;
use crate::daemon::Daemon;

/// Name, driver and id.
const NETWORKS: [(&str, &str, char); 3] = [
    ("bridge", "bridge", 'b'),
    ("host", "host", 'c'),
    ("none", "null", 'd'),
];

impl Daemon {
    /// The id of a network by its name; empty for one there is not.
    pub(crate) fn network_id(&self, name: &str) -> String {
        let found = NETWORKS.iter().find(|(known, ..)| *known == name);
        found
            .map(|(_, _, digit)| digit.to_string().repeat(64))
            .unwrap_or_default()
    }

    fn show_network(&self, name: &str, driver: &str, with_users: bool) -> Value {
        let mut users = Map::new();
        for container in self.all() {
            let record = container.snapshot();
            if let (true, true, Some(endpoint)) =
                (with_users, record.state.is_up(), record.networks.get(name))
            {
                let address = match endpoint.ip_address.as_str() {
                    "" => String::new(),
                    address => format!("{address}/{}", endpoint.ip_prefix_len),
                };
                users.insert(record.id, json!({
                    "Name": record.name, "EndpointID": endpoint.endpoint_id,
                    "MacAddress": endpoint.mac_address, "IPv4Address": address, "IPv6Address": "",
                }));
            }
        }
        json!({
            "Name": name, "Id": self.network_id(name), "Created": "0001-01-01T00:00:00Z",
            "Scope": "local", "Driver": driver, "EnableIPv4": true, "EnableIPv6": false,
            "IPAM": {"Driver": "default", "Options": null, "Config": []}, "Internal": false,
            "Attachable": false, "Ingress": false, "ConfigFrom": {"Network": ""},
            "ConfigOnly": false, "Containers": users, "Options": {}, "Labels": {},
        })
    }
}

/// `GET /networks`.
pub(crate) async fn list(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.only(&[
        "dangling", "driver", "id", "label", "label!", "name", "scope", "type",
    ])?;
    let daemon = &call.daemon;
    let fits = |name: &str, driver: &str| {
        filters.fits("name", |wish| name.contains(wish))
            && filters.fits("driver", |wish| driver == wish)
            && filters.fits("id", |wish| daemon.network_id(name).starts_with(wish))
            && filters.fits("scope", |wish| wish == "local")
            && filters.fits("type", |wish| wish == "builtin")
            && filters.fits("dangling", |wish| matches!(wish, "0" | "false"))
            && filters.labels(&Default::default())
    };
    let shown: Vec<Value> = NETWORKS
        .iter()
        .filter(|(name, driver, _)| fits(name, driver))
        .map(|(name, driver, _)| daemon.show_network(name, driver, false))
        .collect();
    answer::ok(&shown)
}

/// `GET /networks/{id}`.
pub(crate) async fn inspect(call: Call, wish: &str) -> Answer {
    let daemon = &call.daemon;
    let id = |name: &str| wish.len() > 1 && daemon.network_id(name).starts_with(wish);
    let found = NETWORKS.iter().find(|(name, ..)| *name == wish || id(name));
    let (name, driver, _) =
        found.ok_or_else(|| Fault::missing(format!("network {wish} not found")))?;
    answer::ok(&daemon.show_network(name, driver, true))
}

/// `POST /networks/prune`.
pub(crate) async fn prune(_call: Call) -> Answer {
    answer::ok(&json!({ "NetworksDeleted": null }))
}

/// What changes networks.
pub(crate) fn unable() -> Answer {
    Err(Fault::unable(
        "user-defined networks are not supported by this engine yet",
    ))
}
