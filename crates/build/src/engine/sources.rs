//! What `COPY` and `ADD` take: files of a tree, here-documents, downloads, archives.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use linux::root::Root;
use oci::View;
use sha2::{Digest as _, Sha256};

use super::BuildError;
use crate::ignore::{self, Ignore};

/// Files one pattern may name.
const MATCH_LIMIT: usize = 100_000;
const CHUNK: usize = 256 << 10;

/// Where sources are looked for.
#[derive(Clone, Debug)]
pub(super) enum Tree {
    Context(PathBuf),
    /// Folders of layers, the lowest first.
    Layers(Vec<PathBuf>),
}

/// One thing to be copied.
pub(super) struct Item {
    /// Its last name, for a target that is a folder.
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) is_folder: bool,
    /// Its files keep owners.
    pub(super) unpacked: bool,
    /// What `path` goes through.
    _held: Option<OwnedFd>,
}

/// What to look for.
pub(super) struct Wish {
    /// `COPY` or `ADD`.
    pub(super) word: &'static str,
    pub(super) tree: Tree,
    pub(super) patterns: Vec<String>,
    /// Names and contents of here-documents.
    pub(super) documents: Vec<(String, String)>,
    /// Names of files that were downloaded, and where they are.
    pub(super) downloads: Vec<(String, PathBuf)>,
    pub(super) exclude: Ignore,
    /// Archives become what is in them.
    pub(super) unpacks: bool,
    /// Owners count.
    pub(super) owners: bool,
    /// For what is made here.
    pub(super) folder: PathBuf,
}

/// Everything there is to copy, and a digest of it.
pub(super) struct Prepared {
    pub(super) items: Vec<Item>,
    pub(super) exclude: Ignore,
    pub(super) owners: bool,
    pub(super) digest: String,
    /// Mounted as long as they are needed.
    _view: Option<View>,
}

impl Wish {
    pub(super) fn prepare(self) -> Result<Prepared, BuildError> {
        let (root, view) = match &self.tree {
            Tree::Context(folder) => (Root::open(folder).map_err(BuildError::other)?, None),
            Tree::Layers(layers) => {
                let view = open_layers(layers, &self.folder)?;
                let top = view
                    .root()
                    .handle(Path::new("/"))
                    .map_err(BuildError::other)?;
                (Root::from_descriptor(top), Some(view))
            }
        };
        let mut items = Vec::new();
        for pattern in &self.patterns {
            self.find(&root, pattern, &mut items)?;
        }
        for (index, (name, text)) in self.documents.iter().enumerate() {
            let path = self.folder.join(format!("document-{index}"));
            fs::write(&path, text).map_err(BuildError::other)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
                .map_err(BuildError::other)?;
            items.push(file_item(name, path));
        }
        for (name, path) in &self.downloads {
            items.push(file_item(name, path.clone()));
        }
        if items.is_empty() {
            let message = format!("{} failed: no source files were specified", self.word);
            return Err(BuildError::Other(message));
        }
        let mut hasher = Sha256::new();
        for item in &items {
            let owners = self.owners || item.unpacked;
            hash(&mut hasher, &item.path, "", &self.exclude, owners).map_err(|error| {
                BuildError::Other(format!("{} failed: {}: {error}", self.word, item.name))
            })?;
            hasher.update(item.name.as_bytes());
        }
        let digest = hasher
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Prepared {
            items,
            exclude: self.exclude,
            owners: self.owners,
            digest,
            _view: view,
        })
    }

    fn find(&self, root: &Root, pattern: &str, items: &mut Vec<Item>) -> Result<(), BuildError> {
        let mut parts = Vec::new();
        for part in pattern.split('/') {
            match part {
                "" | "." => {}
                ".." if parts.pop().is_none() && matches!(self.tree, Tree::Context(_)) => {
                    let message = format!(
                        "{} failed: forbidden path outside the build context: {pattern} ()",
                        self.word
                    );
                    return Err(BuildError::Other(message));
                }
                ".." => {}
                part => parts.push(part),
            }
        }
        let mut found = vec![PathBuf::new()];
        for part in &parts {
            found = match part.contains(['*', '?', '[', '\\']) {
                false => found.into_iter().map(|path| path.join(part)).collect(),
                true => matching(root, &found, part)?,
            };
        }
        if found.is_empty() {
            let message = format!("{} failed: no source files were specified", self.word);
            return Err(BuildError::Other(message));
        }
        for path in found {
            items.push(self.item(root, &path)?);
        }
        Ok(())
    }

    fn item(&self, root: &Root, path: &Path) -> Result<Item, BuildError> {
        let missing = |error: io::Error| match (error.kind(), &self.tree) {
            (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, Tree::Context(_)) => {
                BuildError::Other(format!(
                    "{} failed: file not found in build context or excluded by .dockerignore: stat {}: file does not exist",
                    self.word,
                    path.display()
                ))
            }
            (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, Tree::Layers(_)) => {
                BuildError::Other(format!(
                    "{} failed: stat /{}: file does not exist",
                    self.word,
                    path.display()
                ))
            }
            _ => BuildError::Other(format!("{} failed: {}: {error}", self.word, path.display())),
        };
        let held = root.handle(path).map_err(missing)?;
        let place = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        let metadata = fs::metadata(&place).map_err(missing)?;
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if self.unpacks
            && metadata.is_file()
            && oci::is_archive(fs::File::open(&place).map_err(missing)?)
        {
            let folder = tempfile::tempdir_in(&self.folder)
                .map_err(BuildError::other)?
                .keep();
            let file = fs::File::open(&place).map_err(missing)?;
            oci::unpack_archive(file, &folder)?;
            return Ok(Item {
                name,
                path: folder,
                is_folder: true,
                unpacked: true,
                _held: None,
            });
        }
        Ok(Item {
            name,
            path: place,
            is_folder: metadata.is_dir(),
            unpacked: false,
            _held: Some(held),
        })
    }
}

