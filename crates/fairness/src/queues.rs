//! The queues of one priority level, as a pure value: it is told the time and who comes and goes.
//!
//! Fair queuing in virtual time. `progress` runs, per queue in use, at the seats that one queue
//! would get of those there are. A request starts, virtually, when it arrives or when its queue's
//! previous one has finished, and finishes after its width times the time it is guessed to take;
//! the guess is corrected when it is done. The head that would finish first is next.

use std::collections::{BTreeMap, VecDeque};

use crate::demand::Demand;
use crate::shard;
use crate::spec::Queuing;

/// How long a request is guessed to take, in seconds.
const GUESS: f64 = 0.003;

/// A request that waits or is served.
pub type Ticket = u64;

/// What a request takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Width {
    /// Seats while it is served.
    pub seats: u32,
    /// Seats that its effects take afterwards, for so many nanoseconds.
    pub after: u32,
    pub after_ns: u64,
}

impl Width {
    fn most(self) -> u32 {
        self.seats.max(self.after)
    }

    /// Seconds of one seat.
    fn work(self, seconds: f64) -> f64 {
        f64::from(self.seats) * seconds + f64::from(self.after) * self.after_ns as f64 / 1e9
    }
}

/// What becomes of a request that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is served.
    Runs,
    /// It waits until [`QueueSet::dispatch`] names it.
    Waits,
    /// It is refused: `queue-full` or `concurrency-limit`.
    Refused(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) ticket: Ticket,
    pub(crate) width: Width,
    pub(crate) since: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    pub(crate) waiting: VecDeque<Waiting>,
    /// Virtual time at which the queue's next request starts.
    pub(crate) next_start: f64,
    pub(crate) serving: u32,
    pub(crate) seats: u32,
}

impl Queue {
    fn in_use(&self) -> bool {
        !self.waiting.is_empty() || self.serving > 0
    }
}

#[derive(Clone, Copy, Debug)]
struct Served {
    width: Width,
    queue: Option<usize>,
    since: u64,
}

/// Seats that are free again at a later time.
#[derive(Clone, Copy, Debug)]
struct Held {
    until: u64,
    seats: u32,
    queue: Option<usize>,
}

/// The queues and seats of one priority level.
#[derive(Debug)]
pub struct QueueSet {
    /// `None`: exempt, everything is served.
    limit: Option<u32>,
    queuing: Option<Queuing>,
    pub(crate) queues: Vec<Queue>,
    served: BTreeMap<Ticket, Served>,
    held: Vec<Held>,
    /// Seats in use, with those that are held.
    seats: u32,
    waiting: usize,
    waiting_seats: u32,
    progress: f64,
    now: u64,
    next_ticket: Ticket,
    pub(crate) demand: Demand,
}

impl QueueSet {
    /// Without a limit everything is served; without queues nothing waits.
    pub(crate) fn new(limit: Option<u32>, queuing: Option<Queuing>, now: u64) -> QueueSet {
        let mut set = QueueSet {
            limit,
            queuing: None,
            queues: Vec::new(),
            served: BTreeMap::new(),
            held: Vec::new(),
            seats: 0,
            waiting: 0,
            waiting_seats: 0,
            progress: 0.0,
            now,
            next_ticket: 0,
            demand: Demand::new(now),
        };
        set.configure(limit, queuing);
        set
    }

    /// Other limits; who waits goes on waiting.
    pub(crate) fn configure(&mut self, limit: Option<u32>, queuing: Option<Queuing>) {
        self.limit = limit;
        self.queuing = queuing;
        let wanted = queuing.map_or(0, |queuing| queuing.queues as usize);
        if wanted > self.queues.len() {
            self.queues.resize_with(wanted, Queue::default);
        }
        while self.queues.len() > wanted && self.queues.last().is_some_and(|last| !last.in_use()) {
            self.queues.pop();
        }
    }

    pub(crate) fn set_limit(&mut self, limit: u32) {
        if self.limit.is_some() {
            self.limit = Some(limit);
        }
    }

    /// Requests that are served, that wait, and seats in use.
    pub(crate) fn counts(&self) -> (usize, usize, u32) {
        (self.served.len(), self.waiting, self.seats)
    }

    /// Virtual time.
    pub(crate) fn progress(&self) -> f64 {
        self.progress
    }

    /// When held seats become free, if any are.
    pub(crate) fn next_release(&self) -> Option<u64> {
        self.held.iter().map(|held| held.until).min()
    }

    /// A request comes; `hash` is that of its flow.
    pub(crate) fn arrive(&mut self, now: u64, hash: u64, width: Width) -> (Ticket, Arrival) {
        self.advance(now);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if self.limit.is_none() {
            self.begin(ticket, width, None);
            return (ticket, Arrival::Runs);
        }
        let Some(queuing) = self.queuing else {
            if !self.has_room(width) {
                return (ticket, Arrival::Refused("concurrency-limit"));
            }
            self.begin(ticket, width, None);
            return (ticket, Arrival::Runs);
        };
        let at = self.shortest(hash, queuing);
        if self.waiting == 0 && self.has_room(width) {
            let progress = self.progress;
            let queue = &mut self.queues[at];
            queue.next_start = queue.next_start.max(progress) + width.work(GUESS);
            self.begin(ticket, width, Some(at));
            return (ticket, Arrival::Runs);
        }
        let queue = &mut self.queues[at];
        if queue.waiting.len() >= queuing.queue_length_limit as usize {
            return (ticket, Arrival::Refused("queue-full"));
        }
        if !queue.in_use() {
            queue.next_start = queue.next_start.max(self.progress);
        }
        queue.waiting.push_back(Waiting {
            ticket,
            width,
            since: self.now,
        });
        self.waiting += 1;
        self.waiting_seats += width.most();
        self.note();
        (ticket, Arrival::Waits)
    }

