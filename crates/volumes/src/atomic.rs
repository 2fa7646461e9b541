//! Replaces the whole content of a folder at once. Readers follow
//! `name -> ..data/name` and `..data -> ..<timestamp>`; one rename of `..data`
//! switches all files together.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use jiff::Timestamp;

use crate::VolumeError;
use crate::ownership::{self, Ownership};
use crate::payload::{File, Payload};

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// Makes `target` hold exactly `payload`. Returns whether anything changed.
pub(crate) fn write(
    target: &Path,
    payload: &Payload,
    owner: Ownership,
) -> Result<bool, VolumeError> {
    let old = match fs::read_link(target.join(DATA)) {
        Ok(name) => Some(name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(VolumeError::io("read", &target.join(DATA))(error)),
    };
    let same = old
        .as_ref()
        .is_some_and(|name| is_current(&target.join(name), payload, owner));
    if !same {
        let stamp = Timestamp::now()
            .strftime("..%Y_%m_%d_%H_%M_%S.%9f")
            .to_string();
        write_files(&target.join(&stamp), payload, owner)?;
        let next = target.join(DATA_NEXT);
        remove_link(&next)?;
        symlink(&stamp, &next).map_err(VolumeError::io("link", &next))?;
        fs::rename(&next, target.join(DATA)).map_err(VolumeError::io("rename", &next))?;
    }
    link_names(target, payload)?;
    if let Some(old) = old.filter(|_| !same) {
        let old = target.join(old);
        fs::remove_dir_all(&old).map_err(VolumeError::io("remove", &old))?;
    }
    Ok(!same)
}

fn write_files(folder: &Path, payload: &Payload, owner: Ownership) -> Result<(), VolumeError> {
    make_folder(folder, owner)?;
    for (name, file) in &payload.files {
        let path = folder.join(name);
        let mut parent = folder.to_path_buf();
        let parts: Vec<_> = name.split('/').collect();
        for part in &parts[..parts.len() - 1] {
            parent.push(part);
            if !parent.is_dir() {
                make_folder(&parent, owner)?;
            }
        }
        write_file(&path, file, owner)?;
    }
    Ok(())
}

fn make_folder(path: &Path, owner: Ownership) -> Result<(), VolumeError> {
    fs::DirBuilder::new()
        .mode(0o755)
        .create(path)
        .map_err(VolumeError::io("create", path))?;
    // The mode given at creation passes through the umask.
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(VolumeError::io("chmod", path))?;
    ownership::apply(path, owner, 0o755, true, None)
}

fn write_file(path: &Path, file: &File, owner: Ownership) -> Result<(), VolumeError> {
    // base::files is for durable files; these are made anew from the API whenever they are lost.
    fs::write(path, &file.data).map_err(VolumeError::io("write", path))?;
    ownership::apply(path, owner, file.mode, false, file.uid)
}

fn is_current(folder: &Path, payload: &Payload, owner: Ownership) -> bool {
    let mut found = BTreeSet::new();
    collect(folder, folder, &mut found);
    if !found.iter().eq(payload.files.keys()) {
        return false;
    }
    payload.files.iter().all(|(name, file)| {
        let path = folder.join(name);
        let mode = ownership::mode_of(owner, file.mode, false);
        let same_mode = fs::metadata(&path).is_ok_and(|meta| meta.mode() & 0o7777 == mode);
        same_mode && fs::read(&path).is_ok_and(|data| data == file.data)
    })
}

fn collect(root: &Path, folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, found);
        } else if let Ok(relative) = path.strip_prefix(root) {
            found.insert(relative.to_string_lossy().into_owned());
        }
    }
}

/// Links each first path component into `..data`, and drops links whose target left.
fn link_names(target: &Path, payload: &Payload) -> Result<(), VolumeError> {
    let first = |name: &String| name.split('/').next().unwrap_or_default().to_owned();
    let wanted: BTreeSet<String> = payload.files.keys().map(first).collect();
    let entries = fs::read_dir(target).map_err(VolumeError::io("list", target))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(&name) {
            remove_link(&entry.path())?;
        }
    }
    for name in wanted {
        let link = target.join(&name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(&name), &link).map_err(VolumeError::io("link", &link))?;
        }
    }
    Ok(())
}

fn remove_link(path: &Path) -> Result<(), VolumeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(VolumeError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str, u32)]) -> Payload {
        let mut payload = Payload::default();
        for (path, data, mode) in files {
            payload.add(path, data.as_bytes().to_vec(), *mode).unwrap();
        }
        payload
    }

    #[test]
    fn content_is_switched_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path();
        let first = payload(&[("a", "1", 0o644), ("deep/b", "2", 0o400)]);
        assert!(write(target, &first, Ownership::default()).unwrap());
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(target.join("deep/b")).unwrap(), "2");
        let mode = fs::metadata(target.join("deep/b")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o400);

        assert!(
            !write(target, &first, Ownership::default()).unwrap(),
            "nothing changed"
        );

        let held_open = fs::read_link(target.join(DATA)).unwrap();
        let second = payload(&[("a", "new", 0o644), ("c", "3", 0o644)]);
        assert!(write(target, &second, Ownership::default()).unwrap());
        assert_ne!(fs::read_link(target.join(DATA)).unwrap(), held_open);
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "new");
        assert!(!target.join("deep").exists());
        assert!(
            !target.join(held_open).exists(),
            "the old content is removed"
        );
    }

    #[test]
    fn a_path_cannot_leave_the_volume() {
        for path in ["../x", "/etc/passwd", "a/../../x", "", "..data"] {
            assert!(
                Payload::default().add(path, Vec::new(), 0o644).is_err(),
                "{path}"
            );
        }
    }
}
