//! From docker's words to the engine's. Pure, but for looking at the machine's resolv.conf.

use std::path::{Path, PathBuf};

use node_api::{
    ContainerConfig, Device, ImageMount, LinuxResources, Mount, MountPropagation, NamespaceMode,
    NamespaceOptions, PodSandboxConfig, SeccompProfile, SecurityContext, UserNamespace,
};
use runtime::{DeviceRule, Extras, Rlimit, Tmpfs};

use crate::answer::Fault;
use crate::daemon::NAMESPACE;
use crate::record::Record;
use crate::wire::{HostConfig, Limits};

/// Files in a container's folder.
pub(crate) const LOG: &str = "container.log";
pub(crate) const WRITABLE: &str = "rw";
const SECCOMP: &str = "seccomp.json";
const PERIOD: i64 = 100_000;
const SHM: i64 = 64 << 20;

/// `80/tcp` taken apart.
pub(crate) fn port_and_protocol(text: &str) -> Result<(u16, String), Fault> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let wrong = || Fault::bad(format!("invalid port specification: {text:?}"));
    let known = ["tcp", "udp", "sctp"].contains(&protocol);
    match port.parse() {
        Ok(port) if known && port != 0 => Ok((port, protocol.to_ascii_uppercase())),
        _ => Err(wrong()),
    }
}

/// The sandbox of a container.
pub(crate) fn sandbox(
    record: &Record,
    folder: &Path,
    user: Option<UserNamespace>,
) -> Result<PodSandboxConfig, Fault> {
    let host = &record.host;
    if user.is_some() {
        refuse_mapped(record)?;
    }
    Ok(PodSandboxConfig {
        name: record.name.clone(),
        uid: record.id.clone(),
        namespace: NAMESPACE.to_owned(),
        hostname: record.config.hostname.clone(),
        log_directory: folder.to_owned(),
        cgroup_parent: host.cgroup_parent.clone(),
        namespaces: NamespaceOptions {
            network: match record.network_mode() {
                "host" => NamespaceMode::Node,
                _ => NamespaceMode::Pod,
            },
            pid: pids(host),
            ipc: match host.ipc_mode.as_str() {
                "host" => NamespaceMode::Node,
                _ => NamespaceMode::Pod,
            },
            user,
        },
        sysctls: host.sysctls.clone(),
        ..PodSandboxConfig::default()
    })
}

/// What docker does not let into a user namespace.
fn refuse_mapped(record: &Record) -> Result<(), Fault> {
    let host = &record.host;
    // Builds may have the node's network, as long as they get no rights to it.
    let on_node = record.network_mode() == "host" && record.making.is_none();
    for (wished, message) in [
        (
            host.privileged,
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode",
        ),
        (
            on_node,
            "cannot share the host's network namespace when user namespaces are enabled",
        ),
        (
            host.pid_mode == "host",
            "cannot share the host PID namespace when user namespaces are enabled",
        ),
        (
            host.ipc_mode == "host",
            "cannot share the host IPC namespace when user namespaces are enabled",
        ),
    ] {
        if wished {
            return Err(Fault::bad(message));
        }
    }
    Ok(())
}

/// With `--init` the pod's own first process reaps what the program leaves.
fn pids(host: &HostConfig) -> NamespaceMode {
    match host.pid_mode.as_str() {
        "host" => NamespaceMode::Node,
        _ if host.init == Some(true) => NamespaceMode::Pod,
        _ => NamespaceMode::Container,
    }
}

