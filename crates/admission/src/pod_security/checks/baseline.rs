//! The checks of the baseline standard: what is known to lead out of a container.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Check, Finding, Pod, containers, plural, quoted, security, setters, values};
use crate::tree::{list, text};

/// By name, as upstream orders what they say.
pub(super) const CHECKS: &[Check] = &[
    Check::new("appArmorProfile", &[(0, app_armor)]),
    Check::new("capabilities_baseline", &[(0, capabilities)]),
    Check::new("hostNamespaces", &[(0, host_namespaces)]),
    Check::new("hostPathVolumes", &[(0, host_paths)]),
    Check::new("hostPorts", &[(0, host_ports)]),
    Check::new("hostProbesAndHostLifecycle", &[(34, hosts)]),
    Check::new("privileged", &[(0, privileged)]),
    Check::new("procMount", &[(0, proc_mount), (35, proc_mount_1_35)]),
    Check::new("seLinuxOptions", &[(0, selinux_1_0), (31, selinux_1_31)]),
    Check::new(
        "seccompProfile_baseline",
        &[(0, seccomp_1_0), (19, seccomp)],
    ),
    Check::new(
        "sysctls",
        &[
            (0, |pod| sysctls(pod, 5)),
            (27, |pod| sysctls(pod, 6)),
            (29, |pod| sysctls(pod, 10)),
            (32, |pod| sysctls(pod, 12)),
        ],
    ),
    Check::new("windowsHostProcess", &[(0, host_process)]),
];

fn app_armor(pod: Pod<'_>) -> Option<Finding> {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let bad = |holder: &Value, found: &mut BTreeSet<String>| {
        let profile = security(holder, "appArmorProfile");
        let kind = text(profile, "type");
        let bad = profile.is_object() && !matches!(kind, "RuntimeDefault" | "Localhost");
        if bad {
            found.insert(kind.to_owned());
        }
        bad
    };
    let (names, mut types) = values(pod, bad);
    let by_pod = bad(pod.spec, &mut types);
    let annotations = pod.annotations.as_object().into_iter().flatten();
    let allowed = |value: &str| {
        value.is_empty() || value == "runtime/default" || value.starts_with("localhost/")
    };
    let annotations: BTreeSet<String> = annotations
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(key, value)| key.starts_with(ANNOTATION) && !allowed(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let mut who: Vec<String> = setters(by_pod, &names).into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).into());
    }
    if who.is_empty() {
        return None;
    }
    let all: Vec<String> = types.into_iter().chain(annotations).collect();
    let reason = plural(
        "forbidden AppArmor profile",
        "forbidden AppArmor profiles",
        all.len(),
    );
    let who = who.join(" and ");
    let all = quoted(all);
    Finding::new(
        reason,
        format!("{who} must not set AppArmor profile type to {all}"),
    )
}

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn capabilities(pod: Pod<'_>) -> Option<Finding> {
    let (names, added) = values(pod, |container, found| {
        let mut bad = false;
        for one in list(security(container, "capabilities"), "add").filter_map(Value::as_str) {
            if !CAPABILITIES.contains(&one) {
                bad = true;
                found.insert(one.to_owned());
            }
        }
        bad
    });
    if names.is_empty() {
        return None;
    }
    let (who, what) = (containers(&names), quoted(added));
    let detail = format!("{who} must not include {what} in securityContext.capabilities.add");
    Finding::new("non-default capabilities", detail)
}

fn host_namespaces(pod: Pod<'_>) -> Option<Finding> {
    let fields = ["hostNetwork", "hostPID", "hostIPC"];
    let set = fields
        .iter()
        .filter(|field| pod.spec.get(**field) == Some(&Value::Bool(true)));
    let set: Vec<_> = set.map(|field| format!("{field}=true")).collect();
    if set.is_empty() {
        return None;
    }
    Finding::new("host namespaces", set.join(", "))
}

