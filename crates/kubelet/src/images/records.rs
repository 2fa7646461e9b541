//! Who pulled which image with whose credentials, as files: an intent while a pull is under way
//! (`pulling`), a record of those who could pull it afterwards (`pulled`). A kubelet that dies between
//! the two finds the intent, and knows that the image is no one's that has not pulled it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use node_api::Image;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::keyring::{Coordinates, Credentials, Owner};
use super::reference;
use crate::clock::Clock;

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const INTENT: &str = "ImagePullIntent";
const RECORD: &str = "ImagePulledRecord";
/// What the names of our files begin with.
const PREFIX: &str = "sha256-";
/// Secrets of an image beyond which none is noted that was not used for a pull.
const SECRETS_NOTED_MAX: usize = 100;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Intent {
    kind: String,
    api_version: String,
    image: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Record {
    kind: String,
    api_version: String,
    last_updated_time: Timestamp,
    /// The image's id.
    image_ref: String,
    /// By the image's name in pods, without its tag.
    #[serde(default)]
    credential_mapping: BTreeMap<String, Access>,
}

/// Who may use an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Access {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kubernetes_secrets: Vec<SecretUse>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kubernetes_service_accounts: Vec<Coordinates>,
    /// Every pod of the node.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    node_pods_accessible: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecretUse {
    #[serde(flatten)]
    secret: Coordinates,
    credential_hash: String,
}

impl SecretUse {
    fn of(credentials: &Credentials) -> Option<SecretUse> {
        let Owner::Secret(secret) = &credentials.owner else {
            return None;
        };
        let bytes = serde_json::to_vec(&credentials.auth).unwrap_or_default();
        let digest = Sha256::digest(bytes);
        Some(SecretUse {
            secret: secret.clone(),
            credential_hash: hex(&digest),
        })
    }
}

impl Access {
    /// Of those who have the credentials of a pull; every pod's where none were needed.
    pub(super) fn by(credentials: Option<&Credentials>) -> Access {
        let mut access = Access::default();
        match credentials.map(|used| (&used.owner, used)) {
            None | Some((Owner::Node, _)) => access.node_pods_accessible = true,
            Some((Owner::Secret(_), used)) => {
                access.kubernetes_secrets.extend(SecretUse::of(used));
            }
            Some((Owner::Account(account), _)) => {
                access.kubernetes_service_accounts.push(account.clone());
            }
        }
        access
    }

    /// Whether nobody's credentials can help.
    pub(super) fn is_closed(&self) -> bool {
        self.kubernetes_secrets.is_empty() && self.kubernetes_service_accounts.is_empty()
    }

    pub(super) fn is_open(&self) -> bool {
        self.node_pods_accessible
    }

    /// Whether somebody with these credentials may use the image; and what was learnt of a secret: it
    /// is another one with the same credentials, or the same one with others.
    pub(super) fn admits(&self, credentials: &[Credentials]) -> (bool, Option<Access>) {
        let is_full = self.kubernetes_secrets.len() >= SECRETS_NOTED_MAX;
        for own in credentials.iter().filter_map(SecretUse::of) {
            for known in &self.kubernetes_secrets {
                let same_secret = known.secret == own.secret;
                let same_hash = known.credential_hash == own.credential_hash;
                if same_hash || (same_secret && !is_full) {
                    let learnt = (same_hash != same_secret && !is_full).then(|| Access {
                        kubernetes_secrets: vec![own],
                        ..Access::default()
                    });
                    return (true, learnt);
                }
            }
        }
        let mut accounts = credentials.iter().filter_map(|one| match &one.owner {
            Owner::Account(account) => Some(account),
            _ => None,
        });
        // A pod has one account.
        let known = &self.kubernetes_service_accounts;
        (accounts.next().is_some_and(|own| known.contains(own)), None)
    }

    /// Adds others who may use it; says whether that changed anything.
    fn add(&mut self, other: Access) -> bool {
        let before = self.clone();
        if self.node_pods_accessible || other.node_pods_accessible {
            *self = Access {
                node_pods_accessible: true,
                ..Access::default()
            };
            return *self != before;
        }
        for one in other.kubernetes_secrets {
            self.kubernetes_secrets
                .retain(|known| known.secret != one.secret);
            self.kubernetes_secrets.push(one);
        }
        self.kubernetes_secrets
            .sort_by(|a, b| a.secret.cmp(&b.secret));
        self.kubernetes_service_accounts
            .extend(other.kubernetes_service_accounts);
        self.kubernetes_service_accounts.sort();
        self.kubernetes_service_accounts.dedup();
        *self != before
    }
}

/// What is known of an image that is on the node.
#[derive(Debug)]
pub(super) struct Found {
    /// The kubelet pulled it, or began to.
    pub(super) by_kubelet: bool,
    /// Who may use it by this name.
    pub(super) access: Option<Access>,
}

/// The files.
pub(super) struct Records {
    pulling: PathBuf,
    pulled: PathBuf,
    clock: Clock,
    /// Pulls under way by image; held while files change.
    under_way: Mutex<HashMap<String, usize>>,
}

/// The folders of these files below a kubelet's own.
pub(crate) fn folders(root: &Path) -> [PathBuf; 2] {
    let folder = root.join("image_manager");
    [folder.join("pulling"), folder.join("pulled")]
}

impl Records {
    pub(super) fn new(root: &Path, clock: Clock) -> Records {
        let [pulling, pulled] = folders(root);
        Records {
            pulling,
            pulled,
            clock,
            under_way: Mutex::default(),
        }
    }

