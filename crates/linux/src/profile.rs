//! A sampling profiler: at which instructions the threads of this process spend processor time.
//!
//! Rules of this file. The kernel interrupts whichever thread is using the processor; what runs
//! then may neither allocate nor take a lock. It takes a slot of memory that was made beforehand
//! by one atomic addition, and lets the unwinder of the C runtime walk the stack, which reads
//! unwind tables without a lock (glibc 2.35's `_dl_find_object`). The memory is given back only
//! after no thread is inside of the handler any more. Nothing of this costs anything while no
//! profile is taken; the handler stays, for the last tick may arrive after the timer was stopped
//! and would end the process otherwise.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Ticks in a second of processor time.
pub const HERTZ: usize = 100;
/// Callers that are kept of each sample.
const DEPTH: usize = 64;
/// Samples of one profile; later ones are counted only.
const SAMPLES_MAX: usize = 16_384;

static RUNNING: AtomicBool = AtomicBool::new(false);
static BUFFER: AtomicPtr<Buffer> = AtomicPtr::new(ptr::null_mut());
/// Threads inside of the handler.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

struct Buffer {
    next: AtomicUsize,
    slots: Box<[Slot]>,
}

struct Slot {
    length: AtomicUsize,
    addresses: [AtomicUsize; DEPTH],
}

/// A profile that is being taken; it ends when it is dropped.
#[derive(Debug)]
pub struct Profile(());

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// Instructions, the innermost first; those of callers lie inside of the call.
    pub stacks: Vec<Vec<usize>>,
    /// Ticks for which there was no room.
    pub lost: usize,
}

impl Profile {
    /// Begins a profile with room for so many seconds on so many processors. There can be one at
    /// a time: `ResourceBusy` otherwise.
    pub fn start(seconds: usize, processors: usize) -> io::Result<Profile> {
        if RUNNING.swap(true, Ordering::SeqCst) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let count = seconds.saturating_mul(processors).saturating_mul(HERTZ);
        let slot = |_| Slot {
            length: AtomicUsize::new(0),
            addresses: [const { AtomicUsize::new(0) }; DEPTH],
        };
        let buffer = Box::new(Buffer {
            next: AtomicUsize::new(0),
            slots: (0..count.min(SAMPLES_MAX)).map(slot).collect(),
        });
        // What the unwinder does at its first use is done here, and not in a signal handler.
        walk(0, &slot(0));
        BUFFER.store(Box::into_raw(buffer), Ordering::SeqCst);
        // From here on `drop` cleans up.
        let profile = Profile(());
        let action = SigAction::new(
            SigHandler::SigAction(on_tick),
            SaFlags::SA_RESTART | SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK,
            SigSet::empty(),
        );
        // SAFETY: the handler does only what may be done in one, see above.
        unsafe { sigaction(Signal::SIGPROF, &action) }?;
        set_timer(1_000_000 / HERTZ)?;
        Ok(profile)
    }

    /// Ends it.
    pub fn finish(self) -> Samples {
        let samples = end().map(|buffer| {
            let taken = buffer.next.load(Ordering::Relaxed);
            let stacks = buffer.slots.iter().take(taken).map(|slot| {
                let length = slot.length.load(Ordering::Relaxed);
                let addresses = slot.addresses.iter().take(length);
                addresses.map(|own| own.load(Ordering::Relaxed)).collect()
            });
            Samples {
                stacks: stacks.collect(),
                lost: taken.saturating_sub(buffer.slots.len()),
            }
        });
        samples.unwrap_or_default()
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        drop(end());
        RUNNING.store(false, Ordering::SeqCst);
    }
}

/// Stops the timer and takes back the memory.
fn end() -> Option<Box<Buffer>> {
    // Stopping a timer that is there cannot fail.
    let _ = set_timer(0);
    let buffer = BUFFER.swap(ptr::null_mut(), Ordering::SeqCst);
    while INSIDE.load(Ordering::SeqCst) > 0 {
        std::thread::yield_now();
    }
    // SAFETY: a pointer that is not null came from `Box::into_raw`, and the swap gave it to us
    // alone. A thread that had read it before was counted in `INSIDE`, which was zero since.
    (!buffer.is_null()).then(|| unsafe { Box::from_raw(buffer) })
}

