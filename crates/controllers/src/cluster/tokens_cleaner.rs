//! Marks, and later deletes, generated token secrets that nobody has used for a year.

use std::sync::Arc;
use std::time::Duration;

use client::{Client, DeleteOptions, Informer, Key, Patch, WriteOptions};
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use meta::Status;
use reconcile::{Outcome, Reconcile, feed};
use serde_json::json;

use super::tokens::{account, token_secrets};
use crate::context::Context;

const NAME: &str = "legacy-serviceaccount-token-cleaner-controller";
const ACCOUNT: &str = "legacy-service-account-token-cleaner";
const WORKERS: usize = 1;
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Where the API server has written since when it records uses.
const TRACKING: (&str, &str) = (
    "kube-system",
    "kube-apiserver-legacy-service-account-token-tracking",
);
/// How long a token must have lain unused.
const UNUSED_DAYS: i64 = 365;
/// Dates decide, so once a day is often enough.
const AGAIN: Duration = Duration::from_secs(24 * 3600);

struct Controller {
    client: Client,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    pods: Informer<Pod>,
}

/// What is to be done about a secret.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    Mark(String),
    Delete,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let controller = Controller {
        client: context.client(ACCOUNT),
        secrets: token_secrets(context),
        accounts: context.hub.informer(),
        pods: context.hub.informer(),
    };
    let secrets = controller.secrets.clone();
    feed(NAME, &secrets, &queue, &context.crew, |change| {
        change.new.iter().map(|_| change.key.clone()).collect()
    });
    let (accounts, pods) = (controller.accounts.clone(), controller.pods.clone());
    let synced = async move {
        secrets.synced().await;
        accounts.synced().await;
        pods.synced().await;
    };
    context.drive(Arc::new(controller), &queue, WORKERS, synced);
}

/// The day of a point in time, and whether a text is one.
fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

fn is_day(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

/// Judges by dates alone; `generated`: an account refers to it, and no pod mounts it.
fn judge(secret: &Secret, generated: bool, since: &str, now: Timestamp) -> Verdict {
    let long_ago = now - SignedDuration::from_hours(24 * UNUSED_DAYS);
    let limit = day(long_ago);
    // The day on which recording began is not complete.
    if !is_day(since) || since >= limit.as_str() || !generated {
        return Verdict::Keep;
    }
    let created = secret.metadata.creation_timestamp.as_ref();
    let young = created.is_none_or(|created| created.0.as_second() >= long_ago.as_second());
    let label = |key: &str| {
        secret
            .metadata
            .labels
            .as_ref()?
            .get(key)
            .map(String::as_str)
    };
    let used = label(LAST_USED).is_some_and(|used| !is_day(used) || used >= limit.as_str());
    if young || used || secret.metadata.deletion_timestamp.is_some() {
        return Verdict::Keep;
    }
    match label(INVALID_SINCE).filter(|marked| is_day(marked)) {
        None => Verdict::Mark(day(now)),
        Some(marked) if marked >= limit.as_str() => Verdict::Keep,
        Some(_) => Verdict::Delete,
    }
}

impl Controller {
    /// Whether the token was made for an account by the cluster, and no pod mounts it.
    fn is_generated_and_idle(&self, secret: &Secret, key: &Key) -> bool {
        let Some((name, uid)) = account(secret) else {
            return false;
        };
        let account = self.accounts.get(&key.namespace, name);
        let refers = account.is_some_and(|account| {
            let same = uid.is_empty() || account.metadata.uid.as_deref() == Some(uid);
            let mut list = account.secrets.iter().flatten();
            same && list.any(|one| one.name.as_deref() == Some(key.name.as_str()))
        });
        refers
            && !self
                .pods
                .list_in(&key.namespace)
                .iter()
                .any(|pod| mounts(pod, &key.name))
    }
}

fn mounts(pod: &Pod, secret: &str) -> bool {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    let mut volumes = volumes.filter_map(|volume| volume.secret.as_ref());
    volumes.any(|source| source.secret_name.as_deref() == Some(secret))
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(secret) = self.secrets.get_key(key) else {
                return Ok(Outcome::Done);
            };
            if !self.is_generated_and_idle(&secret, key) {
                return Ok(Outcome::After(AGAIN));
            }
            let maps = self.client.namespaced::<ConfigMap>(TRACKING.0);
            let tracking = maps
                .get_opt(TRACKING.1)
                .await?
                .and_then(|map| map.data?.remove("since"));
            let api = self.client.namespaced::<Secret>(&key.namespace);
            match judge(
                &secret,
                true,
                &tracking.unwrap_or_default(),
                Timestamp::now(),
            ) {
                Verdict::Keep => {}
                Verdict::Mark(today) => {
                    let patch = json!({"metadata": {"uid": secret.metadata.uid,
                        "labels": {INVALID_SINCE: today}}});
                    api.patch(&key.name, &Patch::Merge(patch), &WriteOptions::default())
                        .await?;
                }
                Verdict::Delete => {
                    let options = DeleteOptions {
                        resource_version: secret.metadata.resource_version.clone(),
                        ..DeleteOptions::default()
                    };
                    match api.delete(&key.name, &options).await {
                        Err(status) if !status.is_not_found() && !status.is_conflict() => {
                            return Err(status);
                        }
                        _ => return Ok(Outcome::Done),
                    }
                }
            }
            Ok(Outcome::After(AGAIN))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(labels: serde_json::Value, since: &str, generated: bool) -> Verdict {
        let secret = json!({"metadata": {"name": "t", "labels": labels,
            "creationTimestamp": "2020-01-01T00:00:00Z"}});
        let secret: Secret = serde_json::from_value(secret).unwrap();
        let now = "2026-06-01T00:00:00Z".parse().unwrap();
        judge(&secret, generated, since, now)
    }

    #[test]
    fn unused_tokens_are_marked_and_a_year_later_deleted() {
        let none = json!({});
        assert_eq!(
            verdict(none.clone(), "2021-01-01", true),
            Verdict::Mark("2026-06-01".into())
        );
        assert_eq!(verdict(none.clone(), "2021-01-01", false), Verdict::Keep);
        assert_eq!(verdict(none.clone(), "2026-01-01", true), Verdict::Keep);
        assert_eq!(verdict(none, "nonsense", true), Verdict::Keep);
        let used = json!({LAST_USED: "2026-05-01"});
        assert_eq!(verdict(used, "2021-01-01", true), Verdict::Keep);
        let marked = json!({INVALID_SINCE: "2026-05-01"});
        assert_eq!(verdict(marked, "2021-01-01", true), Verdict::Keep);
        let long = json!({LAST_USED: "2022-01-01", INVALID_SINCE: "2024-05-01"});
        assert_eq!(verdict(long, "2021-01-01", true), Verdict::Delete);
    }
}
