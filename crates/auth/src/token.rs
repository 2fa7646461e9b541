//! Service account tokens: signing, verifying, and the documents that let strangers verify them.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use meta::Object;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::identity::Identity;
use crate::jwk::{KeySet, Parts};
use crate::keys::{self, SigningKey};

/// The issuer unless configured otherwise; also the API server's audience.
pub const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// The lifetime that admission asks for in `kube-api-access` volumes; such tokens live longer
/// than they say, for clients that never read the file again.
pub const PROJECTED_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;
/// The bounds of `spec.expirationSeconds` of a TokenRequest.
pub const MIN_SECONDS: i64 = 600;
pub const MAX_SECONDS: i64 = 1 << 32;
/// Longer texts are no tokens of ours.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// How far clocks may differ, and how long a deleted object's tokens remain good.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// A token that cannot be made or does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("there is no private key that can sign tokens: RSA, or ECDSA on P-256, P-384 or P-521")]
    Key,
    #[error("data does not contain any valid RSA or ECDSA public keys")]
    PublicKey,
    #[error("signing failed")]
    Sign,
    /// Not a token that we issue; another authenticator may know it.
    #[error("invalid bearer token")]
    Foreign,
    #[error("{0}")]
    Refused(String),
}

/// Name and uid of an object that a token mentions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ref {
    #[serde(default)]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The object that a token dies with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// With the node it runs on, if it does.
    Pod {
        pod: Ref,
        node: Option<Ref>,
    },
    Secret(Ref),
    Node(Ref),
}

/// What a TokenRequest asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSpec {
    pub namespace: String,
    pub service_account: Ref,
    /// Empty: the API server.
    pub audiences: Vec<String>,
    pub expiration_seconds: i64,
    pub bound: Option<Bound>,
}

/// The payload of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    #[serde(default, deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    #[serde(default)]
    pub exp: i64,
    #[serde(default)]
    pub iat: i64,
    pub iss: String,
    #[serde(default)]
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Private,
    #[serde(default)]
    pub nbf: i64,
    #[serde(default)]
    pub sub: String,
}

/// The `kubernetes.io` claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Private {
    #[serde(default)]
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Ref>,
    #[serde(default)]
    pub serviceaccount: Ref,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// The issuer of the tokens in secrets of type `kubernetes.io/service-account-token`.
pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// The payload of a token that lives in a secret, and as long as that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyClaims {
    pub iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace", default)]
    pub namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name", default)]
    pub secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name", default)]
    pub account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid", default)]
    pub uid: String,
    #[serde(default)]
    pub sub: String,
}

/// The payload of either kind of token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    Bound(Box<Claims>),
    Legacy(LegacyClaims),
}

/// Who bears a good token, and what follows from its use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bearer {
    pub identity: Identity,
    pub audiences: Vec<String>,
    /// To be told to the bearer.
    pub warning: Option<&'static str>,
    /// A secret (namespace and name) whose use today is to be recorded.
    pub used_secret: Option<(String, String)>,
}

/// An object as [`TokenLookup`] finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub uid: String,
    /// When it was asked to go, if it was.
    pub deleted_at: Option<Timestamp>,
}

/// Whether the objects that tokens mention are still there; answered from caches, never waits.
pub trait TokenLookup: Send + Sync {
    /// `resource` is `serviceaccounts`, `pods`, `secrets` or `nodes` (then without namespace).
    fn find(&self, resource: &str, namespace: &str, name: &str) -> Option<Found>;

    /// The object itself, where its uid is not enough.
    fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>>;
}

/// Signs tokens, and verifies those that its keys have signed.
pub struct TokenSigner {
    key: SigningKey,
    keys: KeySet,
    /// The first one is that of new tokens.
    issuers: Vec<String>,
    audiences: Vec<String>,
    extends: bool,
    seconds_max: Option<i64>,
    keys_uri: Option<String>,
}

impl TokenSigner {
    /// From a private key in PEM, which alone verifies; `issuer` also is the default audience.
    pub fn new(key_pem: &str, issuer: &str) -> Result<TokenSigner, TokenError> {
        let key = SigningKey::of_pem(key_pem)?;
        let keys = KeySet::of_public_keys(std::slice::from_ref(&key.public));
        Ok(TokenSigner {
            keys: keys.ok_or(TokenError::Key)?,
            key,
            issuers: vec![issuer.into()],
            audiences: vec![issuer.into()],
            extends: true,
            seconds_max: None,
            keys_uri: None,
        })
    }

    /// Believes tokens of all these issuers, and signs in the name of the first; they also are
    /// the API server's audiences.
    pub fn issuers(mut self, issuers: Vec<String>) -> TokenSigner {
        if !issuers.is_empty() {
            self.audiences.clone_from(&issuers);
            self.issuers = issuers;
        }
        self
    }

