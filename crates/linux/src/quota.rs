//! Project quotas: how much room a folder and all below it may take on a file system that keeps such
//! accounts (ext4 with `prjquota`, XFS with `pquota`).
//!
//! A project is a number that files carry and new files inherit from their folder. The file system's
//! own accounts tell which numbers are taken, so that nothing else has to be remembered, and whoever
//! else hands out projects there is not disturbed.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// `FS_IOC_FSGETXATTR`, `FS_IOC_FSSETXATTR`: the same on all architectures we know.
const GET_ATTRIBUTES: libc::c_ulong = 0x801c_581f;
const SET_ATTRIBUTES: libc::c_ulong = 0x401c_5820;
/// New files get their folder's project.
const INHERITED: u32 = 0x200;
const PROJECT_QUOTA: u32 = 2;
const GET_QUOTA: u32 = 0x5803;
const SET_QUOTA: u32 = 0x5804;
const VERSION: i8 = 1;
const OF_PROJECT: i8 = 2;
const SOFT_AND_HARD: u16 = 1 << 2 | 1 << 3;
/// Blocks of accounts.
const BLOCK: u64 = 512;
/// Numbers we take, far from those that people give out by hand.
const OURS: std::ops::Range<u32> = 1 << 24..1 << 31;
/// So many taken numbers in a row are no accident.
const TRIES: u32 = 64;

/// `struct fsxattr`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    padding: [u8; 8],
}

/// `struct fs_disk_quota`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Account {
    version: i8,
    flags: i8,
    fields: u16,
    id: u32,
    hard_blocks: u64,
    soft_blocks: u64,
    hard_files: u64,
    soft_files: u64,
    blocks: u64,
    files: u64,
    file_timer: i32,
    block_timer: i32,
    file_warnings: u16,
    block_warnings: u16,
    high_timers: [i8; 4],
    realtime_hard: u64,
    realtime_soft: u64,
    realtime_blocks: u64,
    realtime_timer: i32,
    realtime_warnings: u16,
    padding: [u8; 10],
}

/// Whether the file system of a folder enforces limits of projects.
pub fn is_supported(folder: &Path) -> bool {
    let Ok(file) = File::open(folder) else {
        return false;
    };
    // Project 0 is everything without one; to ask for its account changes nothing.
    let asked = attributes(&file).and_then(|_| account(&file, 0));
    match asked {
        Ok(_) => true,
        // On XFS there may be an account first when there is something to count.
        Err(error) => error.raw_os_error() == Some(libc::ENOENT),
    }
}

/// Makes a folder, with all that comes into it from now on, a project that takes so many bytes at
/// the most; a folder that is one already gets the new limit. It must not hold any files yet: what
/// is there already is not counted.
pub fn limit(folder: &Path, bytes: u64) -> io::Result<()> {
    let file = File::open(folder)?;
    let mut own = attributes(&file)?;
    let project = match own.project {
        0 => free_project(&file)?,
        project => project,
    };
    // First the limit, so that the number is seen to be taken.
    set_limit(&file, project, bytes)?;
    own.project = project;
    own.flags |= INHERITED;
    set_attributes(&file, &own).inspect_err(|_| {
        // What was just taken goes back; the first fault is the one to be told.
        let _ = set_limit(&file, project, 0);
    })
}

/// Makes one more folder part of the project that another is.
pub fn join(folder: &Path, project: u32) -> io::Result<()> {
    let file = File::open(folder)?;
    let mut own = attributes(&file)?;
    own.project = project;
    own.flags |= INHERITED;
    set_attributes(&file, &own)
}

/// The project of a folder; 0 is none.
pub fn project(folder: &Path) -> io::Result<u32> {
    Ok(attributes(&File::open(folder)?)?.project)
}

/// Gives a project's number back, after its files were removed. `beside` is any folder of the file
/// system.
pub fn release(beside: &Path, project: u32) -> io::Result<()> {
    set_limit(&File::open(beside)?, project, 0)
}

/// Bytes that the project of a folder takes, and its limit.
pub fn usage(folder: &Path) -> io::Result<(u64, u64)> {
    let file = File::open(folder)?;
    let account = account(&file, attributes(&file)?.project)?;
    Ok((account.blocks * BLOCK, account.hard_blocks * BLOCK))
}

fn free_project(file: &File) -> io::Result<u32> {
    for _ in 0..TRIES {
        let project = OURS.start + random()? % (OURS.end - OURS.start);
        match account(file, project) {
            Ok(known) if known.hard_blocks | known.soft_blocks | known.hard_files != 0 => {}
            Ok(known) if known.blocks | known.files != 0 => {}
            Ok(_) => return Ok(project),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(project),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no project number is free"))
}

fn random() -> io::Result<u32> {
    let mut bytes = [0u8; 4];
    // SAFETY: the buffer is ours and as long as we say.
    let length = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    match length {
        4 => Ok(u32::from_ne_bytes(bytes)),
        _ => Err(io::Error::last_os_error()),
    }
}

fn attributes(file: &File) -> io::Result<Attributes> {
    let mut own = Attributes::default();
    // SAFETY: the kernel writes a `struct fsxattr`, which `own` is.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), GET_ATTRIBUTES as _, &mut own) };
    checked(result.into()).map(|()| own)
}

fn set_attributes(file: &File, own: &Attributes) -> io::Result<()> {
    // SAFETY: the kernel reads a `struct fsxattr`, which `own` is.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), SET_ATTRIBUTES as _, own) };
    checked(result.into())
}

fn account(file: &File, project: u32) -> io::Result<Account> {
    let mut account = Account::default();
    control(file, GET_QUOTA, project, &mut account).map(|()| account)
}

fn set_limit(file: &File, project: u32, bytes: u64) -> io::Result<()> {
    let mut account = Account {
        version: VERSION,
        flags: OF_PROJECT,
        fields: SOFT_AND_HARD,
        id: project,
        hard_blocks: bytes.div_ceil(BLOCK),
        soft_blocks: bytes.div_ceil(BLOCK),
        ..Account::default()
    };
    control(file, SET_QUOTA, project, &mut account)
}

fn control(file: &File, command: u32, project: u32, account: &mut Account) -> io::Result<()> {
    let command = command << 8 | PROJECT_QUOTA;
    // SAFETY: the kernel reads or writes a `struct fs_disk_quota`, which `account` is.
    let result = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            file.as_raw_fd(),
            command,
            project,
            std::ptr::from_mut(account),
        )
    };
    match checked(result) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            control_by_device(file, command, project, account)
        }
        other => other,
    }
}

