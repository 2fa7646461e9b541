//! The log files of containers: kept small, removed with their container.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::Stop;
use node_api::ContainerState;

use crate::shared::Shared;

/// Removes a log and its rotated predecessors.
pub(crate) fn remove(log: &Path) {
    for path in rotated(log).into_iter().chain([log.to_owned()]) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::debug!(%error, path = %path.display(), "log not removed");
            }
            _ => {}
        }
    }
}

/// The rotated files of a log (`0.log.20260131-120000`), the oldest first.
pub(crate) fn rotated(log: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name()) else {
        return Vec::new();
    };
    let prefix = format!("{}.", name.to_string_lossy());
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            name.is_some_and(|name| name.starts_with(&prefix))
        })
        .collect();
    found.sort();
    found
}

/// The number after that of the newest log in a container's folder; 0 where there is none.
pub(crate) fn next_attempt(folder: &Path) -> u32 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let number = |name: std::ffi::OsString| -> Option<u32> {
        let (number, rest) = name.to_str()?.split_once('.')?;
        let number = number.parse::<u32>().ok()?;
        rest.starts_with("log").then(|| number.saturating_add(1))
    };
    let numbers = entries.filter_map(|entry| number(entry.file_name()));
    numbers.max().unwrap_or(0)
}

/// Rotates the logs that have grown too large; ends when the process stops.
pub(crate) async fn keep_small(shared: Arc<Shared>, stop: Stop) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(shared.config.log_check_interval) => {}
            () = stop.raised() => return,
        }
        for view in shared.pods.all() {
            let running = view
                .containers
                .values()
                .filter(|c| c.state == ContainerState::Running);
            for container in running {
                let size = fs::metadata(&container.log_path).map_or(0, |meta| meta.len());
                if size >= shared.config.log_bytes_max {
                    rotate(&shared, &container.id, &container.log_path).await;
                }
            }
        }
    }
}

async fn rotate(shared: &Shared, id: &str, log: &Path) {
    let files = rotated(log);
    // The current file counts as one.
    let surplus = (files.len() + 2).saturating_sub(shared.config.log_files_max.max(2));
    for old in files.iter().take(surplus) {
        if let Err(error) = fs::remove_file(old) {
            tracing::warn!(%error, path = %old.display(), "old log not removed");
        }
    }
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let mut target = log.as_os_str().to_owned();
    target.push(format!(".{stamp}"));
    let target = PathBuf::from(target);
    if let Err(error) = fs::rename(log, &target) {
        tracing::warn!(%error, path = %log.display(), "log not rotated");
        return;
    }
    if let Err(error) = shared.runtime.reopen_container_log(id).await {
        tracing::warn!(%error, id, "log not reopened");
        // Put it back: the writer still has it open.
        if let Err(error) = fs::rename(&target, log) {
            tracing::warn!(%error, path = %log.display(), "log not put back");
        }
    }
}
