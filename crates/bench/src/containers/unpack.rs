//! Taking in a layer of 100 MB, beside `tar -xzf`.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::table::{Figure, Goal, Table, percentile};

const FILES: usize = 2_000;
const FILE_BYTES: usize = 50_000;
const ROUNDS: usize = 5;
const MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

pub(super) async fn measure(folder: &Path, table: &mut Table) -> Result<()> {
    let folder = folder.join("unpack");
    std::fs::create_dir_all(&folder)?;
    let archive = folder.join("layer.tar.gz");
    make(&folder, &archive).await?;
    let store = oci::Store::open(&folder.join("images"))?;
    let (mut own, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (store, path) = (store.clone(), archive.clone());
        let begin = Instant::now();
        let ingest = tokio::task::spawn_blocking(move || -> Result<oci::Ingest> {
            let ingest = store.ingest()?;
            ingest.layer(File::open(path)?, MEDIA_TYPE, None, None)?;
            Ok(ingest)
        });
        let ingest = ingest.await??;
        own.push(begin.elapsed().as_secs_f64() * 1e3);
        drop(ingest);
        let target = folder.join("target");
        std::fs::create_dir(&target)?;
        let begin = Instant::now();
        let mut tar = Command::new("tar");
        tar.arg("-xzf").arg(&archive).arg("-C").arg(&target);
        let status = tar.stdin(Stdio::null()).status().await;
        ensure!(
            status.context("tar cannot be run")?.success(),
            "tar does not unpack the layer"
        );
        theirs.push(begin.elapsed().as_secs_f64() * 1e3);
        std::fs::remove_dir_all(&target)?;
    }
    own.sort_by(f64::total_cmp);
    theirs.sort_by(f64::total_cmp);
    let (own, theirs) = (percentile(&own, 0.5), percentile(&theirs, 0.5));
    let figure = Figure::new("a layer of 100 MB : tar -xzf", own / theirs, "×");
    let note = format!(
        "p50 of {ROUNDS}, {FILES} files; {own:.0} ms, hashed twice and kept compressed too, tar {theirs:.0} ms"
    );
    table.add(figure.goal(Goal::AtMost(0.7)).note(note));
    Ok(())
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
