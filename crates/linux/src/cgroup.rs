//! Control groups, version 1, version 2 and both side by side, as files. Which
//! controller lives where is read once from the mount table; after that a
//! [`Cgroup`] is one path in every hierarchy that matters to us.

mod block;
mod detail;
mod devices;
mod limits;
mod memory_watch;
mod usage;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub use block::{Abilities, BlockRate, RareLimits};
pub use detail::{BlockIo, Detail, HugePages, Pressure, Waits};
pub use devices::DeviceRule;
pub use limits::Limits;
pub use memory_watch::MemoryWatch;
pub use usage::Usage;

/// The controllers we use; other hierarchies are left alone.
const WANTED: [&str; 9] = [
    "cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "hugetlb", "blkio", "io",
];
/// Version 2 stops processes in any group; where there is no version 2, this hierarchy does.
const FREEZER: &str = "freezer";
/// The version 1 hierarchy in which systemd keeps its units, as an option of its mount.
const SYSTEMD: &str = "name=systemd";
/// How often a round of kills may find new processes before we give up.
const KILL_ROUNDS: usize = 64;
/// How often a parent may vanish under a group being created before that is an error.
const CREATE_TRIES: u32 = 10;
/// A removed group can stay busy for a moment while the kernel lets go of the last process.
const BUSY_RETRIES: u32 = 20;
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Version 1: what is attached to it. Version 2: empty, the files tell.
    pub controllers: Vec<String>,
    pub folder: PathBuf,
    /// Version 2.
    pub unified: bool,
}

/// All hierarchies of this machine that matter to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies(pub Vec<Hierarchy>);

impl Hierarchies {
    /// Reads them from our own mount table.
    pub fn of_this_machine() -> io::Result<Hierarchies> {
        Ok(Hierarchies::from_mountinfo(&fs::read_to_string(
            "/proc/self/mountinfo",
        )?))
    }

    /// Those that do not matter to us, too: others leave groups there.
    pub fn all_of_this_machine() -> io::Result<Hierarchies> {
        let text = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(Hierarchies::read(&text, |option| {
            !matches!(option, "rw" | "ro")
        }))
    }

    /// Reads them from our own mount table, with the one in which systemd keeps its units: groups
    /// that it makes are there, too.
    pub fn with_systemd() -> io::Result<Hierarchies> {
        let text = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(Hierarchies::read(&text, |option| {
            option == SYSTEMD || is_wanted(&text, option)
        }))
    }

    /// Reads them from the text of a `mountinfo` file.
    pub fn from_mountinfo(text: &str) -> Hierarchies {
        Hierarchies::read(text, |option| is_wanted(text, option))
    }

    fn read(text: &str, is_controller: impl Fn(&str) -> bool) -> Hierarchies {
        let mut found: Vec<Hierarchy> = Vec::new();
        for line in text.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let Some(folder) = left.split(' ').nth(4) else {
                continue;
            };
            let mut right = right.split(' ');
            let (kind, options) = (right.next(), right.nth(1).unwrap_or(""));
            let controllers: Vec<String> = options
                .split(',')
                .filter(|option| is_controller(option))
                .map(str::to_owned)
                .collect();
            let unified = kind == Some("cgroup2");
            let wanted = unified || (kind == Some("cgroup") && !controllers.is_empty());
            let known = |h: &Hierarchy| h.unified == unified && h.controllers == controllers;
            if wanted && !found.iter().any(known) {
                found.push(Hierarchy {
                    controllers,
                    folder: folder.into(),
                    unified,
                });
            }
        }
        Hierarchies(found)
    }

    /// The group at `path` (`/pods/x`), whether it exists or not. `..` is refused.
    pub fn group(&self, path: &str) -> io::Result<Cgroup> {
        let clean = path.trim_matches('/');
        let bad = |part: &str| part.is_empty() || part == "." || part == "..";
        if clean.split('/').any(bad) {
            let message = format!("cgroup path {path:?} is not a plain path below the root");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(Cgroup {
            hierarchies: self.clone(),
            path: clean.to_owned(),
        })
    }
}

/// The version 1 parts of a group, open for a process to move itself into.
#[derive(Debug)]
pub struct Entrance(Vec<(fs::File, PathBuf)>);

impl Entrance {
    /// Moves the calling process, which must have one thread only. A thread that moves itself
    /// can neither end nor multiply meanwhile, so that nobody has to be stopped for it.
    pub fn enter(self) -> io::Result<()> {
        for (mut file, path) in self.0 {
            let entered = io::Write::write_all(&mut file, b"0");
            entered.map_err(|error| explain(error, "write to", &path))?;
        }
        Ok(())
    }
}

