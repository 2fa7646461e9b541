//! Options of the local driver: what is mounted where a volume's files are.

use std::ffi::OsStr;
use std::net::ToSocketAddrs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::answer::Fault;
use crate::wire::Labels;

const KNOWN: [&str; 4] = ["type", "o", "device", "size"];
/// Options that are no use without others.
const NEEDS: [(&str, &[&str]); 3] = [
    ("device", &["type"]),
    ("type", &["device"]),
    ("o", &["device", "type"]),
];
/// Mount options that are flags, and whether they set them.
const FLAGS: [(&str, bool, MsFlags); 19] = [
    ("ro", true, MsFlags::MS_RDONLY),
    ("rw", false, MsFlags::MS_RDONLY),
    ("bind", true, MsFlags::MS_BIND),
    ("rbind", true, MsFlags::MS_BIND.union(MsFlags::MS_REC)),
    ("nosuid", true, MsFlags::MS_NOSUID),
    ("suid", false, MsFlags::MS_NOSUID),
    ("nodev", true, MsFlags::MS_NODEV),
    ("dev", false, MsFlags::MS_NODEV),
    ("noexec", true, MsFlags::MS_NOEXEC),
    ("exec", false, MsFlags::MS_NOEXEC),
    ("sync", true, MsFlags::MS_SYNCHRONOUS),
    ("async", false, MsFlags::MS_SYNCHRONOUS),
    ("dirsync", true, MsFlags::MS_DIRSYNC),
    ("noatime", true, MsFlags::MS_NOATIME),
    ("atime", false, MsFlags::MS_NOATIME),
    ("nodiratime", true, MsFlags::MS_NODIRATIME),
    ("relatime", true, MsFlags::MS_RELATIME),
    ("strictatime", true, MsFlags::MS_STRICTATIME),
    ("defaults", true, MsFlags::empty()),
];

/// Refuses options that the driver does not have.
pub(super) fn check(options: &Labels) -> Result<(), Fault> {
    for name in options.keys() {
        if !KNOWN.contains(&name.as_str()) {
            return Err(Fault::bad(format!("invalid option: {name:?}")));
        }
        let needs = NEEDS.iter().find(|(option, _)| option == name);
        let needs = needs.map_or(&[][..], |(_, needs)| needs);
        if let Some(missing) = needs.iter().find(|need| !options.contains_key(**need)) {
            return Err(Fault::bad(format!("missing required option: {missing:?}")));
        }
    }
    Ok(())
}

/// How much may be in a volume whose folder will be in `folder`; `None` is without limit.
pub(super) fn size(options: &Labels, folder: &Path) -> Result<Option<u64>, Fault> {
    let size = options.get("size").map(|text| crate::quotas::bytes(text));
    let size = size.transpose()?.filter(|size| *size > 0);
    if size.is_some() && !linux::quota::is_supported(folder) {
        return Err(Fault::bad("quota size requested but no quota support"));
    }
    Ok(size)
}

/// Mount options taken apart: flags, and what the file system reads itself.
fn parse(text: &str) -> (MsFlags, String) {
    let (mut flags, mut data) = (MsFlags::empty(), Vec::new());
    for option in text.split(',').filter(|option| !option.is_empty()) {
        match FLAGS.iter().find(|(name, _, _)| *name == option) {
            Some((_, on, flag)) => flags.set(*flag, *on),
            None => data.push(resolved(option)),
        }
    }
    (flags, data.join(","))
}

/// The kernel knows no names of servers.
fn resolved(option: &str) -> String {
    let host = option.strip_prefix("addr=");
    let found = host
        .filter(|host| host.parse::<std::net::IpAddr>().is_err())
        .and_then(|host| (host, 0).to_socket_addrs().ok()?.next());
    match found {
        Some(address) => format!("addr={}", address.ip()),
        None => option.to_owned(),
    }
}

/// Mounts what the options say, unless it is mounted. Blocks as long as the file system does.
pub(super) fn attach(folder: &Path, options: &Labels) -> Result<(), Fault> {
    let option = |name: &str| options.get(name).map_or("", String::as_str);
    let (kind, device) = (option("type"), option("device"));
    if device.is_empty() || is_mounted(folder)? {
        return Ok(());
    }
    let (flags, data) = parse(option("o"));
    let explain = |errno: Errno| {
        Fault::internal(format!(
            "error while mounting volume '{0}': failed to mount local volume: mount {device}:{0}, \
             flags: 0x{1:x}, data: {data}: {2}",
            folder.display(),
            flags.bits(),
            errno.desc().to_lowercase()
        ))
    };
    let words = (!data.is_empty()).then_some(data.as_str());
    mount(Some(device), folder, Some(kind), flags, words).map_err(explain)?;
    let late = flags.difference(MsFlags::MS_BIND.union(MsFlags::MS_REC));
    if !flags.contains(MsFlags::MS_BIND) || late.is_empty() {
        return Ok(());
    }
    // A bind takes no other flags at first.
    let again = late | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
    let changed = mount(None::<&str>, folder, None::<&str>, again, None::<&str>);
    changed.map_err(|errno| {
        // Better nothing than more than was asked for.
        umount2(folder, MntFlags::MNT_DETACH).ok();
        explain(errno)
    })
}

/// Takes away what is mounted on a volume's folder.
pub(super) fn detach(folder: &Path) -> Result<(), Fault> {
    while is_mounted(folder)? {
        let detached = umount2(folder, MntFlags::MNT_DETACH);
        detached.map_err(|errno| {
            Fault::internal(format!("unmount {}: {}", folder.display(), errno.desc()))
        })?;
    }
    Ok(())
}

/// Whether something is mounted there, as this process sees it.
fn is_mounted(folder: &Path) -> Result<bool, Fault> {
    let folder = folder.canonicalize()?;
    let text = std::fs::read("/proc/self/mountinfo")?;
    let mut lines = text.split(|byte| *byte == b'\n');
    Ok(lines.any(|line| {
        let place = line.split(|byte| *byte == b' ').nth(4);
        place.is_some_and(|place| unescaped(place) == folder)
    }))
}

/// The kernel writes blanks and backslashes of paths as octal numbers.
fn unescaped(text: &[u8]) -> PathBuf {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((first, after)) = rest.split_first() {
        let number = (*first == b'\\').then(|| after.get(..3)).flatten();
        let number = number.and_then(|digits| std::str::from_utf8(digits).ok());
        match number.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsStr::from_bytes(&out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Labels {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn options_that_go_together() {
        let whole = options(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]);
        assert!(check(&whole).is_ok() && check(&Labels::new()).is_ok());
        for (pairs, words) in [
            (&[("colour", "red")][..], "invalid option: \"colour\""),
            (&[("type", "nfs")], "missing required option: \"device\""),
        ] {
            assert_eq!(check(&options(pairs)).unwrap_err().message, words);
        }
        let memory = Path::new("/dev/shm");
        let limited = options(&[("size", "10m")]);
        let words = "quota size requested but no quota support";
        assert_eq!(size(&limited, memory).unwrap_err().message, words);
        assert_eq!(size(&options(&[("size", "0")]), memory).unwrap(), None);
    }

    #[test]
    fn flags_and_the_rest() {
        let (flags, data) = parse("ro,size=1m,noexec,rw,addr=192.0.2.1");
        assert_eq!(flags, MsFlags::MS_NOEXEC);
        assert_eq!(data, "size=1m,addr=192.0.2.1");
        assert_eq!(unescaped(b"/a\\040b\\134"), Path::new("/a b\\"));
        assert!(is_mounted(Path::new("/proc")).unwrap());
    }
}
