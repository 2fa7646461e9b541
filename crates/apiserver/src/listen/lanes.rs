//! Two lanes of threads for what connections do: the threads of a heavy user's connections have
//! less priority, so that a flood leaves the others the processors whenever they want them.
//!
//! ```text
//! connection, its requests ──▶ Shift ──▶ home: the process's own threads
//!                               │  ▲
//!            the user is heavy  ▼  │  is no longer
//!                             heavy: as many threads, with less priority
//! ```
//! Work is charged to the user of the connection's newest request, poll by poll. The connection's
//! socket moves with it ([`Socket`](super::socket::Socket)); what a request starts besides, and
//! timers, stay at home in both lanes. No core is left idle: without others a heavy user has all
//! of them.
//!
//! The threads at home must not work for heavy users at all, not even wake them: the kernel lets a
//! thread that wakes up go first only as long as it took less than its part before, and otherwise
//! lets it wait for the next tick, milliseconds later. For those that are caught so all the same,
//! in this process or another, the threads of heavy users offer the processor between two tasks
//! ([`OFFER_EVERY`]).

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use fairness::{Account, Accounts};
use futures::future::BoxFuture;
use tokio::runtime::{Builder, Handle, Runtime};

/// How much the threads of heavy users yield to others: by weight, one to nine.
const NICE: i32 = 10;
/// Longer than the slice of any usual thread, so that whoever wakes up need not wait for the end
/// of theirs.
const SLICE: Duration = Duration::from_millis(20);

/// How long a heavy user's thread works before it offers the processor to whoever waits: only then,
/// and at ticks, does the kernel look who should have it.
const OFFER_EVERY: Duration = Duration::from_micros(100);

thread_local! {
    static IS_HEAVY: Cell<bool> = const { Cell::new(false) };
    /// How long the thread has worked since it last offered the processor.
    static WORKED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Whether the calling thread works for heavy users.
pub(super) fn is_heavy_thread() -> bool {
    IS_HEAVY.get()
}

/// To be called by a heavy user's thread after work that took so long.
fn offer_processor(worked: Duration) {
    let worked = WORKED.get() + worked;
    let offers = worked >= OFFER_EVERY;
    WORKED.set(if offers { Duration::ZERO } else { worked });
    if offers {
        // Less than a microsecond if nobody waits. The kernel counts it against the thread's part,
        // unlike a short sleep, and so lets in whoever waits.
        std::thread::yield_now();
    }
}

/// The lanes of one listener.
pub(super) struct Lanes {
    home: Handle,
    /// Started when there is the first heavy user.
    heavy: OnceLock<Option<Runtime>>,
    cores: usize,
    accounts: Accounts,
    began: Instant,
}

impl Lanes {
    /// Lanes whose home is the runtime of the caller.
    pub(super) fn new() -> Arc<Lanes> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Lanes {
            home: Handle::current(),
            heavy: OnceLock::new(),
            cores,
            accounts: Accounts::new(cores),
            began: Instant::now(),
        })
    }

    /// The lane of a new connection.
    pub(super) fn lane(self: &Arc<Lanes>) -> Lane {
        Lane(Arc::new(Place {
            lanes: Arc::clone(self),
            tasks: AtomicUsize::new(0),
            account: ArcSwapOption::empty(),
        }))
    }

    /// Where heavy users' work runs, or all others'; `None` if there are no such threads.
    pub(super) fn runtime(&self, is_heavy: bool) -> Option<&Handle> {
        match is_heavy {
            true => self.heavy(),
            false => Some(&self.home),
        }
    }

    #[cfg(test)]
    pub(super) fn cores(&self) -> usize {
        self.cores
    }

    fn heavy(&self) -> Option<&Handle> {
        let heavy = self.heavy.get_or_init(|| {
            let mut builder = Builder::new_multi_thread();
            builder
                .worker_threads(self.cores)
                .thread_name("sampan-heavy")
                .enable_io()
                .on_thread_start(|| {
                    IS_HEAVY.set(true);
                    if let Err(error) = linux::process::yield_thread_to_others(NICE, SLICE) {
                        tracing::warn!(%error, "heavy users' threads keep their priority");
                    }
                });
            let built = builder.build();
            built
                .inspect_err(|error| tracing::warn!(%error, "no threads for heavy users"))
                .ok()
        });
        heavy.as_ref().map(Runtime::handle)
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        if let Some(heavy) = self.heavy.take().flatten() {
            // A runtime must not be waited for inside of another.
            heavy.shutdown_background();
        }
    }
}

/// Where the work of one connection runs. Clones are the same place.
#[derive(Clone)]
pub(crate) struct Lane(Arc<Place>);

struct Place {
    lanes: Arc<Lanes>,
    /// Tasks that the connection has started and that go on.
    tasks: AtomicUsize,
    account: ArcSwapOption<Account>,
}

impl Lane {
    /// From now on the connection works for this user; `None`: for nobody who is counted.
    pub(crate) fn works_for(&self, user: Option<&str>) {
        let account = self.0.account.load();
        if account.as_ref().map(|account| account.user()) != user {
            let account = user.map(|user| self.0.lanes.accounts.of(user));
            self.0.account.store(account);
        }
    }

    /// Whether several tasks of the connection go on: requests of HTTP/2.
    pub(super) fn is_shared(&self) -> bool {
        self.0.tasks.load(Ordering::Relaxed) > 1
    }

