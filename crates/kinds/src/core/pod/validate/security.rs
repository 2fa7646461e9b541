//! Faults in security contexts.

use std::collections::BTreeSet;

use meta::{Faults, naming};
use serde_json::Value;

use crate::core::pod::defaults::CONTAINER_LISTS;
use crate::spot::{Spot, maybe_one_of, rules, unsupported};
use crate::tree::Tree;

const SYSCTL_MAX: usize = 253;
const SYSCTL_RULE: &str = "must have at most 253 characters and match regex \
    ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const PROFILE_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

/// Faults in the pod's `securityContext`.
pub(super) fn validate_pod_context(spec: &Spot<'_>, faults: &mut Faults) {
    let context = spec.child("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        validate_id(&context, field, faults);
    }
    for group in context.items("supplementalGroups") {
        let id = group.as_i64().unwrap_or(0);
        let broken = naming::in_range(id, 0, i64::from(i32::MAX));
        rules(faults, group.path.clone(), id, broken);
    }
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let rule = "ShareProcessNamespace and HostPID cannot both be enabled";
        faults.invalid(context.path("shareProcessNamespace"), true, rule);
    }
    validate_sysctls(&context, spec, faults);
    let policies = ["Always", "OnRootMismatch"];
    maybe_one_of(&context, "fsGroupChangePolicy", &policies, faults);
    validate_profiles(&context, faults);
    let policies = ["Merge", "Strict"];
    maybe_one_of(&context, "supplementalGroupsPolicy", &policies, faults);
    let policies = ["MountOption", "Recursive"];
    maybe_one_of(&context, "seLinuxChangePolicy", &policies, faults);
}

/// Faults in a container's `securityContext`.
pub(super) fn validate_context(context: &Spot<'_>, host_users: bool, faults: &mut Faults) {
    for field in ["runAsUser", "runAsGroup"] {
        validate_id(context, field, faults);
    }
    if let Some(mount) = context.some("procMount") {
        let word = mount.as_str().unwrap_or("");
        if !matches!(word, "Default" | "Unmasked") {
            unsupported(faults, mount.path.clone(), word, &["Default", "Unmasked"]);
        }
        if host_users && word == "Unmasked" {
            let rule = "`hostUsers` must be false to use `Unmasked`";
            faults.invalid(mount.path.clone(), word, rule);
        }
    }
    validate_profiles(context, faults);
    if context.at("allowPrivilegeEscalation") == &Value::Bool(false) {
        if context.flag("privileged") {
            let rule = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            faults.invalid(context.path.clone(), context.value.clone(), rule);
        }
        if context
            .texts("capabilities.add")
            .any(|one| one == "CAP_SYS_ADMIN")
        {
            let rule = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` \
                        CAP_SYS_ADMIN";
            faults.invalid(context.path.clone(), context.value.clone(), rule);
        }
    }
}

/// A user namespace of its own and the host's namespaces exclude each other.
pub(super) fn validate_host_users(spec: &Spot<'_>, faults: &mut Faults) {
    if spec.at("hostUsers") != &Value::Bool(false) {
        return;
    }
    for (field, shown) in [
        ("hostNetwork", "hostNetwork"),
        ("hostPID", "HostPID"),
        ("hostIPC", "HostIPC"),
    ] {
        if spec.flag(field) {
            faults.forbidden(spec.path(shown), "when `hostUsers` is false");
        }
    }
    for container in CONTAINER_LISTS.iter().flat_map(|list| spec.items(list)) {
        if container.count("volumeDevices") > 0 {
            faults.forbidden(container.path("volumeDevices"), "when `hostUsers` is false");
        }
    }
}

fn validate_id(context: &Spot<'_>, field: &str, faults: &mut Faults) {
    if let Some(id) = context.maybe_int(field) {
        let broken = naming::in_range(id, 0, i64::from(i32::MAX));
        rules(faults, context.path(field), id, broken);
    }
}

fn validate_sysctls(context: &Spot<'_>, spec: &Spot<'_>, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    for sysctl in context.items("sysctls") {
        let (path, name) = (sysctl.path("name"), sysctl.text("name"));
        if name.is_empty() {
            faults.required(path.clone(), "");
        } else if !is_sysctl(name) {
            faults.invalid(path.clone(), name, SYSCTL_RULE);
        } else if seen.contains(name) {
            faults.duplicate(path.clone(), name);
        }
        seen.insert(name.to_owned());
        let dotted = name.replace('/', ".");
        let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."];
        let ipc = dotted == "kernel.sem" || ipc.iter().any(|start| dotted.starts_with(start));
        if spec.flag("hostNetwork") && dotted.starts_with("net.") {
            faults.invalid(
                path,
                name,
                "may not be specified when 'hostNetwork' is true",
            );
        } else if spec.flag("hostIPC") && ipc {
            faults.invalid(path, name, "may not be specified when 'hostIPC' is true");
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let segment = |part: &str| {
        let bytes = part.as_bytes();
        bytes.first().is_some_and(|byte| plain(*byte))
            && bytes.last().is_some_and(|byte| plain(*byte))
            && bytes
                .iter()
                .all(|byte| plain(*byte) || matches!(byte, b'-' | b'_'))
    };
    name.len() <= SYSCTL_MAX && name.split(['.', '/']).all(segment)
}

fn validate_profiles(context: &Spot<'_>, faults: &mut Faults) {
    for (field, what) in [
        ("seccompProfile", "seccomp"),
        ("appArmorProfile", "AppArmor"),
    ] {
        let Some(profile) = context.some(field) else {
            continue;
        };
        let path = profile.path("localhostProfile");
        let kind = profile.text("type");
        match kind {
            "" => {
                let rule = format!("type is required when {field} is set");
                faults.required(profile.path("type"), rule);
            }
            kind if PROFILE_TYPES.contains(&kind) => {}
            other => unsupported(faults, profile.path("type"), other, &PROFILE_TYPES),
        }
        let file = profile.at("localhostProfile");
        let named = match field {
            "seccompProfile" => !file.is_null(),
            _ => !file.as_str().unwrap_or("").is_empty(),
        };
        if kind == "Localhost" && !named {
            faults.required(path, format!("must be set when {what} type is Localhost"));
        } else if kind != "Localhost" && !file.is_null() {
            let rule = format!("can only be set when {what} type is Localhost");
            match field {
                "seccompProfile" => {
                    let shown = crate::go::shown(profile.value, &crate::go::PROFILE);
                    faults.add_shown(path, meta::FaultKind::Invalid, shown, rule);
                }
                _ => faults.invalid(path, file.clone(), rule),
            }
        } else if field == "seccompProfile" && named {
            let file = file.as_str().unwrap_or("");
            if file.starts_with('/') {
                faults.invalid(path.clone(), file, "must be a relative path");
            }
            if file.split('/').any(|part| part == "..") {
                faults.invalid(path, file, "must not contain '..'");
            }
        }
    }
}