/// The container itself.
/// `etc` holds the files of `/etc` that docker looks after; `mapped` tells that it is in a user
/// namespace.
pub(crate) fn container(
    record: &Record,
    folder: &Path,
    etc: &Path,
    mapped: bool,
) -> Result<ContainerConfig, Fault> {
    let (config, host) = (&record.config, &record.host);
    let split = |pair: &String| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name.to_owned(), value.to_owned())
    };
    Ok(ContainerConfig {
        name: record.name.clone(),
        image: record.image_id.clone(),
        user_specified_image: config.image.clone(),
        command: record.args(),
        working_dir: config.working_dir.clone(),
        envs: config.env.iter().map(split).collect(),
        mounts: mounts(record, etc, mapped),
        devices: devices(host),
        cdi_devices: crate::devices::wanted(host)?,
        labels: config.labels.clone(),
        annotations: host.annotations.clone().unwrap_or_default(),
        log_path: match crate::drivers::is_none(host) {
            true => PathBuf::new(),
            false => PathBuf::from(LOG),
        },
        stdin: config.open_stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        resources: resources(&host.limits, host.oom_score_adj),
        security: security(record, folder)?,
        stop_signal: config.stop_signal.clone(),
        ..ContainerConfig::default()
    })
}

fn mounts(record: &Record, etc: &Path, mapped: bool) -> Vec<Mount> {
    let mut mounts = Vec::new();
    for point in record.mounts.iter().filter(|point| point.kind != "tmpfs") {
        mounts.push(Mount {
            container_path: PathBuf::from(&point.destination),
            host_path: PathBuf::from(&point.source),
            sub_path: PathBuf::from(&point.subpath),
            image: (point.kind == "image").then(|| ImageMount {
                image: point.source.clone(),
                user_specified_image: point.name.clone(),
                sub_path: PathBuf::from(&point.subpath),
            }),
            readonly: !point.rw,
            propagation: match point.propagation.as_str() {
                "rshared" | "shared" => MountPropagation::Bidirectional,
                "rslave" | "slave" => MountPropagation::HostToContainer,
                _ => MountPropagation::Private,
            },
            // A builder's own folders have the ids that steps see.
            mapped: mapped && record.making.is_some() && point.kind == "bind",
            ..Mount::default()
        });
    }
    for name in ["hosts", "hostname", "resolv.conf"] {
        let path = Path::new("/etc").join(name);
        if mounts.iter().all(|mount| mount.container_path != path) {
            mounts.push(Mount {
                container_path: path,
                host_path: etc.join(name),
                mapped,
                ..Mount::default()
            });
        }
    }
    mounts
}

fn devices(host: &HostConfig) -> Vec<Device> {
    let device = |wish: &crate::wire::DeviceWish| Device {
        host_path: PathBuf::from(&wish.path_on_host),
        container_path: match wish.path_in_container.as_str() {
            "" => PathBuf::from(&wish.path_on_host),
            path => PathBuf::from(path),
        },
        permissions: match wish.cgroup_permissions.as_str() {
            "" => "rwm".to_owned(),
            permissions => permissions.to_owned(),
        },
    };
    host.limits.devices.iter().flatten().map(device).collect()
}

/// Limits in the engine's words.
pub(crate) fn resources(limits: &Limits, oom_score_adj: i64) -> LinuxResources {
    let by_count = limits.nano_cpus > 0;
    LinuxResources {
        cpu_period: if by_count { PERIOD } else { limits.cpu_period },
        cpu_quota: match by_count {
            true => limits.nano_cpus / (1_000_000_000 / PERIOD),
            false => limits.cpu_quota,
        },
        cpu_shares: limits.cpu_shares,
        memory_limit_bytes: limits.memory,
        memory_reservation_bytes: limits.memory_reservation,
        memory_swap_limit_bytes: match (limits.memory, limits.memory_swap) {
            (0, _) => 0,
            // Docker gives as much swap as memory where nothing is said.
            (memory, 0) => memory.saturating_mul(2),
            (_, swap) => swap,
        },
        oom_score_adj,
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
        pids_limit: limits.pids_limit.unwrap_or(0),
        ..LinuxResources::default()
    }
}

