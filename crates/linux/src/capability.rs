//! Capabilities by name, and what a process keeps of them.
#![allow(unsafe_code)]

use std::io;

/// All names in the order of their numbers.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has unless told otherwise: the fourteen of docker.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

const VERSION_3: u32 = 0x2008_0522;

/// A set of capabilities, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Every capability that has a name.
    pub const ALL: Capabilities = Capabilities((1 << NAMES.len()) - 1);

    /// The default of containers.
    pub fn container_default() -> Capabilities {
        let mut set = Capabilities::default();
        for name in DEFAULT {
            set = set.with(name).unwrap_or(set);
        }
        set
    }

    /// Adds one by name (`NET_ADMIN` or `CAP_NET_ADMIN`); `None` for an unknown name.
    pub fn with(self, name: &str) -> Option<Capabilities> {
        Some(Capabilities(self.0 | 1 << number(name)?))
    }

    /// Removes one by name.
    pub fn without(self, name: &str) -> Option<Capabilities> {
        Some(Capabilities(self.0 & !(1 << number(name)?)))
    }

    /// Whether the named one is in the set.
    pub fn contains(self, name: &str) -> bool {
        number(name).is_some_and(|number| self.0 & 1 << number != 0)
    }

    /// What is in both sets.
    pub fn and(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 & other.0)
    }

    /// The names, such as `CAP_KILL`.
    pub fn names(self) -> Vec<String> {
        let named = |(index, name): (usize, &&str)| {
            (self.0 & 1 << index != 0).then(|| format!("CAP_{name}"))
        };
        NAMES.iter().enumerate().filter_map(named).collect()
    }

    /// What the default becomes by adding and dropping; `ALL` may stand in either list.
    /// A drop wins over an add of the same name, `add: [ALL]` is applied before single drops.
    pub fn for_container(add: &[String], drop: &[String]) -> Result<Capabilities, String> {
        let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
        let mut set = Capabilities::container_default();
        if add.iter().any(is_all) {
            set = Capabilities::ALL;
        }
        if drop.iter().any(is_all) {
            set = Capabilities::default();
        }
        for name in add.iter().filter(|name| !is_all(name)) {
            set = set.with(name).ok_or_else(|| unknown(name))?;
        }
        for name in drop.iter().filter(|name| !is_all(name)) {
            set = set.without(name).ok_or_else(|| unknown(name))?;
        }
        Ok(set)
    }
}

fn unknown(name: &str) -> String {
    format!("unknown capability {name:?}")
}

fn number(name: &str) -> Option<usize> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == short)
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// What this process may use at most.
pub fn permitted() -> io::Result<Capabilities> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 writes two data elements, which is what we pass.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    let (low, high) = (u64::from(data[0].permitted), u64::from(data[1].permitted));
    Ok(Capabilities(low | high << 32).and(Capabilities::ALL))
}

/// Takes everything that is not in `keep` out of the bounding set, for good.
pub fn limit_bounding(keep: Capabilities) -> io::Result<()> {
    for number in 0..NAMES.len() {
        if keep.0 & 1 << number != 0 {
            continue;
        }
        // SAFETY: numbers only. EINVAL: this kernel does not know the capability.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
        let error = io::Error::last_os_error();
        if result == -1 && error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error);
        }
    }
    Ok(())
}

/// Makes `set` the effective and permitted set. What is in `ambient` too is kept through the
/// `execve` of users other than root; nothing else is inheritable.
pub fn apply(set: Capabilities, ambient: Capabilities) -> io::Result<()> {
    let ambient = ambient.and(set);
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let half = |shift: u32| Data {
        effective: (set.0 >> shift) as u32,
        permitted: (set.0 >> shift) as u32,
        inheritable: (ambient.0 >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads two data elements, which is what we pass.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    for number in (0..NAMES.len()).filter(|number| ambient.0 & 1 << number != 0) {
        // SAFETY: numbers only.
        let result = unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_RAISE,
                number,
                0,
                0,
            )
        };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(add: &[&str], drop: &[&str]) -> Vec<String> {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let set = Capabilities::for_container(&list(add), &list(drop)).unwrap();
        set.names()
    }

    #[test]
    fn adding_and_dropping() {
        assert_eq!(made(&[], &[]).len(), 14);
        assert_eq!(
            made(&["NET_BIND_SERVICE"], &["ALL"]),
            ["CAP_NET_BIND_SERVICE"]
        );
        assert_eq!(made(&["all"], &["CAP_SYS_ADMIN"]).len(), 40);
        assert!(!made(&["ALL"], &["sys_admin"]).contains(&"CAP_SYS_ADMIN".to_owned()));
        let fault = Capabilities::for_container(&["FLY".to_owned()], &[]).unwrap_err();
        assert_eq!(fault, "unknown capability \"FLY\"");
    }

    #[test]
    fn our_own_are_known() {
        assert!(permitted().unwrap().contains("CHOWN"));
    }
}
