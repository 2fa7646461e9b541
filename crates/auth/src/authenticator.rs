//! Who sent a request: a front proxy's word, a certificate, a token, or nobody in particular.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::BoxFuture;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use jiff::Timestamp;
use meta::{Reason, Status};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::bootstrap_token;
use crate::front_proxy::RequestHeaders;
use crate::identity::Identity;
use crate::peer::{Peer, Trust};
use crate::token::{Bearer, Opened, TokenError, TokenLookup, TokenSigner};

/// Tokens whose signature is remembered: twice this many.
const CACHED_TOKENS: usize = 4096;
/// Browsers cannot set headers on WebSockets: this offer of a protocol holds a token.
const WEBSOCKET_BEARER: &str = "base64url.bearer.authorization.k8s.io.";

pub(crate) type Digest = [u8; 32];

/// Knows tokens that others have issued; may have to ask them.
pub trait ForeignTokens: Send + Sync {
    /// The user of a token and the audiences (of `audiences`) it is meant for. `None`: a token of
    /// somebody else.
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Bearer>, String>>;
}

/// Who is let in without saying who he is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anonymous {
    pub enabled: bool,
    /// The only paths on which strangers are let in; empty: all.
    pub paths: Vec<String>,
}

/// Finds out who sends requests.
pub struct Authenticator {
    signer: Arc<TokenSigner>,
    trust: Arc<Trust>,
    request_headers: Option<RequestHeaders>,
    static_tokens: ArcSwap<HashMap<Digest, Identity>>,
    bootstrap_tokens: bool,
    foreign: ArcSwap<Vec<Arc<dyn ForeignTokens>>>,
    anonymous: Anonymous,
    opened: Mutex<Memory>,
}

/// Claims of tokens with a good signature, in two generations: a full young one becomes the old
/// one, and what is used moves to the young one.
#[derive(Default)]
struct Memory {
    young: HashMap<Digest, Arc<Opened>>,
    old: HashMap<Digest, Arc<Opened>>,
}

/// A static token file that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("token file line {line}: expected token,user,uid and optionally \"group1,group2\"")]
pub struct TokenFileError {
    pub line: usize,
}

impl Authenticator {
    /// Knows the signer's tokens; strangers are `system:anonymous`.
    pub fn new(signer: Arc<TokenSigner>) -> Authenticator {
        Authenticator {
            signer,
            trust: Arc::default(),
            request_headers: None,
            static_tokens: ArcSwap::default(),
            bootstrap_tokens: false,
            foreign: ArcSwap::default(),
            anonymous: Anonymous {
                enabled: true,
                paths: Vec::new(),
            },
            opened: Mutex::default(),
        }
    }

    /// Whose certificates are believed.
    pub fn trust(mut self, trust: Arc<Trust>) -> Authenticator {
        self.trust = trust;
        self
    }

    /// The authorities of clients and of front proxies that are believed now, PEM.
    pub fn believed(&self) -> (Arc<String>, Arc<String>) {
        self.trust.texts()
    }

    /// Which headers a front proxy names users by.
    pub fn request_headers(mut self, headers: RequestHeaders) -> Authenticator {
        self.request_headers = Some(headers);
        self
    }

    /// Whether and where strangers are let in as `system:anonymous`.
    pub fn anonymous(mut self, anonymous: Anonymous) -> Authenticator {
        self.anonymous = anonymous;
        self
    }

    /// Lets in by bootstrap tokens (`--enable-bootstrap-token-auth`).
    pub fn bootstrap_tokens(mut self, enabled: bool) -> Authenticator {
        self.bootstrap_tokens = enabled;
        self
    }

    /// Adds somebody who knows further tokens; asked in the order added.
    pub fn foreign(self, foreign: Arc<dyn ForeignTokens>) -> Authenticator {
        let mut all = self.foreign.load().as_ref().clone();
        all.push(foreign);
        self.replace_foreign(all);
        self
    }

    /// Asks these about further tokens from now on.
    pub fn replace_foreign(&self, foreign: Vec<Arc<dyn ForeignTokens>>) {
        self.foreign.store(Arc::new(foreign));
    }

    /// Knows the tokens of a file in upstream's format (`--token-auth-file`).
    pub fn static_tokens(self, csv: &str) -> Result<Authenticator, TokenFileError> {
        self.replace_static_tokens(csv)?;
        Ok(self)
    }