fn security(record: &Record, folder: &Path) -> Result<SecurityContext, Fault> {
    let host = &record.host;
    let mut context = SecurityContext {
        privileged: host.privileged,
        add_capabilities: host.cap_add.clone().unwrap_or_default(),
        drop_capabilities: host.cap_drop.clone().unwrap_or_default(),
        run_as_username: Some(record.config.user.clone()),
        readonly_rootfs: host.readonly_rootfs,
        masked_paths: host.masked_paths.clone(),
        readonly_paths: host.readonly_paths.clone(),
        seccomp: SeccompProfile::RuntimeDefault,
        ..SecurityContext::default()
    };
    context.namespaces.pid = pids(host);
    for option in host.security_opt.iter().flatten() {
        let (name, value) = option
            .split_once(['=', ':'])
            .unwrap_or((option.as_str(), "true"));
        match (name, value) {
            ("no-new-privileges", value) => context.no_new_privs = value == "true",
            ("seccomp", "unconfined") => context.seccomp = SeccompProfile::Unconfined,
            ("seccomp", "builtin") => {}
            ("seccomp", profile) => {
                let path = folder.join(SECCOMP);
                std::fs::write(&path, profile)?;
                context.seccomp = SeccompProfile::Localhost(path);
            }
            // This engine loads no such profiles; without them there is nothing to switch off.
            ("apparmor", "unconfined") => {}
            // As docker where the kernel has no SELinux.
            ("label", _) => {}
            ("writable-cgroups", "true" | "false") => {}
            _ => {
                let message = format!("invalid --security-opt: {option:?} is not supported");
                return Err(Fault::bad(message));
            }
        }
    }
    Ok(context)
}

/// What the engine has beyond CRI.
pub(crate) fn extras(record: &Record, folder: &Path) -> Result<Extras, Fault> {
    let host = &record.host;
    let mut tmpfs = Vec::new();
    for point in record.mounts.iter().filter(|point| point.kind == "tmpfs") {
        tmpfs.push(memory(&point.destination, &point.mode)?);
    }
    if host.shm_size > 0 && host.shm_size != SHM {
        tmpfs.push(memory("/dev/shm", &format!("size={}", host.shm_size))?);
    }
    let limit = |wish: &crate::wire::Ulimit| Rlimit {
        name: wish.name.clone(),
        // -1 is without limit.
        soft: u64::try_from(wish.soft).unwrap_or(u64::MAX),
        hard: u64::try_from(wish.hard).unwrap_or(u64::MAX),
    };
    Ok(Extras {
        writable: Some(folder.join(WRITABLE)),
        tmpfs,
        rlimits: host.limits.ulimits.iter().flatten().map(limit).collect(),
        image: record.making.clone(),
        groups: host.group_add.clone().unwrap_or_default(),
        device_rules: device_rules(&host.limits),
        log_rotation: crate::drivers::rotation(&host.log_config)?,
        oom_kill_disable: host.limits.oom_kill_disable == Some(true),
        rare: crate::containers::rare_limits(&host.limits)?,
        leased: true,
        writable_cgroups: host
            .security_opt
            .iter()
            .flatten()
            .any(|option| option == "writable-cgroups=true" || option == "writable-cgroups"),
        ..Extras::default()
    })
}

/// Those that are none were refused when the container was made.
fn device_rules(limits: &Limits) -> Vec<DeviceRule> {
    let rules = limits.device_cgroup_rules.iter().flatten();
    rules
        .filter_map(|rule| DeviceRule::parse(rule))
        .flatten()
        .collect()
}

/// A file system in memory, by mount options such as `ro,size=64m,mode=1777`.
pub(crate) fn memory(path: &str, options: &str) -> Result<Tmpfs, Fault> {
    let mut wish = Tmpfs {
        container_path: PathBuf::from(path),
        ..Tmpfs::default()
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) => wish.size = size.to_owned(),
            Some(("mode", mode)) => wish.mode = mode.to_owned(),
            None if option == "ro" => wish.readonly = true,
            None if option == "exec" => wish.exec = true,
            None if ["rw", "noexec", "nosuid", "nodev"].contains(&option) => {}
            _ => return Err(Fault::bad(format!("invalid tmpfs option {option:?}"))),
        }
    }
    Ok(wish)
}

