//! The proxy's loop: watches in, commits out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, Stop};
use client::{Hub, Informer, Key};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::{Config, Engine, Error};

/// Names the service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const BY_SERVICE: &str = "proxy/service";

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LIMIT: Duration = Duration::from_secs(30);

/// Keeps the packet filter in step with the API until told to stop. What is in
/// the kernel stays there: connections outlive the proxy.
pub async fn run(hub: Hub, config: Config, stop: Stop) -> Result<(), Error> {
    let services = hub.informer::<Service>();
    let slices = hub.informer::<EndpointSlice>();
    slices.add_index(BY_SERVICE, |slice| {
        service_of(slice)
            .map(|key| key.to_string())
            .into_iter()
            .collect()
    });
    tokio::select! {
        () = async { services.synced().await; slices.synced().await; } => {}
        () = stop.raised() => return Ok(()),
    }
    let mut engine = Engine::open(config)?;
    let (mut service_changes, mut slice_changes) = (services.subscribe(), slices.subscribe());
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LIMIT);
    let mut dirty = BTreeSet::new();
    let mut first = true;
    loop {
        // All that has come up to now goes into one commit.
        while let Some(change) = service_changes.try_next() {
            dirty.insert(change.key);
        }
        while let Some(change) = slice_changes.try_next() {
            let both = [change.old, change.new];
            dirty.extend(both.iter().flatten().filter_map(|slice| service_of(slice)));
        }
        let mut failed = false;
        if first || !dirty.is_empty() {
            first = false;
            let work = (engine, std::mem::take(&mut dirty));
            let (back, result) = commit(work, services.clone(), slices.clone()).await?;
            engine = back;
            failed = result.is_err();
            match result {
                Ok(()) => backoff.reset(),
                Err(error) => tracing::error!(%error, "rules not applied"),
            }
        }
        let retry = backoff.clone().next_delay();
        tokio::select! {
            Some(change) = service_changes.next() => {
                dirty.insert(change.key);
            }
            Some(change) = slice_changes.next() => {
                let both = [change.old, change.new];
                dirty.extend(both.iter().flatten().filter_map(|slice| service_of(slice)));
            }
            () = tokio::time::sleep(retry), if failed => {
                backoff.next_delay();
                first = true;
            }
            () = stop.raised() => return Ok(()),
        }
    }
}

/// Plans and commits in a thread that may block.
async fn commit(
    (mut engine, dirty): (Engine, BTreeSet<Key>),
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
) -> Result<(Engine, Result<(), Error>), Error> {
    let work = move || {
        for key in dirty {
            let service = services.get_key(&key);
            let found: Vec<Arc<EndpointSlice>> = slices.by_index(BY_SERVICE, &key.to_string());
            engine.set(&key, service.as_deref(), found.iter().map(Arc::as_ref));
        }
        let result = engine.commit();
        (engine, result)
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::ThreadDied)
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    let namespace = slice.metadata.namespace.clone().unwrap_or_default();
    Some(Key::new(namespace, name))
}
