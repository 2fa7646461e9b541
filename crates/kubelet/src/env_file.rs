//! Variables out of files that other containers of the pod wrote (`fileKeyRef`):
//! each line is `NAME='value'`, and nothing in a value means anything.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::Mode;

/// The largest file that is read.
const BYTES_MAX: u64 = 1 << 20;

/// Why a file does not give a variable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("read {path}: {source}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{0} is no plain file of at most 1 MiB")]
    Unfit(PathBuf),
    #[error("line {line}: {fault}")]
    Form { line: usize, fault: &'static str },
}

/// Reads one variable of the file at `path` in a volume; `None` when it is not there, or empty.
/// Links of containers lead nowhere out of the volume.
pub(crate) fn read(volume: &Path, path: &str, key: &str) -> Result<Option<String>, FileError> {
    let shown = volume.join(path);
    let io = |source: std::io::Error| FileError::Io {
        path: shown.clone(),
        source,
    };
    let file = open_within(volume, Path::new(path)).map_err(io)?;
    let meta = file.metadata().map_err(io)?;
    if !meta.is_file() || meta.len() > BYTES_MAX {
        return Err(FileError::Unfit(shown.clone()));
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(io)?;
    let found = parse(&String::from_utf8_lossy(&bytes), key)?;
    Ok(Some(found).filter(|value| !value.is_empty()))
}

fn open_within(volume: &Path, path: &Path) -> std::io::Result<File> {
    let root = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).bits())
        .open(volume)?;
    let beneath: PathBuf = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .collect();
    // Nobody may make us wait at a pipe.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .mode(Mode::empty())
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(nix::fcntl::openat2(&root, &beneath, how)?.into())
}

/// The value of `key`; empty when no line sets it. The lines after it are not looked at.
fn parse(text: &str, key: &str) -> Result<String, FileError> {
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let line = line.trim_start_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let form = |fault| FileError::Form {
            line: index + 1,
            fault,
        };
        let (name, value) = line.split_once('=').ok_or_else(|| form("no '='"))?;
        let blank = |text: &str| text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']);
        if name.is_empty() || blank(name) {
            return Err(form("a name must come right before '='"));
        }
        // As a shell has it: after a blank comes the next word, and this one was empty.
        if value.starts_with([' ', '\t']) {
            match name == key {
                true => return Ok(String::new()),
                false => continue,
            }
        }
        let rest = value.strip_prefix('\'');
        let mut rest = rest.ok_or_else(|| form("values stand in single quotes"))?;
        let mut whole = String::new();
        let tail = loop {
            match rest.split_once('\'') {
                Some((last, tail)) => {
                    whole.push_str(last);
                    break tail;
                }
                None => {
                    whole.push_str(rest);
                    whole.push('\n');
                    let next = lines.next();
                    rest = next.ok_or_else(|| form("a quote is not closed"))?.1;
                }
            }
        };
        let tail = tail.trim_start_matches([' ', '\t']);
        if !tail.is_empty() && !tail.starts_with('#') {
            return Err(form("something follows the closing quote"));
        }
        if name == key {
            return Ok(whole);
        }
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_upstream_reads_them() {
        let text = "# first\n  A='1'\n\nB='two\nlines' # why\nEMPTY= 'x'\nC='$(A) \"q\"'\n";
        for (key, expected) in [
            ("A", "1"),
            ("B", "two\nlines"),
            ("EMPTY", ""),
            ("C", "$(A) \"q\""),
            ("NONE", ""),
        ] {
            assert_eq!(parse(text, key).unwrap(), expected, "{key}");
        }
        for text in ["A", "='1'", "A ='1'", "A=1", "A='1", "A='1' x", "A="] {
            assert!(parse(text, "A").is_err(), "{text}");
        }
        // What comes after the line that counts is nobody's business.
        assert_eq!(parse("A='1'\nB=2", "A").unwrap(), "1");
    }

    #[test]
    fn files_are_read_within_their_volume() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(folder.path().join("secret"), "A='out'").unwrap();
        std::fs::write(volume.join("env"), "A='in'").unwrap();
        let link =
            |to: &str, name: &str| std::os::unix::fs::symlink(to, volume.join(name)).unwrap();
        link("../secret", "up");
        link("/env", "down");
        assert_eq!(read(&volume, "env", "A").unwrap().as_deref(), Some("in"));
        assert_eq!(read(&volume, "down", "A").unwrap().as_deref(), Some("in"));
        assert_eq!(read(&volume, "env", "B").unwrap(), None);
        assert!(read(&volume, "up", "A").is_err());
        assert!(read(&volume, ".", "A").is_err());
        nix::unistd::mkfifo(&volume.join("pipe"), Mode::S_IRWXU).unwrap();
        assert!(read(&volume, "pipe", "A").is_err());
    }
}
