//! Taking away everything that outlives a server, when its data folder is to go.

use super::sandbox::remove_folder;
use super::{Config, OpenError};
use crate::spec::{file, read_json};

/// Kills every pod below the configured cgroup root and removes cgroups, mounts, sockets and the
/// containers' own files; images stay. Only while no engine is open on the same folders.
pub fn clean_up(config: &Config) -> Result<(), OpenError> {
    let fault = |path: &std::path::Path| {
        let path = path.to_owned();
        move |error| OpenError::Io(path, error)
    };
    let groups = linux::cgroup::Hierarchies::of_this_machine()
        .map_err(fault("/proc/self/mountinfo".as_ref()))?;
    let group = groups
        .group(&config.cgroup_root)
        .map_err(fault(config.cgroup_root.as_ref()))?;
    group
        .kill()
        .and_then(|()| group.remove())
        .map_err(fault(config.cgroup_root.as_ref()))?;
    remove_foreign(config, &groups)?;
    let entries = match std::fs::read_dir(&config.state) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        other => Some(other.map_err(fault(&config.state))?),
    };
    for entry in entries.into_iter().flatten().flatten() {
        let shm = entry.path().join(file::SHM);
        linux::mount::unmount_if_mounted(&shm).map_err(fault(&shm))?;
    }
    for folder in [
        config.state.clone(),
        config.root.join("containers"),
        config.root.join("images/leases"),
    ] {
        remove_folder(&folder).map_err(fault(&folder))?;
    }
    Ok(())
}

/// Sandboxes below somebody else's cgroup are known by their records only.
fn remove_foreign(config: &Config, groups: &linux::cgroup::Hierarchies) -> Result<(), OpenError> {
    let fault = |error| OpenError::Io(config.state.clone(), error);
    for entry in std::fs::read_dir(&config.state)
        .into_iter()
        .flatten()
        .flatten()
    {
        let record = entry.path().join(file::SANDBOX);
        let Ok(record) = read_json::<super::SandboxRecord>(&record) else {
            continue;
        };
        let group = groups.group(&record.cgroup).map_err(fault)?;
        group.kill().and_then(|()| group.remove()).map_err(fault)?;
    }
    Ok(())
}
