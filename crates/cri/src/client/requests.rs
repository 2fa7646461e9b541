//! What a runtime is asked to make, in CRI's messages.

use std::path::Path;

use node_api::{
    ContainerConfig, Device, DnsConfig, MASKED_PATHS, NamespaceMode, PodSandboxConfig, PortMapping,
    READONLY_PATHS, SeccompProfile, SecurityContext, UserNamespace,
};

use crate::{convert, security, signals, wire};

/// Annotations in which a sandbox keeps what runtimes do not tell, but want to hear again with each
/// container.
pub(super) const CGROUP_PARENT: &str = "sampan.io/cgroup-parent";
pub(super) const LOG_DIRECTORY: &str = "sampan.io/log-directory";
pub(super) const HOSTNAME: &str = "sampan.io/hostname";

fn text(path: &Path) -> String {
    path.display().to_string()
}

pub(super) fn sandbox_config(config: PodSandboxConfig) -> wire::PodSandboxConfig {
    let metadata = convert::sandbox_metadata(&config);
    let log_directory = text(&config.log_directory);
    let mut annotations = config.annotations;
    for (key, value) in [
        (CGROUP_PARENT, &config.cgroup_parent),
        (LOG_DIRECTORY, &log_directory),
        (HOSTNAME, &config.hostname),
    ] {
        annotations.insert(key.to_owned(), value.clone());
    }
    // Who has the node's network has its name, too.
    let hostname = match config.namespaces.network {
        NamespaceMode::Node => String::new(),
        _ => config.hostname,
    };
    wire::PodSandboxConfig {
        metadata: Some(metadata),
        hostname,
        log_directory,
        dns_config: config.dns.map(dns),
        port_mappings: config.port_mappings.into_iter().map(port).collect(),
        labels: config.labels,
        annotations,
        linux: Some(wire::LinuxPodSandboxConfig {
            cgroup_parent: config.cgroup_parent,
            security_context: Some(wire::LinuxSandboxSecurityContext {
                namespace_options: Some(security::namespaces_of(&config.namespaces)),
                privileged: config.privileged,
                // What holds a pod's namespaces needs no more.
                seccomp: Some(profile(&SeccompProfile::RuntimeDefault)),
                ..wire::LinuxSandboxSecurityContext::default()
            }),
            sysctls: config.sysctls,
            overhead: None,
            resources: config.resources.as_ref().map(convert::resources_of),
        }),
    }
}

fn dns(dns: DnsConfig) -> wire::DnsConfig {
    wire::DnsConfig {
        servers: dns.servers,
        searches: dns.searches,
        options: dns.options,
    }
}

fn port(mapping: PortMapping) -> wire::PortMapping {
    let protocol = match mapping.protocol.as_str() {
        "UDP" => wire::Protocol::Udp,
        "SCTP" => wire::Protocol::Sctp,
        _ => wire::Protocol::Tcp,
    };
    wire::PortMapping {
        protocol: protocol.into(),
        container_port: mapping.container_port.into(),
        host_port: mapping.host_port.into(),
        host_ip: mapping.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
    }
}

/// A container of a pod whose user namespace is given.
pub(super) fn container_config(
    config: ContainerConfig,
    user: Option<&UserNamespace>,
) -> wire::ContainerConfig {
    let mounts = config.mounts.iter();
    let signal = config.stop_signal.as_deref();
    wire::ContainerConfig {
        metadata: Some(convert::container_metadata(&config)),
        image: Some(wire::ImageSpec {
            image: config.image,
            user_specified_image: config.user_specified_image,
            ..wire::ImageSpec::default()
        }),
        mounts: mounts.map(|m| convert::mount_of(m, user)).collect(),
        stop_signal: signal.map_or(0, signals::of_name),
        command: config.command,
        args: config.args,
        working_dir: config.working_dir,
        envs: config.envs.into_iter().map(env).collect(),
        devices: config.devices.into_iter().map(device).collect(),
        labels: config.labels,
        annotations: config.annotations,
        log_path: text(&config.log_path),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(wire::LinuxContainerConfig {
            resources: Some(convert::resources_of(&config.resources)),
            security_context: Some(security_context(config.security)),
        }),
        cdi_devices: config.cdi_devices.into_iter().map(cdi_device).collect(),
    }
}

fn env((key, value): (String, String)) -> wire::KeyValue {
    wire::KeyValue {
        key,
        value: value.into_bytes(),
    }
}

fn device(device: Device) -> wire::Device {
    wire::Device {
        container_path: text(&device.container_path),
        host_path: text(&device.host_path),
        permissions: device.permissions,
    }
}

fn cdi_device(name: String) -> wire::CdiDevice {
    wire::CdiDevice { name }
}

fn profile(profile: &SeccompProfile) -> wire::SecurityProfile {
    let (kind, path) = match profile {
        SeccompProfile::Unconfined => (wire::ProfileType::Unconfined, String::new()),
        SeccompProfile::RuntimeDefault => (wire::ProfileType::RuntimeDefault, String::new()),
        SeccompProfile::Localhost(path) => (wire::ProfileType::Localhost, text(path)),
    };
    wire::SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: path,
    }
}

fn security_context(own: SecurityContext) -> wire::LinuxContainerSecurityContext {
    let policy = match own.supplemental_groups_strict {
        true => wire::SupplementalGroupsPolicy::Strict,
        false => wire::SupplementalGroupsPolicy::Merge,
    };
    let privileged = own.privileged;
    // Runtimes hide what they are told to, and nothing where nothing is said.
    let hidden = |wish: Option<Vec<String>>, usual: &[&str]| match wish {
        Some(wish) => wish,
        None if privileged => Vec::new(),
        None => usual.iter().map(|path| (*path).to_owned()).collect(),
    };
    let id = |value| wire::Int64Value { value };
    wire::LinuxContainerSecurityContext {
        capabilities: Some(wire::Capability {
            add_capabilities: own.add_capabilities,
            drop_capabilities: own.drop_capabilities,
            add_ambient_capabilities: own.ambient_capabilities,
        }),
        privileged,
        namespace_options: Some(security::namespaces_of(&own.namespaces)),
        run_as_user: own.run_as_user.map(id),
        run_as_group: own.run_as_group.map(id),
        run_as_username: own.run_as_username.unwrap_or_default(),
        readonly_rootfs: own.readonly_rootfs,
        supplemental_groups: own.supplemental_groups,
        supplemental_groups_policy: policy.into(),
        no_new_privs: own.no_new_privs,
        masked_paths: hidden(own.masked_paths, &MASKED_PATHS),
        readonly_paths: hidden(own.readonly_paths, &READONLY_PATHS),
        seccomp: Some(profile(&own.seccomp)),
        apparmor: None,
    }
}
