//! What to do next for one pod: a pure function from what is wanted and what
//! the runtime has to a list of actions.

pub(crate) mod rounds;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use node_api::{ContainerState, ContainerStatus, PodSandboxStatus, SandboxState};
use tokio::time::Instant;

use crate::backoff::CrashBackoff;
use crate::dead_containers::DeadContainers;
use crate::labels;
use crate::pod::{PodExt, Role, init_role};
use crate::resize::{self, ByContainer, Change};

/// What probes found out about one container (by id).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Startup is over: the probe succeeded, or there is none.
    pub(crate) started: bool,
    /// Readiness as the probe has it; `None` without an answer yet.
    pub(crate) ready: Option<bool>,
    /// A liveness or startup probe gave up: why, and the grace it asks for.
    pub(crate) failed: Option<(String, Option<i64>)>,
}

/// The pod is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// When the grace is over.
    pub(crate) deadline: Instant,
    /// Phase, reason and message when it is this node that ends the pod.
    pub(crate) verdict: Option<(String, String)>,
    /// What events say instead of `Stopping container x`.
    pub(crate) message: Option<String>,
}

/// What is under way; not begun a second time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busy {
    pub(crate) sandbox: bool,
    pub(crate) volumes: bool,
    /// Containers (by name) being started, and by which job.
    pub(crate) starting: HashMap<String, u64>,
    /// Containers being stopped, and until when they have.
    pub(crate) killing: HashMap<String, Instant>,
    pub(crate) removing: HashSet<String>,
}

/// All a plan depends on.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) sandboxes: &'a BTreeMap<String, PodSandboxStatus>,
    pub(crate) containers: &'a BTreeMap<String, ContainerStatus>,
    pub(crate) ending: Option<&'a Ending>,
    pub(crate) volumes_ready: bool,
    pub(crate) busy: &'a Busy,
    pub(crate) health: &'a HashMap<String, Health>,
    pub(crate) backoffs: &'a HashMap<String, CrashBackoff>,
    /// Resources of the running containers.
    pub(crate) actuated: &'a ByContainer,
    /// Containers (by name) that must not be started before.
    pub(crate) not_before: &'a HashMap<String, Instant>,
    /// The sandbox and volumes must not be tried before.
    pub(crate) hold_until: Option<Instant>,
    /// When containers (by id) ended.
    pub(crate) ended: &'a HashMap<String, Instant>,
    /// Which ended containers stay, and those (by id) of which the node has too many.
    pub(crate) dead: DeadContainers,
    pub(crate) surplus: &'a HashSet<String>,
    pub(crate) now: Instant,
}

/// One container to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) name: String,
    pub(crate) attempt: u32,
    pub(crate) round: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    MountVolumes,
    RunSandbox {
        attempt: u32,
    },
    StopSandbox {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
    /// One after the other.
    Start {
        sandbox_id: String,
        starts: Vec<Start>,
    },
    Kill(Kill),
    RemoveContainer {
        id: String,
    },
}

/// A container to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) id: String,
    pub(crate) name: String,
    /// `None`: `Stopping container x`.
    pub(crate) message: Option<String>,
    pub(crate) deadline: Instant,
}

/// What to do now, and when to look again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    pub(crate) wake_at: Option<Instant>,
    /// Containers that wait after a crash, and for how long in all.
    pub(crate) backing_off: Vec<(String, Duration)>,
    /// The pod is ending and nothing of it runs any more.
    pub(crate) ended: bool,
}

impl Plan {
    fn wake(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }
}

impl<'a> Scene<'a> {
    /// The newest sandbox.
    pub(crate) fn sandbox(&self) -> Option<&'a PodSandboxStatus> {
        newest_sandbox(self.sandboxes)
    }

    /// The newest container of that name, in any sandbox.
    pub(crate) fn newest(&self, name: &str) -> Option<&'a ContainerStatus> {
        newest_container(self.containers, name)
    }

    /// When a container ended.
    fn ended_at(&self, status: &ContainerStatus) -> Instant {
        self.ended.get(&status.id).copied().unwrap_or(self.now)
    }

    fn started(&self, status: &ContainerStatus) -> bool {
        self.health
            .get(&status.id)
            .is_some_and(|health| health.started)
    }
}

/// A grace; what is less than none is none.
pub(crate) fn seconds(count: i64) -> Duration {
    Duration::from_secs(count.try_into().unwrap_or(0))
}

