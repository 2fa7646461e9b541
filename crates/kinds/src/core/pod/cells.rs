//! What kubectl shows of a pod: a summary of its containers' states.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::Cells;
use crate::table::{age, cells, name, or, since};
use crate::tree::Tree;

/// Restarts of some containers, and when the last of them was.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count = self.count.saturating_add(container.int("restartCount"));
        let finished = container.text("lastState.terminated.finishedAt");
        self.last = self.last.max(meta::time::parse(finished));
    }

    fn text(&self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                let ago = since(&meta::time::rfc3339(last), now);
                format!("{} ({ago} ago)", self.count)
            }
            _ => self.count.to_string(),
        }
    }
}

/// What is found while walking over the containers.
struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: Restarts,
}

pub(super) fn cells(pod: &Value, now: Timestamp) -> Cells {
    let summary = summarize(pod);
    cells![
        name(pod),
        format!("{}/{}", summary.ready, summary.total),
        summary.reason,
        summary.restarts.text(now),
        age(pod, now),
        or(first_ip(pod), "<none>"),
        or(pod.text("spec.nodeName"), "<none>"),
        or(pod.text("status.nominatedNodeName"), "<none>"),
        readiness_gates(pod),
    ]
}

/// The first of the pod's addresses, or the empty text.
pub(super) fn first_ip(pod: &Value) -> &str {
    let first = pod.list("status.podIPs").first();
    first.map_or(pod.text("status.podIP"), |one| one.text("ip"))
}

fn summarize(pod: &Value) -> Summary {
    let sidecars = pod.list("spec.initContainers").iter();
    let sidecars = sidecars.filter(|one| is_sidecar(one)).count();
    let mut summary = Summary {
        ready: 0,
        total: pod.count("spec.containers") + sidecars,
        reason: or(pod.text("status.reason"), pod.text("status.phase")).to_owned(),
        restarts: Restarts::default(),
    };
    let gated = |condition: &Value| {
        condition.text("type") == "PodScheduled" && condition.text("reason") == "SchedulingGated"
    };
    if pod.list("status.conditions").iter().any(gated) {
        summary.reason = "SchedulingGated".into();
    }
    let (initializing, sidecar_restarts) = init_containers(pod, &mut summary);
    if !initializing || condition(pod, "Initialized") {
        summary.restarts = sidecar_restarts;
        main_containers(pod, &mut summary);
    }
    let deleted = pod.has("metadata.deletionTimestamp");
    let finished = matches!(pod.text("status.phase"), "Failed" | "Succeeded");
    if deleted && pod.text("status.reason") == "NodeLost" {
        summary.reason = "Unknown".into();
    } else if deleted && !finished {
        summary.reason = "Terminating".into();
    }
    summary
}

/// Whether initialization goes on, and the restarts of sidecars.
fn init_containers(pod: &Value, summary: &mut Summary) -> (bool, Restarts) {
    let specs = pod.list("spec.initContainers");
    let mut sidecar_restarts = Restarts::default();
    for (index, status) in pod.list("status.initContainerStatuses").iter().enumerate() {
        summary.restarts.add(status);
        let name = status.text("name");
        let mut named = specs.iter().filter(|spec| spec.text("name") == name);
        let sidecar = named.next_back().is_some_and(is_sidecar);
        if sidecar {
            sidecar_restarts.add(status);
        }
        let terminated = status.at("state.terminated");
        if !terminated.is_null() && terminated.int("exitCode") == 0 {
            continue;
        }
        if sidecar && status.flag("started") {
            summary.ready += usize::from(status.flag("ready"));
            continue;
        }
        let waiting = status.text("state.waiting.reason");
        summary.reason = if !terminated.is_null() {
            format!("Init:{}", ended(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", specs.len())
        };
        return (true, sidecar_restarts);
    }
    (false, sidecar_restarts)
}

fn main_containers(pod: &Value, summary: &mut Summary) {
    let mut running = false;
    let mut failure = None;
    for status in pod.list("status.containerStatuses").iter().rev() {
        summary.restarts.add(status);
        let waiting = status.text("state.waiting.reason");
        let terminated = status.at("state.terminated");
        if !waiting.is_empty() {
            summary.reason = waiting.to_owned();
        } else if !terminated.is_null() {
            summary.reason = ended(terminated);
            if terminated.int("exitCode") != 0 {
                failure = Some(summary.reason.clone());
            }
        } else if status.flag("ready") && status.has("state.running") {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" {
        if running && condition(pod, "Ready") {
            summary.reason = "Running".into();
        } else if let Some(failure) = failure {
            summary.reason = failure;
        } else if running {
            summary.reason = "NotReady".into();
        }
    }
}

/// How a container ended: its reason, else its signal, else its exit code.
fn ended(terminated: &Value) -> String {
    match (terminated.text("reason"), terminated.int("signal")) {
        ("", 0) => format!("ExitCode:{}", terminated.int("exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn is_sidecar(container: &Value) -> bool {
    container.text("restartPolicy") == "Always"
}

fn condition(pod: &Value, kind: &str) -> bool {
    let mut conditions = pod.list("status.conditions").iter();
    let found = conditions.find(|one| one.text("type") == kind);
    found.is_some_and(|condition| condition.text("status") == "True")
}

fn readiness_gates(pod: &Value) -> String {
    let gates = pod.list("spec.readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let open = gates
        .iter()
        .filter(|gate| condition(pod, gate.text("conditionType")));
    format!("{}/{}", open.count(), gates.len())
}
