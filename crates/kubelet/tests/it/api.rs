//! A small API in memory: objects by path, merge patches, watches.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use client::{Body, BoxError, Client, Transport};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;

#[derive(Default)]
struct State {
    version: u64,
    /// By path: `/api/v1/namespaces/default/pods/web`.
    objects: BTreeMap<String, Value>,
    token_requests: Vec<Value>,
}

#[derive(Clone)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<(String, String, Value)>,
    down: Arc<AtomicBool>,
}

impl FakeApi {
    pub(crate) fn new() -> FakeApi {
        FakeApi {
            state: Arc::default(),
            events: broadcast::channel(1024).0,
            down: Arc::default(),
        }
    }

    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        Client::new(Transport::new(tower::service_fn(move |request| {
            let api = api.clone();
            async move {
                if api.down.load(Ordering::SeqCst) {
                    return Err(BoxError::from("connection refused"));
                }
                Ok::<_, BoxError>(api.answer(request).await)
            }
        })))
    }

    /// Refuses all requests, or answers again.
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().objects.get(path).cloned()
    }

    /// The tokens that were asked for.
    pub(crate) fn token_requests(&self) -> Vec<Value> {
        self.state.lock().token_requests.clone()
    }

    /// The messages of all events with a reason.
    pub(crate) fn events_of(&self, reason: &str) -> Vec<String> {
        let state = self.state.lock();
        let events = state
            .objects
            .iter()
            .filter(|(path, _)| path.contains("/events/"));
        let mut found: Vec<(String, String)> = events
            .filter(|(_, event)| event["reason"] == reason)
            .map(|(path, event)| (path.clone(), event["message"].as_str().unwrap().to_owned()))
            .collect();
        found.sort();
        found.into_iter().map(|(_, message)| message).collect()
    }

    /// Writes an object as a user would; fills uid and times.
    pub(crate) fn put(&self, path: &str, mut object: Value) -> Value {
        let mut state = self.state.lock();
        state.version += 1;
        let kind = if state.objects.contains_key(path) {
            "MODIFIED"
        } else {
            "ADDED"
        };
        let version = state.version;
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.insert("resourceVersion".into(), version.to_string().into());
        metadata
            .entry("uid")
            .or_insert_with(|| format!("uid-{version}").into());
        metadata
            .entry("creationTimestamp")
            .or_insert_with(|| "2026-01-01T00:00:00Z".into());
        state.objects.insert(path.into(), object.clone());
        self.publish(kind, path, &object);
        object
    }

    pub(crate) fn remove(&self, path: &str) -> Option<Value> {
        let mut state = self.state.lock();
        state.version += 1;
        let version = state.version;
        let mut object = state.objects.remove(path)?;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        self.publish("DELETED", path, &object);
        Some(object)
    }

    fn publish(&self, kind: &str, path: &str, object: &Value) {
        drop(self.events.send((kind.into(), path.into(), object.clone())));
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = body
            .collect()
            .await
            .map(|b| b.to_bytes())
            .unwrap_or_default();
        let path = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or_default().to_owned();
        let tree: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        match head.method {
            Method::GET if query.contains("watch=1") => self.watch(&path, &query),
            Method::GET => self.read(&path, &query),
            Method::POST => self.create(&path, tree),
            Method::PATCH => self.patch(&path, &tree),
            Method::DELETE => self.delete(&path, &tree),
            _ => failure(405, "MethodNotAllowed"),
        }
    }

    fn read(&self, path: &str, query: &str) -> Response<Body> {
        let state = self.state.lock();
        if let Some(object) = state.objects.get(path) {
            return answer(200, object);
        }
        if !is_collection(path) {
            return failure(404, "NotFound");
        }
        let items = state
            .objects
            .iter()
            .filter(|(p, o)| belongs(p, o, path, query));
        let items: Vec<&Value> = items.map(|(_, object)| object).collect();
        let version = state.version.to_string();
        answer(
            200,
            &json!({"metadata": {"resourceVersion": version}, "items": items}),
        )
    }

    fn watch(&self, path: &str, query: &str) -> Response<Body> {
        let since: u64 = query
            .split('&')
            .find_map(|part| part.strip_prefix("resourceVersion="))
            .and_then(|version| version.parse().ok())
            .unwrap_or(0);
        let mut events = self.events.subscribe();
        // What happened between list and watch.
        let state = self.state.lock();
        let version = |o: &Value| {
            o["metadata"]["resourceVersion"]
                .as_str()
                .and_then(|v| v.parse::<u64>().ok())
                .unwrap_or(0)
        };
        let missed: Vec<(String, String, Value)> = state
            .objects
            .iter()
            .filter(|(_, o)| version(o) > since)
            .map(|(p, o)| ("MODIFIED".to_owned(), p.clone(), o.clone()))
            .collect();
        drop(state);
        let (path, query) = (path.to_owned(), query.to_owned());
        let stream = async_stream(move |sender| async move {
            let mut missed = missed.into_iter();
            loop {
                let event = match missed.next() {
                    Some(event) => event,
                    None => match events.recv().await {
                        Ok(event) => event,
                        Err(_) => return,
                    },
                };
                let (kind, at, object) = event;
                if belongs(&at, &object, &path, &query) {
                    let line = json!({"type": kind, "object": object}).to_string() + "\n";
                    if sender.send(line).await.is_err() {
                        return;
                    }
                }
            }
        });
        Response::new(stream)
    }

    fn create(&self, path: &str, mut tree: Value) -> Response<Body> {
        if path.ends_with("/token") {
            let status = json!({"token": "a-token", "expirationTimestamp": "2099-01-01T00:00:00Z"});
            self.state.lock().token_requests.push(tree.clone());
            tree["status"] = status;
            return answer(201, &tree);
        }
        let name = tree["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let at = format!("{path}/{name}");
        if self.get(&at).is_some() {
            return failure(409, "AlreadyExists");
        }
        answer(201, &self.put(&at, tree))
    }

    fn patch(&self, path: &str, patch: &Value) -> Response<Body> {
        let at = path.strip_suffix("/status").unwrap_or(path);
        let Some(mut object) = self.get(at) else {
            return failure(404, "NotFound");
        };
        if let Some(uid) = patch["metadata"]["uid"].as_str()
            && object["metadata"]["uid"] != uid
        {
            return failure(409, "Conflict");
        }
        merge(&mut object, patch, "");
        answer(200, &self.put(at, object))
    }

    fn delete(&self, path: &str, options: &Value) -> Response<Body> {
        let Some(object) = self.get(path) else {
            return failure(404, "NotFound");
        };
        if let Some(uid) = options["preconditions"]["uid"].as_str()
            && object["metadata"]["uid"] != uid
        {
            return failure(409, "Conflict");
        }
        self.remove(path);
        answer(200, &object)
    }
}

