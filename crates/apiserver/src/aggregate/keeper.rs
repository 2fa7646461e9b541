//! Looks after one route: is the server there, and what does it serve.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use client::Client;
use http::Method;
use meta::Status;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::discover::discover;
use super::{Listed, Route, condition};
use crate::server::Core;

/// A server that was there is looked at again after this time.
const RECHECK: Duration = Duration::from_secs(30);
/// One that was not, after this time, then twice of it, and so on.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Where APIServices are.
pub(super) const PATH: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

/// What a look found.
struct Verdict {
    status: &'static str,
    reason: &'static str,
    message: String,
    listed: Option<Listed>,
}

impl Verdict {
    fn missing(reason: &'static str, message: String) -> Verdict {
        Verdict {
            status: "False",
            reason,
            message,
            listed: None,
        }
    }
}

/// Looks after a route until dropped; `wakes` when services or endpoints changed.
pub(super) async fn keep(
    core: Arc<Core>,
    client: Client,
    route: Arc<Route>,
    mut wakes: watch::Receiver<u64>,
) {
    let mut retry = RETRY_FIRST;
    loop {
        wakes.borrow_and_update();
        let seen = inputs(&core, &route);
        let verdict = look(&route, &seen).await;
        let there = verdict.status == "True";
        remember(&route, verdict.listed);
        route.available.store(there, Ordering::Release);
        let written = write(
            &core,
            &client,
            &route,
            (verdict.status, verdict.reason, &verdict.message),
        );
        let pause = match (written.await, there) {
            (Ok(()), true) => {
                retry = RETRY_FIRST;
                RECHECK
            }
            (written, _) => {
                if let Err(error) = written {
                    tracing::debug!(%error, name = route.name, "condition not written");
                }
                let pause = retry;
                retry = (retry * 2).min(RETRY_MAX);
                pause
            }
        };
        let due = Instant::now() + pause;
        // What wakes us may concern others.
        loop {
            tokio::select! {
                woken = wakes.changed() => match woken {
                    Ok(()) if inputs(&core, &route) == seen => {}
                    Ok(()) => {
                        route.pool.renew();
                        retry = RETRY_FIRST;
                        break;
                    }
                    Err(_) => return,
                },
                () = tokio::time::sleep_until(due) => break,
            }
        }
    }
}

/// The service and the endpoints behind it.
#[derive(PartialEq)]
struct Inputs {
    service: Option<Value>,
    /// Whether there are slices, and the names of ports that have a ready address.
    slices: usize,
    ready: Vec<String>,
}

fn inputs(core: &Core, route: &Route) -> Inputs {
    use admission::Lookup as _;
    let address = &route.address;
    let service = core
        .lookup
        .get("services", &address.namespace, &address.service);
    let slices = core
        .lookup
        .list("endpointslices.discovery.k8s.io", &address.namespace);
    let own = slices.iter().filter(|slice| {
        slice.label("kubernetes.io/service-name") == Some(address.service.as_str())
    });
    let (mut count, mut ready) = (0, Vec::new());
    for slice in own {
        count += 1;
        let list = |field: &str| slice.0.get(field).and_then(Value::as_array).into_iter();
        let is_ready = |one: &Value| {
            let said = one.pointer("/conditions/ready").and_then(Value::as_bool);
            said.unwrap_or(true)
        };
        if list("endpoints").flatten().any(is_ready) {
            let ports = list("ports").flatten().filter(|port| port["port"].is_u64());
            ready.extend(ports.map(|port| port["name"].as_str().unwrap_or("").to_owned()));
        }
    }
    ready.sort_unstable();
    ready.dedup();
    Inputs {
        service: service.map(|service| service.0["spec"].clone()),
        slices: count,
        ready,
    }
}

async fn look(route: &Route, inputs: &Inputs) -> Verdict {
    let (name, namespace) = (&route.address.service, &route.address.namespace);
    let Some(service) = &inputs.service else {
        let message = format!("service/{name} in {namespace:?} is not present");
        return Verdict::missing("ServiceNotFound", message);
    };
    if service["type"] == "ClusterIP" {
        let ports = service["ports"].as_array();
        let port = ports
            .into_iter()
            .flatten()
            .find(|own| own["port"] == route.address.port);
        let Some(port) = port else {
            let message = format!(
                "service/{name} in {namespace:?} is not listening on port {}",
                route.address.port
            );
            return Verdict::missing("ServicePortError", message);
        };
        if inputs.slices == 0 {
            let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
            return Verdict::missing("EndpointsNotFound", message);
        }
        let port = port["name"].as_str().unwrap_or("");
        if !inputs.ready.iter().any(|ready| ready == port) {
            let message = format!(
                "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port:?}"
            );
            return Verdict::missing("MissingEndpoints", message);
        }
    }
    match discover(route).await {
        Ok(listed) => Verdict {
            status: "True",
            reason: "Passed",
            message: "all checks passed".into(),
            listed: Some(listed),
        },
        Err(message) => Verdict::missing("FailedDiscoveryCheck", message),
    }
}

/// What was known stays known, as stale, when the server does not answer.
fn remember(route: &Route, listed: Option<Listed>) {
    match listed {
        Some(listed) => route.listed.store(Some(Arc::new(listed))),
        None => {
            if let Some(known) = route.listed.load_full() {
                let stale = Listed {
                    stale: true,
                    ..Listed::clone(&known)
                };
                route.listed.store(Some(Arc::new(stale)));
            }
        }
    }
}

async fn write(
    core: &Core,
    client: &Client,
    route: &Route,
    (status, reason, message): (&str, &str, &str),
) -> Result<(), Status> {
    use admission::Lookup as _;
    let found = core
        .lookup
        .get("apiservices.apiregistration.k8s.io", "", &route.name);
    let Some(mut tree) = found.map(|found| found.0.clone()) else {
        return Ok(());
    };
    let known = condition(&tree).cloned().unwrap_or_default();
    if (&known["status"], &known["reason"], &known["message"])
        == (&json!(status), &json!(reason), &json!(message))
    {
        return Ok(());
    }
    let since = match known["status"] == status {
        true => known["lastTransitionTime"].clone(),
        false => json!(meta::time::now()),
    };
    let own = json!({"type": "Available", "status": status, "reason": reason,
        "message": message, "lastTransitionTime": since});
    let conditions = meta::object::map_at(&mut tree, "status")
        .entry("conditions")
        .or_insert_with(|| json!([]));
    if let Some(list) = conditions.as_array_mut() {
        list.retain(|one| one["type"] != "Available");
        list.push(own);
    }
    let path = format!("{PATH}/{}/status", route.name);
    client.send_value(Method::PUT, &path, &tree).await.map(drop)
}
