//! Loading images from archives and folders: what `docker save` writes (old
//! and new), OCI layouts, and either of them packed as tar or tar.gz.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::build::manifest_bytes;
use crate::digest::Digest;
use crate::error::{Context, ImageError};
use crate::ingest::{Ingest, Layer, read_document};
use crate::manifest::{
    Descriptor, ImageConfig, LAYER_LIMIT, Manifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST,
};
use crate::reference::Reference;
use crate::store::{ImageRecord, Store};

/// Links inside an archive are followed so often.
const LINK_LIMIT: usize = 8;
/// Entries of an archive; layers are entries, files are not.
const ENTRY_LIMIT: usize = 100_000;
/// Images in one archive.
const IMAGE_LIMIT: usize = 1000;

/// An entry of `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerEntry {
    pub(crate) config: String,
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    pub(crate) layers: Vec<String>,
}

/// Names an archive gives to its images.
pub(crate) const NAME_ANNOTATIONS: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];

/// Loads every image for this machine from an archive or a layout folder.
pub fn load(store: &Store, path: &Path) -> Result<Vec<ImageRecord>, ImageError> {
    if path.is_dir() {
        return load_from(store, &Source::Folder(path.to_owned()));
    }
    let mut file = File::open(path).at(path)?;
    let mut magic = [0u8; 2];
    let is_gzip = file.read(&mut magic).at(path)? == 2 && magic == [0x1f, 0x8b];
    file.seek(SeekFrom::Start(0)).at(path)?;
    if is_gzip {
        return load_stream(store, flate2::read::MultiGzDecoder::new(file));
    }
    load_from(store, &Source::index(file)?)
}

/// Loads from a stream (plain tar, or tar.gz), which is spooled to the store's disk first: the
/// table of contents of such archives comes last.
pub fn load_stream(store: &Store, reader: impl Read) -> Result<Vec<ImageRecord>, ImageError> {
    let spool = store.ingest()?;
    let mut file = spool.spool_file()?;
    let mut reader = io::BufReader::new(reader);
    let start = io::BufRead::fill_buf(&mut reader).context("archive")?;
    if start.starts_with(&[0x1f, 0x8b]) {
        let mut plain = flate2::bufread::MultiGzDecoder::new(reader);
        io::copy(&mut plain, &mut file)
            .map_err(|error| ImageError::Corrupt(format!("archive: {error}")))?;
    } else {
        io::copy(&mut reader, &mut file).context("archive")?;
    }
    file.seek(SeekFrom::Start(0)).context("archive")?;
    load_from(store, &Source::index(file)?)
}

/// The archive may be gone afterwards, so what is in it is on the disk then.
fn load_from(store: &Store, source: &Source) -> Result<Vec<ImageRecord>, ImageError> {
    let loaded = load_all(store, source)?;
    store.settle()?;
    Ok(loaded)
}

fn load_all(store: &Store, source: &Source) -> Result<Vec<ImageRecord>, ImageError> {
    if let Some(reader) = source.open("manifest.json")? {
        let entries: Vec<DockerEntry> = from_json(
            &read_document(reader).context("manifest.json")?,
            "manifest.json",
        )?;
        if entries.len() > IMAGE_LIMIT {
            return Err(ImageError::Hostile(format!("{} images", entries.len())));
        }
        return entries
            .iter()
            .map(|entry| docker_image(store, source, entry))
            .collect();
    }
    let Some(reader) = source.open("index.json")? else {
        let message = "neither manifest.json nor index.json is in it".to_owned();
        return Err(ImageError::Corrupt(message));
    };
    let index: Manifest = from_json(&read_document(reader).context("index.json")?, "index.json")?;
    let mut loaded = Vec::new();
    for entry in index.manifests.iter().take(IMAGE_LIMIT) {
        if let Some(record) = oci_image(store, source, entry)? {
            loaded.push(record);
        }
    }
    if loaded.is_empty() {
        return Err(ImageError::NotFound(
            "an image for this machine in the archive".to_owned(),
        ));
    }
    Ok(loaded)
}

