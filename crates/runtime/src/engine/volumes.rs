//! Images as volumes: which layers, and whether a path is in them.

use std::path::{Component, Path};

use node_api::{Mount, RuntimeError};
use oci::{ImageRecord, Store};

use crate::spec::ImageVolume;

/// Finds the image of a mount. A path that the image does not have is an error here, not first when
/// the container starts.
pub(super) fn find(
    store: &Store,
    mount: &Mount,
) -> Result<(ImageVolume, ImageRecord), RuntimeError> {
    let wish = mount.image.clone().unwrap_or_default();
    let image = store.get(&wish.image).map_err(super::images::explain)?;
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if !wish.sub_path.components().all(plain) {
        return Err(RuntimeError::InvalidArgument(format!(
            "image volume {}: sub path {:?} is not a plain relative path",
            mount.container_path.display(),
            wish.sub_path
        )));
    }
    let layers: Vec<_> = image
        .layers
        .iter()
        .rev()
        .map(|layer| layer.diff_id.clone())
        .collect();
    let folders = layers.iter().map(|id| store.layer_folder(id));
    if !holds(folders, &wish.sub_path) {
        return Err(RuntimeError::InvalidArgument(format!(
            "image volume {}: no {:?} in image {}",
            mount.container_path.display(),
            wish.sub_path,
            wish.user_specified_image
        )));
    }
    let volume = ImageVolume {
        container_path: mount.container_path.clone(),
        layers: layers.iter().map(|id| id.hex().to_owned()).collect(),
        sub_path: wish.sub_path,
        propagation: mount.propagation,
    };
    Ok((volume, image))
}

/// Whether a path is in a stack of layers, the topmost first. What lies behind a link is taken to
/// be there: where it leads is known only when all are mounted.
fn holds(mut layers: impl Iterator<Item = std::path::PathBuf>, path: &Path) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    if path.as_os_str().is_empty() {
        return true;
    }
    layers
        .find_map(|layer| {
            let mut reached = layer;
            for part in path.components() {
                reached.push(part);
                let found = std::fs::symlink_metadata(&reached).ok()?;
                let kind = found.file_type();
                // The sign of what this layer took away.
                if kind.is_char_device() && found.rdev() == 0 {
                    return Some(false);
                }
                if kind.is_symlink() {
                    return Some(true);
                }
            }
            Some(true)
        })
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_looked_up_from_the_top() {
        let folder = tempfile::tempdir().unwrap();
        let (top, bottom) = (folder.path().join("top"), folder.path().join("bottom"));
        std::fs::create_dir_all(bottom.join("etc/conf")).unwrap();
        std::fs::create_dir_all(top.join("opt")).unwrap();
        std::os::unix::fs::symlink("elsewhere", top.join("link")).unwrap();
        let asked = |path: &str| holds([top.clone(), bottom.clone()].into_iter(), Path::new(path));
        assert!(asked("") && asked("etc/conf") && asked("opt") && asked("link/x"));
        assert!(!asked("etc/none"));
    }
}
