//! Requests passed on to nodes, pods and services: where to, and how answers are rewritten so
//! that what they link to stays behind the proxy.

use std::sync::Arc;

use client::Body;
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, LOCATION, UPGRADE,
};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use meta::{LabelSelector, Object, Reason, Status};
use serde_json::Value;

use super::coding::Coding;
use super::links::Rewriter;
use crate::chain::Call;
use crate::registry::Resource;
use crate::respond::{self, Answer};
use crate::server::Core;
use crate::stream::{self, Channel, Target};
use crate::verbs::get::newest;
use crate::verbs::write::Write;

const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Answers a request for a `proxy` subresource.
pub(crate) async fn answer(
    core: &Arc<Core>,
    call: &Call,
    resource: &Resource,
    mut parts: Parts,
    body: Body,
) -> Result<Answer, Status> {
    let write = Write::of(core, call, resource)?;
    let connected = crate::webhooks::connection(&write).await?;
    let target = locate(core, call, resource).await?;
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let path = target_path(&call.info.path);
    let query = parts.uri.query().map(|query| format!("?{query}"));
    let query = query.unwrap_or_default();
    if path.is_empty() && !call.headers.contains_key(UPGRADE) {
        // Relative links of the page would lead beside it.
        let mut answer = respond::plain(StatusCode::MOVED_PERMANENTLY, "text/plain", "");
        insert(
            &mut answer,
            LOCATION,
            &format!("{}/{query}", call.info.path),
        );
        return Ok(answer);
    }
    let uri = match connected.path().unwrap_or(path) {
        path if path.starts_with('/') => format!("{path}{query}"),
        path => format!("/{path}{query}"),
    };
    let mut request = Request::builder()
        .method(parts.method)
        .uri(uri)
        .body(body)
        .map_err(|error| Status::bad_request(format!("invalid request: {error}")))?;
    let host = call.headers.get(HOST).cloned();
    *request.headers_mut() = stream::passed_headers(&call.headers);
    if let Some(host) = &host {
        request.headers_mut().insert(HOST, host.clone());
    }
    stream::forwarded_for(request.headers_mut(), &parts.extensions);
    if let Ok(value) = HeaderValue::from_str(&call.info.path) {
        request.headers_mut().insert(FORWARDED_URI, value);
    }
    let reached = core.dialer.pass_on(&target, request, upgrade).await;
    let answer = reached.map_err(|status| {
        let text = status.message.replacen("error dialing backend: ", "", 1);
        let text = format!("error trying to reach service: {text}");
        Status::new(Reason::ServiceUnavailable, text)
    })?;
    let rewriter = Rewriter {
        prefix: call.info.path[..call.info.path.len() - path.len()].to_owned(),
        target: target.authority(),
        asked: host.and_then(|host| host.to_str().ok().map(str::to_owned)),
    };
    rewritten(answer, &rewriter).await
}

/// What follows `/proxy` in a path; empty without a slash.
fn target_path(path: &str) -> &str {
    // `/api/v1/namespaces/x/pods/y/proxy/…` or `/api/v1/nodes/y/proxy/…`.
    let words = match path.split('/').nth(3) {
        Some("namespaces") => 8,
        _ => 6,
    };
    let head: usize = path.split('/').take(words).map(|word| word.len() + 1).sum();
    path.get(head - 1..).unwrap_or("")
}

fn insert(answer: &mut Answer, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

/// Redirects and the links of pages lead through the proxy, too.
async fn rewritten(mut answer: Response<Body>, rewriter: &Rewriter) -> Result<Answer, Status> {
    let text = |answer: &Response<Body>, name: HeaderName| {
        let value = answer.headers().get(name);
        value.and_then(|value| value.to_str().ok().map(str::to_owned))
    };
    if let Some(location) = text(&answer, LOCATION).filter(|location| !location.is_empty()) {
        insert(&mut answer, LOCATION, &rewriter.url(&location));
        return Ok(answer);
    }
    let media = text(&answer, CONTENT_TYPE).unwrap_or_default();
    let is_html = media.split(';').next().unwrap_or("").trim() == "text/html";
    if !is_html || answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer);
    }
    let encoding = text(&answer, CONTENT_ENCODING).unwrap_or_default();
    let Some(coding) = Coding::read(&encoding) else {
        // Asked for only by clients that said they take it: the page is theirs as it is.
        return Ok(answer);
    };
    let (mut head, body) = answer.into_parts();
    head.headers.remove(CONTENT_LENGTH);
    Ok(Response::from_parts(head, rewriter.pages(body, coding)))
}