    /// Serves who is next, as long as there are seats; tells their tickets and how long they
    /// waited.
    pub(crate) fn dispatch(&mut self, now: u64, mut started: impl FnMut(Ticket, u64)) {
        self.advance(now);
        while self.waiting > 0 {
            let heads = self.queues.iter().enumerate().filter_map(|(at, queue)| {
                let head = queue.waiting.front()?;
                Some((at, queue.next_start + head.width.work(GUESS)))
            });
            let Some((at, finish)) = heads.min_by(|a, b| a.1.total_cmp(&b.1)) else {
                return;
            };
            let Some(width) = self.queues[at].waiting.front().map(|head| head.width) else {
                return;
            };
            // Who is next stays next until there is room, or wide requests would starve.
            if !self.has_room(width) {
                return;
            }
            let Some(head) = self.queues[at].waiting.pop_front() else {
                return;
            };
            self.queues[at].next_start = finish;
            self.waiting -= 1;
            self.waiting_seats -= width.most();
            self.begin(head.ticket, width, Some(at));
            started(head.ticket, self.now - head.since);
        }
    }

    /// A request that waits gives up; `false`: it is served by now.
    pub(crate) fn cancel(&mut self, now: u64, ticket: Ticket) -> bool {
        self.advance(now);
        for queue in &mut self.queues {
            let found = queue.waiting.iter().position(|own| own.ticket == ticket);
            if let Some(gone) = found.and_then(|at| queue.waiting.remove(at)) {
                self.waiting -= 1;
                self.waiting_seats -= gone.width.most();
                self.note();
                return true;
            }
        }
        false
    }

    /// A request is done; [`QueueSet::dispatch`] should follow. Tells how long it was served.
    pub(crate) fn finish(&mut self, now: u64, ticket: Ticket) -> u64 {
        self.advance(now);
        let Some(served) = self.served.remove(&ticket) else {
            return 0;
        };
        let took = self.now - served.since;
        let most = served.width.most();
        if let Some(queue) = served.queue.map(|at| &mut self.queues[at]) {
            queue.serving -= 1;
            let error = took as f64 / 1e9 - GUESS;
            queue.next_start += f64::from(served.width.seats) * error;
        }
        let held = match served.width.after_ns {
            0 => 0,
            _ => served.width.after,
        };
        self.free(most - held, served.queue);
        if held > 0 {
            self.held.push(Held {
                until: self.now + served.width.after_ns,
                seats: held,
                queue: served.queue,
            });
        }
        took
    }

    fn begin(&mut self, ticket: Ticket, width: Width, queue: Option<usize>) {
        self.seats += width.most();
        if let Some(queue) = queue.map(|at| &mut self.queues[at]) {
            queue.serving += 1;
            queue.seats += width.most();
        }
        let since = self.now;
        self.served.insert(
            ticket,
            Served {
                width,
                queue,
                since,
            },
        );
        self.note();
    }

    fn free(&mut self, seats: u32, queue: Option<usize>) {
        self.seats -= seats;
        if let Some(at) = queue {
            self.queues[at].seats -= seats;
        }
        self.note();
    }

    /// Whether the request fits; a wide one does when it is alone.
    fn has_room(&self, width: Width) -> bool {
        let limit = self.limit.unwrap_or(u32::MAX);
        match width.most() > limit {
            true => self.seats == 0,
            false => self.seats + width.most() <= limit,
        }
    }

    /// Of the queues dealt to a flow, the one with the least work.
    fn shortest(&self, hash: u64, queuing: Queuing) -> usize {
        let mut best = (0, f64::INFINITY);
        let (deck, hand) = (queuing.queues as usize, queuing.hand_size as usize);
        shard::deal(hash, deck, hand, |at| {
            let queue = &self.queues[at];
            let waits: f64 = queue.waiting.iter().map(|own| own.width.work(GUESS)).sum();
            let work = waits + f64::from(queue.seats) * GUESS;
            if work < best.1 {
                best = (at, work);
            }
        });
        best.0
    }

    /// Moves virtual time on.
    fn advance(&mut self, now: u64) {
        // Clocks of several cores may differ a little.
        let now = now.max(self.now);
        if self.limit.is_some() && self.seats + self.waiting_seats > 0 {
            let active = self.queues.iter().filter(|queue| queue.in_use()).count();
            if active > 0 {
                let wanted = self.seats + self.waiting_seats;
                let rate = f64::from(wanted.min(self.limit.unwrap_or(0))) / active as f64;
                self.progress += (now - self.now) as f64 / 1e9 * rate;
            }
        }
        self.now = now;
        let mut at = 0;
        while at < self.held.len() {
            if self.held[at].until <= now {
                let held = self.held.swap_remove(at);
                self.free(held.seats, held.queue);
            } else {
                at += 1;
            }
        }
    }

    fn note(&mut self) {
        self.demand.note(self.now, self.seats + self.waiting_seats);
    }
}

#[cfg(test)]
mod tests;