/// One path in every hierarchy.
#[derive(Clone, Debug)]
pub struct Cgroup {
    hierarchies: Hierarchies,
    path: String,
}

impl Cgroup {
    /// Creates it and its parents, ready to be limited and joined. Several may create groups
    /// below the same parent, and others remove an empty parent, at the same time.
    pub fn create(&self) -> io::Result<()> {
        for hierarchy in &self.hierarchies.0 {
            let mut tries = 0;
            while let Err(error) = self.create_in(hierarchy) {
                tries += 1;
                if !is_gone(&error) || tries == CREATE_TRIES {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn create_in(&self, hierarchy: &Hierarchy) -> io::Result<()> {
        let mut folder = hierarchy.folder.clone();
        if !hierarchy.unified {
            let has_cpuset = hierarchy.controllers.iter().any(|name| name == "cpuset");
            return create_below(&folder, &folder.join(&self.path), has_cpuset);
        }
        // Beside version 1 its groups hold processes at every level, and a group that hands
        // a controller down, such as one that version 1 has not taken, lets none in.
        if !self.is_pure_unified() || available(&folder).trim().is_empty() {
            return create_below(&folder, &folder.join(&self.path), false);
        }
        for part in self.path.split('/') {
            enable_controllers(&folder);
            folder.push(part);
            create_folder(&folder)?;
        }
        Ok(())
    }

    /// Whether it exists in any hierarchy.
    pub fn exists(&self) -> bool {
        self.folders().any(|(_, folder)| folder.exists())
    }

    /// Its folders that are not there, of controllers that limit.
    pub fn missing(&self) -> Vec<PathBuf> {
        const LIMITING: [&str; 6] = ["cpu", "cpuacct", "cpuset", "memory", "pids", "hugetlb"];
        let alone = self.is_pure_unified();
        let limits = |hierarchy: &Hierarchy| match hierarchy.unified {
            true => alone,
            false => {
                let mut own = hierarchy.controllers.iter();
                own.any(|name| LIMITING.contains(&name.as_str()))
            }
        };
        let all = self.folders().filter(|(hierarchy, _)| limits(hierarchy));
        all.map(|(_, folder)| folder)
            .filter(|folder| !folder.exists())
            .collect()
    }

    /// The version 2 folder to start a process in, if there is one.
    pub fn unified_handle(&self) -> io::Result<Option<OwnedFd>> {
        let Some((_, folder)) = self.folders().find(|(h, _)| h.unified) else {
            return Ok(None);
        };
        Ok(Some(fs::File::open(folder)?.into()))
    }

    /// Moves a process into it. The kernel stops every fork of the machine for that, which it
    /// waits for a while: who moves itself goes by [`Cgroup::entrance`].
    pub fn join(&self, pid: Pid) -> io::Result<()> {
        for (_, folder) in self.folders() {
            write(&folder, "cgroup.procs", &pid.to_string())?;
        }
        Ok(())
    }

    /// Moves a process into its version 2 part, unless somebody has done it.
    pub fn join_unified(&self, pid: Pid) -> io::Result<()> {
        let Some(folder) = self.v2() else {
            return Ok(());
        };
        let told = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let own = told.lines().find_map(|line| line.strip_prefix("0::/"));
        match own == Some(&self.path) {
            true => Ok(()),
            false => write(&folder, "cgroup.procs", &pid.to_string()),
        }
    }

    /// Whether anything lives in it, or in a group below.
    pub fn has_processes(&self) -> bool {
        !self.processes().is_empty() || self.below().iter().any(Cgroup::has_processes)
    }

    /// The way into its version 1 parts, to be gone also where their folders are out of sight.
    pub fn entrance(&self) -> io::Result<Entrance> {
        let mut files = Vec::new();
        for (_, folder) in self.folders().filter(|(hierarchy, _)| !hierarchy.unified) {
            let path = folder.join("tasks");
            let file = fs::File::options().write(true).open(&path);
            files.push((file.map_err(|error| explain(error, "open", &path))?, path));
        }
        Ok(Entrance(files))
    }

    /// The processes in it, not counting those of groups below.
    pub fn processes(&self) -> Vec<Pid> {
        let mut pids = Vec::new();
        for (_, folder) in self.folders() {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            let parsed = text.lines().filter_map(|line| line.parse().ok());
            pids.extend(parsed.map(Pid::from_raw));
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// The processes in it and in all groups below.
    pub fn processes_below(&self) -> Vec<Pid> {
        let mut pids = self.processes();
        for group in self.below() {
            pids.append(&mut group.processes_below());
        }
        pids
    }

    /// Kills every process in it and below it.
    pub fn kill(&self) -> io::Result<()> {
        for group in self.below() {
            group.kill()?;
        }
        for (hierarchy, folder) in self.folders() {
            if hierarchy.unified && folder.join("cgroup.kill").exists() {
                write(&folder, "cgroup.kill", "1")?;
            }
        }
        // Where version 1 has stopped them they would not even die.
        if let Some(folder) = self.v1(FREEZER) {
            let thawed = write(&folder, "freezer.state", "THAWED");
            if let Err(error) = thawed
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
        }
        // Version 1 has no such file, and on both side by side a process may be in one part only.
        let mut killed = std::collections::BTreeSet::new();
        for _ in 0..KILL_ROUNDS {
            let fresh: Vec<Pid> = self
                .processes()
                .into_iter()
                .filter(|pid| pid.as_raw() > 0 && killed.insert(pid.as_raw()))
                .collect();
            if fresh.is_empty() {
                return Ok(());
            }
            for pid in fresh {
                // It may have ended by itself meanwhile.
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        Err(io::Error::other("processes keep appearing in the cgroup"))
    }

    /// Stops all its processes where they are, or lets them go on.
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        if let Some(folder) = self.v1(FREEZER) {
            let state = if frozen { "FROZEN" } else { "THAWED" };
            return write(&folder, "freezer.state", state);
        }
        match self.folders().find(|(hierarchy, _)| hierarchy.unified) {
            Some((_, folder)) => write(&folder, "cgroup.freeze", if frozen { "1" } else { "0" }),
            None => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "no freezer is mounted",
            )),
        }
    }

    /// Removes it with all groups below; what is not there is no error.
    pub fn remove(&self) -> io::Result<()> {
        for (_, folder) in self.folders() {
            remove_tree(&folder)?;
        }
        Ok(())
    }

    /// Removes it with all groups below if nothing lives in them; false where something does. Far
    /// cheaper than killing who is not there.
    pub fn dissolve(&self) -> io::Result<bool> {
        for (_, folder) in self.folders() {
            if !dissolve_tree(&folder).map_err(|error| explain(error, "remove", &folder))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes it only where it is empty.
    pub fn remove_if_empty(&self) {
        for (_, folder) in self.folders() {
            // Busy means in use by somebody else, which is what we ask.
            let _ = fs::remove_dir(folder);
        }
    }

    /// Where each controller's files of this group are, for mounting: name and folder.
    pub fn mounts(&self) -> Vec<(String, PathBuf)> {
        let name = |h: &Hierarchy| {
            if h.unified {
                return String::new();
            }
            h.folder
                .file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
        };
        self.folders()
            .map(|(hierarchy, folder)| (name(hierarchy), folder))
            .collect()
    }

    /// Whether version 2 manages resources here, not only stands by.
    pub fn is_pure_unified(&self) -> bool {
        self.hierarchies.0.iter().all(|h| h.unified)
    }

    fn below(&self) -> Vec<Cgroup> {
        let mut names = std::collections::BTreeSet::new();
        for (_, folder) in self.folders() {
            let Ok(entries) = fs::read_dir(folder) else {
                continue;
            };
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    names.insert(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        let child = |name| Cgroup {
            hierarchies: self.hierarchies.clone(),
            path: format!("{}/{name}", self.path),
        };
        names.into_iter().map(child).collect()
    }

    fn folders(&self) -> impl Iterator<Item = (&Hierarchy, PathBuf)> {
        let join = |hierarchy| (hierarchy, Hierarchy::folder(hierarchy).join(&self.path));
        self.hierarchies.0.iter().map(join)
    }

    /// The folder of a version 1 controller.
    fn v1(&self, controller: &str) -> Option<PathBuf> {
        let has = |h: &Hierarchy| h.controllers.iter().any(|name| name == controller);
        let hierarchy = self.hierarchies.0.iter().find(|h| has(h))?;
        Some(hierarchy.folder.join(&self.path))
    }

    /// The version 2 folder.
    fn v2(&self) -> Option<PathBuf> {
        let (_, folder) = self.folders().find(|(h, _)| h.unified)?;
        Some(folder)
    }
}

impl Hierarchy {
    fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Whether a controller matters to us. Version 2 stops processes by itself.
fn is_wanted(table: &str, option: &str) -> bool {
    WANTED.contains(&option) || (option == FREEZER && !table.contains(" - cgroup2 "))
}

/// The controllers that a version 2 group has.
fn available(folder: &Path) -> String {
    fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default()
}

/// Hands down what the parent has; a controller that cannot be enabled shows when a limit is set.
fn enable_controllers(folder: &Path) {
    let available = available(folder);
    let enabled = fs::read_to_string(folder.join("cgroup.subtree_control")).unwrap_or_default();
    let enabled: Vec<&str> = enabled.split_whitespace().collect();
    for name in available.split_whitespace() {
        if WANTED.contains(&name) && !enabled.contains(&name) {
            let file = folder.join("cgroup.subtree_control");
            if let Err(error) = fs::write(&file, format!("+{name}")) {
                tracing::debug!(%error, name, folder = %folder.display(), "controller not enabled");
            }
        }
    }
}

/// Makes a group that gets nothing but a cpuset from its parents; they are looked at only where they are missing, for each look at a
/// hierarchy costs.
fn create_below(top: &Path, folder: &Path, has_cpuset: bool) -> io::Result<()> {
    let made = create_folder(folder);
    match (&made, folder.parent()) {
        (Err(error), Some(parent)) if is_gone(error) && folder != top => {
            create_below(top, parent, has_cpuset)?;
            create_folder(folder)?;
        }
        _ => made?,
    }
    match has_cpuset {
        // Also where it exists: whoever made it may not have come to this yet.
        true => inherit_cpuset(top, folder),
        false => Ok(()),
    }
}

/// Makes a folder unless it is there.
fn create_folder(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(explain(error, "create", folder))
        }
        _ => Ok(()),
    }
}

/// A new version 1 cpuset is empty and takes no process until it names processors and memory.
fn inherit_cpuset(top: &Path, folder: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        cpuset(top, folder, file)?;
    }
    Ok(())
}

/// What a group says in `file`, after it took it from above where it said nothing.
fn cpuset(top: &Path, folder: &Path, file: &str) -> io::Result<String> {
    let path = folder.join(file);
    let own = fs::read_to_string(&path).map_err(|error| explain(error, "read", &path))?;
    let Some(parent) = folder.parent().filter(|_| folder != top) else {
        return Ok(own);
    };
    if !own.trim().is_empty() {
        return Ok(own);
    }
    let inherited = cpuset(top, parent, file)?;
    write(folder, file, inherited.trim())?;
    Ok(inherited)
}

/// Removes a folder of groups, its leaves first; false when it is in use.
fn dissolve_tree(folder: &Path) -> io::Result<bool> {
    let removed = |result: io::Result<()>| match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
        Err(error) => Err(error),
    };
    if removed(fs::remove_dir(folder))? {
        return Ok(true);
    }
    let mut leaf = true;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            leaf = false;
            if !dissolve_tree(&entry.path())? {
                return Ok(false);
            }
        }
    }
    match leaf {
        true => Ok(false),
        false => removed(fs::remove_dir(folder)),
    }
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    for _ in 0..BUSY_RETRIES {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::sleep(BUSY_PAUSE);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other.map_err(|error| explain(error, "remove", folder)),
        }
    }
    Err(explain(
        io::ErrorKind::ResourceBusy.into(),
        "remove",
        folder,
    ))
}

fn write(folder: &Path, file: &str, value: &str) -> io::Result<()> {
    let path = folder.join(file);
    fs::write(&path, value).map_err(|error| explain(error, &format!("write {value:?} to"), &path))
}

/// Whether it says that a group is not there, or went while one of its files was open.
fn is_gone(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|told| told.downcast_ref::<Told>());
    let code = inner.map_or(error.raw_os_error(), |told| told.error.raw_os_error());
    code == Some(libc::ENODEV) || error.kind() == io::ErrorKind::NotFound
}

/// A failure with what was tried.
#[derive(Debug)]
struct Told {
    what: String,
    error: io::Error,
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.error)
    }
}

impl std::error::Error for Told {}

fn explain(error: io::Error, what: &str, path: &Path) -> io::Error {
    let what = format!("{what} {}", path.display());
    io::Error::new(error.kind(), Told { what, error })
}

#[cfg(test)]
mod tests;
