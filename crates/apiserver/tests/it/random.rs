//! Random requests: none panics, none is answered with 5xx. The seed is fixed, so that a failure
//! stays; `SAMPAN_RANDOM_SEED` and `SAMPAN_RANDOM_REQUESTS` search further.

mod trees;

use futures::FutureExt;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request};
use http_body_util::BodyExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use schema::protobuf::{encode, seal};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::cluster::{Cluster, config_map, pod};
use crate::custom::{is_established, until};
use trees::{
    IN_POLICIES, condition, expression, message, mutate, odd, one, openapi, operations, structure,
    text,
};

/// Requests to built-in kinds.
const REQUESTS: u64 = 1_500;

/// Objects kept to be mutated.
const KEPT_MAX: usize = 200;

/// Configuration that decides on later requests, so that its failures are theirs: only rehearsed.
const REHEARSED: &[&str] = &[
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
];

fn setting(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

struct Run {
    cluster: Cluster,
    random: StdRng,
    /// How many requests succeeded.
    good: u64,
    sent: u64,
}

impl Run {
    async fn start() -> Run {
        let cluster = Cluster::start().await;
        for namespace in ["default", "kube-system"] {
            let accounts = names("", "ServiceAccount").path(Some(namespace), None);
            let account = json!({"metadata": {"name": "default"}});
            cluster.post(&accounts, account).await.unwrap();
        }
        let random = StdRng::seed_from_u64(setting("SAMPAN_RANDOM_SEED", 36));
        Run {
            cluster,
            random,
            good: 0,
            sent: 0,
        }
    }

    /// The object in the answer to a request, if it succeeded.
    async fn send(
        &mut self,
        method: &Method,
        path: &str,
        kind: &str,
        body: Vec<u8>,
    ) -> Option<Value> {
        let accept = match self.random.random_bool(0.6) {
            true => "application/json",
            false => one(&mut self.random, ACCEPTED),
        };
        self.send_for(accept, method, path, kind, body).await
    }

    async fn send_for(
        &mut self,
        accept: &str,
        method: &Method,
        path: &str,
        kind: &str,
        body: Vec<u8>,
    ) -> Option<Value> {
        let said = String::from_utf8_lossy(&body).into_owned();
        let request = Request::builder().method(method).uri(path);
        let request = request.header(ACCEPT, accept).header(CONTENT_TYPE, kind);
        let request = request.body(client::full(body)).ok()?;
        let answer = self
            .cluster
            .client
            .transport()
            .oneshot(request)
            .await
            .unwrap();
        let status = answer.status();
        let mut body = answer.into_body();
        let bytes = if *method == Method::GET && path.contains("watch=") {
            // Only what a watch has to say at once: that its time is over is nothing new.
            for _ in 0..3 {
                tokio::task::yield_now().await;
                let _ = body.frame().now_or_never();
            }
            bytes::Bytes::new()
        } else {
            body.collect().await.unwrap().to_bytes()
        };
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            !status.is_server_error(),
            "{method} {path} ({kind}, for {accept})\n{said}\n{status}: {}",
            text
        );
        self.sent += 1;
        self.good += u64::from(status.is_success());
        let tree = serde_json::from_slice(&bytes).ok()?;
        status.is_success().then_some(tree)
    }

    async fn json(&mut self, method: &Method, path: &str, body: &Value) -> Option<Value> {
        let body = body.to_string().into_bytes();
        let json = "application/json";
        self.send_for(json, method, path, json, body).await
    }

    /// A body in one of the forms a kind is written in, with its media type.
    fn body(&mut self, names: &meta::Names, tree: &Value) -> (&'static str, Vec<u8>) {
        let ty = schema::builtin(&names.group, &names.version, &names.kind);
        match (self.random.random_range(0..8), ty) {
            (0, Some(ty)) => {
                let mut message = encode(ty, tree);
                if !message.is_empty() && self.random.random_bool(0.5) {
                    let at = self.random.random_range(0..message.len());
                    message[at] = self.random.random();
                }
                let sealed = seal(&names.api_version(), &names.kind, &message);
                ("application/vnd.kubernetes.protobuf", sealed)
            }
            (1, _) => ("application/yaml", tree.to_string().into_bytes()),
            (2, _) => {
                let mut bytes = tree.to_string().into_bytes();
                let at = self.random.random_range(0..bytes.len());
                bytes[at] = self.random.random();
                (
                    one(&mut self.random, &["application/json", "application/yaml"]),
                    bytes,
                )
            }
            _ => ("application/json", tree.to_string().into_bytes()),
        }
    }

    fn query(&mut self, path: &mut String, rehearsed: bool) {
        for _ in 0..self.random.random_range(0..3) {
            let (name, values) = QUERIES[self.random.random_range(0..QUERIES.len())];
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str(name);
            path.push('=');
            path.push_str(&client::request::percent_encode(one(
                &mut self.random,
                values,
            )));
        }
        if rehearsed {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str("dryRun=All");
        }
    }

    /// One random request to a kind, with the body it starts from.
    async fn request(&mut self, names: &meta::Names, mut tree: Value) -> Option<Value> {
        for _ in 0..self.random.random_range(0..3) {
            mutate(&mut self.random, &mut tree);
        }
        let namespace = names
            .is_namespaced()
            .then(|| one(&mut self.random, NAMESPACES));
        let name = one(&mut self.random, &["x", "y", "a.example.com"]);
        let rehearsed = REHEARSED.contains(&&*names.group);
        let mut object = names.path(namespace, Some(name));
        if names.is_namespaced() && self.random.random_bool(0.05) {
            object = names.path(Some(one(&mut self.random, NOWHERE)), Some(name));
        }
        if self.random.random_bool(0.2) {
            object.push('/');
            object.push_str(one(&mut self.random, SUBRESOURCES));
        }
        let mut collection = names.path(namespace, None);
        self.query(&mut object, rehearsed);
        self.query(&mut collection, rehearsed);
        match self.random.random_range(0..10) {
            0..4 => {
                if tree["metadata"].is_object() && self.random.random_bool(0.9) {
                    tree["metadata"]["name"] = name.into();
                    tree["metadata"].as_object_mut()?.remove("resourceVersion");
                    tree["metadata"].as_object_mut()?.remove("namespace");
                }
                let (kind, body) = self.body(names, &tree);
                self.send(&Method::POST, &collection, kind, body).await
            }
            4 => {
                let (kind, body) = self.body(names, &tree);
                self.send(&Method::PUT, &object, kind, body).await
            }
            5..7 => self.patch(names, &object, tree).await,
            7 => {
                let path = if self.random.random_bool(0.3) {
                    &collection
                } else {
                    &object
                };
                let options = odd(&mut self.random);
                self.json(&Method::DELETE, path, &options).await
            }
            8 => self.send(&Method::GET, &object, "", Vec::new()).await,
            _ => self.send(&Method::GET, &collection, "", Vec::new()).await,
        }
    }

    async fn patch(&mut self, names: &meta::Names, path: &str, mut tree: Value) -> Option<Value> {
        let kind = one(&mut self.random, PATCHES);
        if kind.contains("json-patch") {
            tree = operations(&mut self.random);
        }
        let mut path = path.to_owned();
        if kind.contains("apply") && tree.is_object() {
            tree["apiVersion"] = names.api_version().into();
            tree["kind"] = names.kind.clone().into();
            if !path.contains('?') {
                path.push_str("?fieldManager=x&force=true");
            }
        }
        let body = tree.to_string().into_bytes();
        self.send(&Method::PATCH, &path, kind, body).await
    }
}