    /// Notes that an image is about to be pulled, under the name it has in the pod.
    pub(super) fn begin(&self, image: &str) -> io::Result<Pull<'_>> {
        let mut under_way = self.under_way.lock();
        let intent = Intent {
            kind: INTENT.into(),
            api_version: API_VERSION.into(),
            image: image.to_owned(),
        };
        write(&file(&self.pulling, image), &intent)?;
        *under_way.entry(image.to_owned()).or_default() += 1;
        Ok(Pull {
            records: self,
            image: image.to_owned(),
        })
    }

    /// What is known of an image by its name in a pod and its id.
    pub(super) fn find(&self, image: &str, id: &str) -> io::Result<Found> {
        let under_way = self.under_way.lock();
        if let Some(record) = self.record(id)? {
            let access = record.credential_mapping.get(reference::without_tag(image));
            return Ok(Found {
                by_kubelet: true,
                access: access.cloned(),
            });
        }
        let intent: Option<Intent> = match under_way.contains_key(image) {
            true => None,
            false => read(&file(&self.pulling, image))?,
        };
        Ok(Found {
            by_kubelet: under_way.contains_key(image)
                || intent.is_some_and(|intent| intent.image == image),
            access: None,
        })
    }

    /// Notes that others may use an image, too; `None` where it is not known who.
    pub(super) fn note(&self, image: &str, id: &str, access: Option<Access>) -> io::Result<()> {
        let _held = self.under_way.lock();
        self.write_record(image, id, access)
    }

    fn write_record(&self, image: &str, id: &str, access: Option<Access>) -> io::Result<()> {
        let known = self.record(id).unwrap_or_else(|error| {
            tracing::warn!(%error, id, "record of an image not read, it is written anew");
            None
        });
        let is_new = known.is_none();
        let mut record = known.unwrap_or_else(|| Record {
            kind: RECORD.into(),
            api_version: API_VERSION.into(),
            last_updated_time: Timestamp::UNIX_EPOCH,
            image_ref: id.to_owned(),
            credential_mapping: BTreeMap::new(),
        });
        let mapping = &mut record.credential_mapping;
        let name = reference::without_tag(image).to_owned();
        let is_changed = access.is_some_and(|access| mapping.entry(name).or_default().add(access));
        if !is_new && !is_changed {
            return Ok(());
        }
        record.last_updated_time = crate::pod::whole_seconds(self.clock.now());
        write(&file(&self.pulled, id), &record)
    }

    fn record(&self, id: &str) -> io::Result<Option<Record>> {
        let record: Option<Record> = read(&file(&self.pulled, id))?;
        Ok(record.filter(|record| record.image_ref == id))
    }

    /// Turns what an earlier kubelet left of its pulls into records that name nobody.
    pub(super) fn adopt(&self, images: &[Image]) {
        let _held = self.under_way.lock();
        for (path, intent) in self.intents() {
            for image in images.iter().filter(|image| is_named(image, &intent.image)) {
                let written = self.write_record(&intent.image, &image.id, None);
                let done = written.and_then(|()| std::fs::remove_file(&path));
                if let Err(error) = done {
                    tracing::error!(%error, image = intent.image, "pull of before not noted");
                }
            }
        }
    }

    /// Forgets images that are gone; `images` are those that were there at `since`.
    pub(super) fn prune(&self, images: &[Image], since: Timestamp) {
        let under_way = self.under_way.lock();
        let since = crate::pod::whole_seconds(since);
        for (path, record) in files::<Record>(&self.pulled) {
            let is_there = images.iter().any(|image| image.id == record.image_ref);
            if !is_there && record.last_updated_time < since {
                remove(&path);
            }
        }
        for (path, intent) in self.intents() {
            let is_there = images.iter().any(|image| is_named(image, &intent.image));
            if !is_there && !under_way.contains_key(&intent.image) {
                remove(&path);
            }
        }
    }

    fn intents(&self) -> Vec<(PathBuf, Intent)> {
        files(&self.pulling)
    }

    fn end(&self, image: &str) {
        let mut under_way = self.under_way.lock();
        match under_way.get_mut(image) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(under_way.remove(image)),
        }
    }
}

/// A pull under way. Dropped before its end its intent stays: nobody knows what became of it.
pub(super) struct Pull<'a> {
    records: &'a Records,
    image: String,
}

impl Pull<'_> {
    /// It came, with somebody's credentials.
    pub(super) fn succeeded(self, id: &str, access: Access) {
        match self.records.note(&self.image, id, Some(access)) {
            Ok(()) => self.over(),
            Err(error) => {
                tracing::error!(%error, image = self.image, "record of an image not written");
            }
        }
    }

    /// It did not come.
    pub(super) fn over(self) {
        let (records, image) = (self.records, self.image.clone());
        drop(self);
        let under_way = records.under_way.lock();
        if !under_way.contains_key(&image) {
            remove(&file(&records.pulling, &image));
        }
    }
}

impl Drop for Pull<'_> {
    fn drop(&mut self) {
        self.records.end(&self.image);
    }
}

fn is_named(image: &Image, name: &str) -> bool {
    let whole = reference::whole(name);
    let mut names = image.repo_tags.iter().chain(&image.repo_digests);
    names.any(|own| reference::whole(own) == whole)
}

fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{PREFIX}{}", hex(&Sha256::digest(name))))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write(path: &Path, tree: &impl Serialize) -> io::Result<()> {
    base::files::write_atomic(path, &serde_json::to_vec(tree)?, 0o600)
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// All files of a folder that can be read.
fn files<T: DeserializeOwned>(folder: &Path) -> Vec<(PathBuf, T)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    let read = ours.filter_map(|entry| match read(&entry.path()) {
        Ok(tree) => Some((entry.path(), tree?)),
        Err(error) => {
            tracing::warn!(%error, path = %entry.path().display(), "record not read");
            None
        }
    });
    read.collect()
}

fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::error!(%error, path = %path.display(), "record not removed");
        }
        _ => {}
    }
}
