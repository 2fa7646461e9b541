//! The one thread that changes the state: takes all commands that wait, makes
//! them durable as one record, applies them, and answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::sync::{mpsc, oneshot};

use crate::api::StoreError;
use crate::checkpoint::{self, ACTIVE_BYTES_MAX, Keeper, Limits};
use crate::codec::{self, Command};
use crate::embedded::Shared;
use crate::log::Log;
use crate::state::Reply;

/// Most commands that wait; further callers wait to get in line.
pub(crate) const QUEUE: usize = 4_096;

/// A record takes no further command once it has this many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// Something for the sequencer to do.
pub(crate) enum Job {
    Command {
        command: Command,
        encoded: Vec<u8>,
        answer: oneshot::Sender<Result<Reply, StoreError>>,
    },
    /// Finish what is in line before this, and end.
    Close,
}

type Waiting = (Command, oneshot::Sender<Result<Reply, StoreError>>);

/// Sends `command` through the log and waits for its answer.
pub(crate) async fn submit(
    queue: &mpsc::Sender<Job>,
    command: Command,
    bytes_max: usize,
) -> Result<Reply, StoreError> {
    let mut encoded = Vec::with_capacity(codec::room(&command));
    codec::encode(&command, &mut encoded);
    if encoded.len() > bytes_max {
        return Err(StoreError::TooLarge {
            size: encoded.len(),
            limit: bytes_max,
        });
    }
    let (answer, answered) = oneshot::channel();
    let job = Job::Command {
        command,
        encoded,
        answer,
    };
    queue.send(job).await.map_err(|_| StoreError::Closed)?;
    answered.await.map_err(|_| StoreError::Closed)?
}

/// What the sequencer thread owns.
pub(crate) struct Sequencer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: Log,
    pub(crate) queue: mpsc::Receiver<Job>,
    pub(crate) limits: Limits,
    pub(crate) runtime: tokio::runtime::Handle,
}

impl Sequencer {
    /// Works until closed, with a checkpoint thread beside it; leaves a
    /// checkpoint behind.
    pub(crate) fn run(mut self, keeper: Keeper) {
        let shared = self.shared.clone();
        let space = shared.checkpoints.space.clone();
        space.set_patient(true);
        std::thread::scope(|scope| {
            let (request, requests) = sync_channel(1);
            let keeper = &keeper;
            scope.spawn(move || {
                checkpoint::run(&shared, &keeper.engine, &keeper.dir, &requests);
            });
            if self.limits.reached(&self.shared.state.read()) {
                self.shared.checkpoints.request(&request);
            }
            while self.round(&request) {}
            // Nobody waits for a disk that is full at the end.
            space.set_patient(false);
        });
        self.queue.close();
        if !self.shared.state.read().active.is_empty() {
            checkpoint::write(&self.shared, &keeper.engine, &keeper.dir);
        }
    }

    /// Handles all that waits as one record; `false` when it is time to end.
    fn round(&mut self, checkpoints: &SyncSender<()>) -> bool {
        let mut payload = Vec::new();
        let mut waiting = Vec::new();
        let mut open = true;
        let mut next = self.queue.blocking_recv();
        loop {
            match next {
                Some(Job::Command {
                    command,
                    encoded,
                    answer,
                }) => {
                    if payload.is_empty() {
                        payload = encoded;
                    } else {
                        payload.extend_from_slice(&encoded);
                    }
                    waiting.push((command, answer));
                }
                Some(Job::Close) | None => {
                    open = false;
                    break;
                }
            }
            if payload.len() >= BATCH_BYTES {
                break;
            }
            match self.queue.try_recv() {
                Ok(job) => next = Some(job),
                Err(_) => break,
            }
        }
        if !waiting.is_empty() {
            self.commit(&payload, waiting, checkpoints);
        }
        open
    }

    fn commit(&mut self, payload: &[u8], waiting: Vec<Waiting>, checkpoints: &SyncSender<()>) {
        let applied = self.shared.checkpoints.applied();
        let appended = match self.has_memory(checkpoints) {
            true => self.log.append(payload, applied).ok(),
            false => None,
        };
        let Some(number) = appended else {
            for (_, answer) in waiting {
                // A caller that went away needs no answer.
                drop(answer.send(Err(StoreError::NoSpace)));
            }
            return;
        };
        let mut replies = Vec::with_capacity(waiting.len());
        let mut state = self.shared.state.write();
        let before = state.active.len();
        for (command, answer) in waiting {
            let reply = state.apply(&command);
            if let Err(StoreError::Fatal(message)) = &reply {
                tracing::error!(message, "a durable command cannot be applied, aborting");
                std::process::abort();
            }
            if reply.is_ok() {
                self.set_clock(&command);
            }
            replies.push((answer, reply));
        }
        state.standing.applied = number;
        let news = state.active[before..].to_vec();
        let revision = state.revision();
        let full = self.limits.reached(&state);
        drop(state);
        self.shared.revision.store(revision, Ordering::Release);
        self.shared.watchers.wake(&news);
        for (answer, reply) in replies {
            drop(answer.send(reply));
        }
        if full {
            self.shared.checkpoints.request(checkpoints);
        }
    }

    /// Whether there is room for more active versions, after waiting for the
    /// checkpoint if that is what it takes.
    fn has_memory(&self, checkpoints: &SyncSender<()>) -> bool {
        let is_below = || self.shared.state.read().active_bytes < ACTIVE_BYTES_MAX;
        if is_below() {
            return true;
        }
        self.shared.checkpoints.request(checkpoints);
        self.shared.checkpoints.wait();
        is_below()
    }

    fn set_clock(&self, command: &Command) {
        match command {
            Command::LeaseGrant { id, ttl } => {
                let _within = self.runtime.enter();
                self.shared.leases.start(*id, *ttl);
            }
            Command::LeaseRevoke(id) => self.shared.leases.forget(*id),
            Command::Txn(_) | Command::Compact(_) => {}
        }
    }
}