/// What a proxy path leads to: a node's kubelet, a pod, or a ready endpoint of a service.
async fn locate(core: &Core, call: &Call, resource: &Resource) -> Result<Target, Status> {
    let own = call.info.name.as_str();
    let (kind, split) = (resource.row.names.plural.as_str(), split_name(own));
    let Some((scheme, name, port)) = split else {
        let kind = kind.trim_end_matches('s');
        return Err(Status::bad_request(format!(
            "invalid {kind} request {own:?}"
        )));
    };
    let channel = match scheme {
        "https" => Channel::Unverified,
        _ => Channel::Plain,
    };
    let namespace = call.info.namespace.as_str();
    let (host, port) = match kind {
        "nodes" => {
            newest(core, resource, "", name).await?;
            let kubelet = super::connect::kubelet(core, name)?;
            if port.is_empty() || port == kubelet.port.to_string() {
                return Ok(kubelet);
            }
            (kubelet.host, port_number(port)?)
        }
        "pods" => {
            let pod = newest(core, resource, namespace, name).await?.shared_tree();
            pod_address(&pod, port)?
        }
        _ => service_endpoint(core, namespace, (own, name, port))?,
    };
    match host.parse() {
        Ok(address) if is_proxyable(address) => Ok(Target {
            host,
            port,
            channel,
        }),
        Ok(_) => Err(Status::bad_request("address not allowed")),
        Err(_) => Err(Status::bad_request("no addresses for hostname")),
    }
}

/// Whether an address may be reached through us: none of our own, of the link, or of many.
fn is_proxyable(address: std::net::IpAddr) -> bool {
    use std::net::IpAddr;
    let link_local = match address {
        IpAddr::V4(own) => own.is_link_local() || own.is_broadcast(),
        IpAddr::V6(own) => own.segments()[0] & 0xffc0 == 0xfe80,
    };
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local)
}

/// `[scheme:]name[:port]`.
fn split_name(text: &str) -> Option<(&str, &str, &str)> {
    let parts: Vec<&str> = text.split(':').collect();
    let split = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    (matches!(split.0, "" | "http" | "https") && !split.1.is_empty()).then_some(split)
}

fn port_number(text: &str) -> Result<u16, Status> {
    let known = text.parse::<u16>().ok().filter(|port| *port > 0);
    known.ok_or_else(|| {
        let text = format!("error trying to reach service: unknown port {text:?}");
        Status::new(Reason::ServiceUnavailable, text)
    })
}

fn pod_address(pod: &Object, port: &str) -> Result<(String, u16), Status> {
    let host = pod.text("/status/podIP");
    if host.is_empty() {
        return Err(Status::bad_request("address not allowed"));
    }
    let containers = pod.0.pointer("/spec/containers").and_then(Value::as_array);
    let ports = containers
        .into_iter()
        .flatten()
        .filter_map(|container| container["ports"].as_array())
        .flatten();
    let number = |port: &Value| u16::try_from(port["containerPort"].as_u64()?).ok();
    let mut fitting = ports.filter(|own| port.is_empty() || own["name"] == port);
    let port = match fitting.find_map(number) {
        Some(port) => port,
        None if port.is_empty() => 80,
        None => port_number(port)?,
    };
    Ok((host.to_owned(), port))
}

