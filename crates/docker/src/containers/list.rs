//! `GET /containers/json`: all containers, or those that filters leave.

use std::sync::Arc;

use regex::Regex;
use serde_json::{Value, json};

use crate::answer::{self, Answer, Fault};
use crate::call::{Call, Filters};
use crate::daemon::{Container, Daemon};
use crate::images;
use crate::record::{Record, Status, now, span};

const FILTERS: [&str; 18] = [
    "ancestor",
    "before",
    "expose",
    "exited",
    "health",
    "id",
    "isolation",
    "is-task",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "driver",
    "type",
];

pub(crate) async fn list(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.only(&FILTERS)?;
    let daemon = &call.daemon;
    let limit: Option<usize> = match call.query.number::<i64>("limit")? {
        Some(limit) if limit > 0 => usize::try_from(limit).ok(),
        _ => None,
    };
    let all = call.query.flag("all")
        || limit.is_some()
        || !filters.get("status").is_empty()
        || !filters.get("exited").is_empty();
    let mut containers = daemon.all();
    containers.sort_by_key(|container| std::cmp::Reverse(container.record.read().created));
    let ancestors = ancestors(daemon, &filters).await;
    let choice = Choice::new(daemon, &filters, ancestors)?;
    let mut shown = Vec::new();
    for container in containers {
        let record = container.snapshot();
        if (all || record.state.is_up() || record.state.status == Status::Restarting)
            && choice.takes(&container, &record)
        {
            shown.push(show(daemon, &container, &record, call.query.flag("size")));
        }
        if limit.is_some_and(|limit| shown.len() >= limit) {
            break;
        }
    }
    answer::ok(&shown)
}

/// Ids of the images named by `ancestor`.
async fn ancestors(daemon: &Arc<Daemon>, filters: &Filters) -> Vec<String> {
    let mut ids = Vec::new();
    for name in filters.get("ancestor") {
        if let Ok(image) = images::find(daemon, name).await {
            ids.push(image.id.to_string());
        }
    }
    ids
}

/// The filters, made ready.
struct Choice<'a> {
    filters: &'a Filters,
    names: Vec<Regex>,
    ancestors: Vec<String>,
    before: Option<i64>,
    since: Option<i64>,
}

impl<'a> Choice<'a> {
    fn new(
        daemon: &Daemon,
        filters: &'a Filters,
        ancestors: Vec<String>,
    ) -> Result<Choice<'a>, Fault> {
        let created = |name: &str| -> Result<Option<i64>, Fault> {
            let other = filters.get(name).first().map(|name| daemon.find(name));
            Ok(other.transpose()?.map(|other| other.record.read().created))
        };
        let expression = |text: &String| {
            Regex::new(text).map_err(|error| Fault::bad(format!("invalid filter 'name': {error}")))
        };
        Ok(Choice {
            names: filters
                .get("name")
                .iter()
                .map(expression)
                .collect::<Result<_, _>>()?,
            before: created("before")?,
            since: created("since")?,
            filters,
            ancestors,
        })
    }

    fn takes(&self, container: &Container, record: &Record) -> bool {
        let filters = self.filters;
        let slashed = format!("/{}", record.name);
        let named = |name: &Regex| name.is_match(&record.name) || name.is_match(&slashed);
        let health = container.progress.borrow().health.status;
        let health = if health.is_empty() { "none" } else { health };
        let has_port = |wish: &str| {
            let number = wish.split('/').next().unwrap_or_default();
            let keys = record.config.exposed_ports.keys();
            let bound = record.host.port_bindings.keys();
            keys.chain(bound)
                .any(|port| port.split('/').next() == Some(number))
        };
        let has_volume = |wish: &str| {
            let mut points = record.mounts.iter();
            points.any(|p| p.name == wish || p.source == wish || p.destination == wish)
        };
        let ancestor = filters.get("ancestor").is_empty()
            || self.ancestors.contains(&record.image_id)
            || filters.get("ancestor").contains(&record.config.image);
        (self.names.is_empty() || self.names.iter().any(named))
            && ancestor
            && self.before.is_none_or(|before| record.created < before)
            && self.since.is_none_or(|since| record.created > since)
            && filters.fits("id", |wish| record.id.starts_with(wish))
            && filters.fits("status", |wish| record.state.status.word() == wish)
            && filters.fits("exited", |wish| {
                record.state.status == Status::Exited && wish.parse() == Ok(record.state.exit_code)
            })
            && filters.fits("health", |wish| wish == health)
            && filters.fits("network", |wish| record.networks.contains_key(wish))
            && filters.fits("publish", has_port)
            && filters.fits("expose", has_port)
            && filters.fits("volume", has_volume)
            && filters.fits("is-task", |wish| matches!(wish, "0" | "false"))
            && filters.labels(&record.config.labels)
    }
}

fn show(daemon: &Daemon, container: &Container, record: &Record, size: bool) -> Value {
    let mut shown = json!({
        "Id": record.id,
        "Names": [format!("/{}", record.name)],
        "Image": record.config.image,
        "ImageID": record.image_id,
        "Command": record.args().join(" "),
        "Created": record.created / 1_000_000_000,
        "Ports": ports(record),
        "Labels": record.config.labels,
        "State": record.state.status.word(),
        "Status": status(container, record),
        "HostConfig": {"NetworkMode": record.host.network_mode},
        "NetworkSettings": {"Networks": super::inspect::endpoints(daemon, record)},
        "Mounts": record.mounts,
    });
    if size {
        let written = crate::volumes::folder_bytes(&container.folder.join("rw/upper"));
        shown["SizeRw"] = json!(written);
        shown["SizeRootFs"] = json!(written);
    }
    shown
}

fn ports(record: &Record) -> Vec<Value> {
    let mut shown = Vec::new();
    for (port, bindings) in super::inspect::ports(record) {
        let (number, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
        let number: u16 = number.parse().unwrap_or_default();
        let Some(bindings) = bindings.as_array().filter(|list| !list.is_empty()) else {
            shown.push(json!({"PrivatePort": number, "Type": protocol}));
            continue;
        };
        for binding in bindings {
            let public = binding["HostPort"]
                .as_str()
                .and_then(|port| port.parse::<u16>().ok());
            shown.push(json!({
                "IP": binding["HostIp"], "PrivatePort": number, "PublicPort": public,
                "Type": protocol,
            }));
        }
    }
    shown
}

/// `Up 3 minutes (healthy)`, `Exited (0) 5 seconds ago`.
fn status(container: &Container, record: &Record) -> String {
    let state = &record.state;
    let ago = |moment: i64| span((now() - moment) / 1_000_000_000);
    let health = container.progress.borrow().health.status;
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Restarting => {
            format!(
                "Restarting ({}) {} ago",
                state.exit_code,
                ago(state.finished_at)
            )
        }
        Status::Exited => format!(
            "Exited ({}) {} ago",
            state.exit_code,
            ago(state.finished_at)
        ),
        Status::Paused => format!("Up {} (Paused)", ago(state.started_at)),
        Status::Running => match health {
            "" => format!("Up {}", ago(state.started_at)),
            "starting" => format!("Up {} (health: starting)", ago(state.started_at)),
            health => format!("Up {} ({health})", ago(state.started_at)),
        },
    }
}
