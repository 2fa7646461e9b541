//! Contexts: the files a build may copy, from the archive that a client sends.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use crate::engine::BuildError;
use crate::ignore::Ignore;

/// The name of the file with patterns of files that are left out.
const IGNORE: &str = ".dockerignore";
/// A Dockerfile that is read is not larger.
const DOCKERFILE_LIMIT: u64 = 16 << 20;

/// Unpacks an archive (plain or compressed) as a context, and takes what it ignores away. Returns the
/// text of the Dockerfile, which may itself be ignored.
pub fn receive(archive: impl Read, folder: &Path, dockerfile: &str) -> Result<String, BuildError> {
    oci::unpack_archive(archive, folder)?;
    let text = read_dockerfile(folder, dockerfile)?;
    let root = linux::root::Root::open(folder).map_err(BuildError::other)?;
    let specific = format!("{dockerfile}{IGNORE}");
    let rules = match read_text(&root, &specific).map_err(BuildError::other)? {
        Some(rules) => Some(rules),
        None => read_text(&root, IGNORE).map_err(BuildError::other)?,
    };
    if let Some(rules) = rules {
        let ignore = Ignore::parse(&rules).map_err(BuildError::other)?;
        if !ignore.is_empty() {
            sweep(folder, "", &ignore).map_err(BuildError::other)?;
        }
    }
    Ok(text)
}

/// The same from a file, which may also be just a Dockerfile.
pub fn receive_file(file: &Path, folder: &Path, dockerfile: &str) -> Result<String, BuildError> {
    let open = || fs::File::open(file).map_err(BuildError::other);
    if oci::is_archive(open()?) {
        return receive(open()?, folder, dockerfile);
    }
    let mut bytes = Vec::new();
    let read = open()?.take(DOCKERFILE_LIMIT).read_to_end(&mut bytes);
    read.map_err(BuildError::other)?;
    String::from_utf8(bytes).map_err(BuildError::other)
}

/// The Dockerfile of a context, by its path in it.
pub fn read_dockerfile(folder: &Path, name: &str) -> Result<String, BuildError> {
    let root = linux::root::Root::open(folder).map_err(BuildError::other)?;
    let found = read_text(&root, name).map_err(BuildError::other)?;
    found.ok_or_else(|| BuildError::Other(format!("Cannot locate specified Dockerfile: {name}")))
}

fn read_text(root: &linux::root::Root, name: &str) -> io::Result<Option<String>> {
    let file = match root.lookup(Path::new(name), nix::fcntl::OFlag::O_RDONLY, 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => fs::File::from(other?),
    };
    let mut bytes = Vec::new();
    file.take(DOCKERFILE_LIMIT).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Removes what is ignored. Links are not followed.
fn sweep(folder: &Path, name: &str, ignore: &Ignore) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let inner = match name.is_empty() {
            true => entry.file_name().to_string_lossy().into_owned(),
            false => format!("{name}/{}", entry.file_name().to_string_lossy()),
        };
        let out = ignore.leaves_out(&inner);
        match entry.file_type()?.is_dir() {
            true if out && !ignore.may_keep_below(&inner) => fs::remove_dir_all(entry.path())?,
            true => {
                sweep(&entry.path(), &inner, ignore)?;
                if out && fs::read_dir(entry.path())?.next().is_none() {
                    fs::remove_dir(entry.path())?;
                }
            }
            false if out => fs::remove_file(entry.path())?,
            false => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_not_there() {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, text) in [
            ("Dockerfile", "FROM scratch"),
            (".dockerignore", "*.log\nDockerfile\nsub\n!sub/keep"),
            ("a.log", "x"),
            ("b", "x"),
            ("sub/keep", "x"),
            ("sub/other/deep", "x"),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            archive
                .append_data(&mut header, name, text.as_bytes())
                .unwrap();
        }
        let bytes = archive.into_inner().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let text = receive(bytes.as_slice(), folder.path(), "Dockerfile").unwrap();
        assert_eq!(text, "FROM scratch");
        let there = |name: &str| folder.path().join(name).exists();
        assert!(there("b") && there("sub/keep"));
        assert!(!there("a.log") && !there("Dockerfile") && !there("sub/other"));
        let fault = read_dockerfile(folder.path(), "no").unwrap_err();
        assert_eq!(fault.to_string(), "Cannot locate specified Dockerfile: no");
    }
}
