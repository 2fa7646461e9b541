//! A crew owns every long-running task of a process, and decides what the
//! death of one of them means.

use std::future::Future;
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;
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

type Outcome = (String, Result<(), String>);

/// The owner of all tasks. Cheap to clone; clones share the same tasks.
#[derive(Clone, Debug, Default)]
pub struct Crew {
    stop: Stop,
    tasks: Arc<Mutex<JoinSet<Outcome>>>,
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
        let name = name.into();
        let work = async move { (name, task.await.map_err(|error| error.to_string())) };
        self.lock().spawn(work);
        self.arrived.notify_one();
    }

    /// Waits until the stop signal is raised and every task has ended, or
    /// until a task fails; in that case raises the signal and waits for the rest.
    pub async fn finished(&self) -> Result<(), CrewError> {
        let mut first_fault = None;
        loop {
            let next = std::future::poll_fn(|cx| self.lock().poll_join_next(cx));
            let joined = tokio::select! {
                joined = next => joined,
                () = self.arrived.notified() => continue,
            };
            match joined {
                None if self.stop.is_raised() => break,
                None => tokio::select! {
                    () = self.stop.raised() => {}
                    () = self.arrived.notified() => {}
                },
                Some(Ok((_, Ok(())))) => {}
                Some(Ok((name, Err(message)))) => {
                    self.stop.raise();
                    first_fault.get_or_insert(CrewError::Failed { name, message });
                }
                Some(Err(fault)) => {
                    self.stop.raise();
                    let name = fault.to_string();
                    first_fault.get_or_insert(CrewError::Panicked { name });
                }
            }
        }
        first_fault.map_or(Ok(()), Err)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, JoinSet<Outcome>> {
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

    #[tokio::test]
    async fn raising_the_signal_ends_it_cleanly() {
        let crew = Crew::new();
        let stop = crew.stop();
        crew.spawn("patient", async move { stop.raised().await });
        crew.stop().raise();
        crew.finished().await.unwrap();
    }
}
