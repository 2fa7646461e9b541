//! Pods that wait: ready ones by priority, failed ones until their back-off has
//! passed, hopeless ones until something happens that may help them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

/// First back-off after a failed attempt; doubles up to [`BACKOFF_MAX`].
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A pod that no event helps is looked at again after this long: a safety net.
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);

/// What happens in a cluster that may make room for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    NodeAdded,
    NodeChanged,
    /// A pod left a node, or asks for less.
    PodRemoved,
}

/// The order among ready pods: higher priority first, then who came first.
type Rank = (Reverse<i32>, u64);

#[derive(Debug)]
struct Waiting {
    priority: i32,
    sequence: u64,
    attempts: u32,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Ready,
    Backoff(Instant),
    Unschedulable {
        since: Instant,
        backoff_until: Instant,
        wakes_on: Vec<Event>,
    },
}

/// Pods by uid. At most one entry per pod, so bounded by the number of pods.
#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<String, Waiting>,
    ready: BTreeSet<(Rank, String)>,
    timers: BTreeMap<(Instant, u64), String>,
    sequence: u64,
}

impl Queue {
    /// Puts a pod among the ready ones, unless it waits already.
    pub fn add(&mut self, uid: &str, priority: i32) {
        if self.pods.contains_key(uid) {
            return;
        }
        self.sequence += 1;
        let waiting = Waiting {
            priority,
            sequence: self.sequence,
            attempts: 0,
            place: Place::Ready,
        };
        self.ready
            .insert(((Reverse(priority), self.sequence), uid.to_owned()));
        self.pods.insert(uid.to_owned(), waiting);
    }

    /// The pod itself changed: it is worth another look at once.
    pub fn update(&mut self, uid: &str, priority: i32) {
        self.remove(uid);
        self.add(uid, priority);
    }

    /// Forgets a pod.
    pub fn remove(&mut self, uid: &str) {
        if let Some(waiting) = self.pods.remove(uid) {
            self.ready.remove(&(
                (Reverse(waiting.priority), waiting.sequence),
                uid.to_owned(),
            ));
            let due = due(&waiting.place);
            due.map(|due| self.timers.remove(&(due, waiting.sequence)));
        }
    }

    /// The next ready pod; it stays known until [`Queue::remove`], [`Queue::failed`] or
    /// [`Queue::unschedulable`] says what became of it.
    pub fn take(&mut self, now: Instant) -> Option<String> {
        while let Some((slot, uid)) = self.timers.first_key_value() {
            if slot.0 > now {
                break;
            }
            let (slot, uid) = (*slot, uid.clone());
            self.timers.remove(&slot);
            self.make_ready(&uid);
        }
        let (_, uid) = self.ready.pop_first()?;
        if let Some(waiting) = self.pods.get_mut(&uid) {
            waiting.attempts += 1;
        }
        Some(uid)
    }

    /// When [`Queue::take`] may have something that it has not now.
    pub fn next_due(&self) -> Option<Instant> {
        self.timers.keys().next().map(|(due, _)| *due)
    }

    /// An attempt failed for a passing reason: again after the back-off.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        let due = now + self.backoff(uid);
        self.set_place(uid, Place::Backoff(due));
    }

    /// No node will do: again after an event that one of the refusing plugins waits for.
    pub fn unschedulable(&mut self, uid: &str, wakes_on: Vec<Event>, now: Instant) {
        let backoff_until = now + self.backoff(uid);
        self.set_place(
            uid,
            Place::Unschedulable {
                since: now,
                backoff_until,
                wakes_on,
            },
        );
    }

    /// Something happened; pods that it may help become ready, or at least timed.
    pub fn wake(&mut self, event: Event, now: Instant) {
        let helped = |waiting: &Waiting| match &waiting.place {
            Place::Unschedulable { wakes_on, .. } => wakes_on.contains(&event),
            _ => false,
        };
        let uids: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, w)| helped(w))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in uids {
            let until = match self.pods.get(&uid).map(|waiting| &waiting.place) {
                Some(Place::Unschedulable { backoff_until, .. }) => *backoff_until,
                _ => now,
            };
            if until <= now {
                self.unset_timer(&uid);
                self.make_ready(&uid);
            } else {
                self.set_place(&uid, Place::Backoff(until));
            }
        }
    }

    /// Numbers of ready, backing-off and unschedulable pods.
    pub fn counts(&self) -> (usize, usize, usize) {
        let of = |which: fn(&Place) -> bool| self.pods.values().filter(|w| which(&w.place)).count();
        let backoff = of(|place| matches!(place, Place::Backoff(_)));
        let hopeless = of(|place| matches!(place, Place::Unschedulable { .. }));
        (self.ready.len(), backoff, hopeless)
    }

    fn backoff(&self, uid: &str) -> Duration {
        let attempts = self
            .pods
            .get(uid)
            .map_or(1, |waiting| waiting.attempts.max(1));
        BACKOFF_FIRST
            .saturating_mul(1 << (attempts - 1).min(10))
            .min(BACKOFF_MAX)
    }

    fn set_place(&mut self, uid: &str, place: Place) {
        self.unset_timer(uid);
        let Some(waiting) = self.pods.get_mut(uid) else {
            return;
        };
        self.ready.remove(&(
            (Reverse(waiting.priority), waiting.sequence),
            uid.to_owned(),
        ));
        if let Some(due) = due(&place) {
            self.timers.insert((due, waiting.sequence), uid.to_owned());
        }
        waiting.place = place;
    }

    fn unset_timer(&mut self, uid: &str) {
        if let Some(waiting) = self.pods.get(uid)
            && let Some(due) = due(&waiting.place)
        {
            self.timers.remove(&(due, waiting.sequence));
        }
    }

    fn make_ready(&mut self, uid: &str) {
        if let Some(waiting) = self.pods.get_mut(uid) {
            waiting.place = Place::Ready;
            self.ready.insert((
                (Reverse(waiting.priority), waiting.sequence),
                uid.to_owned(),
            ));
        }
    }
}

fn due(place: &Place) -> Option<Instant> {
    match place {
        Place::Ready => None,
        Place::Backoff(due) => Some(*due),
        Place::Unschedulable { since, .. } => Some(*since + UNSCHEDULABLE_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priority_goes_before_age() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add("old", 0);
        queue.add("young", 0);
        queue.add("important", 10);
        let order: Vec<_> = std::iter::from_fn(|| queue.take(now)).collect();
        assert_eq!(order, ["important", "old", "young"]);
    }

    #[test]
    fn hopeless_pods_wait_for_the_right_event_and_their_backoff() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.add("a", 0);
        assert_eq!(queue.take(start).as_deref(), Some("a"));
        queue.unschedulable("a", vec![Event::NodeAdded], start);
        queue.wake(Event::PodRemoved, start);
        assert_eq!(queue.counts(), (0, 0, 1));
        queue.wake(Event::NodeAdded, start);
        assert_eq!(queue.counts(), (0, 1, 0), "its back-off still runs");
        assert_eq!(queue.take(start), None);
        let later = start + BACKOFF_FIRST;
        assert_eq!(queue.take(later).as_deref(), Some("a"));
        queue.unschedulable("a", vec![Event::NodeAdded], later);
        queue.wake(Event::NodeAdded, later + BACKOFF_FIRST * 2);
        assert_eq!(queue.counts(), (1, 0, 0));
    }

    #[test]
    fn a_removed_pod_leaves_nothing_behind() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add("a", 0);
        queue.take(now);
        queue.failed("a", now);
        queue.remove("a");
        assert!(queue.timers.is_empty() && queue.ready.is_empty() && queue.pods.is_empty());
    }
}
