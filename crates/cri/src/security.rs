//! Namespaces and security contexts between CRI's messages and the words of `node-api`.

use std::path::PathBuf;

use node_api::{
    IdMapping, NamespaceMode, NamespaceOptions, PodSandboxStatus, SeccompProfile, SecurityContext,
    UserNamespace,
};
use tonic::Status;

use crate::wire;

pub(crate) fn namespaces(
    options: Option<wire::NamespaceOption>,
) -> Result<NamespaceOptions, Status> {
    let options = options.unwrap_or_default();
    let mode = |mode: wire::NamespaceMode| match mode {
        wire::NamespaceMode::Pod => NamespaceMode::Pod,
        wire::NamespaceMode::Container => NamespaceMode::Container,
        wire::NamespaceMode::Node => NamespaceMode::Node,
        wire::NamespaceMode::Target => NamespaceMode::Target(options.target_id.clone()),
    };
    Ok(NamespaceOptions {
        network: mode(options.network()),
        pid: mode(options.pid()),
        ipc: mode(options.ipc()),
        user: user_namespace(options.userns_options.as_ref())?,
    })
}

fn user_namespace(options: Option<&wire::UserNamespace>) -> Result<Option<UserNamespace>, Status> {
    let Some(options) = options else {
        return Ok(None);
    };
    match options.mode() {
        wire::NamespaceMode::Node if options.uids.is_empty() && options.gids.is_empty() => Ok(None),
        wire::NamespaceMode::Node => Err(Status::invalid_argument(
            "ids cannot be mapped in the node's user namespace",
        )),
        wire::NamespaceMode::Pod => Ok(Some(UserNamespace {
            uids: mappings(&options.uids),
            gids: mappings(&options.gids),
        })),
        other => Err(Status::invalid_argument(format!(
            "user namespace mode {other:?} is not supported"
        ))),
    }
}

pub(crate) fn mappings(ranges: &[wire::IdMapping]) -> Vec<IdMapping> {
    let range = |one: &wire::IdMapping| IdMapping {
        host_id: one.host_id,
        container_id: one.container_id,
        length: one.length,
    };
    ranges.iter().map(range).collect()
}

pub(crate) fn mappings_of(ranges: &[IdMapping]) -> Vec<wire::IdMapping> {
    let range = |one: &IdMapping| wire::IdMapping {
        host_id: one.host_id,
        container_id: one.container_id,
        length: one.length,
    };
    ranges.iter().map(range).collect()
}

pub(crate) fn namespaces_of(own: &NamespaceOptions) -> wire::NamespaceOption {
    let mode = |mode: &NamespaceMode| -> i32 {
        match mode {
            NamespaceMode::Pod => wire::NamespaceMode::Pod,
            NamespaceMode::Container => wire::NamespaceMode::Container,
            NamespaceMode::Node => wire::NamespaceMode::Node,
            NamespaceMode::Target(_) => wire::NamespaceMode::Target,
        }
        .into()
    };
    wire::NamespaceOption {
        network: mode(&own.network),
        pid: mode(&own.pid),
        ipc: mode(&own.ipc),
        target_id: match &own.pid {
            NamespaceMode::Target(id) => id.clone(),
            _ => String::new(),
        },
        userns_options: own.user.as_ref().map(|user| wire::UserNamespace {
            mode: wire::NamespaceMode::Pod.into(),
            uids: mappings_of(&user.uids),
            gids: mappings_of(&user.gids),
        }),
    }
}

