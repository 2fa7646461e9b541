//! Scratch folders that live as long as their pod.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use meta::Quantity;

use crate::ownership::{self, Ownership};
use crate::{VolumeError, mounts};

/// Makes the folder, on a tmpfs of its own when the medium is `Memory`.
pub(crate) fn set_up(
    path: &Path,
    source: &EmptyDirVolumeSource,
    owner: Ownership,
) -> Result<(), VolumeError> {
    let fresh = !path.exists();
    fs::create_dir_all(path).map_err(VolumeError::io("create", path))?;
    match source.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => {
            let limit = source.size_limit.as_ref();
            let limit = limit.and_then(|limit| Quantity::parse(&limit.0).ok());
            let limit = limit.map(Quantity::value).filter(|bytes| *bytes > 0);
            mounts::tmpfs(path, limit)?;
        }
        other => {
            let message = format!("unknown storage medium {other:?}");
            return Err(VolumeError::Refused(message));
        }
    }
    if fresh {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))
            .map_err(VolumeError::io("chmod", path))?;
    }
    ownership::apply_tree(path, owner, true)
}