    /// Knows these tokens of a file, and no others, from now on.
    pub fn replace_static_tokens(&self, csv: &str) -> Result<(), TokenFileError> {
        let mut tokens = HashMap::new();
        for (index, line) in csv.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = || TokenFileError { line: index + 1 };
            let (token, identity) = static_token(line).ok_or_else(bad)?;
            tokens.insert(hash(&token), identity);
        }
        self.static_tokens.store(Arc::new(tokens));
        Ok(())
    }

    /// The user of a request for `path` that came over the connection of `peer`.
    pub async fn authenticate(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        path: &str,
        lookup: &dyn TokenLookup,
    ) -> Result<Bearer, Status> {
        let certificate = self.trust.judge(peer);
        if let (Some(proxy), Some(names)) = (&certificate.proxy, &self.request_headers)
            && let Some(identity) = names.identity(proxy, headers)
        {
            return Ok(identity.into());
        }
        if let Some(identity) = &certificate.user {
            return Ok(identity.clone().into());
        }
        if let Some(token) = bearer_token(headers) {
            return self.verify(&token, &[], lookup).await.map_err(|error| {
                tracing::debug!(%error, "bearer token refused");
                unauthorized()
            });
        }
        // A certificate that proves nothing must not make a stranger of somebody.
        let open =
            self.anonymous.paths.is_empty() || self.anonymous.paths.iter().any(|open| open == path);
        match self.anonymous.enabled && open && !certificate.refused {
            true => Ok(Identity::anonymous().into()),
            false => Err(unauthorized()),
        }
    }

    /// Takes out of the headers what named or proved the user.
    pub fn strip(&self, headers: &mut HeaderMap) {
        headers.remove(AUTHORIZATION);
        if let Some(names) = &self.request_headers {
            names.strip(headers);
        }
        let offered = headers.get(SEC_WEBSOCKET_PROTOCOL);
        let offered = offered
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        if offered.contains(WEBSOCKET_BEARER) {
            let rest = offered.split(',').map(str::trim);
            let rest: Vec<&str> = rest
                .filter(|one| !one.starts_with(WEBSOCKET_BEARER))
                .collect();
            if let Ok(rest) = rest.join(", ").parse() {
                headers.insert(SEC_WEBSOCKET_PROTOCOL, rest);
            }
        }
    }

    /// The `status` of a TokenReview of `token` for `audiences` (empty: the API server), and what
    /// follows from the use of the token.
    pub async fn review(
        &self,
        token: &str,
        audiences: &[String],
        lookup: &dyn TokenLookup,
    ) -> (Value, Bearer) {
        let bearer = match self.verify(token, audiences, lookup).await {
            Ok(bearer) => bearer,
            Err(TokenError::Foreign) => {
                let status = json!({"user": {}, "error": "invalid bearer token"});
                return (status, Bearer::default());
            }
            Err(error) => {
                let status = json!({"user": {}, "error": error.to_string()});
                return (status, Bearer::default());
            }
        };
        let user = user_info(&bearer.identity);
        let status = json!({"authenticated": true, "user": user, "audiences": bearer.audiences});
        (status, bearer)
    }

    /// Whoever knows the token says whose it is; the errors of the others do not count then.
    async fn verify(
        &self,
        token: &str,
        audiences: &[String],
        lookup: &dyn TokenLookup,
    ) -> Result<Bearer, TokenError> {
        let mut error = TokenError::Foreign;
        match self.verify_own(token, audiences, lookup) {
            Ok(bearer) => return Ok(bearer),
            Err(TokenError::Foreign) => {}
            Err(refused) => error = refused,
        }
        for foreign in self.foreign.load_full().iter() {
            match foreign.authenticate(token, audiences).await {
                Ok(Some(mut bearer)) => {
                    // Who knows no audiences speaks for the API server.
                    let ours = self.signer.own_audiences(audiences);
                    match ours.filter(|_| bearer.audiences.is_empty()) {
                        Some(ours) => bearer.audiences = ours,
                        None if bearer.audiences.is_empty() => continue,
                        None => {}
                    }
                    bearer.identity.mark_authenticated();
                    return Ok(bearer);
                }
                Ok(None) => {}
                Err(why) => {
                    error = TokenError::Refused(match error {
                        TokenError::Foreign => why,
                        before => format!("[{before}, {why}]"),
                    });
                }
            }
        }
        Err(error)
    }

    fn verify_own(
        &self,
        token: &str,
        audiences: &[String],
        lookup: &dyn TokenLookup,
    ) -> Result<Bearer, TokenError> {
        let key = hash(token);
        if let Some(identity) = self.static_tokens.load().get(&key) {
            return self.for_us(identity.clone(), audiences);
        }
        if let Some((id, _)) = bootstrap_token::split(token).filter(|_| self.bootstrap_tokens) {
            let name = format!("{}{id}", bootstrap_token::PREFIX);
            let secret = lookup.object("secrets", "kube-system", &name);
            let identity = secret
                .and_then(|secret| bootstrap_token::authenticate(token, &secret, Timestamp::now()));
            return self.for_us(identity.ok_or(TokenError::Foreign)?, audiences);
        }
        let known = self.opened.lock().get(&key);
        let opened = match known {
            Some(opened) => opened,
            None => {
                let opened = Arc::new(self.signer.open(token)?);
                self.opened.lock().put(key, Arc::clone(&opened));
                opened
            }
        };
        self.signer
            .check(token, &opened, audiences, lookup, Timestamp::now())
    }

    /// Tokens that know no audiences are for the API server.
    fn for_us(&self, identity: Identity, audiences: &[String]) -> Result<Bearer, TokenError> {
        let audiences = self
            .signer
            .own_audiences(audiences)
            .ok_or(TokenError::Foreign)?;
        Ok(Bearer {
            identity,
            audiences,
            ..Bearer::default()
        })
    }
}

impl From<Identity> for Bearer {
    fn from(identity: Identity) -> Bearer {
        Bearer {
            identity,
            ..Bearer::default()
        }
    }
}

impl Memory {
    fn get(&mut self, key: &Digest) -> Option<Arc<Opened>> {
        if let Some(opened) = self.young.get(key) {
            return Some(Arc::clone(opened));
        }
        let opened = self.old.remove(key)?;
        self.put(*key, Arc::clone(&opened));
        Some(opened)
    }

    fn put(&mut self, key: Digest, opened: Arc<Opened>) {
        if self.young.len() >= CACHED_TOKENS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, opened);
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

fn bearer_token(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let header = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    if let Some((scheme, token)) = header.and_then(|text| text.trim().split_once(' ')) {
        let token = token.trim();
        if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() {
            return Some(Cow::Borrowed(token));
        }
    }
    let offered = headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let mut offers = offered.split(',').map(str::trim);
    let encoded = offers.find_map(|offer| offer.strip_prefix(WEBSOCKET_BEARER))?;
    let token = String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()?;
    (!token.is_empty()).then_some(Cow::Owned(token))
}

/// A digest under which a token is remembered.
pub(crate) fn hash(token: &str) -> Digest {
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
