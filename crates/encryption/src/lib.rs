//! Encryption at rest: bytes in, bytes out, by the rules of an `EncryptionConfiguration`.
//!
//! Knows neither objects nor the store. What is written begins with upstream's prefix
//! (`k8s:enc:<provider>:v1:<key>:`), so that data moves between here and any other API server
//! that has the keys. The first provider of a resource writes, all of them read.

mod config;
mod file;
mod kms;
mod local;
mod rules;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;

pub use config::{ConfigError, EncryptionConfiguration};
pub use file::{FileError, create_default, load};
pub use rules::Rules;

/// What every encrypted value begins with.
pub const ENCRYPTED_PREFIX: &[u8] = b"k8s:enc:";

/// Why a value cannot be encrypted or decrypted. Says nothing about keys.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// No provider is configured for what the value begins with.
    #[error("no matching prefix found")]
    NoProvider,
    /// Plain bytes were expected.
    #[error("identity transformer tried to read encrypted data")]
    Encrypted,
    /// The value is shorter than what every value of its provider has.
    #[error("the stored data was shorter than the required size")]
    Short,
    /// The key is another one, or the value or its place were tampered with.
    #[error("the stored data does not authenticate")]
    Forged,
    /// The cipher refused.
    #[error("encryption failed")]
    Cipher,
    /// A key management service did not do its part.
    #[error("kms provider {name:?}: {why}")]
    Kms { name: String, why: String },
}

/// How a value was stored: equal for values under the same provider and key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seal(u64);

impl Seal {
    /// Not encrypted.
    pub const PLAIN: Seal = Seal(0);

    fn of(parts: &[&[u8]]) -> Seal {
        let mut hasher = DefaultHasher::new();
        parts.hash(&mut hasher);
        Seal(hasher.finish().max(1))
    }
}

/// A value as read.
#[derive(Debug)]
pub struct Opened {
    pub plain: Bytes,
    pub seal: Seal,
}

/// The rules in force; they may be replaced while it is used.
#[derive(Debug)]
pub struct Encryption {
    rules: ArcSwap<Rules>,
    failures: AtomicU64,
}

impl Encryption {
    /// Encrypts by these rules.
    pub fn new(rules: Rules) -> Arc<Encryption> {
        Arc::new(Encryption {
            rules: ArcSwap::from_pointee(rules),
            failures: AtomicU64::new(0),
        })
    }

    /// What is stored for `plain`. `resource` is `secrets` or `deployments.apps`; `key`, where the
    /// value goes, is authenticated with it.
    pub fn seal(&self, resource: &str, key: &[u8], plain: Bytes) -> Result<Bytes, SealError> {
        match self.rules.load().chain(resource) {
            None => Ok(plain),
            Some(chain) => chain.seal(key, plain),
        }
    }

    /// What `stored` was before [`Encryption::seal`].
    pub fn open(&self, resource: &str, key: &[u8], stored: Bytes) -> Result<Opened, SealError> {
        let opened = match self.rules.load().chain(resource) {
            Some(chain) => chain.open(key, stored),
            None => rules::open_plain(stored),
        };
        if opened.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        opened
    }

    /// Whether a value so stored would be stored otherwise now.
    pub fn is_stale(&self, resource: &str, seal: Seal) -> bool {
        let now = match self.rules.load().chain(resource) {
            None => Seal::PLAIN,
            Some(chain) => chain.seal_now(),
        };
        seal != now
    }

    /// Whether reading may need a key management service, so that [`Encryption::warm`] is due.
    pub fn is_remote(&self) -> bool {
        self.rules.load().is_remote()
    }

    /// Has the key management service decrypt what [`Encryption::open`] will need for this value.
    pub async fn warm(&self, resource: &str, stored: &[u8]) {
        let chain = self.rules.load().chain(resource).cloned();
        if let Some(chain) = chain {
            chain.warm(stored).await;
        }
    }

    /// Puts other rules in force.
    pub fn replace(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// How many values could not be read so far.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// What is wrong with the key management services; `None`: nothing.
    pub fn unhealthy(&self) -> Option<String> {
        self.rules.load().unhealthy()
    }
}

#[cfg(test)]
mod tests;
