//! `fsGroup`: who owns a volume's files.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::unistd::{Gid, Uid};

use crate::VolumeError;

/// Owner and access of a volume's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ownership {
    pub(crate) fs_group: Option<u32>,
    /// Group gets read, not write.
    pub(crate) read_only: bool,
}

/// The mode a file or folder gets: with a group, the group may read (and write) it, and folders
/// hand the group on.
pub(crate) fn mode_of(owner: Ownership, mode: u32, folder: bool) -> u32 {
    if owner.fs_group.is_none() {
        return mode;
    }
    let access = if owner.read_only { 0o440 } else { 0o660 };
    let search = if folder { 0o2110 } else { 0 };
    mode | access | search
}

/// Sets owner, group and mode of one path.
pub(crate) fn apply(
    path: &Path,
    owner: Ownership,
    mode: u32,
    folder: bool,
    uid: Option<u32>,
) -> Result<(), VolumeError> {
    if owner.fs_group.is_some() || uid.is_some() {
        nix::unistd::chown(
            path,
            uid.map(Uid::from_raw),
            owner.fs_group.map(Gid::from_raw),
        )
        .map_err(|errno| VolumeError::io("chown", path)(errno.into()))?;
    }
    // After chown, which clears the set-group bit.
    let mode = mode_of(owner, mode, folder);
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(VolumeError::io("chmod", path))
}

/// Applies a group to a whole tree. With `on_root_mismatch`, a root that is right already means
/// that the tree is.
pub(crate) fn apply_tree(
    root: &Path,
    owner: Ownership,
    on_root_mismatch: bool,
) -> Result<(), VolumeError> {
    let Some(group) = owner.fs_group else {
        return Ok(());
    };
    let meta = fs::metadata(root).map_err(VolumeError::io("stat", root))?;
    let mode = mode_of(owner, meta.mode() & 0o7777, true);
    if on_root_mismatch && meta.gid() == group && meta.mode() & 0o7777 == mode {
        return Ok(());
    }
    apply_below(root, owner)
}

fn apply_below(path: &Path, owner: Ownership) -> Result<(), VolumeError> {
    let meta = fs::symlink_metadata(path).map_err(VolumeError::io("stat", path))?;
    if meta.file_type().is_symlink() {
        return Ok(());
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path)
            .map_err(VolumeError::io("list", path))?
            .flatten()
        {
            apply_below(&entry.path(), owner)?;
        }
    }
    // The root last: its group says that all below is done.
    apply(path, owner, meta.mode() & 0o7777, meta.is_dir(), None)
}
