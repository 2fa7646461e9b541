//! A machine that a real systemd runs, as far as a test needs one: it is the first process of new
//! namespaces, with its own part of the cgroups, and runs one command of ours. Nothing of the
//! machine outside is seen or changed; all of it ends with [`Machine::run`].

use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const SYSTEMD: &str = "/lib/systemd/systemd";
/// Nothing in it takes as long.
const DEADLINE_MS: u16 = 60_000;

/// How the cgroups of the machine are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Controllers of version 1, and systemd's own tree in version 2.
    Hybrid,
    /// Version 2 alone; without the controllers that version 1 has outside.
    Unified,
}

/// Why this host has no such machine; `None` where it has.
pub(crate) fn missing() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root");
    }
    if !Path::new(SYSTEMD).exists() {
        return Some("systemd is not installed");
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    if !mounts.contains("name=systemd") || !mounts.contains(" - cgroup2 ") {
        return Some("no hybrid cgroup layout to make parts of");
    }
    None
}

/// A machine that is not started yet.
pub(crate) struct Machine {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) layout: Layout,
    /// More units: file names and texts.
    pub(crate) units: Vec<(String, String)>,
    /// A command of the shell, before systemd starts.
    pub(crate) before: String,
}

/// What its command said, and how it ended.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) output: String,
}

impl Machine {
    pub(crate) fn new(layout: Layout) -> Machine {
        Machine {
            folder: tempfile::tempdir().unwrap(),
            layout,
            units: Vec::new(),
            before: String::new(),
        }
    }

    /// Starts it, runs a shell's script in a service, and ends it.
    pub(crate) fn run(self, script: &str) -> Said {
        let folder = self.folder.path();
        let path = |name: &str| folder.join(name);
        std::fs::write(path("script"), script).unwrap();
        std::fs::write(path("start"), self.start_script()).unwrap();
        nix::unistd::mkfifo(&path("done"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let done = std::fs::File::options()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_CLOEXEC)
            .open(path("done"))
            .unwrap();
        let groups = Groups::make();
        let log = std::fs::File::create(path("log")).unwrap();
        let machine = Command::new("sh")
            .args(["-c", &groups.entering("exec unshare --pid --fork --kill-child --mount --cgroup --net --uts --ipc --propagation private sh \"$0\""), path("start").to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let machine = Running(machine, groups);
        let mut ready = [PollFd::new(
            std::os::fd::AsFd::as_fd(&done),
            PollFlags::POLLIN,
        )];
        let ended = poll(&mut ready, PollTimeout::from(DEADLINE_MS)).unwrap() > 0;
        let mut code = [0; 8];
        let count = if ended {
            (&done).read(&mut code).unwrap()
        } else {
            0
        };
        drop(machine);
        let read = |name: &str| std::fs::read_to_string(path(name)).unwrap_or_default();
        let code = String::from_utf8_lossy(&code[..count]).trim().to_owned();
        let mut output = read("output");
        if code != "0" {
            let _ = write!(output, "\n--- systemd: {}{}", read("log"), read("console"));
        }
        Said {
            code: code.parse().unwrap_or(-1),
            output,
        }
    }

    fn start_script(&self) -> String {
        let folder = self.folder.path().display();
        let groups = match self.layout {
            Layout::Unified => {
                "umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup".to_owned()
            }
            Layout::Hybrid => {
                let mut text =
                    "umount -R /sys/fs/cgroup; mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup\n"
                        .to_owned();
                for (name, option) in version_1() {
                    let place = format!("/sys/fs/cgroup/{name}");
                    let _ = writeln!(
                        text,
                        "mkdir {place}; mount -t cgroup -o {option} cgroup {place}"
                    );
                }
                text + "mkdir /sys/fs/cgroup/unified; mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"
            }
        };
        let mut units = String::new();
        let own = [
            (
                "default.target",
                "[Unit]\nWants=script.service\n".to_owned(),
            ),
            (
                "script.service",
                format!(
                    "[Unit]\nDefaultDependencies=no\n[Service]\n\
                     Environment=HOME=/root MACHINE={folder}\nExecStart=/bin/sh -c \
                     'sh {folder}/script >{folder}/output 2>&1; echo $? >{folder}/done'\n"
                ),
            ),
        ];
        let own = own.map(|(name, text)| (name.to_owned(), text));
        for (name, text) in own.iter().chain(&self.units) {
            let _ = writeln!(units, "cat >/run/units/{name} <<'UNIT'\n{text}UNIT");
        }
        format!(
            "set -e
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
{groups}
mkdir /run/units
{units}
echo 3d1219c7c4c5404aaa1f6d2a48adfda5 >/run/machine-id
[ ! -e /etc/machine-id ] || mount --bind /run/machine-id /etc/machine-id
[ ! -e /dev/console ] || {{ : >{folder}/console; mount --bind {folder}/console /dev/console; }}
ip link set lo up
{}
exec env -i PATH=\"$PATH\" container=sampan-test \
SYSTEMD_UNIT_PATH=/run/units:/run/systemd/transient:/run/systemd/system.control \
SYSTEMD_GENERATOR_PATH=/run/none SYSTEMD_LOG_TARGET=console \
{SYSTEMD} --system --unit=default.target --show-status=no
",
            self.before
        )
    }
}

/// Folders' names and options of what version 1 has mounted.
fn version_1() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in table.lines() {
        let (left, right) = line.split_once(" - ").unwrap();
        let place = Path::new(left.split(' ').nth(4).unwrap());
        let Some(options) = right.strip_prefix("cgroup ") else {
            continue;
        };
        let options = options.split(' ').nth(1).unwrap().split(',');
        let options: Vec<&str> = options
            .filter(|option| !matches!(*option, "rw" | "ro" | "xattr"))
            .filter(|option| !option.starts_with("release_agent"))
            .collect();
        let mut option = options.join(",");
        if option.starts_with("name=") {
            option = format!("none,{option}");
        }
        let name = place.file_name().unwrap().to_string_lossy().into_owned();
        if place.starts_with("/sys/fs/cgroup") && !found.iter().any(|(known, _)| *known == name) {
            found.push((name, option));
        }
    }
    found
}

/// The machine's part of each hierarchy.
struct Groups(Vec<PathBuf>);

impl Groups {
    fn make() -> Groups {
        let name = format!("sampan-systemd-test-{}", std::process::id());
        let unique = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap()
            .subsec_nanos();
        let mut made = Vec::new();
        for entry in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
            let top = entry.unwrap().path();
            if !top.join("cgroup.procs").exists() || top.is_symlink() {
                continue;
            }
            let group = top.join(format!("{name}-{unique}"));
            std::fs::create_dir(&group).unwrap();
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(text) = std::fs::read_to_string(top.join(file)) {
                    std::fs::write(group.join(file), text).unwrap();
                }
            }
            made.push(group);
        }
        Groups(made)
    }

    /// A script that enters them all and goes on.
    fn entering(&self, then: &str) -> String {
        let mut script = "set -e\n".to_owned();
        for group in &self.0 {
            let _ = writeln!(script, "echo $$ >{}/cgroup.procs", group.display());
        }
        script + then
    }
}

/// Ends with it: every process of the machine, and its cgroups.
struct Running(Child, Groups);

impl Drop for Running {
    fn drop(&mut self) {
        // The first process dies with `unshare`, and the kernel kills all others before it is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
        for group in &self.1.0 {
            remove(group);
        }
    }
}

fn remove(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    // Dead processes leave a moment after they die.
    for _ in 0..400 {
        match std::fs::remove_dir(folder) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            _ => return,
        }
    }
}
