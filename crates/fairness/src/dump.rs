//! The pages under `/debug/api_priority_and_fairness/`.

use std::fmt::Write;

use crate::gate::Fairness;

impl Fairness {
    /// `dump_priority_levels`.
    pub fn dump_priority_levels(&self) -> String {
        let mut text = String::from(
            "PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, \
             ExecutingRequests, DispatchedRequests, RejectedRequests, TimedoutRequests, \
             CancelledRequests\n",
        );
        let plan = self.plan();
        for (name, room) in &plan.rooms {
            let own = plan.ways.iter().filter(|way| way.room.name == *name);
            let (mut done, mut refused, mut late) = (0, 0, 0);
            for (a, b, c) in own.map(|way| way.flow.totals()) {
                (done, refused, late) = (done + a, refused + b, late + c);
            }
            let state = room.state();
            let (serving, waiting, _) = state.set.counts();
            let queues = &state.set.queues;
            let active = queues
                .iter()
                .filter(|queue| !queue.waiting.is_empty())
                .count();
            let idle = serving + waiting == 0;
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{name}, {active}, {idle}, false, {waiting}, {serving}, {done}, {refused}, {late}, 0"
            );
        }
        text
    }

    /// `dump_queues`.
    pub fn dump_queues(&self) -> String {
        let mut text = String::from(
            "PriorityLevelName, Index, PendingRequests, ExecutingRequests, SeatsInUse, \
             NextDispatchR, InitialSeatsSum, MaxSeatsSum, TotalWorkSum\n",
        );
        for (name, room) in &self.plan().rooms {
            let state = room.state();
            for (at, queue) in state.set.queues.iter().enumerate() {
                let seats: u32 = queue.waiting.iter().map(|own| own.width.seats).sum();
                let most: u32 = queue
                    .waiting
                    .iter()
                    .map(|own| own.width.seats.max(own.width.after))
                    .sum();
                let start = queue.next_start.max(state.set.progress());
                let _ = writeln!(
                    text,
                    "{name}, {at}, {}, {}, {}, {start:.8}ss, {seats}, {most}, {:.8}ss",
                    queue.waiting.len(),
                    queue.serving,
                    queue.seats,
                    f64::from(seats) * 0.003,
                );
            }
        }
        text
    }

    /// `dump_requests`: those that wait.
    pub fn dump_requests(&self) -> String {
        let mut text = String::from(
            "PriorityLevelName, FlowSchemaName, QueueIndex, RequestIndexInQueue, \
             FlowDistingsher, ArriveTime, InitialSeats, FinalSeats, AdditionalLatency\n",
        );
        for (name, room) in &self.plan().rooms {
            let state = room.state();
            for (at, queue) in state.set.queues.iter().enumerate() {
                for (index, own) in queue.waiting.iter().enumerate() {
                    let Some(waiter) = state.waiters.get(&own.ticket) else {
                        continue;
                    };
                    let _ = writeln!(
                        text,
                        "{name}, {}, {at}, {index}, {}, +{}ms, {}, {}, {}ms",
                        waiter.schema,
                        waiter.distinguisher,
                        own.since / 1_000_000,
                        own.width.seats,
                        own.width.after,
                        own.width.after_ns / 1_000_000,
                    );
                }
            }
        }
        text
    }
}