const ACCEPTED: &[&str] = &[
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/vnd.kubernetes.protobuf;stream=watch,application/json",
    "application/json;as=Table;g=meta.k8s.io;v=v1",
    "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,*/*",
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
    "application/json;as=;v=",
    "text/html;q=x",
    "",
];

const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

const NAMESPACES: &[&str] = &["default", "default", "kube-system"];

/// Where nothing can be created: to be told so takes a creation a while.
const NOWHERE: &[&str] = &["none", "%00", ""];

const SUBRESOURCES: &[&str] = &[
    "status",
    "scale",
    "eviction",
    "binding",
    "token",
    "approval",
    "finalize",
    "resize",
    "ephemeralcontainers",
    "none",
    "status/x",
];

type Query = (&'static str, &'static [&'static str]);

const QUERIES: &[Query] = &[
    (
        "labelSelector",
        &[
            "a=b",
            "a in (b,c),!d",
            "a>1",
            "((",
            "a notin ()",
            "=",
            "\u{0}",
            "!",
        ],
    ),
    (
        "fieldSelector",
        &[
            "metadata.name=x",
            "spec.nodeName!=",
            "a=b\\",
            "status.phase=Running,,",
            "==",
        ],
    ),
    (
        "resourceVersion",
        &[
            "0",
            "1",
            "3",
            "-1",
            "x",
            "18446744073709551615",
            "99999999999999999999",
        ],
    ),
    (
        "resourceVersionMatch",
        &["Exact", "NotOlderThan", "Sometimes"],
    ),
    ("limit", &["0", "1", "2", "-5", "9223372036854775807", "x"]),
    (
        "continue",
        &[
            "",
            "x",
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJcdTAwMDAifQ",
            "e30",
            "bnVsbA",
        ],
    ),
    ("watch", &["1", "true", "0", "x"]),
    ("timeoutSeconds", &["0", "1", "-1", "x"]),
    ("allowWatchBookmarks", &["true", "x"]),
    ("sendInitialEvents", &["true", "false", "x"]),
    ("dryRun", &["All", "Some"]),
    ("fieldManager", &["x", "\u{1F6A2}", ""]),
    ("fieldValidation", &["Strict", "Warn", "Ignore", "x"]),
    ("force", &["true", "x"]),
    (
        "propagationPolicy",
        &["Orphan", "Foreground", "Background", "x"],
    ),
    (
        "gracePeriodSeconds",
        &["0", "-1", "x", "9223372036854775807"],
    ),
    ("orphanDependents", &["true", "x"]),
    ("includeObject", &["None", "Object", "Metadata", "x"]),
    ("pretty", &["true", "x"]),
];

#[tokio::test]
async fn no_random_request_breaks_any_kind() {
    let mut run = Run::start().await;
    let mut kept = vec![
        (names("", "Pod"), pod("x")),
        (names("", "ConfigMap"), config_map("x", "y")),
    ];
    let rows = kinds::rows();
    for _ in 0..setting("SAMPAN_RANDOM_REQUESTS", REQUESTS) {
        let at = run.random.random_range(0..rows.len() + kept.len());
        let (names, tree) = match rows.get(at) {
            Some(row) => {
                let names = &row.names;
                let ty = schema::builtin(&names.group, &names.version, &names.kind).unwrap();
                let mut tree = structure(&mut run.random, ty, 0);
                tree["metadata"]["name"] = one(&mut run.random, &["x", "y"]).into();
                (names.clone(), tree)
            }
            None => kept[at - rows.len()].clone(),
        };
        let Some(answer) = run.request(&names, tree).await else {
            continue;
        };
        if kept.len() < KEPT_MAX && answer["kind"] == *names.kind {
            kept.push((names, answer));
        }
    }
    report(&run);
    run.cluster.stop().await;
}

fn names(group: &str, kind: &str) -> meta::Names {
    kinds::row(group, kind).unwrap().names.clone()
}

#[tokio::test]
async fn no_random_definition_breaks_its_resources() {
    let mut run = Run::start().await;
    let definitions = names("apiextensions.k8s.io", "CustomResourceDefinition").path(None, None);
    for round in 0..setting("SAMPAN_RANDOM_REQUESTS", REQUESTS) / 30 {
        let (group, plural) = ("sea.example.com", format!("boats{round}"));
        let schema = json!({"openAPIV3Schema": openapi(&mut run.random, 0)});
        let column = json!({"name": "A", "type": one(&mut run.random, &["string", "integer", "date", "x"]),
            "jsonPath": one(&mut run.random, &[".spec.a", ".status[0]", ".spec[?(@.a==1)].b", "{"])});
        let subresources = match run.random.random_range(0..3) {
            0 => json!({}),
            1 => json!({"status": {}}),
            _ => json!({"status": {}, "scale": {"specReplicasPath": ".spec.a",
                "statusReplicasPath": ".status.b", "labelSelectorPath": ".status.a"}}),
        };
        let columns = run.random.random_bool(0.5).then_some(column);
        let columns: Vec<Value> = columns.into_iter().collect();
        let definition = json!({"metadata": {"name": format!("{plural}.{group}")}, "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": plural, "kind": format!("Boat{round}")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema,
                "subresources": subresources, "additionalPrinterColumns": columns}]}});
        let good = run.good;
        run.json(&Method::POST, &definitions, &definition).await;
        if run.good == good {
            continue;
        }
        let path = format!("{definitions}/{plural}.{group}");
        let wanted = path.rsplit('/').next().unwrap_or_default();
        until(&run.cluster, |event| {
            is_established(event) && event_name(event) == wanted
        })
        .await;
        let mut names = meta::Names::namespaced(group, "v1", &format!("Boat{round}"), &plural);
        names.short.clear();
        let head = json!({"apiVersion": names.api_version(), "kind": names.kind,
            "metadata": {"name": "x"}, "spec": {"a": 1, "b": "x"}, "a": [1, {"a": "b"}], "b": {"a": null}});
        run.json(&Method::POST, &names.path(Some("default"), None), &head)
            .await;
        for _ in 0..8 {
            let mut tree = head.clone();
            for part in ["spec", "a", "b", "status"] {
                tree[part] = odd(&mut run.random);
            }
            run.request(&names, tree).await;
        }
    }
    run.send(
        &Method::GET,
        "/openapi/v3/apis/sea.example.com/v1",
        "",
        Vec::new(),
    )
    .await;
    report(&run);
    run.cluster.stop().await;
}

