//! The worker of one pod: wakes on news, looks at what the runtime has, plans,
//! acts, and reports. Everything that takes time runs beside it.

mod act;
mod finish;
mod report;
mod resize;
mod view;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base::{Backoff, Stop};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use tokio::task::JoinSet;
use tokio::time::Instant;
use volumes::Mounted;

use crate::backoff::CrashBackoff;
use crate::cpu_pool;
use crate::events::Kind;
use crate::inbox::{Eviction, Inbox, News};
use crate::plan::{Busy, Ending, Health, Plan, Scene, outcome, plan, seconds};
use crate::pod::{PodExt, instant};
use crate::pods::PodView;
use crate::probe::{ProbeKind, Probes};
use crate::shared::Shared;
use crate::shutdown::{self, TERMINATED};
use crate::status::Waiting;
use act::Done;
use report::Report;
use resize::Resizing;
use view::View;

/// What a worker starts from.
pub(crate) struct WorkerParts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) inbox: Arc<Inbox>,
    /// Where the server looks.
    pub(crate) shown: Arc<tokio::sync::watch::Sender<PodView>>,
    pub(crate) stop: Stop,
}

pub(crate) struct Worker {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    inbox: Arc<Inbox>,
    shown: Arc<tokio::sync::watch::Sender<PodView>>,
    stop: Stop,
    view: View,
    busy: Busy,
    health: HashMap<String, Health>,
    probes: Probes,
    backoffs: HashMap<String, CrashBackoff>,
    not_before: HashMap<String, Instant>,
    waiting: HashMap<String, Waiting>,
    messages: HashMap<String, String>,
    ending: Option<Ending>,
    mounted: Option<Mounted>,
    volumes_stale: bool,
    hold: Backoff,
    hold_until: Option<Instant>,
    /// Stops starts in flight when the pod is to end.
    cancel: Stop,
    /// Start jobs so far.
    jobs: u64,
    ops: JoinSet<Done>,
    report: Report,
    resizing: Resizing,
    /// Containers (by name) that we end to start them anew, and since when they are down.
    replacing: HashMap<String, Option<Instant>>,
    /// Ended containers (by id) that are not to stay.
    surplus: HashSet<String>,
    last: Last,
}

/// How far the end of the pod has come.
#[derive(Debug, Default)]
struct Last {
    gone: bool,
    unmounting: bool,
    unmounted: bool,
    deleting: bool,
    retry_at: Option<Instant>,
    cleaning: bool,
    cleaned: bool,
    /// What the node granted is others' again.
    released: bool,
}

impl Worker {
    pub(crate) fn new(parts: WorkerParts) -> Worker {
        use std::time::Duration;
        Worker {
            report: Report::new(&parts.pod),
            shared: parts.shared,
            pod: parts.pod,
            inbox: parts.inbox,
            shown: parts.shown,
            stop: parts.stop,
            view: View::default(),
            busy: Busy::default(),
            health: HashMap::new(),
            probes: Probes::default(),
            backoffs: HashMap::new(),
            not_before: HashMap::new(),
            waiting: HashMap::new(),
            messages: HashMap::new(),
            ending: None,
            mounted: None,
            volumes_stale: false,
            hold: Backoff::new(Duration::from_millis(500), Duration::from_secs(122)),
            hold_until: None,
            cancel: Stop::new(),
            jobs: 0,
            ops: JoinSet::new(),
            resizing: Resizing::default(),
            replacing: HashMap::new(),
            surplus: HashSet::new(),
            last: Last::default(),
        }
    }

