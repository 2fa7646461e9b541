//! A queue of keys: each key waits at most once, is never worked on twice at a
//! time, and comes back later after failures, each time after a longer while.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use base::Stop;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::measure::Measured;

/// First delay after a failure; doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_millis(5);
/// Longest delay after failures.
const RETRY_LIMIT: Duration = Duration::from_secs(60);

/// A queue shared by those who add keys and those who work on them.
#[derive(Debug)]
pub struct Queue<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Queue<K> {
        Queue {
            inner: self.inner.clone(),
        }
    }
}

#[derive(Debug)]
struct Inner<K> {
    state: Mutex<State<K>>,
    changed: Notify,
    stop: Stop,
}

#[derive(Debug)]
struct State<K> {
    ready: VecDeque<K>,
    /// Keys in `ready`, or in `working` and due again afterwards.
    waiting: HashSet<K>,
    working: HashSet<K>,
    /// When delayed keys become ready; the number keeps equal instants apart.
    delayed: BTreeMap<(Instant, u64), K>,
    delayed_until: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    sequence: u64,
    /// What is counted, and since when keys wait; nothing while the queue has no name.
    measured: Option<Measured>,
    since: HashMap<K, Instant>,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// An empty queue that ends when `stop` is raised.
    pub fn new(stop: Stop) -> Queue<K> {
        let state = State {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            working: HashSet::new(),
            delayed: BTreeMap::new(),
            delayed_until: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
            measured: None,
            since: HashMap::new(),
        };
        let inner = Inner {
            state: Mutex::new(state),
            changed: Notify::new(),
            stop,
        };
        Queue {
            inner: Arc::new(inner),
        }
    }

    /// Has the queue counted under this name.
    pub fn measure(&self, name: &str) {
        self.inner.state.lock().measured = Some(Measured::of(name));
    }

    /// Makes a key ready now.
    pub fn add(&self, key: K) {
        self.inner.state.lock().make_ready(key);
        self.inner.changed.notify_one();
    }

