//! The allocator of a process, by what the process is for: mimalloc for servers, where half of the
//! time would go into the C library's, and that one for pods' supervisors, which must be small.
//!
//! The choice is made before anything is allocated, and for the life of the process: what one
//! allocator gave the other must never take back.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

use mimalloc::MiMalloc;

/// Whether this is a process that must be small.
static IS_SMALL: AtomicBool = AtomicBool::new(false);
/// First arguments of processes that are small and many.
const SMALL: [&[u8]; 2] = [b"supervise", b"demo-app"];

/// The allocator, to be named as the program's global one.
#[derive(Debug)]
pub struct ByRole;

// SAFETY: every block is given and taken back by the same allocator, for the choice between the
// two is made by `choose`, before the first allocation, and never again; each of them keeps the
// trait's contract, as the caller does.
unsafe impl GlobalAlloc for ByRole {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match IS_SMALL.load(Ordering::Relaxed) {
            // SAFETY: see above.
            true => unsafe { System.alloc(layout) },
            // SAFETY: see above.
            false => unsafe { MiMalloc.alloc(layout) },
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match IS_SMALL.load(Ordering::Relaxed) {
            // SAFETY: see above.
            true => unsafe { System.dealloc(block, layout) },
            // SAFETY: see above.
            false => unsafe { MiMalloc.dealloc(block, layout) },
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match IS_SMALL.load(Ordering::Relaxed) {
            // SAFETY: see above.
            true => unsafe { System.alloc_zeroed(layout) },
            // SAFETY: see above.
            false => unsafe { MiMalloc.alloc_zeroed(layout) },
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match IS_SMALL.load(Ordering::Relaxed) {
            // SAFETY: see above.
            true => unsafe { System.realloc(block, layout, size) },
            // SAFETY: see above.
            false => unsafe { MiMalloc.realloc(block, layout, size) },
        }
    }
}

/// glibc calls what is listed here before `main`, and so before Rust allocates, with the
/// program's arguments.
#[cfg(target_env = "gnu")]
#[used]
// SAFETY: the section holds pointers to functions of this type, and nothing else.
#[unsafe(link_section = ".init_array.00098")]
static CHOOSE: extern "C" fn(libc::c_int, *const *const libc::c_char) = choose;

#[cfg(target_env = "gnu")]
extern "C" fn choose(count: libc::c_int, arguments: *const *const libc::c_char) {
    if count < 2 || arguments.is_null() {
        return;
    }
    // SAFETY: glibc passes `count` pointers to strings that end with a zero.
    let first = unsafe { std::ffi::CStr::from_ptr(*arguments.add(1)) };
    if SMALL.contains(&first.to_bytes()) {
        IS_SMALL.store(true, Ordering::Relaxed);
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    /// One test, for both parts set what all tests of this program share.
    #[test]
    fn the_first_argument_decides_for_good() {
        let layout = Layout::from_size_align(24, 8).unwrap();
        let check = |words: &[&std::ffi::CStr], small: bool| {
            IS_SMALL.store(false, Ordering::Relaxed);
            let pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
            choose(words.len() as libc::c_int, pointers.as_ptr());
            assert_eq!(IS_SMALL.load(Ordering::Relaxed), small);
            // Nobody but this uses `ByRole` here.
            // SAFETY: the block is used within its size, grown once and freed once.
            unsafe {
                let block = ByRole.alloc_zeroed(layout);
                assert_eq!(std::slice::from_raw_parts(block, 24), [0; 24]);
                block.write_bytes(7, 24);
                let grown = ByRole.realloc(block, layout, 4096);
                assert_eq!(std::slice::from_raw_parts(grown, 24), [7; 24]);
                ByRole.dealloc(grown, Layout::from_size_align(4096, 8).unwrap());
            }
        };
        check(&[c"sampan"], false);
        check(&[c"sampan", c"server", c"supervise"], false);
        check(&[c"sampan", c"supervise", c"/run/pod"], true);
        IS_SMALL.store(false, Ordering::Relaxed);
    }
}
