//! Bringing one image in: all of it, or nothing.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::digest::{Digest, Tee};
use crate::error::{Context, ImageError};
use crate::manifest::{DOCUMENT_LIMIT, Descriptor, ImageConfig, LAYER_LIMIT};
use crate::reference::Reference;
use crate::store::{ImageRecord, LayerRecord, Store, move_tag, remove_any};
use crate::unpack::Unpacked;
use crate::{pipe, unpack};

/// A compressed layer larger than this is refused.
const BLOB_LIMIT: u64 = 64 << 30;
/// An unpacked layer larger than this is refused, however well it compresses.
const UNPACKED_LIMIT: u64 = 256 << 30;
const BUFFER: usize = 128 << 10;

/// Layers and documents on their way in. Dropping it uncommitted leaves nothing behind.
#[derive(Debug)]
pub struct Ingest {
    store: Store,
    folder: PathBuf,
    lock_path: PathBuf,
    /// Held as long as the ingest lives: whoever can take it knows that we are dead.
    _lock: File,
    next: AtomicU64,
    /// Finished pieces: where they are, and where they belong.
    moves: Mutex<Vec<(PathBuf, PathBuf)>>,
}

/// A layer that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer(pub LayerRecord);

impl Ingest {
    pub(crate) fn begin(store: &Store) -> Result<Ingest, ImageError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let moment = std::time::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .as_nanos();
        let id = format!("{}-{count}-{moment:x}", std::process::id());
        let folder = store.root().join("tmp").join(&id);
        let lock_path = store.root().join("tmp").join(format!("{id}.lock"));
        let lock = File::create_new(&lock_path).at(&lock_path)?;
        lock.lock().at(&lock_path)?;
        fs::create_dir(&folder).at(&folder)?;
        Ok(Ingest {
            store: store.clone(),
            folder,
            lock_path,
            _lock: lock,
            next: AtomicU64::new(0),
            moves: Mutex::new(Vec::new()),
        })
    }

    /// Takes a small document whose digest is known or not; returns its descriptor.
    pub fn document(
        &self,
        bytes: &[u8],
        media_type: &str,
        expected: Option<&Digest>,
    ) -> Result<Descriptor, ImageError> {
        if bytes.len() as u64 > DOCUMENT_LIMIT {
            return Err(ImageError::Hostile("document too large".to_owned()));
        }
        let digest = Digest::of(bytes);
        if let Some(expected) = expected {
            expected.check(&digest, "document")?;
        }
        let path = self.fresh_path();
        fs::write(&path, bytes).at(&path)?;
        self.planned(path, self.store.blob_path(&digest));
        Ok(Descriptor::new(media_type, digest, bytes.len() as u64))
    }

    /// A layer that is in the store already.
    pub fn present_layer(&self, blob: &Descriptor, diff_id: &Digest) -> Option<Layer> {
        if !self.store.layer_folder(diff_id).is_dir()
            || !self.store.blob_path(&blob.digest).is_file()
        {
            return None;
        }
        let images = self.store.read().ok()?;
        let mut layers = images.into_values().flat_map(|image| image.layers);
        let known = layers.find(|l| l.diff_id == *diff_id && l.blob.digest == blob.digest)?;
        Some(Layer(known))
    }

    /// A layer that is in the store already, in whatever compression it came.
    pub fn known_layer(&self, diff_id: &Digest) -> Option<Layer> {
        let images = self.store.read().ok()?;
        let mut layers = images.into_values().flat_map(|image| image.layers);
        let known = layers.find(|layer| layer.diff_id == *diff_id)?;
        self.present_layer(&known.blob, diff_id)
    }

    /// What an interrupted ingest had of a blob, and how many bytes that is: for [`Ingest::layer`] to
    /// begin with. It is nobody else's from now on.
    pub(crate) fn begun(&self, blob: &Descriptor) -> Result<Option<(File, u64)>, ImageError> {
        let (from, to) = (self.store.begun_path(blob.digest.hex()), self.fresh_path());
        match fs::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.at(&from)?,
        }
        let file = File::open(&to).at(&to)?;
        let length = file.metadata().at(&to)?.len();
        Ok((length <= blob.size).then_some((file, length)))
    }

    /// Keeps what came of blobs for another ingest, which [`Ingest::begun`] gives it to.
    pub(crate) fn keep_begun(&self) -> Result<(), ImageError> {
        self.store.keep_begun(&self.folder)
    }

    /// Takes a layer: hashes, keeps and unpacks it in one pass. `expected` is the digest of the
    /// bytes as they come, `diff_id` that of the archive inside; both are checked where given.
    pub fn layer(
        &self,
        reader: impl Read,
        media_type: &str,
        expected: Option<&Digest>,
        diff_id: Option<&Digest>,
    ) -> Result<Layer, ImageError> {
        let mut blob_path = self.fresh_path();
        if let Some(expected) = expected {
            blob_path.set_extension(expected.hex());
        }
        let blob_file = File::create_new(&blob_path).at(&blob_path)?;
        let tree = self.fresh_path();
        fs::create_dir(&tree).at(&tree)?;
        let mut outer = Tee::new(reader, Some(blob_file), BLOB_LIMIT);
        let (inner_digest, unpacked) = unpack_beside(&mut outer, &tree)?;
        let (digest, size, _) = outer
            .finish()
            .map_err(|error| unpack::damaged(error, "layer"))?;
        if let Some(expected) = expected {
            expected.check(&digest, "layer")?;
        }
        if let Some(diff_id) = diff_id {
            diff_id.check(&inner_digest, "uncompressed layer")?;
        }
        self.planned(blob_path, self.store.blob_path(&digest));
        self.planned(tree, self.store.layer_folder(&inner_digest));
        Ok(Layer(LayerRecord {
            diff_id: inner_digest,
            blob: Descriptor::new(media_type, digest, size),
            unpacked: unpacked.bytes,
            inodes: unpacked.inodes,
        }))
    }

    /// Makes the image visible under `names`. Whether a crash of the machine may take it is for
    /// [`Store::settle`] or [`Store::settle_behind`] to see to. `config` and `manifest` must have been
    /// taken as documents, the layers be in the order of the configuration. `known_as` is the
    /// digest its registry knows it by: the manifest's, or that of an index above it.
    pub fn commit(
        self,
        config_bytes: &[u8],
        manifest: &Digest,
        known_as: &Digest,
        layers: Vec<Layer>,
        names: &[Reference],
    ) -> Result<ImageRecord, ImageError> {
        self.finish(config_bytes, manifest, Some(known_as), layers, names)
    }

    /// As [`Ingest::commit`], for an image that no registry knows.
    pub(crate) fn commit_local(
        self,
        config_bytes: &[u8],
        manifest: &Digest,
        layers: Vec<Layer>,
        names: &[Reference],
    ) -> Result<ImageRecord, ImageError> {
        self.finish(config_bytes, manifest, None, layers, names)
    }

    fn finish(
        self,
        config_bytes: &[u8],
        manifest: &Digest,
        known_as: Option<&Digest>,
        layers: Vec<Layer>,
        names: &[Reference],
    ) -> Result<ImageRecord, ImageError> {
        let config: ImageConfig = serde_json::from_slice(config_bytes)
            .map_err(|error| ImageError::Corrupt(format!("configuration: {error}")))?;
        let layers: Vec<LayerRecord> = layers.into_iter().map(|Layer(record)| record).collect();
        if layers.len() > LAYER_LIMIT {
            return Err(ImageError::Hostile(format!("{} layers", layers.len())));
        }
        if !layers
            .iter()
            .map(|l| &l.diff_id)
            .eq(config.rootfs.diff_ids.iter())
        {
            let message = "the layers are not those of the configuration".to_owned();
            return Err(ImageError::Corrupt(message));
        }
        // Contents first, names after: a record never points at what a crash of ours could undo.
        self.store.change(|images| {
            self.move_all()?;
            for layer in &layers {
                if !self.store.layer_folder(&layer.diff_id).is_dir() {
                    let message = format!("layer {} was removed meanwhile", layer.diff_id);
                    return Err(ImageError::Conflict(message));
                }
            }
            let id = Digest::of(config_bytes);
            let fresh = ImageRecord {
                id: id.clone(),
                manifest: manifest.clone(),
                repo_tags: Default::default(),
                repo_digests: Default::default(),
                layers,
                config,
                pinned: false,
            };
            let record = images.entry(id.clone()).or_insert(fresh);
            if let Some(known_as) = known_as {
                let digests = names.iter().map(|name| name.with_digest(known_as));
                record.repo_digests.extend(digests);
            }
            for tag in names.iter().filter_map(Reference::tagged) {
                move_tag(images, &id, &tag);
            }
            images
                .get(&id)
                .cloned()
                .ok_or_else(|| ImageError::NotFound(id.to_string()))
        })
    }

    /// A file in the temporary folder, for whoever needs a whole stream at once.
    pub(crate) fn spool_file(&self) -> Result<File, ImageError> {
        let path = self.fresh_path();
        File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .at(&path)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn move_all(&self) -> Result<(), ImageError> {
        let moves = std::mem::take(&mut *self.lock_moves());
        for (from, to) in moves {
            if to.exists() {
                // Same name, same content; ours goes with the temporary folder.
                continue;
            }
            fs::rename(&from, &to).at(&to)?;
        }
        Ok(())
    }

    fn fresh_path(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.folder.join(number.to_string())
    }

    fn planned(&self, from: PathBuf, to: PathBuf) {
        self.lock_moves().push((from, to));
    }

    fn lock_moves(&self) -> std::sync::MutexGuard<'_, Vec<(PathBuf, PathBuf)>> {
        self.moves
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        for path in [&self.folder, &self.lock_path] {
            if let Err(error) = remove_any(path) {
                tracing::warn!(%error, path = %path.display(), "temporary image folder not removed");
            }
        }
    }
}

