//! What a peer does on the same machine in the same minute.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::cluster::Cluster;
use crate::table::{Figure, Table, percentile};

/// Appends timed, to know the disk that all durable figures stand on.
const APPENDS: usize = 200;
const APPEND_BYTES: usize = 1_024;

/// Times the disk, and runs the store's own benchmark with etcd beside it.
pub(crate) async fn measure(
    cluster: &Cluster,
    store_bench: Option<&Path>,
    table: &mut Table,
) -> Result<()> {
    let folder = cluster.folder().to_owned();
    let mut appends = tokio::task::spawn_blocking(move || time_appends(&folder)).await??;
    appends.sort_by(f64::total_cmp);
    let figure = Figure::new(
        "the disk: append and fdatasync",
        percentile(&appends, 0.5) * 1e3,
        "ms",
    );
    let note = format!(
        "p50 of {APPENDS}; p99 {:.2} ms",
        percentile(&appends, 0.99) * 1e3
    );
    table.add(figure.note(note));
    match store_bench {
        Some(bench) => beside_etcd(bench, cluster.folder(), table).await,
        None => Ok(()),
    }
}

fn time_appends(folder: &Path) -> Result<Vec<f64>> {
    let mut file = tempfile::tempfile_in(folder)?;
    let block = [b'x'; APPEND_BYTES];
    let mut times = Vec::new();
    for _ in 0..APPENDS {
        let begin = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(begin.elapsed().as_secs_f64());
    }
    Ok(times)
}

async fn beside_etcd(bench: &Path, folder: &Path, table: &mut Table) -> Result<()> {
    let output = Command::new(bench)
        .arg(folder)
        .kill_on_drop(true)
        .output()
        .await;
    let output = output.with_context(|| format!("{} cannot be run", bench.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "{}: {}",
            bench.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    for writers in [1, 64] {
        let find = |who: &str| figure(&text, &format!("{who}, {writers} writers"));
        let own = find("store").with_context(|| format!("the store said nothing:\n{text}"))?;
        let note = match find("etcd over HTTP") {
            Some(etcd) => format!(
                "in process, 1 KiB; etcd over its JSON gateway {etcd:.0} /s, ratio {:.1}",
                own / etcd
            ),
            None => "in process, 1 KiB; etcd is not on the path".into(),
        };
        let name = format!("store: durable puts, {writers} at once");
        table.add(Figure::new(name, own, "/s").note(note));
    }
    Ok(())
}

/// The number in the line that holds `name` and nothing else.
fn figure(text: &str, name: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.trim().strip_prefix(name)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_the_stores_table() {
        let text = "store, 1 writers      512\nstore, 64 writers, 60 watches  7\nstore, 64 writers   9001\n";
        assert_eq!(figure(text, "store, 1 writers"), Some(512.0));
        assert_eq!(figure(text, "etcd over HTTP, 1 writers"), None);
    }
}