/// Kernels before 5.14 want to be told the device.
fn control_by_device(
    file: &File,
    command: u32,
    project: u32,
    account: &mut Account,
) -> io::Result<()> {
    let device = file.metadata()?.dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let path = format!("/dev/block/{major}:{minor}");
    if !Path::new(&path).exists() {
        // A file system of no device, which has no accounts either.
        return Err(io::ErrorKind::Unsupported.into());
    }
    let path = std::ffi::CString::new(path)?;
    // SAFETY: a valid C string, and as above.
    let result = unsafe {
        libc::syscall(
            libc::SYS_quotactl,
            command,
            path.as_ptr(),
            project,
            std::ptr::from_mut(account),
        )
    };
    checked(result)
}

fn checked(result: libc::c_long) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A file system in a file, mounted for as long as this is held.
    struct Mounted(tempfile::TempDir);

    impl Mounted {
        /// `None` where the machine cannot have one; then it was said why.
        fn new(options: &str) -> Option<Mounted> {
            let folder = tempfile::tempdir().unwrap();
            let image = folder.path().join("image");
            File::create(&image).unwrap().set_len(64 << 20).unwrap();
            let made = Command::new("mkfs.ext4")
                .args(["-q", "-O", "quota,project"])
                .arg(&image)
                .status();
            if !made.is_ok_and(|status| status.success()) {
                eprintln!("skipped: mkfs.ext4 makes no file system with projects");
                return None;
            }
            let place = folder.path().join("place");
            std::fs::create_dir(&place).unwrap();
            let mounted = Command::new("mount")
                .args(["-o", options])
                .args([&image, &place])
                .output()
                .unwrap();
            if !mounted.status.success() {
                let told = String::from_utf8_lossy(&mounted.stderr);
                eprintln!("skipped: this kernel does not mount ext4 with projects: {told}");
                return None;
            }
            Some(Mounted(folder))
        }

        fn place(&self) -> std::path::PathBuf {
            self.0.path().join("place")
        }
    }

    impl Drop for Mounted {
        fn drop(&mut self) {
            let place = self.place();
            // The loop device goes with the mount.
            let done = Command::new("umount").arg(place).status();
            assert!(done.unwrap().success());
        }
    }

    /// Bytes that fit into a file of this folder, for somebody whom limits concern.
    fn fill(folder: &Path) -> u64 {
        let script = "for i in 1 2 3 4 5 6 7 8; do head -c 1048576 /dev/zero >> fill || break; done; stat -c %s fill";
        let out = Command::new("setpriv")
            .args(["--bounding-set", "-sys_resource", "sh", "-c", script])
            .current_dir(folder)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        text.trim().parse().unwrap()
    }

    #[test]
    fn a_folder_takes_no_more_than_its_limit() {
        let Some(mounted) = Mounted::new("loop,prjquota") else {
            return;
        };
        let place = mounted.place();
        assert!(is_supported(&place));
        let (one, two) = (place.join("one"), place.join("two"));
        for folder in [&one, &two] {
            std::fs::create_dir(folder).unwrap();
            limit(folder, 2 << 20).unwrap();
        }
        assert_ne!(project(&one).unwrap(), project(&two).unwrap());
        std::fs::create_dir(one.join("below")).unwrap();
        let (below, own) = (one.join("below"), project(&one).unwrap());
        assert_eq!(project(&below).unwrap(), own, "inherited");
        let written = fill(&below);
        assert!((1 << 20..=2 << 20).contains(&written), "{written}");
        assert_eq!(usage(&one).unwrap().1, 2 << 20);
        // A higher limit of the same project.
        limit(&one, 4 << 20).unwrap();
        assert_eq!(project(&one).unwrap(), own);
        assert!(fill(&below) > 2 << 20);
        assert!(fill(&two) >= 1 << 20, "the other has its own");
        std::fs::remove_dir_all(&one).unwrap();
        release(&place, own).unwrap();
        let file = File::open(&place).unwrap();
        let left = account(&file, own).unwrap();
        assert_eq!((left.hard_blocks, left.blocks), (0, 0));
    }

    #[test]
    fn without_accounts_there_are_no_limits() {
        let memory = Path::new("/dev/shm");
        assert!(!is_supported(memory));
        let folder = tempfile::tempdir_in(memory).unwrap();
        assert!(limit(folder.path(), 1 << 20).is_err());
        assert_eq!(size_of::<Account>(), 112);
        assert_eq!(size_of::<Attributes>(), 28);
    }
}
