//! Layers that builders keep for the next time: results of steps by keys of the builder's own.

use std::fs;
use std::io;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::error::{Context, ImageError};
use crate::ingest::Ingest;
use crate::store::{LayerRecord, Store, names_in};

/// Where they are noted in the store's folder.
pub(crate) const FOLDER: &str = "kept";

/// The result of one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// `None`: the step changed no files.
    pub layer: Option<LayerRecord>,
    pub created: String,
    /// The instruction, for people.
    pub about: String,
    /// Key of the step before.
    pub parent: String,
}

/// A result as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    pub kept: Kept,
    pub used: SystemTime,
}

impl Store {
    /// The result under a key, if it and its layer are there. It counts as used now.
    pub fn kept(&self, key: &str) -> Result<Option<Kept>, ImageError> {
        let Some(kept) = self.read_kept(key)? else {
            return Ok(None);
        };
        if let Some(layer) = &kept.layer
            && !(self.layer_folder(&layer.diff_id).is_dir()
                && self.blob_path(&layer.blob.digest).is_file())
        {
            return Ok(None);
        }
        let path = self.root().join(FOLDER).join(key);
        let now = fs::File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        match now {
            // Somebody removed it just now: then it is not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.at(&path).map(|()| Some(kept)),
        }
    }

    /// Keeps a result without a layer of its own.
    pub fn keep(&self, key: &str, kept: &Kept) -> Result<(), ImageError> {
        let _lock = self.lock()?;
        self.write_kept(key, kept)
    }

    /// All results.
    pub fn all_kept(&self) -> Result<Vec<Listed>, ImageError> {
        let mut found = Vec::new();
        for key in names_in(&self.root().join(FOLDER))? {
            let path = self.root().join(FOLDER).join(&key);
            let Some(kept) = self.read_kept(&key)? else {
                continue;
            };
            let used = fs::metadata(&path).and_then(|metadata| metadata.modified());
            found.push(Listed {
                key,
                kept,
                used: used.at(&path)?,
            });
        }
        Ok(found)
    }

    /// Forgets results; their layers go if nobody else needs them.
    pub fn forget_kept(&self, keys: &[String]) -> Result<(), ImageError> {
        for key in keys {
            let path = self.root().join(FOLDER).join(key);
            match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.at(&path)?,
            }
        }
        self.collect()
    }

    pub(crate) fn read_kept(&self, key: &str) -> Result<Option<Kept>, ImageError> {
        let path = self.root().join(FOLDER).join(key);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // What cannot be read is not kept: it will be made again.
            other => Ok(serde_json::from_slice(&other.at(&path)?).ok()),
        }
    }

    pub(crate) fn write_kept(&self, key: &str, kept: &Kept) -> Result<(), ImageError> {
        let path = self.root().join(FOLDER).join(key);
        let bytes = serde_json::to_vec(kept)
            .map_err(io::Error::other)
            .at(&path)?;
        // Written to another folder first: a reader of this one sees results only.
        let fresh = self.root().join("tmp").join(format!("{key}.kept"));
        fs::write(&fresh, bytes).at(&fresh)?;
        fs::rename(&fresh, &path).at(&path)
    }
}

impl Ingest {
    /// Keeps a result whose layer this ingest has taken.
    pub fn keep(self, key: &str, kept: &Kept) -> Result<(), ImageError> {
        let store = self.store().clone();
        let lock = store.lock()?;
        self.move_all()?;
        store.write_kept(key, kept)?;
        drop(lock);
        store.settle_behind();
        Ok(())
    }
}
