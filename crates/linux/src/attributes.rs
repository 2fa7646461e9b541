//! Extended attributes of files.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The kernel's own limit for values and for lists of names.
const VALUE_LIMIT: usize = 64 << 10;

/// Sets an attribute of the file behind `file`, which may be a mere handle (`O_PATH`).
pub fn set(file: BorrowedFd<'_>, name: &str, value: &[u8]) -> io::Result<()> {
    // A handle takes no f*xattr calls, its name under /proc does.
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let name = CString::new(name)?;
    // SAFETY: valid C strings, and a buffer with its own length.
    let result = unsafe {
        libc::setxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The value of an attribute, where there is one.
pub fn get(file: BorrowedFd<'_>, name: &str) -> io::Result<Option<Vec<u8>>> {
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let name = CString::new(name)?;
    let mut value = vec![0u8; VALUE_LIMIT];
    // SAFETY: valid C strings, and a buffer with its own length.
    let length = unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    match usize::try_from(length) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(_negative) => absent(io::Error::last_os_error()).map(|()| None),
    }
}

/// Names of all attributes, in order.
pub fn names(file: BorrowedFd<'_>) -> io::Result<Vec<String>> {
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let mut list = vec![0u8; VALUE_LIMIT];
    // SAFETY: a valid C string, and a buffer with its own length.
    let length = unsafe { libc::listxattr(path.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    let Ok(length) = usize::try_from(length) else {
        return absent(io::Error::last_os_error()).map(|()| Vec::new());
    };
    let names = list[..length].split(|byte| *byte == 0);
    let mut names: Vec<String> = names
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    names.sort();
    Ok(names)
}

/// File systems and kinds of files without attributes have none.
fn absent(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ENODATA | libc::EOPNOTSUPP | libc::EPERM) => Ok(()),
        _ => Err(error),
    }
}
