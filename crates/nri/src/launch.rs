//! Plugins that come with the machine: programs in a folder, started with us.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::register::{Given, check_index};

/// Programs called by an index and a name, such as `10-logger`, with what is configured for them.
pub(crate) fn discover(folder: &Path, drop_ins: &Path) -> io::Result<Vec<(PathBuf, Given)>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let metadata = std::fs::metadata(&path)?;
        if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match name
            .split_once('-')
            .map(|(index, base)| (check_index(index), index, base))
        {
            Some((Ok(()), index, base)) => {
                let given = Given {
                    index: index.to_owned(),
                    base: base.to_owned(),
                    config: configuration(drop_ins, &name, base)?,
                };
                found.push((path.clone(), given));
            }
            _ => tracing::warn!(
                path = %path.display(),
                "not an NRI plugin: its name must begin with two digits and a hyphen"
            ),
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

/// The file of the plugin's whole name, else that of its name without index.
fn configuration(drop_ins: &Path, name: &str, base: &str) -> io::Result<String> {
    for name in [name, base] {
        match std::fs::read_to_string(drop_ins.join(format!("{name}.conf"))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    Ok(String::new())
}

/// Starts a plugin, connected by its standard input. It ends when the returned child is dropped.
pub(crate) fn start(path: &Path, given: &Given) -> io::Result<(UnixStream, Child)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let child = Command::new(path)
        .env_clear()
        .env("NRI_PLUGIN_NAME", &given.base)
        .env("NRI_PLUGIN_IDX", &given.index)
        .env("NRI_PLUGIN_SOCKET", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    Ok((UnixStream::from_std(ours)?, child))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_with_their_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let (plugins, drop_ins) = (folder.path().join("plugins"), folder.path().join("conf.d"));
        assert_eq!(discover(&plugins, &drop_ins).unwrap(), []);
        for path in [&plugins, &drop_ins] {
            std::fs::create_dir(path).unwrap();
        }
        for (name, mode) in [
            ("20-b", 0o755),
            ("10-a", 0o700),
            ("30-c", 0o644),
            ("d", 0o755),
        ] {
            std::fs::write(plugins.join(name), "").unwrap();
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(plugins.join(name), permissions).unwrap();
        }
        for (name, text) in [("a.conf", "any"), ("20-b.conf", "own"), ("b.conf", "any")] {
            std::fs::write(drop_ins.join(name), text).unwrap();
        }
        let given = |index: &str, base: &str, config: &str| Given {
            index: index.to_owned(),
            base: base.to_owned(),
            config: config.to_owned(),
        };
        let expected = [
            (plugins.join("10-a"), given("10", "a", "any")),
            (plugins.join("20-b"), given("20", "b", "own")),
        ];
        assert_eq!(discover(&plugins, &drop_ins).unwrap(), expected);
    }
}
