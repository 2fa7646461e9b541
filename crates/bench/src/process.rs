//! What `/proc` says of a process.

use std::time::Duration;

use anyhow::{Context, Result};

/// Memory of one process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Resident, shared pages in full.
    pub(crate) resident: u64,
    /// Resident, shared pages by share.
    pub(crate) proportional: u64,
    /// Of the resident pages, those of no file: heap and stacks.
    pub(crate) anonymous: u64,
}

/// Reads the memory of a process.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| path)?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next());
        kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1_024
    };
    Ok(Memory {
        resident: field("Rss:"),
        proportional: field("Pss:"),
        anonymous: field("Anonymous:"),
    })
}

/// Processor time a process has used so far.
pub(crate) fn processor_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| path)?;
    // The name, in parentheses, may hold spaces; behind it fields are counted from 3.
    let fields = text
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|word| word.parse::<u64>().ok())
        .sum();
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// Supervisors in this process's mount namespace, where nobody but the measured cluster lives.
pub(crate) fn supervisors() -> Result<Vec<u32>> {
    let here = std::fs::read_link("/proc/self/ns/mnt")?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process may be gone by now.
        let Ok(there) = std::fs::read_link(format!("/proc/{pid}/ns/mnt")) else {
            continue;
        };
        let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else {
            continue;
        };
        if there == here && line.split(|byte| *byte == 0).nth(1) == Some(b"supervise") {
            found.push(pid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_own_size_and_age() {
        let me = std::process::id();
        let memory = memory(me).unwrap();
        assert!(memory.anonymous > 0 && memory.proportional <= memory.resident);
        let before = processor_time(me).unwrap();
        let begin = std::time::Instant::now();
        while begin.elapsed() < Duration::from_millis(100) {
            std::hint::spin_loop();
        }
        assert!(processor_time(me).unwrap() > before);
    }
}
