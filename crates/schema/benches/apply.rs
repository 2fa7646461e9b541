//! How long the merge of a server-side apply takes, without anything around it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "this prints figures"
)]

use std::hint::black_box;
use std::time::Instant;

use schema::{ApplyOptions, UpdateOptions, apply, builtin, check, update_managed_fields};
use serde_json::{Value, json};

const ROUNDS: usize = 20_000;
const NOW: &str = "2026-01-01T00:00:00Z";

fn deployment(round: usize) -> Value {
    let variables: Vec<Value> = (0..6)
        .map(|at| json!({"name": format!("VARIABLE_{at}"), "value": "some value"}))
        .collect();
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 5});
    let container = json!({"name": "main", "image": format!("registry.example.com/web:v{round}"),
        "ports": [{"name": "http", "containerPort": 8080}], "env": variables,
        "readinessProbe": probe, "livenessProbe": probe,
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}});
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [container]}}}})
}

fn main() {
    let ty = builtin("apps", "v1", "Deployment").unwrap();
    let options = ApplyOptions {
        manager: "bench",
        force: false,
        api_version: "apps/v1",
        subresource: "",
        now: NOW,
        reset: &["status"],
    };
    let mut live = apply(ty, None, &deployment(0), options).unwrap();
    let mut status = live.clone();
    status["status"] =
        json!({"replicas": 3, "conditions": [{"type": "Available", "status": "True"}]});
    check(ty, &mut status).unwrap();
    let update = UpdateOptions {
        manager: "controller",
        api_version: "apps/v1",
        subresource: "status",
        now: NOW,
        reset: &["spec", "metadata.labels", "metadata.deletionTimestamp"],
    };
    update_managed_fields(ty, Some(&live), &mut status, update);
    live = status;
    let mut times = Vec::with_capacity(ROUNDS);
    for round in 1..=ROUNDS {
        let applied = deployment(round);
        let begun = Instant::now();
        let merged = apply(ty, Some(&live), black_box(&applied), options);
        times.push(begun.elapsed());
        live = merged.unwrap();
    }
    times.sort_unstable();
    println!(
        "merge of an applied Deployment: p50 {:?}  p99 {:?}",
        times[ROUNDS / 2],
        times[ROUNDS * 99 / 100]
    );
}
