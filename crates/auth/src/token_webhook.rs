//! Asking somebody else whose token it is (`--authentication-token-webhook-config-file`).

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use webhook::{CallError, Webhook};

use crate::authenticator::{Digest, ForeignTokens, hash};
use crate::identity::Identity;
use crate::memo::Memo;
use crate::token::Bearer;

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Calls for one question, and the pause before the second; each further one is half as long
/// again.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);
/// Answers that are remembered.
const REMEMBERED: usize = 4096;

type Reviewed = Result<Option<Bearer>, String>;

/// A webhook that reviews tokens.
pub struct TokenWebhook {
    webhook: Webhook,
    /// `v1` or `v1beta1`.
    version: &'static str,
    /// Audiences of a webhook that names none.
    audiences: Vec<String>,
    remembered_for: SignedDuration,
    answers: Memo<(Digest, Vec<String>), Option<Bearer>>,
}

impl TokenWebhook {
    /// `ttl` is how long an answer is good; `audiences` are the API server's own.
    pub fn new(
        webhook: Webhook,
        version: &'static str,
        ttl: Duration,
        audiences: Vec<String>,
    ) -> TokenWebhook {
        TokenWebhook {
            webhook,
            version,
            audiences,
            remembered_for: SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX),
            answers: Memo::new(REMEMBERED),
        }
    }

    async fn ask(&self, token: &str, audiences: &[String]) -> Reviewed {
        let audiences = match audiences {
            [] => &self.audiences,
            given => given,
        };
        let question = json!({
            "apiVersion": format!("authentication.k8s.io/{}", self.version),
            "kind": "TokenReview", "metadata": {"creationTimestamp": null},
            "spec": {"token": token, "audiences": audiences}, "status": {"user": {}},
        });
        let answer = persist(&self.webhook, &question, CALL_TIMEOUT).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let status = answer.get("status").unwrap_or(&Value::Null);
        if let Some(error) = status
            .get("error")
            .and_then(Value::as_str)
            .filter(|e| !e.is_empty())
        {
            return Err(error.to_owned());
        }
        if status.get("authenticated").and_then(Value::as_bool) != Some(true) {
            return Ok(None);
        }
        // A webhook that knows no audiences speaks for the API server's.
        let said = strings(status.get("audiences"));
        let held = if said.is_empty() {
            &self.audiences
        } else {
            &said
        };
        let mut both: Vec<String> = audiences.to_vec();
        both.retain(|audience| held.contains(audience));
        if both.is_empty() && !audiences.is_empty() {
            return Ok(None);
        }
        Ok(Some(Bearer {
            identity: user(status.get("user").unwrap_or(&Value::Null)),
            audiences: both,
            ..Bearer::default()
        }))
    }
}

/// Posts until there is an answer, as long as there is hope.
pub(crate) async fn persist(
    webhook: &Webhook,
    question: &Value,
    timeout: Duration,
) -> Result<Value, CallError> {
    let mut pause = PAUSE;
    for _ in 1..ATTEMPTS {
        match webhook.call_json(question, timeout).await {
            Err(error) if error.should_retry() => {
                tracing::debug!(%error, "webhook is asked again");
                tokio::time::sleep(pause).await;
                pause = pause * 3 / 2;
            }
            done => return done,
        }
    }
    webhook.call_json(question, timeout).await
}

fn strings(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|one| one.as_str().map(str::to_owned))
        .collect()
}

fn user(info: &Value) -> Identity {
    let text = |key: &str| {
        info.get(key)
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    let extra = info
        .get("extra")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let extra: BTreeMap<_, _> = extra
        .map(|(key, values)| (key.clone(), strings(Some(values))))
        .collect();
    Identity {
        name: text("username"),
        uid: text("uid"),
        groups: strings(info.get("groups")),
        extra,
    }
}

impl ForeignTokens for TokenWebhook {
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Reviewed> {
        Box::pin(async move {
            let (key, now) = ((hash(token), audiences.to_vec()), Timestamp::now());
            if let Some(known) = self.answers.get(&key, now) {
                return Ok(known);
            }
            let answer = self.ask(token, audiences).await?;
            let until = now
                .checked_add(self.remembered_for)
                .unwrap_or(Timestamp::MAX);
            self.answers.put(key, answer.clone(), until);
            Ok(answer)
        })
    }
}
