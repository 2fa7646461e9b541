//! From CRI's words to a supervisor's: what the image says, what the pod
//! says, and which of both counts. Pure, but for reading the node's resolv.conf.

use std::path::PathBuf;

use linux::capability::Capabilities;
use linux::cgroup::Limits;
use node_api::{
    ContainerConfig, LinuxResources, Mount, MountPropagation, NamespaceMode, PodSandboxConfig,
    RuntimeError, SeccompProfile, SecurityContext,
};
use oci::ImageRecord;

use super::Pod;
use crate::spec::{ContainerSpec, ImageVolume, PidScope, UserSpec, file};

/// Hidden from unprivileged containers: what tells about or steers the node itself.
const DEFAULT_STOP_SIGNAL: i32 = 15;

/// The kernel takes one more, DNS does not.
const HOSTNAME_MAX: usize = 63;

/// What was wished for, or as much of the pod's name as makes a host name.
pub(super) fn hostname(config: &PodSandboxConfig) -> String {
    if !config.hostname.is_empty() {
        return config.hostname.clone();
    }
    let name: String = config.name.chars().take(HOSTNAME_MAX).collect();
    name.trim_end_matches(['-', '.']).to_owned()
}

pub(super) fn limits(resources: &LinuxResources) -> Limits {
    Limits {
        cpu_period: resources.cpu_period,
        cpu_quota: resources.cpu_quota,
        cpu_shares: resources.cpu_shares,
        memory_bytes: resources.memory_limit_bytes,
        swap_bytes: resources.memory_swap_limit_bytes,
        memory_low_bytes: resources.memory_reservation_bytes,
        pids: resources.pids_limit,
        cpus: resources.cpuset_cpus.clone(),
        memory_nodes: resources.cpuset_mems.clone(),
        huge_pages: resources.hugepage_limits.clone(),
        unified: resources.unified.clone(),
        die_together: false,
        oom_kill_disable: false,
        rare: Default::default(),
    }
}

/// The limits of a container, whose processes are one program.
pub(super) fn container_limits(resources: &LinuxResources) -> Limits {
    Limits {
        die_together: true,
        ..limits(resources)
    }
}

/// The pod's resolv.conf; without wishes the node's own.
pub(super) fn resolv_conf(config: &PodSandboxConfig) -> String {
    let Some(dns) = &config.dns else {
        return std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    };
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

/// The hosts file of containers that bring none.
pub(super) fn hosts(config: &PodSandboxConfig, ips: &[std::net::IpAddr]) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
    for ip in ips {
        text.push_str(&format!("{ip} {}\n", hostname(config)));
    }
    text
}

/// The signal that asks a container to end.
pub(super) fn stop_signal(
    config: &ContainerConfig,
    image: &ImageRecord,
) -> Result<i32, RuntimeError> {
    let wish = config
        .stop_signal
        .as_deref()
        .unwrap_or(&image.config.config.stop_signal);
    if wish.is_empty() {
        return Ok(DEFAULT_STOP_SIGNAL);
    }
    linux::process::signal_number(wish)
        .ok_or_else(|| RuntimeError::InvalidArgument(format!("unknown stop signal {wish:?}")))
}

/// Everything a supervisor needs to start the container.
pub(super) fn container(
    id: &str,
    config: &ContainerConfig,
    pod: &Pod,
    image: &ImageRecord,
    places: Places,
) -> Result<ContainerSpec, RuntimeError> {
    let security = &config.security;
    let run = &image.config.config;
    let (capabilities, ambient) = capabilities(security)?;
    let working_dir = if config.working_dir.is_empty() {
        &run.working_dir
    } else {
        &config.working_dir
    };
    let folder = &pod.folder;
    let (masked, read_only) = covered(security);
    Ok(ContainerSpec {
        id: id.to_owned(),
        args: args(config, run)?,
        env: environment(config, run, pod),
        cwd: working_dir.clone(),
        user: user(security, &run.user),
        layers: image
            .layers
            .iter()
            .rev()
            .map(|layer| layer.diff_id.hex().to_owned())
            .collect(),
        layers_folder: places.layers,
        skeleton: places.skeleton,
        writable: places.writable,
        readonly_rootfs: security.readonly_rootfs,
        mounts: mounts(config, folder),
        images: places.images,
        ambient,
        tmpfs: Vec::new(),
        rlimits: Vec::new(),
        shm_of: None,
        device_rules: Vec::new(),
        device_nodes: Vec::new(),
        user_namespace: pod.record.config.namespaces.user.clone(),
        devices: config.devices.clone(),
        masked_paths: masked,
        readonly_paths: read_only,
        cgroup: crate::units::container(&pod.record.cgroup, id),
        has_cgroup: false,
        limits: container_limits(&config.resources),
        oom_score_adj: config.resources.oom_score_adj,
        capabilities,
        privileged: security.privileged,
        no_new_privs: security.no_new_privs,
        seccomp: seccomp(security)?,
        pids: match &security.namespaces.pid {
            NamespaceMode::Container => PidScope::Own,
            NamespaceMode::Pod => PidScope::Pod,
            NamespaceMode::Node => PidScope::Node,
            NamespaceMode::Target(target) => PidScope::Container(target.clone()),
        },
        tty: config.tty,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        log_path: places.log,
        log_rotation: None,
        writable_cgroups: false,
        hooks: None,
        time: crate::time::wished(&config.annotations, &pod.record.config.annotations)
            .map_err(RuntimeError::InvalidArgument)?,
    })
}

