//! What a container has changed, as a layer: the writable part of an overlay becomes an archive.
//! Entries are in the order of their names, so the same changes give the same bytes.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use tar::{EntryType, Header};

use crate::error::{Context, ImageError};
use crate::ingest::{Ingest, Layer};
use crate::manifest::OCI_LAYER;

/// Folders may be nested so deeply.
const DEPTH_LIMIT: usize = 1024;

/// The changes of one container.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// `upper` of the overlay.
    pub folder: PathBuf,
    /// Absolute paths that only mounts made.
    pub ours: Vec<PathBuf>,
    /// No file is younger than this (seconds since the epoch).
    pub latest: Option<i64>,
}

impl Changes {
    /// Whether there are none.
    pub fn are_none(&self) -> Result<bool, ImageError> {
        let fault = |error| ImageError::Io(self.folder.display().to_string(), error);
        self.nothing_in(&self.folder, Path::new("/")).map_err(fault)
    }

    fn nothing_in(&self, folder: &Path, at: &Path) -> io::Result<bool> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let path = at.join(entry.file_name());
            if self.ours.contains(&path) {
                continue;
            }
            let holds_ours = self.ours.iter().any(|our| our.starts_with(&path));
            if !holds_ours || !self.nothing_in(&entry.path(), &path)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes the archive.
    pub fn write(&self, output: impl Write) -> Result<(), ImageError> {
        let mut writer = Writer {
            changes: self,
            archive: tar::Builder::new(output),
            links: HashMap::new(),
        };
        writer
            .folder(&self.folder, Path::new(""), 0)
            .context("writing a layer")?;
        let output = writer.archive.into_inner().context("writing a layer")?;
        { output }.flush().context("writing a layer")
    }
}

impl Ingest {
    /// Takes changes as a layer.
    pub fn changes(&self, changes: &Changes) -> Result<Layer, ImageError> {
        self.written(|output| changes.write(output))
    }

    /// Takes an archive, in whatever compression, as a layer without one.
    pub fn plain_layer(&self, reader: impl io::Read + Send) -> Result<Layer, ImageError> {
        self.written(move |mut output| {
            let mut buffered = io::BufReader::new(reader);
            let mut plain = crate::ingest::decompress(&mut buffered)?;
            io::copy(&mut plain, &mut output)
                .context("archive")
                .map(drop)
        })
    }

    /// Takes a layer from whoever writes its archive.
    pub fn written(
        &self,
        write: impl FnOnce(io::PipeWriter) -> Result<(), ImageError> + Send,
    ) -> Result<Layer, ImageError> {
        let (reader, writer) = io::pipe().context("pipe")?;
        std::thread::scope(|scope| {
            let written = scope.spawn(move || write(writer));
            let layer = self.layer(reader, OCI_LAYER, None, None);
            // A writer that fails leaves half an archive: its own error is the cause.
            match (written.join(), layer) {
                (Ok(Ok(())), layer) => layer,
                // A reader that gave up breaks the writer's pipe.
                (Ok(Err(ImageError::Io(_, error))), Err(cause))
                    if error.kind() == io::ErrorKind::BrokenPipe =>
                {
                    Err(cause)
                }
                (Ok(Err(error)), _) => Err(error),
                (Err(_), _) => Err(ImageError::Conflict("writing a layer panicked".to_owned())),
            }
        })
    }
}

