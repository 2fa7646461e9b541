//! What the engine asks of a supervisor, as files in the state folder. The
//! engine writes what shall be, the supervisor writes what is, so either can
//! die and read on.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use linux::capability::Capabilities;
use linux::cgroup::{DeviceRule, Limits};
use node_api::{
    ContainerState, ContainerUser, Device, IdMapping, Mount, MountPropagation, SeccompProfile,
    UserNamespace,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// File names in the folder of a sandbox.
pub(crate) mod file {
    pub(crate) const SANDBOX: &str = "sandbox.json";
    pub(crate) const SPEC: &str = "spec.json";
    pub(crate) const NETWORK: &str = "network.json";
    pub(crate) const STOPPED: &str = "stopped";
    pub(crate) const SOCKET: &str = "sock";
    pub(crate) const PID: &str = "pid";
    pub(crate) const LOG: &str = "supervisor.log";
    pub(crate) const SHM: &str = "shm";
    pub(crate) const HOSTNAME: &str = "hostname";
    pub(crate) const RESOLV: &str = "resolv.conf";
    pub(crate) const HOSTS: &str = "hosts";
    pub(crate) const CONTAINERS: &str = "containers";
    /// In the folder of a container.
    pub(crate) const CONTAINER: &str = "container.json";
    pub(crate) const STATUS: &str = "status.json";
    /// What hooks read of a container that has some.
    pub(crate) const BUNDLE: &str = "config.json";
}

/// A sandbox, for its supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxSpec {
    pub(crate) id: String,
    /// `None` keeps the node's.
    pub(crate) hostname: Option<String>,
    pub(crate) own_network: bool,
    pub(crate) own_ipc: bool,
    /// One process id namespace for all containers.
    pub(crate) shared_pids: bool,
    pub(crate) sysctls: BTreeMap<String, String>,
    /// The supervisor's own cgroup.
    pub(crate) cgroup: String,
    /// A user namespace for the pod, which owns its other namespaces.
    #[serde(default)]
    pub(crate) user: Option<UserNamespace>,
    /// Files of other pods' namespaces, to be joined instead of having its own.
    #[serde(default)]
    pub(crate) network_of: Option<PathBuf>,
    #[serde(default)]
    pub(crate) ipc_of: Option<PathBuf>,
    /// The file of another's user namespace, of the same ids, to be in that one.
    #[serde(default)]
    pub(crate) user_of: Option<PathBuf>,
}

/// Whose process ids a container sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PidScope {
    Own,
    Pod,
    Node,
    /// Those of this container.
    Container(String),
    /// Those of this process of the node.
    Process(i32),
}

/// Who a process runs as; names are looked up inside the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UserSpec {
    pub(crate) uid: Option<i64>,
    pub(crate) gid: Option<i64>,
    /// `user` or `user:group`, by name or number; used where `uid` is absent.
    pub(crate) name: String,
    pub(crate) supplemental: Vec<i64>,
    /// More of them, by name or number.
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    pub(crate) strict: bool,
}

/// An image that is mounted as a volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ImageVolume {
    pub(crate) container_path: PathBuf,
    /// Folder names below `layers_folder`, topmost first.
    pub(crate) layers: Vec<String>,
    /// A folder or file of the image; empty is all of it.
    pub(crate) sub_path: PathBuf,
    pub(crate) propagation: MountPropagation,
}

/// How large a log grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRotation {
    /// After which another file is begun.
    pub bytes: u64,
    /// With the one that is written; older ones are the same path with `.1`, `.2` and so on.
    pub files: u32,
}

/// How ids on disk are shown where a user namespace has the ranges of `mappings`, so that its
/// processes see and store theirs as they are inside: what is on disk, what it is on the node, how
/// many. Every id has its place, for the node's root, who has none inside, makes files there, too.
pub(crate) fn stored(mappings: &[IdMapping]) -> Vec<(u32, u32, u32)> {
    let mut ranges: Vec<_> = mappings
        .iter()
        .map(|one| (one.container_id, one.host_id, one.length))
        .collect();
    let mut outside: Vec<_> = mappings
        .iter()
        .map(|one| (one.host_id, one.length))
        .collect();
    outside.sort_unstable();
    // Those behind the last one inside share what is left of the node's.
    let mut next = mappings.iter().map(|one| one.length).sum();
    let mut begin = 0;
    for (start, length) in outside.into_iter().chain([(u32::MAX, 0)]) {
        let gap = start - begin;
        if gap > 0 {
            ranges.push((next, begin, gap));
        }
        (next, begin) = (next + gap, start + length);
    }
    ranges
}