    /// Makes a key ready after `delay`, unless it is due earlier already.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        self.inner.state.lock().delay(key, Instant::now() + delay);
        self.inner.changed.notify_one();
    }

    /// Makes a key ready after a delay that grows with each call until [`Queue::forget`].
    pub fn retry(&self, key: K) {
        let mut state = self.inner.state.lock();
        if let Some(measured) = &state.measured {
            measured.retry();
        }
        let failures = state.failures.entry(key.clone()).or_default();
        let delay = RETRY_FIRST
            .saturating_mul(1 << (*failures).min(20))
            .min(RETRY_LIMIT);
        *failures = failures.saturating_add(1);
        state.delay(key, Instant::now() + delay);
        drop(state);
        self.inner.changed.notify_one();
    }

    /// Forgets a key's failures.
    pub fn forget(&self, key: &K) {
        self.inner.state.lock().failures.remove(key);
    }

    /// Takes the next ready key; `None` when the process is stopping. Every key taken must be
    /// given back by [`Queue::done`].
    pub async fn next(&self) -> Option<K> {
        loop {
            if self.inner.stop.is_raised() {
                return None;
            }
            let due = {
                let mut state = self.inner.state.lock();
                state.wake(Instant::now());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        self.inner.changed.notify_one();
                    }
                    return Some(key);
                }
                state.delayed.keys().next().map(|(due, _)| *due)
            };
            let timer = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.inner.changed.notified() => {}
                () = timer => {}
                () = self.inner.stop.raised() => return None,
            }
        }
    }

    /// Gives a key back; it is ready again at once if it was added meanwhile.
    pub fn done(&self, key: &K) {
        let mut state = self.inner.state.lock();
        state.working.remove(key);
        if state.waiting.contains(key) {
            state.ready.push_back(key.clone());
            state.tell_depth();
            drop(state);
            self.inner.changed.notify_one();
        }
    }

    /// Number of ready keys.
    pub fn depth(&self) -> usize {
        self.inner.state.lock().ready.len()
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn make_ready(&mut self, key: K) {
        if let Some(slot) = self.delayed_until.remove(&key) {
            self.delayed.remove(&slot);
        }
        if !self.waiting.insert(key.clone()) {
            return;
        }
        if let Some(measured) = &self.measured {
            measured.add();
            self.since.insert(key.clone(), Instant::now());
        }
        if !self.working.contains(&key) {
            self.ready.push_back(key);
            self.tell_depth();
        }
    }

    fn tell_depth(&self) {
        if let Some(measured) = &self.measured {
            measured.ready(self.ready.len());
        }
    }

    fn delay(&mut self, key: K, due: Instant) {
        if self.waiting.contains(&key) {
            return;
        }
        match self.delayed_until.get(&key) {
            Some((known, _)) if *known <= due => return,
            Some(slot) => {
                self.delayed.remove(slot);
            }
            None => {}
        }
        self.sequence += 1;
        let slot = (due, self.sequence);
        self.delayed.insert(slot, key.clone());
        self.delayed_until.insert(key, slot);
    }

    fn wake(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.delayed_until.remove(&key);
            self.make_ready(key);
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.tell_depth();
        if let (Some(measured), Some(since)) = (&self.measured, self.since.remove(&key)) {
            measured.took(since.elapsed());
        }
        self.working.insert(key.clone());
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_is_worked_on_once() {
        let queue = Queue::new(Stop::new());
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, Some("a"));
        queue.add("a");
        assert_eq!(queue.next().await, Some("b"));
        assert_eq!(queue.depth(), 0, "a is being worked on");
        queue.done(&"a");
        assert_eq!(queue.next().await, Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_with_a_name_is_counted() {
        let queue = Queue::new(Stop::new());
        queue.measure("counted");
        queue.add("a");
        queue.add("a");
        queue.add("b");
        let page = base::metrics::page();
        for line in [
            "workqueue_adds_total{name=\"counted\"} 2",
            "workqueue_depth{name=\"counted\"} 2",
        ] {
            assert!(page.contains(line), "{page}");
        }
        queue.next().await;
        queue.retry("a");
        let page = base::metrics::page();
        for line in [
            "workqueue_depth{name=\"counted\"} 1",
            "workqueue_retries_total{name=\"counted\"} 1",
            "workqueue_queue_duration_seconds_count{name=\"counted\"} 1",
        ] {
            assert!(page.contains(line), "{page}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_and_longer() {
        let queue = Queue::new(Stop::new());
        let mut waits = Vec::new();
        for _ in 0..3 {
            let before = Instant::now();
            queue.retry("a");
            let key = queue.next().await.unwrap();
            waits.push(before.elapsed());
            queue.done(&key);
        }
        assert!(waits[0] >= RETRY_FIRST && waits[1] >= waits[0] * 2 - RETRY_FIRST / 2);
        assert!(waits[2] > waits[1]);
        queue.forget(&"a");
        let before = Instant::now();
        queue.retry("a");
        queue.next().await.unwrap();
        assert!(before.elapsed() < waits[2]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_date_wins() {
        let queue = Queue::new(Stop::new());
        queue.add_after("a", Duration::from_secs(60));
        queue.add_after("a", Duration::from_secs(1));
        queue.add_after("a", Duration::from_secs(30));
        let before = Instant::now();
        assert_eq!(queue.next().await, Some("a"));
        assert!(before.elapsed() < Duration::from_secs(2));
        assert_eq!(queue.inner.state.lock().delayed.len(), 0);
    }

    #[tokio::test]
    async fn stopping_ends_the_wait() {
        let stop = Stop::new();
        let queue: Queue<u8> = Queue::new(stop.clone());
        let waiting = tokio::spawn(async move { queue.next().await });
        stop.raise();
        assert_eq!(waiting.await.unwrap(), None);
    }
}