fn event_name(event: &client::WatchEvent<Value>) -> &str {
    match event {
        client::WatchEvent::Added(object) | client::WatchEvent::Modified(object) => {
            object["metadata"]["name"].as_str().unwrap_or_default()
        }
        _ => "",
    }
}

#[tokio::test]
async fn no_random_policy_breaks_what_it_decides() {
    let mut run = Run::start().await;
    let group = "admissionregistration.k8s.io";
    let maps = names("", "ConfigMap");
    for round in 0..setting("SAMPAN_RANDOM_REQUESTS", REQUESTS) / 15 {
        let kind = if round % 2 == 0 {
            "ValidatingAdmissionPolicy"
        } else {
            "MutatingAdmissionPolicy"
        };
        // Neither variables nor parameters yet.
        let early = &IN_POLICIES[..8];
        let mut spec = json!({"failurePolicy": one(&mut run.random, &["Fail", "Ignore"]),
            "matchConstraints": {"resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"],
                "operations": ["*"], "resources": ["configmaps"]}]},
            "variables": [{"name": "v", "expression": expression(&mut run.random, early, 2)}],
            "matchConditions": [{"name": "m", "expression": condition(&mut run.random, early, 1)}]});
        if run.random.random_bool(0.7) {
            spec["matchConditions"] = json!([]);
        }
        if round % 2 == 0 {
            spec["validations"] = json!([{"expression": condition(&mut run.random, IN_POLICIES, 3),
                "messageExpression": message(&mut run.random, IN_POLICIES)}]);
            spec["auditAnnotations"] =
                json!([{"key": "k", "valueExpression": message(&mut run.random, IN_POLICIES)}]);
        } else {
            let value = message(&mut run.random, IN_POLICIES);
            let patch = format!("[JSONPatch{{op: 'add', path: '/data/x', value: {value}}}]");
            spec["reinvocationPolicy"] = "IfNeeded".into();
            spec["mutations"] = json!([
                {"patchType": "JSONPatch", "jsonPatch": {"expression": patch}},
                {"patchType": "ApplyConfiguration",
                    "applyConfiguration": {"expression": "Object{data: {'z': 'y'}}"}}]);
        }
        let policies = names(group, kind).path(None, None);
        let policy = json!({"metadata": {"name": "p"}, "spec": spec});
        let good = run.good;
        run.json(&Method::POST, &policies, &policy).await;
        if run.good == good {
            continue;
        }
        let bindings = names(group, &format!("{kind}Binding")).path(None, None);
        let mut binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p"}});
        if round % 2 == 0 {
            binding["spec"]["validationActions"] = json!(["Deny", "Audit"]);
        }
        run.json(&Method::POST, &bindings, &binding).await;
        for _ in 0..4 {
            let mut tree = config_map("x", &text(&mut run.random));
            tree["data"]["a"] = "b".into();
            run.request(&maps, tree).await;
        }
        run.json(&Method::DELETE, &format!("{bindings}/b"), &json!({}))
            .await;
        run.json(&Method::DELETE, &format!("{policies}/p"), &json!({}))
            .await;
    }
    report(&run);
    run.cluster.stop().await;
}

/// A run that is refused whole shows nothing.
fn report(run: &Run) {
    assert!(run.good * 20 > run.sent, "{} of {}", run.good, run.sent);
}