fn docker_image(
    store: &Store,
    source: &Source,
    entry: &DockerEntry,
) -> Result<ImageRecord, ImageError> {
    let config_bytes = read_document(source.need(&entry.config)?).context(&entry.config)?;
    let config: ImageConfig = from_json(&config_bytes, &entry.config)?;
    if config.rootfs.diff_ids.len() != entry.layers.len() || entry.layers.len() > LAYER_LIMIT {
        return Err(ImageError::Corrupt(
            "manifest.json and configuration differ in their layers".to_owned(),
        ));
    }
    let names = entry.repo_tags.iter().flatten();
    let names: Vec<Reference> = names.map(|name| name.parse()).collect::<Result<_, _>>()?;
    let ingest = store.ingest()?;
    let config_blob = ingest.document(&config_bytes, OCI_CONFIG, None)?;
    let mut layers = Vec::new();
    for (path, diff_id) in entry.layers.iter().zip(&config.rootfs.diff_ids) {
        if let Some(layer) = ingest.known_layer(diff_id) {
            layers.push(layer);
            continue;
        }
        let media_type = source.layer_type(path)?;
        layers.push(ingest.layer(source.need(path)?, &media_type, None, Some(diff_id))?);
    }
    let blobs = layers
        .iter()
        .map(|Layer(record)| record.blob.clone())
        .collect();
    let manifest = manifest_bytes(config_blob, blobs)?;
    let digest = ingest.document(&manifest, OCI_MANIFEST, None)?.digest;
    ingest.commit(&config_bytes, &digest, &digest, layers, &names)
}

/// `None`: it is for another machine.
fn oci_image(
    store: &Store,
    source: &Source,
    entry: &Descriptor,
) -> Result<Option<ImageRecord>, ImageError> {
    let mut bytes = source.document(&entry.digest)?;
    let mut digest = entry.digest.clone();
    let mut manifest: Manifest = from_json(&bytes, "manifest")?;
    if entry.is_index() || manifest.config.is_none() {
        let Some(own) = manifest.for_this_machine() else {
            return Ok(None);
        };
        digest = own.digest.clone();
        bytes = source.document(&digest)?;
        manifest = from_json(&bytes, "manifest")?;
    }
    let config = manifest
        .config
        .ok_or_else(|| ImageError::Corrupt("manifest without configuration".to_owned()))?;
    let config_bytes = source.document(&config.digest)?;
    let parsed: ImageConfig = from_json(&config_bytes, "configuration")?;
    if parsed.rootfs.diff_ids.len() != manifest.layers.len() || manifest.layers.len() > LAYER_LIMIT
    {
        return Err(ImageError::Corrupt(
            "manifest and configuration differ in their layers".to_owned(),
        ));
    }
    let ingest: Ingest = store.ingest()?;
    ingest.document(&config_bytes, &config.media_type, Some(&config.digest))?;
    ingest.document(&bytes, &manifest.media_type, Some(&digest))?;
    let mut layers = Vec::new();
    for (blob, diff_id) in manifest.layers.iter().zip(&parsed.rootfs.diff_ids) {
        if let Some(layer) = ingest.present_layer(blob, diff_id) {
            layers.push(layer);
            continue;
        }
        let reader = source.need(&blob_name(&blob.digest))?;
        layers.push(ingest.layer(reader, &blob.media_type, Some(&blob.digest), Some(diff_id))?);
    }
    let names = names_of(entry);
    ingest
        .commit(&config_bytes, &digest, &entry.digest, layers, &names)
        .map(Some)
}

/// An annotation may hold a whole name, or a tag alone, which names nothing.
fn names_of(entry: &Descriptor) -> Vec<Reference> {
    let found = NAME_ANNOTATIONS
        .iter()
        .find_map(|key| entry.annotations.get(*key));
    let whole = found.filter(|name| name.contains([':', '/']));
    whole
        .and_then(|name| name.parse().ok())
        .into_iter()
        .collect()
}

pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Where the parts are.
enum Source {
    Folder(PathBuf),
    Tar {
        file: File,
        entries: HashMap<String, Place>,
    },
}