/// Unpacks a layer while it is read here: another thread decompresses it, a third one writes. Tells
/// the digest of the archive inside and what it became.
fn unpack_beside(reader: impl Read, tree: &Path) -> Result<(Digest, Unpacked), ImageError> {
    let (raw_in, mut raw) = pipe::pipe();
    let (plain_in, plain) = pipe::pipe();
    let decompressing = move || {
        let wanted = match decompress(&mut raw) {
            Ok(reader) => plain_in.pump(reader),
            Err(error) => plain_in.fail(error.into()),
        };
        drop(plain_in);
        // What comes behind the end of an archive still belongs to its digest.
        if wanted {
            raw.drain();
        }
    };
    let unpacking = move || {
        let mut inner = Tee::new(plain, None, UNPACKED_LIMIT);
        let unpacked = unpack::unpack(&mut inner, tree)?;
        let end = inner.finish();
        let (digest, _, _) = end.map_err(|error| unpack::damaged(error, "layer"))?;
        Ok((digest, unpacked))
    };
    std::thread::scope(|scope| {
        scope.spawn(decompressing);
        let unpacked = scope.spawn(unpacking);
        raw_in.pump(reader);
        drop(raw_in);
        let panicked = |_| {
            Err(ImageError::Conflict(
                "unpacking a layer panicked".to_owned(),
            ))
        };
        unpacked.join().unwrap_or_else(panicked)
    })
}