/// A container, ready to be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerSpec {
    pub(crate) id: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) user: UserSpec,
    /// Folder names below `layers_folder`, topmost first.
    pub(crate) layers: Vec<String>,
    pub(crate) layers_folder: PathBuf,
    /// A folder of mount points below all layers, so that none has to be made in `writable`.
    #[serde(default)]
    pub(crate) skeleton: Option<String>,
    /// Holds `upper` and `work` of the overlay.
    pub(crate) writable: PathBuf,
    pub(crate) readonly_rootfs: bool,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) devices: Vec<Device>,
    pub(crate) masked_paths: Vec<String>,
    pub(crate) readonly_paths: Vec<String>,
    pub(crate) cgroup: String,
    /// It is there, and lets in what every container may use.
    #[serde(default)]
    pub(crate) has_cgroup: bool,
    pub(crate) limits: Limits,
    pub(crate) oom_score_adj: i64,
    pub(crate) capabilities: Capabilities,
    pub(crate) privileged: bool,
    pub(crate) no_new_privs: bool,
    pub(crate) seccomp: SeccompProfile,
    pub(crate) pids: PidScope,
    pub(crate) tty: bool,
    pub(crate) stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) log_path: Option<PathBuf>,
    #[serde(default)]
    pub(crate) log_rotation: Option<LogRotation>,
    /// The pod's.
    #[serde(default)]
    pub(crate) user_namespace: Option<UserNamespace>,
    #[serde(default)]
    pub(crate) images: Vec<ImageVolume>,
    #[serde(default)]
    pub(crate) ambient: Capabilities,
    #[serde(default)]
    pub(crate) tmpfs: Vec<Tmpfs>,
    #[serde(default)]
    pub(crate) rlimits: Vec<Rlimit>,
    /// Whose shared memory it has, instead of the pod's: a process of the node.
    #[serde(default)]
    pub(crate) shm_of: Option<i32>,
    #[serde(default)]
    pub(crate) device_rules: Vec<DeviceRule>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) device_nodes: Vec<DeviceNode>,
    #[serde(default)]
    pub(crate) writable_cgroups: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hooks: Option<Box<crate::hooks::Plan>>,
    /// A time namespace of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) time: Option<crate::time::Offsets>,
}

/// A file system in memory for one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    pub container_path: PathBuf,
    /// Such as `64m`; empty is the kernel's default.
    pub size: String,
    /// Octal; empty is 1777.
    pub mode: String,
    pub readonly: bool,
    /// Whether programs on it may run.
    pub exec: bool,
}

/// A limit of a container's first process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Such as `nofile`.
    pub name: String,
    pub soft: u64,
    pub hard: u64,
}

/// A device by its numbers, whether or not the node has a file of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// In the container.
    pub path: PathBuf,
    /// `c` or `b`.
    pub kind: char,
    pub major: u64,
    pub minor: u64,
    /// What of it its owner, its group and others may do.
    pub mode: u32,
    /// Owners as the container sees them.
    pub uid: u32,
    pub gid: u32,
}

impl DeviceNode {
    /// What a device of the node is in a container; `None` where it is not there.
    pub(crate) fn of(device: &Device) -> Option<DeviceNode> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let found = std::fs::metadata(&device.host_path).ok()?;
        let kind = match found.file_type().is_block_device() {
            true => 'b',
            false => 'c',
        };
        Some(DeviceNode {
            path: device.container_path.clone(),
            kind,
            major: nix::sys::stat::major(found.rdev()),
            minor: nix::sys::stat::minor(found.rdev()),
            mode: found.mode() & 0o777,
            uid: found.uid(),
            gid: found.gid(),
        })
    }
}

impl ContainerSpec {
    /// Who root inside is on the node, where that is another.
    pub(crate) fn root_on_node(&self) -> Option<(u32, u32)> {
        self.user_namespace.as_ref()?.on_node((0, 0))
    }
}

