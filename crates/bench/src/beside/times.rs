//! How long single things take.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use client::Client;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::compare::{Better, Comparison, Goal};
use super::load::{self, Ask, deployment};
use super::side::Side;
use super::{Stage, split};
use crate::table::percentile;
use crate::watchers;

/// Ours and theirs in turn.
const ROUNDS: usize = 3;
const LISTS: usize = 5;
const PODS: &str = "/api/v1/namespaces/bench-pods/pods";
const APPLIES: usize = 100;
const APPLY_NAMESPACE: &str = "bench-apply";
const WATCH_NAMESPACE: &str = "bench-watch";
const DEFINITIONS: usize = 11;
/// How long to wait before a definition that does not serve yet is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(1);
/// The longest wait for a definition to serve.
const SERVE_TIMEOUT: Duration = Duration::from_secs(30);

/// Lists of the pods that [`super::rates::pods`] made, in both forms.
pub(super) async fn list(stage: &mut Stage) -> Result<()> {
    let forms = [
        ("JSON", "application/json"),
        ("protobuf", "application/vnd.kubernetes.protobuf"),
    ];
    for (form, accept) in forms {
        let rounds = quietest(stage, async |side, _| time_lists(side, accept).await);
        let (ours, theirs) = split(rounds.await?)?;
        let name = format!("list of 10,000 pods, {form}");
        let note = format!(
            "to the last byte, median of {LISTS}, quietest of {ROUNDS} rounds; best {:.0} ms",
            ours[0]
        );
        let theirs = theirs.map(|times| percentile(&times, 0.5));
        let figure = Comparison::new(name, "ms", Better::Less, percentile(&ours, 0.5), theirs);
        stage.found.push(figure.goal(Goal::AtMost(30.0)).note(note));
    }
    Ok(())
}

