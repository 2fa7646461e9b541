//! Who sent a request: its certificate, its token, or nobody in particular.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use meta::{Reason, Status};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::certificate::{CertificateError, facts_of_der};
use crate::identity::Identity;
use crate::token::{Claims, TokenError, TokenLookup, TokenSigner};

/// Tokens whose signature is remembered: twice this many.
const CACHED_TOKENS: usize = 4096;

type Digest = [u8; 32];

/// Finds out who sends requests.
pub struct Authenticator {
    signer: Arc<TokenSigner>,
    static_tokens: HashMap<Digest, Identity>,
    anonymous: bool,
    opened: Mutex<Opened>,
}

/// Claims of tokens with a good signature, in two generations: a full young one becomes the old
/// one, and what is used moves to the young one.
#[derive(Default)]
struct Opened {
    young: HashMap<Digest, Arc<Claims>>,
    old: HashMap<Digest, Arc<Claims>>,
}

/// A static token file that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("token file line {line}: expected token,user,uid and optionally \"group1,group2\"")]
pub struct TokenFileError {
    pub line: usize,
}

impl Authenticator {
    /// Knows certificates and the signer's tokens; strangers are `system:anonymous`.
    pub fn new(signer: Arc<TokenSigner>) -> Authenticator {
        Authenticator {
            signer,
            static_tokens: HashMap::new(),
            anonymous: true,
            opened: Mutex::default(),
        }
    }

    /// Whether strangers are let in as `system:anonymous` (`--anonymous-auth`).
    pub fn anonymous(mut self, allowed: bool) -> Authenticator {
        self.anonymous = allowed;
        self
    }

    /// Adds the tokens of a file in upstream's format (`--token-auth-file`).
    pub fn static_tokens(mut self, csv: &str) -> Result<Authenticator, TokenFileError> {
        for (index, line) in csv.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = || TokenFileError { line: index + 1 };
            let (token, identity) = static_token(line).ok_or_else(bad)?;
            self.static_tokens.insert(hash(&token), identity);
        }
        Ok(self)
    }

    /// The user of a client certificate that TLS has verified already. Costs some microseconds:
    /// ask once per connection.
    pub fn certificate(&self, der: &[u8]) -> Result<Option<Identity>, CertificateError> {
        let facts = facts_of_der(der)?;
        if facts.common_name.is_empty() {
            return Ok(None);
        }
        let groups: Vec<&str> = facts.organizations.iter().map(String::as_str).collect();
        let mut identity = Identity::user(&facts.common_name, &groups);
        let fingerprint: String = digest(&SHA256, der)
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        identity.extra = BTreeMap::from([(
            "authentication.kubernetes.io/credential-id".to_owned(),
            vec![format!("X509SHA256={fingerprint}")],
        )]);
        Ok(Some(identity))
    }

    /// The user of a request, from what [`Authenticator::certificate`] said about its connection
    /// and its `Authorization` header.
    pub fn authenticate(
        &self,
        certificate: Option<&Identity>,
        authorization: Option<&str>,
        lookup: &dyn TokenLookup,
    ) -> Result<Identity, Status> {
        if let Some(identity) = certificate {
            return Ok(identity.clone());
        }
        match authorization.and_then(bearer_token) {
            Some(token) => self.token(token, lookup),
            None if self.anonymous => Ok(Identity::anonymous()),
            None => Err(unauthorized()),
        }
    }

    /// The user of a bearer token.
    pub fn token(&self, token: &str, lookup: &dyn TokenLookup) -> Result<Identity, Status> {
        match self.verify(token, &[], lookup) {
            Ok((identity, _)) => Ok(identity),
            Err(error) => {
                tracing::debug!(%error, "bearer token refused");
                Err(unauthorized())
            }
        }
    }

    /// The `status` of a TokenReview of `token` for `audiences` (empty: the API server).
    pub fn review(&self, token: &str, audiences: &[String], lookup: &dyn TokenLookup) -> Value {
        let (identity, audiences) = match self.verify(token, audiences, lookup) {
            Ok(verified) => verified,
            Err(TokenError::Foreign) => return json!({"user": {}}),
            Err(error) => return json!({"user": {}, "error": error.to_string()}),
        };
        json!({"authenticated": true, "user": user_info(&identity), "audiences": audiences})
    }

    fn verify(
        &self,
        token: &str,
        audiences: &[String],
        lookup: &dyn TokenLookup,
    ) -> Result<(Identity, Vec<String>), TokenError> {
        let key = hash(token);
        if let Some(identity) = self.static_tokens.get(&key) {
            let own = self.signer.issuer().to_owned();
            let fits = audiences.is_empty() || audiences.contains(&own);
            return match fits {
                true => Ok((identity.clone(), vec![own])),
                false => Err(TokenError::Foreign),
            };
        }
        let known = self.opened.lock().get(&key);
        let claims = match known {
            Some(claims) => claims,
            None => {
                let claims = Arc::new(self.signer.open(token)?);
                self.opened.lock().put(key, Arc::clone(&claims));
                claims
            }
        };
        self.signer
            .check(&claims, audiences, lookup, Timestamp::now())
    }
}

impl Opened {
    fn get(&mut self, key: &Digest) -> Option<Arc<Claims>> {
        if let Some(claims) = self.young.get(key) {
            return Some(Arc::clone(claims));
        }
        let claims = self.old.remove(key)?;
        self.put(*key, Arc::clone(&claims));
        Some(claims)
    }

    fn put(&mut self, key: Digest, claims: Arc<Claims>) {
        if self.young.len() >= CACHED_TOKENS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, claims);
    }
}

/// `authentication/v1 UserInfo` as JSON, as TokenReview and SelfSubjectReview show it.
pub fn user_info(identity: &Identity) -> Value {
    let mut info = json!({"username": identity.name});
    if !identity.uid.is_empty() {
        info["uid"] = identity.uid.as_str().into();
    }
    if !identity.groups.is_empty() {
        info["groups"] = json!(identity.groups);
    }
    if !identity.extra.is_empty() {
        info["extra"] = json!(identity.extra);
    }
    info
}

/// 401 in upstream's words.
pub fn unauthorized() -> Status {
    Status::new(Reason::Unauthorized, "Unauthorized")
}

fn bearer_token(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn hash(token: &str) -> Digest {
    let mut key = Digest::default();
    key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    key
}

fn static_token(line: &str) -> Option<(String, Identity)> {
    let mut fields = line.splitn(4, ',').map(str::trim);
    let (token, user, uid) = (fields.next()?, fields.next()?, fields.next()?);
    if token.is_empty() || user.is_empty() {
        return None;
    }
    let groups = fields.next().unwrap_or_default().trim_matches('"');
    let groups: Vec<&str> = groups
        .split(',')
        .map(str::trim)
        .filter(|group| !group.is_empty())
        .collect();
    let mut identity = Identity::user(user, &groups);
    identity.uid = uid.into();
    Some((token.into(), identity))
}