/// Folders and files of one container.
pub(super) struct Places {
    pub(super) layers: PathBuf,
    pub(super) skeleton: Option<String>,
    pub(super) writable: PathBuf,
    pub(super) log: Option<PathBuf>,
    pub(super) images: Vec<ImageVolume>,
}

/// All it may have, and what of that is ambient.
fn capabilities(security: &SecurityContext) -> Result<(Capabilities, Capabilities), RuntimeError> {
    let mut ambient = Capabilities::default();
    for name in &security.ambient_capabilities {
        ambient = ambient
            .with(name)
            .ok_or_else(|| RuntimeError::InvalidArgument(format!("unknown capability {name:?}")))?;
    }
    let all = if security.privileged {
        Capabilities::ALL
    } else {
        Capabilities::for_container(&security.add_capabilities, &security.drop_capabilities)
            .map_err(RuntimeError::InvalidArgument)?
    };
    Ok((Capabilities(all.0 | ambient.0), ambient))
}

/// What no container can be made of, told before anything is.
pub(super) fn check_container(
    config: &ContainerConfig,
    pod: &PodSandboxConfig,
) -> Result<(), RuntimeError> {
    let refuse = |message: String| Err(RuntimeError::InvalidArgument(message));
    for mount in &config.mounts {
        let path = mount.container_path.display();
        if mount.recursive_read_only {
            if !mount.readonly {
                return refuse(format!("mount {path}: recursive read-only needs read-only"));
            }
            if mount.propagation != MountPropagation::Private {
                return refuse(format!(
                    "mount {path}: recursive read-only needs private propagation"
                ));
            }
        }
        if mount.image.is_some() && !mount.readonly {
            return refuse(format!(
                "mount {path}: an image can be mounted read-only only"
            ));
        }
        if mount.mapped && pod.namespaces.user.is_none() {
            return refuse(format!("mount {path}: the pod has no user namespace"));
        }
    }
    let user = &config.security.namespaces.user;
    if user.is_some() && *user != pod.namespaces.user {
        return refuse("the container's user namespace is not its pod's".to_owned());
    }
    Ok(())
}

/// Handlers a sandbox may ask for; both are the engine.
pub(super) const HANDLERS: [&str; 2] = ["", "sampan"];

/// What no sandbox can be made of.
pub(super) fn check_sandbox(config: &PodSandboxConfig) -> Result<(), RuntimeError> {
    let handler = &config.runtime_handler;
    if !HANDLERS.contains(&handler.as_str()) {
        let message = format!("no runtime for {handler:?} is configured");
        return Err(RuntimeError::InvalidArgument(message));
    }
    let Some(user) = &config.namespaces.user else {
        return Ok(());
    };
    user.check().map_err(RuntimeError::InvalidArgument)?;
    if config.namespaces.pid == NamespaceMode::Node || config.namespaces.ipc == NamespaceMode::Node
    {
        return Err(RuntimeError::InvalidArgument(
            "user namespace: not together with the node's processes or IPC".to_owned(),
        ));
    }
    Ok(())
}

/// `command` replaces both halves of the image, `args` its second half only.
fn args(config: &ContainerConfig, run: &oci::RunConfig) -> Result<Vec<String>, RuntimeError> {
    let (first, second) = if !config.command.is_empty() {
        (&config.command, &config.args)
    } else if !config.args.is_empty() {
        (&run.entrypoint, &config.args)
    } else {
        (&run.entrypoint, &run.cmd)
    };
    let args: Vec<String> = first.iter().chain(second).cloned().collect();
    if args.is_empty() {
        return Err(RuntimeError::InvalidArgument(
            "no command specified".to_owned(),
        ));
    }
    Ok(args)
}

