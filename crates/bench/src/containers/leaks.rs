//! What many containers leave behind: nothing, by count.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::engine::Engine;
use crate::table::{Figure, Goal, Table};

/// Counts before are taken after so many containers, when pools have filled.
const WARM: usize = 20;

type Counts = BTreeMap<&'static str, usize>;

pub(super) async fn measure(engine: &mut Engine, cycles: usize, table: &mut Table) -> Result<()> {
    for _ in 0..WARM {
        engine.cycle("bridge").await?;
    }
    let before = counts(engine)?;
    for _ in 0..cycles {
        engine.cycle("bridge").await?;
    }
    let after = counts(engine)?;
    let grown: Vec<String> = after
        .iter()
        .filter(|(name, count)| **count > before[**name])
        .map(|(name, count)| format!("{name} {} → {count}", before[name]))
        .collect();
    let more: usize = after
        .iter()
        .map(|(name, count)| count.saturating_sub(before[name]))
        .sum();
    let title = format!("left behind by {cycles} containers");
    let figure = Figure::new(title, more as f64, "things").goal(Goal::AtMost(0.0));
    let names: Vec<&str> = before.keys().copied().collect();
    table.add(figure.note(match grown.is_empty() {
        true => names.join(", "),
        false => grown.join(", "),
    }));
    Ok(())
}

fn counts(engine: &Engine) -> Result<Counts> {
    let pid = engine.pid()?;
    let lines = |path: String| -> Result<usize> {
        Ok(std::fs::read_to_string(&path)
            .with_context(|| path)?
            .lines()
            .count())
    };
    let entries = |path: String| -> Result<usize> {
        Ok(std::fs::read_dir(&path).with_context(|| path)?.count())
    };
    let (processes, namespaces) = processes()?;
    Ok(Counts::from([
        ("descriptors", entries(format!("/proc/{pid}/fd"))?),
        ("mounts", lines("/proc/self/mountinfo".to_owned())?),
        ("links", lines("/proc/self/net/dev".to_owned())?),
        ("cgroups", cgroups()?),
        ("processes", processes),
        ("namespaces", namespaces),
        ("files", files(engine.folder())?),
    ]))
}

/// Cgroups of engines, in every hierarchy.
fn cgroups() -> Result<usize> {
    let mut count = 0;
    for hierarchy in linux::cgroup::Hierarchies::of_this_machine()?.0 {
        for entry in std::fs::read_dir(&hierarchy.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let ours = name.to_string_lossy().starts_with("sampan-");
            if ours && entry.file_type()?.is_dir() {
                count += files(&entry.path())?;
            }
        }
    }
    Ok(count)
}

/// Everything below a folder that is not yet gone.
fn files(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        count += 1;
        if entry.file_type()?.is_dir() {
            count += files(&entry.path())?;
        }
    }
    Ok(count)
}

/// Processes that came from this mount namespace, and the network namespaces they live in.
fn processes() -> Result<(usize, usize)> {
    let supervisors = crate::process::supervisors()?;
    let mut namespaces = std::collections::BTreeSet::new();
    for pid in &supervisors {
        if let Ok(link) = std::fs::read_link(format!("/proc/{pid}/ns/net")) {
            namespaces.insert(link);
        }
    }
    Ok((supervisors.len(), namespaces.len()))
}
