//! Pods and containers in NRI's words.

use node_api::{
    ContainerState, ContainerStatus, LinuxResources, Mount, MountPropagation, NamespaceMode,
    PodSandboxStatus,
};
use runtime::{DeviceNode, Hooks, Moment, Outline};

use crate::wire::{self, OptionalInt, OptionalUInt, state};

/// A pod; `pid` is a process in its namespaces, 0 for none.
pub(crate) fn pod(status: &PodSandboxStatus, pid: i32) -> wire::PodSandbox {
    let config = &status.config;
    wire::PodSandbox {
        id: status.id.clone(),
        name: config.name.clone(),
        uid: config.uid.clone(),
        namespace: config.namespace.clone(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        runtime_handler: config.runtime_handler.clone(),
        linux: Some(wire::LinuxPodSandbox {
            pod_resources: config.resources.as_ref().map(resources),
            cgroup_parent: config.cgroup_parent.clone(),
            cgroups_path: String::new(),
            namespaces: namespaces(status, pid),
        }),
        pid: u32::try_from(pid).unwrap_or_default(),
        ips: status.ips.iter().map(ToString::to_string).collect(),
    }
}

/// Those of the pod, by their files.
fn namespaces(status: &PodSandboxStatus, pid: i32) -> Vec<wire::LinuxNamespace> {
    if pid <= 0 {
        return Vec::new();
    }
    let modes = &status.config.namespaces;
    let kinds = [
        ("network", "net", modes.network != NamespaceMode::Node),
        ("uts", "uts", modes.network != NamespaceMode::Node),
        ("ipc", "ipc", modes.ipc != NamespaceMode::Node),
        ("user", "user", modes.user.is_some()),
    ];
    let own = kinds.into_iter().filter(|(_, _, own)| *own);
    own.map(|(kind, file, _)| wire::LinuxNamespace {
        kind: kind.to_owned(),
        path: format!("/proc/{pid}/ns/{file}"),
    })
    .collect()
}

/// A container that is there.
pub(crate) fn container(status: &ContainerStatus, outline: &Outline) -> wire::Container {
    let config = &status.config;
    let user = match &status.user {
        Some(user) => self::user(user.uid, user.gid, &user.supplemental_groups),
        None => outline
            .uid
            .and_then(|uid| self::user(uid, outline.gid.unwrap_or_default(), &outline.groups)),
    };
    wire::Container {
        id: status.id.clone(),
        pod_sandbox_id: status.sandbox_id.clone(),
        name: config.name.clone(),
        state: match status.state {
            ContainerState::Created => state::CREATED,
            ContainerState::Running => state::RUNNING,
            ContainerState::Exited => state::STOPPED,
            ContainerState::Unknown => state::UNKNOWN,
        },
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        args: outline.args.clone(),
        env: outline.env.clone(),
        mounts: outline.mounts.iter().map(mount).collect(),
        hooks: Some(hooks(&outline.hooks)),
        linux: Some(wire::LinuxContainer {
            namespaces: Vec::new(),
            devices: outline.devices.iter().map(device).collect(),
            resources: Some(resources(&config.resources)),
            oom_score_adj: Some(OptionalInt {
                value: outline.oom_score_adj,
            }),
            cgroups_path: outline.cgroup.clone(),
        }),
        pid: u32::try_from(status.pid).unwrap_or_default(),
        rlimits: outline.rlimits.iter().map(rlimit).collect(),
        created_at: status.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        status_reason: status.reason.clone(),
        status_message: status.message.clone(),
        cdi_devices: (config.cdi_devices.iter())
            .map(|name| wire::CdiDevice { name: name.clone() })
            .collect(),
        user,
        image: Some(wire::Image {
            name: config.user_specified_image.clone(),
            config_digest: status.image_id.clone(),
        }),
    }
}

fn user(uid: i64, gid: i64, groups: &[i64]) -> Option<wire::User> {
    let number = |id: i64| u32::try_from(id).ok();
    Some(wire::User {
        uid: number(uid)?,
        gid: number(gid)?,
        additional_gids: groups.iter().copied().filter_map(number).collect(),
    })
}

fn mount(mount: &Mount) -> wire::Mount {
    let access = if mount.readonly { "ro" } else { "rw" };
    let propagation = match mount.propagation {
        MountPropagation::Private => "rprivate",
        MountPropagation::HostToContainer => "rslave",
        MountPropagation::Bidirectional => "rshared",
    };
    wire::Mount {
        destination: mount.container_path.display().to_string(),
        kind: "bind".to_owned(),
        source: mount.host_path.join(&mount.sub_path).display().to_string(),
        options: ["rbind", propagation, access].map(str::to_owned).into(),
    }
}

fn device(node: &DeviceNode) -> wire::LinuxDevice {
    let some = |value: u32| {
        Some(OptionalUInt {
            value: value.into(),
        })
    };
    wire::LinuxDevice {
        path: node.path.display().to_string(),
        kind: node.kind.to_string(),
        major: i64::try_from(node.major).unwrap_or_default(),
        minor: i64::try_from(node.minor).unwrap_or_default(),
        file_mode: some(node.mode),
        uid: some(node.uid),
        gid: some(node.gid),
    }
}

fn rlimit(limit: &runtime::Rlimit) -> wire::PosixRlimit {
    wire::PosixRlimit {
        kind: format!("RLIMIT_{}", limit.name.to_ascii_uppercase()),
        hard: limit.hard,
        soft: limit.soft,
    }
}

fn hooks(hooks: &Hooks) -> wire::Hooks {
    let mut told = wire::Hooks::default();
    for (moment, hook) in hooks.iter() {
        let list = match moment {
            Moment::Prestart => &mut told.prestart,
            Moment::CreateRuntime => &mut told.create_runtime,
            Moment::CreateContainer => &mut told.create_container,
            Moment::StartContainer => &mut told.start_container,
            Moment::Poststart => &mut told.poststart,
            Moment::Poststop => &mut told.poststop,
        };
        let timeout = hook.timeout.and_then(|seconds| i64::try_from(seconds).ok());
        list.push(wire::Hook {
            path: hook.path.display().to_string(),
            args: hook.args.clone(),
            env: hook.env.clone(),
            timeout: timeout.map(|value| OptionalInt { value }),
        });
    }
    told
}

/// Limits; what is 0 or empty is not set.
pub(crate) fn resources(limits: &LinuxResources) -> wire::LinuxResources {
    let signed = |value: i64| (value != 0).then_some(OptionalInt { value });
    let unsigned = |value: i64| {
        let value = u64::try_from(value).ok().filter(|value| *value != 0)?;
        Some(OptionalUInt { value })
    };
    wire::LinuxResources {
        memory: Some(wire::LinuxMemory {
            limit: signed(limits.memory_limit_bytes),
            reservation: signed(limits.memory_reservation_bytes),
            swap: signed(limits.memory_swap_limit_bytes),
            ..Default::default()
        }),
        cpu: Some(wire::LinuxCpu {
            shares: unsigned(limits.cpu_shares),
            quota: signed(limits.cpu_quota),
            period: unsigned(limits.cpu_period),
            cpus: limits.cpuset_cpus.clone(),
            mems: limits.cpuset_mems.clone(),
            ..Default::default()
        }),
        hugepage_limits: (limits.hugepage_limits.iter())
            .map(|(page_size, limit)| wire::HugepageLimit {
                page_size: page_size.clone(),
                limit: u64::try_from(*limit).unwrap_or_default(),
            })
            .collect(),
        unified: limits.unified.clone(),
        pids: (limits.pids_limit != 0).then_some(wire::LinuxPids {
            limit: limits.pids_limit,
        }),
        ..Default::default()
    }
}