/// The strongest preset of `xz` wants a quarter of this.
const XZ_MEMORY_KIB: u32 = 256 << 10;

/// Unpacks an archive in whatever compression into an empty folder; it is as hostile as a layer.
pub fn unpack_archive(reader: impl Read, folder: &Path) -> Result<u64, ImageError> {
    let mut buffered = BufReader::with_capacity(BUFFER, reader);
    let mut plain = Tee::new(decompress(&mut buffered)?, None, UNPACKED_LIMIT);
    let unpacked = unpack::unpack(&mut plain, folder)?;
    plain
        .finish()
        .map_err(|error| unpack::damaged(error, "archive"))?;
    Ok(unpacked.bytes)
}

/// Looks at the first bytes, not at the media type: archives lie about it more often.
pub(crate) fn decompress<'a, R: BufRead + 'a>(
    reader: &'a mut R,
) -> Result<Box<dyn Read + 'a>, ImageError> {
    let start = reader
        .fill_buf()
        .map_err(|error| unpack::damaged(error, "layer"))?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(reader)));
    }
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = zstd::stream::read::Decoder::with_buffer(reader);
        return Ok(Box::new(decoder.context("zstd layer")?));
    }
    if start.starts_with(b"BZh") {
        return Ok(Box::new(bzip2::bufread::MultiBzDecoder::new(reader)));
    }
    if start.starts_with(b"\xfd7zXZ\0") {
        let decoder = lzma_rust2::XzReader::new_mem_limit(reader, true, XZ_MEMORY_KIB);
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(reader))
}

/// Whether a file is an archive, compressed or not, by the first bytes of what is in it.
pub fn is_archive(file: impl Read) -> bool {
    const MARK: usize = 257;
    let mut buffered = BufReader::new(file);
    let mut start = Vec::new();
    if let Ok(plain) = decompress(&mut buffered) {
        // What only begins like a compressed file is a file like others.
        plain.take(512).read_to_end(&mut start).ok();
    }
    start.get(MARK..MARK + 5) == Some(b"ustar")
}

/// Reads a whole small document.
pub(crate) fn read_document(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(DOCUMENT_LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > DOCUMENT_LIMIT {
        return Err(ImageError::Hostile("document too large".to_owned()).into());
    }
    Ok(bytes)
}