/// The newest of a pod's sandboxes.
pub(crate) fn newest_sandbox(
    sandboxes: &BTreeMap<String, PodSandboxStatus>,
) -> Option<&PodSandboxStatus> {
    sandboxes
        .values()
        .max_by_key(|s| (s.config.attempt, s.created_at))
}

/// The newest container of a name.
pub(crate) fn newest_container<'a>(
    containers: &'a BTreeMap<String, ContainerStatus>,
    name: &str,
) -> Option<&'a ContainerStatus> {
    let named = containers.values().filter(|c| c.config.name == name);
    named.max_by_key(|c| (c.config.attempt, c.created_at))
}

/// Whether a container that ended with this code is started again.
pub(crate) fn restarts(pod: &Pod, role: Role, container: &Container, exit_code: i32) -> bool {
    match role {
        Role::Sidecar => return true,
        Role::Ephemeral => return false,
        Role::Init | Role::Main => {}
    }
    if rounds::rule(container, exit_code).is_some_and(|rule| rule.action == "Restart") {
        return true;
    }
    let own = container.restart_policy.as_deref();
    match (own.unwrap_or_else(|| pod.restart_policy()), role) {
        ("Never", _) => false,
        ("OnFailure", _) | (_, Role::Init) => exit_code != 0,
        _ => true,
    }
}

/// `Succeeded` or `Failed` when no container will run any more by itself.
pub(crate) fn outcome(
    pod: &Pod,
    containers: &BTreeMap<String, ContainerStatus>,
) -> Option<&'static str> {
    if rounds::pending(pod, containers) {
        return None;
    }
    let exited = |container: &Container| {
        let status = newest_container(containers, &container.name)?;
        (status.state == ContainerState::Exited).then_some(status.exit_code)
    };
    for container in pod.init_containers() {
        if let (Role::Init, Some(code)) = (init_role(container), exited(container))
            && code != 0
            && !restarts(pod, Role::Init, container, code)
        {
            return Some("Failed");
        }
    }
    let mut failed = false;
    for container in &pod.spec().containers {
        let code = exited(container)?;
        if restarts(pod, Role::Main, container, code) {
            return None;
        }
        failed |= code != 0;
    }
    match failed {
        true => Some("Failed"),
        false if pod.spec().containers.is_empty() => None,
        false => Some("Succeeded"),
    }
}

/// Plans the next steps of a pod.
pub(crate) fn plan(scene: &Scene<'_>) -> Plan {
    let mut plan = Plan::default();
    match scene.ending {
        Some(ending) => plan_end(scene, ending, &mut plan),
        None => {
            plan_run(scene, &mut plan);
            plan_garbage(scene, &mut plan);
        }
    }
    plan
}

fn is_alive(container: &ContainerStatus) -> bool {
    container.state != ContainerState::Exited
}

fn plan_run(scene: &Scene<'_>, plan: &mut Plan) {
    let held = scene.hold_until.filter(|until| scene.now < *until);
    if !scene.volumes_ready && !scene.busy.volumes {
        match held {
            Some(until) => plan.wake(until),
            None => plan.actions.push(Action::MountVolumes),
        }
    }
    let sandbox = scene.sandbox();
    if let Some(sandbox) = sandbox.filter(|s| s.state == SandboxState::Ready) {
        return plan_containers(scene, sandbox, plan);
    }
    if scene.busy.sandbox {
        return;
    }
    // What still runs in a sandbox that broke goes with it.
    let broken = scene.containers.values().find(|c| is_alive(c));
    if let Some(container) = broken {
        let id = container.sandbox_id.clone();
        plan.actions.push(Action::StopSandbox { id });
        return;
    }
    if !wants_sandbox(scene) {
        return;
    }
    match held {
        Some(until) => plan.wake(until),
        None if scene.volumes_ready => {
            let attempt = sandbox.map_or(0, |s| s.config.attempt + 1);
            plan.actions.push(Action::RunSandbox { attempt });
        }
        None => {}
    }
}

/// Whether any main container has something left to do.
fn wants_sandbox(scene: &Scene<'_>) -> bool {
    let pod = scene.pod;
    outcome(pod, scene.containers).is_none()
        && pod.spec().containers.iter().any(|container| {
            scene
                .newest(&container.name)
                .is_none_or(|status| restarts(pod, Role::Main, container, status.exit_code))
        })
}

struct Wanted<'p> {
    plan: &'p mut Plan,
    round: u32,
    starts: Vec<Start>,
}

