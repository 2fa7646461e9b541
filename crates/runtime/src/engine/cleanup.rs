//! Taking away everything that outlives a server, when its data folder is to go.

use super::sandbox::remove_folder;
use super::{Config, OpenError};
use crate::spec::file;

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
