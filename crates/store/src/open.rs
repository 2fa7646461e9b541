//! Opening a store: the lock, the checkpoint, the log above it, the threads.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64};

use base::{Crew, Stop};
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

use crate::api::{Store, StoreError};
use crate::checkpoint::{Keeper, Limits, Progress};
use crate::codec;
use crate::embedded::{Embedded, LOG_DIR, Scratch, Shared};
use crate::engine::{Engine, Opened, random_id};
use crate::lease::{self, LeaseClock};
use crate::log::{Log, SEGMENT_BYTES_MIN};
use crate::sequencer::{Job, QUEUE, Sequencer};
use crate::state::State;
use crate::watch::{self, Watchers};

/// Largest [`Config::request_bytes_max`]: a record must hold a full batch and
/// one such request more.
const REQUEST_BYTES_MAX: usize = 1_536 << 10;

/// Where a store lives and how much it may use.
#[derive(Clone, Debug)]
pub struct Config {
    /// The store's own folder; made if missing.
    pub dir: PathBuf,
    /// Size of one segment of the log; all of it is reserved at once.
    pub segment_bytes: u64,
    /// Largest transaction, keys and values together (etcd's is the same).
    pub request_bytes_max: usize,
    /// Pages of the checkpoint kept in memory.
    pub cache_bytes: usize,
    /// A checkpoint is written after this many changes, or bytes of them.
    pub checkpoint_changes: usize,
    pub checkpoint_bytes: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            dir: PathBuf::from("store"),
            segment_bytes: 64 << 20,
            request_bytes_max: REQUEST_BYTES_MAX,
            cache_bytes: 16 << 20,
            checkpoint_changes: 10_000,
            checkpoint_bytes: 8 << 20,
        }
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or the lock file cannot be used.
    #[error("cannot use {path}")]
    Folder {
        path: PathBuf,
        source: std::io::Error,
    },
    /// Another process, or another store of this one, has the folder.
    #[error("{path} is in use by another process")]
    InUse { path: PathBuf },
    /// The checkpoint cannot be read.
    #[error("cannot open the checkpoint in {path}: {message}")]
    Checkpoint { path: PathBuf, message: String },
    /// The log cannot be read, or lost something that was acknowledged.
    #[error("cannot open the log in {path}: {message}")]
    Log { path: PathBuf, message: String },
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread { source: std::io::Error },
}

/// Opens the embedded store in `config.dir`. `crew` owns its tasks; when its
/// stop signal is raised, or the last handle is dropped, the store finishes
/// what waits, writes a checkpoint and closes.
pub async fn open(config: Config, crew: &Crew) -> Result<Arc<dyn Store>, OpenError> {
    open_with(config, crew, None).await
}

/// Opens an empty store that is gone when closed, for tests of what stands on it.
pub async fn memory(crew: &Crew) -> Result<Arc<dyn Store>, OpenError> {
    let name = format!("sampan-store-{}-{:x}", std::process::id(), random_id());
    let dir = std::env::temp_dir().join(name);
    let config = Config {
        dir: dir.clone(),
        segment_bytes: SEGMENT_BYTES_MIN,
        ..Config::default()
    };
    open_with(config, crew, Some(Scratch(dir))).await
}

async fn open_with(
    config: Config,
    crew: &Crew,
    scratch: Option<Scratch>,
) -> Result<Arc<dyn Store>, OpenError> {
    let runtime = tokio::runtime::Handle::current();
    let limits = Limits {
        changes: config.checkpoint_changes.max(1),
        bytes: config.checkpoint_bytes,
    };
    let request_bytes_max = config.request_bytes_max.min(REQUEST_BYTES_MAX);
    let recover = tokio::task::spawn_blocking(move || recover(&config, scratch));
    let (shared, log, keeper) = recover.await.map_err(|error| OpenError::Thread {
        source: std::io::Error::other(error),
    })??;
    for (id, lease) in &shared.state.read().leases {
        shared.leases.start(*id, lease.ttl);
    }
    let (queue, jobs) = mpsc::channel(QUEUE);
    let sequencer = Sequencer {
        shared: shared.clone(),
        log,
        queue: jobs,
        limits,
        runtime,
    };
    let (alive, ended) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new()
        .name("store".to_owned())
        .spawn(move || {
            let _alive = alive;
            sequencer.run(keeper);
        })
        .map_err(|source| OpenError::Thread { source })?;
    let closing = crew.stop().child();
    let weak = Arc::downgrade(&shared);
    crew.spawn(
        "store leases",
        lease::run(weak.clone(), queue.downgrade(), closing.clone()),
    );
    crew.spawn(
        "store progress",
        watch::report_progress(weak, closing.clone()),
    );
    let close = Closing {
        shared: Arc::downgrade(&shared),
        queue: queue.downgrade(),
        thread,
        ended,
        closing: closing.clone(),
    };
    crew.spawn_fallible("store", close.run());
    Ok(Arc::new(Embedded {
        shared,
        queue,
        request_bytes_max,
        closing,
    }))
}