fn plan_containers(scene: &Scene<'_>, sandbox: &PodSandboxStatus, plan: &mut Plan) {
    let round = rounds::current(scene.pod, scene.containers);
    if !rounds::clear(scene, round, plan) {
        return;
    }
    let here = |name: &str| {
        let newest = scene.newest(name);
        newest.filter(|status| status.sandbox_id == sandbox.id && rounds::of(status) == round)
    };
    let mains = &scene.pod.spec().containers;
    let initialized = mains
        .iter()
        .any(|container| here(&container.name).is_some());
    let mut wanted = Wanted {
        plan,
        round,
        starts: Vec::new(),
    };
    for container in scene.pod.ephemeral_containers() {
        wanted.consider_ephemeral(scene, &container);
    }
    let mut blocked = false;
    for container in scene.pod.init_containers() {
        let status = here(&container.name);
        let passed = match init_role(container) {
            Role::Sidecar => wanted.consider(scene, Role::Sidecar, container, status),
            _ if initialized => true,
            _ => wanted.consider(scene, Role::Init, container, status),
        };
        if !passed && !initialized {
            blocked = true;
            break;
        }
    }
    if !blocked {
        for container in mains {
            wanted.consider(scene, Role::Main, container, here(&container.name));
        }
    }
    let starts = wanted.starts;
    if !starts.is_empty() && scene.volumes_ready && scene.busy.starting.is_empty() {
        let sandbox_id = sandbox.id.clone();
        plan.actions.push(Action::Start { sandbox_id, starts });
    }
}

impl Wanted<'_> {
    /// Adds what one container needs. Returns whether those after it may start.
    fn consider(
        &mut self,
        scene: &Scene<'_>,
        role: Role,
        container: &Container,
        status: Option<&ContainerStatus>,
    ) -> bool {
        let Some(status) = status else {
            self.start(scene, container, None);
            return false;
        };
        match status.state {
            ContainerState::Running => {
                self.check_running(scene, container, status);
                role == Role::Sidecar && scene.started(status)
            }
            ContainerState::Exited => {
                let passed = role == Role::Init && status.exit_code == 0;
                if !passed && restarts(scene.pod, role, container, status.exit_code) {
                    self.start(scene, container, Some(status));
                }
                passed
            }
            // Created and never started: we were interrupted between the two.
            ContainerState::Created | ContainerState::Unknown => {
                self.start(scene, container, None);
                false
            }
        }
    }

    /// An ephemeral container gets one life, in whichever sandbox.
    fn consider_ephemeral(&mut self, scene: &Scene<'_>, container: &Container) {
        let unborn = scene.newest(&container.name).is_none_or(|status| {
            matches!(
                status.state,
                ContainerState::Created | ContainerState::Unknown
            )
        });
        let told = scene.pod.status().ephemeral_container_statuses.iter();
        let mut told = told.flat_map(|all| all.iter());
        let told = told.find(|status| status.name == container.name);
        let over = told
            .and_then(|status| status.state.as_ref())
            .is_some_and(|state| state.terminated.is_some() || state.running.is_some());
        if unborn && !over {
            self.start(scene, container, None);
        }
    }

    fn check_running(
        &mut self,
        scene: &Scene<'_>,
        container: &Container,
        status: &ContainerStatus,
    ) {
        let grace = scene
            .pod
            .spec()
            .termination_grace_period_seconds
            .unwrap_or(30);
        let known_hash = status.config.annotations.get(labels::CONTAINER_HASH);
        let changed = known_hash.is_some_and(|known| *known != labels::hash(container));
        let health = scene.health.get(&status.id);
        let name = &container.name;
        let (message, grace) = if changed {
            let message = format!("Container {name} definition changed, will be restarted");
            (message, grace)
        } else if let Some((message, own)) = health.and_then(|health| health.failed.clone()) {
            (message, own.unwrap_or(grace))
        } else if let Some(has) = scene.actuated.get(name)
            // What a start in flight gives it is known when that is done.
            && !scene.busy.starting.contains_key(name)
            && resize::change(scene.pod, container, has) == Change::Restart
        {
            (format!("Container {name} resize requires restart"), grace)
        } else {
            return;
        };
        if scene.busy.killing.contains_key(&status.id) {
            return;
        }
        self.plan.actions.push(Action::Kill(Kill {
            id: status.id.clone(),
            name: name.clone(),
            message: Some(message),
            deadline: scene.now + seconds(grace.max(1)),
        }));
    }

    fn start(
        &mut self,
        scene: &Scene<'_>,
        container: &Container,
        crashed: Option<&ContainerStatus>,
    ) {
        let name = &container.name;
        if scene.busy.starting.contains_key(name) {
            return;
        }
        if let (Some(crashed), Some(backoff)) = (crashed, scene.backoffs.get(name)) {
            let waiting = backoff.waiting(scene.ended_at(crashed), scene.now);
            if let Some((delay, until)) = waiting {
                self.plan.wake(until);
                self.plan.backing_off.push((name.clone(), delay));
                return;
            }
        }
        if let Some(until) = scene.not_before.get(name).filter(|at| scene.now < **at) {
            self.plan.wake(*until);
            return;
        }
        let attempt = scene.newest(name).map_or(0, |last| last.config.attempt + 1);
        self.starts.push(Start {
            name: name.clone(),
            attempt,
            round: self.round,
        });
    }
}

