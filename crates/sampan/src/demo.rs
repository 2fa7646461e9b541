//! `sampan demo`: a cluster of its own in a network namespace of its own, a
//! real application in it, and what happens when it grows, changes and crashes.
#![expect(clippy::print_stdout, reason = "the demonstration talks to people")]

mod cluster;
mod manifests;
mod steps;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Arguments of `demo`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Demo {
    /// Folder for the demonstration's cluster [default: a temporary one, removed at the end]
    #[arg(short = 'd', long)]
    data_dir: Option<PathBuf>,
    /// Leave folder and logs in place
    #[arg(long)]
    keep: bool,
}

/// Prints steps with their durations, and remembers them for the summary.
pub(crate) struct Script {
    start: Instant,
    lines: Vec<(String, Duration)>,
}

impl Script {
    fn new() -> Script {
        Script {
            start: Instant::now(),
            lines: Vec::new(),
        }
    }

    /// Runs one step; what it returns as text is shown beside its duration.
    async fn step<T>(
        &mut self,
        title: &str,
        command: &str,
        step: impl Future<Output = Result<(T, String)>>,
    ) -> Result<T> {
        println!("\n▸ {title}");
        for line in command.lines().filter(|line| !line.is_empty()) {
            println!("    $ {line}");
        }
        let begin = Instant::now();
        let (value, note) = step
            .await
            .with_context(|| format!("step failed: {title}"))?;
        let took = begin.elapsed();
        for line in note.trim_end().lines() {
            println!("    {line}");
        }
        println!("  ✔ {:.2} s", took.as_secs_f64());
        self.lines.push((title.to_owned(), took));
        Ok(value)
    }

    fn summary(&self, facts: &[(String, String)]) {
        println!("\nSummary");
        for (title, took) in &self.lines {
            println!("  {:>7.2} s  {title}", took.as_secs_f64());
        }
        println!(
            "  {:>7.2} s  altogether",
            self.start.elapsed().as_secs_f64()
        );
        for (name, value) in facts {
            println!("  {name}: {value}");
        }
    }
}

/// Runs the demonstration; the result is the process's exit code.
pub(crate) fn run(demo: Demo) -> Result<i32> {
    // Nothing the cluster does can be seen, or see anything, outside this namespace. The process
    // has one thread still, so all that follows is inside.
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .context("a network namespace cannot be made; run the demonstration as root")?;
    // Nor shall its mounts be seen outside, where `/` may be shared.
    let nowhere = None::<&str>;
    mount(
        nowhere,
        "/",
        nowhere,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nowhere,
    )
    .context("mounts cannot be made private")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(play(demo))
}

async fn play(demo: Demo) -> Result<i32> {
    let temporary = demo.data_dir.is_none();
    let folder = demo.data_dir.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("sampan-demo-{}", std::process::id()))
    });
    println!(
        "Sampan demonstration: a cluster in its own network namespace, in {}",
        folder.display()
    );
    let mut cluster = cluster::Cluster::new(&folder)?;
    let mut script = Script::new();
    let played = tokio::select! {
        played = steps::all(&mut script, &mut cluster) => played,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    println!("\n▸ Clean up");
    let cleaned = cluster.clean_up().await;
    let failed = played.is_err() || cleaned.is_err();
    if failed {
        println!("  the server's log is {}", cluster.log_path().display());
    } else if temporary && !demo.keep {
        std::fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
        println!("  ✔ containers, namespaces, cgroups and files are gone");
    }
    let facts = played?;
    cleaned?;
    script.summary(&facts);
    println!(
        "\nTo keep a cluster of your own:  sampan server &  then  export KUBECONFIG=/var/lib/sampan/admin.kubeconfig  and  kubectl get nodes"
    );
    Ok(0)
}
