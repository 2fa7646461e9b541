//! Carrying Dockerfiles out: stages side by side, steps from the cache where they are known.
//!
//! ```text
//!   Request ► plan (which stages, who waits for whom) ► a task per stage ► image
//!                                                        │ step: key ► kept? else do and keep
//!                                                        ▼
//!                                     Host: base images, containers for RUN, URLs
//! ```
//!
//! A step's key is made of the image before it and of all that it depends on, so what is kept under
//! it is what the step would make.

mod cache;
mod files;
mod follow;
mod host;
mod mounts;
mod plan;
mod say;
mod solved;
mod sources;
mod stage;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use oci::{ImageRecord, Reference, Store};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::dockerfile::{Instruction, ParseError, Step, parse};

pub use cache::Pruned;
pub use follow::{Follower, News, StepId};
pub use host::{Bind, Command, Fetched, Host, Ran, Wishes};
pub use mounts::secret_id;
pub use plan::context_key;
pub use say::{Messages, Said, Say};
pub use solved::Solved;

use solved::Running;

use state::State;

/// Containers of one builder that run at the same time.
const CONTAINERS_MAX: usize = 4;

/// Why an image was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Parse(#[from] ParseError),
    #[error("The command '{command}' returned a non-zero code: {code}")]
    Command { command: String, code: i32 },
    #[error("{0}")]
    Image(#[from] oci::ImageError),
    #[error("{0}")]
    Other(String),
    /// Another stage failed first.
    #[error("the build was given up")]
    GivenUp,
}

impl BuildError {
    /// In BuildKit's words, where the classic builder has others.
    pub fn plainly(&self) -> String {
        match self {
            BuildError::Command { command, code } => {
                format!("process {command:?} did not complete successfully: exit code: {code}")
            }
            other => other.to_string(),
        }
    }

    pub(crate) fn other(message: impl ToString) -> BuildError {
        BuildError::Other(message.to_string())
    }
}

/// What shall be built.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub dockerfile: String,
    /// The unpacked context, without what it ignores.
    pub context: PathBuf,
    pub args: BTreeMap<String, String>,
    /// A stage's name or number; empty is the last one.
    pub target: String,
    pub labels: BTreeMap<String, String>,
    pub tags: Vec<Reference>,
    pub no_cache: bool,
    /// Asks registries for base images that are here already.
    pub pull: bool,
    /// Of `RUN` without a word of its own; empty is the host's default.
    pub network: String,
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Sockets of agents of keys, by their ids.
    pub agents: BTreeMap<String, PathBuf>,
    /// What names mean instead of stages and images, by [`context_key`].
    pub contexts: BTreeMap<String, Meaning>,
    /// Stages that take nothing from the cache.
    pub no_cache_stages: Vec<String>,
    pub follower: Follower,
    pub wishes: Wishes,
}

/// What a name in `FROM` or `--from` stands for.
#[derive(Clone, Debug)]
pub enum Meaning {
    /// Files, for `--from` only.
    Folder(PathBuf),
    Image(String),
    /// The result of another build.
    Made(Arc<Solved>),
}

/// What was built.
#[derive(Clone, Debug)]
pub struct Built {
    pub image: ImageRecord,
    /// Build arguments that nothing asked for.
    pub unused: Vec<String>,
}

/// Builds images into one store.
pub struct Builder {
    store: Store,
    /// For caches that steps mount, and for what is under way.
    folder: PathBuf,
    host: Arc<dyn Host>,
    containers: Semaphore,
    caches: mounts::Caches,
    /// When the builds that run now began.
    running: Mutex<BTreeMap<u64, SystemTime>>,
}

/// What the stages of one build share.
struct Work {
    request: Request,
    escape: char,
    /// Global arguments, expanded.
    globals: BTreeMap<String, String>,
    /// Seconds since the epoch that count as now.
    epoch: Option<i64>,
    /// Build arguments that somebody asked for.
    used: Mutex<BTreeSet<String>>,
    total: usize,
    /// Stages of the whole file.
    stages: usize,
    /// Goes with the build.
    folder: tempfile::TempDir,
    lease: String,
}

