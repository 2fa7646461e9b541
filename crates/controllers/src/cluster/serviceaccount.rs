//! Every namespace has a service account named `default`.

use std::sync::Arc;

use client::{Client, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::Status;
use reconcile::{Outcome, Reconcile, feed};

use crate::context::Context;

const NAME: &str = "service-account-controller";
const WORKERS: usize = 1;
const ACCOUNT: &str = "default";

struct Controller {
    client: Client,
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let controller = Controller {
        client: context.client(NAME),
        namespaces: context.hub.informer(),
        accounts: context.hub.informer(),
    };
    feed(
        NAME,
        &controller.namespaces,
        &queue,
        &context.crew,
        |change| vec![change.key.clone()],
    );
    feed(
        NAME,
        &controller.accounts,
        &queue,
        &context.crew,
        |change| {
            let lost = change.new.is_none() && change.key.name == ACCOUNT;
            lost.then(|| Key::new("", change.key.namespace.clone()))
                .into_iter()
                .collect()
        },
    );
    let (one, two) = (controller.namespaces.clone(), controller.accounts.clone());
    let synced = async move {
        one.synced().await;
        two.synced().await;
    };
    context.drive(Arc::new(controller), &queue, WORKERS, synced);
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(namespace) = self.namespaces.get_key(key) else {
                return Ok(Outcome::Done);
            };
            let leaving = namespace.metadata.deletion_timestamp.is_some();
            if leaving || self.accounts.get(&key.name, ACCOUNT).is_some() {
                return Ok(Outcome::Done);
            }
            let metadata = ObjectMeta {
                name: Some(ACCOUNT.into()),
                ..ObjectMeta::default()
            };
            let account = ServiceAccount {
                metadata,
                ..ServiceAccount::default()
            };
            match self.client.namespaced(&key.name).create(&account).await {
                Ok(created) => self.accounts.absorb(created),
                Err(status) if status.is_already_exists() => {}
                Err(status) => return Err(status),
            }
            Ok(Outcome::Done)
        })
    }
}
