//! What the runtime is told of a pod's sandbox.

use k8s_openapi::api::core::v1::Pod;
use node_api::{PodSandboxConfig, PortMapping};

use crate::config::Config;
use crate::pod::PodExt;
use crate::{labels, names, resources, security};

/// Sysctls that affect no one outside the pod (upstream's safe set).
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// The sandbox of a pod.
pub(crate) fn sandbox_config(pod: &Pod, attempt: u32, config: &Config) -> PodSandboxConfig {
    let sysctls = pod.spec().security_context.iter();
    let sysctls = sysctls.flat_map(|context| context.sysctls.iter().flatten());
    PodSandboxConfig {
        name: pod.name().to_owned(),
        uid: pod.uid().to_owned(),
        namespace: pod.namespace().to_owned(),
        attempt,
        hostname: names::sandbox_hostname(pod, config),
        log_directory: config.log_dir.join(pod.log_folder()),
        dns: names::dns(pod, config),
        port_mappings: port_mappings(pod),
        labels: labels::of_sandbox(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        cgroup_parent: resources::cgroup_parent(pod, config),
        namespaces: security::namespaces(pod),
        sysctls: sysctls
            .map(|s| (dotted(&s.name), s.value.clone()))
            .collect(),
        resources: Some(resources::of_pod(pod, config)),
        runtime_handler: String::new(),
        privileged: pod.all_containers().iter().any(|(_, container)| {
            let context = container.security_context.as_ref();
            context.is_some_and(|context| context.privileged == Some(true))
        }),
    }
}

/// A sysctl's name with dots between its parts: whichever of dot and slash comes first separates.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']).map(|at| &name[at..=at]) {
        Some("/") => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// The first sysctl a pod sets and may not.
pub(crate) fn forbidden_sysctl(pod: &Pod, config: &Config) -> Option<String> {
    let sysctls = pod.spec().security_context.iter();
    let mut names = sysctls
        .flat_map(|context| context.sysctls.iter().flatten())
        .map(|s| &s.name);
    let allowed =
        |name: &String| {
            let name = &dotted(name);
            let listed = config.allowed_unsafe_sysctls.iter().any(|pattern| {
                match pattern.strip_suffix('*') {
                    Some(prefix) => name.starts_with(prefix),
                    None => name == pattern,
                }
            });
            SAFE_SYSCTLS.contains(&name.as_str()) || listed
        };
    names.find(|name| !allowed(name)).cloned()
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    if pod.host_network() {
        return Vec::new();
    }
    let containers = pod.all_containers().into_iter();
    let ports = containers.flat_map(|(_, container)| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let host_port = u16::try_from(port.host_port?)
                .ok()
                .filter(|port| *port > 0)?;
            Some(PortMapping {
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                container_port: u16::try_from(port.container_port).ok()?,
                host_port,
                host_ip: port.host_ip.as_deref().and_then(|ip| ip.parse().ok()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sysctls_are_written_either_way() {
        let pod = |name: &str| -> Pod {
            serde_json::from_value(json!({"spec": {"containers": [], "securityContext": {
                "sysctls": [{"name": name, "value": "1"}]}}}))
            .unwrap()
        };
        let ip = std::net::IpAddr::from([127, 0, 0, 1]);
        let config = Config::new("n", ip, "/r".into(), "/l".into());
        for name in ["kernel/shm_rmid_forced", "kernel.shm_rmid_forced"] {
            assert_eq!(forbidden_sysctl(&pod(name), &config), None);
            let sandbox = sandbox_config(&pod(name), 0, &config);
            assert_eq!(sandbox.sysctls["kernel.shm_rmid_forced"], "1");
        }
        assert_eq!(
            dotted("net/ipv4/conf/eth0.1/arp"),
            "net.ipv4.conf.eth0/1.arp"
        );
        let refused = forbidden_sysctl(&pod("kernel/msgmax"), &config);
        assert_eq!(refused.as_deref(), Some("kernel/msgmax"));
    }
}
