//! Containers that came and went leave nothing behind, by count.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde_json::json;

use crate::host::{Host, PATIENCE};

const CYCLES: usize = 25;

/// Everything below a folder.
fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => 1 + files(&entry.path()),
            _ => 1,
        })
        .sum()
}

fn counts(host: &Host) -> BTreeMap<&'static str, usize> {
    let process = Path::new("/proc").join(host.pid().to_string());
    let lines = |name: &str| {
        let text = std::fs::read_to_string(process.join(name)).unwrap();
        text.lines().count()
    };
    let groups = linux::cgroup::Hierarchies::of_this_machine().unwrap();
    let group = groups.group(&host.cgroup()).unwrap();
    let folders = group.mounts().into_iter().map(|(_, folder)| folder);
    let descriptors = std::fs::read_dir(process.join("fd")).unwrap().count();
    BTreeMap::from([
        ("descriptors", descriptors),
        ("mounts", lines("mountinfo")),
        ("links", lines("net/dev")),
        (
            "cgroups",
            folders.map(|folder| folders_below(&folder)).sum(),
        ),
        ("files", files(host.folder())),
        ("namespaces", namespaces(host)),
    ])
}

fn folders_below(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| 1 + folders_below(&entry.path())).sum()
}

/// Network namespaces of processes whose mounts are the engine's: its own and its supervisors'.
fn namespaces(host: &Host) -> usize {
    let link = |pid: &str, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
    let mounts = link(&host.pid().to_string(), "mnt");
    let mut found = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(|c: char| c.is_ascii_digit()) && link(&name, "mnt") == mounts {
            found.extend(link(&name, "net"));
        }
    }
    found.len()
}

/// Whether a supervisor waits for its pod: it reads from a pipe of the engine.
fn has_spare(host: &Host) -> bool {
    let link = |path: std::path::PathBuf| std::fs::read_link(path).ok();
    let pipes: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", host.pid()))
        .unwrap()
        .flatten()
        .filter_map(|fd| link(fd.path()))
        .collect();
    let mut processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.any(|one| {
        let stat = std::fs::read_to_string(one.path().join("stat")).unwrap_or_default();
        let waits = stat.contains(" (sampan-spare) S ");
        waits && link(one.path().join("fd/0")).is_some_and(|pipe| pipes.contains(&pipe))
    })
}

#[test]
fn containers_that_came_and_went_leave_nothing() {
    let host = Host::new();
    let cycle = |number: usize| {
        let name = format!("c{number}");
        let network = ["none", "bridge"][number % 2];
        let more = json!({"HostConfig": {"NetworkMode": network}});
        host.create(&name, "echo here; exit 3", more);
        host.start(&name);
        assert_eq!(host.wait(&name), 3);
        assert_eq!(host.remove(&name).status, 204);
    };
    (0..4).for_each(cycle);
    // A supervisor that waits for the next container is part of an engine at rest.
    let deadline = Instant::now() + PATIENCE;
    while !has_spare(&host) {
        assert!(Instant::now() < deadline, "no spare supervisor");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let before = counts(&host);
    (0..CYCLES).for_each(cycle);
    // Connections close a moment after their answer.
    let deadline = Instant::now() + PATIENCE;
    let grown = loop {
        let after = counts(&host);
        let grown: Vec<_> = after
            .into_iter()
            .filter(|(name, count)| *count > before[name])
            .collect();
        if grown.is_empty() || Instant::now() > deadline {
            break grown;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert!(grown.is_empty(), "before {before:?}, grown to {grown:?}");
}