/// Sees the sequencer thread to its end.
struct Closing {
    shared: std::sync::Weak<Shared>,
    queue: mpsc::WeakSender<Job>,
    thread: std::thread::JoinHandle<()>,
    ended: oneshot::Receiver<()>,
    closing: Stop,
}

impl Closing {
    async fn run(mut self) -> Result<(), StoreError> {
        let ended = tokio::select! {
            () = self.closing.raised() => false,
            _ = &mut self.ended => true,
        };
        if let Some(shared) = self.shared.upgrade() {
            shared.close();
        }
        if !ended {
            if let Some(queue) = self.queue.upgrade() {
                // An error means that the thread has ended already.
                drop(queue.send(Job::Close).await);
            }
            drop(self.ended.await);
        }
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        match joined {
            Ok(Ok(())) => Ok(()),
            _ => Err(StoreError::Fatal("the sequencer panicked".to_owned())),
        }
    }
}

type Recovered = (Arc<Shared>, Log, Keeper);

fn recover(config: &Config, scratch: Option<Scratch>) -> Result<Recovered, OpenError> {
    let dir = config.dir.as_path();
    let log_dir = dir.join(LOG_DIR);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&log_dir)
        .map_err(|source| folder(&log_dir, source))?;
    let lock = lock(dir)?;
    let path = dir.join("checkpoint.redb");
    let broken = |message: String| OpenError::Checkpoint {
        path: path.clone(),
        message,
    };
    let Opened {
        engine,
        id,
        standing,
    } = Engine::open(&path, config.cache_bytes).map_err(|error| broken(error.to_string()))?;
    let view = engine.view().map_err(|error| broken(error.to_string()))?;
    let leases = engine.leases().map_err(|error| broken(error.to_string()))?;
    let mut state =
        State::load(standing, view, leases).map_err(|error| broken(error.to_string()))?;
    let applied = standing.applied;
    let segment_bytes = config.segment_bytes.max(SEGMENT_BYTES_MIN);
    let log = Log::open(&log_dir, id, segment_bytes, applied, |number, record| {
        for command in codec::decode_all(record).map_err(|error| error.to_string())? {
            // Other errors were the caller's, then as now.
            if let Err(StoreError::Fatal(message)) = state.apply(&command) {
                return Err(message);
            }
        }
        state.standing.applied = number;
        Ok(())
    });
    let mut log = log
        .map_err(|error| error.to_string())
        .and_then(|log| log)
        .map_err(|message| OpenError::Log {
            path: log_dir.clone(),
            message,
        })?;
    if scratch.is_some() {
        log.forget_at_end();
    }
    // The files are durable, but not yet their names.
    for folder_path in [dir, dir.parent().unwrap_or(dir)] {
        if !folder_path.as_os_str().is_empty() {
            File::open(folder_path)
                .and_then(|open| open.sync_all())
                .map_err(|source| folder(folder_path, source))?;
        }
    }
    let shared = Arc::new(Shared {
        revision: AtomicI64::new(state.revision()),
        state: RwLock::new(state),
        watchers: Watchers::default(),
        leases: LeaseClock::default(),
        checkpoints: Progress::starting_at(applied, engine.space.clone()),
        closed: AtomicBool::new(false),
        dir: dir.to_owned(),
        _lock: lock,
        _scratch: scratch,
    });
    let dir = dir.to_owned();
    Ok((shared, log, Keeper { engine, dir }))
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| folder(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(folder(&path, source)),
    }
}

fn folder(path: &Path, source: std::io::Error) -> OpenError {
    let path = path.to_owned();
    OpenError::Folder { path, source }
}
