//! Every namespace has a ConfigMap `kube-root-ca.crt` by which pods know the API server.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Client, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::Status;
use reconcile::{Outcome, Reconcile, feed};

use crate::context::Context;

const NAME: &str = "root-ca-cert-publisher";
const WORKERS: usize = 1;
const CONFIG_MAP: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when \
    using internal endpoints such as the internal service IP or kubernetes.default.svc. No other \
    usage is guaranteed across distributions of Kubernetes clusters.";

struct Controller {
    client: Client,
    bundle: String,
    namespaces: Informer<Namespace>,
    maps: Informer<ConfigMap>,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let controller = Controller {
        client: context.client(NAME),
        bundle: context.config.root_ca.clone(),
        namespaces: context.hub.informer(),
        maps: context.hub.informer_of(client::Selection {
            field_selector: Some(format!("metadata.name={CONFIG_MAP}")),
            ..client::Selection::default()
        }),
    };
    feed(
        NAME,
        &controller.namespaces,
        &queue,
        &context.crew,
        |change| vec![change.key.clone()],
    );
    feed(NAME, &controller.maps, &queue, &context.crew, |change| {
        vec![Key::new("", change.key.namespace.clone())]
    });
    let (one, two) = (controller.namespaces.clone(), controller.maps.clone());
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
            if namespace.metadata.deletion_timestamp.is_some() {
                return Ok(Outcome::Done);
            }
            let data = BTreeMap::from([("ca.crt".to_owned(), self.bundle.clone())]);
            let api = self.client.namespaced::<ConfigMap>(&key.name);
            match self.maps.get(&key.name, CONFIG_MAP) {
                Some(known) if known.data.as_ref() == Some(&data) => {}
                Some(known) => {
                    let mut next = known.as_ref().clone();
                    next.data = Some(data);
                    self.maps.absorb(api.replace(&next).await?);
                }
                None => {
                    let about = (
                        "kubernetes.io/description".to_owned(),
                        DESCRIPTION.to_owned(),
                    );
                    let metadata = ObjectMeta {
                        name: Some(CONFIG_MAP.into()),
                        annotations: Some(BTreeMap::from([about])),
                        ..ObjectMeta::default()
                    };
                    let map = ConfigMap {
                        metadata,
                        data: Some(data),
                        ..ConfigMap::default()
                    };
                    match api.create(&map).await {
                        Ok(created) => self.maps.absorb(created),
                        Err(status) if status.is_already_exists() => {}
                        Err(status) => return Err(status),
                    }
                }
            }
            Ok(Outcome::Done)
        })
    }
}
