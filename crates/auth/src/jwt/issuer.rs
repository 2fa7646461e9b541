//! One issuer: where its keys are, which of them have signed, and whom a token names.

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use meta::Faults;
use serde_json::Value;

use super::config::JwtAuthenticator;
use super::distributed::Elsewhere;
use super::mapping::Mapper;
use super::source::Source;
use crate::authenticator::{Digest, ForeignTokens, hash};
use crate::identity::Identity;
use crate::jwk::Parts;
use crate::memo::Memo;
use crate::token::Bearer;

/// Verified tokens that are remembered, and for how long.
const REMEMBERED: usize = 2048;
const REMEMBERED_FOR: SignedDuration = SignedDuration::from_secs(10);
/// How far the clock of the issuer may be ahead of ours.
const EARLY: i64 = 300;

/// An issuer of tokens that are not ours.
pub struct Issuer {
    config: JwtAuthenticator,
    mapper: Mapper,
    source: Source,
    /// Where the claim with groups is asked for that tokens only point at.
    elsewhere: Elsewhere,
    verified: Memo<Digest, Identity>,
}

impl Issuer {
    /// An issuer whose configuration has no faults; its documents are fetched when first needed.
    pub fn new(config: JwtAuthenticator) -> Result<Issuer, Faults> {
        let mut faults = Faults::new();
        let mapper = Mapper::compile(&config, "jwt", &mut faults);
        match faults.is_empty() {
            true => Ok(Issuer {
                source: Source::new(
                    &config.issuer.url,
                    config.issuer.discovery_url.as_deref(),
                    &config.issuer.certificate_authority,
                    &config.signing_algorithms,
                ),
                elsewhere: Elsewhere::new(&config),
                config,
                mapper,
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
        let Ok(mut claims) = serde_json::from_slice::<Value>(&parts.payload) else {
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
        self.source.verify(&parts).await.map_err(bad)?;
        let end = check(&claims, &self.config.issuer.audiences, now).map_err(bad)?;
        self.elsewhere
            .expand(&mut claims)
            .await
            .map_err(|why| format!("oidc: could not expand distributed claims: {why}"))?;
        let identity = self.mapper.identity(&claims)?;
        let until = end.min(now + REMEMBERED_FOR);
        self.verified.put(key, identity.clone(), until);
        Ok(Some(identity))
    }
}

/// Time and audience; when the token ends.
pub(super) fn check(
    claims: &Value,
    wanted: &[String],
    now: Timestamp,
) -> Result<Timestamp, String> {
    let held: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
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
