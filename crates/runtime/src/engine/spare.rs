//! Starting supervisors: by a spare one, which waits for a pod since it was not needed yet. There is
//! at most one; it ends with this process, for it reads from us. While pods come that have their
//! cgroups below ours, it has the next one's cgroups too.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use node_api::RuntimeError;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, ChildStdout, Command};

use crate::spec::file;
use crate::supervisor::READY;

/// More words are not read of a supervisor that cannot start.
const WORDS_LIMIT: u64 = 16 << 10;

/// Supervisors before they have a pod.
pub(super) struct Spares {
    program: PathBuf,
    /// The program by a read-only mount, where it could be made; a supervisor looks no further then.
    sealed: Option<OwnedFd>,
    waiting: Mutex<Option<Spare>>,
}

/// A process that waits for a pod.
pub(super) struct Spare {
    stdin: ChildStdin,
    stdout: ChildStdout,
    place: Option<Place>,
}

/// What a pod finds made: a folder in the state folder, and cgroups, both of its id.
pub(super) struct Place {
    pub(super) id: String,
    /// The supervisor's.
    pub(super) cgroup: String,
    /// The id of the first container, where it has cgroups too.
    pub(super) container: Option<String>,
}

impl Spares {
    pub(super) fn new(program: PathBuf) -> Spares {
        let sealed = linux::process::sealed(&program)
            .inspect_err(
                |error| tracing::debug!(%error, "supervisors seal their program themselves"),
            )
            .ok();
        Spares {
            program,
            sealed,
            waiting: Mutex::default(),
        }
    }

    /// The one that waits, if there is one.
    pub(super) fn take(&self) -> Option<Spare> {
        self.waiting.lock().take()
    }

    /// Starts the supervisor of the pod in `folder`.
    pub(super) async fn start(
        &self,
        spare: Option<Spare>,
        folder: &Path,
    ) -> Result<(), RuntimeError> {
        if let Some(spare) = spare {
            match spare.become_supervisor(folder).await {
                // It died while it waited: somebody killed it, or the kernel for want of memory.
                Ok(words) if words.is_empty() && !folder.join(file::PID).exists() => {
                    tracing::info!("the spare supervisor is gone, starting another one");
                }
                words => return judge(words),
            }
        }
        judge(self.spawn(None)?.become_supervisor(folder).await)
    }

    /// Has one wait for the next pod, at the place that is made for it.
    pub(super) fn refill(&self, place: impl FnOnce() -> Option<Place>) {
        let mut waiting = self.waiting.lock();
        if waiting.is_none() {
            *waiting = self
                .spawn(place())
                .inspect_err(|error| tracing::warn!(%error, "no spare supervisor"))
                .ok();
        }
    }

    fn spawn(&self, place: Option<Place>) -> Result<Spare, RuntimeError> {
        let sealed = self.sealed.as_ref().map(AsRawFd::as_raw_fd);
        let program = sealed.map(|fd| PathBuf::from(format!("/proc/self/fd/{fd}")));
        let mut command = Command::new(program.as_ref().unwrap_or(&self.program));
        command
            .arg0("sampan")
            .arg("supervise")
            .args(place.iter().map(|place| &place.cgroup))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let fault =
            |error| RuntimeError::Internal(format!("starting {}: {error}", self.program.display()));
        let mut child = command.spawn().map_err(fault)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        // It makes way for the process that it leaves behind, sooner or later, and is only to be buried.
        tokio::spawn(async move { child.wait().await });
        match (stdin, stdout) {
            (Some(stdin), Some(stdout)) => Ok(Spare {
                stdin,
                stdout,
                place,
            }),
            _ => Err(fault(std::io::ErrorKind::BrokenPipe.into())),
        }
    }
}

impl Spare {
    /// What is made for its pod; whoever takes it uses it, or has it removed.
    pub(super) fn take_place(&mut self) -> Option<Place> {
        self.place.take()
    }

    /// Gives it its pod, and hears what it says of it; nothing where it does not live any more.
    async fn become_supervisor(mut self, folder: &Path) -> std::io::Result<String> {
        let mut line = folder.as_os_str().as_encoded_bytes().to_vec();
        line.push(b'\n');
        let told = self.stdin.write_all(&line).await;
        drop(self.stdin);
        let mut words = String::new();
        if told.is_ok() {
            let mut stdout = self.stdout.take(WORDS_LIMIT);
            stdout.read_to_string(&mut words).await?;
        }
        Ok(words)
    }
}

fn judge(words: std::io::Result<String>) -> Result<(), RuntimeError> {
    let why = match words {
        Ok(words) if words.ends_with(READY) => return Ok(()),
        Ok(words) if words.is_empty() => "the supervisor died at its start".to_owned(),
        Ok(words) => words,
        Err(error) => error.to_string(),
    };
    Err(RuntimeError::Internal(format!("sandbox supervisor: {why}")))
}
