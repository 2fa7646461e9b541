//! What many containers leave behind: nothing, by count.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use super::engine::Engine;
use crate::table::{Figure, Goal, Table};

/// Counts before are taken after so many containers, when pools have filled.
const WARM: usize = 20;

/// The kernel takes no longer to take an ended container's interfaces away.
const SETTLE: Duration = Duration::from_secs(2);

type Counts = BTreeMap<&'static str, usize>;

pub(super) async fn measure(engine: &mut Engine, cycles: usize, table: &mut Table) -> Result<()> {
    for _ in 0..WARM {
        engine.cycle("bridge").await?;
    }
    let links = watch_links()?;
    // With a supervisor in spare again, which is one more process.
    let before = settled(engine, &links, |_| false)?;
    for _ in 0..cycles {
        engine.cycle("bridge").await?;
    }
    let clean = |now: &Counts| now.iter().all(|(name, count)| *count <= before[name]);
    let after = settled(engine, &links, clean)?;
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

/// Tells of every interface that comes or goes.
fn watch_links() -> Result<OwnedFd> {
    let kind = (AddressFamily::Netlink, SockType::Raw);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(kind.0, kind.1, flags, SockProtocol::NetlinkRoute)?;
    let group = u32::try_from(nix::libc::RTMGRP_LINK)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, group))?;
    Ok(socket)
}

/// Counts until the counts are good: the kernel takes away an ended container's network namespace,
/// and the interfaces with it, in its own time.
fn settled(engine: &Engine, links: &OwnedFd, good: impl Fn(&Counts) -> bool) -> Result<Counts> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let counts = counts(engine)?;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || good(&counts) {
            return Ok(counts);
        }
        let mut news = [PollFd::new(links.as_fd(), PollFlags::POLLIN)];
        poll(&mut news, PollTimeout::try_from(left)?)?;
        let mut buffer = [0u8; 64 << 10];
        while recv(links.as_raw_fd(), &mut buffer, MsgFlags::empty()).is_ok() {}
    }
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
