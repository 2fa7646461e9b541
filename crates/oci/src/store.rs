//! The image store of one machine: a folder several processes may use at once.
//!
//! ```text
//! blobs/sha256/<hex>   content as it came            layers/<hex of diff id>/  unpacked, ready for overlayfs
//! images.json          what is an image              leases/<name>             layers a container stands on
//! kept/<key>           layers a builder keeps
//! tmp/<id>/, <id>.lock a running ingest              lock                      held while images.json changes
//! begun/<hex>          blobs as far as they came     boot                      the last boot's id
//! ```
//!
//! `images.json` is the truth; it is replaced whole. Content has its place before
//! a record names it, so after a crash of ours there is only surplus, and
//! [`Store::open`] and [`Store::collect`] take that away. A crash of the machine
//! takes what has not reached the disk: see `settle`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Context, ImageError};
use crate::ingest::Ingest;
use crate::manifest::{Descriptor, ImageConfig};
use crate::reference::Reference;
use crate::settle::Settling;

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Digest of the configuration.
    pub id: Digest,
    pub manifest: Digest,
    pub repo_tags: BTreeSet<String>,
    pub repo_digests: BTreeSet<String>,
    /// Lowest first.
    pub layers: Vec<LayerRecord>,
    pub config: ImageConfig,
    /// It stays when room is made: see [`Store::pin`].
    #[serde(default)]
    pub pinned: bool,
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// The archive as it came.
    pub blob: Descriptor,
    /// Bytes unpacked.
    pub unpacked: u64,
    /// Files and folders unpacked; 0 where a former version unpacked it and did not count.
    #[serde(default)]
    pub inodes: u64,
}

impl ImageRecord {
    /// Bytes on disk, unpacked.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.unpacked).sum()
    }
}

/// By id.
type Images = BTreeMap<Digest, ImageRecord>;

/// Where content as it came is in the store's folder.
const BLOBS: &str = "blobs/sha256";
/// Where what unfinished pulls had of blobs is.
pub(crate) const BEGUN: &str = "begun";
/// Shortest beginning of an id that is looked up.
const SHORTEST_ID: usize = 6;

/// A handle of the folder; cheap, holds nothing open.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    pub(crate) settling: Arc<Settling>,
}

