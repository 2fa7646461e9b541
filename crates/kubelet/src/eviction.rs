//! When a node runs out of memory, disk or process ids: which thresholds are
//! crossed, what the node says of itself, and which pod has to go. Pure.

mod rank;
mod threshold;
mod watch;

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

pub(crate) use rank::{Candidate, Usage, message, rank};
pub use threshold::{Amount, EvictionConfig, Signal, Threshold, ThresholdError};
pub(crate) use watch::{keep_well, measure};

/// How much there is of something, and how much of it is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observation {
    pub(crate) capacity: i64,
    pub(crate) available: i64,
}

/// What was looked at.
pub(crate) type Observations = BTreeMap<Signal, Observation>;

/// What has been crossed, and since when.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    since: Vec<(Threshold, Instant)>,
    /// When a condition was last observed.
    observed: BTreeMap<&'static str, Instant>,
}

impl Pressure {
    /// Takes in what was looked at. Returns the thresholds that were crossed long enough, memory
    /// first.
    pub(crate) fn note(
        &mut self,
        config: &EvictionConfig,
        seen: &Observations,
        now: Instant,
    ) -> Vec<Threshold> {
        let crossed = |threshold: &&Threshold| {
            // Once crossed, it is over only when there is as much as is to be won back.
            let known = self.since.iter().any(|(known, _)| known == *threshold);
            seen.get(&threshold.signal)
                .is_some_and(|one| threshold.is_crossed(*one, known))
        };
        let crossed: Vec<Threshold> = config.all().iter().filter(crossed).cloned().collect();
        self.since.retain(|(known, _)| crossed.contains(known));
        for threshold in crossed {
            self.observed.insert(threshold.signal.condition(), now);
            if !self.since.iter().any(|(known, _)| *known == threshold) {
                self.since.push((threshold, now));
            }
        }
        let transition = config.transition_period;
        self.observed
            .retain(|_, at| now.duration_since(*at) < transition || *at == now);
        let due = self
            .since
            .iter()
            .filter(|(threshold, since)| now.duration_since(*since) >= threshold.grace);
        let mut due: Vec<Threshold> = due.map(|(threshold, _)| threshold.clone()).collect();
        due.sort_by_key(|threshold| (threshold.signal, threshold.grace));
        due
    }

    /// The conditions of the node that hold.
    pub(crate) fn conditions(&self) -> BTreeSet<&'static str> {
        self.observed.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn seen(available: i64) -> Observations {
        let one = Observation {
            capacity: 1_000,
            available,
        };
        Observations::from([(Signal::Memory, one)])
    }

    #[test]
    fn pressure_comes_and_goes_in_its_time() {
        let mut hard = Threshold::parse_all("memory.available<10%").unwrap();
        hard[0].reclaim = Some(Amount::Quantity(50));
        let mut soft = Threshold::parse_all("memory.available<200").unwrap();
        soft[0].grace = Duration::from_secs(30);
        let config = EvictionConfig {
            thresholds: hard.iter().chain(&soft).cloned().collect(),
            transition_period: Duration::from_secs(60),
            ..EvictionConfig::default()
        };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pressure = Pressure::default();
        assert!(pressure.note(&config, &seen(200), at(0)).is_empty());
        assert!(pressure.conditions().is_empty());
        // Soft: the node says so at once, and acts later.
        assert!(pressure.note(&config, &seen(150), at(10)).is_empty());
        assert!(pressure.conditions().contains("MemoryPressure"));
        assert_eq!(pressure.note(&config, &seen(150), at(40)), soft);
        assert_eq!(
            pressure.note(&config, &seen(99), at(41)),
            [hard[0].clone(), soft[0].clone()]
        );
        // Hard is over only at 150.
        assert_eq!(pressure.note(&config, &seen(120), at(42)).len(), 2);
        assert_eq!(pressure.note(&config, &seen(150), at(43)), soft);
        assert!(pressure.note(&config, &seen(300), at(44)).is_empty());
        assert!(pressure.conditions().contains("MemoryPressure"));
        pressure.note(&config, &seen(300), at(110));
        assert!(pressure.conditions().is_empty());
    }
}
