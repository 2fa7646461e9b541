//! The checks of the restricted standard: what a hardened pod has to say of itself.

use std::collections::BTreeSet;

use serde_json::Value;

use super::baseline::{proc_mount, seccomp, seccomp_profile};
use super::{Check, Finding, Pod, containers, plural, quoted, security, setters};
use crate::tree::{list, text};

/// By name, as upstream orders what they say.
pub(super) const CHECKS: &[Check] = &[
    Check::new(
        "allowPrivilegeEscalation",
        &[(8, escalation), (25, |pod| unless_windows(pod, escalation))],
    ),
    Check::new(
        "capabilities_restricted",
        &[
            (22, capabilities),
            (25, |pod| unless_windows(pod, capabilities)),
        ],
    )
    .replacing("capabilities_baseline"),
    Check::new("procMount_restricted", &[(35, proc_mount)]).replacing("procMount"),
    Check::new("restrictedVolumes", &[(0, volumes)]).replacing("hostPathVolumes"),
    Check::new(
        "runAsNonRoot",
        &[(0, non_root), (35, |pod| unless_own_users(pod, non_root))],
    ),
    Check::new(
        "runAsUser",
        &[
            (23, root_user),
            (35, |pod| unless_own_users(pod, root_user)),
        ],
    ),
    Check::new(
        "seccompProfile_restricted",
        &[
            (19, seccomp_restricted),
            (25, |pod| unless_windows(pod, seccomp_restricted)),
        ],
    )
    .replacing("seccompProfile_baseline"),
];

/// Windows has no such thing, and validation refuses it there.
fn unless_windows(pod: Pod<'_>, check: fn(Pod<'_>) -> Option<Finding>) -> Option<Finding> {
    match pod.is_windows() {
        true => None,
        false => check(pod),
    }
}

/// Root in a user namespace of its own is nobody on the host.
fn unless_own_users(pod: Pod<'_>, check: fn(Pod<'_>) -> Option<Finding>) -> Option<Finding> {
    match pod.has_own_users() {
        true => None,
        false => check(pod),
    }
}

fn escalation(pod: Pod<'_>) -> Option<Finding> {
    let names = pod
        .named(|container| security(container, "allowPrivilegeEscalation") != &Value::Bool(false));
    if names.is_empty() {
        return None;
    }
    let who = containers(&names);
    let detail = format!("{who} must set securityContext.allowPrivilegeEscalation=false");
    Finding::new("allowPrivilegeEscalation != false", detail)
}

fn capabilities(pod: Pod<'_>) -> Option<Finding> {
    let (mut keeping, mut adding, mut added) = (Vec::new(), Vec::new(), BTreeSet::new());
    for container in pod.containers() {
        let name = text(container, "name");
        let capabilities = security(container, "capabilities");
        if !list(capabilities, "drop").any(|one| one == "ALL") {
            keeping.push(name);
        }
        let mut bad = false;
        for one in list(capabilities, "add").filter_map(Value::as_str) {
            if one != "NET_BIND_SERVICE" {
                bad = true;
                added.insert(one);
            }
        }
        if bad {
            adding.push(name);
        }
    }
    let mut details = Vec::new();
    if !keeping.is_empty() {
        let who = containers(&keeping);
        details.push(format!(
            "{who} must set securityContext.capabilities.drop=[\"ALL\"]"
        ));
    }
    if !adding.is_empty() {
        let (who, what) = (containers(&adding), quoted(added));
        details.push(format!(
            "{who} must not include {what} in securityContext.capabilities.add"
        ));
    }
    if details.is_empty() {
        return None;
    }
    Finding::new("unrestricted capabilities", details.join("; "))
}

fn volumes(pod: Pod<'_>) -> Option<Finding> {
    const GOOD: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    const BAD: [&str; 21] = [
        "hostPath",
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "gitRepo",
        "nfs",
        "iscsi",
        "glusterfs",
        "rbd",
        "flexVolume",
        "cinder",
        "cephfs",
        "flocker",
        "fc",
        "azureFile",
        "vsphereVolume",
        "quobyte",
        "azureDisk",
        "photonPersistentDisk",
        "portworxVolume",
        "scaleIO",
        "storageos",
    ];
    let (mut names, mut kinds) = (Vec::new(), BTreeSet::new());
    for volume in list(pod.spec, "volumes") {
        let has = |kind: &&&str| volume.get(**kind).is_some_and(|source| !source.is_null());
        if GOOD.iter().find(has).is_some() {
            continue;
        }
        names.push(text(volume, "name"));
        kinds.insert(BAD.iter().find(has).copied().unwrap_or("unknown"));
    }
    if names.is_empty() {
        return None;
    }
    let word = plural("volume", "volumes", names.len());
    let use_ = plural("uses", "use", names.len());
    let what = plural(
        "restricted volume type",
        "restricted volume types",
        kinds.len(),
    );
    let (names, kinds) = (quoted(&names), quoted(kinds));
    Finding::new(
        "restricted volume types",
        format!("{word} {names} {use_} {what} {kinds}"),
    )
}

fn non_root(pod: Pod<'_>) -> Option<Finding> {
    let (by_pod, pod_says_so) = match pod.security("runAsNonRoot") {
        Value::Bool(says) => (!says, *says),
        _ => (false, false),
    };
    let says = |container: &Value| security(container, "runAsNonRoot").as_bool();
    let explicit = pod.named(|container| says(container) == Some(false));
    if let Some(who) = setters(by_pod, &explicit) {
        let detail = format!("{who} must not set securityContext.runAsNonRoot=false");
        return Finding::new("runAsNonRoot != true", detail);
    }
    let silent = pod.named(|container| says(container).is_none() && !pod_says_so);
    if silent.is_empty() {
        return None;
    }
    let who = containers(&silent);
    let detail = format!("pod or {who} must set securityContext.runAsNonRoot=true");
    Finding::new("runAsNonRoot != true", detail)
}

fn root_user(pod: Pod<'_>) -> Option<Finding> {
    let is_root = |holder: &Value| security(holder, "runAsUser").as_i64() == Some(0);
    let names = pod.named(is_root);
    let who = setters(is_root(pod.spec), &names)?;
    Finding::new("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

fn seccomp_restricted(pod: Pod<'_>) -> Option<Finding> {
    if let Some(finding) = seccomp(pod) {
        return Some(finding);
    }
    if seccomp_profile(pod.spec).is_some() {
        return None;
    }
    let silent = pod.named(|container| seccomp_profile(container).is_none());
    if silent.is_empty() {
        return None;
    }
    let who = containers(&silent);
    let detail = format!(
        "pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
         \"Localhost\""
    );
    Finding::new("seccompProfile", detail)
}
