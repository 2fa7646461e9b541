//! Service account tokens for pods: asked for by TokenRequest, kept until four
//! fifths of their life are over.

use std::collections::HashMap;

use client::Client;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use parking_lot::Mutex;
use serde_json::json;

use crate::VolumeError;
use crate::sources::SourceError;

/// Life of a token when the projection names none, in seconds.
const EXPIRATION_SECONDS_DEFAULT: i64 = 3600;
/// A token is renewed at the latest after this long.
const AGE_MAX: SignedDuration = SignedDuration::from_hours(24);

/// What a projection asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenWish {
    namespace: String,
    account: String,
    pod: String,
    uid: String,
    audience: Option<String>,
    seconds: i64,
    /// The very account, where it is known.
    account_uid: Option<String>,
}

/// A token and when to ask for its successor.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) refresh_at: Timestamp,
    expires_at: Timestamp,
}

/// The tokens of all pods of this node.
pub(crate) struct Tokens {
    client: Client,
    kept: Mutex<HashMap<TokenWish, Token>>,
}

impl TokenWish {
    /// A token for somebody who speaks for the pod to a third party.
    pub(crate) fn for_audience(pod: &Pod, audience: &str, account_uid: &str) -> TokenWish {
        let source = ServiceAccountTokenProjection {
            audience: Some(audience.to_owned()),
            ..ServiceAccountTokenProjection::default()
        };
        TokenWish {
            account_uid: Some(account_uid.to_owned()),
            ..TokenWish::of(pod, &source)
        }
    }

    pub(crate) fn of(pod: &Pod, source: &ServiceAccountTokenProjection) -> TokenWish {
        let metadata = &pod.metadata;
        let account = pod
            .spec
            .as_ref()
            .and_then(|s| s.service_account_name.clone());
        TokenWish {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            account: account
                .filter(|a| !a.is_empty())
                .unwrap_or_else(|| "default".into()),
            pod: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            audience: source
                .audience
                .clone()
                .filter(|audience| !audience.is_empty()),
            seconds: source
                .expiration_seconds
                .unwrap_or(EXPIRATION_SECONDS_DEFAULT),
            account_uid: None,
        }
    }
}

impl Tokens {
    pub(crate) fn new(client: Client) -> Tokens {
        Tokens {
            client,
            kept: Mutex::default(),
        }
    }

    /// A token that is good for a while yet. When a new one cannot be had, the old one serves
    /// until it expires.
    pub(crate) async fn get(&self, wish: &TokenWish) -> Result<Token, VolumeError> {
        let now = Timestamp::now();
        let known = self.kept.lock().get(wish).cloned();
        if let Some(token) = known.as_ref().filter(|token| now < token.refresh_at) {
            return Ok(token.clone());
        }
        match (self.request(wish, now).await, known) {
            (Ok(token), _) => {
                self.kept.lock().insert(wish.clone(), token.clone());
                Ok(token)
            }
            (Err(error), Some(mut token)) if now < token.expires_at => {
                tracing::warn!(%error, pod = wish.pod, "token not renewed, keeping the old one");
                token.refresh_at = now + SignedDuration::from_secs(10);
                Ok(token)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Forgets a pod's tokens.
    pub(crate) fn forget(&self, uid: &str) {
        self.kept.lock().retain(|wish, _| wish.uid != uid);
    }

    async fn request(&self, wish: &TokenWish, now: Timestamp) -> Result<Token, VolumeError> {
        let mut body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {
                "expirationSeconds": wish.seconds,
                "boundObjectRef": {
                    "apiVersion": "v1", "kind": "Pod", "name": wish.pod, "uid": wish.uid,
                },
            },
        });
        if let Some(audience) = &wish.audience {
            body["spec"]["audiences"] = json!([audience]);
        }
        if let Some(uid) = &wish.account_uid {
            body["metadata"] = json!({"uid": uid});
        }
        let accounts = self.client.namespaced::<ServiceAccount>(&wish.namespace);
        let answer = accounts
            .create_subresource(&wish.account, "token", &body)
            .await
            .map_err(|status| SourceError::Fetch {
                what: "token".into(),
                message: status.message,
            })?;
        let text = |pointer: &str| answer.pointer(pointer).and_then(|value| value.as_str());
        let token = text("/status/token").unwrap_or_default().to_owned();
        let expires_at = text("/status/expirationTimestamp").and_then(meta::time::parse);
        let asked = SignedDuration::from_secs(wish.seconds);
        let expires_at = expires_at.unwrap_or(now + asked);
        let life = expires_at.duration_since(now);
        let wait = (life * 4 / 5).min(AGE_MAX);
        Ok(Token {
            text: token,
            refresh_at: now + wait,
            expires_at,
        })
    }
}
