//! What the server costs while nothing happens but the demonstration's own life.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cluster::Cluster;
use crate::process::{Memory, memory, processor_time, supervisors};
use crate::start::NAMESPACE;
use crate::table::{Figure, Goal, Table};

const MB: f64 = 1e6;
/// After the client was deleted, until its pod is gone and everybody has heard of it.
const SETTLE: Duration = Duration::from_secs(4);

/// Watches the server for a while.
pub(crate) async fn measure(cluster: &Cluster, seconds: u64, table: &mut Table) -> Result<()> {
    let pid = cluster.pid()?;
    let share = share(pid, seconds).await?;
    let window = format!("{seconds} s window, the demonstration running");

    let server = memory(pid)?;
    let figure = Figure::new("idle memory of the server (RSS)", mb(server.resident), "MB");
    let note = format!(
        "end of a {window}; {:.0} MB heap and stacks, the rest is the binary's pages",
        mb(server.anonymous)
    );
    table.add(figure.goal(Goal::AtMost(120.0)).note(note));
    let figure = Figure::new("idle processor share", share, "% of a core");
    let note = format!("{window}: its client asks for the service by name about 70 times a second");
    table.add(figure.goal(Goal::AtMost(2.0)).note(note));

    let each = supervisors()?;
    anyhow::ensure!(!each.is_empty(), "no supervisor found");
    let each = each
        .into_iter()
        .map(memory)
        .collect::<Result<Vec<Memory>>>()?;
    let mean = |size: fn(&Memory) -> u64| {
        each.iter().map(|one| mb(size(one))).sum::<f64>() / each.len() as f64
    };
    let figure = Figure::new(
        "supervisor, per pod (PSS)",
        mean(|one| one.proportional),
        "MB",
    );
    let note = format!(
        "mean of {}; RSS {:.1} MB, heap and stack {:.1} MB",
        each.len(),
        mean(|one| one.resident),
        mean(|one| one.anonymous)
    );
    table.add(figure.goal(Goal::AtMost(3.0)).note(note));
    at_rest(cluster, seconds, table).await
}

/// The same when nobody asks for anything: the demonstration without its client.
async fn at_rest(cluster: &Cluster, seconds: u64, table: &mut Table) -> Result<()> {
    cluster
        .sampan(&["delete", "pod", "client", "-n", NAMESPACE])
        .await?;
    tokio::time::sleep(SETTLE).await;
    let share = share(cluster.pid()?, seconds).await?;
    let figure = Figure::new("processor share at rest", share, "% of a core");
    let note = format!("{seconds} s window, the demonstration without its client");
    table.add(figure.goal(Goal::AtMost(1.0)).note(note));
    Ok(())
}

/// Percent of a core that the process takes.
pub(crate) async fn share(pid: u32, seconds: u64) -> Result<f64> {
    let (begin, before) = (Instant::now(), processor_time(pid)?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let used = (processor_time(pid)? - before).as_secs_f64();
    Ok(100.0 * used / begin.elapsed().as_secs_f64())
}

/// Bytes as people read them.
pub(crate) fn mb(bytes: u64) -> f64 {
    bytes as f64 / MB
}
