//! The machine goes down: pods end in the order of their priorities, each group in its time, and no
//! new ones are taken.

use std::sync::Arc;
use std::time::Duration;

use base::Stop;
use k8s_openapi::api::core::v1::Pod;
use node_api::ContainerState;

use crate::events::{Kind, node_reference};
use crate::pod::{CRITICAL_PRIORITY, PodExt};
use crate::pods::PodView;
use crate::shared::Shared;

/// Reason of pods that ended because the machine did.
pub(crate) const TERMINATED: &str = "Terminated";
/// Their message.
pub(crate) const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";
/// Reason and message of pods that come too late.
pub(crate) const REJECTED: (&str, &str) = (
    "NodeShutdown",
    "Pod was rejected as the node is shutting down.",
);

/// How pods end when the machine goes down.
#[derive(Clone, Debug, Default)]
pub struct ShutdownConfig {
    /// `shutdownGracePeriodByPodPriority`; empty: nothing happens.
    pub periods: Vec<ShutdownPeriod>,
    /// Raised by whoever knows that the machine goes down.
    pub begun: Stop,
    /// Raised when the pods have ended, or have had their time.
    pub ended: Stop,
}

/// The time of pods from a priority on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownPeriod {
    pub priority: i32,
    pub seconds: i64,
}

impl ShutdownConfig {
    /// `shutdownGracePeriod` and `shutdownGracePeriodCriticalPods` as periods by priority; none
    /// where the whole is zero or less than its part.
    pub fn periods_of(whole: Duration, critical: Duration) -> Vec<ShutdownPeriod> {
        let Some(usual) = whole.checked_sub(critical).filter(|_| !whole.is_zero()) else {
            return Vec::new();
        };
        let period = |priority, time: Duration| ShutdownPeriod {
            priority,
            seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        };
        vec![period(0, usual), period(CRITICAL_PRIORITY, critical)]
    }

    /// All periods, one after the other.
    pub fn whole(&self) -> Duration {
        let seconds = self
            .periods
            .iter()
            .map(|period| period.seconds.unsigned_abs());
        Duration::from_secs(seconds.sum())
    }
}

/// Waits for the end, and has the pods go; ends when that is done.
pub(crate) async fn go_down(shared: Arc<Shared>) {
    let config = &shared.config.shutdown;
    if config.periods.is_empty() {
        return;
    }
    config.begun.raised().await;
    let about = node_reference(&shared.config.node_name);
    let told = "Shutdown manager detected shutdown event".to_owned();
    shared
        .recorder
        .tell(about, Kind::Normal, "NodeShutdown", told);
    let pods = shared.pods.all();
    for (period, group) in groups(&config.periods, pods) {
        end_group(&shared, period, &group).await;
    }
    config.ended.raise();
}

/// Pods by the periods they have, least priority first. A pod below all priorities goes with the
/// first.
fn groups(periods: &[ShutdownPeriod], pods: Vec<PodView>) -> Vec<(ShutdownPeriod, Vec<PodView>)> {
    let mut periods = periods.to_vec();
    periods.sort_by_key(|period| period.priority);
    let mut groups: Vec<_> = periods
        .into_iter()
        .map(|period| (period, Vec::new()))
        .collect();
    for view in pods {
        let priority = view.pod.spec().priority.unwrap_or(0);
        let after = groups.partition_point(|(period, _)| period.priority <= priority);
        if let Some((_, group)) = groups.get_mut(after.saturating_sub(1)) {
            group.push(view);
        }
    }
    groups
}

async fn end_group(shared: &Arc<Shared>, period: ShutdownPeriod, group: &[PodView]) {
    for view in group {
        let grace_seconds = grace(&view.pod, period.seconds);
        tracing::info!(
            pod = view.pod.display(),
            grace_seconds,
            "ends with the machine"
        );
        shared
            .pods
            .tell(view.pod.uid(), |news| news.shutdown = Some(grace_seconds));
    }
    let all = async {
        for view in group {
            if let Some(mut shown) = shared.pods.follow(view.pod.uid()) {
                // An error says that the pod is gone altogether.
                drop(shown.wait_for(has_ended).await);
            }
        }
    };
    let most = Duration::from_secs(period.seconds.unsigned_abs());
    if tokio::time::timeout(most, all).await.is_err() {
        tracing::warn!(
            priority = period.priority,
            "pods did not end in the time they had"
        );
    }
}

fn grace(pod: &Pod, most: i64) -> i64 {
    let own = pod.spec().termination_grace_period_seconds;
    own.map_or(most, |own| own.min(most))
}

/// Nothing runs, and the API knows.
fn has_ended(view: &PodView) -> bool {
    let mut containers = view.containers.values();
    let still = containers.all(|status| status.state == ContainerState::Exited);
    let over = matches!(view.status.phase.as_deref(), Some("Succeeded" | "Failed"));
    still && over && view.is_told
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn view(name: &str, priority: Option<i32>) -> PodView {
        let pod =
            json!({"metadata": {"name": name}, "spec": {"containers": [], "priority": priority}});
        PodView {
            pod: Arc::new(serde_json::from_value(pod).unwrap()),
            ..PodView::default()
        }
    }

    #[test]
    fn pods_are_grouped_by_the_priority_below_theirs() {
        let period = |priority, seconds| ShutdownPeriod { priority, seconds };
        let periods = [period(1_000, 30), period(0, 10), period(2_000_000_000, 5)];
        let pods = vec![
            view("none", None),
            view("low", Some(-5)),
            view("middle", Some(1_500)),
            view("exact", Some(1_000)),
            view("system", Some(2_000_001_000)),
        ];
        let shown: Vec<_> = groups(&periods, pods)
            .into_iter()
            .map(|(period, pods)| {
                let names = pods.iter().map(|view| view.pod.name().to_owned());
                (period.seconds, names.collect::<Vec<_>>())
            })
            .collect();
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(
            shown,
            [
                (10, names(&["none", "low"])),
                (30, names(&["middle", "exact"])),
                (5, names(&["system"]))
            ]
        );
    }

    #[test]
    fn the_part_of_critical_pods_is_the_last_of_the_whole() {
        let second = Duration::from_secs;
        let periods = ShutdownConfig::periods_of(second(30), second(10));
        let shown: Vec<_> = periods.iter().map(|p| (p.priority, p.seconds)).collect();
        assert_eq!(shown, [(0, 20), (2_000_000_000, 10)]);
        assert!(ShutdownConfig::periods_of(second(0), second(0)).is_empty());
        assert!(ShutdownConfig::periods_of(second(5), second(10)).is_empty());
    }
}
