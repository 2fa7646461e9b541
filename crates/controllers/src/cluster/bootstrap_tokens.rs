//! Bootstrap tokens: the expired ones are deleted, and with the others the ConfigMap
//! `cluster-info` is signed, so that a machine that knows a token can trust it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use auth::bootstrap_token;
use client::{Client, DeleteOptions, Informer, Key, Selection};
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use meta::Status;
use reconcile::{Outcome, Reconcile, feed};

use crate::context::Context;

const CLEANER: &str = "token-cleaner-controller";
const CLEANER_ACCOUNT: &str = "token-cleaner";
const SIGNER: &str = "bootstrap-signer-controller";
const SIGNER_ACCOUNT: &str = "bootstrap-signer";
const WORKERS: usize = 1;
const NAMESPACE: &str = "kube-system";
const PUBLIC: &str = "kube-public";
const CLUSTER_INFO: &str = "cluster-info";
const SIGNATURE: &str = "jws-kubeconfig-";

struct Cleaner {
    client: Client,
    secrets: Informer<Secret>,
}

struct Signer {
    client: Client,
    secrets: Informer<Secret>,
    maps: Informer<ConfigMap>,
}

fn secrets(context: &Context) -> Informer<Secret> {
    context.hub.informer_of(Selection {
        namespace: Some(NAMESPACE.into()),
        field_selector: Some(format!("type={}", bootstrap_token::TYPE)),
        ..Selection::default()
    })
}

/// Starts the controller that deletes expired tokens.
pub(crate) fn start_cleaning(context: &Context) {
    let queue = context.queue();
    let controller = Cleaner {
        client: context.client(CLEANER_ACCOUNT),
        secrets: secrets(context),
    };
    let secrets = controller.secrets.clone();
    feed(CLEANER, &secrets, &queue, &context.crew, |change| {
        change.new.iter().map(|_| change.key.clone()).collect()
    });
    let synced = async move { secrets.synced().await };
    context.drive(Arc::new(controller), &queue, WORKERS, synced);
}

/// Starts the controller that signs `cluster-info`.
pub(crate) fn start_signing(context: &Context) {
    let queue = context.queue();
    let controller = Signer {
        client: context.client(SIGNER_ACCOUNT),
        secrets: secrets(context),
        maps: context.hub.informer_of(Selection {
            namespace: Some(PUBLIC.into()),
            field_selector: Some(format!("metadata.name={CLUSTER_INFO}")),
            ..Selection::default()
        }),
    };
    let (secrets, maps) = (controller.secrets.clone(), controller.maps.clone());
    let only = || vec![Key::new(PUBLIC, CLUSTER_INFO)];
    feed(SIGNER, &secrets, &queue, &context.crew, move |_| only());
    feed(SIGNER, &maps, &queue, &context.crew, move |_| only());
    let synced = async move {
        secrets.synced().await;
        maps.synced().await;
    };
    context.drive(Arc::new(controller), &queue, WORKERS, synced);
}

fn field<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let data = secret.data.as_ref().and_then(|data| data.get(key));
    data.and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
        .unwrap_or_default()
}

/// The secret of a token that may sign, by its id.
fn signing_token(secret: &Secret, now: Timestamp) -> Option<(String, String)> {
    let name = secret.metadata.name.as_deref()?;
    let id = name.strip_prefix(bootstrap_token::PREFIX)?;
    let token = field(secret, "token-secret");
    let good = bootstrap_token::is_id(id)
        && field(secret, "token-id") == id
        && !token.is_empty()
        && field(secret, "usage-bootstrap-signing") == "true"
        && bootstrap_token::time_left(field(secret, "expiration"), now).is_some();
    good.then(|| (id.to_owned(), token.to_owned()))
}

/// The data of `cluster-info` with one signature per token; `None` when it has them already.
fn signed(
    data: &BTreeMap<String, String>,
    tokens: &BTreeMap<String, String>,
) -> Option<BTreeMap<String, String>> {
    let content = data.get("kubeconfig")?;
    let mut next = data.clone();
    next.retain(|key, _| !key.starts_with(SIGNATURE));
    for (id, secret) in tokens {
        let signature = bootstrap_token::detached_signature(content, id, secret);
        next.insert(format!("{SIGNATURE}{id}"), signature);
    }
    (next != *data).then_some(next)
}

impl Reconcile for Cleaner {
    fn name(&self) -> &'static str {
        CLEANER
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(secret) = self.secrets.get_key(key) else {
                return Ok(Outcome::Done);
            };
            match bootstrap_token::time_left(field(&secret, "expiration"), Timestamp::now()) {
                Some(Duration::MAX) => Ok(Outcome::Done),
                Some(left) => Ok(Outcome::After(left)),
                None => {
                    let uid = secret.metadata.uid.as_deref().unwrap_or_default();
                    let api = self.client.namespaced::<Secret>(&key.namespace);
                    match api.delete(&key.name, &DeleteOptions::uid(uid)).await {
                        Err(status) if !status.is_not_found() && !status.is_conflict() => {
                            Err(status)
                        }
                        _ => Ok(Outcome::Done),
                    }
                }
            }
        })
    }
}

impl Reconcile for Signer {
    fn name(&self) -> &'static str {
        SIGNER
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(map) = self.maps.get_key(key) else {
                return Ok(Outcome::Done);
            };
            let now = Timestamp::now();
            let tokens = self.secrets.list();
            let tokens = tokens
                .iter()
                .filter_map(|secret| signing_token(secret, now))
                .collect();
            let Some(data) = map.data.as_ref().and_then(|data| signed(data, &tokens)) else {
                return Ok(Outcome::Done);
            };
            let next = ConfigMap {
                data: Some(data),
                ..map.as_ref().clone()
            };
            let written = self.client.namespaced(PUBLIC).replace(&next).await?;
            self.maps.absorb(written);
            Ok(Outcome::Done)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_follow_tokens() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect()
        };
        let tokens = map(&[("abcdef", "0123456789abcdef")]);
        assert_eq!(signed(&map(&[("other", "x")]), &tokens), None);
        let old = map(&[("kubeconfig", "config"), ("jws-kubeconfig-gone00", "x")]);
        let new = signed(&old, &tokens).unwrap();
        assert_eq!(
            new.keys().collect::<Vec<_>>(),
            ["jws-kubeconfig-abcdef", "kubeconfig"]
        );
        assert_eq!(signed(&new, &tokens), None);
    }
}
