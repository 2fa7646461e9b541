//! Cgroups as systemd's units: a group whose path ends with a scope or slice is systemd's to make,
//! to limit and to remove. Each call is a connection of its own: they are rare, and systemd may be
//! executed anew at any time.

use linux::cgroup::Limits;

use crate::connection::Error;
use crate::manager::Manager;
use crate::properties::{Properties, accounting, of};
use crate::value::Value;

/// Whether version 2 manages resources here.
const UNIFIED: &str = "/sys/fs/cgroup/cgroup.controllers";
/// There where systemd runs the machine.
const RUNNING: &str = "/run/systemd/system";

/// Whether a cgroup is one of systemd's, by its path.
pub fn is_unit(path: &str) -> bool {
    path.ends_with(".scope") || path.ends_with(".slice")
}

/// Whether systemd runs this machine.
pub fn is_running() -> bool {
    std::path::Path::new(RUNNING).is_dir()
}

/// Where in the hierarchies systemd's own root lies: nothing, but in a container.
pub fn prefix() -> Result<String, Error> {
    let group = Manager::connect()?.property("ControlGroup")?;
    let group = group.as_text().unwrap_or_default();
    Ok(group.trim_end_matches('/').to_owned())
}

/// The unit of a cgroup, and the one it lies in.
fn unit(path: &str) -> (&str, &str) {
    let (above, unit) = path.rsplit_once('/').unwrap_or(("", path));
    let above = above.rsplit('/').next().unwrap_or_default();
    (
        unit,
        if above.ends_with(".slice") {
            above
        } else {
            "-.slice"
        },
    )
}

fn is_unified() -> bool {
    std::path::Path::new(UNIFIED).exists()
}

/// Makes the scope at `path` for a process, which systemd moves there; what lies below is the
/// caller's.
pub fn start_scope(path: &str, pid: i32, what: &str, limits: &Limits) -> Result<(), Error> {
    let (unit, slice) = unit(path);
    let pids = vec![Value::U32(pid.unsigned_abs())];
    let properties = || -> Properties {
        let mut all = vec![
            ("Description", Value::text(what)),
            ("Slice", Value::text(slice)),
            ("Delegate", Value::Bool(true)),
            ("PIDs", Value::Array("u".to_owned(), pids.clone())),
            ("DefaultDependencies", Value::Bool(false)),
        ];
        all.extend(accounting());
        if limits.pids == 0 {
            // Its slice limits it, and not what systemd thinks usual for services.
            all.push(("TasksMax", Value::U64(u64::MAX)));
        }
        all.extend(of(limits, is_unified()));
        all
    };
    let mut manager = Manager::connect()?;
    match manager.start(unit, properties()) {
        // One that failed before has left its name.
        Err(error) if error.is_remote("UnitExists") => {
            manager.forget(unit)?;
            manager.start(unit, properties())
        }
        started => started,
    }
}

/// Makes the slice at `path` with these limits; one that is there gets them.
pub fn start_slice(path: &str, what: &str, limits: &Limits) -> Result<(), Error> {
    let (unit, above) = unit(path);
    let mut all = vec![
        ("Description", Value::text(what)),
        ("DefaultDependencies", Value::Bool(false)),
        ("Wants", Value::texts([above])),
    ];
    all.extend(accounting());
    all.extend(of(limits, is_unified()));
    let mut manager = Manager::connect()?;
    match manager.start(unit, all) {
        Err(error) if error.is_remote("UnitExists") => manager.set(unit, of(limits, is_unified())),
        started => started,
    }
}

/// Changes the limits of a unit.
pub fn set_limits(path: &str, limits: &Limits) -> Result<(), Error> {
    Manager::connect()?.set(unit(path).0, of(limits, is_unified()))
}

/// Stops a unit with all that runs in it; what is not there is no error.
pub fn stop(path: &str) -> Result<(), Error> {
    Manager::connect()?.stop(unit(path).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_known_by_their_paths() {
        assert!(is_unit("/system.slice/sampan-1.scope") && is_unit("/a.slice"));
        assert!(!is_unit("/sampan-1/pods/a.scope/b"));
        assert_eq!(unit("/a.slice/a-b.slice"), ("a-b.slice", "a.slice"));
        assert_eq!(unit("/a.slice"), ("a.slice", "-.slice"));
        assert_eq!(unit("/docker/x/a.slice"), ("a.slice", "-.slice"));
    }
}
