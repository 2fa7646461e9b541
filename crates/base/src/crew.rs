//! A crew owns every long-running task of a process, and decides what the
//! death of one of them means.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// Tells a task that it is time to finish. Clones share one signal.
#[derive(Clone, Debug, Default)]
pub struct Stop(CancellationToken);

impl Stop {
    /// A signal that nobody has raised yet.
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Raises the signal; idempotent.
    pub fn raise(&self) {
        self.0.cancel();
    }

    /// Whether the signal has been raised.
    pub fn is_raised(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Completes when the signal is raised. Safe to use in `select!`.
    pub async fn raised(&self) {
        self.0.cancelled().await;
    }

    /// A signal that is raised with this one, but may also be raised alone.
    pub fn child(&self) -> Stop {
        Stop(self.0.child_token())
    }
}

/// Why a crew came to rest.
#[derive(Debug, thiserror::Error)]
pub enum CrewError {
    /// A task that must live as long as the process returned an error.
    #[error("{name} failed: {message}")]
    Failed { name: String, message: String },
    /// A task panicked.
    #[error("{name} panicked")]
    Panicked { name: String },
}

/// How long tasks may take to end once the signal is raised; then they are cut off.
const PATIENCE: Duration = Duration::from_secs(15);

type Outcome = Result<(), String>;

#[derive(Debug, Default)]
struct Tasks {
    set: JoinSet<Outcome>,
    names: HashMap<Id, String>,
}

/// The owner of all tasks. Cheap to clone; clones share the same tasks.
#[derive(Clone, Debug, Default)]
pub struct Crew {
    stop: Stop,
    tasks: Arc<Mutex<Tasks>>,
    arrived: Arc<tokio::sync::Notify>,
}

impl Crew {
    /// A crew without tasks.
    pub fn new() -> Crew {
        Crew::default()
    }

    /// The signal every task of this crew should watch.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Starts a task that cannot fail. It must end soon after [`Crew::stop`] is raised.
    pub fn spawn<F>(&self, name: impl Into<String>, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_fallible(name, async move {
            task.await;
            Ok::<(), std::convert::Infallible>(())
        });
    }

    /// Starts a task whose error ends the whole process.
    pub fn spawn_fallible<F, E>(&self, name: impl Into<String>, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display,
    {
        self.spawn_boxed(
            name.into(),
            Box::pin(async move { task.await.map_err(|error| error.to_string()) }),
        );
    }

    /// Boxed, so that the executor's code is in the binary once, not once per task there is.
    fn spawn_boxed(&self, name: String, work: Pin<Box<dyn Future<Output = Outcome> + Send>>) {
        let mut tasks = self.lock();
        let id = tasks.set.spawn(work).id();
        tasks.names.insert(id, name);
        drop(tasks);
        self.arrived.notify_one();
    }

    /// Waits until the stop signal is raised and every task has ended, or
    /// until a task fails; in that case raises the signal and waits for the rest.
    /// Tasks that do not heed the signal in time are named and cut off.
    pub async fn finished(&self) -> Result<(), CrewError> {
        let mut first_fault = None;
        while let Some(fault) = self.next_fault().await {
            self.stop.raise();
            first_fault.get_or_insert(fault);
        }
        first_fault.map_or(Ok(()), Err)
    }

    /// The next task that failed; `None` when all have ended, or have been cut off.
    async fn next_fault(&self) -> Option<CrewError> {
        loop {
            let next = std::future::poll_fn(|cx| self.lock().set.poll_join_next_with_id(cx));
            let too_late = async {
                self.stop.raised().await;
                tokio::time::sleep(PATIENCE).await;
            };
            let joined = tokio::select! {
                joined = next => joined,
                () = self.arrived.notified() => continue,
                () = too_late => {
                    self.cut_off();
                    return None;
                }
            };
            match joined {
                None if self.stop.is_raised() => return None,
                None => tokio::select! {
                    () = self.stop.raised() => {}
                    () = self.arrived.notified() => {}
                },
                Some(Ok((id, outcome))) => {
                    let name = self.forget(id);
                    if let Err(message) = outcome {
                        return Some(CrewError::Failed { name, message });
                    }
                }
                Some(Err(fault)) => {
                    return Some(CrewError::Panicked {
                        name: self.forget(fault.id()),
                    });
                }
            }
        }
    }

    fn forget(&self, id: Id) -> String {
        self.lock().names.remove(&id).unwrap_or_default()
    }

    fn cut_off(&self) {
        let mut tasks = self.lock();
        let names: Vec<&String> = tasks.names.values().collect();
        tracing::warn!(?names, "tasks did not stop in time");
        tasks.set.abort_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tasks> {
        self.tasks
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_stops_the_others() {
        let crew = Crew::new();
        let stop = crew.stop();
        crew.spawn("patient", async move { stop.raised().await });
        crew.spawn_fallible("clumsy", async { Err::<(), _>("dropped it") });
        let fault = crew.finished().await.unwrap_err();
        assert_eq!(fault.to_string(), "clumsy failed: dropped it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deaf_task_is_cut_off() {
        let crew = Crew::new();
        crew.spawn("deaf", std::future::pending());
        crew.stop().raise();
        crew.finished().await.unwrap();
    }

    #[tokio::test]
    async fn raising_the_signal_ends_it_cleanly() {
        let crew = Crew::new();
        let stop = crew.stop();
        crew.spawn("patient", async move { stop.raised().await });
        crew.stop().raise();
        crew.finished().await.unwrap();
    }
}