    /// The API server's audiences (`--api-audiences`).
    pub fn audiences(mut self, audiences: Vec<String>) -> TokenSigner {
        if !audiences.is_empty() {
            self.audiences = audiences;
        }
        self
    }

    /// Verifies by the keys of these PEM texts only (`--service-account-key-file`).
    pub fn verifying(mut self, pems: &[String]) -> Result<TokenSigner, TokenError> {
        self.keys = keys::verifying(pems)?;
        Ok(self)
    }

    /// Whether tokens of pods live longer than they say.
    pub fn extending(mut self, extends: bool) -> TokenSigner {
        self.extends = extends;
        self
    }

    /// The longest that a token may live, in seconds.
    pub fn limited(mut self, seconds: Option<i64>) -> TokenSigner {
        self.seconds_max = seconds;
        self
    }

    /// Where strangers find the keys, if not here.
    pub fn keys_at(mut self, uri: Option<String>) -> TokenSigner {
        self.keys_uri = uri;
        self
    }

    /// The issuer of new tokens.
    pub fn issuer(&self) -> &str {
        self.issuers.first().map_or("", String::as_str)
    }

    /// The API server's audiences.
    pub fn own(&self) -> &[String] {
        &self.audiences
    }

    /// The longest that a token may live, in seconds.
    pub fn seconds_max(&self) -> Option<i64> {
        self.seconds_max
    }

    /// A token, and when it ends as `status.expirationTimestamp` has it.
    pub fn sign(
        &self,
        spec: &TokenSpec,
        now: Timestamp,
    ) -> Result<(String, Timestamp), TokenError> {
        let token = self.signed(&self.claims(spec, now))?;
        Ok((token, later(now, spec.expiration_seconds)))
    }

    /// The token of a secret of type `kubernetes.io/service-account-token`.
    pub fn sign_legacy(
        &self,
        namespace: &str,
        account: &Ref,
        secret: &str,
    ) -> Result<String, TokenError> {
        self.signed(&LegacyClaims {
            iss: LEGACY_ISSUER.into(),
            namespace: namespace.into(),
            secret: secret.into(),
            account: account.name.clone(),
            uid: account.uid.clone(),
            sub: format!("system:serviceaccount:{namespace}:{}", account.name),
        })
    }

