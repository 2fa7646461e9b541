//! Containers: created, started, waited for and removed, beside other runtimes in the same minute;
//! what a thousand of them leave behind.

mod engine;
mod inside;
mod leaks;
mod runtimes;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use clap::Args;

use self::engine::Engine;
use self::inside::Inside;
use self::runtimes::{Bundle, Runtime};
use crate::table::{Figure, Goal, Table, percentile};

const ROUNDS: usize = 60;
/// First ones, which warm caches and are not counted.
const WARM: usize = 5;
/// Where all keep what they know of running containers.
const RUN: &str = "/run/sampan-bench";
pub(crate) const IMAGE: &str = "bench/true:latest";

/// Whom to measure beside the engine.
#[derive(Args, Clone, Debug)]
pub(crate) struct Peers {
    /// A runc to create containers with, in the same run
    #[arg(long)]
    runc: Option<PathBuf>,
    /// A crun to create containers with, in the same run
    #[arg(long)]
    crun: Option<PathBuf>,
    /// How often containers come and go before what they leave behind is counted
    #[arg(long, default_value_t = 1_000)]
    cycles: usize,
}

/// Everything about containers; needs no cluster.
pub(crate) async fn measure(
    binary: &Path,
    folder: &Path,
    peers: &Peers,
    table: &mut Table,
) -> Result<()> {
    let folder = folder.join("containers");
    std::fs::create_dir_all(&folder)?;
    let program = folder.join("true");
    std::fs::write(&program, exit_with_zero())?;
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755))?;
    runtimes::have_run_in_memory()?;
    // Before anybody looks for hierarchies: all are to have the same ones.
    runtimes::hide_version_2(peers.crun.is_some())?;
    let mut engine = Engine::start(binary, &folder, &program).await?;
    let measured = all(&mut engine, &folder, &program, peers, table).await;
    let stopped = engine.stop().await;
    measured.and(stopped)
}

async fn all(
    engine: &mut Engine,
    folder: &Path,
    program: &Path,
    peers: &Peers,
    table: &mut Table,
) -> Result<()> {
    let mut inside = Inside::open(engine.binary(), folder, program).await?;
    let measured = beside(engine, &mut inside, folder, program, peers, table).await;
    let closed = inside.close().await;
    measured.and(closed)?;
    leaks::measure(engine, peers.cycles, table).await
}

/// Ours and theirs in turns, so that whatever else the machine does meets all alike.
async fn beside(
    engine: &mut Engine,
    inside: &mut Inside,
    folder: &Path,
    program: &Path,
    peers: &Peers,
    table: &mut Table,
) -> Result<()> {
    let mut others = Vec::new();
    let mut bundle = None;
    for (name, goal, path) in [("runc", 0.4, &peers.runc), ("crun", 1.0, &peers.crun)] {
        let Some(path) = path else { continue };
        if bundle.is_none() {
            bundle = Some(Bundle::make(path, &folder.join("bundle"), program).await?);
        }
        others.extend(bundle.clone().map(|bundle| {
            let state = Path::new(RUN).join(name);
            (name, goal, Runtime::new(path, state, bundle), Vec::new())
        }));
    }
    let (mut plain, mut own, mut bridged) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..WARM + ROUNDS {
        let begin = Instant::now();
        inside.cycle(round).await?;
        note(&mut plain, round, begin);
        let begin = Instant::now();
        engine.cycle("none").await?;
        note(&mut own, round, begin);
        let begin = Instant::now();
        engine.cycle("bridge").await?;
        note(&mut bridged, round, begin);
        for (_, _, runtime, times) in &mut others {
            let begin = Instant::now();
            runtime.run(&format!("bench-{round}")).await?;
            note(times, round, begin);
        }
    }
    let title = "container of `true`, pod and overlay included, by the engine";
    let plain = report(table, title, &mut plain, None);
    let docker = report(table, "the same by docker's API", &mut own, None);
    report(table, "the same on a bridge", &mut bridged, None);
    for (name, goal, _, mut times) in others {
        let title = format!("the same of a bundle by {name}'s command line");
        let theirs = report(table, &title, &mut times, None);
        let figure = Figure::new(format!("engine : {name}"), plain / theirs, "×");
        table.add(figure.goal(Goal::AtMost(goal)));
        table.add(Figure::new(
            format!("docker's API : {name}"),
            docker / theirs,
            "×",
        ));
    }
    if let Some(mut times) = engine.command_line(WARM, ROUNDS / 3).await? {
        let title = "docker run --rm, by the command line";
        report(table, title, &mut times, Some(Goal::AtMost(40.0)));
    }
    Ok(())
}

fn note(times: &mut Vec<f64>, round: usize, begin: Instant) {
    if round >= WARM {
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
}

fn report(table: &mut Table, title: &str, times: &mut [f64], goal: Option<Goal>) -> f64 {
    times.sort_by(f64::total_cmp);
    let median = percentile(times, 0.5);
    let mut figure = Figure::new(title, median, "ms");
    if let Some(goal) = goal {
        figure = figure.goal(goal);
    }
    let (best, late) = (percentile(times, 0.01), percentile(times, 0.9));
    table.add(figure.note(format!("p50; best {best:.1}, p90 {late:.1} ms")));
    median
}

/// The smallest program there is: it ends with code 0. A header, one segment, three instructions.
fn exit_with_zero() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    #[cfg(target_arch = "x86_64")]
    // mov edi, 0; mov eax, 60; syscall
    let (machine, code): (u16, &[u8]) = (62, &[0xbf, 0, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]);
    #[cfg(target_arch = "aarch64")]
    // mov x0, 0; mov x8, 93; svc 0
    let (machine, code): (u16, &[u8]) = (
        183,
        &[0, 0, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 1, 0, 0, 0xd4],
    );
    let size = HEADERS + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend(2u16.to_le_bytes());
    file.extend(machine.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    for word in [BASE + HEADERS, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes());
    file.extend(5u32.to_le_bytes());
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_program_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("true");
        std::fs::write(&path, exit_with_zero()).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let status = std::process::Command::new(&path).status().unwrap();
        assert_eq!(status.code(), Some(0));
    }
}