fn async_stream<F, T>(make: F) -> Body
where
    F: FnOnce(tokio::sync::mpsc::Sender<String>) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    tokio::spawn(make(sender));
    let frames = futures::stream::unfold(receiver, |mut receiver| async {
        let line = receiver.recv().await?;
        let frame = http_body::Frame::data(Bytes::from(line));
        Some((Ok::<_, Infallible>(frame), receiver))
    });
    StreamBody::new(frames)
        .map_err(BoxError::from)
        .boxed_unsync()
}

/// Strategic merge, as far as the kubelet uses it: conditions and addresses by type, other lists
/// as a whole.
fn merge(target: &mut Value, patch: &Value, field: &str) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                match value {
                    Value::Null => drop(target.remove(key)),
                    _ => merge(target.entry(key).or_insert(Value::Null), value, key),
                }
            }
        }
        (target @ Value::Array(_), Value::Array(patch)) if field == "conditions" => {
            let list = target.as_array_mut().unwrap();
            for item in patch {
                if item["$patch"] == "delete" {
                    list.retain(|known| known["type"] != item["type"]);
                    continue;
                }
                match list.iter_mut().find(|known| known["type"] == item["type"]) {
                    Some(known) => *known = item.clone(),
                    None => list.push(item.clone()),
                }
            }
        }
        (target, Value::Array(patch)) => {
            let items = patch.iter().filter(|item| item.get("$patch").is_none());
            *target = Value::Array(items.cloned().collect());
        }
        (target, Value::Object(patch)) => {
            *target = json!({});
            for (key, value) in patch.iter().filter(|(_, value)| !value.is_null()) {
                merge(
                    target
                        .as_object_mut()
                        .unwrap()
                        .entry(key)
                        .or_insert(Value::Null),
                    value,
                    key,
                );
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

fn is_collection(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    [
        "pods",
        "nodes",
        "services",
        "configmaps",
        "secrets",
        "events",
        "leases",
    ]
    .contains(&last)
}

/// Whether an object at `at` is in the collection, by path and field selector.
fn belongs(at: &str, object: &Value, collection: &str, query: &str) -> bool {
    let (folder, _) = at.rsplit_once('/').unwrap_or_default();
    let kind = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let same = match collection.contains("/namespaces/") {
        true => folder == collection,
        false => kind(folder) == kind(collection),
    };
    let selector = query
        .split('&')
        .find_map(|part| part.strip_prefix("fieldSelector="));
    let fits = selector.is_none_or(|selector| {
        let (field, value) = selector.split_once("%3D").unwrap_or_default();
        let pointer = format!("/{}", field.replace('.', "/"));
        object.pointer(&pointer).and_then(Value::as_str) == Some(value)
    });
    same && fits
}

fn answer(code: u16, tree: &Value) -> Response<Body> {
    let mut response = Response::new(client::full(serde_json::to_vec(tree).unwrap()));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
    response
}

fn failure(code: u16, reason: &str) -> Response<Body> {
    let body = json!({"kind": "Status", "code": code, "reason": reason, "message": reason});
    answer(code, &body)
}