impl Store {
    /// Opens the store, creates it where missing, and removes what crashes left.
    pub fn open(root: &Path) -> Result<Store, ImageError> {
        let store = Store {
            root: root.into(),
            settling: Arc::default(),
        };
        for folder in [BLOBS, BEGUN, "layers", "tmp", "leases", crate::kept::FOLDER] {
            let path = root.join(folder);
            fs::create_dir_all(&path).at(&path)?;
        }
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).at(root)?;
        // Layers come to be there.
        if let Err(error) = linux::attributes::spread_folders(&root.join("tmp")) {
            tracing::debug!(%error, "layers lie where the file system puts them");
        }
        store.forget_torn()?;
        store.remove_leftovers()?;
        if !store.unsettled()?.is_empty() {
            store.settle_behind();
        }
        Ok(store)
    }

    /// All images, in the order of their ids.
    pub fn list(&self) -> Result<Vec<ImageRecord>, ImageError> {
        Ok(self.read()?.into_values().collect())
    }

    /// The image of this id (or its beginning), tag or digest.
    pub fn find(&self, name: &str) -> Result<Option<ImageRecord>, ImageError> {
        Ok(find(&self.read()?, name).cloned())
    }

    /// As [`Store::find`], but absence is an error.
    pub fn get(&self, name: &str) -> Result<ImageRecord, ImageError> {
        self.find(name)?
            .ok_or_else(|| ImageError::NotFound(name.to_owned()))
    }

    /// Gives an image one more tag, taking it from another image if need be.
    pub fn tag(&self, source: &str, target: &str) -> Result<(), ImageError> {
        let target: Reference = target.parse()?;
        let tag = target
            .tagged()
            .ok_or_else(|| ImageError::Reference(target.to_string(), "a tag is needed"))?;
        self.change(|images| {
            let id = find(images, source)
                .ok_or_else(|| ImageError::NotFound(source.to_owned()))?
                .id
                .clone();
            move_tag(images, &id, &tag);
            Ok(())
        })
    }

    /// Has an image stay, or not any more, when whoever collects unused ones makes room (CRI's
    /// `pinned`). It can still be removed by name.
    pub fn pin(&self, name: &str, pinned: bool) -> Result<(), ImageError> {
        self.change(|images| {
            let id = find(images, name).map(|record| record.id.clone());
            let record = id.and_then(|id| images.get_mut(&id));
            let record = record.ok_or_else(|| ImageError::NotFound(name.to_owned()))?;
            record.pinned = pinned;
            Ok(())
        })
    }

    /// Removes a tag, or with an id or digest the image; content nobody needs goes too.
    /// Returns what was untagged and whether the image itself is gone.
    pub fn remove(&self, name: &str) -> Result<bool, ImageError> {
        let gone = self.change(|images| {
            let record = find(images, name).ok_or_else(|| ImageError::NotFound(name.to_owned()))?;
            let id = record.id.clone();
            let tag = name
                .parse::<Reference>()
                .ok()
                .and_then(|name| name.tagged());
            let by_tag = tag.filter(|tag| record.repo_tags.contains(tag));
            if let (Some(tag), Some(record)) = (by_tag, images.get_mut(&id)) {
                record.repo_tags.remove(&tag);
                if !record.repo_tags.is_empty() {
                    return Ok(false);
                }
            }
            images.remove(&id);
            Ok(true)
        })?;
        self.collect()?;
        Ok(gone)
    }

    /// Keeps the layers of images on disk for a container, whatever happens to the images.
    pub fn lease(&self, name: &str, images: &[&ImageRecord]) -> Result<(), ImageError> {
        let _lock = self.lock()?;
        let mut diff_ids: Vec<&str> = Vec::new();
        for image in images {
            for layer in &image.layers {
                if !self.layer_folder(&layer.diff_id).is_dir() {
                    let message = format!("layer {} of {} is gone", layer.diff_id, image.id);
                    return Err(ImageError::Conflict(message));
                }
                diff_ids.push(layer.diff_id.as_str());
            }
        }
        let path = self.root.join("leases").join(name);
        fs::write(&path, diff_ids.join("\n")).at(&path)
    }

    /// Ends a lease; unknown names are no error. Layers go with the next [`Store::collect`].
    pub fn release(&self, name: &str) -> Result<(), ImageError> {
        let path = self.root.join("leases").join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.at(&path),
        }
    }

    /// Names of all leases.
    pub fn leases(&self) -> Result<Vec<String>, ImageError> {
        names_in(&self.root.join("leases"))
    }

    /// Removes blobs and layers that no image and no lease needs, and what is left of pulls that did
    /// not end.
    pub fn collect(&self) -> Result<(), ImageError> {
        let _lock = self.lock()?;
        let (mut blobs, mut layers) = (BTreeSet::new(), BTreeSet::new());
        for image in self.read()?.into_values() {
            blobs.insert(image.id.hex().to_owned());
            blobs.insert(image.manifest.hex().to_owned());
            for layer in image.layers {
                blobs.insert(layer.blob.digest.hex().to_owned());
                layers.insert(layer.diff_id.hex().to_owned());
            }
        }
        for listed in self.all_kept()? {
            if let Some(layer) = listed.kept.layer {
                blobs.insert(layer.blob.digest.hex().to_owned());
                layers.insert(layer.diff_id.hex().to_owned());
            }
        }
        for lease in self.leases()? {
            let path = self.root.join("leases").join(lease);
            let text = fs::read_to_string(&path).at(&path)?;
            let parsed = text.lines().filter_map(|line| line.parse::<Digest>().ok());
            layers.extend(parsed.map(|digest| digest.hex().to_owned()));
        }
        self.sweep(BEGUN, &BTreeSet::new())?;
        self.sweep(BLOBS, &blobs)?;
        self.sweep("layers", &layers)
    }

    /// Where an unpacked layer is, or would be.
    pub fn layer_folder(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    /// Where content is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs_folder().join(digest.hex())
    }

    /// Where the beginning of a blob is, or would be.
    pub(crate) fn begun_path(&self, hex: &str) -> PathBuf {
        self.root.join(BEGUN).join(hex)
    }

    pub(crate) fn blobs_folder(&self) -> PathBuf {
        self.root.join(BLOBS)
    }

    /// The folder of all layers, which overlayfs' paths may be relative to.
    pub fn layers_folder(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// Bytes of all unpacked layers and of all content.
    pub fn disk_bytes(&self) -> Result<u64, ImageError> {
        Ok(self.disk_usage()?.0)
    }

    /// Bytes and inodes of all unpacked layers and of all content, as counted when they came.
    pub fn disk_usage(&self) -> Result<(u64, u64), ImageError> {
        let (mut bytes, mut inodes) = (0, 0);
        let mut seen = BTreeSet::new();
        for image in self.read()?.into_values() {
            for layer in image.layers {
                if seen.insert(layer.diff_id.clone()) {
                    bytes += layer.unpacked + layer.blob.size;
                    // And one of the archive as it came.
                    inodes += layer.inodes + 1;
                }
            }
        }
        Ok((bytes, inodes))
    }

    /// Starts to bring an image in.
    pub fn ingest(&self) -> Result<Ingest, ImageError> {
        Ingest::begin(self)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn read(&self) -> Result<Images, ImageError> {
        let path = self.root.join("images.json");
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Images::new()),
            other => other.at(&path)?,
        };
        let fault = |error| ImageError::Corrupt(format!("{}: {error}", path.display()));
        serde_json::from_slice(&bytes).map_err(fault)
    }

    /// Changes the records under the lock; the new state is durable on return.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Images) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let _lock = self.lock()?;
        let mut images = self.read()?;
        let result = change(&mut images)?;
        self.write(&images).map(|()| result)
    }

    /// Replaces the records; who does it holds the lock.
    pub(crate) fn write(&self, images: &Images) -> Result<(), ImageError> {
        let bytes = serde_json::to_vec(images)
            .map_err(io::Error::other)
            .context("images.json")?;
        let path = self.root.join("images.json");
        base::files::write_atomic(&path, &bytes, 0o600).at(&path)
    }

    pub(crate) fn lock(&self) -> Result<File, ImageError> {
        let path = self.root.join("lock");
        let file = File::create(&path).at(&path)?;
        file.lock().at(&path)?;
        Ok(file)
    }

    fn sweep(&self, folder: &str, keep: &BTreeSet<String>) -> Result<(), ImageError> {
        let folder = self.root.join(folder);
        for name in names_in(&folder)? {
            if keep.contains(&name) {
                continue;
            }
            let path = folder.join(name);
            remove_any(&path).at(&path)?;
        }
        Ok(())
    }

    /// A temporary folder whose lock nobody holds belongs to a process that is no more. What it has of
    /// blobs need not be fetched again.
    fn remove_leftovers(&self) -> Result<(), ImageError> {
        let tmp = self.root.join("tmp");
        for name in names_in(&tmp)? {
            let Some(id) = name.strip_suffix(".lock") else {
                continue;
            };
            let lock = File::open(tmp.join(&name)).at(&tmp)?;
            if lock.try_lock().is_ok() {
                self.keep_begun(&tmp.join(id))?;
                remove_any(&tmp.join(id)).at(&tmp)?;
                remove_any(&tmp.join(&name)).at(&tmp)?;
            }
        }
        Ok(())
    }

    pub(crate) fn keep_begun(&self, folder: &Path) -> Result<(), ImageError> {
        if !folder.is_dir() {
            return Ok(());
        }
        for name in names_in(folder)? {
            if let Some((_, hex)) = name.split_once('.') {
                let (from, to) = (folder.join(&name), self.begun_path(hex));
                fs::rename(&from, &to).at(&from)?;
            }
        }
        Ok(())
    }
}

