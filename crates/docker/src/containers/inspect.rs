//! `GET /containers/{id}/json`, as clients read it.

use serde_json::{Map, Value, json};

use crate::answer::{self, Answer};
use crate::call::Call;
use crate::daemon::{Container, Daemon};
use crate::record::{Record, Status, moment};
use crate::wire::Endpoint;

pub(crate) async fn inspect(call: Call, name: &str) -> Answer {
    let daemon = &call.daemon;
    let container = daemon.find(name)?;
    let mut shown = show(daemon, &container);
    if call.query.flag("size") {
        let written = crate::volumes::folder_bytes(&container.folder.join("rw/upper"));
        let image = container.snapshot().image_id;
        let image = crate::images::find(daemon, &image).await;
        let below = image.map(|image| image.size()).unwrap_or_default();
        shown["SizeRw"] = json!(written);
        shown["SizeRootFs"] = json!(written + below);
    }
    answer::ok(&shown)
}

fn show(daemon: &Daemon, container: &Container) -> Value {
    let record = container.snapshot();
    let args = record.args();
    let folder = &container.folder;
    let own_file = |name: &str| folder.join(name).display().to_string();
    json!({
        "Id": record.id,
        "Created": moment(record.created),
        "Path": args.first(),
        "Args": args.get(1..),
        "State": state(container, &record),
        "Image": record.image_id,
        "ResolvConfPath": own_file("resolv.conf"),
        "HostnamePath": own_file("hostname"),
        "HostsPath": own_file("hosts"),
        "LogPath": match crate::drivers::is_none(&record.host) {
            true => String::new(),
            false => container.log_path().display().to_string(),
        },
        "Name": format!("/{}", record.name),
        "RestartCount": record.state.restarts,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": daemon.execs.of(&record.id),
        "HostConfig": host_config(&record),
        "GraphDriver": {"Name": "overlay2", "Data": {
            "UpperDir": own_file("rw/upper"), "WorkDir": own_file("rw/work"),
            "MergedDir": own_file("rw"),
        }},
        "Mounts": record.mounts,
        "Config": config(&record),
        "NetworkSettings": network(daemon, &record),
    })
}

fn config(record: &Record) -> Value {
    let mut shown = serde_json::to_value(&record.config).unwrap_or_default();
    if record.config.env.is_empty() {
        shown["Env"] = json!([]);
    }
    shown
}

fn host_config(record: &Record) -> Value {
    let mut shown = serde_json::to_value(&record.host).unwrap_or_default();
    if record.host.log_config.kind.is_empty() {
        shown["LogConfig"] = json!({"Type": "json-file", "Config": {}});
    }
    let links = record.host.links.iter().flatten().map(|link| {
        let (name, alias) = super::share::parts(link);
        format!("/{}:/{}/{alias}", name.trim_start_matches('/'), record.name)
    });
    if record.host.links.is_some() {
        shown["Links"] = links.collect();
    }
    if record.host.restart_policy.name.is_empty() {
        shown["RestartPolicy"]["Name"] = json!("no");
    }
    shown
}

fn state(container: &Container, record: &Record) -> Value {
    let state = &record.state;
    let mut shown = json!({
        "Status": state.status.word(),
        "Running": state.is_up() || state.status == Status::Restarting,
        "Paused": state.status == Status::Paused,
        "Restarting": state.status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == Status::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": moment(state.started_at),
        "FinishedAt": moment(state.finished_at),
    });
    let health = container.progress.borrow().health.clone();
    if !health.status.is_empty() {
        shown["Health"] = json!(health);
    }
    shown
}

/// Published ports as lists of bindings.
pub(super) fn ports(record: &Record) -> Map<String, Value> {
    let mut ports = Map::new();
    if !record.state.is_up() {
        return ports;
    }
    for port in record.config.exposed_ports.keys() {
        ports.insert(port.clone(), Value::Null);
    }
    for (port, bindings) in &record.state.ports {
        ports.insert(port.clone(), json!(bindings));
    }
    ports
}

/// The networks with what the container has there.
pub(super) fn endpoints(daemon: &Daemon, record: &Record) -> Map<String, Value> {
    let mut shown = Map::new();
    for (name, endpoint) in &record.networks {
        let mut endpoint: Endpoint = endpoint.clone();
        let network = daemon.networks.named(name);
        endpoint.network_id = network.map(|network| network.id).unwrap_or_default();
        endpoint.interface.clear();
        endpoint.inner_interface.clear();
        let value = serde_json::to_value(&endpoint).unwrap_or_default();
        shown.insert(name.clone(), value);
    }
    shown
}

fn network(daemon: &Daemon, record: &Record) -> Value {
    let main = record
        .networks
        .get(record.network_mode())
        .cloned()
        .unwrap_or_default();
    json!({
        "Bridge": "",
        "SandboxID": record.state.sandbox,
        "SandboxKey": match record.state.pid {
            0 => String::new(),
            pid => format!("/proc/{pid}/ns/net"),
        },
        "Ports": ports(record),
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "EndpointID": main.endpoint_id,
        "Gateway": main.gateway,
        "GlobalIPv6Address": main.global_ipv6_address,
        "GlobalIPv6PrefixLen": main.global_ipv6_prefix_len,
        "IPAddress": main.ip_address,
        "IPPrefixLen": main.ip_prefix_len,
        "IPv6Gateway": main.ipv6_gateway,
        "MacAddress": main.mac_address,
        "Networks": endpoints(daemon, record),
    })
}