/// A ready endpoint of a service. Only addresses that are those of a pod in the service's
/// namespace are dialed: who writes endpoints must not choose where we connect to.
fn service_endpoint(
    core: &Core,
    namespace: &str,
    (asked, name, port): (&str, &str, &str),
) -> Result<(String, u16), Status> {
    use admission::Lookup as _;
    let unavailable = |text: String| Status::new(Reason::ServiceUnavailable, text);
    let service = core.lookup.get("services", namespace, name);
    let names = meta::Names::namespaced("", "v1", "Service", "services");
    let service = service.ok_or_else(|| Status::not_found(&names, name))?;
    let mut port_name = port.to_owned();
    if let Ok(number) = port.parse::<u64>() {
        let ports = service.0.pointer("/spec/ports").and_then(Value::as_array);
        let mut ports = ports.into_iter().flatten();
        let found = ports.find(|own| own["port"] == number).ok_or_else(|| {
            unavailable(format!(
                "no service port {number} found for service {name:?}"
            ))
        })?;
        port_name = found["name"].as_str().unwrap_or("").to_owned();
    }
    let own = LabelSelector::equal([("kubernetes.io/service-name", name)]);
    let slices = core
        .lookup
        .list("endpointslices.discovery.k8s.io", namespace);
    let mut candidates = Vec::new();
    let (mut any, mut has_slices) = (false, false);
    for slice in slices
        .iter()
        .filter(|slice| own.matches(|key| slice.label(key)))
    {
        has_slices = true;
        let ports = slice.0.get("ports").and_then(Value::as_array);
        let port = ports
            .into_iter()
            .flatten()
            .find(|own| own["name"].as_str().unwrap_or("") == port_name);
        let port = port.and_then(|port| u16::try_from(port["port"].as_u64()?).ok());
        let endpoints = slice.0.get("endpoints").and_then(Value::as_array);
        for endpoint in endpoints.into_iter().flatten() {
            any = true;
            let ready = endpoint
                .pointer("/conditions/ready")
                .and_then(Value::as_bool);
            let address = endpoint.pointer("/addresses/0").and_then(Value::as_str);
            if let (true, Some(address), Some(port)) = (ready.unwrap_or(true), address, port)
                && is_pods(core, namespace, endpoint, address)
            {
                candidates.push((address.to_owned(), port));
            }
        }
    }
    match candidates.len() {
        // Upstream asks for the service's Endpoints.
        0 if !has_slices && core.lookup.get("endpoints", namespace, name).is_none() => {
            Err(Status::not_found(&names, name))
        }
        0 => {
            let of = if any { asked } else { name };
            let text = format!("no endpoints available for service {of:?}");
            Err(unavailable(text))
        }
        count => Ok(candidates.swap_remove(rand::random_range(0..count))),
    }
}

/// Whether an endpoint's address is that of the pod it names.
fn is_pods(core: &Core, namespace: &str, endpoint: &Value, address: &str) -> bool {
    use admission::Lookup as _;
    let target = &endpoint["targetRef"];
    let (Some(name), "Pod") = (
        target["name"].as_str(),
        target["kind"].as_str().unwrap_or("Pod"),
    ) else {
        return false;
    };
    let elsewhere = target["namespace"]
        .as_str()
        .is_some_and(|own| own != namespace);
    let Some(pod) = core.lookup.get("pods", namespace, name) else {
        return false;
    };
    let addresses = pod.0.pointer("/status/podIPs").and_then(Value::as_array);
    let mut addresses = addresses.into_iter().flatten();
    let listed = addresses.any(|own| own["ip"] == address);
    !elsewhere && (listed || pod.text("/status/podIP") == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_names_are_split() {
        assert_eq!(split_name("web"), Some(("", "web", "")));
        assert_eq!(split_name("web:http"), Some(("", "web", "http")));
        assert_eq!(split_name("http:web:80"), Some(("http", "web", "80")));
        assert_eq!(split_name("https:web:"), Some(("https", "web", "")));
        assert_eq!(split_name("ftp:web:80"), None);
        assert_eq!(split_name(":80"), None);
        assert_eq!(split_name("a:b:c:d"), None);
    }

    #[test]
    fn the_path_behind_the_proxy_is_kept_as_it_was_sent() {
        let pod = "/api/v1/namespaces/a/pods/https:b:1/proxy";
        assert_eq!(target_path(pod), "");
        assert_eq!(target_path(&format!("{pod}/")), "/");
        assert_eq!(target_path(&format!("{pod}/x%2Fy//z/")), "/x%2Fy//z/");
        assert_eq!(target_path("/api/v1/nodes/n/proxy/metrics"), "/metrics");
        assert_eq!(target_path("/api/v1/nodes/n/proxy"), "");
    }

    #[test]
    fn some_addresses_are_nobodys_business() {
        let check = |text: &str| is_proxyable(text.parse().unwrap());
        assert!(check("10.0.0.1") && check("192.168.1.1") && check("fd00::1"));
        for text in [
            "127.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "::1",
            "fe80::1",
        ] {
            assert!(!check(text), "{text}");
        }
    }
}
