//! The families of containers, as cAdvisor names and explains them.

use node_api::{ContainerFigures, LinuxResources, TrafficStats};

use super::{Page, Row, Space};
use crate::{machine, swap};

/// Name, type, help.
type Head = (&'static str, &'static str, &'static str);
/// A family with one series of each row that has a value.
type Single = (Head, fn(&Row) -> Option<f64>);

const NANOS: f64 = 1e9;

const SINGLES: [Single; 28] = [
    (
        (
            "container_cpu_cfs_periods_total",
            "counter",
            "Number of elapsed enforcement period intervals.",
        ),
        |row| limited(row, |own| own.cpu_periods as f64),
    ),
    (
        (
            "container_cpu_cfs_throttled_periods_total",
            "counter",
            "Number of throttled period intervals.",
        ),
        |row| limited(row, |own| own.cpu_throttled_periods as f64),
    ),
    (
        (
            "container_cpu_cfs_throttled_seconds_total",
            "counter",
            "Total time duration the container has been throttled.",
        ),
        |row| limited(row, |own| own.cpu_throttled_nanos as f64 / NANOS),
    ),
    (
        (
            "container_cpu_system_seconds_total",
            "counter",
            "Cumulative system cpu time consumed in seconds.",
        ),
        |row| figure(row, |own| own.cpu_system_nanos as f64 / NANOS),
    ),
    (
        (
            "container_cpu_user_seconds_total",
            "counter",
            "Cumulative user cpu time consumed in seconds.",
        ),
        |row| figure(row, |own| own.cpu_user_nanos as f64 / NANOS),
    ),
    (
        (
            "container_file_descriptors",
            "gauge",
            "Number of open file descriptors for the container.",
        ),
        |row| figure(row, |own| own.file_descriptors as f64),
    ),
    (
        (
            "container_last_seen",
            "gauge",
            "Last time a container was seen by the exporter",
        ),
        |row| Some((row.stats.timestamp / 1_000_000_000) as f64),
    ),
    (
        (
            "container_memory_cache",
            "gauge",
            "Number of bytes of page cache memory.",
        ),
        |row| figure(row, |own| own.memory_cache_bytes as f64),
    ),
    (
        (
            "container_memory_failcnt",
            "counter",
            "Number of memory usage hits limits",
        ),
        |row| figure(row, |own| own.memory_failures as f64),
    ),
    (
        (
            "container_memory_kernel_usage",
            "gauge",
            "Size of kernel memory allocated in bytes.",
        ),
        |row| figure(row, |own| own.memory_kernel_bytes as f64),
    ),
    (
        (
            "container_memory_mapped_file",
            "gauge",
            "Size of memory mapped files in bytes.",
        ),
        |row| figure(row, |own| own.memory_mapped_file_bytes as f64),
    ),
    (
        (
            "container_memory_max_usage_bytes",
            "gauge",
            "Maximum memory usage recorded in bytes",
        ),
        |row| figure(row, |own| own.memory_max_usage_bytes as f64),
    ),
    (
        ("container_memory_rss", "gauge", "Size of RSS in bytes."),
        |row| Some(row.stats.memory_rss_bytes as f64),
    ),
    (
        (
            "container_memory_swap",
            "gauge",
            "Container swap usage in bytes.",
        ),
        |row| Some(row.stats.swap_bytes as f64),
    ),
    (
        (
            "container_memory_usage_bytes",
            "gauge",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
        ),
        |row| Some(row.stats.memory_usage_bytes as f64),
    ),
    (
        (
            "container_memory_working_set_bytes",
            "gauge",
            "Current working set in bytes.",
        ),
        |row| Some(row.stats.memory_working_set_bytes as f64),
    ),
    (
        (
            "container_oom_events_total",
            "counter",
            "Count of out of memory events observed for the container",
        ),
        |row| figure(row, |own| own.out_of_memory_kills as f64),
    ),
    (
        (
            "container_processes",
            "gauge",
            "Number of processes running inside the container.",
        ),
        |row| Some(row.stats.process_count as f64),
    ),
    (
        (
            "container_sockets",
            "gauge",
            "Number of open sockets for the container.",
        ),
        |row| figure(row, |own| own.sockets as f64),
    ),
    (
        (
            "container_spec_cpu_period",
            "gauge",
            "CPU period of the container.",
        ),
        |row| spec(row, |own| own.cpu_period, 1),
    ),
    (
        (
            "container_spec_cpu_quota",
            "gauge",
            "CPU quota of the container.",
        ),
        |row| spec(row, |own| own.cpu_quota, 1),
    ),
    (
        (
            "container_spec_cpu_shares",
            "gauge",
            "CPU share of the container.",
        ),
        |row| spec(row, |own| own.cpu_shares, 1),
    ),
    (
        (
            "container_spec_memory_limit_bytes",
            "gauge",
            "Memory limit for the container.",
        ),
        |row| spec(row, |own| own.memory_limit_bytes, 0),
    ),
    (
        (
            "container_spec_memory_reservation_limit_bytes",
            "gauge",
            "Memory reservation limit for the container.",
        ),
        |row| spec(row, |own| own.memory_reservation_bytes, 0),
    ),
    (
        (
            "container_spec_memory_swap_limit_bytes",
            "gauge",
            "Memory swap limit for the container.",
        ),
        |row| spec(row, swap::written, 0),
    ),
    (
        (
            "container_start_time_seconds",
            "gauge",
            "Start time of the container since unix epoch in seconds.",
        ),
        |row| (row.begun > 0).then_some((row.begun / 1_000_000_000) as f64),
    ),
    (
        (
            "container_threads",
            "gauge",
            "Number of threads running inside the container",
        ),
        |row| figure(row, |own| own.threads as f64),
    ),
    (
        (
            "container_threads_max",
            "gauge",
            "Maximum number of threads allowed inside the container, infinity if value is zero",
        ),
        |row| figure(row, |own| own.threads_max as f64),
    ),
];

/// A direction's counter.
type Traffic = (Head, bool, fn(&TrafficStats) -> u64);

const NETWORK: [Traffic; 8] = [
    (
        (
            "container_network_receive_bytes_total",
            "counter",
            "Cumulative count of bytes received",
        ),
        true,
        |own| own.bytes,
    ),
    (
        (
            "container_network_receive_errors_total",
            "counter",
            "Cumulative count of errors encountered while receiving",
        ),
        true,
        |own| own.errors,
    ),
    (
        (
            "container_network_receive_packets_dropped_total",
            "counter",
            "Cumulative count of packets dropped while receiving",
        ),
        true,
        |own| own.dropped,
    ),
    (
        (
            "container_network_receive_packets_total",
            "counter",
            "Cumulative count of packets received",
        ),
        true,
        |own| own.packets,
    ),
    (
        (
            "container_network_transmit_bytes_total",
            "counter",
            "Cumulative count of bytes transmitted",
        ),
        false,
        |own| own.bytes,
    ),
    (
        (
            "container_network_transmit_errors_total",
            "counter",
            "Cumulative count of errors encountered while transmitting",
        ),
        false,
        |own| own.errors,
    ),
    (
        (
            "container_network_transmit_packets_dropped_total",
            "counter",
            "Cumulative count of packets dropped while transmitting",
        ),
        false,
        |own| own.dropped,
    ),
    (
        (
            "container_network_transmit_packets_total",
            "counter",
            "Cumulative count of packets transmitted",
        ),
        false,
        |own| own.packets,
    ),
];

/// What processes waited for, its name in cAdvisor's words, and in its explanation.
const PRESSURES: [(&str, &str); 3] = [("cpu", "CPU"), ("memory", "memory"), ("io", "IO")];

fn figure(row: &Row, of: fn(&ContainerFigures) -> f64) -> Option<f64> {
    row.figures.as_ref().map(of)
}

/// Of those that have a quota only.
fn limited(row: &Row, of: fn(&ContainerFigures) -> f64) -> Option<f64> {
    row.spec.as_ref().filter(|own| own.cpu_quota > 0)?;
    figure(row, of)
}

fn spec(row: &Row, of: fn(&LinuxResources) -> i64, min: i64) -> Option<f64> {
    let value = row.spec.as_ref().map(of)?;
    (value >= min).then_some(value as f64)
}

/// One series: labels, value, nanoseconds since the epoch.
type Sample = (String, f64, i64);

/// Writes a family unless it is empty.
fn family(page: &mut Page, (name, kind, help): (&str, &str, &str), samples: Vec<Sample>) {
    if samples.is_empty() {
        return;
    }
    page.family(name, kind, help);
    for (labels, value, at) in samples {
        page.sample(name, &labels, value, (at > 0).then_some(at));
    }
}

/// Writes all families.
pub(super) fn write(page: &mut Page, rows: &[Row]) {
    let each = |of: &dyn Fn(&Row) -> Vec<(String, f64)>| -> Vec<Sample> {
        let samples = |row: &Row| {
            let at = row.stats.timestamp;
            let own = of(row).into_iter();
            own.map(|(labels, value)| (labels, value, at))
                .collect::<Vec<_>>()
        };
        rows.iter().flat_map(samples).collect()
    };
    let head = (
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed in seconds.",
    );
    let used = |row: &Row| {
        let seconds = row.stats.cpu_usage_core_nanos as f64 / NANOS;
        vec![(row.labels(&[("cpu", "total")]), seconds)]
    };
    family(page, head, each(&used));
    for (head, of) in SINGLES {
        let samples = |row: &Row| {
            of(row)
                .map(|value| (row.labels(&[]), value))
                .into_iter()
                .collect()
        };
        family(page, head, each(&samples));
    }
    let head = (
        "container_memory_failures_total",
        "counter",
        "Cumulative count of memory allocation failures.",
    );
    let faults = |row: &Row| {
        [
            ("pgfault", row.stats.page_faults),
            ("pgmajfault", row.stats.major_page_faults),
        ]
        .map(|(kind, count)| {
            (
                row.labels(&[("failure_type", kind), ("scope", "container")]),
                count as f64,
            )
        })
        .into()
    };
    family(page, head, each(&faults));
    for (head, receive, of) in NETWORK {
        let samples = |row: &Row| {
            let interfaces = row.interfaces.iter();
            let sample = |own: &node_api::InterfaceStats| {
                let way = if receive { &own.receive } else { &own.transmit };
                (row.labels(&[("interface", &own.name)]), of(way) as f64)
            };
            interfaces.map(sample).collect()
        };
        family(page, head, each(&samples));
    }
    let head = (
        "container_ulimits_soft",
        "gauge",
        "Soft ulimit values for the container root process. Unlimited if -1, except priority and nice",
    );
    let limits = |row: &Row| {
        let value = figure(row, |own| own.open_files_limit as f64);
        let labels = || row.labels(&[("ulimit", "max_open_files")]);
        value.map(|value| (labels(), value)).into_iter().collect()
    };
    family(page, head, each(&limits));
    disks(page, rows);
    pressure(page, rows);
}

/// A figure of a file system.
type OfSpace = (Head, fn(&Space) -> i64);

const SPACES: [OfSpace; 4] = [
    (
        (
            "container_fs_inodes_free",
            "gauge",
            "Number of available Inodes",
        ),
        |own| own.disk.inodes_free,
    ),
    (
        ("container_fs_inodes_total", "gauge", "Number of Inodes"),
        |own| own.disk.inodes,
    ),
    (
        (
            "container_fs_limit_bytes",
            "gauge",
            "Number of bytes that can be consumed by the container on this filesystem.",
        ),
        |own| own.disk.total,
    ),
    (
        (
            "container_fs_usage_bytes",
            "gauge",
            "Number of bytes that are consumed by the container on this filesystem.",
        ),
        |own| own.used,
    ),
];

fn disks(page: &mut Page, rows: &[Row]) {
    for (head, of) in SPACES {
        let sample = |row: &Row| {
            let own = row.space.as_ref()?;
            let labels = row.labels(&[("device", &own.device)]);
            Some((labels, of(own) as f64, row.stats.timestamp))
        };
        family(page, head, rows.iter().filter_map(sample).collect());
    }

    let heads: [(Head, bool, bool); 4] = [
        (
            (
                "container_fs_reads_bytes_total",
                "counter",
                "Cumulative count of bytes read",
            ),
            false,
            true,
        ),
        (
            (
                "container_fs_reads_total",
                "counter",
                "Cumulative count of reads completed",
            ),
            false,
            false,
        ),
        (
            (
                "container_fs_writes_bytes_total",
                "counter",
                "Cumulative count of bytes written",
            ),
            true,
            true,
        ),
        (
            (
                "container_fs_writes_total",
                "counter",
                "Cumulative count of writes completed",
            ),
            true,
            false,
        ),
    ];
    for (head, write, bytes) in heads {
        let mut samples = Vec::new();
        for row in rows {
            let all = row.figures.iter().flat_map(|own| &own.block_io);
            for io in all.filter(|io| io.write == write) {
                let value = if bytes { io.bytes } else { io.operations };
                let device = machine::device(io.major, io.minor);
                let labels = row.labels(&[("device", &device)]);
                samples.push((labels, value as f64, row.stats.timestamp));
            }
        }
        family(page, head, samples);
    }
}

fn pressure(page: &mut Page, rows: &[Row]) {
    for (resource, word) in PRESSURES {
        for (suffix, full) in [("stalled", true), ("waiting", false)] {
            let name = format!("container_pressure_{resource}_{suffix}_seconds_total");
            let help = match full {
                true => format!(
                    "Total time duration no tasks in the container could make progress due to {word} congestion."
                ),
                false => format!(
                    "Total time duration tasks in the container have waited due to {word} congestion."
                ),
            };
            let found = |row: &Row| {
                let mut all = row.figures.iter().flat_map(|own| &own.pressure);
                let (_, some, all) = all.find(|(own, _, _)| *own == resource)?;
                let waited = if full { all } else { some };
                Some((row.labels(&[]), *waited as f64 / 1e6, row.stats.timestamp))
            };
            let samples = rows.iter().filter_map(found).collect();
            family(page, (&name, "counter", &help), samples);
        }
    }
}
