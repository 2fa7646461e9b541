//! Kernel settings of the calling thread's network namespace.

use std::path::Path;

use crate::Error;

/// Sets `/proc/sys/net/ipv4/<name>`; leaves it alone when it already is so,
/// because the folder may be read-only where the setting is right.
pub(crate) fn set(name: &str, value: &str) -> Result<(), Error> {
    write(&Path::new("/proc/sys/net/ipv4").join(name), value)
}

/// The same below `/proc/sys/net/ipv6`.
pub(crate) fn set6(name: &str, value: &str) -> Result<(), Error> {
    write(&Path::new("/proc/sys/net/ipv6").join(name), value)
}

fn write(path: &Path, value: &str) -> Result<(), Error> {
    if std::fs::read_to_string(path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(path, value).map_err(Error::io(format!("set {}", path.display())))
}
