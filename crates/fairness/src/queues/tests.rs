//! Fairness with a clock of our own: nothing here waits, and every run is the same.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const MS: u64 = 1_000_000;

fn one() -> Width {
    Width {
        seats: 1,
        ..Width::default()
    }
}

fn set(limit: u32, queues: u32, hand: u32, length: u32) -> QueueSet {
    let queuing = Queuing {
        queues,
        hand_size: hand,
        queue_length_limit: length,
    };
    QueueSet::new(Some(limit), Some(queuing), 0)
}

/// Who sends, how many it keeps under way, and how long each takes.
struct Load {
    hash: u64,
    under_way: usize,
    width: Width,
    takes: u64,
}

#[derive(Default, Clone)]
struct Outcome {
    done: usize,
    refused: usize,
    waits: Vec<u64>,
}

/// Runs closed loops against the queues for a while.
fn simulate(set: &mut QueueSet, loads: &[Load], until: u64) -> Vec<Outcome> {
    let mut outcomes = vec![Outcome::default(); loads.len()];
    let mut owners: BTreeMap<Ticket, (usize, u64)> = BTreeMap::new();
    // When something happens: a request comes (no ticket) or is done.
    let mut agenda: BinaryHeap<Reverse<(u64, usize, Option<Ticket>)>> = BinaryHeap::new();
    for (who, load) in loads.iter().enumerate() {
        (0..load.under_way).for_each(|_| agenda.push(Reverse((0, who, None))));
    }
    while let Some(Reverse((now, who, ticket))) = agenda.pop() {
        if now > until {
            break;
        }
        let mut started = Vec::new();
        match ticket {
            Some(ticket) => {
                set.finish(now, ticket);
                outcomes[who].done += 1;
                agenda.push(Reverse((now, who, None)));
            }
            None => match set.arrive(now, loads[who].hash, loads[who].width) {
                (ticket, Arrival::Runs) => {
                    outcomes[who].waits.push(0);
                    agenda.push(Reverse((now + loads[who].takes, who, Some(ticket))));
                }
                (ticket, Arrival::Waits) => drop(owners.insert(ticket, (who, now))),
                (_, Arrival::Refused(_)) => {
                    outcomes[who].refused += 1;
                    agenda.push(Reverse((now + 10 * MS, who, None)));
                }
            },
        }
        set.dispatch(now, |ticket, _| started.push(ticket));
        for ticket in started {
            let (who, since) = owners[&ticket];
            outcomes[who].waits.push(now - since);
            agenda.push(Reverse((now + loads[who].takes, who, Some(ticket))));
        }
    }
    outcomes
}

fn load(hash: u64, under_way: usize) -> Load {
    Load {
        hash,
        under_way,
        width: one(),
        takes: 10 * MS,
    }
}

#[test]
fn a_flood_takes_what_is_left_and_no_more() {
    let mut set = set(10, 64, 6, 50);
    let loads = [load(1, 200), load(0x9e37_79b9_7f4a_7c15, 2)];
    let outcomes = simulate(&mut set, &loads, 10_000 * MS);
    let (flood, quiet) = (&outcomes[0], &outcomes[1]);
    // Two under way, 10 ms each, alone: 2000. The flood may at most double the time.
    assert!(quiet.done >= 1000, "{}", quiet.done);
    assert_eq!(quiet.refused, 0);
    let worst = quiet.waits.iter().max().unwrap();
    assert!(*worst <= 10 * MS, "{worst}");
    // And no seat is idle.
    assert!(
        flood.done + quiet.done > 9_900,
        "{} {}",
        flood.done,
        quiet.done
    );
}

#[test]
fn equals_get_equal_parts() {
    let mut set = set(4, 16, 4, 500);
    let loads = [load(1, 30), load(77_777, 60), load(123_456_789, 90)];
    let outcomes = simulate(&mut set, &loads, 10_000 * MS);
    let done: Vec<usize> = outcomes.iter().map(|own| own.done).collect();
    let (least, most) = (done.iter().min().unwrap(), done.iter().max().unwrap());
    assert!(done.iter().sum::<usize>() > 3_900, "{done:?}");
    // A flow with more under way fills more of its queues, but not more than four.
    assert!(most <= &(least * 4), "{done:?}");
}

#[test]
fn wide_requests_are_charged_and_do_not_starve() {
    let mut set = set(10, 64, 6, 50);
    let wide = Load {
        width: Width {
            seats: 10,
            ..Width::default()
        },
        ..load(1, 4)
    };
    let outcomes = simulate(&mut set, &[wide, load(0x9e37_79b9, 40)], 10_000 * MS);
    assert!(outcomes[0].done > 20, "{}", outcomes[0].done);
    // Ten seats each: with as much work served, the narrow ones are more.
    assert!(
        outcomes[1].done > outcomes[0].done * 3,
        "{} {}",
        outcomes[0].done,
        outcomes[1].done
    );
}

#[test]
fn queues_are_bounded_and_levels_without_queues_refuse() {
    let mut queued = set(1, 1, 1, 2);
    let arrive = |set: &mut QueueSet| set.arrive(0, 5, one()).1;
    assert_eq!(arrive(&mut queued), Arrival::Runs);
    assert_eq!(arrive(&mut queued), Arrival::Waits);
    assert_eq!(arrive(&mut queued), Arrival::Waits);
    assert_eq!(arrive(&mut queued), Arrival::Refused("queue-full"));
    let mut bare = QueueSet::new(Some(1), None, 0);
    assert_eq!(arrive(&mut bare), Arrival::Runs);
    assert_eq!(arrive(&mut bare), Arrival::Refused("concurrency-limit"));
    let mut exempt = QueueSet::new(None, None, 0);
    assert!((0..1000).all(|_| arrive(&mut exempt) == Arrival::Runs));
    // Zero seats let one at a time through.
    let mut none = set(0, 1, 1, 2);
    assert_eq!(arrive(&mut none), Arrival::Runs);
    assert_eq!(arrive(&mut none), Arrival::Waits);
}

#[test]
fn seats_are_held_for_what_a_write_sets_off() {
    let mut set = set(4, 4, 1, 10);
    let width = Width {
        seats: 1,
        after: 4,
        after_ns: 5 * MS,
    };
    let (first, _) = set.arrive(0, 1, width);
    let (second, arrival) = set.arrive(0, 2, one());
    assert_eq!(arrival, Arrival::Waits);
    set.finish(2 * MS, first);
    let mut started = Vec::new();
    set.dispatch(2 * MS, |ticket, _| started.push(ticket));
    assert_eq!((started.len(), set.next_release()), (0, Some(7 * MS)));
    set.dispatch(7 * MS, |ticket, waited| started.extend([ticket, waited]));
    assert_eq!(started, [second, 7 * MS]);
    assert_eq!(set.counts(), (1, 0, 1));
}

#[test]
fn who_gives_up_makes_room() {
    let mut set = set(1, 1, 1, 1);
    let (first, _) = set.arrive(0, 1, one());
    let (second, _) = set.arrive(0, 1, one());
    assert!(set.cancel(MS, second));
    assert!(!set.cancel(MS, second));
    assert_eq!(set.arrive(MS, 1, one()).1, Arrival::Waits);
    set.finish(2 * MS, first);
    let mut count = 0;
    set.dispatch(2 * MS, |_, _| count += 1);
    assert_eq!((count, set.counts()), (1, (1, 0, 1)));
    // Demand: two seats until 1 ms, two again until 2 ms, one since.
    let found = set.demand.look(4 * MS);
    assert_eq!(found.peak, 2);
    assert!((found.mean - 1.5).abs() < 0.01, "{found:?}");
}