impl Builder {
    /// A builder that keeps its caches in `folder`.
    pub fn new(store: &Store, folder: &Path, host: Arc<dyn Host>) -> std::io::Result<Builder> {
        let work = folder.join("work");
        if work.exists() {
            // Of builds that a crash ended.
            std::fs::remove_dir_all(&work)?;
        }
        for name in ["work", "mounts"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        Ok(Builder {
            store: store.clone(),
            folder: folder.to_owned(),
            host,
            containers: Semaphore::new(CONTAINERS_MAX),
            caches: mounts::Caches::default(),
            running: Mutex::default(),
        })
    }

    /// A folder that lasts as long as a build, for its context.
    pub fn work_folder(&self) -> std::io::Result<tempfile::TempDir> {
        tempfile::tempdir_in(self.folder.join("work"))
    }

    /// Builds one image. Dropping the future ends the build and all its containers.
    pub async fn build(self: &Arc<Self>, request: Request, say: &Say) -> Result<Built, BuildError> {
        let tags = request.tags.clone();
        let solved = self.solve(request, say).await?;
        let image = solved.image(tags).await?;
        let unused = solved.unused.clone();
        drop(solved);
        // Its own results count as used just now.
        self.shrink().await?;
        Ok(Built { image, unused })
    }

    /// Builds, but makes no image of the result. Dropping the future ends the build and all its
    /// containers.
    pub async fn solve(
        self: &Arc<Self>,
        request: Request,
        say: &Say,
    ) -> Result<Solved, BuildError> {
        let folder = self.work_folder().map_err(BuildError::other)?;
        let running = Running::begin(self);
        let (state, unused) = self
            .solve_in(request, folder, say, &running.lease())
            .await?;
        Ok(Solved::new(state, unused, running))
    }

    async fn solve_in(
        self: &Arc<Self>,
        request: Request,
        folder: tempfile::TempDir,
        say: &Say,
        lease: &str,
    ) -> Result<(Arc<State>, Vec<String>), BuildError> {
        let mut file = parse(&request.dockerfile)?;
        let mut plan = plan::Plan::of(&file, &request)?;
        if !request.labels.is_empty() {
            let pairs = request.labels.iter();
            let words: Vec<String> = pairs
                .clone()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            let quote = |text: &String| format!("'{}'", text.replace('\'', "'\\''"));
            file.stages[plan.target].steps.push(Step {
                line: 0,
                last: 0,
                source: format!("LABEL {}", words.join(" ")),
                instruction: Instruction::Label(
                    pairs
                        .map(|(name, value)| (quote(name), quote(value)))
                        .collect(),
                ),
            });
            plan.total += 1;
        }
        let epoch =
            match request.args.get("SOURCE_DATE_EPOCH").map(String::as_str) {
                None | Some("") => None,
                Some(text) => Some(text.parse::<i64>().map_err(|_| {
                    BuildError::Other(format!("invalid SOURCE_DATE_EPOCH: {text:?}"))
                })?),
            };
        let work = Arc::new(Work {
            escape: file.escape,
            globals: std::mem::take(&mut plan.globals),
            epoch,
            used: Mutex::new(plan.used.clone()),
            total: plan.total,
            stages: file.stages.len(),
            folder,
            lease: lease.to_owned(),
            request,
        });
        let state = self.run_stages(&work, file, &plan, say).await?;
        let used = work.used.lock();
        let unused = work.request.args.keys().filter(|name| {
            !used.contains(*name)
                && !stage::PREDEFINED.contains(&name.as_str())
                && *name != "SOURCE_DATE_EPOCH"
        });
        Ok((state, unused.cloned().collect()))
    }

    /// Every stage is a task; what they say comes out in their order.
    async fn run_stages(
        self: &Arc<Self>,
        work: &Arc<Work>,
        file: crate::dockerfile::Dockerfile,
        plan: &plan::Plan,
        say: &Say,
    ) -> Result<Arc<State>, BuildError> {
        let mut tasks = JoinSet::new();
        let mut heard = Vec::new();
        let mut done: BTreeMap<usize, watch::Receiver<Option<Arc<State>>>> = BTreeMap::new();
        let names = Arc::new(plan.names.clone());
        for (index, stage) in file.stages.into_iter().enumerate() {
            let Some(place) = plan.stages.get(&index) else {
                continue;
            };
            let (sender, receiver) = watch::channel(None);
            let before: BTreeMap<_, _> = place
                .after
                .iter()
                .filter_map(|other| Some((*other, done.get(other)?.clone())))
                .collect();
            done.insert(index, receiver);
            let (own, messages) = Say::channel();
            heard.push(messages);
            let task = stage::Task {
                builder: Arc::clone(self),
                work: Arc::clone(work),
                names: Arc::clone(&names),
                stage,
                index,
                base: place.base.clone(),
                first_step: place.first_step,
                before,
                say: own,
                telling: Default::default(),
            };
            tasks.spawn(async move {
                let state = Arc::new(task.run().await?);
                // Whoever waited may be gone.
                let _ = sender.send(Some(state));
                Ok(())
            });
        }
        let speaking = async {
            for mut messages in heard {
                while let Some(message) = messages.recv().await {
                    say.pass(message);
                }
            }
        };
        let working = async {
            let mut fault = None;
            while let Some(ended) = tasks.join_next().await {
                let ended = ended.unwrap_or_else(|error| Err(BuildError::other(error)));
                match ended {
                    Ok(()) | Err(BuildError::GivenUp) => {}
                    Err(error) => {
                        fault = fault.or(Some(error));
                        tasks.abort_all();
                    }
                }
            }
            fault.map_or(Ok(()), Err)
        };
        let (result, ()) = tokio::join!(working, speaking);
        result?;
        let target = done
            .get(&plan.target)
            .and_then(|done| done.borrow().clone());
        target.ok_or(BuildError::GivenUp)
    }
}

/// Runs work where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BuildError> + Send + 'static,
) -> Result<T, BuildError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(BuildError::other)?
}