    fn signed(&self, claims: &impl Serialize) -> Result<String, TokenError> {
        let header = json!({"alg": self.key.algorithm, "kid": self.key.id});
        let payload = serde_json::to_vec(claims).map_err(|_| TokenError::Sign)?;
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature = self.key.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    fn claims(&self, spec: &TokenSpec, now: Timestamp) -> Claims {
        let audiences = match spec.audiences.is_empty() {
            true => self.audiences.clone(),
            false => spec.audiences.clone(),
        };
        let (mut pod, mut secret, mut node) = (None, None, None);
        match spec.bound.clone() {
            Some(Bound::Pod { pod: of, node: on }) => (pod, node) = (Some(of), on),
            Some(Bound::Secret(of)) => secret = Some(of),
            Some(Bound::Node(of)) => node = Some(of),
            None => {}
        }
        let seconds = spec.expiration_seconds;
        let ours = audiences.iter().all(|one| self.audiences.contains(one));
        let extended = self.extends && pod.is_some() && ours && seconds == PROJECTED_SECONDS;
        let longest = self.seconds_max.unwrap_or(EXTENDED_SECONDS);
        let lifetime = match extended {
            true => EXTENDED_SECONDS.min(longest),
            false => seconds,
        };
        let account = &spec.service_account.name;
        Claims {
            aud: audiences,
            exp: later(now, lifetime).as_second(),
            iat: now.as_second(),
            iss: self.issuer().to_owned(),
            jti: uuid::Uuid::new_v4().to_string(),
            kubernetes: Private {
                namespace: spec.namespace.clone(),
                node,
                pod,
                secret,
                serviceaccount: spec.service_account.clone(),
                warnafter: extended.then(|| later(now, seconds).as_second()),
            },
            nbf: now.as_second(),
            sub: format!("system:serviceaccount:{}:{account}", spec.namespace),
        }
    }

    /// The payload of a token that bears our signature. Says nothing of time, audience or objects.
    pub fn open(&self, token: &str) -> Result<Opened, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Foreign);
        }
        let parts = Parts::of(token).ok_or(TokenError::Foreign)?;
        let bound = serde_json::from_slice(&parts.payload).ok();
        let bound = bound.filter(|claims: &Claims| self.issuers.contains(&claims.iss));
        let legacy = || {
            let claims = serde_json::from_slice(&parts.payload).ok();
            claims.filter(|claims: &LegacyClaims| claims.iss == LEGACY_ISSUER)
        };
        let claims = bound
            .map(|claims| Opened::Bound(Box::new(claims)))
            .or_else(|| legacy().map(Opened::Legacy));
        let claims = claims.ok_or(TokenError::Foreign)?;
        if !self.keys.has(&parts.key_id) {
            return Err(refused("invalid signature, no keys found"));
        }
        // Each key has one algorithm: what the header claims must be that.
        match self.keys.verifies(&parts) {
            true => Ok(claims),
            false => Err(refused("invalid signature")),
        }
    }

    /// Those of `wanted` audiences (empty: any) that are the API server's own.
    pub(crate) fn own_audiences(&self, wanted: &[String]) -> Option<Vec<String>> {
        let own = self.audiences.iter();
        let own = own.filter(|one| wanted.is_empty() || wanted.contains(one));
        let own: Vec<String> = own.cloned().collect();
        (!own.is_empty()).then_some(own)
    }

    /// Who the bearer of opened claims is, and for which of `audiences` (empty: the API server).
    pub fn check(
        &self,
        token: &str,
        opened: &Opened,
        audiences: &[String],
        lookup: &dyn TokenLookup,
        now: Timestamp,
    ) -> Result<Bearer, TokenError> {
        let none = Vec::new();
        let held = match opened {
            Opened::Bound(claims) => &claims.aud,
            Opened::Legacy(_) => &none,
        };
        let own = &self.audiences;
        let wanted = if audiences.is_empty() { own } else { audiences };
        let held = if held.is_empty() { own } else { held };
        let both: Vec<String> = held
            .iter()
            .filter(|one| wanted.contains(one))
            .cloned()
            .collect();
        if both.is_empty() {
            return Err(refused(format!(
                "token audiences {} is invalid for the target audiences {}",
                quoted(held),
                quoted(wanted)
            )));
        }
        match opened {
            Opened::Bound(claims) => {
                in_time(claims, now)?;
                Ok(Bearer {
                    identity: bearer(claims, lookup, now)?,
                    audiences: both,
                    ..Bearer::default()
                })
            }
            Opened::Legacy(claims) => {
                let bearer = legacy_bearer(token, claims, lookup, now)?;
                Ok(Bearer {
                    audiences: both,
                    ..bearer
                })
            }
        }
    }

    /// [`TokenSigner::open`] and [`TokenSigner::check`] in one.
    pub fn verify(
        &self,
        token: &str,
        audiences: &[String],
        lookup: &dyn TokenLookup,
        now: Timestamp,
    ) -> Result<Bearer, TokenError> {
        self.check(token, &self.open(token)?, audiences, lookup, now)
    }

    /// `/openid/v1/jwks`.
    pub fn key_set(&self) -> Value {
        self.keys.document()
    }

    /// `/.well-known/openid-configuration`; `server` is the external address, `host:port`. An
    /// issuer that is no proper address has none.
    pub fn discovery(&self, server: &str) -> Option<Value> {
        let issuer = self.issuer();
        if !issuer.starts_with("https://") || issuer.contains(['?', '#']) {
            return None;
        }
        let own = format!("https://{server}/openid/v1/jwks");
        Some(json!({
            "issuer": issuer,
            "jwks_uri": self.keys_uri.as_ref().unwrap_or(&own),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": self.keys.algorithms(),
        }))
    }
}

/// As Go prints a list of words.
fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
}

fn in_time(claims: &Claims, now: Timestamp) -> Result<(), TokenError> {
    let (now, leeway) = (now.as_second(), LEEWAY.as_secs());
    if now - leeway > claims.exp {
        return Err(refused("service account token has expired"));
    }
    if now + leeway < claims.nbf {
        return Err(refused("service account token is not valid yet"));
    }
    if now + leeway < claims.iat {
        return Err(refused("service account token is issued in the future"));
    }
    Ok(())
}

