//! Which providers serve a resource, and the order in which they are asked.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::{EncryptionConfiguration, ProviderConfiguration, split};
use crate::kms::Kms;
use crate::local::Cipher;
use crate::{ENCRYPTED_PREFIX, Opened, Seal, SealError};

/// Providers by resource.
#[derive(Debug, Default)]
pub struct Rules {
    /// By `secrets` or `deployments.apps`.
    exact: HashMap<String, Arc<Chain>>,
    /// By group, for `*.group`.
    groups: HashMap<String, Arc<Chain>>,
    /// For `*.*`.
    all: Option<Arc<Chain>>,
    services: Vec<Arc<Kms>>,
}

impl Rules {
    /// The rules that a configuration describes. What stands first in it wins.
    pub(crate) fn new(config: &EncryptionConfiguration) -> Result<Rules, SealError> {
        let mut rules = Rules::default();
        for part in &config.resources {
            let mut chain = Chain::default();
            for provider in &part.providers {
                chain.add(provider, &mut rules.services)?;
            }
            let chain = Arc::new(chain);
            for name in &part.resources {
                let (resource, group) = split(name);
                let exact = name.trim_end_matches('.');
                if rules.all.is_some() || rules.groups.contains_key(group) {
                    continue;
                }
                let chain = Arc::clone(&chain);
                match (resource, group) {
                    ("*", "*") => rules.all = Some(chain),
                    ("*", group) => drop(rules.groups.insert(group.into(), chain)),
                    _ => drop(rules.exact.entry(exact.into()).or_insert(chain)),
                }
            }
        }
        Ok(rules)
    }

    /// The key management services that must be followed.
    pub(crate) fn services(&self) -> &[Arc<Kms>] {
        &self.services
    }

    pub(crate) fn chain(&self, resource: &str) -> Option<&Arc<Chain>> {
        if let Some(chain) = self.exact.get(resource) {
            return Some(chain);
        }
        if !self.groups.is_empty()
            && let Some(chain) = self.groups.get(split(resource).1)
        {
            return Some(chain);
        }
        self.all.as_ref()
    }

    pub(crate) fn is_remote(&self) -> bool {
        !self.services.is_empty()
    }

    pub(crate) fn unhealthy(&self) -> Option<String> {
        self.services.iter().find_map(|service| service.unhealthy())
    }
}

/// The providers of a resource, with all their keys; the first writes.
#[derive(Debug, Default)]
pub(crate) struct Chain(Vec<Provider>);

enum Provider {
    Identity,
    Local {
        prefix: Vec<u8>,
        seal: Seal,
        cipher: Cipher,
    },
    Kms(Arc<Kms>),
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.prefix()))
    }
}

impl Provider {
    fn prefix(&self) -> &[u8] {
        match self {
            Provider::Identity => b"",
            Provider::Local { prefix, .. } => prefix,
            Provider::Kms(kms) => kms.prefix(),
        }
    }
}

impl Chain {
    fn add(
        &mut self,
        config: &ProviderConfiguration,
        services: &mut Vec<Arc<Kms>>,
    ) -> Result<(), SealError> {
        type Make = fn(&[u8]) -> Result<Cipher, SealError>;
        let lists: [(&str, _, Make); 3] = [
            ("aesgcm", &config.aesgcm, Cipher::gcm),
            ("aescbc", &config.aescbc, Cipher::cbc),
            ("secretbox", &config.secretbox, Cipher::secretbox),
        ];
        for (name, keys, make) in lists {
            for key in keys.iter().flat_map(|keys| &keys.keys) {
                let prefix = format!("k8s:enc:{name}:v1:{}:", key.name).into_bytes();
                self.0.push(Provider::Local {
                    seal: Seal::of(&[&prefix]),
                    prefix,
                    cipher: make(&key.bytes())?,
                });
            }
        }
        if config.identity.is_some() {
            self.0.push(Provider::Identity);
        }
        if let Some(config) = &config.kms {
            let kms = Arc::new(Kms::new(config));
            services.push(Arc::clone(&kms));
            self.0.push(Provider::Kms(kms));
        }
        Ok(())
    }

    pub(crate) fn seal(&self, place: &[u8], plain: Bytes) -> Result<Bytes, SealError> {
        match self.0.first() {
            None | Some(Provider::Identity) => Ok(plain),
            Some(Provider::Local { prefix, cipher, .. }) => {
                let mut out = Vec::with_capacity(prefix.len() + plain.len() + 64);
                out.extend_from_slice(prefix);
                cipher.seal(place, &plain, &mut out)?;
                Ok(out.into())
            }
            Some(Provider::Kms(kms)) => kms.seal(place, &plain),
        }
    }

    pub(crate) fn open(&self, place: &[u8], stored: Bytes) -> Result<Opened, SealError> {
        for provider in &self.0 {
            let Some(rest) = stored.strip_prefix(provider.prefix()) else {
                continue;
            };
            return match provider {
                Provider::Identity if stored.starts_with(ENCRYPTED_PREFIX) => continue,
                Provider::Identity => open_plain(stored),
                Provider::Local { seal, cipher, .. } => Ok(Opened {
                    plain: cipher.open(place, rest)?.into(),
                    seal: *seal,
                }),
                Provider::Kms(kms) => kms.open(place, rest),
            };
        }
        Err(SealError::NoProvider)
    }

    pub(crate) fn seal_now(&self) -> Seal {
        match self.0.first() {
            None | Some(Provider::Identity) => Seal::PLAIN,
            Some(Provider::Local { seal, .. }) => *seal,
            Some(Provider::Kms(kms)) => kms.seal_now(),
        }
    }

    pub(crate) async fn warm(&self, stored: &[u8]) {
        for provider in &self.0 {
            if let Provider::Kms(kms) = provider
                && let Some(rest) = stored.strip_prefix(kms.prefix())
            {
                return kms.warm(rest).await;
            }
        }
    }
}

/// Reads what must not be encrypted.
pub(crate) fn open_plain(stored: Bytes) -> Result<Opened, SealError> {
    match stored.starts_with(ENCRYPTED_PREFIX) {
        true => Err(SealError::Encrypted),
        false => Ok(Opened {
            plain: stored,
            seal: Seal::PLAIN,
        }),
    }
}
