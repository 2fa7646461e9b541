//! Taking in a layer of 100 MB, beside `tar -xzf`.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::process::Command;

use crate::table::{Figure, Goal, Table, percentile};

const FILES: usize = 2_000;
const FILE_BYTES: usize = 50_000;
const ROUNDS: usize = 7;
const MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

pub(crate) async fn measure(folder: &Path, table: &mut Table) -> Result<()> {
    let folder = folder.join("unpack");
    std::fs::create_dir_all(&folder)?;
    let archive = folder.join("layer.tar.gz");
    make(&folder, &archive).await?;
    let (mut own, mut theirs) = (Vec::new(), Vec::new());
    // Each time to a place of its own: ext4 looks at all inodes that were freed in the last half a minute
    // before it takes one, so that whoever comes after a removal is some times as slow.
    for round in 0..ROUNDS {
        let store = oci::Store::open(&folder.join(format!("images-{round}")))?;
        let path = archive.clone();
        own.push(tokio::task::spawn_blocking(move || take_in(&store, &path)).await??);
        theirs.push(by_tar(&archive, &folder.join(format!("target-{round}"))).await?);
    }
    own.sort_by(f64::total_cmp);
    theirs.sort_by(f64::total_cmp);
    let (own, theirs) = (percentile(&own, 0.5), percentile(&theirs, 0.5));
    let figure = Figure::new("a layer of 100 MB : tar -xzf", own / theirs, "×");
    let note = format!(
        "p50 of {ROUNDS}, {FILES} files; {own:.0} ms until it can be run, hashed twice and kept compressed too, tar {theirs:.0} ms"
    );
    table.add(figure.goal(Goal::AtMost(0.7)).note(note));
    Ok(())
}

/// Milliseconds until an image of the one layer is in the store, as after a pull.
fn take_in(store: &oci::Store, archive: &Path) -> Result<f64> {
    quiet();
    let begin = Instant::now();
    let ingest = store.ingest()?;
    let layer = ingest.layer(File::open(archive)?, MEDIA_TYPE, None, None)?;
    let config = json!({"rootfs": {"type": "layers", "diff_ids": [layer.0.diff_id]}}).to_string();
    let digest = ingest
        .document(config.as_bytes(), CONFIG_TYPE, None)?
        .digest;
    let name = ["bench/layer".parse()?];
    ingest.commit(config.as_bytes(), &digest, &digest, vec![layer], &name)?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

async fn by_tar(archive: &Path, target: &Path) -> Result<f64> {
    std::fs::create_dir(target)?;
    tokio::task::spawn_blocking(quiet).await?;
    let begin = Instant::now();
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(archive).arg("-C").arg(target);
    let status = tar.stdin(Stdio::null()).status().await;
    ensure!(
        status.context("tar cannot be run")?.success(),
        "tar does not unpack the layer"
    );
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

/// What others have written is on the disk before the clock runs: neither waits for it.
fn quiet() {
    nix::unistd::sync();
}

/// Files of words that repeat about as much as programs do.
async fn make(folder: &Path, archive: &Path) -> Result<()> {
    let tree = folder.join("tree");
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for number in 0..FILES {
        let place = tree.join(format!("d{}", number / 50));
        std::fs::create_dir_all(&place)?;
        let mut file = File::create(place.join(format!("f{number}")))?;
        let mut bytes = Vec::with_capacity(FILE_BYTES + 16);
        while bytes.len() < FILE_BYTES {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes()[..5]);
            bytes.extend_from_slice(b"\0\0\x48\x8b\x45\xf8");
        }
        file.write_all(&bytes[..FILE_BYTES])?;
    }
    let mut tar = Command::new("tar");
    tar.arg("-czf").arg(archive).arg("-C").arg(&tree).arg(".");
    let made = tar.stdin(Stdio::null()).status().await;
    ensure!(
        made.context("tar cannot be run")?.success(),
        "tar does not pack the layer"
    );
    std::fs::remove_dir_all(&tree)?;
    Ok(())
}