/// The service account that the claims name, provided that it and what the token is bound to are
/// still there.
fn bearer(
    claims: &Claims,
    lookup: &dyn TokenLookup,
    now: Timestamp,
) -> Result<Identity, TokenError> {
    let Private {
        namespace,
        serviceaccount: account,
        pod,
        node,
        secret,
        ..
    } = &claims.kubernetes;
    let full = format!("{namespace}/{}", account.name);
    let found = lookup
        .find("serviceaccounts", namespace, &account.name)
        .ok_or_else(|| refused(format!("serviceaccounts \"{}\" not found", account.name)))?;
    if found.uid != account.uid {
        return Err(refused(format!(
            "service account UID ({}) does not match claim ({})",
            found.uid, account.uid
        )));
    }
    if is_gone(&found, now) {
        return Err(refused(format!("service account {full} has been deleted")));
    }
    let still_there = |resource: &str, word: &str, namespace: &str, claim: &Ref| {
        let found = lookup.find(resource, namespace, &claim.name);
        let gone = || refused("service account token has been invalidated");
        let found = found
            .filter(|found| !is_gone(found, now))
            .ok_or_else(gone)?;
        if found.uid == claim.uid {
            return Ok(());
        }
        let kind = word.to_lowercase();
        Err(refused(format!(
            "{word} UID ({}) does not match service account {kind} ref claim ({})",
            found.uid, claim.uid
        )))
    };
    if let Some(secret) = secret {
        still_there("secrets", "secret", namespace, secret)?;
    }
    if let Some(pod) = pod {
        still_there("pods", "pod", namespace, pod)?;
    } else if let Some(node) = node {
        still_there("nodes", "node", "", node)?;
    }
    let mut identity = Identity::service_account(namespace, &account.name, &account.uid);
    let mut tell = |key: &str, value: &str| {
        if !value.is_empty() {
            let key = format!("authentication.kubernetes.io/{key}");
            identity.extra.insert(key, vec![value.to_owned()]);
        }
    };
    if let Some(pod) = pod {
        tell("pod-name", &pod.name);
        tell("pod-uid", &pod.uid);
    }
    if let Some(node) = node {
        tell("node-name", &node.name);
        tell("node-uid", &node.uid);
    }
    if !claims.jti.is_empty() {
        tell("credential-id", &format!("JTI={}", claims.jti));
    }
    Ok(identity)
}

/// The account of a token that lives in a secret.
fn legacy_bearer(
    token: &str,
    claims: &LegacyClaims,
    lookup: &dyn TokenLookup,
    now: Timestamp,
) -> Result<Bearer, TokenError> {
    let LegacyClaims {
        namespace,
        secret: name,
        account,
        uid,
        sub,
        ..
    } = claims;
    for (claim, value) in [
        ("sub", sub),
        ("namespace", namespace),
        ("secretName", name),
        ("serviceAccountName", account),
        ("serviceAccountUID", uid),
    ] {
        if value.is_empty() {
            return Err(refused(format!("{claim} claim is missing")));
        }
    }
    if *sub != format!("system:serviceaccount:{namespace}:{account}") {
        return Err(refused("sub claim is invalid"));
    }
    let secret = lookup.object("secrets", namespace, name);
    let secret = secret.filter(|secret| secret.deletion_timestamp().is_none());
    let secret = secret.ok_or_else(|| refused("Token has been invalidated"))?;
    let copy = STANDARD
        .decode(secret.text("/data/token"))
        .unwrap_or_default();
    verify_slices_are_equal(&copy, token.as_bytes())
        .map_err(|_| refused("Token does not match server's copy"))?;
    let found = lookup.object("serviceaccounts", namespace, account);
    let found = found.ok_or_else(|| refused(format!("serviceaccounts \"{account}\" not found")))?;
    if found.deletion_timestamp().is_some() {
        return Err(refused(format!(
            "ServiceAccount {namespace}/{account} has been deleted"
        )));
    }
    if found.uid() != uid {
        return Err(refused(format!(
            "ServiceAccount UID ({}) does not match claim ({uid})",
            found.uid()
        )));
    }
    if secret
        .label(INVALID_SINCE)
        .is_some_and(|since| !since.is_empty())
    {
        return Err(refused(format!(
            "the token in secret {namespace}/{name} for service account {namespace}/{account} has \
             been marked invalid. Use tokens from the TokenRequest API or manually created \
             secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to \
             temporarily allow use of this token"
        )));
    }
    let referred = found.0.pointer("/secrets").and_then(Value::as_array);
    let mut referred = referred.into_iter().flatten();
    let generated = referred.any(|one| one["name"].as_str() == Some(name));
    let day = |at: Timestamp| at.strftime("%Y-%m-%d").to_string();
    let recorded = secret.label(LAST_USED).unwrap_or_default();
    let known = recorded == day(now) || recorded == day(later(now, 24 * 3600));
    Ok(Bearer {
        identity: Identity::service_account(namespace, account, uid),
        warning: generated.then_some(
            "Use tokens from the TokenRequest API or manually created secret-based tokens instead \
             of auto-generated secret-based tokens.",
        ),
        used_secret: (!known).then(|| (namespace.clone(), name.clone())),
        ..Bearer::default()
    })
}

fn is_gone(found: &Found, now: Timestamp) -> bool {
    found
        .deleted_at
        .is_some_and(|at| now.duration_since(at) > LEEWAY)
}

fn later(now: Timestamp, seconds: i64) -> Timestamp {
    now.checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}

fn refused(why: impl Into<String>) -> TokenError {
    TokenError::Refused(why.into())
}

fn one_or_many<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(input)? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    })
}
