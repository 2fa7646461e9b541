//! System call filters: the default one for containers, and profiles in the
//! OCI's JSON form. `seccompiler` assembles, we choose.

mod names;

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::capability::Capabilities;

pub use names::number;

/// Why a filter could not be made or set.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("seccomp filter: {0}")]
    Assemble(#[from] seccompiler::BackendError),
    #[error("seccomp filter not accepted by the kernel: {0}")]
    Load(#[from] seccompiler::Error),
    #[error("seccomp profile: {0}")]
    Profile(String),
}

/// Filters to be loaded in this order; the strictest answer counts.
#[derive(Debug)]
pub struct Filters(Vec<BpfProgram>);

/// Namespace flags of clone, which an unprivileged container may not use.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// Allowed only to holders of the capability.
const BY_CAPABILITY: [(&str, &[&str]); 10] = [
    ("DAC_READ_SEARCH", &["open_by_handle_at"]),
    (
        "SYS_ADMIN",
        &[
            "bpf",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount2",
            "unshare",
        ],
    ),
    ("SYS_BOOT", &["reboot"]),
    ("SYS_CHROOT", &["chroot"]),
    (
        "SYS_MODULE",
        &["delete_module", "init_module", "finit_module"],
    ),
    ("SYS_PACCT", &["acct"]),
    (
        "SYS_PTRACE",
        &[
            "kcmp",
            "pidfd_getfd",
            "process_madvise",
            "process_vm_readv",
            "process_vm_writev",
            "ptrace",
        ],
    ),
    ("SYS_RAWIO", &["iopl", "ioperm"]),
    (
        "SYS_TIME",
        &["settimeofday", "clock_settime", "clock_settime64"],
    ),
    (
        "SYS_NICE",
        &[
            "get_mempolicy",
            "mbind",
            "set_mempolicy",
            "set_mempolicy_home_node",
        ],
    ),
];

impl Filters {
    /// The default for containers with these capabilities.
    pub fn container_default(capabilities: Capabilities) -> Result<Filters, SeccompError> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        for name in names::ALLOWED {
            if let Some(number) = number(name) {
                rules.insert(number, Vec::new());
            }
        }
        for (capability, names) in BY_CAPABILITY {
            if capabilities.contains(capability) {
                rules.extend(
                    names
                        .iter()
                        .filter_map(|name| Some((number(name)?, Vec::new()))),
                );
            }
        }
        let admin = capabilities.contains("SYS_ADMIN");
        if !admin {
            let plain = condition(0, SeccompCmpOp::MaskedEq(NEW_NAMESPACES), 0)?;
            insert(&mut rules, "clone", vec![SeccompRule::new(vec![plain])?]);
        }
        let personalities = [0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];
        let mut allowed = Vec::new();
        for value in personalities {
            let same = condition(0, SeccompCmpOp::Eq, value)?;
            allowed.push(SeccompRule::new(vec![same])?);
        }
        insert(&mut rules, "personality", allowed);
        // AF_VSOCK reaches the hypervisor, past every network rule.
        let no_vsock = condition(0, SeccompCmpOp::Ne, 40)?;
        insert(
            &mut rules,
            "socket",
            vec![SeccompRule::new(vec![no_vsock])?],
        );
        // A name the main filter does not know is refused by EPERM, which programs take for a
        // ban; clone3 must look absent, so that the C library falls back to clone.
        let mut filters = Vec::new();
        if !admin {
            insert(&mut rules, "clone3", Vec::new());
            let mut absent = BTreeMap::new();
            insert(&mut absent, "clone3", Vec::new());
            let enosys = SeccompAction::Errno(libc::ENOSYS as u32);
            filters.push(assemble(absent, SeccompAction::Allow, enosys)?);
        }
        let eperm = SeccompAction::Errno(libc::EPERM as u32);
        filters.push(assemble(rules, eperm, SeccompAction::Allow)?);
        Ok(Filters(filters))
    }

    /// A profile in the OCI's (and docker's) JSON form.
    pub fn from_profile(profile: &Profile) -> Result<Filters, SeccompError> {
        let default = action(&profile.default_action, profile.default_errno_ret)?;
        let mut by_action: Vec<(SeccompAction, BTreeMap<i64, Vec<SeccompRule>>)> = Vec::new();
        for entry in &profile.syscalls {
            let chosen = action(&entry.action, entry.errno_ret)?;
            if chosen == default {
                continue;
            }
            let slot = match by_action.iter().position(|(known, _)| *known == chosen) {
                Some(slot) => slot,
                None => {
                    by_action.push((chosen, BTreeMap::new()));
                    by_action.len() - 1
                }
            };
            let Some((_, rules)) = by_action.get_mut(slot) else {
                continue;
            };
            for number in entry.names.iter().filter_map(|name| number(name)) {
                let mut conditions = Vec::new();
                for arg in &entry.args {
                    conditions.push(arg.condition()?);
                }
                let list = rules.entry(number).or_default();
                if !conditions.is_empty() {
                    list.push(SeccompRule::new(conditions)?);
                }
            }
        }
        Filters::layered(default, by_action)
    }

    /// One filter knows two answers. More answers become several filters: each decides about
    /// its own calls, and lets pass what another one decides about.
    fn layered(
        default: SeccompAction,
        by_action: Vec<(SeccompAction, BTreeMap<i64, Vec<SeccompRule>>)>,
    ) -> Result<Filters, SeccompError> {
        if by_action.is_empty() {
            let mut only = BTreeMap::new();
            if default == SeccompAction::Allow {
                return Ok(Filters(Vec::new()));
            }
            insert(&mut only, "exit_group", Vec::new());
            return Ok(Filters(vec![assemble(
                only,
                default,
                SeccompAction::Allow,
            )?]));
        }
        if default == SeccompAction::Allow {
            let build = |(action, rules)| assemble(rules, SeccompAction::Allow, action);
            return Ok(Filters(
                by_action.into_iter().map(build).collect::<Result<_, _>>()?,
            ));
        }
        let mut filters = Vec::new();
        let mut allowed = BTreeMap::new();
        for (action, rules) in by_action {
            for (number, list) in &rules {
                if action == SeccompAction::Allow {
                    allowed.insert(*number, list.clone());
                } else {
                    allowed.entry(*number).or_insert_with(Vec::new);
                }
            }
            if action != SeccompAction::Allow {
                filters.push(assemble(rules, SeccompAction::Allow, action)?);
            }
        }
        filters.push(assemble(allowed, default, SeccompAction::Allow)?);
        Ok(Filters(filters))
    }

    /// Loads them into this process, for good. Needs `CAP_SYS_ADMIN` or no_new_privs.
    pub fn load(&self) -> Result<(), SeccompError> {
        for filter in &self.0 {
            // seccompiler sets no_new_privs by itself, which the caller may not want:
            // the programs are loaded by hand.
            load(filter)?;
        }
        Ok(())
    }
}

