//! The gate that requests pass: configuration in force, waiting, seats that free themselves.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::defaults;
use crate::limits::{Claim, divide, nominal, percent};
use crate::metrics::Flow;
use crate::queues::{Arrival, QueueSet, Ticket, Width};
use crate::rules::Digest;
use crate::spec::{Level, Schema};

/// Of a level's nominal seats, the part that one request may take.
const SEATS_PART_MAX: f64 = 0.15;

/// What a request takes, as far as is known when it comes.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    pub seats: u32,
    /// Seats that its effects take after it is answered, and for how long.
    pub after: u32,
    pub after_for: Duration,
}

impl Default for Work {
    fn default() -> Work {
        Work {
            seats: 1,
            after: 0,
            after_for: Duration::ZERO,
        }
    }
}

/// A request was refused; it may come again later.
#[derive(Debug)]
pub struct Refused {
    pub schema_uid: String,
    pub level_uid: String,
    /// `queue-full`, `concurrency-limit` or `time-out`.
    pub reason: &'static str,
}

/// One priority level with its queues.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) name: String,
    pub(crate) exempt: bool,
    pub(crate) limits: Mutex<Limits>,
    /// Seats that one request may take.
    seats_max: AtomicU32,
    state: Mutex<State>,
    began: Instant,
}

/// Seats of a level: nominal, the least and most after lending and borrowing, and those in force.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) nominal: u32,
    pub(crate) least: u32,
    pub(crate) most: u32,
    pub(crate) current: u32,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) set: QueueSet,
    pub(crate) waiters: HashMap<Ticket, Waiter>,
    /// Somebody will come when held seats are free.
    timer: bool,
}

#[derive(Debug)]
pub(crate) struct Waiter {
    wake: oneshot::Sender<()>,
    pub(crate) schema: String,
    pub(crate) distinguisher: String,
}

impl Room {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Wakes who is served next.
    fn settle(self: &Arc<Room>, state: &mut State) {
        let now = self.now();
        let State {
            set,
            waiters,
            timer,
        } = state;
        set.dispatch(now, |ticket, _| {
            if let Some(waiter) = waiters.remove(&ticket) {
                // Who has gone in the meantime gives the seat back when it is dropped.
                let _ = waiter.wake.send(());
            }
        });
        if set.counts().1 > 0
            && !*timer
            && let Some(at) = set.next_release()
        {
            *timer = true;
            let (room, pause) = (
                Arc::clone(self),
                Duration::from_nanos(at.saturating_sub(now)),
            );
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                let mut state = room.state.lock();
                state.timer = false;
                room.settle(&mut state);
            });
        }
    }

    /// Ends what a ticket stands for, whether it waits or is served.
    fn leave(self: &Arc<Room>, ticket: Ticket) -> u64 {
        let mut state = self.state.lock();
        let now = self.now();
        if state.waiters.remove(&ticket).is_some() {
            state.set.cancel(now, ticket);
            return 0;
        }
        let took = state.set.finish(now, ticket);
        self.settle(&mut state);
        took
    }
}

/// A FlowSchema and where it leads.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) schema: Schema,
    level_uid: String,
    pub(crate) room: Arc<Room>,
    pub(crate) flow: Arc<Flow>,
}

/// What is in force.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// By precedence and name.
    pub(crate) ways: Vec<Arc<Way>>,
    pub(crate) rooms: BTreeMap<String, Arc<Room>>,
}

/// All priority levels of one server.
#[derive(Debug)]
pub struct Fairness {
    /// Seats of the server.
    total: u32,
    /// How long a request may wait.
    wait_max: Duration,
    plan: ArcSwap<Plan>,
    began: Instant,
    /// By schema and level; they outlive changes of the configuration.
    flows: Mutex<HashMap<(String, String), Arc<Flow>>>,
    pub(crate) fair_proportion: Mutex<f64>,
}

/// A request being served; dropping it frees its seats.
#[derive(Debug)]
pub struct Seat {
    way: Arc<Way>,
    ticket: Ticket,
    seats: u32,
    served: bool,
}

impl Seat {
    /// UID of the FlowSchema.
    pub fn schema_uid(&self) -> &str {
        &self.way.schema.uid
    }

    /// UID of the PriorityLevelConfiguration.
    pub fn level_uid(&self) -> &str {
        &self.way.level_uid
    }

    /// Whether the priority level has no limits.
    pub fn is_exempt(&self) -> bool {
        self.way.room.exempt
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let took = self.way.room.leave(self.ticket);
        match self.served {
            true => self.way.flow.ended(self.seats, took),
            false => self.way.flow.gone(),
        }
    }
}