/// Gives `tag` to the image `id` alone.
pub(crate) fn move_tag(images: &mut Images, id: &Digest, tag: &str) {
    for record in images.values_mut() {
        if record.id == *id {
            record.repo_tags.insert(tag.to_owned());
        } else {
            record.repo_tags.remove(tag);
        }
    }
}

fn find<'a>(images: &'a Images, name: &str) -> Option<&'a ImageRecord> {
    if let Ok(id) = name.parse::<Digest>() {
        let by_manifest = || images.values().find(|image| image.manifest == id);
        return images.get(&id).or_else(by_manifest);
    }
    if let Ok(reference) = name.parse::<Reference>() {
        let by_digest = reference.digest.as_ref().map(|d| reference.with_digest(d));
        let tag = reference.tagged();
        let found = images.values().find(|image| match &by_digest {
            Some(digest) => image.repo_digests.contains(digest),
            None => tag
                .as_ref()
                .is_some_and(|tag| image.repo_tags.contains(tag)),
        });
        if found.is_some() {
            return found;
        }
    }
    let mut candidates = images
        .values()
        .filter(|image| image.id.hex().starts_with(name));
    let first = candidates.next().filter(|_| name.len() >= SHORTEST_ID)?;
    // An ambiguous beginning names nothing.
    candidates.next().is_none().then_some(first)
}

pub(crate) fn names_in(folder: &Path) -> Result<Vec<String>, ImageError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).at(folder)? {
        names.push(entry.at(folder)?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// Removes a file or a whole folder; absence is no error.
pub(crate) fn remove_any(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