#[allow(unsafe_code)]
fn load(filter: &BpfProgram) -> Result<(), SeccompError> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len())
            .map_err(|_| SeccompError::Profile("filter too long".to_owned()))?,
        filter: filter.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the program outlives the call, its length is its own; the kernel checks the rest.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            std::ptr::from_ref(&program),
        )
    };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        return Err(SeccompError::Profile(format!("not accepted: {error}")));
    }
    Ok(())
}

fn insert(rules: &mut BTreeMap<i64, Vec<SeccompRule>>, name: &str, list: Vec<SeccompRule>) {
    if let Some(number) = number(name) {
        rules.insert(number, list);
    }
}

fn condition(
    index: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, SeccompError> {
    let length = SeccompCmpArgLen::Qword;
    Ok(SeccompCondition::new(index, length, operator, value)?)
}

fn assemble(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, SeccompError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    Ok(SeccompFilter::new(rules, otherwise, matching, arch)?.try_into()?)
}

/// The JSON form, as far as Linux on one architecture needs it.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    pub default_action: String,
    #[serde(default)]
    pub default_errno_ret: Option<u32>,
    #[serde(default)]
    pub syscalls: Vec<ProfileEntry>,
}

/// What happens to some system calls.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileEntry {
    pub names: Vec<String>,
    pub action: String,
    #[serde(default)]
    pub errno_ret: Option<u32>,
    #[serde(default)]
    pub args: Vec<ProfileArgument>,
}

/// A condition on one argument.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileArgument {
    pub index: u8,
    pub value: u64,
    #[serde(default)]
    pub value_two: u64,
    pub op: String,
}

impl ProfileArgument {
    fn condition(&self) -> Result<SeccompCondition, SeccompError> {
        let (operator, value) = match self.op.as_str() {
            "SCMP_CMP_NE" => (SeccompCmpOp::Ne, self.value),
            "SCMP_CMP_LT" => (SeccompCmpOp::Lt, self.value),
            "SCMP_CMP_LE" => (SeccompCmpOp::Le, self.value),
            "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, self.value),
            "SCMP_CMP_GE" => (SeccompCmpOp::Ge, self.value),
            "SCMP_CMP_GT" => (SeccompCmpOp::Gt, self.value),
            "SCMP_CMP_MASKED_EQ" => (SeccompCmpOp::MaskedEq(self.value), self.value_two),
            other => return Err(SeccompError::Profile(format!("unknown op {other:?}"))),
        };
        condition(self.index, operator, value)
    }
}

fn action(name: &str, errno: Option<u32>) -> Result<SeccompAction, SeccompError> {
    match name {
        "SCMP_ACT_ALLOW" => Ok(SeccompAction::Allow),
        "SCMP_ACT_ERRNO" => Ok(SeccompAction::Errno(errno.unwrap_or(libc::EPERM as u32))),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Ok(SeccompAction::KillThread),
        "SCMP_ACT_KILL_PROCESS" => Ok(SeccompAction::KillProcess),
        "SCMP_ACT_LOG" => Ok(SeccompAction::Log),
        "SCMP_ACT_TRAP" => Ok(SeccompAction::Trap),
        "SCMP_ACT_TRACE" => Ok(SeccompAction::Trace(errno.unwrap_or(0))),
        other => Err(SeccompError::Profile(format!("unknown action {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_filter_assembles() {
        let plain = Filters::container_default(Capabilities::container_default()).unwrap();
        assert_eq!(plain.0.len(), 2);
        assert_eq!(
            Filters::container_default(Capabilities::ALL)
                .unwrap()
                .0
                .len(),
            1
        );
    }

    #[test]
    fn profiles_with_three_answers_become_layers() {
        let profile = Profile {
            default_action: "SCMP_ACT_ERRNO".to_owned(),
            default_errno_ret: None,
            syscalls: vec![
                ProfileEntry {
                    names: vec!["read".to_owned(), "no_such_call".to_owned()],
                    action: "SCMP_ACT_ALLOW".to_owned(),
                    errno_ret: None,
                    args: Vec::new(),
                },
                ProfileEntry {
                    names: vec!["clone3".to_owned()],
                    action: "SCMP_ACT_ERRNO".to_owned(),
                    errno_ret: Some(38),
                    args: Vec::new(),
                },
            ],
        };
        assert_eq!(Filters::from_profile(&profile).unwrap().0.len(), 2);
        let wrong = Profile {
            default_action: "SCMP_ACT_DANCE".to_owned(),
            ..profile
        };
        assert!(Filters::from_profile(&wrong).is_err());
    }
}
