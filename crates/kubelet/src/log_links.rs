//! Links to the logs of containers, by names that say whose they are: `POD_NAMESPACE_CONTAINER-ID.log`,
//! for those who collect logs.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use node_api::{ContainerState, ContainerStatus};

use crate::labels;

/// The longest name of a file, without `.log`.
const NAME_BYTES_MAX: usize = 255 - 4;

/// The link of a container.
pub(crate) fn path(
    folder: &Path,
    (pod, namespace, container): (&str, &str, &str),
    id: &str,
) -> PathBuf {
    let mut name = format!("{pod}_{namespace}_{container}-{id}");
    while name.len() > NAME_BYTES_MAX {
        name.pop();
    }
    folder.join(format!("{name}.log"))
}

fn of_status(folder: &Path, status: &ContainerStatus) -> PathBuf {
    let label = |key: &str| status.config.labels.get(key).map_or("", String::as_str);
    let names = (
        label(labels::POD_NAME),
        label(labels::POD_NAMESPACE),
        label(labels::CONTAINER_NAME),
    );
    path(folder, names, &status.id)
}

/// Links to a log, if it is there.
pub(crate) fn make(link: &Path, log: &Path) {
    if !log.exists() {
        return;
    }
    match std::os::unix::fs::symlink(log, link) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            tracing::warn!(%error, link = %link.display(), "log not linked");
        }
        _ => {}
    }
}

/// Removes the links of containers.
pub(crate) fn remove<'a>(folder: &Path, containers: impl Iterator<Item = &'a ContainerStatus>) {
    for status in containers {
        remove_one(&of_status(folder, status));
    }
}

/// Removes links to logs that are gone, but for those of containers that run: their logs may just be
/// rotated.
pub(crate) fn remove_dead(folder: &Path, containers: &[ContainerStatus]) {
    let alive = containers
        .iter()
        .filter(|c| c.state == ContainerState::Running);
    let alive: HashSet<PathBuf> = alive.map(|status| of_status(folder, status)).collect();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let link = entry.path();
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let is_log = link.extension().is_some_and(|ending| ending == "log");
        if is_link && is_log && !link.exists() && !alive.contains(&link) {
            remove_one(&link);
        }
    }
}

fn remove_one(link: &Path) {
    match std::fs::remove_file(link) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(%error, link = %link.display(), "link to a log not removed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_at_what_a_file_may_have() {
        let short = path(Path::new("/l"), ("web", "default", "main"), "c1");
        assert_eq!(short, Path::new("/l/web_default_main-c1.log"));
        let long = path(Path::new("/l"), (&"p".repeat(253), "default", "main"), "c1");
        let name = long.file_name().unwrap().to_str().unwrap();
        assert_eq!(name, format!("{}.log", &"p".repeat(251)));
    }
}
