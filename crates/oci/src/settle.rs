//! When what was taken in has reached the disk. Nobody waits for that: an image is there as soon as the
//! kernel has its files, whatever becomes of this process. What the kernel then had no time to write
//! is torn by a crash of the machine, so each blob and layer is marked once it is on the disk, and
//! the first to open the store after a boot removes what has no mark, with the images that need it.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{Context, ImageError};
use crate::store::{BEGUN, ImageRecord, Store, names_in, remove_any};

/// On blobs and on folders of layers: they are on the disk as they should be.
const MARK: &str = "trusted.sampan.settled";
/// In the store's folder: the boot it was last opened in.
const BOOT: &str = "boot";
/// So many files are open at a time.
const BATCH: usize = 256;

/// What the thread that waits for the disk is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    Busy,
    /// More has come since it began.
    Again,
}

/// Shared by all clones of a store's handle.
#[derive(Debug, Default)]
pub(crate) struct Settling(Mutex<Phase>);

impl Settling {
    /// Whether somebody has to begin; else who is at it is told that there is more.
    fn begin(&self) -> bool {
        let mut phase = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = *phase == Phase::Idle;
        *phase = if idle { Phase::Busy } else { Phase::Again };
        idle
    }

    /// Whether there is more to do for who began.
    fn goes_on(&self) -> bool {
        let mut phase = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let more = *phase == Phase::Again;
        *phase = if more { Phase::Busy } else { Phase::Idle };
        more
    }
}

impl Store {
    /// Waits until all that was taken in is on the disk: a crash of the machine takes nothing of it
    /// any more.
    pub fn settle(&self) -> Result<(), ImageError> {
        loop {
            // Opened first: of what comes later, this flush says nothing.
            let pieces = self.unsettled()?;
            if pieces.is_empty() {
                return Ok(());
            }
            let root = File::open(self.root()).at(self.root())?;
            nix::unistd::syncfs(&root).at(self.root())?;
            for (path, piece) in pieces {
                mark(&piece).at(&path)?;
            }
        }
    }

    /// As [`Store::settle`], by a thread that nobody waits for.
    pub fn settle_behind(&self) {
        if !self.settling.begin() {
            return;
        }
        let store = self.clone();
        let settling = move || {
            loop {
                if let Err(error) = store.settle() {
                    // Without marks it is only worth less, and the next one tries again.
                    tracing::warn!(%error, "images may not be on the disk");
                }
                if !store.settling.goes_on() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("settle".to_owned());
        if let Err(error) = thread.spawn(settling) {
            tracing::warn!(%error, "images may not be on the disk");
            self.settling.goes_on();
        }
    }

    /// Removes what was not on the disk yet when the machine went down, at the first opening since.
    pub(crate) fn forget_torn(&self) -> Result<(), ImageError> {
        let boot = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = fs::read_to_string(boot).at(boot)?;
        let path = self.root().join(BOOT);
        if self.last_boot()?.as_ref() == Some(&boot) {
            return Ok(());
        }
        let _lock = self.lock()?;
        match self.last_boot()? {
            Some(last) if last == boot => return Ok(()),
            Some(_) => self.forget_unmarked()?,
            // Former versions waited for the disk.
            None => {
                for path in self.pieces()? {
                    mark(&File::open(&path).at(&path)?).at(&path)?;
                }
            }
        }
        base::files::write_atomic(&path, boot.as_bytes(), 0o600).at(&path)
    }

    fn last_boot(&self) -> Result<Option<String>, ImageError> {
        let path = self.root().join(BOOT);
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.at(&path).map(Some),
        }
    }

    fn forget_unmarked(&self) -> Result<(), ImageError> {
        for path in self.pieces()? {
            if open_unmarked(&path)?.is_some() {
                tracing::warn!(path = %path.display(), "removed: the machine went down while it was written");
                remove_any(&path).at(&path)?;
            }
        }
        for folder in ["tmp", BEGUN].map(|name| self.root().join(name)) {
            for name in names_in(&folder)? {
                remove_any(&folder.join(&name)).at(&folder)?;
            }
        }
        let mut images = self.read()?;
        let before = images.len();
        images.retain(|_, image| self.is_whole(image));
        match images.len() == before {
            true => Ok(()),
            false => self.write(&images),
        }
    }

    fn is_whole(&self, image: &ImageRecord) -> bool {
        let documents = [&image.id, &image.manifest];
        let blobs = image.layers.iter().map(|layer| &layer.blob.digest);
        let mut blobs = documents.into_iter().chain(blobs);
        let mut layers = image.layers.iter();
        blobs.all(|digest| self.blob_path(digest).is_file())
            && layers.all(|layer| self.layer_folder(&layer.diff_id).is_dir())
    }

    /// Some of those without a mark, open.
    pub(crate) fn unsettled(&self) -> Result<Vec<(PathBuf, File)>, ImageError> {
        let mut found = Vec::new();
        for path in self.pieces()? {
            if let Some(piece) = open_unmarked(&path)? {
                found.push((path, piece));
            }
            if found.len() == BATCH {
                break;
            }
        }
        Ok(found)
    }

    /// All blobs and layers.
    fn pieces(&self) -> Result<Vec<PathBuf>, ImageError> {
        let mut pieces = Vec::new();
        for folder in [self.blobs_folder(), self.layers_folder()] {
            let names = names_in(&folder)?;
            pieces.extend(names.into_iter().map(|name| folder.join(name)));
        }
        Ok(pieces)
    }
}

/// `None`: it is marked, or somebody removed it just now.
fn open_unmarked(path: &Path) -> Result<Option<File>, ImageError> {
    let piece = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.at(path)?,
    };
    let marked = linux::attributes::get(piece.as_fd(), MARK).at(path)?;
    Ok(marked.is_none().then_some(piece))
}

