//! Probes of one container: a task per probe with timers of its own, which
//! tells the pod's worker only when the answer changes.

mod attempt;
mod counted;
mod grpc;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use node_api::RuntimeService;
use tokio::task::AbortHandle;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::events::{Kind, Recorder};
use crate::inbox::Inbox;

pub(crate) use attempt::Attempt;
pub(crate) use counted::page;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

/// What a probe has found, past its thresholds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) success: bool,
    /// `terminationGracePeriodSeconds` of the probe.
    pub(crate) grace_seconds: Option<i64>,
}

impl ProbeKind {
    fn word(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Readiness => "Readiness",
            ProbeKind::Liveness => "Liveness",
        }
    }

    /// The probe of this kind that a container has.
    pub(crate) fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            ProbeKind::Startup => container.startup_probe.as_ref(),
            ProbeKind::Readiness => container.readiness_probe.as_ref(),
            ProbeKind::Liveness => container.liveness_probe.as_ref(),
        }
    }
}

/// What the probes of one pod need.
#[derive(Clone)]
pub(crate) struct ProbeContext {
    pub(crate) pod: Arc<Pod>,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) runtime: Arc<dyn RuntimeService>,
    pub(crate) recorder: Recorder,
    pub(crate) inbox: Arc<Inbox>,
}

/// The running probes of one pod.
#[derive(Default)]
pub(crate) struct Probes {
    tasks: JoinSet<()>,
    running: HashMap<(String, ProbeKind), AbortHandle>,
    counted: counted::Series,
}

impl Probes {
    /// Starts a probe of a container, which runs since then, unless it is probed already.
    pub(crate) fn start(
        &mut self,
        kind: ProbeKind,
        container: &Container,
        (container_id, since): (&str, Instant),
        context: &ProbeContext,
    ) {
        let slot = (container_id.to_owned(), kind);
        let Some(probe) = kind
            .of(container)
            .filter(|_| !self.running.contains_key(&slot))
        else {
            return;
        };
        while self.tasks.try_join_next().is_some() {}
        self.counted.of(&context.pod);
        let task = Prober {
            kind,
            probe: probe.clone(),
            container: container.clone(),
            container_id: container_id.to_owned(),
            since,
            context: context.clone(),
        };
        self.running.insert(slot, self.tasks.spawn(task.run()));
    }

    /// Ends the probes of a container.
    pub(crate) fn stop(&mut self, container_id: &str) {
        self.running.retain(|(id, _), task| {
            let other = id != container_id;
            if !other {
                task.abort();
            }
            other
        });
    }

    /// Ends one probe.
    pub(crate) fn stop_kind(&mut self, container_id: &str, kind: ProbeKind) {
        if let Some(task) = self.running.remove(&(container_id.to_owned(), kind)) {
            task.abort();
        }
    }
}

struct Prober {
    kind: ProbeKind,
    probe: Probe,
    container: Container,
    container_id: String,
    since: Instant,
    context: ProbeContext,
}

/// Counts answers towards the thresholds.
struct Counter {
    success_threshold: u32,
    failure_threshold: u32,
    last: Option<bool>,
    run: u32,
    told: Option<bool>,
}

impl Counter {
    /// Counts one answer; returns the finding when it is settled and new.
    fn count(&mut self, success: bool) -> Option<bool> {
        self.run = match self.last == Some(success) {
            true => self.run.saturating_add(1),
            false => 1,
        };
        self.last = Some(success);
        let threshold = match success {
            true => self.success_threshold,
            false => self.failure_threshold,
        };
        let settled = self.run >= threshold && self.told != Some(success);
        settled.then(|| {
            self.told = Some(success);
            success
        })
    }
}

impl Prober {
    async fn run(self) {
        let seconds = |value: Option<i32>, default: i32| {
            Duration::from_secs(u64::try_from(value.unwrap_or(default).max(0)).unwrap_or(0))
        };
        let period = seconds(self.probe.period_seconds.filter(|s| *s > 0), 10);
        let timeout = seconds(self.probe.timeout_seconds.filter(|s| *s > 0), 1);
        let threshold = |value: Option<i32>, default: u32| {
            value
                .and_then(|v| u32::try_from(v).ok())
                .filter(|v| *v > 0)
                .unwrap_or(default)
        };
        let mut counter = Counter {
            success_threshold: threshold(self.probe.success_threshold, 1),
            failure_threshold: threshold(self.probe.failure_threshold, 3),
            last: None,
            run: 0,
            told: None,
        };
        // Of the container's life, not of the probe's: a startup probe, or a kubelet before this
        // one, may have had it.
        let delay = seconds(self.probe.initial_delay_seconds, 0);
        tokio::time::sleep_until(self.since + delay).await;
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let begun = tokio::time::Instant::now();
            let attempt = self.attempt(timeout).await;
            counted::note(&self, &attempt, begun.elapsed());
            self.report(&attempt);
            if let Some(success) = counter.count(attempt.is_success()) {
                self.tell(success);
                // A startup that is over, and a container about to be killed, are not asked again.
                let over = match self.kind {
                    ProbeKind::Startup => true,
                    ProbeKind::Liveness => !success,
                    ProbeKind::Readiness => false,
                };
                if over {
                    return;
                }
            }
        }
    }

    async fn attempt(&self, timeout: Duration) -> Attempt {
        let runtime = &self.context.runtime;
        attempt::attempt(
            &self.probe,
            &self.container,
            (runtime, &self.container_id),
            self.context.ip,
            timeout,
        )
        .await
    }

    fn report(&self, attempt: &Attempt) {
        let (reason, what, output) = match attempt {
            Attempt::Success => return,
            Attempt::Warning(output) => ("ProbeWarning", "warning", output),
            Attempt::Failure(output) => ("Unhealthy", "failed", output),
        };
        let message = format!("{} probe {what}: {output}", self.kind.word());
        let name = Some(self.container.name.as_str());
        let recorder = &self.context.recorder;
        recorder.pod(&self.context.pod, name, Kind::Warning, reason, message);
    }

    fn tell(&self, success: bool) {
        let finding = Finding {
            success,
            grace_seconds: self.probe.termination_grace_period_seconds,
        };
        let slot = (self.container_id.clone(), self.kind);
        self.context.inbox.tell(|news| {
            news.findings.insert(slot, finding);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_settle_a_finding_once() {
        let mut counter = Counter {
            success_threshold: 2,
            failure_threshold: 3,
            last: None,
            run: 0,
            told: None,
        };
        let answers = [
            true, true, true, false, false, true, false, false, false, false, true, true,
        ];
        let told: Vec<_> = answers
            .iter()
            .map(|answer| counter.count(*answer))
            .collect();
        let mut expected = vec![None; 12];
        expected[1] = Some(true);
        expected[8] = Some(false);
        expected[11] = Some(true);
        assert_eq!(told, expected);
    }
}