fn plan_end(scene: &Scene<'_>, ending: &Ending, plan: &mut Plan) {
    let alive: Vec<_> = scene.containers.values().filter(|c| is_alive(c)).collect();
    let role_of = |status: &ContainerStatus| {
        scene
            .pod
            .container(&status.config.name)
            .map_or(Role::Main, |(role, _)| role)
    };
    let others: Vec<_> = alive
        .iter()
        .filter(|c| role_of(c) != Role::Sidecar)
        .collect();
    for status in &others {
        kill(scene, ending, status, plan);
    }
    if others.is_empty() {
        // Sidecars go after all others, in the reverse of the order they came.
        let place = |status: &ContainerStatus| {
            let inits = scene.pod.init_containers();
            inits.iter().position(|c| c.name == status.config.name)
        };
        if let Some(last) = alive.iter().max_by_key(|status| place(status)) {
            kill(scene, ending, last, plan);
        }
    }
    let busy = scene.busy;
    let settled = !busy.sandbox && !busy.volumes && busy.starting.is_empty();
    if !alive.is_empty() || !settled {
        return;
    }
    let ready = scene
        .sandboxes
        .values()
        .filter(|s| s.state == SandboxState::Ready);
    for sandbox in ready {
        let id = sandbox.id.clone();
        plan.actions.push(Action::StopSandbox { id });
    }
    plan.ended = plan.actions.is_empty() && busy.killing.is_empty();
}

fn kill(scene: &Scene<'_>, ending: &Ending, status: &ContainerStatus, plan: &mut Plan) {
    // Stopped a second time only when the grace was cut short meanwhile.
    let slack = Duration::from_secs(1);
    let known = scene.busy.killing.get(&status.id);
    if known.is_some_and(|deadline| ending.deadline + slack >= *deadline) {
        return;
    }
    plan.actions.push(Action::Kill(Kill {
        id: status.id.clone(),
        name: status.config.name.clone(),
        message: ending.message.clone(),
        deadline: ending.deadline,
    }));
}

/// Removes ended containers beyond those that are to stay, and sandboxes whose containers all have
/// successors.
fn plan_garbage(scene: &Scene<'_>, plan: &mut Plan) {
    let mut by_name: HashMap<&str, Vec<&ContainerStatus>> = HashMap::new();
    for status in scene.containers.values() {
        by_name.entry(&status.config.name).or_default().push(status);
    }
    for statuses in by_name.values_mut() {
        statuses.sort_by_key(|c| std::cmp::Reverse((c.config.attempt, c.created_at)));
        for (place, status) in statuses.iter().enumerate().skip(1) {
            let is_beyond = scene
                .dead
                .per_container_max
                .is_some_and(|most| place > most);
            let may_go = is_beyond || scene.surplus.contains(&status.id);
            if !may_go || is_alive(status) || scene.busy.removing.contains(&status.id) {
                continue;
            }
            let ended = scene.ended.get(&status.id).copied();
            match ended.map(|at| at + scene.dead.age_min) {
                Some(until) if until > scene.now => plan.wake(until),
                _ => plan.actions.push(Action::RemoveContainer {
                    id: status.id.clone(),
                }),
            }
        }
    }
    let Some(newest) = scene.sandbox() else {
        return;
    };
    for sandbox in scene.sandboxes.values().filter(|s| s.id != newest.id) {
        let mut inside = scene
            .containers
            .values()
            .filter(|c| c.sandbox_id == sandbox.id);
        let replaced = inside.all(|c| {
            let successor = scene.newest(&c.config.name);
            !is_alive(c) && successor.is_some_and(|s| s.sandbox_id == newest.id)
        });
        if replaced && !scene.busy.removing.contains(&sandbox.id) {
            let id = sandbox.id.clone();
            plan.actions.push(Action::RemoveSandbox { id });
        }
    }
}

#[cfg(test)]
mod tests;
