//! Workers over a queue whose items are not keys of objects.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use base::Crew;
use futures::future::BoxFuture;
use meta::Status;
use reconcile::{Outcome, Queue};

/// Works on one kind of item; an error makes the item come back after a while.
pub(crate) trait Work<T>: Send + Sync + 'static {
    /// One step for one item.
    fn work<'a>(&'a self, item: &'a T) -> BoxFuture<'a, Result<Outcome, Status>>;
}

/// Starts `workers` tasks on `queue`.
pub(crate) fn employ<T, W>(
    name: &'static str,
    worker: &Arc<W>,
    queue: &Queue<T>,
    workers: usize,
    crew: &Crew,
) where
    T: Clone + Eq + Hash + Debug + Send + Sync + 'static,
    W: Work<T>,
{
    for number in 0..workers {
        let (worker, queue) = (worker.clone(), queue.clone());
        crew.spawn(format!("{name} {number}"), async move {
            while let Some(item) = queue.next().await {
                match worker.work(&item).await {
                    Ok(Outcome::Done) => queue.forget(&item),
                    Ok(Outcome::After(delay)) => {
                        queue.forget(&item);
                        queue.add_after(item.clone(), delay);
                    }
                    Err(status) => {
                        tracing::debug!(controller = name, ?item, error = %status, "try again");
                        queue.retry(item.clone());
                    }
                }
                queue.done(&item);
            }
        });
    }
}
