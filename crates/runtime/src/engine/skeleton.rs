//! What every container has mounted over: a folder of mount points, the lowest layer of all root file
//! systems. What an image lacks of them need not be made, and later removed, for each container.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const FOLDERS: [&str; 5] = ["", "dev", "etc", "proc", "sys"];
const FILES: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];
/// A layer's name may not be longer (the kernel's limit is 255).
const NAME_MAX: usize = 200;

/// Makes the folder unless it is there. Nothing where no overlay could name it: then mount points
/// are made where they are missing.
pub(super) fn make(folder: &Path) -> io::Result<Option<String>> {
    for name in FOLDERS {
        fs::create_dir_all(folder.join(name))?;
        fs::set_permissions(folder.join(name), Permissions::from_mode(0o755))?;
    }
    for name in FILES {
        let path = folder.join(name);
        if !path.exists() {
            fs::write(&path, "")?;
        }
        fs::set_permissions(&path, Permissions::from_mode(0o644))?;
    }
    let name = folder.to_str().filter(|name| name.len() <= NAME_MAX);
    // Old kernels take all layers in one text, where these mean something.
    let plain = name.filter(|name| !name.contains([':', ',', '\\']));
    Ok(plain.map(str::to_owned))
}
