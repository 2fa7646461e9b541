//! Tells everybody who follows a cache that it has grown, in the order in which they came.
//!
//! Watches of one connection come one after the other as a rule. If they are woken so, too, what
//! they have to say is written together; woken in any order, each would cost a call into the kernel.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use futures::task::AtomicWaker;
use parking_lot::Mutex;

/// The one who tells.
#[derive(Default)]
pub(super) struct Growth(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// How often there was something to tell.
    count: AtomicU64,
    /// Nothing will be told any more.
    is_over: AtomicBool,
    followers: Mutex<Followers>,
}

#[derive(Default)]
struct Followers {
    /// How many there have been.
    known: u64,
    wakers: BTreeMap<u64, Arc<AtomicWaker>>,
}

/// One who is told.
pub(crate) struct Follower {
    growth: Arc<Shared>,
    number: u64,
    waker: Arc<AtomicWaker>,
    seen: u64,
}

/// The cache is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

impl Growth {
    /// Wakes all.
    pub(super) fn tell(&self) {
        self.0.count.fetch_add(1, Ordering::Release);
        self.0.wake();
    }

    /// Somebody who is told of all that comes from now on.
    pub(super) fn follow(&self) -> Follower {
        let waker = Arc::new(AtomicWaker::new());
        let mut followers = self.0.followers.lock();
        followers.known += 1;
        let number = followers.known;
        followers.wakers.insert(number, Arc::clone(&waker));
        drop(followers);
        Follower {
            growth: Arc::clone(&self.0),
            number,
            waker,
            seen: self.0.count.load(Ordering::Acquire),
        }
    }

    /// How many are told.
    pub(super) fn followers(&self) -> usize {
        self.0.followers.lock().wakers.len()
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
        self.0.wake();
    }
}

impl Shared {
    fn wake(&self) {
        let followers = self.followers.lock();
        let wakers = followers.wakers.values();
        let waiting: Vec<_> = wakers.filter_map(|waker| waker.take()).collect();
        // Whoever is woken may be at an end, and leave.
        drop(followers);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Follower {
    /// What has been told so far is known.
    pub(crate) fn catch_up(&mut self) {
        self.seen = self.growth.count.load(Ordering::Acquire);
    }

    /// Waits until there is something new, and knows it then. Safe to use in `select!`.
    pub(crate) async fn changed(&mut self) -> Result<(), Gone> {
        poll_fn(|context| self.poll_changed(context)).await
    }

    fn poll_changed(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        // First, so that nothing is told unheard between a look and the wait.
        self.waker.register(context.waker());
        let count = self.growth.count.load(Ordering::Acquire);
        if count != self.seen {
            self.seen = count;
            return Poll::Ready(Ok(()));
        }
        match self.growth.is_over.load(Ordering::Acquire) {
            true => Poll::Ready(Err(Gone)),
            false => Poll::Pending,
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut followers = self.growth.followers.lock();
        followers.wakers.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn followers_hear_of_what_came_since_their_last_look() {
        let growth = Growth::default();
        growth.tell();
        let mut late = growth.follow();
        growth.tell();
        growth.tell();
        assert_eq!(late.changed().await, Ok(()));
        let waits = tokio::spawn(async move {
            let first = late.changed().await;
            (first, late.changed().await)
        });
        tokio::task::yield_now().await;
        growth.tell();
        tokio::task::yield_now().await;
        drop(growth);
        assert_eq!(waits.await.unwrap(), (Ok(()), Err(Gone)));
    }

    #[tokio::test]
    async fn they_are_woken_in_the_order_they_came() {
        let growth = Growth::default();
        let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..50 {
            let (mut follower, said) = (growth.follow(), said.clone());
            tasks.spawn(async move {
                while follower.changed().await.is_ok() {
                    said.send(number).unwrap();
                }
            });
        }
        drop(said);
        tokio::task::yield_now().await;
        growth.tell();
        tokio::task::yield_now().await;
        assert_eq!(growth.followers(), 50);
        drop(growth);
        tasks.join_all().await;
        let mut order = Vec::new();
        while let Some(number) = heard.recv().await {
            order.push(number);
        }
        assert_eq!(order, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let growth = Growth::default();
        let mut one = growth.follow();
        let two = growth.follow();
        drop(two);
        assert_eq!(growth.followers(), 1);
        growth.tell();
        one.catch_up();
        let mut context = Context::from_waker(futures::task::noop_waker_ref());
        assert!(one.poll_changed(&mut context).is_pending());
    }
}
