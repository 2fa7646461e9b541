//! Taking away everything that outlives a server, when its data folder is to go.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::sandbox::remove_folder;
use super::{Config, OpenError};
use crate::spec::{file, read_json};
use crate::units;

/// Kills every pod below the configured cgroup root and removes cgroups, mounts, sockets and the
/// containers' own files; images stay. Only while no engine is open on the same folders.
pub fn clean_up(config: &Config) -> Result<(), OpenError> {
    let fault = |path: &std::path::Path| {
        let path = path.to_owned();
        move |error| OpenError::Io(path, error)
    };
    // Runtimes of others make groups in hierarchies that are nothing to us, too.
    let groups = linux::cgroup::Hierarchies::all_of_this_machine()
        .map_err(fault("/proc/self/mountinfo".as_ref()))?;
    let group = groups
        .group(&config.cgroup_root)
        .map_err(fault(config.cgroup_root.as_ref()))?;
    group
        .kill()
        .and_then(|()| group.remove())
        .map_err(fault(config.cgroup_root.as_ref()))?;
    remove_units(config)?;
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

/// What systemd made is known by the records, too: the scopes of sandboxes and containers, and the
/// slices of pods where nothing else lies in them.
fn remove_units(config: &Config) -> Result<(), OpenError> {
    let mut slices = BTreeSet::new();
    for path in recorded(&config.state) {
        if !systemd::is_unit(&path) {
            continue;
        }
        let fault = |error| OpenError::Io(PathBuf::from(&path), error);
        let group = (units::hierarchies(&path).and_then(|all| all.group(&path))).map_err(fault)?;
        group.kill().map_err(fault)?;
        units::remove(&path, &group).map_err(fault)?;
        let mut above = units::slice_of(&path);
        while above.ends_with(".slice") && !above.ends_with(units::USUAL_SLICE) {
            slices.insert(above.to_owned());
            above = units::slice_of(above);
        }
    }
    // From the leaves up.
    for path in slices.iter().rev() {
        let fault = |error| OpenError::Io(PathBuf::from(path), error);
        let group = (units::hierarchies(path).and_then(|all| all.group(path))).map_err(fault)?;
        // systemd may be slower to take away folders than to say that a unit is gone.
        if !group.has_processes() {
            units::remove(path, &group).map_err(fault)?;
        }
    }
    Ok(())
}

/// The cgroups of all sandboxes and containers that the state folder tells of, containers' first.
fn recorded(state: &Path) -> Vec<String> {
    let folders = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let mut paths = Vec::new();
    for sandbox in folders(state) {
        for container in folders(&sandbox.join(file::CONTAINERS)) {
            let record = read_json::<super::ContainerRecord>(&container.join(file::CONTAINER));
            paths.extend(record.map(|record| record.cgroup));
        }
        let record = read_json::<super::SandboxRecord>(&sandbox.join(file::SANDBOX));
        paths.extend(record.map(|record| record.cgroup));
    }
    paths
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
        if systemd::is_unit(&record.cgroup) {
            continue;
        }
        let group = groups.group(&record.cgroup).map_err(fault)?;
        group.kill().and_then(|()| group.remove()).map_err(fault)?;
    }
    Ok(())
}
