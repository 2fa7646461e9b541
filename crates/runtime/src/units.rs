//! Cgroups by systemd: each sandbox's supervisor and each container is a scope in the pod's slice,
//! known by the path of its cgroup. Groups that are no units are none of this file's business.

use std::io;

use linux::cgroup::{Cgroup, Hierarchies, Limits};
use nix::unistd::Pid;
use systemd::is_unit;

/// Scopes are named as by other engines: a word, and the id.
const PREFIX: &str = "sampan";
/// Where sandboxes go that name no parent.
pub(crate) const USUAL_SLICE: &str = "system.slice";

/// The cgroup of a sandbox in the slice at `slice`.
pub(crate) fn sandbox(slice: &str, id: &str) -> String {
    format!("{slice}/{PREFIX}-{id}.scope")
}

/// The cgroup of a container: beside its sandbox's where that is a unit, below it elsewhere.
pub(crate) fn container(of_sandbox: &str, id: &str) -> String {
    match of_sandbox.rsplit_once('/') {
        Some((slice, _)) if is_unit(of_sandbox) => sandbox(slice, id),
        _ => format!("{of_sandbox}/{id}"),
    }
}

/// The slice in which a unit lies.
pub(crate) fn slice_of(of_sandbox: &str) -> &str {
    of_sandbox.rsplit_once('/').map_or("", |(slice, _)| slice)
}

/// The hierarchies of a group by its path: where systemd makes groups, it keeps one for itself.
pub(crate) fn hierarchies(path: &str) -> io::Result<Hierarchies> {
    match is_unit(path) {
        true => Hierarchies::with_systemd(),
        false => Hierarchies::of_this_machine(),
    }
}

/// Has systemd make the scope of a process, and makes what systemd leaves out: hierarchies of
/// version 1 that it does not manage.
pub(crate) fn start(path: &str, group: &Cgroup, pid: Pid, limits: &Limits) -> io::Result<()> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let id = name.trim_end_matches(".scope");
    let what = format!("sampan container {}", id.trim_start_matches("sampan-"));
    systemd::start_scope(path, pid.as_raw(), &what, limits).map_err(io::Error::other)?;
    group.create()?;
    group.join_unified(pid)
}

/// Has systemd make a pod's slice with its limits.
pub(crate) fn start_slice(path: &str, group: &Cgroup, limits: &Limits) -> io::Result<()> {
    systemd::start_slice(path, "sampan pod", limits).map_err(io::Error::other)?;
    group.create()
}

/// Limits a group; tells which controllers the machine does not have.
pub(crate) fn limit(path: &str, group: &Cgroup, limits: &Limits) -> io::Result<Vec<String>> {
    if is_unit(path) {
        systemd::set_limits(path, limits).map_err(io::Error::other)?;
    }
    group.limit(limits)
}

/// Ends what lives in a group; tells whether that has removed it, too.
pub(crate) fn end(path: &str, group: &Cgroup) -> io::Result<bool> {
    // Units are systemd's to take away.
    if !is_unit(path) && group.dissolve().is_ok_and(|gone| gone) {
        return Ok(true);
    }
    group.kill().map(|()| false)
}

/// Removes a group with all below it; what is not there is no error.
pub(crate) fn remove(path: &str, group: &Cgroup) -> io::Result<()> {
    // Without systemd there are no units of its; what is left of them are folders.
    if is_unit(path) && (group.exists() || systemd::is_running()) {
        systemd::stop(path).map_err(io::Error::other)?;
    }
    group.remove()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_lie_beside_scopes_and_below_folders() {
        assert_eq!(container("/sampan-1/pods/a", "b"), "/sampan-1/pods/a/b");
        let scope = sandbox("/a.slice/a-b.slice", "s");
        assert_eq!(scope, "/a.slice/a-b.slice/sampan-s.scope");
        assert_eq!(container(&scope, "c"), "/a.slice/a-b.slice/sampan-c.scope");
        assert_eq!(slice_of(&scope), "/a.slice/a-b.slice");
    }
}