    /// Works until nothing of the pod is left, or the process stops.
    pub(crate) async fn run(mut self) {
        self.adopt().await;
        while !self.last.cleaned {
            let news = self.inbox.take();
            self.absorb(news).await;
            let wake = self.step();
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.inbox.arrived() => {}
                Some(done) = self.ops.join_next() => self.finish(done).await,
                () = sleep => {}
                () = self.stop.raised() => return,
            }
        }
        self.shared.sources.release(self.pod.uid());
        self.shared.user_namespaces.release(self.pod.uid());
    }

    /// Takes over what the runtime has of this pod already.
    async fn adopt(&mut self) {
        self.follow_sources();
        self.look_at_all().await;
        for status in self.view.containers.values() {
            cpu_pool::pin(&self.shared, self.pod.uid(), status).await;
        }
        if self.pod.is_terminal() {
            self.end(0, None, None);
        } else if let Some((reason, message)) = self.admit().await {
            let recorder = &self.shared.recorder;
            recorder.pod(&self.pod, None, Kind::Warning, &reason, message.clone());
            let message = format!("Pod was rejected: {message}");
            self.end(0, Some((reason, message)), None);
        }
        self.check_deletion();
    }

    fn follow_sources(&self) {
        let wanted = volumes::references_of(&self.pod);
        let (uid, namespace) = (self.pod.uid(), self.pod.namespace());
        self.shared.sources.acquire(uid, namespace, wanted);
    }

    async fn absorb(&mut self, news: News) {
        if let Some(pod) = news.pod {
            self.take_pod(pod);
            self.report.saw(&self.pod);
            self.follow_sources();
            self.volumes_stale = true;
            self.check_deletion();
            self.start_probes();
        }
        if let Some(mirror) = news.mirror {
            self.report.saw_mirror(mirror);
        }
        if news.gone && !self.last.gone {
            self.last.gone = true;
            let grace = self.pod.grace_seconds();
            self.end(grace, None, None);
        }
        if let Some(eviction) = news.evicted {
            self.evict(eviction);
        }
        if let Some(grace_seconds) = news.shutdown {
            let verdict = (TERMINATED.to_owned(), shutdown::MESSAGE.to_owned());
            self.end(grace_seconds, Some(verdict), None);
        }
        if news.room {
            self.wish_again();
        }
        if news.sources {
            // What could not be started for want of a ConfigMap or Secret may be possible now.
            self.volumes_stale = true;
            self.hold_until = None;
            self.not_before.retain(|name, _| {
                let reason = self.waiting.get(name).map(|(reason, _)| reason.as_str());
                reason != Some("CreateContainerConfigError")
            });
        }
        self.surplus.extend(news.surplus);
        for outcome in news.outcomes {
            self.note_outcome(outcome);
        }
        for ((id, kind), finding) in news.findings {
            self.note_finding(&id, kind, finding);
        }
        match news.resync {
            true => self.look_at_all().await,
            false => self.look_at(news.dirty).await,
        }
        let there = &self.view.containers;
        self.surplus.retain(|id| there.contains_key(id));
    }

    /// Notes a deletion asked for by the API.
    fn check_deletion(&mut self) {
        let Some(since) = self.pod.metadata.deletion_timestamp.as_ref() else {
            return;
        };
        let grace = self.pod.metadata.deletion_grace_period_seconds;
        let grace = grace.unwrap_or_else(|| self.pod.grace_seconds());
        // The API's time is that of the deadline, by its clock; we count from when we heard.
        let _ = since;
        self.end(grace, None, None);
    }

    /// Begins the end of the pod, or brings it nearer.
    fn end(
        &mut self,
        grace_seconds: i64,
        verdict: Option<(String, String)>,
        message: Option<String>,
    ) {
        let deadline = Instant::now() + seconds(grace_seconds.max(1));
        match &mut self.ending {
            Some(ending) => ending.deadline = ending.deadline.min(deadline),
            None => {
                self.cancel.raise();
                self.ending = Some(Ending {
                    deadline,
                    verdict,
                    message,
                });
            }
        }
    }

    /// Plans and acts. Returns when to look again at the latest.
    fn step(&mut self) -> Option<Instant> {
        let (now, time) = (Instant::now(), self.shared.config.clock.now());
        let mut wakes = vec![self.check_active_deadline(time)];
        if self.ending.is_none() && outcome(&self.pod, &self.view.containers).is_some() {
            let grace = self.pod.grace_seconds();
            self.end(grace, None, None);
        }
        let plan = self.plan(now);
        wakes.push(plan.wake_at);
        self.note_backing_off(&plan);
        self.act(plan.actions);
        if self.ending.is_none() {
            wakes.push(self.refresh_volumes(now, time));
        }
        wakes.push(self.actuate(now));
        wakes.push(self.report_status(now, time));
        if plan.ended {
            self.release();
            wakes.push(self.finish_pod(now));
        }
        self.show();
        wakes.into_iter().flatten().min()
    }

    fn plan(&self, now: Instant) -> Plan {
        plan(&Scene {
            pod: &self.pod,
            sandboxes: &self.view.sandboxes,
            containers: &self.view.containers,
            ending: self.ending.as_ref(),
            volumes_ready: self.mounted.is_some(),
            busy: &self.busy,
            health: &self.health,
            backoffs: &self.backoffs,
            actuated: &self.resizing.actuated,
            not_before: &self.not_before,
            hold_until: self.hold_until,
            ended: &self.view.ended,
            dead: self.shared.config.dead_containers,
            surplus: &self.surplus,
            now,
        })
    }

    /// The deadline is a time of day, as upstream has it.
    fn check_active_deadline(&mut self, time: Timestamp) -> Option<Instant> {
        let seconds = self.pod.spec().active_deadline_seconds?;
        let started = self.report.start_time()?;
        let deadline = started + SignedDuration::from_secs(seconds);
        if self.ending.is_some() {
            return None;
        }
        if time < deadline {
            return Some(self.shared.config.clock.look_for(deadline));
        }
        let message = "Pod was active on the node longer than the specified deadline";
        let recorder = &self.shared.recorder;
        recorder.pod(&self.pod, None, Kind::Normal, "DeadlineExceeded", message);
        let grace = self.pod.grace_seconds();
        self.end(
            grace,
            Some(("DeadlineExceeded".into(), message.into())),
            None,
        );
        None
    }

    /// Ends the pod for the node's sake.
    fn evict(&mut self, eviction: Eviction) {
        if self.ending.is_some() {
            return;
        }
        let (reason, message) = (eviction.reason, eviction.message);
        let recorder = &self.shared.recorder;
        recorder.pod(&self.pod, None, Kind::Warning, reason, message.clone());
        let grace = eviction.grace_seconds;
        let grace = grace.unwrap_or_else(|| self.pod.grace_seconds());
        self.end(grace, Some((reason.to_owned(), message)), None);
    }

    fn note_backing_off(&mut self, plan: &Plan) {
        for (name, delay) in &plan.backing_off {
            let display = self.pod.display();
            let delay = delay.as_secs();
            let shown = match delay % 60 {
                _ if delay < 60 => format!("{delay}s"),
                rest => format!("{}m{rest}s", delay / 60),
            };
            let message =
                format!("back-off {shown} restarting failed container={name} pod={display}");
            let waiting = ("CrashLoopBackOff".to_owned(), message);
            if self.waiting.get(name) != Some(&waiting) {
                let told = format!("Back-off restarting failed container {name} in pod {display}");
                let recorder = &self.shared.recorder;
                recorder.pod(&self.pod, Some(name), Kind::Warning, "BackOff", told);
                self.waiting.insert(name.clone(), waiting);
            }
        }
    }

    /// Starts the probes that running containers should have.
    fn start_probes(&mut self) {
        if self.ending.is_some() {
            return;
        }
        let context = self.probe_context();
        for (role, container) in self.pod.all_containers() {
            let Some(status) = self.view.newest(&container.name) else {
                continue;
            };
            let running = status.state == node_api::ContainerState::Running;
            if !running || role == crate::pod::Role::Init {
                continue;
            }
            let id = status.id.clone();
            let clock = &self.shared.config.clock;
            let since = clock.happened(instant(status.started_at));
            let started = self.health.get(&id).is_some_and(|health| health.started);
            let kinds: &[ProbeKind] = match started {
                true => &[ProbeKind::Readiness, ProbeKind::Liveness],
                false => &[ProbeKind::Startup],
            };
            for kind in kinds {
                self.probes.start(*kind, container, (&id, since), &context);
            }
        }
    }
}

/// How long until an instant; nothing when it is past.
fn until(at: Instant) -> std::time::Duration {
    at.saturating_duration_since(Instant::now())
}
