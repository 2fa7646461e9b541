//! Keeps the API's status of the pod as it is here: written when it changed,
//! one write at a time, and again when the API comes back.

use std::sync::Arc;
use std::time::Duration;

use base::Backoff;
use client::{Patch, WriteOptions};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus as ApiContainerStatus, Pod, PodStatus};
use meta::{Reason, Status};
use node_api::ContainerState;
use tokio::time::Instant;

use super::Worker;
use super::act::Done;
use crate::places;
use crate::plan::newest_container;
use crate::pod::PodExt;
use crate::pods::PodView;
use crate::status::{StatusInputs, differs, patch, pod_status};

/// How long a container that is started anew may be down before the API is told.
const QUIET: Duration = Duration::from_secs(1);

/// What was reported, and what is to be.
pub(super) struct Report {
    /// As the API has it, as far as we know.
    written: PodStatus,
    /// As it is.
    current: PodStatus,
    in_flight: Option<PodStatus>,
    retry_at: Option<Instant>,
    backoff: Backoff,
    /// The API's image of a static pod.
    mirror: Option<Arc<Pod>>,
    /// The object is gone or another's: nothing to write to.
    orphaned: bool,
}

impl Report {
    pub(super) fn new(pod: &Pod) -> Report {
        Report {
            written: pod.status().clone(),
            current: pod.status().clone(),
            in_flight: None,
            retry_at: None,
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(10)),
            mirror: None,
            orphaned: false,
        }
    }

    /// Takes over the conditions others wrote.
    pub(super) fn saw(&mut self, pod: &Pod) {
        let foreign = crate::status::foreign_conditions(pod.status());
        self.written.conditions =
            crate::status::with_foreign(self.written.conditions.take(), &foreign);
        self.current.conditions =
            crate::status::with_foreign(self.current.conditions.take(), &foreign);
    }

    pub(super) fn saw_mirror(&mut self, mirror: Option<Arc<Pod>>) {
        let uid = |pod: &Option<Arc<Pod>>| pod.as_ref().map(|pod| pod.uid().to_owned());
        if uid(&self.mirror) != uid(&mirror) {
            let status = mirror.as_ref().map(|pod| pod.status().clone());
            self.written = status.unwrap_or_default();
            self.orphaned = false;
        }
        self.mirror = mirror;
    }

    pub(super) fn start_time(&self) -> Option<Timestamp> {
        self.current.start_time.as_ref().map(|time| time.0)
    }

    pub(super) fn container(&self, name: &str) -> Option<&ApiContainerStatus> {
        let main = self.current.container_statuses.iter().flatten();
        let all = main.chain(self.current.init_container_statuses.iter().flatten());
        let mut all = all.chain(self.current.ephemeral_container_statuses.iter().flatten());
        all.find(|status| status.name == name)
    }

    /// Whether the API knows all there is to know.
    pub(super) fn is_settled(&self) -> bool {
        self.orphaned || (self.in_flight.is_none() && !differs(&self.written, &self.current))
    }
}

impl Worker {
    /// Works the status out and writes it if it changed.
    pub(super) fn report_status(&mut self, now: Instant, time: Timestamp) -> Option<Instant> {
        // Once the last containers are being removed there is nothing new to tell.
        if !self.last.unmounted {
            let features = self.shared.config.features;
            self.report.current = pod_status(&StatusInputs {
                pod: &self.pod,
                runtime: &self.shared.runtime.version().0,
                old: &self.report.current,
                sandboxes: &self.view.sandboxes,
                containers: &self.view.containers,
                health: &self.health,
                waiting: &self.waiting,
                messages: &self.messages,
                actuated: &self.resizing.actuated,
                whole: self.resizing.whole.as_ref(),
                resizes: &self.resizing.conditions(),
                ending: self.ending.as_ref(),
                host_ips: &self.shared.config.node_ips,
                ready_to_start: features.ready_to_start_condition,
                now: time,
            });
            if features.resource_health {
                places::show_devices(&self.shared.placement, &self.pod, &mut self.report.current);
            }
        }
        if let Some(at) = self.settles_at(now) {
            return Some(at);
        }
        self.write_status(now)
    }

    /// Until when the API is not told of containers that are about to be back: they are down
    /// because we start them anew, and who asks a moment later sees them run.
    fn settles_at(&mut self, now: Instant) -> Option<Instant> {
        if self.ending.is_some() || self.replacing.is_empty() {
            return None;
        }
        let running = |name: &String| {
            let newest = newest_container(&self.view.containers, name);
            newest.is_some_and(|status| status.state == ContainerState::Running)
        };
        let mut latest = None;
        for (name, since) in &mut self.replacing {
            if !running(name) {
                latest = latest.max(Some(*since.get_or_insert(now) + QUIET));
            }
        }
        latest.filter(|until| now < *until)
    }

    fn write_status(&mut self, now: Instant) -> Option<Instant> {
        let report = &mut self.report;
        if report.in_flight.is_some() || report.is_settled() || self.last.gone {
            return None;
        }
        if let Some(at) = report.retry_at.filter(|at| now < *at) {
            return Some(at);
        }
        let target = match self.pod.is_static() {
            true => report.mirror.clone()?,
            false => self.pod.clone(),
        };
        let body = patch(target.uid(), &report.written, &report.current);
        report.in_flight = Some(report.current.clone());
        let api = self.shared.client.beside(target.as_ref());
        self.ops.spawn(async move {
            let options = WriteOptions::default();
            let patch = Patch::Strategic(body);
            let answer = api.patch_status(target.name(), &patch, &options).await;
            Done::Patched(Box::new(answer))
        });
        None
    }

    /// Takes note of the API's answer.
    pub(super) fn patched(&mut self, answer: Result<Pod, Status>) {
        let report = &mut self.report;
        let Some(sent) = report.in_flight.take() else {
            return;
        };
        match answer {
            Ok(_) => {
                report.written = sent;
                report.retry_at = None;
                report.backoff.reset();
            }
            // Another pod of the same name, or none: the watch will say so.
            Err(status) if status.is_not_found() || status.is_conflict() => {
                report.orphaned = true;
            }
            // Asking again would not change the answer, and must not hold up the pod's end.
            Err(status) if matches!(status.reason, Reason::Invalid | Reason::BadRequest) => {
                tracing::warn!(error = %status, pod = self.pod.display(), "status refused");
                report.written = sent;
            }
            Err(status) => {
                tracing::debug!(error = %status, pod = self.pod.display(), "status not written");
                let delay = report.backoff.next_delay();
                report.retry_at = Some(Instant::now() + delay);
            }
        }
    }

    /// Shows the server what there is.
    pub(super) fn show(&mut self) {
        let current = &self.report.current;
        let is_told = self.report.is_settled();
        let same = {
            let shown = self.shown.borrow();
            shown.is_told == is_told && shown.status == *current
        };
        if !std::mem::take(&mut self.view.changed) && same {
            return;
        }
        self.shown.send_replace(PodView {
            pod: self.pod.clone(),
            status: current.clone(),
            sandboxes: self.view.sandboxes.clone(),
            containers: self.view.containers.clone(),
            is_told,
        });
    }
}