/// `/etc/hosts` of a container.
pub(crate) fn hosts(record: &Record, addresses: &[(String, String)]) -> Result<String, Fault> {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                    fe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\n\
                    ff02::2\tip6-allrouters\n"
        .to_owned();
    for entry in record.host.extra_hosts.iter().flatten() {
        let (name, address) = entry
            .split_once([':', '='])
            .ok_or_else(|| Fault::bad(format!("bad format for add-host: {entry:?}")))?;
        let gateway = addresses.first().map(|(_, gateway)| gateway.as_str());
        let address = match (address, gateway) {
            ("host-gateway", Some(gateway)) => gateway,
            (address, _) => address.trim_start_matches('[').trim_end_matches(']'),
        };
        text.push_str(&format!("{address}\t{name}\n"));
    }
    let config = &record.config;
    for (address, _) in addresses {
        let domain = match config.domainname.as_str() {
            "" => String::new(),
            domain => format!("{}.{domain} ", config.hostname),
        };
        text.push_str(&format!("{address}\t{domain}{}\n", config.hostname));
    }
    Ok(text)
}

/// `/etc/resolv.conf` of a container: the machine's, but for what the user wants otherwise.
pub(crate) fn resolv_conf(host: &HostConfig, machine: &str, embedded: bool) -> String {
    let of = |word: &str| -> Vec<String> {
        let lines = machine.lines().filter_map(|line| {
            let mut parts = line.split_whitespace();
            (parts.next() == Some(word)).then(|| parts.map(str::to_owned).collect::<Vec<_>>())
        });
        lines.flatten().collect()
    };
    let or = |wish: &Vec<String>, word: &str| match wish.is_empty() {
        true => of(word),
        false => wish.clone(),
    };
    let mut text = String::new();
    let servers = match embedded {
        true => vec!["127.0.0.11".to_owned()],
        false => or(&host.dns, "nameserver"),
    };
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    let search = or(&host.dns_search, "search");
    if !search.is_empty() && search != ["."] {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    let options = or(&host.dns_options, "options");
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_in_both_ways_of_counting() {
        let limits = Limits {
            nano_cpus: 1_500_000_000,
            memory: 64 << 20,
            ..Limits::default()
        };
        let resources = resources(&limits, 0);
        assert_eq!(
            (resources.cpu_quota, resources.cpu_period),
            (150_000, 100_000)
        );
        assert_eq!(resources.memory_swap_limit_bytes, 128 << 20);
    }

    #[test]
    fn name_servers_are_the_machines_unless_wished_otherwise() {
        let machine = "search example.org\nnameserver 10.0.0.2\noptions ndots:2\n";
        let plain = resolv_conf(&HostConfig::default(), machine, false);
        assert_eq!(
            plain,
            "nameserver 10.0.0.2\nsearch example.org\noptions ndots:2\n"
        );
        let host = HostConfig {
            dns: vec!["1.1.1.1".to_owned()],
            dns_search: vec![".".to_owned()],
            ..HostConfig::default()
        };
        let own = resolv_conf(&host, machine, false);
        assert_eq!(own, "nameserver 1.1.1.1\noptions ndots:2\n");
    }

    #[test]
    fn memory_by_mount_options() {
        let wish = memory("/run", "ro,size=64m,mode=700,exec").unwrap();
        assert_eq!((wish.size.as_str(), wish.mode.as_str()), ("64m", "700"));
        assert!(wish.readonly && wish.exec);
        assert!(memory("/run", "colour=red").is_err());
        assert!(port_and_protocol("0/tcp").is_err() && port_and_protocol("1/icmp").is_err());
    }
}