fn mark(piece: &File) -> io::Result<()> {
    linux::attributes::set(piece.as_fd(), MARK, b"y")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::manifest::{OCI_CONFIG, OCI_LAYER};

    fn opened(folder: &tempfile::TempDir) -> Store {
        Store::open(&folder.path().join("images")).unwrap()
    }

    /// What the store finds when it is opened next time was written in another boot.
    fn reboot(store: &Store) {
        fs::write(store.root().join(BOOT), "another").unwrap();
    }

    /// Takes an image in, of a layer for each of the texts, and sees to nothing else.
    fn take(store: &Store, name: &str, texts: &[&str]) -> ImageRecord {
        let ingest = store.ingest().unwrap();
        let mut layers = Vec::new();
        for text in texts {
            let mut archive = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            let file = archive.append_data(&mut header, "file", text.as_bytes());
            file.unwrap();
            let bytes = archive.into_inner().unwrap();
            layers.push(ingest.layer(&bytes[..], OCI_LAYER, None, None).unwrap());
        }
        let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.0.diff_id).collect();
        let config = serde_json::json!({"rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = config.to_string().into_bytes();
        ingest.document(&config, OCI_CONFIG, None).unwrap();
        let manifest = ingest.document(name.as_bytes(), "text/plain", None);
        let manifest = manifest.unwrap().digest;
        let names = [name.parse().unwrap()];
        let record = ingest.commit(&config, &manifest, &manifest, layers, &names);
        record.unwrap()
    }

    fn text(store: &Store, layer: &Digest) -> String {
        fs::read_to_string(store.layer_folder(layer).join("file")).unwrap()
    }

    #[test]
    fn a_crash_of_the_machine_takes_what_was_not_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(&folder);
        let old = take(&store, "old", &["shared", "old"]);
        store.settle().unwrap();
        let new = take(&store, "new", &["shared", "new"]);
        // The lock of a process may be lost where its folder is not.
        fs::create_dir(store.root().join("tmp/dead")).unwrap();
        fs::write(store.begun_path("1234"), "torn").unwrap();
        reboot(&store);
        let store = opened(&folder);
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&old));
        assert_eq!(text(&store, &old.layers[0].diff_id), "shared");
        assert_eq!(text(&store, &old.layers[1].diff_id), "old");
        let lost = &new.layers[1];
        assert!(!store.layer_folder(&lost.diff_id).exists());
        assert!(!store.blob_path(&lost.blob.digest).exists());
        assert!(!store.blob_path(&new.id).exists());
        for folder in ["tmp", BEGUN] {
            let left = names_in(&store.root().join(folder)).unwrap();
            assert_eq!(left, Vec::<String>::new(), "{folder}");
        }
        // Taken in once more, it is as whole as if nothing had been.
        assert_eq!(take(&store, "new", &["shared", "new"]), new);
        assert_eq!(text(&store, &lost.diff_id), "new");
        assert_eq!(store.list().unwrap().len(), 2);
    }

    #[test]
    fn a_crash_of_ours_takes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(&folder);
        let image = take(&store, "new", &["new"]);
        drop(store);
        let store = opened(&folder);
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&image));
        store.settle().unwrap();
        assert!(store.unsettled().unwrap().is_empty());
        reboot(&store);
        let store = opened(&folder);
        assert_eq!(store.list().unwrap(), std::slice::from_ref(&image));
        assert_eq!(text(&store, &image.layers[0].diff_id), "new");
    }

    #[test]
    fn a_record_whose_content_never_came_to_the_disk_goes() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(&folder);
        let images = ["config", "blob", "layer", "whole"].map(|name| take(&store, name, &[name]));
        store.settle().unwrap();
        fs::remove_file(store.blob_path(&images[0].id)).unwrap();
        fs::remove_file(store.blob_path(&images[1].layers[0].blob.digest)).unwrap();
        fs::remove_dir_all(store.layer_folder(&images[2].layers[0].diff_id)).unwrap();
        reboot(&store);
        let [.., whole] = images;
        assert_eq!(opened(&folder).list().unwrap(), [whole]);
    }

    #[test]
    fn what_a_former_version_took_in_was_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(&folder);
        let image = take(&store, "old", &["old"]);
        fs::remove_file(store.root().join(BOOT)).unwrap();
        let store = opened(&folder);
        assert!(store.unsettled().unwrap().is_empty());
        reboot(&store);
        assert_eq!(opened(&folder).list().unwrap(), [image]);
    }

    #[test]
    fn who_settles_hears_of_more() {
        let settling = Settling::default();
        assert!(settling.begin());
        assert!(!settling.begin() && !settling.begin());
        assert!(settling.goes_on());
        assert!(!settling.goes_on());
        assert!(settling.begin());
    }
}