impl Fairness {
    /// A server with so many seats, configured as every cluster is at first.
    pub fn new(total: u32, wait_max: Duration) -> Arc<Fairness> {
        let fairness = Arc::new(Fairness {
            total,
            wait_max,
            plan: ArcSwap::default(),
            began: Instant::now(),
            flows: Mutex::default(),
            fair_proportion: Mutex::new(0.0),
        });
        fairness.configure(&defaults::flow_schemas(), &defaults::priority_levels());
        fairness
    }

    pub(crate) fn plan(&self) -> Arc<Plan> {
        self.plan.load_full()
    }

    /// Serves by these objects from now on. What is mandatory is added where it is missing.
    pub fn configure(&self, schemas: &[Value], levels: &[Value]) {
        let mut levels: Vec<Level> = levels.iter().map(Level::read).collect();
        for default in defaults::priority_levels().iter().map(Level::read) {
            let mandatory = defaults::MANDATORY.contains(&default.name.as_str());
            if mandatory && !levels.iter().any(|own| own.name == default.name) {
                levels.push(default);
            }
        }
        let old = self.plan();
        let all_shares = levels.iter().map(|level| level.shares).sum();
        let mut rooms = BTreeMap::new();
        for level in &levels {
            rooms.insert(level.name.clone(), self.room(level, all_shares, &old));
        }
        let mut schemas: Vec<Schema> = schemas.iter().map(Schema::read).collect();
        for default in defaults::flow_schemas().iter().map(Schema::read) {
            let mandatory = defaults::MANDATORY.contains(&default.name.as_str());
            if mandatory && !schemas.iter().any(|own| own.name == default.name) {
                schemas.push(default);
            }
        }
        schemas.sort_by(|a, b| {
            let key = |schema: &Schema| schema.spec.matching_precedence;
            key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
        });
        let ways = schemas.into_iter().filter_map(|schema| {
            // One that leads nowhere is passed over; its status says so.
            let name = &schema.spec.priority_level_configuration.name;
            let room = Arc::clone(rooms.get(name)?);
            let level = levels.iter().find(|level| level.name == *name)?;
            let flow = self.flow(&schema.name, name);
            Some(Arc::new(Way {
                level_uid: level.uid.clone(),
                schema,
                room,
                flow,
            }))
        });
        let ways = ways.collect();
        self.plan.store(Arc::new(Plan { ways, rooms }));
    }

    fn room(&self, level: &Level, all_shares: u32, old: &Plan) -> Arc<Room> {
        let nominal = nominal(self.total, level.shares, all_shares);
        let borrowed = level.borrowing_limit_percent;
        let limits = Limits {
            nominal,
            least: nominal - percent(nominal, level.lendable_percent).min(nominal),
            most: nominal + borrowed.map_or(self.total, |part| percent(nominal, part)),
            current: nominal,
        };
        let known = old.rooms.get(&level.name);
        let room = match known.filter(|room| room.exempt == level.exempt) {
            Some(room) => Arc::clone(room),
            None => Arc::new(Room {
                name: level.name.clone(),
                exempt: level.exempt,
                limits: Mutex::default(),
                seats_max: AtomicU32::new(1),
                state: Mutex::new(State {
                    set: QueueSet::new((!level.exempt).then_some(nominal), level.queuing, 0),
                    waiters: HashMap::new(),
                    timer: false,
                }),
                began: self.began,
            }),
        };
        let part = (f64::from(nominal) * SEATS_PART_MAX).ceil() as u32;
        let hand = level.queuing.map_or(1, |queuing| queuing.hand_size.max(1));
        let seats_max = match level.queuing {
            Some(_) => part.min(nominal / hand).max(1),
            None => u32::MAX,
        };
        room.seats_max.store(seats_max, Ordering::Relaxed);
        let mut own = room.limits.lock();
        let changed =
            (own.nominal, own.least, own.most) != (limits.nominal, limits.least, limits.most);
        if changed {
            *own = limits;
        }
        let current = own.current;
        drop(own);
        let mut state = room.state.lock();
        state
            .set
            .configure((!level.exempt).then_some(current), level.queuing);
        room.settle(&mut state);
        drop(state);
        room
    }

    fn flow(&self, schema: &str, level: &str) -> Arc<Flow> {
        let key = (schema.to_owned(), level.to_owned());
        Arc::clone(self.flows.lock().entry(key).or_default())
    }

