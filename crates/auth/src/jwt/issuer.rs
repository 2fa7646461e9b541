//! One issuer: where its keys are, which of them have signed, and whom a token names.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use meta::Faults;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use webhook::{CallError, ConfigError, Webhook};

use super::config::JwtAuthenticator;
use super::mapping::Mapper;
use crate::authenticator::{Digest, ForeignTokens, hash};
use crate::identity::Identity;
use crate::jwk::{ALGORITHMS, KeySet, Parts};
use crate::memo::Memo;
use crate::token::Bearer;

const WELL_KNOWN: &str = "/.well-known/openid-configuration";
/// Greatest document that is read from an issuer.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// How long an issuer may take to answer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// The least time between two looks at an issuer: strangers' tokens must not become a flood.
const FETCH_PAUSE: Duration = Duration::from_millis(100);
/// Verified tokens that are remembered, and for how long.
const REMEMBERED: usize = 2048;
const REMEMBERED_FOR: SignedDuration = SignedDuration::from_secs(10);
/// How far the clock of the issuer may be ahead of ours.
const EARLY: i64 = 300;

/// An issuer of tokens that are not ours.
pub struct Issuer {
    config: JwtAuthenticator,
    mapper: Mapper,
    keys: ArcSwapOption<KeySet>,
    /// Who asks the issuer does so alone.
    fetching: Mutex<Fetching>,
    verified: Memo<Digest, Identity>,
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

impl Issuer {
    /// An issuer whose configuration has no faults; its documents are fetched when first needed.
    pub fn new(config: JwtAuthenticator) -> Result<Issuer, Faults> {
        let mut faults = Faults::new();
        let mapper = Mapper::compile(&config, "jwt", &mut faults);
        match faults.is_empty() {
            true => Ok(Issuer {
                config,
                mapper,
                keys: ArcSwapOption::empty(),
                fetching: Mutex::default(),
                verified: Memo::new(REMEMBERED),
            }),
            false => Err(faults),
        }
    }

    fn url(&self) -> &str {
        &self.config.issuer.url
    }

    /// The user of a token; `None`: it is another issuer's.
    async fn identity(&self, token: &str) -> Result<Option<Identity>, String> {
        let Some(parts) = Parts::of(token) else {
            return Ok(None);
        };
        let Ok(claims) = serde_json::from_slice::<Value>(&parts.payload) else {
            return Ok(None);
        };
        if claims.get("iss").and_then(Value::as_str) != Some(self.url()) {
            return Ok(None);
        }
        let (key, now) = (hash(token), Timestamp::now());
        if let Some(known) = self.verified.get(&key, now) {
            return Ok(Some(known));
        }
        let bad = |why: String| format!("oidc: verify token: {why}");
        self.verify(&parts).await.map_err(bad)?;
        let end = self.check(&claims, now).map_err(bad)?;
        let identity = self.mapper.identity(&claims)?;
        let until = end.min(now + REMEMBERED_FOR);
        self.verified.put(key, identity.clone(), until);
        Ok(Some(identity))
    }

    /// Time and audience; when the token ends.
    fn check(&self, claims: &Value, now: Timestamp) -> Result<Timestamp, String> {
        let held: Vec<&str> = match claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let wanted = &self.config.issuer.audiences;
        if !wanted
            .iter()
            .any(|audience| held.contains(&audience.as_str()))
        {
            return Err(format!(
                "oidc: expected audience in {wanted:?} got {held:?}"
            ));
        }
        let seconds = |name: &str| {
            let number = claims.get(name)?;
            number
                .as_i64()
                .or_else(|| number.as_f64().map(|number| number as i64))
        };
        let end = seconds("exp").and_then(|end| Timestamp::from_second(end).ok());
        let end = end.unwrap_or(Timestamp::UNIX_EPOCH);
        if end < now {
            return Err(format!("oidc: token is expired (Token Expiry: {end})"));
        }
        match seconds("nbf").filter(|begin| *begin > now.as_second() + EARLY) {
            Some(begin) => Err(format!(
                "oidc: current time {now} before the nbf (not before) time: {begin}"
            )),
            None => Ok(end),
        }
    }

    /// By the keys that are known, and then by those that the issuer has now.
    async fn verify(&self, parts: &Parts<'_>) -> Result<(), String> {
        let own = &self.config.signing_algorithms;
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
        let issuer = &self.config.issuer;
        let usual = format!("{}{WELL_KNOWN}", issuer.url.trim_end_matches('/'));
        let url = issuer
            .discovery_url
            .as_deref()
            .filter(|url| !url.is_empty());
        let place = self.document(url.unwrap_or(&usual))?;
        let document = place.get(FETCH_TIMEOUT, DOCUMENT_BYTES_MAX).await?;
        let found: Discovery = serde_json::from_slice(&document)?;
        match found.issuer == issuer.url {
            true => Ok(found.jwks_uri),
            false => Err(FetchError::OtherIssuer(issuer.url.clone(), found.issuer)),
        }
    }

    fn document(&self, url: &str) -> Result<Webhook, ConfigError> {
        let ca = self.config.issuer.certificate_authority.as_str();
        Webhook::from_access(&client::Access {
            server: url.to_owned(),
            ca: (!ca.is_empty()).then(|| ca.as_bytes().to_vec()),
            ..client::Access::default()
        })
    }
}

impl ForeignTokens for Issuer {
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
        _audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Bearer>, String>> {
        Box::pin(async move {
            let identity = self.identity(token).await?;
            Ok(identity.map(Bearer::from))
        })
    }
}
