//! log, exec, attach and port-forward: from an object to the place that answers for it.

use std::sync::Arc;

use client::Body;
use client::request::percent_encode;
use http::header::CACHE_CONTROL;
use http::request::Parts;
use http::{HeaderValue, Request, StatusCode};
use hyper::upgrade::OnUpgrade;
use meta::{Object, Reason, Status};
use serde_json::Value;

use crate::chain::{Call, Query};
use crate::dispatch::no_such_resource;
use crate::registry::Resource;
use crate::respond::Answer;
use crate::server::Core;
use crate::socket;
use crate::stream::{self, Channel, Target};
use crate::verbs::get::newest;
use crate::verbs::write::Write;

/// The port of a kubelet that does not say.
const KUBELET_PORT: u16 = 10250;

/// Passes a request on to where the object lives.
pub(crate) async fn connect(
    core: &Arc<Core>,
    call: &Call,
    resource: &Resource,
    mut parts: Parts,
    body: Body,
) -> Result<Answer, Status> {
    // A stream opened with GET, as WebSockets are, does what one opened with POST does.
    if matches!(
        call.info.subresource.as_str(),
        "exec" | "attach" | "portforward"
    ) {
        let mut asked = call.info.attributes();
        asked.verb = "create".into();
        core.authorizer.demand(&call.user, &asked).await?;
    }
    let write = Write::of(core, call, resource)?;
    let query = match call.info.subresource.as_str() {
        // A log is read, not connected to.
        "log" => call.query.clone(),
        _ => {
            let connected = crate::webhooks::connection(&write).await?;
            connected.query(&call.query)
        }
    };
    let Some((target, path)) = in_pod(core, call, resource, &query).await? else {
        // A pod that is nowhere has written nothing.
        let mut answer = Answer::new(client::empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let uncached = HeaderValue::from_static("no-cache, private");
        answer.headers_mut().insert(CACHE_CONTROL, uncached);
        return Ok(answer);
    };
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let mut request = Request::builder()
        .method(parts.method)
        .uri(path)
        .body(body)
        .map_err(|error| Status::bad_request(format!("invalid request: {error}")))?;
    *request.headers_mut() = stream::passed_headers(&call.headers);
    stream::forwarded_for(request.headers_mut(), &parts.extensions);
    // The kubelet sends logs as they are; it is we who make messages of them.
    let socket = call.info.subresource == "log" && socket::is_asked(&call.headers);
    let (passed, kept) = match socket {
        true => (None, upgrade),
        false => (upgrade, None),
    };
    if socket {
        socket::strip(request.headers_mut());
    }
    let answer = core.dialer.pass_on(&target, request, passed).await?;
    let code = answer.status();
    match code.is_client_error() || code.is_server_error() {
        true => Err(stream::failure(answer).await),
        false if socket => socket::log(&call.headers, kept, answer.into_body(), core.dialer.crew()),
        false => Ok(answer),
    }
}

async fn in_pod(
    core: &Core,
    call: &Call,
    pods: &Resource,
    query: &Query,
) -> Result<Option<(Target, String)>, Status> {
    let (namespace, name) = (call.info.namespace.as_str(), call.info.name.as_str());
    let word = call.info.subresource.as_str();
    match word {
        "log" => check_log(call)?,
        "portforward" => check_ports(call)?,
        _ => {}
    }
    let pod = newest(core, pods, namespace, name).await?.shared_tree();
    let base = match word {
        "log" => "containerLogs",
        "exec" => "exec",
        "attach" => "attach",
        "portforward" => "portForward",
        _ => return Err(no_such_resource()),
    };
    let mut path = format!(
        "/{base}/{}/{}",
        percent_encode(namespace),
        percent_encode(name)
    );
    if word != "portforward" {
        let container = container(query, &pod)?;
        path.push('/');
        path.push_str(&percent_encode(&container));
    }
    let node = pod.text("/spec/nodeName");
    if node.is_empty() && word == "log" {
        return Ok(None);
    }
    if node.is_empty() {
        return Err(Status::bad_request(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    match word {
        "exec" | "attach" => add_query(&mut path, &streams(query), &["container"]),
        _ => add_query(&mut path, query, &["container"]),
    }
    let target = kubelet(core, node).map_err(|status| match status.code {
        // Upstream speaks of what was asked for.
        404 => Status::not_found(&pods.row.names, node),
        _ => status,
    })?;
    Ok(Some((target, path)))
}

/// The container that is meant, in upstream's words when that is not clear.
fn container(query: &Query, pod: &Object) -> Result<String, Status> {
    let names = |field: &str| -> Vec<String> {
        let list = pod
            .0
            .pointer(&format!("/spec/{field}"))
            .and_then(Value::as_array);
        let names = list
            .into_iter()
            .flatten()
            .filter_map(|one| one["name"].as_str());
        names.map(str::to_owned).collect()
    };
    let (main, init, debug) = (
        names("containers"),
        names("initContainers"),
        names("ephemeralContainers"),
    );
    let pod_name = pod.name();
    if let Some(asked) = query.get("container").filter(|asked| !asked.is_empty()) {
        let known = [&main, &init, &debug]
            .iter()
            .any(|list| list.iter().any(|own| own == asked));
        return match known {
            true => Ok(asked.to_owned()),
            false => Err(Status::bad_request(format!(
                "container {asked} is not valid for pod {pod_name}"
            ))),
        };
    }
    if let [only] = main.as_slice() {
        return Ok(only.clone());
    }
    let all = [init, main, debug].concat();
    Err(Status::bad_request(format!(
        "a container name must be specified for pod {pod_name}, choose one of: [{}]",
        all.join(" ")
    )))
}

/// 400 for ports that are no numbers.
fn check_ports(call: &Call) -> Result<(), Status> {
    let ports = call.query.all("ports").flat_map(|ports| ports.split(','));
    let odd = ports.into_iter().find(|port| port.parse::<u16>().is_err());
    odd.map_or(Ok(()), |port| {
        Err(Status::bad_request(format!(
            "cannot convert to []int32: strconv.ParseUint: parsing {port:?}: invalid syntax"
        )))
    })
}

fn check_log(call: &Call) -> Result<(), Status> {
    let mut faults = meta::Faults::new();
    let seconds = call.query.number("sinceSeconds")?;
    let time = call.query.get("sinceTime").unwrap_or("");
    if !time.is_empty() && time.parse::<jiff::Timestamp>().is_err() {
        return Err(Status::bad_request(format!(
            "parsing time {time:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {time:?} as \
             \"2006\""
        )));
    }
    let (lines, bytes) = (
        call.query.number("tailLines")?,
        call.query.number("limitBytes")?,
    );
    let mut at_least = |field: &str, value: Option<i64>, least: i64, rule: &str| {
        if let Some(value) = value.filter(|value| *value < least) {
            faults.invalid(field, value, rule);
        }
    };
    at_least("tailLines", lines, 0, "must be greater than or equal to 0");
    at_least("limitBytes", bytes, 1, "must be greater than 0");
    match time.is_empty() {
        true => at_least("sinceSeconds", seconds, 1, "must be greater than 0"),
        false if seconds.is_some() => {
            let rule = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            // As upstream writes the empty path.
            faults.forbidden("[]", rule);
        }
        false => {}
    }
    // Streams cannot be told apart while the gate for it is alpha.
    if call.query.get("stream").is_some() {
        faults.forbidden("stream", "may not be specified");
    }
    let names = meta::Names::namespaced("", "v1", "PodLogOptions", "pods");
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid(&names, &call.info.name, &faults)),
    }
}

/// The kubelet of a node.
pub(crate) fn kubelet(core: &Core, node: &str) -> Result<Target, Status> {
    use admission::Lookup as _;
    let found = core
        .lookup
        .get("nodes", "", node)
        .ok_or_else(|| Status::not_found(&meta::Names::cluster("", "v1", "Node", "nodes"), node))?;
    let addresses = found
        .0
        .pointer("/status/addresses")
        .and_then(Value::as_array);
    let addresses: Vec<&Value> = addresses.into_iter().flatten().collect();
    let of = |kind: &str| {
        let own = addresses.iter().find(|address| address["type"] == kind);
        own.and_then(|address| address["address"].as_str())
    };
    let preferred = ["InternalIP", "ExternalIP", "Hostname"];
    let host = preferred.into_iter().find_map(of).ok_or_else(|| {
        let known = addresses.iter().map(|address| {
            let word = |field: &str| address[field].as_str().unwrap_or("");
            format!("{{{} {}}}", word("type"), word("address"))
        });
        let known: Vec<String> = known.collect();
        let text = format!(
            "no preferred addresses found; known addresses: [{}]",
            known.join(" ")
        );
        Status::new(Reason::Unknown, text)
    })?;
    let port = found
        .0
        .pointer("/status/daemonEndpoints/kubeletEndpoint/Port");
    let port = port
        .and_then(Value::as_u64)
        .and_then(|port| u16::try_from(port).ok());
    Ok(Target {
        host: host.to_owned(),
        port: port.filter(|port| *port > 0).unwrap_or(KUBELET_PORT),
        channel: Channel::Kubelet,
    })
}

/// What a kubelet calls the streams that somebody wants, with its own word for yes.
fn streams(query: &Query) -> Query {
    const WORDS: [(&str, &str); 4] = [
        ("stdin", "input"),
        ("stdout", "output"),
        ("stderr", "error"),
        ("tty", "tty"),
    ];
    let wanted = WORDS.iter().filter(|(own, _)| query.flag(own));
    let pairs = wanted.map(|(_, theirs)| ((*theirs).to_owned(), "1".to_owned()));
    query.replaced(&WORDS.map(|(own, _)| own), pairs.collect())
}

/// The rest of the path, and the query but for some parameters.
fn add_query(path: &mut String, query: &Query, without: &[&str]) {
    let pairs = query.pairs().filter(|(key, _)| !without.contains(key));
    for (at, (key, value)) in pairs.enumerate() {
        path.push(if at == 0 { '?' } else { '&' });
        path.push_str(&format!(
            "{}={}",
            percent_encode(key),
            percent_encode(value)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_called_what_kubelets_call_them() {
        let asked = "command=ls&stdin=true&tty=false&stdout=1&command=-l&stderr=0";
        let mut path = String::new();
        add_query(&mut path, &streams(&Query::parse(asked).unwrap()), &[]);
        assert_eq!(path, "?command=ls&command=-l&input=1&output=1");
    }
}