/// The context of a container. Without one the engine's own lists of hidden paths count; with one,
/// empty lists hide nothing, for that is how clients say so.
pub(crate) fn context(
    given: Option<wire::LinuxContainerSecurityContext>,
    sandbox: &PodSandboxStatus,
) -> Result<SecurityContext, Status> {
    let Some(given) = given else {
        return Ok(SecurityContext {
            namespaces: sandbox.config.namespaces.clone(),
            ..SecurityContext::default()
        });
    };
    if given.run_as_group.is_some()
        && given.run_as_user.is_none()
        && given.run_as_username.is_empty()
    {
        return Err(Status::invalid_argument(
            "user group is specified without user",
        ));
    }
    refuse_apparmor(given.apparmor.as_ref())?;
    let strict = given.supplemental_groups_policy() == wire::SupplementalGroupsPolicy::Strict;
    let username = given.run_as_username;
    let capabilities = given.capabilities.unwrap_or_default();
    Ok(SecurityContext {
        privileged: given.privileged,
        add_capabilities: capabilities.add_capabilities,
        drop_capabilities: capabilities.drop_capabilities,
        ambient_capabilities: capabilities.add_ambient_capabilities,
        namespaces: container_namespaces(given.namespace_options, sandbox)?,
        run_as_user: given.run_as_user.map(|id| id.value),
        run_as_username: (!username.is_empty()).then_some(username),
        run_as_group: given.run_as_group.map(|id| id.value),
        supplemental_groups: given.supplemental_groups,
        supplemental_groups_strict: strict,
        readonly_rootfs: given.readonly_rootfs,
        no_new_privs: given.no_new_privs,
        masked_paths: Some(given.masked_paths),
        readonly_paths: Some(given.readonly_paths),
        seccomp: seccomp(given.seccomp),
    })
}

/// Those of the sandbox where the container has no wishes.
fn container_namespaces(
    options: Option<wire::NamespaceOption>,
    sandbox: &PodSandboxStatus,
) -> Result<NamespaceOptions, Status> {
    let pod = &sandbox.config.namespaces;
    if options.is_none() {
        return Ok(pod.clone());
    }
    let mut own = namespaces(options)?;
    // "The pod's" is nobody's where the pod shares none.
    if own.pid == NamespaceMode::Pod {
        own.pid = pod.pid.clone();
    }
    Ok(own)
}

/// Without a profile there is no filter: a client that wants the default says so.
fn seccomp(profile: Option<wire::SecurityProfile>) -> SeccompProfile {
    let Some(profile) = profile else {
        return SeccompProfile::Unconfined;
    };
    match profile.profile_type() {
        wire::ProfileType::RuntimeDefault => SeccompProfile::RuntimeDefault,
        wire::ProfileType::Unconfined => SeccompProfile::Unconfined,
        wire::ProfileType::Localhost => {
            SeccompProfile::Localhost(PathBuf::from(profile.localhost_ref))
        }
    }
}

/// The default may be nothing; a profile that was asked for by name may not.
fn refuse_apparmor(profile: Option<&wire::SecurityProfile>) -> Result<(), Status> {
    match profile {
        Some(profile) if profile.profile_type() == wire::ProfileType::Localhost => {
            Err(Status::failed_precondition(format!(
                "AppArmor profile {:?}: AppArmor is not supported",
                profile.localhost_ref
            )))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(mode: wire::NamespaceMode, ranges: usize) -> Result<Option<UserNamespace>, Status> {
        let range = wire::IdMapping {
            host_id: 1000,
            container_id: 0,
            length: 10,
        };
        user_namespace(Some(&wire::UserNamespace {
            mode: mode.into(),
            uids: vec![range; ranges],
            gids: vec![range; ranges],
        }))
    }

    #[test]
    fn a_user_namespace_is_the_pods_or_the_nodes() {
        assert_eq!(asked(wire::NamespaceMode::Node, 0).unwrap(), None);
        assert!(asked(wire::NamespaceMode::Node, 1).is_err());
        let own = asked(wire::NamespaceMode::Pod, 1).unwrap().unwrap();
        assert_eq!(own.uids[0].host_id, 1000);
        for mode in [wire::NamespaceMode::Container, wire::NamespaceMode::Target] {
            assert!(asked(mode, 1).is_err());
        }
        assert_eq!(user_namespace(None).unwrap(), None);
    }
}
