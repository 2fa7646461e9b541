//! One user floods the server with lists; what another user feels of it.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use client::{Access, Client};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use super::compare::{Better, Comparison, Goal};
use super::load::{self, Ask, CLIENTS};
use super::side::Side;
use super::{Stage, split};
use crate::table::percentile;

/// The hidden argument that makes this program the flood.
pub(crate) const ARGUMENT: &str = "--be-the-flood";
/// Requests of the flood under way at any time.
const FLOOD: usize = 128;
const FLOOD_CONNECTIONS: usize = 8;
/// The flood ends itself after this, should nobody do it.
const FLOOD_TIMEOUT: Duration = Duration::from_secs(60);
const OBJECTS: usize = 500;
const NAMESPACE: &str = "bench-flood";
/// The other user: so many clients, each with a pause between two requests.
const QUIET: usize = 4;
const PAUSE: Duration = Duration::from_millis(5);
const SPAN: Duration = Duration::from_secs(2);
/// So often in turn, alone and beside the flood: what the host does meanwhile is to meet both. The
/// median of each counts.
const ROUNDS: usize = 7;
const PAUSE_OF_ROUNDS: Duration = Duration::from_millis(500);
/// For filling the namespace.
const FILL: Duration = Duration::from_secs(20);

/// What the flood must know.
#[derive(Serialize, Deserialize)]
struct Order {
    server: String,
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
    path: String,
}

/// The other user's requests, alone and beside the flood.
struct Felt {
    /// Milliseconds, p99, the median of all rounds.
    alone: f64,
    flooded: f64,
    /// Per second, of the flood.
    lists: f64,
}

pub(super) async fn measure(stage: &mut Stage) -> Result<()> {
    let (ours, theirs) = split(stage.each(feel).await?)?;
    let times = |felt: &Felt| felt.flooded / felt.alone;
    let words = |felt: &Felt| {
        format!(
            "{:.2} ms alone, {:.2} ms beside {:.0} lists/s",
            felt.alone, felt.flooded, felt.lists
        )
    };
    let mut note = format!(
        "{FLOOD} lists of {OBJECTS} at any time, medians of {ROUNDS} rounds; {}",
        words(&ours)
    );
    if let Some(theirs) = &theirs {
        note += &format!("; theirs {}", words(theirs));
    }
    let name = "another user's p99 under a flood, times alone";
    let theirs = theirs.as_ref().map(times);
    let figure = Comparison::new(name, "×", Better::Less, times(&ours), theirs);
    stage.found.push(figure.goal(Goal::AtMost(2.0)).note(note));
    Ok(())
}

async fn feel(side: &Side) -> Result<Felt> {
    load::namespace(&side.client()?, NAMESPACE).await?;
    let path = load::config_maps(NAMESPACE);
    let fill = path.clone();
    let access = side.access();
    let made = load::run(&access, OBJECTS, FILL, move |worker, at| {
        let number = at * CLIENTS + worker;
        (number < OBJECTS).then(|| load::make_config_map(&fill, &format!("item-{number:03}")))
    });
    anyhow::ensure!(made.await?.count == OBJECTS, "not filled in time");
    let quiet = side.access_as("quiet")?;
    let loud = side.access_as("loud")?;
    ask(&quiet, &path, SPAN / 2).await?;
    let (mut alone, mut flooded, mut lists) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(percentile(&ask(&quiet, &path, SPAN).await?, 0.99));
        let mut flood = start(&loud, &path).await?;
        let asked = ask(&quiet, &path, SPAN).await;
        lists.push(stop(&mut flood).await?);
        flooded.push(percentile(&asked?, 0.99));
        // Until the server takes the flood's user for an ordinary one again.
        tokio::time::sleep(PAUSE_OF_ROUNDS).await;
    }
    Ok(Felt {
        alone: median(alone),
        flooded: median(flooded),
        lists: median(lists),
    })
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    percentile(&all, 0.5)
}

/// Milliseconds of each GET, sorted.
async fn ask(access: &Access, path: &str, span: Duration) -> Result<Vec<f64>> {
    let begin = Instant::now();
    let workers = (0..QUIET).map(|worker| {
        let (access, path) = (access.clone(), format!("{path}/item-{worker:03}"));
        tokio::spawn(async move {
            let client = Client::remote(&access)?;
            Ask::get(path.clone()).send(&client).await?;
            let mut times = Vec::new();
            while begin.elapsed() < span {
                let one = Instant::now();
                Ask::get(path.clone()).send(&client).await?;
                times.push(one.elapsed().as_secs_f64() * 1e3);
                tokio::time::sleep(PAUSE).await;
            }
            Ok::<_, anyhow::Error>(times)
        })
    });
    let mut times = Vec::new();
    for worker in futures::future::try_join_all(workers).await? {
        times.extend(worker?);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// Starts the flood in a process of its own, so that the other user's client does not wait for it.
async fn start(access: &Access, path: &str) -> Result<Child> {
    let (certificate, key) = access.certificate.clone().context("no certificate")?;
    let order = Order {
        server: access.server.clone(),
        ca: access.ca.clone().unwrap_or_default(),
        certificate,
        key,
        path: path.to_owned(),
    };
    let mut child = Command::new(std::env::current_exe()?)
        .arg(ARGUMENT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut line = serde_json::to_vec(&order)?;
    line.push(b'\n');
    let stdin = child.stdin.as_mut().context("no stdin")?;
    stdin.write_all(&line).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok(child)
}

/// Ends the flood; gives its lists per second.
async fn stop(flood: &mut Child) -> Result<f64> {
    drop(flood.stdin.take());
    let stdout = flood.stdout.take().context("no stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await?;
    flood.wait().await?;
    line.trim().parse().context("the flood said nothing")
}

/// The flood itself. It stands for other machines: it must not take from the server and from the
/// other user's client what the server alone should give. So its threads take what nobody else wants.
pub(crate) fn run() -> Result<()> {
    let yields = linux::process::leave_processors_to_others;
    yields()?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().on_thread_start(move || {
        // It worked for the first thread.
        let _ = yields();
    });
    builder.build()?.block_on(flood())
}

/// Lists until the input ends, then tells how many per second there were.
#[expect(clippy::print_stdout, reason = "this is how it tells")]
async fn flood() -> Result<()> {
    let mut input = BufReader::new(tokio::io::stdin());
    let mut line = String::new();
    input.read_line(&mut line).await?;
    let order: Order = serde_json::from_str(&line)?;
    let access = Access {
        server: order.server,
        ca: Some(order.ca),
        certificate: Some((order.certificate, order.key)),
        ..Access::default()
    };
    let clients = (0..FLOOD_CONNECTIONS).map(|_| Client::remote(&access));
    let clients = clients.collect::<Result<Vec<_>, _>>()?;
    let done = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now();
    let mut lists = tokio::task::JoinSet::new();
    for at in 0..FLOOD {
        let (client, path) = (clients[at % FLOOD_CONNECTIONS].clone(), order.path.clone());
        let done = Arc::clone(&done);
        lists.spawn(async move {
            loop {
                // Refusals are an answer too: a flood goes on.
                match Ask::get(path.clone()).send(&client).await {
                    Ok(_) => drop(done.fetch_add(1, Ordering::Relaxed)),
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        });
    }
    line.clear();
    let ended = tokio::time::timeout(FLOOD_TIMEOUT, input.read_line(&mut line)).await;
    let rate = done.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64();
    lists.shutdown().await;
    println!("{rate:.0}");
    ended.context("nobody ended the flood")??;
    Ok(())
}
