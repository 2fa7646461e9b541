//! Runs controllers: changes become keys, keys become calls of `reconcile`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base::Crew;
use client::{Change, Informer, Key, Kind};
use futures::future::BoxFuture;
use meta::Status;

use crate::queue::Queue;

/// What is left to do for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing until something changes.
    Done,
    /// Look again after this long.
    After(Duration),
}

/// Brings the world one step nearer to what the object at a key says. Level
/// based: it may look only at how things are, never at what changed.
pub trait Reconcile: Send + Sync + 'static {
    /// Upstream's name, such as `deployment`.
    fn name(&self) -> &'static str;

    /// One step for one key. An error makes the key come back after a while.
    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>>;
}

/// Starts `workers` tasks that reconcile the keys of `queue`.
pub fn drive(controller: Arc<dyn Reconcile>, queue: &Queue<Key>, workers: usize, crew: &Crew) {
    queue.measure(controller.name());
    for worker in 0..workers {
        let name = format!("{} {worker}", controller.name());
        crew.spawn(name, work(controller.clone(), queue.clone()));
    }
}

async fn work(controller: Arc<dyn Reconcile>, queue: Queue<Key>) {
    while let Some(key) = queue.next().await {
        let begun = Instant::now();
        let outcome = controller.reconcile(&key).await;
        crate::measure::worked(controller.name(), begun.elapsed());
        match outcome {
            Ok(Outcome::Done) => queue.forget(&key),
            Ok(Outcome::After(delay)) => {
                queue.forget(&key);
                queue.add_after(key.clone(), delay);
            }
            Err(status) => {
                // Another writer being faster is the normal course of things.
                let name = controller.name();
                if status.is_conflict() || status.is_already_exists() || status.is_not_found() {
                    tracing::debug!(controller = name, %key, error = %status, "try again");
                } else {
                    tracing::warn!(controller = name, %key, error = %status, "reconcile failed");
                }
                queue.retry(key.clone());
            }
        }
        queue.done(&key);
    }
}

/// Adds to `queue`, for each change of an informer's objects, the keys that `keys_of` names.
pub fn feed<K, F>(
    name: &'static str,
    informer: &Informer<K>,
    queue: &Queue<Key>,
    crew: &Crew,
    keys_of: F,
) where
    K: Kind,
    F: Fn(&Change<K>) -> Vec<Key> + Send + 'static,
{
    let mut changes = informer.subscribe();
    let queue = queue.clone();
    crew.spawn(format!("{name} sees {}", K::KIND), async move {
        while let Some(change) = changes.next().await {
            for key in keys_of(&change) {
                queue.add(key);
            }
        }
    });
}
