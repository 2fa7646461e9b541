//! Between CRI's messages and the words of `node-api`, but for what is about security.

use std::net::IpAddr;

use node_api::{
    ContainerConfig, ContainerStatus, Device, DnsConfig, ImageMount, LinuxResources, Mount,
    MountPropagation, PodSandboxConfig, PodSandboxStatus, PortMapping, SandboxState, UserNamespace,
};
use tonic::Status;

use crate::{missing, security, signals, wire};

pub(crate) fn sandbox_config(
    config: wire::PodSandboxConfig,
    runtime_handler: String,
) -> Result<PodSandboxConfig, Status> {
    let metadata = config
        .metadata
        .ok_or_else(|| missing("metadata of the sandbox"))?;
    if metadata.name.is_empty() || metadata.namespace.is_empty() || metadata.uid.is_empty() {
        return Err(missing("name, namespace and uid of the sandbox"));
    }
    let linux = config.linux.unwrap_or_default();
    let context = linux.security_context.unwrap_or_default();
    let ports = config.port_mappings.into_iter().map(port_mapping);
    Ok(PodSandboxConfig {
        name: metadata.name,
        uid: metadata.uid,
        namespace: metadata.namespace,
        attempt: metadata.attempt,
        hostname: config.hostname,
        log_directory: config.log_directory.into(),
        dns: config.dns_config.and_then(dns),
        port_mappings: ports.collect::<Result<_, _>>()?,
        labels: config.labels,
        annotations: config.annotations,
        cgroup_parent: linux.cgroup_parent,
        namespaces: security::namespaces(context.namespace_options)?,
        sysctls: linux.sysctls,
        resources: linux.resources.map(resources),
        runtime_handler,
        privileged: context.privileged,
    })
}

/// Without any wish the node's own configuration counts.
fn dns(dns: wire::DnsConfig) -> Option<DnsConfig> {
    let empty = dns.servers.is_empty() && dns.searches.is_empty() && dns.options.is_empty();
    (!empty).then_some(DnsConfig {
        servers: dns.servers,
        searches: dns.searches,
        options: dns.options,
    })
}

fn port_mapping(mapping: wire::PortMapping) -> Result<PortMapping, Status> {
    let port = |number: i32| {
        u16::try_from(number)
            .map_err(|_| Status::invalid_argument(format!("{number} is not a port")))
    };
    let ip = &mapping.host_ip;
    let host_ip =
        match ip.is_empty() {
            true => None,
            false => Some(ip.parse::<IpAddr>().map_err(|error| {
                Status::invalid_argument(format!("host address {ip:?}: {error}"))
            })?),
        };
    Ok(PortMapping {
        protocol: match mapping.protocol() {
            wire::Protocol::Tcp => "TCP",
            wire::Protocol::Udp => "UDP",
            wire::Protocol::Sctp => "SCTP",
        }
        .to_owned(),
        container_port: port(mapping.container_port)?,
        host_port: port(mapping.host_port)?,
        host_ip,
    })
}

pub(crate) fn resources(wish: wire::LinuxContainerResources) -> LinuxResources {
    let pages = wish.hugepage_limits.into_iter();
    let pages = pages.map(|one| (one.page_size, i64::try_from(one.limit).unwrap_or(i64::MAX)));
    LinuxResources {
        cpu_period: wish.cpu_period,
        cpu_quota: wish.cpu_quota,
        cpu_shares: wish.cpu_shares,
        memory_limit_bytes: wish.memory_limit_in_bytes,
        memory_swap_limit_bytes: wish.memory_swap_limit_in_bytes,
        oom_score_adj: wish.oom_score_adj,
        cpuset_cpus: wish.cpuset_cpus,
        cpuset_mems: wish.cpuset_mems,
        hugepage_limits: pages.collect(),
        pids_limit: 0,
        memory_reservation_bytes: 0,
        unified: wish.unified,
    }
}

pub(crate) fn resources_of(own: &LinuxResources) -> wire::LinuxContainerResources {
    let pages = own.hugepage_limits.iter();
    wire::LinuxContainerResources {
        cpu_period: own.cpu_period,
        cpu_quota: own.cpu_quota,
        cpu_shares: own.cpu_shares,
        memory_limit_in_bytes: own.memory_limit_bytes,
        oom_score_adj: own.oom_score_adj,
        cpuset_cpus: own.cpuset_cpus.clone(),
        cpuset_mems: own.cpuset_mems.clone(),
        hugepage_limits: pages
            .map(|(size, limit)| wire::HugepageLimit {
                page_size: size.clone(),
                limit: u64::try_from(*limit).unwrap_or_default(),
            })
            .collect(),
        unified: own.unified.clone(),
        memory_swap_limit_in_bytes: own.memory_swap_limit_bytes,
    }
}

