//! What the system knows of this process, as Prometheus' clients tell it.

use std::fmt::Write;
use std::fs;

/// Clock ticks a second, the same on every Linux that programs see.
const TICKS: f64 = 100.0;
/// Bytes of the pages in which memory is counted.
const PAGE_BYTES: u64 = 4096;

/// Processor time, memory and open files; what cannot be read is left out.
pub(crate) fn metrics() -> String {
    let mut text = String::new();
    let mut show = |name: &str, help: &str, kind: &str, value: f64| {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
        );
    };
    if let Some((seconds, virtual_bytes, resident)) = status() {
        let help = "Total user and system CPU time spent in seconds.";
        show("process_cpu_seconds_total", help, "counter", seconds);
        let help = "Virtual memory size in bytes.";
        show("process_virtual_memory_bytes", help, "gauge", virtual_bytes);
        let help = "Resident memory size in bytes.";
        show("process_resident_memory_bytes", help, "gauge", resident);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        let help = "Number of open file descriptors.";
        show("process_open_fds", help, "gauge", open.count() as f64);
    }
    if let Some(most) = limit() {
        let help = "Maximum number of open file descriptors.";
        show("process_max_fds", help, "gauge", most);
    }
    text
}

/// Seconds of processor time, bytes of address space, bytes in memory.
fn status() -> Option<(f64, f64, f64)> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the process stands in parentheses and may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)?;
    let resident = number(21)? * PAGE_BYTES;
    Some((ticks as f64 / TICKS, number(20)? as f64, resident as f64))
}

fn limit() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_has_time_memory_and_files() {
        let text = super::metrics();
        for name in [
            "cpu_seconds_total",
            "resident_memory_bytes",
            "open_fds",
            "max_fds",
        ] {
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("process_{name} ")));
            let value: f64 = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
            assert!(value >= 0.0);
        }
    }
}
