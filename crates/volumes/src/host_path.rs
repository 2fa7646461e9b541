//! Paths of the node itself.

use std::fs;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use crate::VolumeError;

/// Checks (or creates) the path as its type demands.
pub(crate) fn set_up(source: &HostPathVolumeSource) -> Result<PathBuf, VolumeError> {
    let path = PathBuf::from(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    match kind {
        "DirectoryOrCreate" if !path.exists() => {
            fs::create_dir_all(&path).map_err(VolumeError::io("create", &path))?;
        }
        "FileOrCreate" if !path.exists() => {
            fs::OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o644)
                .open(&path)
                .map_err(VolumeError::io("create", &path))?;
        }
        _ => {}
    }
    check(&path, kind)?;
    Ok(path)
}

fn check(path: &Path, kind: &str) -> Result<(), VolumeError> {
    let found = fs::metadata(path).ok().map(|meta| meta.file_type());
    let is = |test: fn(&fs::FileType) -> bool| found.as_ref().is_some_and(test);
    let (right, what) = match kind {
        "" => return Ok(()),
        "Directory" | "DirectoryOrCreate" => (is(fs::FileType::is_dir), "a directory"),
        "File" | "FileOrCreate" => (is(fs::FileType::is_file), "a file"),
        "Socket" => (is(|t| t.is_socket()), "a socket file"),
        "CharDevice" => (is(|t| t.is_char_device()), "a character device"),
        "BlockDevice" => (is(|t| t.is_block_device()), "a block device"),
        other => {
            let message = format!("{other:?} is an invalid volume type");
            return Err(VolumeError::Refused(message));
        }
    };
    match right {
        true => Ok(()),
        false => Err(VolumeError::Refused(format!(
            "hostPath type check failed: {} is not {what}",
            path.display()
        ))),
    }
}