pub(crate) fn container_config(
    config: wire::ContainerConfig,
    sandbox: &PodSandboxStatus,
) -> Result<ContainerConfig, Status> {
    let metadata = config
        .metadata
        .ok_or_else(|| missing("metadata of the container"))?;
    let image = config.image.ok_or_else(|| missing("image"))?;
    if image.image.is_empty() {
        return Err(missing("image"));
    }
    let linux = config.linux.unwrap_or_default();
    let mounts = config.mounts.into_iter().map(|m| mount(m, sandbox));
    let envs = config.envs.into_iter().map(env);
    let given = match image.user_specified_image.is_empty() {
        true => image.image.clone(),
        false => image.user_specified_image,
    };
    Ok(ContainerConfig {
        name: metadata.name,
        attempt: metadata.attempt,
        image: image.image,
        user_specified_image: given,
        command: config.command,
        args: config.args,
        working_dir: config.working_dir,
        envs: envs.collect::<Result<_, _>>()?,
        mounts: mounts.collect::<Result<_, _>>()?,
        devices: config.devices.into_iter().map(device).collect(),
        cdi_devices: config.cdi_devices.into_iter().map(|one| one.name).collect(),
        labels: config.labels,
        annotations: config.annotations,
        log_path: config.log_path.into(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        resources: resources(linux.resources.unwrap_or_default()),
        security: security::context(linux.security_context, sandbox)?,
        stop_signal: signals::name(config.stop_signal),
    })
}

fn env(pair: wire::KeyValue) -> Result<(String, String), Status> {
    let name = pair.key;
    match String::from_utf8(pair.value) {
        Ok(value) => Ok((name, value)),
        Err(_) => {
            let message = format!("value of environment variable {name} is not UTF-8");
            Err(Status::invalid_argument(message))
        }
    }
}

fn device(device: wire::Device) -> Device {
    Device {
        container_path: device.container_path.into(),
        host_path: device.host_path.into(),
        permissions: device.permissions,
    }
}

fn mount(mount: wire::Mount, sandbox: &PodSandboxStatus) -> Result<Mount, Status> {
    let user = sandbox.config.namespaces.user.clone().unwrap_or_default();
    let mapped = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    let same = security::mappings(&mount.uid_mappings) == user.uids
        && security::mappings(&mount.gid_mappings) == user.gids;
    if mapped && !same {
        return Err(Status::invalid_argument(format!(
            "mount {}: its mappings of ids are not the pod's",
            mount.container_path
        )));
    }
    let propagation = match mount.propagation() {
        wire::MountPropagation::Private => MountPropagation::Private,
        wire::MountPropagation::HostToContainer => MountPropagation::HostToContainer,
        wire::MountPropagation::Bidirectional => MountPropagation::Bidirectional,
    };
    let image = mount.image.filter(|image| !image.image.is_empty());
    Ok(Mount {
        container_path: mount.container_path.into(),
        host_path: mount.host_path.into(),
        sub_path: Default::default(),
        readonly: mount.readonly,
        recursive_read_only: mount.recursive_read_only,
        propagation,
        mapped,
        image: image.map(|image| ImageMount {
            image: image.image,
            user_specified_image: image.user_specified_image,
            sub_path: mount.image_sub_path.into(),
        }),
    })
}

pub(crate) fn mount_of(mount: &Mount, user: Option<&UserNamespace>) -> wire::Mount {
    let user = user.filter(|_| mount.mapped);
    let propagation = match mount.propagation {
        MountPropagation::Private => wire::MountPropagation::Private,
        MountPropagation::HostToContainer => wire::MountPropagation::HostToContainer,
        MountPropagation::Bidirectional => wire::MountPropagation::Bidirectional,
    };
    let image = mount.image.as_ref();
    wire::Mount {
        container_path: mount.container_path.display().to_string(),
        host_path: mount.host_path.display().to_string(),
        readonly: mount.readonly,
        selinux_relabel: false,
        propagation: propagation.into(),
        uid_mappings: user.map_or_else(Vec::new, |user| security::mappings_of(&user.uids)),
        gid_mappings: user.map_or_else(Vec::new, |user| security::mappings_of(&user.gids)),
        recursive_read_only: mount.recursive_read_only,
        image: image.map(|image| wire::ImageSpec {
            image: image.image.clone(),
            user_specified_image: image.user_specified_image.clone(),
            image_ref: image.image.clone(),
            ..wire::ImageSpec::default()
        }),
        image_sub_path: image.map_or_else(String::new, |i| i.sub_path.display().to_string()),
    }
}

pub(crate) fn sandbox_state(state: SandboxState) -> wire::PodSandboxState {
    match state {
        SandboxState::Ready => wire::PodSandboxState::Ready,
        SandboxState::NotReady => wire::PodSandboxState::NotReady,
    }
}

pub(crate) fn sandbox_metadata(config: &PodSandboxConfig) -> wire::PodSandboxMetadata {
    wire::PodSandboxMetadata {
        name: config.name.clone(),
        uid: config.uid.clone(),
        namespace: config.namespace.clone(),
        attempt: config.attempt,
    }
}

pub(crate) fn sandbox_status(sandbox: PodSandboxStatus) -> wire::PodSandboxStatus {
    let metadata = sandbox_metadata(&sandbox.config);
    let mut ips = sandbox.ips.iter().map(ToString::to_string);
    let ip = ips.next().unwrap_or_default();
    let options = security::namespaces_of(&sandbox.config.namespaces);
    wire::PodSandboxStatus {
        id: sandbox.id,
        metadata: Some(metadata),
        state: sandbox_state(sandbox.state).into(),
        created_at: sandbox.created_at,
        network: Some(wire::PodSandboxNetworkStatus {
            ip,
            additional_ips: ips.map(|ip| wire::PodIp { ip }).collect(),
        }),
        linux: Some(wire::LinuxPodSandboxStatus {
            namespaces: Some(wire::Namespace {
                options: Some(options),
            }),
        }),
        labels: sandbox.config.labels,
        annotations: sandbox.config.annotations,
        runtime_handler: sandbox.config.runtime_handler,
    }
}

pub(crate) fn container_state(state: node_api::ContainerState) -> wire::ContainerState {
    match state {
        node_api::ContainerState::Created => wire::ContainerState::Created,
        node_api::ContainerState::Running => wire::ContainerState::Running,
        node_api::ContainerState::Exited => wire::ContainerState::Exited,
        node_api::ContainerState::Unknown => wire::ContainerState::Unknown,
    }
}

pub(crate) fn container_metadata(config: &ContainerConfig) -> wire::ContainerMetadata {
    wire::ContainerMetadata {
        name: config.name.clone(),
        attempt: config.attempt,
    }
}

pub(crate) fn image_spec(config: &ContainerConfig) -> wire::ImageSpec {
    wire::ImageSpec {
        image: config.user_specified_image.clone(),
        user_specified_image: config.user_specified_image.clone(),
        ..wire::ImageSpec::default()
    }
}

/// `image_ref` is a digest that the image can be pulled by, or its id.
pub(crate) fn container_status(
    container: ContainerStatus,
    image_ref: String,
    sandbox: Option<&PodSandboxStatus>,
) -> wire::ContainerStatus {
    let config = container.config;
    let user = container.user.map(|user| wire::ContainerUser {
        linux: Some(wire::LinuxContainerUser {
            uid: user.uid,
            gid: user.gid,
            supplemental_groups: user.supplemental_groups,
        }),
    });
    let pod_user = sandbox.and_then(|sandbox| sandbox.config.namespaces.user.as_ref());
    let mounts = config.mounts.iter().map(|mount| mount_of(mount, pod_user));
    wire::ContainerStatus {
        id: container.id,
        metadata: Some(container_metadata(&config)),
        state: container_state(container.state).into(),
        created_at: container.created_at,
        started_at: container.started_at,
        finished_at: container.finished_at,
        exit_code: container.exit_code,
        image: Some(image_spec(&config)),
        image_ref,
        reason: container.reason,
        message: container.message,
        mounts: mounts.collect(),
        log_path: container.log_path.display().to_string(),
        resources: Some(wire::ContainerResources {
            linux: Some(resources_of(&config.resources)),
        }),
        image_id: container.image_id,
        user,
        stop_signal: signals::number(container.stop_signal),
        labels: config.labels,
        annotations: config.annotations,
    }
}
