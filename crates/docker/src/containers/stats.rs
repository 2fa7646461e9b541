//! `GET /containers/{id}/stats`: one look, or one each second.

use std::sync::Arc;
use std::time::Duration;

use node_api::RuntimeService;
use serde_json::{Map, Value, json};

use crate::answer::{self, Answer, Fault};
use crate::call::Call;
use crate::daemon::{Container, Daemon};
use crate::record::{moment, now};

const PERIOD: Duration = Duration::from_secs(1);

pub(crate) async fn stats(call: Call, name: &str) -> Answer {
    let daemon = Arc::clone(&call.daemon);
    let container = daemon.find(name)?;
    let stream = call.query.get("stream").is_none() || call.query.flag("stream");
    let one_shot = call.query.flag("one-shot");
    if !stream {
        let mut before = None;
        if !one_shot && container.record.read().state.is_up() {
            before = Some(look(&daemon, &container).await?);
            tokio::time::sleep(PERIOD).await;
        }
        let shown = with_before(look(&daemon, &container).await?, before);
        return answer::ok(&shown);
    }
    let (pieces, response) = answer::stream("application/json");
    tokio::spawn(async move {
        let mut before = None;
        let mut ticks = tokio::time::interval(PERIOD);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = pieces.closed() => return,
                () = daemon.stop.raised() => return,
            }
            if container.progress.borrow().removed {
                return;
            }
            let Ok(seen) = look(&daemon, &container).await else {
                return;
            };
            let shown = with_before(seen.clone(), before.replace(seen));
            if !answer::line(&pieces, &shown).await {
                return;
            }
        }
    });
    Ok(response)
}

fn with_before(mut shown: Value, before: Option<Value>) -> Value {
    let before = before.unwrap_or_default();
    shown["preread"] = match &before["read"] {
        Value::Null => json!(moment(0)),
        read => read.clone(),
    };
    shown["precpu_stats"] = match &before["cpu_stats"] {
        Value::Null => json!({"cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0,
            "usage_in_usermode": 0}, "throttling_data": {"periods": 0, "throttled_periods": 0,
            "throttled_time": 0}}),
        stats => stats.clone(),
    };
    shown
}

async fn look(daemon: &Daemon, container: &Container) -> Result<Value, Fault> {
    let record = container.snapshot();
    let mut shown = json!({
        "id": record.id,
        "name": format!("/{}", record.name),
        "read": moment(now()),
        "num_procs": 0,
        "storage_stats": {},
        "pids_stats": {},
        "blkio_stats": {},
        "cpu_stats": {"cpu_usage": {"total_usage": 0}},
        "memory_stats": {},
    });
    if !record.state.is_up() {
        return Ok(shown);
    }
    let inner = &record.state.inner;
    let stats = daemon.engine.container_stats(inner).await?;
    let figures = daemon.engine.container_figures(inner).await?;
    let pod = daemon
        .engine
        .pod_sandbox_stats(&record.state.sandbox)
        .await?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    shown["pids_stats"] = json!({"current": figures.threads.max(stats.process_count)});
    shown["cpu_stats"] = json!({
        "cpu_usage": {
            "total_usage": stats.cpu_usage_core_nanos,
            "usage_in_kernelmode": figures.cpu_system_nanos,
            "usage_in_usermode": figures.cpu_user_nanos,
        },
        "system_cpu_usage": system_nanos(),
        "online_cpus": processors,
        "throttling_data": {
            "periods": figures.cpu_periods,
            "throttled_periods": figures.cpu_throttled_periods,
            "throttled_time": figures.cpu_throttled_nanos,
        },
    });
    let limit = match record.host.limits.memory {
        0 => machine_memory(),
        limit => u64::try_from(limit).unwrap_or(0),
    };
    shown["memory_stats"] = json!({
        "usage": stats.memory_usage_bytes,
        "max_usage": figures.memory_max_usage_bytes,
        "limit": limit,
        "failcnt": figures.memory_failures,
        "stats": {
            "cache": figures.memory_cache_bytes,
            "rss": stats.memory_rss_bytes,
            "inactive_file": stats.memory_usage_bytes.saturating_sub(stats.memory_working_set_bytes),
            "pgfault": stats.page_faults,
            "pgmajfault": stats.major_page_faults,
        },
    });
    let entry = |io: &node_api::BlockIo| {
        json!({"major": io.major, "minor": io.minor,
            "op": if io.write { "write" } else { "read" }, "value": io.bytes})
    };
    let bytes: Vec<Value> = figures.block_io.iter().map(entry).collect();
    let operations = |io: &node_api::BlockIo| {
        json!({"major": io.major, "minor": io.minor,
            "op": if io.write { "write" } else { "read" }, "value": io.operations})
    };
    let operations: Vec<Value> = figures.block_io.iter().map(operations).collect();
    shown["blkio_stats"] = json!({"io_service_bytes_recursive": bytes,
        "io_serviced_recursive": operations});
    let mut networks = Map::new();
    for interface in pod.interfaces {
        let (rx, tx) = (interface.receive, interface.transmit);
        networks.insert(
            interface.name,
            json!({
                "rx_bytes": rx.bytes, "rx_packets": rx.packets, "rx_errors": rx.errors,
                "rx_dropped": rx.dropped, "tx_bytes": tx.bytes, "tx_packets": tx.packets,
                "tx_errors": tx.errors, "tx_dropped": tx.dropped,
            }),
        );
    }
    shown["networks"] = Value::Object(networks);
    Ok(shown)
}

/// What all processors of the machine have done, in nanoseconds.
fn system_nanos() -> u64 {
    const TICK_NANOS: u64 = 10_000_000;
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let fields = line.split_whitespace().skip(1).take(7);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks * TICK_NANOS
}

/// Bytes of memory this machine has.
pub(crate) fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}
