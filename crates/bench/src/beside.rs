//! Our API server and a real kube-apiserver with etcd, side by side: one client, one load, one
//! run. Whoever is not being asked stands still meanwhile, so that neither pays for the other.

mod compare;
mod fanout;
mod flood;
mod hook;
mod load;
mod rates;
mod side;
mod size;
mod times;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use tokio::process::Command;

use compare::Comparison;
pub(crate) use flood::{ARGUMENT as FLOOD, run as flood};
use side::Side;

/// The other server, where one has been built or installed
#[derive(Args, Clone, Debug)]
pub(crate) struct Peer {
    /// A kube-apiserver to stand beside ours
    #[arg(long, requires = "etcd")]
    kube_apiserver: Option<PathBuf>,
    /// The etcd it keeps its objects in
    #[arg(long, requires = "kube_apiserver")]
    etcd: Option<PathBuf>,
    /// Of the side-by-side figures only these: creates, pods, gets, patches, list, apply,
    /// watchers, fanout, webhook, definition, flood, memory
    #[arg(long, value_delimiter = ',')]
    beside: Vec<String>,
}

/// The servers under measurement, and what was found.
struct Stage {
    /// Ours first.
    sides: Vec<Side>,
    found: Vec<Comparison>,
}

impl Stage {
    /// Asks each side while the other one stands still; ours first.
    async fn each<T>(&self, work: impl AsyncFn(&Side) -> Result<T>) -> Result<Vec<T>> {
        let mut results = Vec::new();
        for side in &self.sides {
            side.wake().await?;
            let result = work(side).await;
            side.rest()?;
            results.push(result.with_context(|| side.name)?);
        }
        Ok(results)
    }
}

/// Measures all figures that are wanted and prints them, with or without a peer.
#[expect(clippy::print_stdout, reason = "this is what the tool is for")]
pub(crate) async fn measure(binary: &Path, folder: &Path, peer: &Peer) -> Result<()> {
    bring_up_loopback().await?;
    let mut stage = Stage {
        sides: vec![Side::own(binary, folder)?],
        found: Vec::new(),
    };
    let measured = figures(&mut stage, folder, peer).await;
    let mut stopped = Ok(());
    for side in &mut stage.sides {
        if measured.is_err() {
            eprintln!("the end of {}'s log:\n{}", side.name, side.log_tail());
        }
        stopped = stopped.and(side.stop().await);
    }
    if stage.sides.len() == 1 {
        println!("No kube-apiserver and etcd given (--kube-apiserver, --etcd): Sampan alone.");
    }
    for line in compare::lines(&stage.found) {
        println!("{line}");
    }
    measured.and(stopped)
}

/// The bench's network namespace may be new, and nobody else brings this up for servers alone.
async fn bring_up_loopback() -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["link", "set", "lo", "up"]);
    let status = command.status().await.context("ip cannot be run")?;
    anyhow::ensure!(status.success(), "the loopback device does not come up");
    Ok(())
}

async fn figures(stage: &mut Stage, folder: &Path, peer: &Peer) -> Result<()> {
    start(stage, folder, peer).await?;
    let wants = |name: &str| peer.beside.is_empty() || peer.beside.iter().any(|one| one == name);
    if wants("creates") || wants("gets") || wants("patches") {
        part("creates", rates::creates(stage)).await?;
    }
    if wants("pods") || wants("list") {
        part("pods", rates::pods(stage)).await?;
    }
    if wants("gets") {
        part("gets", rates::gets(stage)).await?;
    }
    if wants("patches") {
        part("patches", rates::patches(stage)).await?;
    }
    if wants("list") {
        part("list", times::list(stage)).await?;
    }
    if wants("apply") {
        part("apply", times::apply(stage)).await?;
    }
    if wants("watchers") {
        part("watchers", times::watchers(stage)).await?;
    }
    if wants("fanout") {
        part("fanout", fanout::measure(stage)).await?;
    }
    if wants("definition") {
        part("definition", times::definition(stage)).await?;
    }
    if wants("webhook") {
        part("webhook", hook::measure(stage)).await?;
    }
    if wants("flood") {
        part("flood", flood::measure(stage)).await?;
    }
    if wants("memory") {
        part("memory", size::measure(stage)).await?;
    }
    Ok(())
}

/// Waits for our server, then starts the other.
async fn start(stage: &mut Stage, folder: &Path, peer: &Peer) -> Result<()> {
    let own = stage.sides[0].ready().await?;
    stage.sides[0].rest()?;
    eprintln!("{:>8.1} s  sampan serves", own.as_secs_f64());
    if let (Some(kube_apiserver), Some(etcd)) = (&peer.kube_apiserver, &peer.etcd) {
        let mut side = Side::peer(kube_apiserver, etcd, folder)?;
        let ready = side.ready().await;
        stage.sides.push(side);
        eprintln!("{:>8.1} s  kube-apiserver serves", ready?.as_secs_f64());
        stage.sides[1].rest()?;
    }
    Ok(())
}

async fn part(title: &str, work: impl Future<Output = Result<()>>) -> Result<()> {
    let begin = Instant::now();
    work.await
        .with_context(|| format!("measuring failed: {title}"))?;
    eprintln!("{:>8.1} s  {title}", begin.elapsed().as_secs_f64());
    Ok(())
}

/// Splits what [`Stage::each`] gave: ours, and theirs if there is a peer.
fn split<T>(results: Vec<T>) -> Result<(T, Option<T>)> {
    let mut results = results.into_iter();
    let ours = results.next().context("nothing was measured")?;
    Ok((ours, results.next()))
}