fn set_timer(microseconds: usize) -> io::Result<()> {
    let time = libc::timeval {
        tv_sec: 0,
        tv_usec: libc::suseconds_t::try_from(microseconds).map_err(io::Error::other)?,
    };
    let value = libc::itimerval {
        it_interval: time,
        it_value: time,
    };
    // SAFETY: `value` outlives the call; the old value is not asked for.
    match unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const value, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn on_tick(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    INSIDE.fetch_add(1, Ordering::SeqCst);
    // SAFETY: the buffer lives while `INSIDE` counts us, see `end`.
    if let Some(buffer) = unsafe { BUFFER.load(Ordering::SeqCst).as_ref() } {
        let index = buffer.next.fetch_add(1, Ordering::Relaxed);
        if let Some(slot) = buffer.slots.get(index) {
            // SAFETY: the kernel gives handlers with SA_SIGINFO a valid `ucontext_t`.
            let interrupted = unsafe { instruction(context) };
            // SAFETY: `errno` belongs to this thread, whose other half must not see it change.
            let errno = unsafe { libc::__errno_location() };
            // SAFETY: as above.
            let before = unsafe { *errno };
            walk(interrupted, slot);
            // SAFETY: as above.
            unsafe { *errno = before };
        }
    }
    INSIDE.fetch_sub(1, Ordering::SeqCst);
}

/// Where the thread was interrupted.
///
/// # Safety
/// `context` must be what the kernel gave to a signal handler.
unsafe fn instruction(context: *mut c_void) -> usize {
    let context = context.cast::<libc::ucontext_t>();
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise.
    let place = unsafe { (*context).uc_mcontext.gregs[libc::REG_RIP as usize] };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the caller's promise.
    let place = unsafe { (*context).uc_mcontext.pc };
    place as usize
}

/// A stack on its way into a slot: frames of the handler itself are passed over.
struct Walk<'slot> {
    interrupted: usize,
    begun: bool,
    slot: &'slot Slot,
}

/// Notes the callers of the interrupted instruction; it alone where the unwinder does not find it.
fn walk(interrupted: usize, slot: &Slot) {
    let mut walk = Walk {
        interrupted,
        begun: false,
        slot,
    };
    // SAFETY: `frame` is called with our own `walk` only while it lives, and does not unwind.
    unsafe { _Unwind_Backtrace(frame, (&raw mut walk).cast()) };
    if !walk.begun {
        push(slot, interrupted);
    }
}

extern "C" fn frame(context: *mut c_void, walk: *mut c_void) -> c_int {
    const GO_ON: c_int = 0;
    const END_OF_STACK: c_int = 5;
    // SAFETY: `walk` is what `walk()` passed on, and nobody else uses it meanwhile.
    let walk = unsafe { &mut *walk.cast::<Walk<'_>>() };
    let mut exact: c_int = 0;
    // SAFETY: the unwinder's own context, for the duration of this call.
    let address = unsafe { _Unwind_GetIPInfo(context, &raw mut exact) };
    walk.begun |= address == walk.interrupted;
    if address == 0 {
        return END_OF_STACK;
    }
    // What is returned to lies behind the call, and may be another function already.
    let inside = address - usize::from(exact == 0 && address != walk.interrupted);
    if walk.begun && !push(walk.slot, inside) {
        return END_OF_STACK;
    }
    GO_ON
}

/// Whether there was room.
fn push(slot: &Slot, address: usize) -> bool {
    let length = slot.length.load(Ordering::Relaxed);
    let Some(place) = slot.addresses.get(length) else {
        return false;
    };
    place.store(address, Ordering::Relaxed);
    slot.length.store(length + 1, Ordering::Relaxed);
    true
}

// Part of the C runtime that unwinds panics, hence linked already.
unsafe extern "C" {
    fn _Unwind_Backtrace(
        frame: extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIPInfo(context: *mut c_void, exact: *mut c_int) -> usize;
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    use super::*;

    #[inline(never)]
    fn work(until: impl Fn() -> bool) {
        let mut sum = 0_u64;
        while !until() {
            for number in 0..10_000 {
                sum = black_box(sum.wrapping_mul(31).wrapping_add(number));
            }
        }
    }

    #[test]
    fn stacks_of_busy_threads_are_seen() {
        let profile = Profile::start(10, 4).unwrap();
        let busy = Profile::start(1, 1).unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        let enough = || INSIDE.load(Ordering::SeqCst) == 0 && seen() >= 5;
        let limit = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            scope.spawn(|| work(|| enough() || Instant::now() > limit));
        });
        let samples = profile.finish();
        assert!(samples.stacks.len() >= 5, "{}", samples.stacks.len());
        let deep = samples.stacks.iter().filter(|stack| stack.len() > 3);
        assert!(deep.count() > 0, "{:?}", samples.stacks);
        // And again, which shows that the first one is over.
        let again = Profile::start(1, 1).unwrap();
        drop(again);
        assert!(!RUNNING.load(Ordering::SeqCst));
        assert!(BUFFER.load(Ordering::SeqCst).is_null());
    }

    fn seen() -> usize {
        // SAFETY: only this test ends the profile.
        let buffer = unsafe { BUFFER.load(Ordering::SeqCst).as_ref() };
        buffer.map_or(0, |buffer| buffer.next.load(Ordering::Relaxed))
    }
}