fn host_paths(pod: Pod<'_>) -> Option<Finding> {
    let volumes = list(pod.spec, "volumes");
    let bad = volumes.filter(|volume| volume.get("hostPath").is_some_and(|path| !path.is_null()));
    let names: Vec<_> = bad.map(|volume| text(volume, "name")).collect();
    if names.is_empty() {
        return None;
    }
    let word = plural("volume", "volumes", names.len());
    Finding::new("hostPath volumes", format!("{word} {}", quoted(&names)))
}

fn host_ports(pod: Pod<'_>) -> Option<Finding> {
    let (names, ports) = values(pod, |container, found| {
        let mut bad = false;
        for port in list(container, "ports") {
            let number = port.get("hostPort").and_then(Value::as_i64).unwrap_or(0);
            if number != 0 {
                bad = true;
                found.insert(number.to_string());
            }
        }
        bad
    });
    if names.is_empty() {
        return None;
    }
    let use_ = plural("uses", "use", names.len());
    let word = plural("hostPort", "hostPorts", ports.len());
    let ports: Vec<_> = ports.into_iter().collect();
    let (who, ports) = (containers(&names), ports.join(", "));
    Finding::new("hostPort", format!("{who} {use_} {word} {ports}"))
}

fn hosts(pod: Pod<'_>) -> Option<Finding> {
    const HANDLERS: [&str; 5] = [
        "/livenessProbe",
        "/readinessProbe",
        "/startupProbe",
        "/lifecycle/postStart",
        "/lifecycle/preStop",
    ];
    let (names, hosts) = values(pod, |container, found| {
        let mut bad = false;
        for handler in HANDLERS.iter().filter_map(|path| container.pointer(path)) {
            for action in ["httpGet", "tcpSocket"] {
                let host = handler
                    .get(action)
                    .map_or("", |action| text(action, "host"));
                if !host.is_empty() {
                    bad = true;
                    found.insert(host.to_owned());
                }
            }
        }
        bad
    });
    if names.is_empty() {
        return None;
    }
    let names: BTreeSet<_> = names.into_iter().collect();
    let names: Vec<_> = names.into_iter().collect();
    let use_ = plural("uses", "use", names.len());
    let word = plural(
        "probe or lifecycle host",
        "probe or lifecycle hosts",
        hosts.len(),
    );
    let (who, hosts) = (containers(&names), quoted(hosts));
    Finding::new(
        "probe or lifecycle host",
        format!("{who} {use_} {word} {hosts}"),
    )
}

fn privileged(pod: Pod<'_>) -> Option<Finding> {
    let names = pod.named(|container| security(container, "privileged") == &Value::Bool(true));
    if names.is_empty() {
        return None;
    }
    let who = containers(&names);
    let detail = format!("{who} must not set securityContext.privileged=true");
    Finding::new("privileged", detail)
}

pub(super) fn proc_mount(pod: Pod<'_>) -> Option<Finding> {
    let (names, types) = values(pod, |container, found| {
        let kind = security(container, "procMount").as_str();
        let bad = kind.filter(|kind| *kind != "Default");
        found.extend(bad.map(str::to_owned));
        bad.is_some()
    });
    if names.is_empty() {
        return None;
    }
    let (who, types) = (containers(&names), quoted(types));
    let detail = format!("{who} must not set securityContext.procMount to {types}");
    Finding::new("procMount", detail)
}

fn proc_mount_1_35(pod: Pod<'_>) -> Option<Finding> {
    match pod.has_own_users() {
        true => None,
        false => proc_mount(pod),
    }
}

const SELINUX_TYPES: [&str; 5] = [
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
];

fn selinux_1_0(pod: Pod<'_>) -> Option<Finding> {
    selinux(pod, &SELINUX_TYPES[..4])
}

fn selinux_1_31(pod: Pod<'_>) -> Option<Finding> {
    selinux(pod, &SELINUX_TYPES)
}

