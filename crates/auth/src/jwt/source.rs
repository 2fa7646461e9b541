//! Where an issuer's keys are, and whether one of them has signed a token.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde::Deserialize;
use tokio::sync::Mutex;
use webhook::{CallError, ConfigError, Webhook};

use crate::jwk::{ALGORITHMS, KeySet, Parts};

const WELL_KNOWN: &str = "/.well-known/openid-configuration";
/// Greatest document that is read from an issuer.
pub(super) const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// How long an issuer may take to answer.
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// The least time between two looks at an issuer: strangers' tokens must not become a flood.
const FETCH_PAUSE: Duration = Duration::from_millis(100);

/// The keys of an issuer, and how one gets at them.
pub(super) struct Source {
    issuer: String,
    /// Where the issuer describes itself, if not where all do.
    discovery: Option<String>,
    /// PEM; empty: the system's.
    ca: String,
    /// Signatures that count; empty: all.
    algorithms: Vec<String>,
    keys: ArcSwapOption<KeySet>,
    /// Who asks the issuer does so alone.
    fetching: Mutex<Fetching>,
}

#[derive(Default)]
struct Fetching {
    /// Where the keys are, once that is known.
    keys_at: Option<(String, Arc<Webhook>)>,
    last: Option<tokio::time::Instant>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Why an issuer's documents cannot be had.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Call(#[from] CallError),
    #[error("oidc: failed to decode provider discovery object: {0}")]
    Decode(#[from] serde_json::Error),
    #[error("oidc: issuer did not match the issuer returned by provider, expected {0:?} got {1:?}")]
    OtherIssuer(String, String),
}

impl Source {
    /// Documents are fetched when they are first needed.
    pub(super) fn new(
        issuer: &str,
        discovery: Option<&str>,
        ca: &str,
        algorithms: &[String],
    ) -> Source {
        Source {
            issuer: issuer.to_owned(),
            discovery: discovery.filter(|url| !url.is_empty()).map(str::to_owned),
            ca: ca.to_owned(),
            algorithms: algorithms.to_vec(),
            keys: ArcSwapOption::empty(),
            fetching: Mutex::default(),
        }
    }

    /// By the keys that are known, and then by those that the issuer has now.
    pub(super) async fn verify(&self, parts: &Parts<'_>) -> Result<(), String> {
        let own = &self.algorithms;
        let known = match own.is_empty() {
            true => ALGORITHMS.contains(&parts.algorithm.as_str()),
            false => own.contains(&parts.algorithm),
        };
        if !known {
            return Err(format!(
                "oidc: id token signed with unsupported algorithm, got {:?}",
                parts.algorithm
            ));
        }
        let before = self.keys.load_full();
        if before.as_ref().is_some_and(|keys| keys.verifies(parts)) {
            return Ok(());
        }
        let now = self
            .newer(before.as_ref())
            .await
            .map_err(|error| error.to_string())?;
        match now.is_some_and(|keys| keys.verifies(parts)) {
            true => Ok(()),
            false => Err("failed to verify signature: failed to verify id token signature".into()),
        }
    }

    /// The issuer's keys, if they may be other than `before`.
    async fn newer(&self, before: Option<&Arc<KeySet>>) -> Result<Option<Arc<KeySet>>, FetchError> {
        let mut fetching = self.fetching.lock().await;
        let now = self.keys.load_full();
        let same = match (&now, before) {
            (Some(now), Some(before)) => Arc::ptr_eq(now, before),
            (now, before) => now.is_none() && before.is_none(),
        };
        if !same {
            // Somebody has asked while we waited.
            return Ok(now);
        }
        if let Some(last) = fetching.last {
            tokio::time::sleep_until(last + FETCH_PAUSE).await;
        }
        fetching.last = Some(tokio::time::Instant::now());
        let place = match fetching.keys_at.clone() {
            Some((_, place)) => place,
            None => {
                let found = self.discover().await?;
                let place = Arc::new(self.document(&found)?);
                fetching.keys_at = Some((found, Arc::clone(&place)));
                place
            }
        };
        let document = place.get(FETCH_TIMEOUT, DOCUMENT_BYTES_MAX).await?;
        let keys = Arc::new(KeySet::parse(&document)?);
        self.keys.store(Some(Arc::clone(&keys)));
        Ok(Some(keys))
    }

    /// Where the issuer says its keys are.
    async fn discover(&self) -> Result<String, FetchError> {
        let usual = format!("{}{WELL_KNOWN}", self.issuer.trim_end_matches('/'));
        let place = self.document(self.discovery.as_ref().unwrap_or(&usual))?;
        let document = place.get(FETCH_TIMEOUT, DOCUMENT_BYTES_MAX).await?;
        let found: Discovery = serde_json::from_slice(&document)?;
        match found.issuer == self.issuer {
            true => Ok(found.jwks_uri),
            false => Err(FetchError::OtherIssuer(self.issuer.clone(), found.issuer)),
        }
    }

    fn document(&self, url: &str) -> Result<Webhook, ConfigError> {
        place(url, &self.ca, None)
    }
}

/// Something that can be fetched, by whoever bears a token.
pub(super) fn place(url: &str, ca: &str, token: Option<String>) -> Result<Webhook, ConfigError> {
    Webhook::from_access(&client::Access {
        server: url.to_owned(),
        ca: (!ca.is_empty()).then(|| ca.as_bytes().to_vec()),
        token,
        ..client::Access::default()
    })
}
