//! Files between us and a client: those it sends, those it gets.

mod receive;
mod send;

pub(crate) use receive::receive;
pub(crate) use send::{mode_of, send, send_tar};

/// Go's bits for kinds of files and what else is no permission.
mod bits {
    pub(super) const FOLDER: u32 = 1 << 31;
    pub(super) const SYMLINK: u32 = 1 << 27;
    pub(super) const DEVICE: u32 = 1 << 26;
    pub(super) const PIPE: u32 = 1 << 25;
    pub(super) const SOCKET: u32 = 1 << 24;
    pub(super) const SETUID: u32 = 1 << 23;
    pub(super) const SETGID: u32 = 1 << 22;
    pub(super) const CHARACTERS: u32 = 1 << 21;
    pub(super) const STICKY: u32 = 1 << 20;
    pub(super) const IRREGULAR: u32 = 1 << 19;
    /// All that make a file something else than a plain one.
    pub(super) const KIND: u32 = FOLDER | SYMLINK | DEVICE | PIPE | SOCKET | CHARACTERS | IRREGULAR;

    /// Bits of permission as the kernel has them.
    pub(super) fn permissions(mode: u32) -> u32 {
        let special = [(SETUID, 0o4000), (SETGID, 0o2000), (STICKY, 0o1000)];
        let special = special.iter().filter(|(bit, _)| mode & bit != 0);
        mode & 0o777 | special.map(|(_, kernel)| kernel).sum::<u32>()
    }

    /// The other way round.
    pub(super) fn of_permissions(mode: u32) -> u32 {
        let special = [(SETUID, 0o4000), (SETGID, 0o2000), (STICKY, 0o1000)];
        let special = special.iter().filter(|(_, kernel)| mode & kernel != 0);
        mode & 0o777 | special.map(|(bit, _)| bit).sum::<u32>()
    }
}
