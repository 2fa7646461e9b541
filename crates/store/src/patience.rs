//! The checkpoint's file as redb sees it. A full disk would make redb refuse
//! everything from then on, reads too; so a write that finds no room waits
//! here for it, on the checkpoint thread, while all others go on.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use redb::StorageBackend;

/// Nothing tells when a disk has room again: look this often, while waiting.
const RETRY: Duration = Duration::from_secs(1);

/// Whether the checkpoint waits for room, and may.
#[derive(Debug, Default)]
pub(crate) struct Space {
    stalled: Mutex<bool>,
    retry: Condvar,
    patient: AtomicBool,
}

impl Space {
    /// Whether writes that find no room wait, or fail.
    pub(crate) fn set_patient(&self, patient: bool) {
        self.patient.store(patient, Ordering::Release);
        self.retry.notify_all();
    }

    pub(crate) fn is_patient(&self) -> bool {
        self.patient.load(Ordering::Acquire)
    }

    pub(crate) fn is_stalled(&self) -> bool {
        *self.stalled.lock()
    }

    /// Lets a waiting write try again now.
    pub(crate) fn nudge(&self) {
        self.retry.notify_all();
    }

    /// Waits a while; `false` when the write should fail after all.
    fn wait(&self) -> bool {
        let mut stalled = self.stalled.lock();
        if self.is_patient() {
            if !*stalled {
                tracing::warn!("disk is full, the checkpoint waits");
            }
            *stalled = true;
            self.retry.wait_for(&mut stalled, RETRY);
        }
        self.is_patient()
    }

    fn go_on(&self) {
        let mut stalled = self.stalled.lock();
        if std::mem::take(&mut *stalled) {
            tracing::info!("disk has room again, the checkpoint goes on");
        }
    }
}

/// Whether the file system ran out of room, as opposed to failing.
pub(crate) fn is_full_disk(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// See the module. The store's own lock keeps other processes away.
#[derive(Debug)]
pub(crate) struct PatientFile {
    pub(crate) file: File,
    pub(crate) space: Arc<Space>,
}

impl PatientFile {
    fn patiently(&self, write: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
        loop {
            match write(&self.file) {
                Err(error) if is_full_disk(&error) && self.space.wait() => {}
                written => {
                    self.space.go_on();
                    return written;
                }
            }
        }
    }
}

impl StorageBackend for PatientFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.patiently(|file| file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.patiently(|file| file.write_all_at(data, offset))
    }
}
