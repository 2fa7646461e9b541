//! How many requests per second, with 64 clients.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::compare::{Better, Comparison, Goal};
use super::load::{self, Ask, CLIENTS, Rate};
use super::side::Side;
use super::{Stage, split};

/// The best of so many rounds counts, ours and theirs in turn.
const ROUNDS: usize = 3;
const CREATES_EACH: usize = 100;
const CREATES_SPAN: Duration = Duration::from_secs(15);
pub(super) const PODS: usize = 10_000;
const PODS_SPAN: Duration = Duration::from_secs(300);
const SPAN: Duration = Duration::from_secs(2);
/// Requests of one client in that time at most.
const EACH_MAX: usize = 20_000;
const NAMESPACE: &str = "bench";
const COST: &str = "– server's processor time of one";
/// Throughput on cores that server and client share is that of both.
pub(super) const COST_NOTE: &str = "of all its processes (theirs: etcd too), mean of all rounds";
const FASTER: Goal = Goal::Times(5.0);

/// One side's rounds.
struct Rounds {
    best: Rate,
    /// Processor time of the server, per request.
    cost: Duration,
}

pub(super) async fn creates(stage: &mut Stage) -> Result<()> {
    stage
        .each(async |side| load::namespace(&side.client()?, NAMESPACE).await)
        .await?;
    let path = load::config_maps(NAMESPACE);
    let rounds = rounds(stage, ROUNDS, async |side, round| {
        load::run(&side.access(), CREATES_EACH, CREATES_SPAN, |worker, at| {
            Some(load::make_config_map(&path, &config_map(round, worker, at)))
        })
        .await
    });
    let rounds = rounds.await?;
    add(stage, "config map creates, durable", rounds)
}

/// Pods that wait for a gate to open, so that nothing of them runs.
pub(super) async fn pods(stage: &mut Stage) -> Result<()> {
    const NAMESPACE: &str = "bench-pods";
    stage
        .each(async |side| load::namespace(&side.client()?, NAMESPACE).await)
        .await?;
    let path = load::pods(NAMESPACE);
    let rounds = rounds(stage, 1, async |side, _| {
        load::run(&side.access(), PODS, PODS_SPAN, |worker, at| {
            let number = at * CLIENTS + worker;
            (number < PODS).then(|| load::make_pod(&path, &format!("pod-{number:05}")))
        })
        .await
    });
    let rounds = rounds.await?;
    for one in &rounds {
        anyhow::ensure!(one.best.count == PODS, "only {} pods", one.best.count);
    }
    add(stage, "pod creates, durable", rounds)
}

pub(super) async fn gets(stage: &mut Stage) -> Result<()> {
    let path = load::config_maps(NAMESPACE);
    let rounds = rounds(stage, ROUNDS, async |side, _| {
        load::run(&side.access(), EACH_MAX, SPAN, |worker, at| {
            let name = config_map(0, worker, at % CREATES_EACH);
            Some(Ask::get(format!("{path}/{name}")))
        })
        .await
    });
    let rounds = rounds.await?;
    add(stage, "config map gets", rounds)
}

pub(super) async fn patches(stage: &mut Stage) -> Result<()> {
    let path = load::config_maps(NAMESPACE);
    let rounds = rounds(stage, ROUNDS, async |side, round| {
        load::run(&side.access(), EACH_MAX, SPAN, |worker, at| {
            let path = format!("{path}/{}", config_map(0, worker, 0));
            let change = json!({"data": {"key": format!("{round}-{at}")}});
            Some(Ask::patch(path, load::MERGE, &change))
        })
        .await
    });
    let rounds = rounds.await?;
    add(stage, "merge patches, durable", rounds)
}

/// Ours and theirs in turn, so that both have the same neighbours on a busy machine.
async fn rounds(
    stage: &Stage,
    count: usize,
    load: impl AsyncFn(&Side, usize) -> Result<Rate>,
) -> Result<Vec<Rounds>> {
    let mut all: Vec<Vec<(Rate, Duration)>> = stage.sides.iter().map(|_| Vec::new()).collect();
    for round in 0..count {
        let results = stage.each(async |side| {
            let before = side.processor_time()?;
            let rate = load(side, round).await?;
            Ok((rate, side.processor_time()?.saturating_sub(before)))
        });
        for (own, result) in all.iter_mut().zip(results.await?) {
            own.push(result);
        }
    }
    Ok(all.iter().filter_map(|rounds| sum(rounds)).collect())
}

fn sum(rounds: &[(Rate, Duration)]) -> Option<Rounds> {
    let rates = rounds.iter().map(|(rate, _)| *rate);
    let best = rates.max_by(|one, other| one.per_second.total_cmp(&other.per_second))?;
    let count: usize = rounds.iter().map(|(rate, _)| rate.count).sum();
    let time: Duration = rounds.iter().map(|(_, time)| *time).sum();
    Some(Rounds {
        best,
        cost: time.div_f64(count.max(1) as f64),
    })
}

fn add(stage: &mut Stage, name: &str, rounds: Vec<Rounds>) -> Result<()> {
    let (ours, theirs) = split(rounds)?;
    let words = |one: &Rounds| {
        format!(
            "p50 {:.1} p99 {:.1} ms, the client's processor {:.0} µs each",
            one.best.p50,
            one.best.p99,
            one.best.own_cost.as_secs_f64() * 1e6
        )
    };
    let mut note = format!("{CLIENTS} clients; {}", words(&ours));
    if let Some(theirs) = &theirs {
        note += &format!("; theirs {}", words(theirs));
    }
    let rate = theirs.as_ref().map(|one| one.best.per_second);
    let figure = Comparison::new(name, "/s", Better::More, ours.best.per_second, rate);
    stage.found.push(figure.goal(FASTER).note(note));
    let micros = |one: &Rounds| one.cost.as_secs_f64() * 1e6;
    let theirs = theirs.as_ref().map(micros);
    let figure = Comparison::new(COST, "µs", Better::Less, micros(&ours), theirs);
    stage.found.push(figure.note(COST_NOTE));
    Ok(())
}

fn config_map(round: usize, worker: usize, at: usize) -> String {
    format!("c{round}-{worker:02}-{at:04}")
}
