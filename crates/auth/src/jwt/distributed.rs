//! Distributed claims (OpenID Connect Core 1.0, section 5.6.2): a token says where the groups of
//! its user are told, and they are fetched from there in a token of their own.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;

use super::config::JwtAuthenticator;
use super::issuer::check;
use super::source::{DOCUMENT_BYTES_MAX, FETCH_TIMEOUT, Source, place};
use crate::jwk::Parts;

/// Other issuers whose keys are remembered.
const ISSUERS_MAX: usize = 64;

/// Where groups are fetched.
pub(super) struct Elsewhere {
    /// The claim with groups; empty: there is none.
    claim: String,
    audiences: Vec<String>,
    ca: String,
    algorithms: Vec<String>,
    issuers: Mutex<HashMap<String, Arc<Source>>>,
}

impl Elsewhere {
    pub(super) fn new(config: &JwtAuthenticator) -> Elsewhere {
        Elsewhere {
            claim: config.claim_mappings.groups.claim.clone(),
            audiences: config.issuer.audiences.clone(),
            ca: config.issuer.certificate_authority.clone(),
            algorithms: config.signing_algorithms.clone(),
            issuers: Mutex::default(),
        }
    }

    /// Puts the claim in its place, if the token only points at it.
    pub(super) async fn expand(&self, claims: &mut Value) -> Result<(), String> {
        let claim = self.claim.as_str();
        if claim.is_empty() || claims.get(claim).is_some() {
            return Ok(());
        }
        let Some(names) = claims.get("_claim_names") else {
            return Ok(());
        };
        let Some(sources) = claims.get("_claim_sources") else {
            return Err("oidc: no claim sources".into());
        };
        let Some(name) = names.get(claim).and_then(Value::as_str) else {
            return Ok(());
        };
        let Some(source) = sources.get(name) else {
            return Err(format!(
                "id token _claim_names contained a source {name} missing in _claims_sources"
            ));
        };
        let text = |key: &str| source.get(key).and_then(Value::as_str).unwrap_or_default();
        let (url, token) = (text("endpoint").to_owned(), text("access_token").to_owned());
        // An aggregated claim is not looked at.
        if !url.is_empty() {
            claims[claim] = self.fetch(&url, token).await?;
        }
        Ok(())
    }

    async fn fetch(&self, url: &str, token: String) -> Result<Value, String> {
        let claim = self.claim.as_str();
        let getting = |why: String| format!("while getting distributed claim {claim:?}: {why}");
        let token = (!token.is_empty()).then_some(token);
        let from = place(url, &self.ca, token).map_err(|error| getting(error.to_string()))?;
        let document = from.get(FETCH_TIMEOUT, DOCUMENT_BYTES_MAX).await;
        let document = document.map_err(|error| getting(error.to_string()))?;
        let untrusted =
            || format!("getting untrusted issuer from endpoint {url} failed for claim {claim:?}");
        let text = std::str::from_utf8(&document).map_err(|_| untrusted())?;
        let parts = Parts::of(text.trim()).ok_or_else(untrusted)?;
        let claims: Value = serde_json::from_slice(&parts.payload).map_err(|_| untrusted())?;
        let issuer = claims.get("iss").and_then(Value::as_str);
        let verified = |why: String| format!("verify distributed claim token: {why}");
        let source = self.source(issuer.ok_or_else(untrusted)?);
        source.verify(&parts).await.map_err(verified)?;
        check(&claims, &self.audiences, Timestamp::now()).map_err(verified)?;
        claims.get(claim).cloned().ok_or_else(|| {
            format!(
                "jwt returned by distributed claim endpoint {url:?} did not contain claim: {claim}"
            )
        })
    }

    fn source(&self, issuer: &str) -> Arc<Source> {
        let mut known = self.issuers.lock();
        if let Some(source) = known.get(issuer) {
            return Arc::clone(source);
        }
        if known.len() >= ISSUERS_MAX {
            known.clear();
        }
        let source = Arc::new(Source::new(issuer, None, &self.ca, &self.algorithms));
        known.insert(issuer.to_owned(), Arc::clone(&source));
        source
    }
}
