//! From a request to `NodeMetrics` and `PodMetrics`.

use std::time::Duration;

use client::{Body, full};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use jiff::Timestamp;
use meta::{FieldSelector, Quantity, Reason, Status};
use serde_json::{Value, json};

use crate::sampler::{OfPod, Sampler, Usage};
use crate::{GROUP, VERSION, tables};

/// What a request asks for.
#[derive(Default)]
struct Query {
    labels: String,
    fields: FieldSelector,
}

impl Query {
    fn read(request: &Parts) -> Result<Query, Status> {
        let mut query = Query::default();
        for pair in request.uri.query().unwrap_or_default().split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value);
            match key {
                "labelSelector" => query.labels = value,
                "fieldSelector" => {
                    let fields = FieldSelector::parse(&value);
                    query.fields =
                        fields.map_err(|error| Status::bad_request(error.to_string()))?;
                }
                "watch" if value != "false" && value != "0" => return Err(not_allowed()),
                _ => {}
            }
        }
        Ok(query)
    }

    /// The path of a list of what is measured, as the API has it.
    fn list(&self, path: &str) -> String {
        match self.labels.is_empty() {
            true => path.to_owned(),
            false => {
                let labels = client::request::percent_encode(&self.labels);
                format!("{path}?labelSelector={labels}")
            }
        }
    }

    /// Whether an object is meant; its labels were looked at when it was listed.
    fn means(&self, object: &Value) -> bool {
        self.fields.matches(|path| match path {
            "metadata.name" => object["metadata"]["name"].as_str(),
            "metadata.namespace" => object["metadata"]["namespace"].as_str(),
            _ => None,
        })
    }
}

