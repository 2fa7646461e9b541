//! `sampan purge`: removes what outlives a server — containers, mounts, service
//! rules — and leaves its data.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};

use crate::server::engine_config;

/// Cleans up after the server of a data folder, which must not run.
pub(crate) fn run(data_dir: &Path) -> Result<()> {
    let engine = engine_config(data_dir);
    runtime::clean_up(&engine).context("container engine")?;
    proxy::cleanup().context("service rules")?;
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("mount table")?;
    for mount in mounts_below(&table, data_dir) {
        umount2(&mount, MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {}", mount.display()))?;
    }
    // Volumes and addresses belong to containers that are gone now.
    let folders = [
        data_dir.join("kubelet/pods"),
        data_dir.join("network"),
        engine.state,
    ];
    for folder in folders {
        if folder.exists() {
            std::fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    Ok(())
}

/// Mount points below a folder, innermost first.
fn mounts_below(table: &str, folder: &Path) -> Vec<PathBuf> {
    let point = |line: &str| {
        line.split(' ')
            .nth(4)
            .map(|text| PathBuf::from(unescape(text)))
    };
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(point)
        .filter(|point| point.starts_with(folder) && point != folder)
        .collect();
    found.reverse();
    found
}

/// The kernel writes spaces and the like as three octal digits.
fn unescape(text: &str) -> String {
    let mut plain = text.to_owned();
    for (code, character) in [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ] {
        plain = plain.replace(code, character);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_the_folder_are_found() {
        let table = "1 0 0:1 / / rw - ext4 x rw\n\
            2 1 0:2 / /data rw - ext4 x rw\n\
            3 2 0:3 / /data/a rw - tmpfs x rw\n\
            4 3 0:4 / /data/a/b\\040c rw - tmpfs x rw\n\
            5 1 0:5 / /database rw - tmpfs x rw\n";
        let found = mounts_below(table, Path::new("/data"));
        assert_eq!(
            found,
            [PathBuf::from("/data/a/b c"), PathBuf::from("/data/a")]
        );
    }
}