/// Layers as one tree; none at all are an empty one.
pub(super) fn open_layers(layers: &[PathBuf], folder: &Path) -> Result<View, BuildError> {
    let empty = folder.join("nothing");
    if layers.is_empty() {
        fs::create_dir_all(&empty).map_err(BuildError::other)?;
        return View::of_layers(&[empty], None).map_err(BuildError::other);
    }
    View::of_layers(layers, None).map_err(BuildError::other)
}

fn file_item(name: &str, path: PathBuf) -> Item {
    Item {
        name: name.to_owned(),
        path,
        is_folder: false,
        unpacked: false,
        _held: None,
    }
}

/// Entries of folders whose names fit a pattern, in order.
fn matching(root: &Root, folders: &[PathBuf], pattern: &str) -> Result<Vec<PathBuf>, BuildError> {
    let fits = ignore::translate(pattern).map_err(BuildError::other)?;
    let mut found = Vec::new();
    for folder in folders {
        let Ok(held) = root.handle(folder) else {
            continue;
        };
        let Ok(entries) = fs::read_dir(format!("/proc/self/fd/{}", held.as_raw_fd())) else {
            continue;
        };
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.retain(|name| fits.is_match(&name.to_string_lossy()));
        names.sort();
        found.extend(names.into_iter().map(|name| folder.join(name)));
        if found.len() > MATCH_LIMIT {
            return Err(BuildError::Other(format!("{pattern} names too many files")));
        }
    }
    Ok(found)
}

/// Everything of a file or folder that a copy of it has.
fn hash(
    hasher: &mut Sha256,
    path: &Path,
    name: &str,
    exclude: &Ignore,
    owners: bool,
) -> io::Result<()> {
    // The top itself may be reached by a link of ours.
    let metadata = match name.is_empty() {
        true => fs::metadata(path)?,
        false => fs::symlink_metadata(path)?,
    };
    let kind = metadata.file_type();
    hasher.update(name.as_bytes());
    hasher.update([0]);
    hasher.update(metadata.mode().to_be_bytes());
    if owners {
        hasher.update(metadata.uid().to_be_bytes());
        hasher.update(metadata.gid().to_be_bytes());
    }
    if kind.is_symlink() {
        hasher.update(fs::read_link(path)?.as_os_str().as_bytes());
    } else if kind.is_file() {
        hasher.update(metadata.len().to_be_bytes());
        let mut file = fs::File::open(path)?;
        let mut chunk = vec![0; CHUNK.min(usize::try_from(metadata.len()).unwrap_or(CHUNK) + 1)];
        while let length @ 1.. = file.read(&mut chunk)? {
            hasher.update(&chunk[..length]);
        }
    } else if kind.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let inner = match name.is_empty() {
                true => entry.file_name().to_string_lossy().into_owned(),
                false => format!("{name}/{}", entry.file_name().to_string_lossy()),
            };
            if exclude.leaves_out(&inner) && !exclude.may_keep_below(&inner) {
                continue;
            }
            hash(hasher, &entry.path(), &inner, exclude, owners)?;
        }
    } else if kind.is_block_device() || kind.is_char_device() {
        hasher.update(metadata.rdev().to_be_bytes());
    }
    Ok(())
}