/// One more process in a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ExecSpec {
    pub(crate) id: String,
    pub(crate) container: String,
    pub(crate) args: Vec<String>,
    pub(crate) tty: bool,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    #[serde(default)]
    pub(crate) options: ExecOptions,
}

/// What an exec may have otherwise than its container's first process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOptions {
    /// `NAME=value`, beyond the container's.
    pub env: Vec<String>,
    /// Empty is the container's.
    pub working_dir: String,
    /// `user` or `user:group`, by name or number; empty is the container's.
    pub user: String,
    pub privileged: bool,
}

impl ExecOptions {
    /// The container's spec, as the exec sees it.
    pub(crate) fn apply(&self, spec: &mut ContainerSpec) {
        for pair in &self.env {
            let name = pair.split('=').next().unwrap_or_default();
            let start = format!("{name}=");
            spec.env.retain(|known| !known.starts_with(&start));
            if pair.contains('=') {
                spec.env.push(pair.clone());
            }
        }
        if !self.working_dir.is_empty() {
            spec.cwd = self.working_dir.clone();
        }
        if !self.user.is_empty() {
            spec.user = UserSpec {
                name: self.user.clone(),
                ..UserSpec::default()
            };
            spec.env.retain(|known| !known.starts_with("HOME="));
        }
        if self.privileged {
            spec.privileged = true;
            spec.capabilities = Capabilities::ALL;
            spec.seccomp = SeccompProfile::Unconfined;
        }
    }
}

/// What became of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) state: ContainerState,
    pub(crate) pid: i32,
    /// Nanoseconds since the epoch.
    pub(crate) started_at: i64,
    pub(crate) finished_at: i64,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Who the first process ran as at its start.
    #[serde(default)]
    pub(crate) user: Option<ContainerUser>,
}

impl Status {
    pub(crate) fn created() -> Status {
        Status {
            state: ContainerState::Created,
            pid: 0,
            started_at: 0,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            user: None,
        }
    }

    /// The same container after its end.
    pub(crate) fn exited(&self, exit_code: i32, reason: &str, message: &str) -> Status {
        Status {
            state: ContainerState::Exited,
            pid: 0,
            started_at: self.started_at,
            finished_at: now_nanos(),
            exit_code,
            reason: reason.to_owned(),
            message: message.to_owned(),
            user: self.user.clone(),
        }
    }
}

/// Replaces a file whole. It survives the death of any process; it need not survive the
/// machine's, for neither does what it describes.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, bytes)?;
    std::fs::rename(&temporary, path)
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

pub(crate) fn now_nanos() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mappings(ranges: &[(u32, u32, u32)]) -> Vec<IdMapping> {
        let mapping = |&(container_id, host_id, length): &(u32, u32, u32)| IdMapping {
            host_id,
            container_id,
            length,
        };
        ranges.iter().map(mapping).collect()
    }

    #[test]
    fn every_stored_id_has_one_place_on_the_node() {
        for (inside, expect) in [
            (
                vec![(0, 100_000, 65_536)],
                vec![
                    (0, 100_000, 65_536),
                    (65_536, 0, 100_000),
                    (165_536, 165_536, u32::MAX - 165_536),
                ],
            ),
            // Ids that are among those on disk, and two ranges out of order.
            (
                vec![(0, 1000, 10), (10, 5, 10)],
                vec![
                    (0, 1000, 10),
                    (10, 5, 10),
                    (20, 0, 5),
                    (25, 15, 985),
                    (1010, 1010, u32::MAX - 1010),
                ],
            ),
            (vec![(0, 0, 7)], vec![(0, 0, 7), (7, 7, u32::MAX - 7)]),
        ] {
            let found = stored(&mappings(&inside));
            assert_eq!(found, expect);
            for side in [0, 1] {
                let mut all: Vec<_> = found
                    .iter()
                    .map(|one| ([one.0, one.1][side], one.2))
                    .collect();
                all.sort_unstable();
                let end = all.iter().fold(0, |end, (start, length)| {
                    assert_eq!(end, *start);
                    start + length
                });
                assert_eq!(end, u32::MAX);
            }
        }
    }
}
