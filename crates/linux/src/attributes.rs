//! Extended attributes of files.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

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
