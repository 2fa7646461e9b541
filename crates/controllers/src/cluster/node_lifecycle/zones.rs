//! How fast nodes of a zone may be given up: when much of a zone fails at once, the fault is more
//! likely in between than in the nodes, and driving pods away would only make it worse.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use k8s_openapi::api::core::v1::Node;

use super::plan::{Readiness, readiness};

/// Between two nodes of a zone that begin to lose their pods.
const PACE: Duration = Duration::from_secs(10);
/// The same in a large zone of which much has failed.
const PACE_DISRUPTED: Duration = Duration::from_secs(100);
/// Zones with more nodes than this are large.
const LARGE: usize = 50;
/// A zone is disrupted when more than two nodes and this share of them are not ready.
const UNHEALTHY_PERCENT: usize = 55;

/// How eviction stands in a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// One node each time this has passed.
    Every(Duration),
    /// None for now.
    Held,
    /// No node of the whole cluster is ready: all taints that drive pods away are lifted.
    Lifted,
}

/// The zone of a node: region and zone by its labels.
pub(super) fn zone(node: &Node) -> String {
    let label = |key: &str| {
        let labels = node.metadata.labels.as_ref();
        labels
            .and_then(|labels| labels.get(key))
            .map_or("", String::as_str)
    };
    let region = label("topology.kubernetes.io/region");
    format!("{region}:{}", label("topology.kubernetes.io/zone"))
}

/// How eviction stands in `of`, given all nodes.
pub(super) fn stand<'a>(nodes: impl IntoIterator<Item = &'a Node>, of: &str) -> Stand {
    let (mut size, mut down, mut ready_anywhere) = (0, 0, false);
    for node in nodes {
        let ready = readiness(node) == Readiness::True;
        ready_anywhere |= ready;
        if zone(node) == of {
            size += 1;
            down += usize::from(!ready);
        }
    }
    if !ready_anywhere {
        return Stand::Lifted;
    }
    let all = down == size;
    match down > 2 && !all && down * 100 >= size * UNHEALTHY_PERCENT {
        false => Stand::Every(PACE),
        true if size > LARGE => Stand::Every(PACE_DISRUPTED),
        true => Stand::Held,
    }
}

/// Remembers when a node of each zone last began to lose its pods.
#[derive(Debug, Default)]
pub(super) struct Pacer(HashMap<String, Instant>);

impl Pacer {
    /// Takes a turn in a zone, or tells how long to wait for one.
    pub(super) fn take(
        &mut self,
        zone: &str,
        every: Duration,
        now: Instant,
    ) -> Result<(), Duration> {
        if let Some(last) = self.0.get(zone) {
            let wait = every.saturating_sub(now.duration_since(*last));
            if !wait.is_zero() {
                return Err(wait);
            }
        }
        self.0
            .retain(|_, last| now.duration_since(*last) < PACE_DISRUPTED);
        self.0.insert(zone.to_owned(), now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn nodes(zone: &str, ready: usize, down: usize) -> Vec<Node> {
        let node = |status: &str| {
            serde_json::from_value(json!({
                "metadata": {"labels": {"topology.kubernetes.io/zone": zone}},
                "status": {"conditions": [{"type": "Ready", "status": status}]}}))
            .unwrap()
        };
        let ready = (0..ready).map(|_| node("True"));
        ready.chain((0..down).map(|_| node("Unknown"))).collect()
    }

    #[test]
    fn a_zone_in_trouble_is_handled_with_care() {
        let stand_of = |ready, down| stand(&nodes("a", ready, down), ":a");
        assert_eq!(stand_of(2, 1), Stand::Every(PACE));
        assert_eq!(
            stand_of(1, 2),
            Stand::Every(PACE),
            "small clusters have no majority"
        );
        assert_eq!(stand_of(2, 3), Stand::Held);
        assert_eq!(stand_of(20, 40), Stand::Every(PACE_DISRUPTED));
        assert_eq!(stand_of(0, 1), Stand::Lifted);
        let both = [nodes("a", 0, 5), nodes("b", 5, 0)].concat();
        assert_eq!(
            stand(&both, ":a"),
            Stand::Every(PACE),
            "the zone is really gone"
        );
    }

    #[test]
    fn turns_are_paced() {
        let (mut pacer, now) = (Pacer::default(), Instant::now());
        assert_eq!(pacer.take("a", PACE, now), Ok(()));
        assert_eq!(pacer.take("a", PACE, now), Err(PACE));
        assert_eq!(pacer.take("b", PACE, now), Ok(()));
        assert_eq!(pacer.take("a", PACE, now + PACE), Ok(()));
    }
}
