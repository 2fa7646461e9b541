//! Pairs in a folder, in upstream's layout: `<prefix>-<time>.pem` holds a certificate and its key,
//! `<prefix>-current.pem` is a link to the one in use.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use auth::certificate::{Pair, facts};
use jiff::Timestamp;

use crate::Error;

/// Pairs kept beside the one in use; older ones are removed.
const KEPT: usize = 8;

/// A folder of pairs with one prefix.
#[derive(Clone, Debug)]
pub struct PairStore {
    folder: PathBuf,
    prefix: &'static str,
}

impl PairStore {
    /// Opens it, and ends what a crash left half done.
    pub fn open(folder: &Path, prefix: &'static str) -> Result<PairStore, Error> {
        let store = PairStore {
            folder: folder.to_owned(),
            prefix,
        };
        let (current, updated) = (store.current_path(), store.path("updated"));
        if !exists(&current)? && exists(&updated)? {
            is_link(&updated)?;
            fs::rename(&updated, &current).map_err(at(&updated))?;
        }
        Ok(store)
    }

    /// The link to the pair in use.
    pub fn current_path(&self) -> PathBuf {
        self.path("current")
    }

    /// The pair in use.
    pub fn current(&self) -> Result<Option<Pair>, Error> {
        let path = self.current_path();
        match fs::read_to_string(&path) {
            Ok(text) => pair_of(&text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::File { path, source }),
        }
    }

    /// Takes a new pair into use.
    pub fn update(&self, pair: &Pair) -> Result<(), Error> {
        fs::create_dir_all(&self.folder).map_err(at(&self.folder))?;
        let stamp = Timestamp::now().strftime("%Y-%m-%d-%H-%M-%S").to_string();
        let path = self.path(&stamp);
        let text = format!("{}{}", pair.cert_pem, pair.key_pem);
        // Checked before anybody sees it.
        pair_of(&text)?;
        write_durably(&path, text.as_bytes()).map_err(at(&path))?;
        let (current, updated) = (self.current_path(), self.path("updated"));
        for link in [&current, &updated] {
            if exists(link)? {
                is_link(link)?;
            }
        }
        if exists(&updated)? {
            fs::remove_file(&updated).map_err(at(&updated))?;
        }
        let target = std::path::absolute(&path).map_err(at(&path))?;
        symlink(target, &updated).map_err(at(&updated))?;
        // The new link takes the place of the old one at once: there is always one.
        fs::rename(&updated, &current).map_err(at(&current))?;
        let folder = fs::File::open(&self.folder).and_then(|folder| folder.sync_all());
        folder.map_err(at(&self.folder))?;
        self.remove_old();
        Ok(())
    }

    fn remove_old(&self) {
        let prefix = format!("{}-2", self.prefix);
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut old: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| {
                let name = path.file_name().and_then(|name| name.to_str());
                name.is_some_and(|name| name.starts_with(&prefix) && name.ends_with(".pem"))
            })
            .collect();
        old.sort();
        old.truncate(old.len().saturating_sub(KEPT + 1));
        for path in old {
            if let Err(error) = fs::remove_file(&path) {
                tracing::debug!(%error, path = %path.display(), "old certificate stays");
            }
        }
    }

    fn path(&self, qualifier: &str) -> PathBuf {
        self.folder.join(format!("{}-{qualifier}.pem", self.prefix))
    }
}

/// A certificate and a key from one text.
pub(crate) fn pair_of(text: &str) -> Result<Pair, Error> {
    let (cert_pem, key_pem) = split(text);
    checked(Pair { cert_pem, key_pem })
}

/// The certificates and the keys of a text.
pub(crate) fn split(text: &str) -> (String, String) {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let blocks = lines.chunk_by(|_, next| !next.starts_with("-----BEGIN "));
    let (keys, certs): (Vec<String>, Vec<String>) = blocks
        .map(<[&str]>::concat)
        .partition(|block| block.contains("PRIVATE KEY-----"));
    (certs.concat(), keys.concat())
}

/// A pair whose key is that of its certificate.
pub(crate) fn checked(pair: Pair) -> Result<Pair, Error> {
    let fits = facts(&pair.cert_pem).map_err(|error| error.to_string());
    let fits = fits.and_then(|facts| {
        let key = rcgen::KeyPair::from_pem(&pair.key_pem).map_err(|error| error.to_string())?;
        let known = rcgen::PublicKeyData::subject_public_key_info(&key);
        match facts.public_key == known || known.ends_with(&facts.public_key) {
            true => Ok(()),
            false => Err("private key does not match public key".to_owned()),
        }
    });
    fits.map_err(Error::Pair)?;
    Ok(pair)
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn exists(path: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(at(path)(source)),
    }
}

fn is_link(path: &Path) -> Result<(), Error> {
    let facts = fs::symlink_metadata(path).map_err(at(path))?;
    match facts.is_symlink() {
        true => Ok(()),
        false => Err(Error::NoLink(path.to_owned())),
    }
}

pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation::tests::pair;

    #[test]
    fn the_link_leads_to_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let store = PairStore::open(folder.path(), "kubelet-client").unwrap();
        assert!(store.current().unwrap().is_none());
        let (first, second) = (pair(3_600), pair(7_200));
        store.update(&first).unwrap();
        assert_eq!(store.current().unwrap(), Some(first.clone()));
        store.update(&second).unwrap();
        assert_eq!(store.current().unwrap(), Some(second.clone()));
        let target = fs::read_link(store.current_path()).unwrap();
        assert!(target.is_absolute(), "{target:?}");
        // A crash between the two steps of upstream's.
        fs::rename(store.current_path(), store.path("updated")).unwrap();
        assert!(store.current().unwrap().is_none());
        let store = PairStore::open(folder.path(), "kubelet-client").unwrap();
        assert_eq!(store.current().unwrap(), Some(second));
        let mixed = Pair {
            key_pem: pair(60).key_pem,
            ..first
        };
        assert!(matches!(store.update(&mixed), Err(Error::Pair(_))));
        fs::remove_file(store.current_path()).unwrap();
        fs::write(store.current_path(), "").unwrap();
        assert!(matches!(store.update(&pair(60)), Err(Error::NoLink(_))));
    }
}