struct Writer<'a, W: Write> {
    changes: &'a Changes,
    archive: tar::Builder<W>,
    /// Names of files that have several.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Writer<'_, W> {
    fn folder(&mut self, folder: &Path, at: &Path, depth: usize) -> io::Result<()> {
        if depth > DEPTH_LIMIT {
            return Err(io::Error::other("folders are nested too deeply"));
        }
        let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = at.join(entry.file_name());
            let absolute = Path::new("/").join(&name);
            if self.changes.ours.contains(&absolute) {
                continue;
            }
            let metadata = entry.metadata()?;
            let path = entry.path();
            let ours = self.changes.ours.iter();
            let holds_ours = ours.clone().any(|our| our.starts_with(&absolute));
            if metadata.is_dir() && holds_ours && self.changes.nothing_in(&path, &absolute)? {
                continue;
            }
            self.entry(&path, &name, &metadata)?;
            if metadata.is_dir() {
                self.folder(&path, &name, depth + 1)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, name: &Path, metadata: &fs::Metadata) -> io::Result<()> {
        let kind = metadata.file_type();
        if kind.is_char_device() && metadata.rdev() == 0 {
            return self.whiteout(name);
        }
        if kind.is_socket() {
            return Ok(());
        }
        let mut header = self.header(metadata);
        let place = (metadata.dev(), metadata.ino());
        if !kind.is_dir() && metadata.nlink() > 1 {
            if let Some(first) = self.links.get(&place) {
                header.set_entry_type(EntryType::Link);
                header.set_size(0);
                return self.archive.append_link(&mut header, name, first);
            }
            self.links.insert(place, name.to_owned());
        }
        let opaque = self.attributes(path, kind.is_dir())?;
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            self.archive
                .append_data(&mut header, folder_name(name), io::empty())?;
            if opaque {
                self.empty_file(&name.join(".wh..wh..opq"))?;
            }
            return Ok(());
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            return self
                .archive
                .append_link(&mut header, name, fs::read_link(path)?);
        }
        if kind.is_file() {
            header.set_entry_type(EntryType::Regular);
            header.set_size(metadata.len());
            let file = File::open(path)?;
            return self.archive.append_data(&mut header, name, file);
        }
        header.set_entry_type(match () {
            () if kind.is_fifo() => EntryType::Fifo,
            () if kind.is_block_device() => EntryType::Block,
            () => EntryType::Char,
        });
        let number = |number: u64| u32::try_from(number).map_err(io::Error::other);
        header.set_device_major(number(nix::sys::stat::major(metadata.rdev()))?)?;
        header.set_device_minor(number(nix::sys::stat::minor(metadata.rdev()))?)?;
        self.archive.append_data(&mut header, name, io::empty())
    }

    fn header(&self, metadata: &fs::Metadata) -> Header {
        let mut header = Header::new_gnu();
        header.set_mode(metadata.mode() & 0o7777);
        header.set_uid(metadata.uid().into());
        header.set_gid(metadata.gid().into());
        let time = metadata
            .mtime()
            .min(self.changes.latest.unwrap_or(i64::MAX));
        header.set_mtime(u64::try_from(time).unwrap_or(0));
        header.set_size(0);
        header
    }

    fn whiteout(&mut self, name: &Path) -> io::Result<()> {
        let mut hidden = std::ffi::OsString::from(".wh.");
        hidden.push(name.file_name().unwrap_or_default());
        self.empty_file(&name.with_file_name(hidden))
    }

    fn empty_file(&mut self, name: &Path) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        self.archive.append_data(&mut header, name, io::empty())
    }

    /// Writes extended attributes that images may have; tells whether a folder hides what is below.
    fn attributes(&mut self, path: &Path, folder: bool) -> io::Result<bool> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = nix::fcntl::open(path, flags, Mode::empty())?;
        if nix::sys::stat::fstat(&file)?.st_mode & nix::sys::stat::SFlag::S_IFMT.bits()
            == nix::sys::stat::SFlag::S_IFLNK.bits()
        {
            return Ok(false);
        }
        let mut opaque = false;
        let mut kept = Vec::new();
        for name in linux::attributes::names(file.as_fd())? {
            let value = linux::attributes::get(file.as_fd(), &name)?.unwrap_or_default();
            match name.as_str() {
                "trusted.overlay.opaque" => opaque = folder && value == b"y",
                "trusted.overlay.redirect" | "trusted.overlay.metacopy" => {
                    let message = format!("{}: {name} cannot be part of a layer", path.display());
                    return Err(io::Error::other(message));
                }
                name if name.starts_with("user.") || name == "security.capability" => {
                    kept.push((format!("SCHILY.xattr.{name}"), value));
                }
                _ => {}
            }
        }
        let kept = kept
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()));
        if kept.len() > 0 {
            self.archive.append_pax_extensions(kept)?;
        }
        Ok(opaque)
    }
}

/// Folders end with a slash.
fn folder_name(name: &Path) -> PathBuf {
    let mut bytes = name.as_os_str().as_bytes().to_vec();
    bytes.push(b'/');
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))
}