/// Percent-decodes a value of a query.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let hex = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
        let code = match bytes[at] {
            b'%' => hex(at + 1)
                .zip(hex(at + 2))
                .map(|(high, low)| high * 16 + low),
            _ => None,
        };
        match code.and_then(|code| u8::try_from(code).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn not_allowed() -> Status {
    Status::new(
        Reason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    )
}

/// Answers a request with an object, a list or a table.
pub(crate) async fn answer(
    sampler: &Sampler,
    request: &Parts,
    resources: Value,
) -> Result<Value, Status> {
    if request.method != Method::GET {
        return Err(not_allowed());
    }
    let prefix = format!("/apis/{GROUP}/{VERSION}");
    let path = request.uri.path();
    let path = path
        .strip_prefix(&prefix)
        .unwrap_or_default()
        .trim_matches('/');
    let query = Query::read(request)?;
    let tree = match path.split('/').collect::<Vec<&str>>().as_slice() {
        [""] => return Ok(resources),
        ["nodes"] => list("NodeMetricsList", nodes(sampler, &query).await?),
        ["nodes", name] => node(sampler, name).await?,
        ["pods"] => list(
            "PodMetricsList",
            pods(sampler, "/api/v1/pods", &query).await?,
        ),
        ["namespaces", namespace, "pods"] => {
            let path = format!("/api/v1/namespaces/{namespace}/pods");
            list("PodMetricsList", pods(sampler, &path, &query).await?)
        }
        ["namespaces", namespace, "pods", name] => pod(sampler, namespace, name).await?,
        _ => {
            let text = "the server could not find the requested resource";
            return Err(Status::new(Reason::NotFound, text));
        }
    };
    let accept = request.headers.get(ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or("");
    Ok(match tables::is_wanted(accept) {
        true => tables::table(tree),
        false => tree,
    })
}

/// An answer's bytes.
pub(crate) fn response(answered: Result<Value, Status>) -> Response<Body> {
    let (code, tree) = match answered {
        Ok(tree) => (StatusCode::OK, tree),
        Err(status) => {
            let code = StatusCode::from_u16(status.code);
            (
                code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                status.to_value(),
            )
        }
    };
    let mut response = Response::new(full(tree.to_string()));
    *response.status_mut() = code;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn list(kind: &str, items: Vec<Value>) -> Value {
    json!({"kind": kind, "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {},
        "items": items})
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

async fn nodes(sampler: &Sampler, query: &Query) -> Result<Vec<Value>, Status> {
    let list = sampler
        .client()
        .get_value(&query.list("/api/v1/nodes"))
        .await?;
    let meant: Vec<&Value> = items(&list).filter(|node| query.means(node)).collect();
    let names: Vec<String> = meant.iter().map(|node| name(node).to_owned()).collect();
    sampler.ensure(&names).await;
    let mut found = Vec::new();
    for node in meant {
        if let Some(usage) = sampler.node(name(node)).await {
            found.push(node_metrics(node, &usage));
        }
    }
    Ok(found)
}

async fn node(sampler: &Sampler, asked: &str) -> Result<Value, Status> {
    let missing = || not_found("nodemetrics", asked);
    let path = format!("/api/v1/nodes/{asked}");
    let node = match sampler.client().get_value(&path).await {
        Err(status) if status.is_not_found() => return Err(missing()),
        other => other?,
    };
    sampler.ensure(&[asked.to_owned()]).await;
    let usage = sampler.node(asked).await.ok_or_else(missing)?;
    Ok(node_metrics(&node, &usage))
}

async fn pods(sampler: &Sampler, path: &str, query: &Query) -> Result<Vec<Value>, Status> {
    let list = sampler.client().get_value(&query.list(path)).await?;
    let meant = items(&list).filter(|pod| query.means(pod) && is_running(pod));
    Ok(measured(sampler, meant.collect()).await)
}

async fn pod(sampler: &Sampler, namespace: &str, asked: &str) -> Result<Value, Status> {
    let missing = || not_found("podmetrics", &format!("{namespace}/{asked}"));
    let path = format!("/api/v1/namespaces/{namespace}/pods/{asked}");
    let pod = match sampler.client().get_value(&path).await {
        Err(status) if status.is_not_found() => return Err(missing()),
        other => other?,
    };
    let meant = Some(&pod).filter(|pod| is_running(pod));
    let mut found = measured(sampler, meant.into_iter().collect()).await;
    found.pop().ok_or_else(missing)
}

fn not_found(resource: &str, name: &str) -> Status {
    let text = format!("{resource}.{GROUP} {name:?} not found");
    Status::new(Reason::NotFound, text)
}

fn is_running(pod: &Value) -> bool {
    pod["status"]["phase"] == "Running"
}

fn node_of(pod: &Value) -> &str {
    pod["spec"]["nodeName"].as_str().unwrap_or_default()
}

fn key(pod: &Value) -> (String, String) {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    (namespace.to_owned(), name(pod).to_owned())
}

async fn measured(sampler: &Sampler, pods: Vec<&Value>) -> Vec<Value> {
    let names = |pods: &mut dyn Iterator<Item = &&Value>| {
        let mut names: Vec<String> = pods.map(|pod| node_of(pod).to_owned()).collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| !name.is_empty());
        names
    };
    let all = names(&mut pods.iter());
    sampler.ensure(&all).await;
    let mut used = sampler.pods(&all).await;
    // Pods that began since the last look.
    let missing = names(&mut pods.iter().filter(|pod| !used.contains_key(&key(pod))));
    if !missing.is_empty() {
        sampler.again(&missing).await;
        used = sampler.pods(&all).await;
    }
    let of = |pod: &&Value| Some(pod_metrics(pod, used.remove(&key(pod))?));
    pods.iter().filter_map(of).collect()
}

fn node_metrics(node: &Value, usage: &Usage) -> Value {
    json!({
        "kind": "NodeMetrics", "apiVersion": format!("{GROUP}/{VERSION}"),
        "metadata": metadata(node),
        "timestamp": time(usage.at), "window": window(usage.window_ms), "usage": used(usage),
    })
}

fn pod_metrics(pod: &Value, mut containers: OfPod) -> Value {
    containers.sort_by(|(a, _), (b, _)| a.cmp(b));
    // What was measured first tells for when all of it holds.
    let first = containers
        .iter()
        .map(|(_, usage)| usage)
        .min_by_key(|usage| usage.at);
    let (at, window_ms) = first.map_or((0, 0), |usage| (usage.at, usage.window_ms));
    let containers: Vec<Value> = containers
        .iter()
        .map(|(name, usage)| json!({"name": name, "usage": used(usage)}))
        .collect();
    json!({
        "kind": "PodMetrics", "apiVersion": format!("{GROUP}/{VERSION}"),
        "metadata": metadata(pod),
        "timestamp": time(at), "window": window(window_ms), "containers": containers,
    })
}

fn metadata(object: &Value) -> Value {
    let mut metadata = json!({"name": name(object), "creationTimestamp": meta::time::now()});
    for field in ["namespace", "labels"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    metadata
}

fn used(usage: &Usage) -> Value {
    let cpu = Quantity::parse(&format!("{}n", usage.nano_cores)).unwrap_or(Quantity::ZERO);
    let memory = i64::try_from(usage.memory_bytes).unwrap_or(i64::MAX);
    json!({"cpu": cpu.to_string(), "memory": Quantity::from_bytes(memory).to_string()})
}

fn time(milliseconds: i64) -> String {
    let at = Timestamp::from_millisecond(milliseconds);
    meta::time::rfc3339(at.unwrap_or(Timestamp::UNIX_EPOCH))
}

/// A duration as Go writes it.
fn window(milliseconds: i64) -> String {
    let whole = Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0));
    let (minutes, seconds) = (whole.as_secs() / 60, whole.as_secs() % 60);
    let mut text = match (minutes / 60, minutes % 60) {
        (0, 0) => String::new(),
        (0, minutes) => format!("{minutes}m"),
        (hours, minutes) => format!("{hours}h{minutes}m"),
    };
    let (milliseconds, second) = (whole.subsec_millis(), text.is_empty() && seconds == 0);
    match milliseconds {
        0 => text.push_str(&format!("{seconds}s")),
        _ if second => text.push_str(&format!("{milliseconds}ms")),
        _ => {
            let fraction = format!("{milliseconds:03}");
            text.push_str(&format!("{seconds}.{}s", fraction.trim_end_matches('0')));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn windows_are_written_as_go_does() {
        for (milliseconds, text) in [
            (15_000, "15s"),
            (1_034, "1.034s"),
            (10_100, "10.1s"),
            (60_000, "1m0s"),
            (3_661_500, "1h1m1.5s"),
            (20, "20ms"),
            (0, "0s"),
        ] {
            assert_eq!(window(milliseconds), text);
        }
    }

    #[test]
    fn selectors_are_read_from_the_query() {
        let uri = "/x?labelSelector=a%3Db%2Cc&fieldSelector=metadata.name%3Dp";
        let (request, ()) = Request::get(uri).body(()).unwrap().into_parts();
        let query = Query::read(&request).unwrap();
        assert_eq!(query.labels, "a=b,c");
        assert!(query.means(&json!({"metadata": {"name": "p"}})));
        assert!(!query.means(&json!({"metadata": {"name": "q"}})));
        let watch = Request::get("/x?watch=true").body(()).unwrap();
        let (request, ()) = watch.into_parts();
        assert!(Query::read(&request).is_err());
    }
}
