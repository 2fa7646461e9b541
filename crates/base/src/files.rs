//! Files that are either whole or absent, whatever moment the power fails.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces `path` by `bytes` with permission bits `mode`: writes a temporary
/// neighbour, flushes it, renames it over the target and flushes the folder.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(
        ".{}.{:x}",
        std::process::id(),
        rand::random::<u32>()
    ));
    let temporary = folder.join(temporary);
    let written = write_synced(&temporary, bytes, mode)
        .and_then(|()| std::fs::rename(&temporary, path))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        // The target is untouched; a leftover neighbour would only waste space.
        if let Err(error) = std::fs::remove_file(&temporary) {
            tracing::debug!(%error, path = %temporary.display(), "temporary file not removed");
        }
    }
    written
}

fn write_synced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