    /// Runs work in this lane until it is done, or the caller is gone.
    pub(super) async fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        let (mut done, ended) = tokio::sync::oneshot::channel::<()>();
        self.start(Box::pin(async move {
            tokio::select! {
                () = work => {}
                () = done.closed() => {}
            }
        }));
        // It is dropped at the end of the work, however that comes.
        let _ = ended.await;
    }

    fn start(&self, work: BoxFuture<'static, ()>) {
        let lanes = &self.0.lanes;
        let heavy = self.is_heavy().then(|| lanes.heavy()).flatten();
        let shift = Shift {
            lane: self.clone(),
            is_heavy: heavy.is_some(),
            work: Some(work),
        };
        heavy.unwrap_or(&lanes.home).spawn(shift);
    }

    fn is_heavy(&self) -> bool {
        let account = self.0.account.load();
        account.as_ref().is_some_and(|account| account.is_heavy())
    }

    fn charge(&self, begun: Instant) {
        let account = self.0.account.load();
        let Some(account) = &*account else {
            return;
        };
        let (now, lanes) = (Instant::now(), &self.0.lanes);
        let nanoseconds = |from: Instant| {
            let time = now.saturating_duration_since(from);
            u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
        };
        let (at, spent) = (nanoseconds(lanes.began), nanoseconds(begun));
        lanes.accounts.charge(account, at, spent);
    }
}

/// What a connection starts for its requests runs where the connection does.
impl<F> hyper::rt::Executor<F> for Lane
where
    F: Future + Send + 'static,
{
    fn execute(&self, work: F) {
        let counted = Counted::new(&self.0);
        self.start(Box::pin(async move {
            let _counted = counted;
            work.await;
        }));
    }
}

/// One of a connection's tasks.
struct Counted(Arc<Place>);

impl Counted {
    fn new(place: &Arc<Place>) -> Counted {
        place.tasks.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(place))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.tasks.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Work that changes lanes between two polls.
struct Shift {
    lane: Lane,
    /// Where it runs now.
    is_heavy: bool,
    work: Option<BoxFuture<'static, ()>>,
}

impl Future for Shift {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Shift {
            lane,
            is_heavy,
            work,
        } = &mut *self;
        let lanes = &lane.0.lanes;
        let belongs = lane.is_heavy();
        if belongs != *is_heavy
            && let Some(other) = lanes.runtime(belongs)
        {
            other.spawn(Shift {
                lane: lane.clone(),
                is_heavy: belongs,
                work: work.take(),
            });
            return Poll::Ready(());
        }
        let Some(work) = work else {
            return Poll::Ready(());
        };
        let _home = is_heavy.then(|| lanes.home.enter());
        let begun = Instant::now();
        let polled = work.as_mut().poll(context);
        lane.charge(begun);
        if *is_heavy {
            offer_processor(begun.elapsed());
        }
        polled
    }
}

#[cfg(test)]
pub(super) mod tests {
    use fairness::accounts::WINDOW;

    use super::*;

    /// Ahead of the clock, so that what the work itself takes is not judged.
    pub(in crate::listen) const FAR: u64 = 1_000_000 * WINDOW;

    fn thread() -> String {
        let thread = std::thread::current();
        thread.name().unwrap_or_default().to_owned()
    }

    /// Makes the user heavy, or light again.
    pub(in crate::listen) fn judge(lanes: &Lanes, user: &str, begin: u64, cores: f64) -> u64 {
        let account = lanes.accounts.of(user);
        let mut now = begin;
        for _ in 0..20 {
            now += WINDOW;
            let spent = (WINDOW as f64 * cores) as u64;
            lanes.accounts.charge(&account, now, spent);
        }
        now
    }

    #[tokio::test]
    async fn work_of_a_heavy_user_moves_over_and_back() {
        let lanes = Lanes::new();
        let lane = lanes.lane();
        lane.works_for(Some("loud"));
        let (steps, mut asked) = tokio::sync::mpsc::channel::<()>(1);
        let (answer, mut threads) = tokio::sync::mpsc::channel(1);
        let work = tokio::spawn(async move {
            lane.run(async move {
                while asked.recv().await.is_some() {
                    // Timers and new tasks are the home's in both lanes.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    let inner = tokio::spawn(async { thread() }).await.unwrap();
                    answer.send((thread(), inner)).await.unwrap();
                }
            })
            .await;
        });
        let home = thread();
        steps.send(()).await.unwrap();
        assert_eq!(threads.recv().await.unwrap(), (home.clone(), home.clone()));
        let then = judge(&lanes, "loud", FAR, lanes.cores as f64);
        steps.send(()).await.unwrap();
        let (own, inner) = threads.recv().await.unwrap();
        assert_eq!((own.as_str(), inner), ("sampan-heavy", home.clone()));
        judge(&lanes, "loud", then, 0.0);
        steps.send(()).await.unwrap();
        assert_eq!(threads.recv().await.unwrap(), (home.clone(), home));
        drop(steps);
        work.await.unwrap();
    }

    #[tokio::test]
    async fn work_ends_with_who_waits_for_it() {
        let lane = Lanes::new().lane();
        let (held, dropped) = tokio::sync::oneshot::channel::<()>();
        let waits = tokio::spawn(async move {
            lane.run(async move {
                let _held = held;
                std::future::pending::<()>().await;
            })
            .await;
        });
        tokio::task::yield_now().await;
        waits.abort();
        assert!(dropped.await.is_err());
    }
}