/// The image's, then the pod's; the later wins.
fn environment(config: &ContainerConfig, run: &oci::RunConfig, pod: &Pod) -> Vec<String> {
    let mut env: Vec<String> = run.env.clone();
    let mut set = |name: &str, value: &str| {
        let start = format!("{name}=");
        env.retain(|pair| !pair.starts_with(&start));
        env.push(start + value);
    };
    set("HOSTNAME", &hostname(&pod.record.config));
    if config.tty {
        set("TERM", "xterm");
    }
    for (name, value) in &config.envs {
        set(name, value);
    }
    env
}

fn user(security: &SecurityContext, image: &str) -> UserSpec {
    UserSpec {
        uid: security.run_as_user,
        gid: security.run_as_group,
        name: security
            .run_as_username
            .clone()
            .unwrap_or_else(|| image.to_owned()),
        supplemental: security.supplemental_groups.clone(),
        groups: Vec::new(),
        strict: security.supplemental_groups_strict,
    }
}

/// The pod's wishes, and the files every container of a pod gets.
fn mounts(config: &ContainerConfig, folder: &std::path::Path) -> Vec<Mount> {
    let mut mounts = config.mounts.clone();
    mounts.retain(|mount| mount.image.is_none());
    for (path, name) in [
        ("/etc/hostname", file::HOSTNAME),
        ("/etc/resolv.conf", file::RESOLV),
        ("/etc/hosts", file::HOSTS),
    ] {
        let taken = config
            .mounts
            .iter()
            .any(|mount| mount.container_path.as_os_str() == path);
        if taken || !folder.join(name).exists() {
            continue;
        }
        mounts.push(Mount {
            container_path: path.into(),
            host_path: folder.join(name),
            readonly: config.security.readonly_rootfs,
            ..Mount::default()
        });
    }
    mounts
}

fn covered(security: &SecurityContext) -> (Vec<String>, Vec<String>) {
    let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    if security.privileged {
        return (Vec::new(), Vec::new());
    }
    let masked = security
        .masked_paths
        .clone()
        .unwrap_or_else(|| owned(&node_api::MASKED_PATHS));
    let read_only = security
        .readonly_paths
        .clone()
        .unwrap_or_else(|| owned(&node_api::READONLY_PATHS));
    (masked, read_only)
}

/// A profile of the node travels as its text: the container's root has no such file.
fn seccomp(security: &SecurityContext) -> Result<SeccompProfile, RuntimeError> {
    if security.privileged {
        return Ok(SeccompProfile::Unconfined);
    }
    match &security.seccomp {
        SeccompProfile::Localhost(path) => {
            let fault = |error| {
                RuntimeError::InvalidArgument(format!(
                    "seccomp profile {}: {error}",
                    path.display()
                ))
            };
            Ok(SeccompProfile::Localhost(
                std::fs::read_to_string(path).map_err(fault)?.into(),
            ))
        }
        other => Ok(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_and_args_replace_what_they_should() {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let run = oci::RunConfig {
            entrypoint: words(&["/entry"]),
            cmd: words(&["default"]),
            ..Default::default()
        };
        for (command, given, expected) in [
            (&[][..], &[][..], &["/entry", "default"][..]),
            (&[], &["mine"], &["/entry", "mine"]),
            (&["/other"], &[], &["/other"]),
            (&["/other"], &["mine"], &["/other", "mine"]),
        ] {
            let config = ContainerConfig {
                command: words(command),
                args: words(given),
                ..Default::default()
            };
            assert_eq!(args(&config, &run).unwrap(), expected);
        }
        assert!(args(&ContainerConfig::default(), &oci::RunConfig::default()).is_err());
    }

    #[test]
    fn resolv_conf_in_its_usual_order() {
        let config = PodSandboxConfig {
            dns: Some(node_api::DnsConfig {
                servers: vec!["10.43.0.10".to_owned()],
                searches: vec!["a.svc".to_owned(), "svc".to_owned()],
                options: vec!["ndots:5".to_owned()],
            }),
            ..Default::default()
        };
        assert_eq!(
            resolv_conf(&config),
            "search a.svc svc\nnameserver 10.43.0.10\noptions ndots:5\n"
        );
    }
}