/// A part in an archive.
enum Place {
    At { offset: u64, size: u64 },
    Link(String),
}

impl Source {
    /// Reads the headers of an archive; the parts stay where they are.
    fn index(file: File) -> Result<Source, ImageError> {
        let damaged = |error: io::Error| ImageError::Corrupt(format!("archive: {error}"));
        let mut entries = HashMap::new();
        let mut archive = tar::Archive::new(&file);
        for entry in archive.entries_with_seek().map_err(damaged)? {
            let entry = entry.map_err(damaged)?;
            let name = normal(Path::new(&*String::from_utf8_lossy(&entry.path_bytes())));
            let kind = entry.header().entry_type();
            let place = if kind.is_file() {
                Place::At {
                    offset: entry.raw_file_position(),
                    size: entry.size(),
                }
            } else if let (true, Some(target)) = (
                kind.is_symlink() || kind.is_hard_link(),
                entry.link_name_bytes(),
            ) {
                let target = String::from_utf8_lossy(&target).into_owned();
                let folder = if kind.is_symlink() {
                    Path::new(&name).parent()
                } else {
                    None
                };
                Place::Link(normal(&folder.unwrap_or(Path::new("")).join(target)))
            } else {
                continue;
            };
            if entries.len() >= ENTRY_LIMIT {
                return Err(ImageError::Hostile(format!(
                    "more than {ENTRY_LIMIT} entries"
                )));
            }
            entries.insert(name, place);
        }
        Ok(Source::Tar { file, entries })
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn Read + '_>>, ImageError> {
        let mut name = normal(Path::new(name));
        match self {
            Source::Folder(folder) => {
                let root = linux::root::Root::open(folder).at(folder)?;
                match root.lookup(Path::new(&name), nix::fcntl::OFlag::O_RDONLY, 0) {
                    Ok(file) => Ok(Some(Box::new(File::from(file)))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(ImageError::Io(name, error)),
                }
            }
            Source::Tar { file, entries } => {
                for _ in 0..LINK_LIMIT {
                    match entries.get(&name) {
                        None => return Ok(None),
                        Some(Place::Link(target)) => name = target.clone(),
                        Some(Place::At { offset, size }) => {
                            let (offset, end) = (*offset, *offset + *size);
                            return Ok(Some(Box::new(Slice { file, offset, end })));
                        }
                    }
                }
                Err(ImageError::Hostile(format!("{name}: links in a circle")))
            }
        }
    }

    fn need(&self, name: &str) -> Result<Box<dyn Read + '_>, ImageError> {
        self.open(name)?
            .ok_or_else(|| ImageError::Corrupt(format!("{name} is missing in the archive")))
    }

    fn document(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let name = blob_name(digest);
        let bytes = read_document(self.need(&name)?).context(&name)?;
        digest.check(&Digest::of(&bytes), &name)?;
        Ok(bytes)
    }

    fn layer_type(&self, name: &str) -> Result<String, ImageError> {
        let mut magic = Vec::new();
        self.need(name)?
            .take(4)
            .read_to_end(&mut magic)
            .context(name)?;
        let suffix = match magic.as_slice() {
            [0x1f, 0x8b, ..] => "+gzip",
            [0x28, 0xb5, 0x2f, 0xfd] => "+zstd",
            _ => "",
        };
        Ok(format!("{OCI_LAYER}{suffix}"))
    }
}

/// A name without `.`, `..` and leading slashes; what would climb stays at the top.
fn normal(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => parts.extend(name.to_str()),
            Component::ParentDir => {
                parts.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    parts.join("/")
}

/// A stretch of a file, read without moving the file's own position.
struct Slice<'a> {
    file: &'a File,
    offset: u64,
    end: u64,
}

impl Read for Slice<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        let read = self.file.read_at(&mut buffer[..length], self.offset)?;
        if read == 0 && length > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += read as u64;
        Ok(read)
    }
}

fn from_json<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| ImageError::Corrupt(format!("{what}: {error}")))
}
