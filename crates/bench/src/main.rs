//! `sampan-bench`: starts the built binary in namespaces of its own, measures
//! it from outside as its users would, and prints goal beside measured.

mod beside;
mod cluster;
mod containers;
mod idle;
mod load;
mod node;
mod peers;
mod pods;
mod process;
mod start;
mod table;
mod unpack;
mod watchers;
mod wire;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::Cluster;
use crate::table::{Figure, Goal, Table};

/// The load of both sides comes from here: the less it costs, the more is measured of them.
#[global_allocator]
static ALLOCATOR: linux::allocator::ByRole = linux::allocator::ByRole;

/// Measure a built `sampan` and print goal beside measured
#[derive(Parser, Clone, Debug)]
struct Args {
    /// The binary to measure
    #[arg(long)]
    binary: PathBuf,
    /// The store's own benchmark, to compare it with etcd
    #[arg(long)]
    store_bench: Option<PathBuf>,
    /// How long the idle server is watched
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
    /// Where the cluster's folder is made; must be a disk for the durable figures to mean something
    #[arg(long, default_value = "/var/tmp")]
    folder: PathBuf,
    /// Leave the folder with the server's log in place
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    peer: beside::Peer,
    #[command(flatten)]
    runtimes: containers::Peers,
    /// Only the parts named: start, idle, pods, node, restart, creates, list, watchers, peers,
    /// unpack, containers, beside
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

impl Args {
    /// Whether anything is to be measured that takes a node.
    fn wants_cluster(&self) -> bool {
        let needs_none = |one: &String| ["beside", "containers", "unpack"].contains(&one.as_str());
        self.only.is_empty() || !self.only.iter().all(needs_none)
    }

    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|one| one == part)
    }
}

fn main() -> ExitCode {
    let is_flood = std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == beside::FLOOD);
    let ended = match is_flood {
        true => beside::flood(),
        false => begin(Args::parse()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn begin(args: Args) -> Result<()> {
    // The process has one thread still, so all that follows is inside.
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .context("namespaces cannot be made; run this as root")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .context("mounts cannot be made private")?;
    // A thousand connections are a thousand descriptors, here and in the server.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    runtime()?.block_on(run(args))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.enable_all().build()?)
}

async fn run(args: Args) -> Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("sampan-bench-")
        .tempdir_in(&args.folder)?;
    let mut table = Table::default();
    // First, before others have removed much.
    let measured = match args.wants("unpack") {
        true => {
            let work = unpack::measure(folder.path(), &mut table);
            unless_ended(part("unpack", work)).await
        }
        false => Ok(()),
    };
    let measured = match measured.is_ok() && args.wants_cluster() {
        true => in_cluster(&args, folder.path(), &mut table).await,
        false => measured,
    };
    let measured = match measured.is_ok() && args.wants("containers") {
        true => {
            let work = containers::measure(&args.binary, folder.path(), &args.runtimes, &mut table);
            unless_ended(part("containers", work)).await
        }
        false => measured,
    };
    // What was measured is worth reading even when a later part failed.
    if args.wants_cluster() || args.wants("containers") || args.wants("unpack") {
        table.print();
    }
    let compared = match measured.is_ok() && args.wants("beside") {
        true => unless_ended(beside::measure(&args.binary, folder.path(), &args.peer)).await,
        false => Ok(()),
    };
    let removed = match args.keep {
        true => {
            eprintln!("left in place: {}", folder.keep().display());
            Ok(())
        }
        false => unmount(folder.path()).and_then(|()| Ok(folder.close()?)),
    };
    measured?;
    compared?;
    removed.context("the folder cannot be removed")
}

/// Work that a signal breaks off.
async fn unless_ended(work: impl Future<Output = Result<()>>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
    }
}

/// The figures of a whole cluster.
async fn in_cluster(args: &Args, folder: &Path, table: &mut Table) -> Result<()> {
    let binary = std::path::absolute(&args.binary)?;
    let mut cluster = Cluster::new(binary, folder.join("data"))?;
    let measured = unless_ended(measure(args, &mut cluster, table)).await;
    let cleaned = cluster.clean_up().await;
    if measured.is_err() {
        eprintln!("the end of the server's log:\n{}", cluster.log_tail());
    }
    measured.and(cleaned)
}

/// Volumes that are mounted still, in this namespace alone, would keep the folder.
fn unmount(folder: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let places = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1).map(Path::new));
    for place in places.filter(|place| place.starts_with(folder)) {
        umount2(place, MntFlags::MNT_DETACH)
            .with_context(|| format!("unmounting {}", place.display()))?;
    }
    Ok(())
}

async fn measure(args: &Args, cluster: &mut Cluster, table: &mut Table) -> Result<()> {
    part(
        "command to Node Ready, demonstration",
        start::first(cluster, table),
    )
    .await?;
    if args.wants("idle") {
        let title = format!("idle for {} s", args.idle_seconds);
        part(&title, idle::measure(cluster, args.idle_seconds, table)).await?;
    }
    if args.wants("pods") {
        part("pods", pods::measure(cluster, table)).await?;
    }
    if args.wants("node") {
        let work = node::measure(cluster, args.idle_seconds, table);
        part("a full node", work).await?;
    }
    if args.wants("restart") {
        part("restart", start::again(cluster, table)).await?;
    }
    if args.wants("watchers") {
        part("watchers", watchers::measure(cluster, table)).await?;
    }
    if args.wants("creates") {
        part("creates", load::creates(cluster, table)).await?;
    }
    if args.wants("list") {
        part("list", load::list(cluster, table)).await?;
    }
    if args.wants("peers") {
        part(
            "peers",
            peers::measure(cluster, args.store_bench.as_deref(), table),
        )
        .await?;
    }
    size(cluster, table)
}

/// Runs one part and says on stderr how long it took.
async fn part(title: &str, work: impl Future<Output = Result<()>>) -> Result<()> {
    let begin = Instant::now();
    work.await
        .with_context(|| format!("measuring failed: {title}"))?;
    eprintln!("{:>6.1} s  {title}", begin.elapsed().as_secs_f64());
    Ok(())
}

fn size(cluster: &Cluster, table: &mut Table) -> Result<()> {
    let bytes = std::fs::metadata(cluster.binary())?.len();
    let figure = Figure::new("release binary", bytes as f64 / 1e6, "MB");
    table.add(figure.goal(Goal::AtMost(60.0)));
    Ok(())
}