async fn time_lists(side: &Side, accept: &str) -> Result<Vec<f64>> {
    let client = side.client()?;
    let mut times = Vec::new();
    for _ in 0..LISTS {
        let request = Request::get(PODS).header("accept", accept);
        let begin = Instant::now();
        let request = request.body(client::empty())?;
        let mut body = client.send(request).await?.into_body();
        while let Some(frame) = body.frame().await {
            frame.map_err(|error| anyhow::anyhow!("list broke off: {error}"))?;
        }
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// Server-side apply of one Deployment, over and over, by one client.
pub(super) async fn apply(stage: &mut Stage) -> Result<()> {
    stage
        .each(async |side| load::namespace(&side.client()?, APPLY_NAMESPACE).await)
        .await?;
    let rounds = quietest(stage, async |side, round| time_applies(side, round).await);
    let (ours, theirs) = split(rounds.await?)?;
    let theirs = theirs.map(|times| percentile(&times, 0.5));
    let note = format!(
        "over TLS and to disk, one client, p50 of {APPLIES}, quietest of {ROUNDS} rounds; p99 {:.2} ms",
        percentile(&ours, 0.99)
    );
    let name = "server-side apply of a Deployment";
    let ours = percentile(&ours, 0.5);
    let figure = Comparison::new(name, "ms", Better::Less, ours, theirs);
    stage.found.push(figure.note(note));
    Ok(())
}

async fn time_applies(side: &Side, round: usize) -> Result<Vec<f64>> {
    let path =
        format!("/apis/apps/v1/namespaces/{APPLY_NAMESPACE}/deployments/web?fieldManager=bench");
    let client = side.client()?;
    let mut times = Vec::new();
    for number in 0..APPLIES {
        let body = deployment(round * APPLIES + number);
        let ask = Ask::patch(path.clone(), load::APPLY, &body);
        let begin = Instant::now();
        ask.send(&client).await?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// Milliseconds, sorted, of each side's round with the least median: the one that neighbours on
/// the machine disturbed least.
async fn quietest(
    stage: &Stage,
    time: impl AsyncFn(&Side, usize) -> Result<Vec<f64>>,
) -> Result<Vec<Vec<f64>>> {
    let mut best: Vec<Vec<f64>> = Vec::new();
    for round in 0..ROUNDS {
        let results = stage.each(async |side| time(side, round).await).await?;
        for (at, mut times) in results.into_iter().enumerate() {
            times.sort_by(f64::total_cmp);
            match best.get_mut(at) {
                None => best.push(times),
                Some(own) if percentile(&times, 0.5) < percentile(own, 0.5) => *own = times,
                Some(_) => {}
            }
        }
    }
    Ok(best)
}

pub(super) async fn watchers(stage: &mut Stage) -> Result<()> {
    let results = stage.each(async |side| {
        load::namespace(&side.client()?, WATCH_NAMESPACE).await?;
        watchers::deliver(&side.access(), WATCH_NAMESPACE).await
    });
    let (ours, theirs) = split(results.await?)?;
    let p99 = |one: &watchers::Deliveries| percentile(&one.each, 0.99) * 1e3;
    let theirs = theirs.as_ref().map(p99);
    let figure = Comparison::new(
        "one event to 1,000 watchers, p99",
        "ms",
        Better::Less,
        p99(&ours),
        theirs,
    );
    stage
        .found
        .push(figure.goal(Goal::AtMost(50.0)).note(ours.note()));
    Ok(())
}

/// From a definition's creation to its first instance.
pub(super) async fn definition(stage: &mut Stage) -> Result<()> {
    let results = stage.each(async |side: &Side| {
        let client = side.client()?;
        let mut times = Vec::new();
        for number in 0..DEFINITIONS {
            times.push(first_instance(&client, number).await?);
        }
        times.sort_by(f64::total_cmp);
        Ok(times)
    });
    let (ours, theirs) = split(results.await?)?;
    let theirs = theirs.map(|times| percentile(&times, 0.5));
    let note = format!(
        "median of {DEFINITIONS}, a schema with validation; worst {:.0} ms",
        percentile(&ours, 1.0)
    );
    let name = "new definition → first instance accepted";
    let figure = Comparison::new(name, "ms", Better::Less, percentile(&ours, 0.5), theirs);
    stage
        .found
        .push(figure.goal(Goal::AtMost(100.0)).note(note));
    Ok(())
}

async fn first_instance(client: &Client, number: usize) -> Result<f64> {
    let group = "bench.sampan.dev";
    let (kind, plural) = (format!("Boat{number}"), format!("boat{number}s"));
    let definition = definition_of(group, &kind, &plural);
    let instance = json!({"apiVersion": format!("{group}/v1"), "kind": kind,
        "metadata": {"name": "first"}, "spec": {"length": 12, "name": "one"}});
    let instances = format!("/apis/{group}/v1/namespaces/default/{plural}");
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let begin = Instant::now();
    Ask::post(definitions, &definition).send(client).await?;
    let accepted = async {
        loop {
            let request = client.send_value(Method::POST, &instances, &instance);
            match request.await {
                Ok(_) => return Ok(begin.elapsed().as_secs_f64() * 1e3),
                Err(status) if status.code == 404 => tokio::time::sleep(ASK_AGAIN).await,
                Err(status) => return Err(anyhow::Error::from(status)),
            }
        }
    };
    let waited = tokio::time::timeout(SERVE_TIMEOUT, accepted).await;
    waited.context("a definition does not serve")?
}

fn definition_of(group: &str, kind: &str, plural: &str) -> Value {
    let spec = json!({"type": "object", "required": ["length"], "properties": {
        "length": {"type": "integer", "minimum": 1, "maximum": 400},
        "name": {"type": "string", "maxLength": 63},
        "crew": {"type": "array", "maxItems": 20, "items": {"type": "string", "maxLength": 63}}},
        "x-kubernetes-validations": [{"rule": "self.length > 0", "message": "too short"}]});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}],
        },
    })
}
