//! Thresholds of eviction, as flags write them: `memory.available<100Mi`.

use std::time::Duration;

use meta::Quantity;

use super::Observation;

/// What is watched; in the order in which it is acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    Memory,
    /// Of what is left of memory beside what is reserved for others than pods.
    PodMemory,
    NodeDisk,
    NodeInodes,
    ImageDisk,
    ImageInodes,
    ProcessIds,
}

const SIGNALS: [(&str, Signal); 7] = [
    ("memory.available", Signal::Memory),
    ("allocatableMemory.available", Signal::PodMemory),
    ("nodefs.available", Signal::NodeDisk),
    ("nodefs.inodesFree", Signal::NodeInodes),
    ("imagefs.available", Signal::ImageDisk),
    ("imagefs.inodesFree", Signal::ImageInodes),
    ("pid.available", Signal::ProcessIds),
];

/// Signals that count with images, for what containers write lies on the same disk: what is said
/// of them is taken and changes nothing, as upstream does.
const FOLLOWERS: [&str; 2] = ["containerfs.available", "containerfs.inodesFree"];

impl Signal {
    /// The resource that messages name.
    pub(crate) fn resource(self) -> &'static str {
        match self {
            Signal::Memory | Signal::PodMemory => "memory",
            Signal::NodeDisk | Signal::ImageDisk => "ephemeral-storage",
            Signal::NodeInodes | Signal::ImageInodes => "inodes",
            Signal::ProcessIds => "pids",
        }
    }

    /// The condition of the node.
    pub(crate) fn condition(self) -> &'static str {
        match self {
            Signal::Memory | Signal::PodMemory => "MemoryPressure",
            Signal::ProcessIds => "PIDPressure",
            _ => "DiskPressure",
        }
    }

    /// Whether removing images may help.
    pub(crate) fn is_disk(self) -> bool {
        self.condition() == "DiskPressure"
    }
}

/// So much of something, or such a part of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    Quantity(i64),
    Percent(f64),
}

impl Amount {
    pub(crate) fn of(self, capacity: i64) -> i64 {
        match self {
            Amount::Quantity(amount) => amount,
            #[expect(clippy::cast_possible_truncation, reason = "a part of an i64")]
            #[expect(clippy::cast_precision_loss, reason = "a percentage is not exact")]
            Amount::Percent(percent) => (capacity as f64 * percent / 100.0) as i64,
        }
    }
}

/// Below this, pods have to go.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    pub amount: Amount,
    /// How long it may be crossed before something is done; zero is a hard threshold.
    pub grace: Duration,
    /// How much beyond the threshold is to be won back.
    pub reclaim: Option<Amount>,
}

/// A threshold that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    #[error("unsupported eviction signal {0}")]
    Signal(String),
    #[error("invalid eviction threshold {0:?}: it is written signal<quantity or signal<percent%")]
    Form(String),
}

impl Threshold {
    /// Reads hard thresholds, separated by commas.
    pub fn parse_all(text: &str) -> Result<Vec<Threshold>, ThresholdError> {
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .filter(|part| {
                let name = part.split_once('<').map_or("", |(name, _)| name);
                !FOLLOWERS.contains(&name)
            });
        parts.map(Threshold::parse).collect()
    }

    fn parse(text: &str) -> Result<Threshold, ThresholdError> {
        let form = || ThresholdError::Form(text.to_owned());
        let (name, amount) = text.split_once('<').ok_or_else(form)?;
        let signal = SIGNALS.iter().find(|(known, _)| *known == name);
        let (_, signal) = signal.ok_or_else(|| ThresholdError::Signal(name.to_owned()))?;
        let amount = match amount.strip_suffix('%') {
            Some(percent) => {
                let percent: f64 = percent.parse().map_err(|_| form())?;
                let sane = (0.0..=100.0).contains(&percent);
                Amount::Percent(Some(percent).filter(|_| sane).ok_or_else(form)?)
            }
            None => Amount::Quantity(Quantity::parse(amount).map_err(|_| form())?.value()),
        };
        Ok(Threshold {
            signal: *signal,
            amount,
            grace: Duration::ZERO,
            reclaim: None,
        })
    }

    /// Whether there is less than there should be.
    pub(crate) fn is_crossed(&self, seen: Observation, was_crossed: bool) -> bool {
        let extra = self.reclaim.filter(|_| was_crossed);
        let extra = extra.map_or(0, |extra| extra.of(seen.capacity));
        seen.available < self.amount.of(seen.capacity).saturating_add(extra)
    }
}

/// When pods have to go.
#[derive(Clone, Debug, PartialEq)]
pub struct EvictionConfig {
    pub thresholds: Vec<Threshold>,
    /// How long a condition of the node stays after it was last observed.
    pub transition_period: Duration,
    /// The most a pod gets to end by a soft threshold, in seconds.
    pub max_pod_grace_seconds: i64,
}

impl EvictionConfig {
    /// All thresholds: the pods together may come no closer to what is theirs than the node to
    /// running dry.
    pub(crate) fn all(&self) -> Vec<Threshold> {
        let mut all = self.thresholds.clone();
        let set = all.iter().any(|one| one.signal == Signal::PodMemory);
        let node = all
            .iter()
            .find(|one| one.signal == Signal::Memory && one.grace.is_zero());
        if let Some(node) = node.filter(|_| !set).cloned() {
            all.push(Threshold {
                signal: Signal::PodMemory,
                ..node
            });
        }
        all
    }
}

impl Default for EvictionConfig {
    /// Upstream's thresholds.
    fn default() -> EvictionConfig {
        let hard = |signal, amount| Threshold {
            signal,
            amount,
            grace: Duration::ZERO,
            reclaim: None,
        };
        EvictionConfig {
            thresholds: vec![
                hard(Signal::Memory, Amount::Quantity(100 << 20)),
                hard(Signal::NodeDisk, Amount::Percent(10.0)),
                hard(Signal::NodeInodes, Amount::Percent(5.0)),
                hard(Signal::ImageDisk, Amount::Percent(15.0)),
                hard(Signal::ImageInodes, Amount::Percent(5.0)),
            ],
            transition_period: Duration::from_secs(300),
            max_pod_grace_seconds: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_as_upstream_writes_them() {
        let read = Threshold::parse_all("memory.available<1Gi, nodefs.inodesFree<7.5%").unwrap();
        assert_eq!(read[0].amount, Amount::Quantity(1 << 30));
        assert_eq!(read[1].signal, Signal::NodeInodes);
        assert_eq!(read[1].amount.of(1_000), 75);
        for text in [
            "memory.available",
            "memory.available<x",
            "pid.available<101%",
        ] {
            let form = ThresholdError::Form(text.to_owned());
            assert_eq!(Threshold::parse_all(text), Err(form));
        }
        let with_containers = "containerfs.available<1%, allocatableMemory.available<5%";
        let read = Threshold::parse_all(with_containers).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].signal, Signal::PodMemory);
        let unknown = Threshold::parse_all("cpu.available<1").unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "unsupported eviction signal cpu.available"
        );
    }
}
