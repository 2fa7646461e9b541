//! Secrets of type `kubernetes.io/service-account-token`: each gets a token of the account that
//! it names, and goes with it.

use std::sync::Arc;

use client::{Client, DeleteOptions, Informer, Key, Selection};
use futures::future::BoxFuture;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use meta::Status;
use reconcile::{Outcome, Reconcile, feed};

use crate::context::{Context, Keys};

const NAME: &str = "serviceaccount-token-controller";
const WORKERS: usize = 2;
/// The type of the secrets, as the annotations on them call it.
const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

struct Controller {
    client: Client,
    keys: Keys,
    root_ca: String,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
}

/// The shared cache of token secrets.
pub(super) fn token_secrets(context: &Context) -> Informer<Secret> {
    context.hub.informer_of(Selection {
        field_selector: Some(format!("type={TYPE}")),
        ..Selection::default()
    })
}

/// The account that a secret names, and its uid where it is known.
pub(super) fn account(secret: &Secret) -> Option<(&str, &str)> {
    let annotations = secret.metadata.annotations.as_ref()?;
    let text = |key: &str| annotations.get(key).map_or("", String::as_str);
    let name = text(ACCOUNT_NAME);
    (!name.is_empty()).then(|| (name, text(ACCOUNT_UID)))
}

/// Starts the controller; without the signing key there is none.
pub(crate) fn start(context: &Context) {
    let Some(keys) = context.config.keys.clone() else {
        return tracing::info!("no key to sign tokens with: token secrets stay empty");
    };
    let queue = context.queue();
    let controller = Controller {
        client: context.config.client.clone(),
        keys,
        root_ca: context.config.root_ca.clone(),
        secrets: token_secrets(context),
        accounts: context.hub.informer(),
    };
    let (secrets, accounts) = (controller.secrets.clone(), controller.accounts.clone());
    feed(NAME, &secrets, &queue, &context.crew, |change| {
        vec![change.key.clone()]
    });
    let known = secrets.clone();
    // The secrets of an account that is new, or gone.
    feed(NAME, &accounts, &queue, &context.crew, move |change| {
        if change.old.is_some() && change.new.is_some() {
            return Vec::new();
        }
        let all = known.list_in(&change.key.namespace);
        let named = |secret: &&Arc<Secret>| {
            account(secret).is_some_and(|(name, _)| name == change.key.name)
        };
        all.iter()
            .filter(named)
            .map(|secret| Key::of(secret.as_ref()))
            .collect()
    });
    let synced = async move {
        secrets.synced().await;
        accounts.synced().await;
    };
    context.drive(Arc::new(controller), &queue, WORKERS, synced);
}

impl Controller {
    /// The account of this name and uid, asked for where the cache does not know it.
    async fn account(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
    ) -> Result<Option<ServiceAccount>, Status> {
        let fits = |account: &ServiceAccount| {
            uid.is_empty() || account.metadata.uid.as_deref() == Some(uid)
        };
        if let Some(known) = self
            .accounts
            .get(namespace, name)
            .filter(|known| fits(known))
        {
            return Ok(Some(known.as_ref().clone()));
        }
        let live = self
            .client
            .namespaced::<ServiceAccount>(namespace)
            .get_opt(name)
            .await?;
        Ok(live.filter(fits))
    }

    /// Accounts that refer to a secret which is gone forget it.
    async fn forget(&self, key: &Key) -> Result<(), Status> {
        for account in self.accounts.list_in(&key.namespace) {
            let mut next = account.as_ref().clone();
            let Some(list) = next.secrets.as_mut() else {
                continue;
            };
            let before = list.len();
            list.retain(|one| one.name.as_deref() != Some(key.name.as_str()));
            if list.len() < before {
                let written = self
                    .client
                    .namespaced(&key.namespace)
                    .replace(&next)
                    .await?;
                self.accounts.absorb(written);
            }
        }
        Ok(())
    }

    /// The secret with all that it lacks; `None` when it lacks nothing.
    fn filled(&self, secret: &Secret, account: &ServiceAccount) -> Result<Option<Secret>, Status> {
        let mut next = secret.clone();
        let (name, uid) = (text(&account.metadata.name), text(&account.metadata.uid));
        let (namespace, own) = (
            text(&secret.metadata.namespace),
            text(&secret.metadata.name),
        );
        let data = next.data.get_or_insert_default();
        let lacks = |data: &std::collections::BTreeMap<String, ByteString>, key: &str| {
            data.get(key).is_none_or(|bytes| bytes.0.is_empty())
        };
        let ca = self.root_ca.as_bytes();
        let stale_ca = !ca.is_empty() && data.get("ca.crt").is_none_or(|own| own.0 != ca);
        let (no_namespace, no_token) = (lacks(data, "namespace"), lacks(data, "token"));
        if !stale_ca && !no_namespace && !no_token {
            return Ok(None);
        }
        let mut put = |key: &str, bytes: &[u8]| {
            data.insert(key.to_owned(), ByteString(bytes.to_vec()));
        };
        if stale_ca {
            put("ca.crt", ca);
        }
        if no_namespace {
            put("namespace", namespace.as_bytes());
        }
        if no_token {
            let account = auth::token::Ref {
                name: name.to_owned(),
                uid: uid.to_owned(),
            };
            let token = self.keys.tokens.sign_legacy(namespace, &account, own);
            put("token", token.map_err(Status::internal)?.as_bytes());
        }
        let annotations = next.metadata.annotations.get_or_insert_default();
        annotations.insert(ACCOUNT_NAME.into(), name.into());
        annotations.insert(ACCOUNT_UID.into(), uid.into());
        Ok(Some(next))
    }
}

fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(secret) = self.secrets.get_key(key) else {
                self.forget(key).await?;
                return Ok(Outcome::Done);
            };
            if secret.metadata.deletion_timestamp.is_some() {
                return Ok(Outcome::Done);
            }
            let Some((name, uid)) = account(&secret) else {
                return Ok(Outcome::Done);
            };
            let Some(account) = self.account(&key.namespace, name, uid).await? else {
                let uid = secret.metadata.uid.as_deref().unwrap_or_default();
                let options = DeleteOptions::uid(uid);
                let api = self.client.namespaced::<Secret>(&key.namespace);
                return match api.delete(&key.name, &options).await {
                    Err(status) if !status.is_not_found() && !status.is_conflict() => Err(status),
                    _ => Ok(Outcome::Done),
                };
            };
            if let Some(next) = self.filled(&secret, &account)? {
                let written = self.client.namespaced(&key.namespace).replace(&next).await;
                match written {
                    Ok(written) => self.secrets.absorb(written),
                    // Its change, or its end, brings us back.
                    Err(status) if status.is_not_found() || status.is_conflict() => {}
                    Err(status) => return Err(status),
                }
            }
            Ok(Outcome::Done)
        })
    }
}
