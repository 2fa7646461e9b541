//! Watch fan-out as a throughput: how many events reach watchers per second, when as many are
//! written as all watchers take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use client::Access;
use futures::future::try_join_all;
use tokio::sync::Notify;

use super::compare::{Better, Comparison, Goal};
use super::load::{self, Ask};
use super::rates::COST_NOTE;
use super::side::Side;
use super::{Stage, split};
use crate::cluster::PATIENCE;
use crate::process::processor_time;
use crate::wire::{self, Line, Packed};

const WATCHERS: usize = 1_000;
/// Connections they share; each holds ten watches, as one kubelet's would.
const CONNECTIONS: usize = 100;
/// Config maps that are created at once. The next follow when all watchers have seen these: a
/// kube-apiserver ends watches that fall behind.
const BURST: usize = 8;
const BURSTS: usize = 60;
const ROUNDS: usize = 3;
const NAMESPACE: &str = "bench-fanout";

/// What one round came to.
struct Delivered {
    per_second: f64,
    /// Processor time of the server, in microseconds per delivery.
    cost: f64,
    own_cost: f64,
}

pub(super) async fn measure(stage: &mut Stage) -> Result<()> {
    stage
        .each(async |side| load::namespace(&side.client()?, NAMESPACE).await)
        .await?;
    let mut best: Vec<Delivered> = Vec::new();
    for round in 0..ROUNDS {
        let results = stage.each(async |side| deliver(side, round).await).await?;
        for (at, one) in results.into_iter().enumerate() {
            match best.get_mut(at) {
                None => best.push(one),
                Some(own) if own.per_second < one.per_second => *own = one,
                Some(_) => {}
            }
        }
    }
    let (ours, theirs) = split(best)?;
    let mut note = format!(
        "events × watchers: {BURST} creates at once, the next when all {WATCHERS} watchers on \
         {CONNECTIONS} connections have them; best of {ROUNDS} rounds; the client's processor {:.1} µs each",
        ours.own_cost
    );
    if let Some(theirs) = &theirs {
        note += &format!(", theirs {:.1}", theirs.own_cost);
    }
    let rate = theirs.as_ref().map(|one| one.per_second);
    let name = "watch fan-out, deliveries";
    let figure = Comparison::new(name, "/s", Better::More, ours.per_second, rate);
    stage.found.push(figure.goal(Goal::Times(5.0)).note(note));
    let cost = theirs.as_ref().map(|one| one.cost);
    let name = "– server's processor time of one";
    let figure = Comparison::new(name, "µs", Better::Less, ours.cost, cost);
    stage.found.push(figure.note(COST_NOTE));
    Ok(())
}

async fn deliver(side: &Side, round: usize) -> Result<Delivered> {
    let access = side.access();
    let path = load::config_maps(NAMESPACE);
    // From now on: a list tells when that is.
    let listed = side.client()?.get_value(&format!("{path}?limit=1")).await?;
    let version = listed["metadata"]["resourceVersion"].as_str();
    let version = version.context("a list without a version")?;
    let watch = format!("{path}?watch=1&resourceVersion={version}&timeoutSeconds=600");
    let watch = Ask::get(watch).packed(&access)?;
    let names = (0..BURST).map(|writer| {
        let names = (0..BURSTS).map(move |at| format!("e{round}-{writer:02}-{at:04}"));
        let asks = names.map(|name| load::make_config_map(&path, &name).packed(&access));
        asks.collect::<Result<Vec<Packed>>>()
    });
    let writes = names.collect::<Result<Vec<_>>>()?;
    let before = side.processor_time()?;
    let (took, own) = wire::apart(move || run(access, watch, writes)).await?;
    let cost = side.processor_time()?.saturating_sub(before);
    let count = (WATCHERS * BURST * BURSTS) as f64;
    Ok(Delivered {
        per_second: count / took.as_secs_f64(),
        cost: cost.as_secs_f64() * 1e6 / count,
        own_cost: own.as_secs_f64() * 1e6 / count,
    })
}

/// What all watchers together have seen.
#[derive(Default)]
struct Seen {
    events: AtomicUsize,
    /// When so many are there, somebody wants to know.
    wanted: AtomicUsize,
    reached: Notify,
}

async fn run(
    access: Access,
    watch: Packed,
    writes: Vec<Vec<Packed>>,
) -> Result<(Duration, Duration)> {
    let seen = Arc::new(Seen::default());
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut line = Line::open(&access).await?;
        line.watch(&watch, WATCHERS / CONNECTIONS).await?;
        watchers.spawn(listen(line, Arc::clone(&seen)));
    }
    let mut writers = Vec::new();
    for _ in 0..BURST {
        writers.push(Line::open(&access).await?);
    }
    let before = processor_time(std::process::id())?;
    let begin = Instant::now();
    for burst in 0..BURSTS {
        let wanted = (burst + 1) * BURST * WATCHERS;
        seen.wanted.store(wanted, Ordering::Relaxed);
        let writers = writers.iter_mut().zip(&writes);
        let creates = try_join_all(writers.map(|(line, writes)| line.ask(&writes[burst])));
        let all = async {
            while seen.events.load(Ordering::Relaxed) < wanted {
                seen.reached.notified().await;
            }
            Ok(())
        };
        let both = async { tokio::try_join!(creates, all) };
        tokio::select! {
            done = tokio::time::timeout(PATIENCE, both) => {
                done.context("events got lost")??;
            }
            Some(ended) = watchers.join_next() => return Err(ended?),
        }
    }
    let took = begin.elapsed();
    let own = processor_time(std::process::id())?.saturating_sub(before);
    Ok((took, own))
}

/// Counts until the connection ends, and says why it did.
async fn listen(mut line: Line, seen: Arc<Seen>) -> anyhow::Error {
    loop {
        match line.lines().await {
            Ok(lines) => {
                let before = seen.events.fetch_add(lines, Ordering::Relaxed);
                if before + lines >= seen.wanted.load(Ordering::Relaxed) {
                    seen.reached.notify_one();
                }
            }
            Err(error) => return error,
        }
    }
}