    /// Takes seats for a request, waiting for them if need be. `work` is told how many seats one
    /// request of the level may take.
    pub async fn enter(
        &self,
        digest: &Digest<'_>,
        work: impl FnOnce(u32) -> Work,
    ) -> Result<Seat, Refused> {
        let (way, width, hash) = {
            let plan = self.plan.load();
            let found = plan.ways.iter().find(|way| way.schema.matches(digest));
            // The catch-all takes everybody; without it, as with groups nobody has, the last.
            let Some(way) = found.or(plan.ways.last()) else {
                return Err(refused(None, "concurrency-limit"));
            };
            let room = &way.room;
            let work = match room.exempt {
                true => Work::default(),
                false => work(room.seats_max.load(Ordering::Relaxed)),
            };
            let width = Width {
                seats: work.seats.max(1),
                after: work.after,
                after_ns: u64::try_from(work.after_for.as_nanos()).unwrap_or(u64::MAX),
            };
            let mut hasher = DefaultHasher::new();
            (&way.schema.name, way.schema.distinguish(digest)).hash(&mut hasher);
            (Arc::clone(way), width, hasher.finish())
        };
        let (ticket, woken) = {
            let mut state = way.room.state.lock();
            let (ticket, arrival) = state.set.arrive(way.room.now(), hash, width);
            match arrival {
                Arrival::Runs => (ticket, None),
                Arrival::Refused(reason) => {
                    way.flow.refused(reason);
                    return Err(refused(Some(&way), reason));
                }
                Arrival::Waits => {
                    let (wake, woken) = oneshot::channel();
                    let waiter = Waiter {
                        wake,
                        schema: way.schema.name.clone(),
                        distinguisher: way.schema.distinguish(digest).to_owned(),
                    };
                    state.waiters.insert(ticket, waiter);
                    way.room.settle(&mut state);
                    (ticket, Some(woken))
                }
            }
        };
        let mut seat = Seat {
            way,
            ticket,
            seats: width.seats,
            served: false,
        };
        let waited = match woken {
            None => Duration::ZERO,
            Some(woken) => self.wait(&seat, woken).await?,
        };
        seat.served = true;
        seat.way.flow.began(seat.seats, waited);
        Ok(seat)
    }

    async fn wait(&self, seat: &Seat, woken: oneshot::Receiver<()>) -> Result<Duration, Refused> {
        let flow = &seat.way.flow;
        let begun = Instant::now();
        flow.waits();
        let outcome = tokio::time::timeout(self.wait_max, woken).await;
        match outcome {
            Ok(Ok(())) => {
                flow.gone();
                Ok(begun.elapsed())
            }
            _ => {
                flow.timed_out(begun.elapsed());
                Err(refused(Some(&seat.way), "time-out"))
            }
        }
    }

    /// Moves seats from levels that do not use them to levels that want more. To be called every
    /// ten seconds.
    pub fn adjust(&self) {
        let plan = self.plan();
        let mut left = f64::from(self.total);
        let mut claims = Vec::new();
        let mut limited = Vec::new();
        for room in plan.rooms.values() {
            let mut state = room.state.lock();
            let found = state.set.demand.look(room.now());
            drop(state);
            let mut limits = room.limits.lock();
            if room.exempt {
                limits.current = limits.least.max(found.peak);
                left -= f64::from(limits.current);
                continue;
            }
            let least = limits.least.max(limits.nominal.min(found.peak));
            claims.push(Claim {
                least: f64::from(least),
                most: f64::from(limits.most),
                wanted: found.smoothed.max(f64::from(least)),
            });
            limited.push(Arc::clone(room));
        }
        let least: f64 = limited
            .iter()
            .map(|room| f64::from(room.limits.lock().least))
            .sum();
        let wanted: f64 = claims.iter().map(|claim| claim.least).sum();
        let (shares, proportion) = if left <= least {
            let bare = limited
                .iter()
                .map(|room| f64::from(room.limits.lock().least));
            (bare.collect(), 0.0)
        } else if left <= wanted {
            let part = (left - least) / (wanted - least);
            let cut = limited.iter().zip(&claims).map(|(room, claim)| {
                let own = f64::from(room.limits.lock().least);
                own + (claim.least - own) * part
            });
            (cut.collect(), 0.0)
        } else {
            let all: u32 = plan
                .rooms
                .values()
                .map(|room| room.limits.lock().nominal)
                .sum();
            divide(f64::from(all), &claims)
        };
        *self.fair_proportion.lock() = proportion;
        for (room, share) in limited.iter().zip(shares) {
            let current = share.round() as u32;
            room.limits.lock().current = current;
            let mut state = room.state.lock();
            state.set.set_limit(current);
            room.settle(&mut state);
        }
    }
}

fn refused(way: Option<&Arc<Way>>, reason: &'static str) -> Refused {
    Refused {
        schema_uid: way.map(|way| way.schema.uid.clone()).unwrap_or_default(),
        level_uid: way.map(|way| way.level_uid.clone()).unwrap_or_default(),
        reason,
    }
}

#[cfg(test)]
mod tests;
