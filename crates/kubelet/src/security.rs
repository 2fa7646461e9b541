//! The security context of a container: the pod's, overridden by its own.

use k8s_openapi::api::core::v1::{
    Container, Pod, PodSecurityContext, SeccompProfile as ApiSeccomp, SecurityContext as ApiContext,
};
use node_api::{Image, NamespaceMode, NamespaceOptions, SeccompProfile, SecurityContext};

use crate::config::Config;
use crate::pod::PodExt;

/// The namespaces of a pod's containers.
pub(crate) fn namespaces(pod: &Pod) -> NamespaceOptions {
    let spec = pod.spec();
    let node_or = |node: Option<bool>, other: NamespaceMode| match node {
        Some(true) => NamespaceMode::Node,
        _ => other,
    };
    let shared_pid = match spec.share_process_namespace {
        Some(true) => NamespaceMode::Pod,
        _ => NamespaceMode::Container,
    };
    NamespaceOptions {
        network: node_or(spec.host_network, NamespaceMode::Pod),
        pid: node_or(spec.host_pid, shared_pid),
        ipc: node_or(spec.host_ipc, NamespaceMode::Pod),
        user: None,
    }
}

/// The context of one container, or why the image may not run in it.
pub(crate) fn context(
    pod: &Pod,
    container: &Container,
    image: &Image,
    config: &Config,
) -> Result<SecurityContext, String> {
    let shared = pod.spec().security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let run_as_user = own.run_as_user.or(shared.run_as_user);
    if own.run_as_non_root.or(shared.run_as_non_root) == Some(true) {
        check_non_root(pod, container, image, run_as_user)?;
    }
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let privileged = own.privileged == Some(true);
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    Ok(SecurityContext {
        privileged,
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        ambient_capabilities: Vec::new(),
        namespaces: namespaces(pod),
        run_as_user,
        run_as_username: None,
        run_as_group: own.run_as_group.or(shared.run_as_group),
        supplemental_groups: groups(&shared),
        supplemental_groups_strict: shared.supplemental_groups_policy.as_deref() == Some("Strict"),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        no_new_privs: no_new_privs(&own),
        masked_paths: unmasked.then(Vec::new),
        readonly_paths: unmasked.then(Vec::new),
        seccomp: seccomp(
            own.seccomp_profile.or(shared.seccomp_profile),
            privileged,
            config,
        ),
    })
}

fn groups(shared: &PodSecurityContext) -> Vec<i64> {
    let listed = shared.supplemental_groups.clone().unwrap_or_default();
    listed.into_iter().chain(shared.fs_group).collect()
}

/// Set when escalation is forbidden, except where it could not be held back anyway.
fn no_new_privs(own: &ApiContext) -> bool {
    let admin = own.capabilities.iter().flat_map(|c| c.add.iter().flatten());
    let admin = admin
        .into_iter()
        .any(|c| matches!(c.as_str(), "SYS_ADMIN" | "CAP_SYS_ADMIN"));
    own.allow_privilege_escalation == Some(false) && own.privileged != Some(true) && !admin
}

fn seccomp(profile: Option<ApiSeccomp>, privileged: bool, config: &Config) -> SeccompProfile {
    if privileged {
        return SeccompProfile::Unconfined;
    }
    let Some(profile) = profile else {
        return match config.seccomp_default {
            true => SeccompProfile::RuntimeDefault,
            false => SeccompProfile::Unconfined,
        };
    };
    match profile.type_.as_str() {
        "RuntimeDefault" => SeccompProfile::RuntimeDefault,
        "Localhost" => {
            let name = profile.localhost_profile.unwrap_or_default();
            SeccompProfile::Localhost(config.root_dir.join("seccomp").join(name))
        }
        _ => SeccompProfile::Unconfined,
    }
}

fn check_non_root(
    pod: &Pod,
    container: &Container,
    image: &Image,
    run_as_user: Option<i64>,
) -> Result<(), String> {
    let (pod, name) = (pod.display(), &container.name);
    match (run_as_user, image.uid) {
        (Some(0), _) => Err(format!(
            "container's runAsUser breaks non-root policy (pod: {pod:?}, container: {name})"
        )),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(format!(
            "container has runAsNonRoot and image will run as root (pod: {pod:?}, container: {name})"
        )),
        (None, Some(_)) => Ok(()),
        (None, None) if !image.username.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user \
             is non-root (pod: {pod:?}, container: {name})",
            image.username
        )),
        (None, None) => Err(format!(
            "container has runAsNonRoot and image will run as root (pod: {pod:?}, container: {name})"
        )),
    }
}