fn selinux(pod: Pod<'_>, allowed: &[&str]) -> Option<Finding> {
    let (mut user, mut role) = (false, false);
    let mut bad = |holder: &Value, found: &mut BTreeSet<String>| {
        let options = security(holder, "seLinuxOptions");
        let kind = text(options, "type");
        let (has_user, has_role) = (
            !text(options, "user").is_empty(),
            !text(options, "role").is_empty(),
        );
        let bad_type = !allowed.contains(&kind);
        if bad_type {
            found.insert(kind.to_owned());
        }
        user |= has_user;
        role |= has_role;
        bad_type || has_user || has_role
    };
    let mut types = BTreeSet::new();
    let by_pod = bad(pod.spec, &mut types);
    let names = pod.named(|container| bad(container, &mut types));
    let who = setters(by_pod, &names)?;
    let mut what = Vec::new();
    if !types.is_empty() {
        let word = plural("type", "types", types.len());
        what.push(format!("{word} {}", quoted(types)));
    }
    if user {
        what.push("user may not be set".into());
    }
    if role {
        what.push("role may not be set".into());
    }
    let what = what.join("; ");
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {what}");
    Finding::new("seLinuxOptions", detail)
}

/// Before there were fields, annotations said it.
fn seccomp_1_0(pod: Pod<'_>) -> Option<Finding> {
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
    let allowed = |value: &str| {
        matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/")
    };
    let keys = pod
        .containers()
        .map(|container| format!("{CONTAINER}{}", text(container, "name")));
    let bad: BTreeSet<String> = std::iter::once(POD.to_owned())
        .chain(keys)
        .filter_map(|key| {
            let value = pod.annotations.get(&key)?.as_str()?;
            (!allowed(value)).then(|| format!("{key}={value:?}"))
        })
        .collect();
    if bad.is_empty() {
        return None;
    }
    let word = plural("annotation", "annotations", bad.len());
    let bad: Vec<_> = bad.into_iter().collect();
    let detail = format!("forbidden {word} {}", bad.join(", "));
    Finding::new("seccompProfile", detail)
}

/// Whether a profile is set and allowed; `None` when it is not set.
pub(super) fn seccomp_profile(holder: &Value) -> Option<(bool, &str)> {
    let profile = security(holder, "seccompProfile");
    let kind = text(profile, "type");
    let good = matches!(kind, "RuntimeDefault" | "Localhost");
    profile.is_object().then_some((good, kind))
}

/// Who sets a profile that is not allowed.
pub(super) fn seccomp(pod: Pod<'_>) -> Option<Finding> {
    let bad = |holder: &Value, found: &mut BTreeSet<String>| match seccomp_profile(holder) {
        Some((false, kind)) => {
            found.insert(kind.to_owned());
            true
        }
        _ => false,
    };
    let (names, mut types) = values(pod, bad);
    let by_pod = bad(pod.spec, &mut types);
    let who = setters(by_pod, &names)?;
    let types = quoted(types);
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {types}");
    Finding::new("seccompProfile", detail)
}

/// In the order in which releases began to allow them.
const SYSCTLS: [&str; 12] = [
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

fn sysctls(pod: Pod<'_>, allowed: usize) -> Option<Finding> {
    let set = pod.security("sysctls").as_array().into_iter().flatten();
    let names = set.map(|sysctl| text(sysctl, "name"));
    let bad: Vec<_> = names
        .filter(|name| !SYSCTLS.iter().take(allowed).any(|known| known == name))
        .collect();
    if bad.is_empty() {
        return None;
    }
    Finding::new("forbidden sysctls", bad.join(", "))
}

fn host_process(pod: Pod<'_>) -> Option<Finding> {
    let bad = |holder: &Value| {
        security(holder, "windowsOptions").get("hostProcess") == Some(&Value::Bool(true))
    };
    let names = pod.named(bad);
    let who = setters(bad(pod.spec), &names)?;
    let detail = format!("{who} must not set securityContext.windowsOptions.hostProcess=true");
    Finding::new("hostProcess", detail)
}
