//! Plans for scenes, as text.

use std::sync::LazyLock;

use serde_json::json;

use super::*;

struct Stage {
    pod: Pod,
    sandboxes: BTreeMap<String, PodSandboxStatus>,
    containers: BTreeMap<String, ContainerStatus>,
    busy: Busy,
    health: HashMap<String, Health>,
    backoffs: HashMap<String, CrashBackoff>,
    not_before: HashMap<String, Instant>,
    ended: HashMap<String, Instant>,
    dead: DeadContainers,
    surplus: HashSet<String>,
    actuated: ByContainer,
    ending: Option<Ending>,
    volumes_ready: bool,
    now: Instant,
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn at(seconds: u64) -> Instant {
    *START + Duration::from_secs(seconds)
}

fn stage(spec: serde_json::Value) -> Stage {
    let metadata = json!({"name": "web", "namespace": "default", "uid": "u"});
    Stage {
        pod: serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap(),
        sandboxes: BTreeMap::new(),
        containers: BTreeMap::new(),
        busy: Busy::default(),
        health: HashMap::new(),
        backoffs: HashMap::new(),
        not_before: HashMap::new(),
        ended: HashMap::new(),
        dead: DeadContainers::default(),
        surplus: HashSet::new(),
        actuated: ByContainer::new(),
        ending: None,
        volumes_ready: true,
        now: at(0),
    }
}

impl Stage {
    fn sandbox(mut self, id: &str, attempt: u32, state: SandboxState) -> Stage {
        let config = node_api::PodSandboxConfig {
            attempt,
            ..node_api::PodSandboxConfig::default()
        };
        let status = PodSandboxStatus {
            id: id.into(),
            config,
            state,
            created_at: i64::from(attempt),
            ips: vec![],
        };
        self.sandboxes.insert(id.into(), status);
        self
    }

    fn ready(self) -> Stage {
        self.sandbox("s", 0, SandboxState::Ready)
    }

    /// A container `name#attempt` in sandbox `s`: running when `code` is `None`.
    fn container(self, name: &str, attempt: u32, code: Option<i32>) -> Stage {
        self.container_in("s", name, attempt, code)
    }

    fn container_in(mut self, sandbox: &str, name: &str, attempt: u32, code: Option<i32>) -> Stage {
        let id = format!("{name}#{attempt}");
        let annotations = self.pod.container(name).map(|(_, container)| {
            BTreeMap::from([(labels::CONTAINER_HASH.to_owned(), labels::hash(&container))])
        });
        let config = node_api::ContainerConfig {
            name: name.into(),
            attempt,
            annotations: annotations.unwrap_or_default(),
            ..node_api::ContainerConfig::default()
        };
        let status = ContainerStatus {
            id: id.clone(),
            sandbox_id: sandbox.into(),
            config,
            state: match code {
                None => ContainerState::Running,
                Some(_) => ContainerState::Exited,
            },
            created_at: i64::from(attempt) + 1,
            started_at: 1,
            finished_at: 2,
            exit_code: code.unwrap_or(0),
            image_id: String::new(),
            reason: String::new(),
            message: String::new(),
            log_path: "/l".into(),
            pid: 0,
            user: None,
            stop_signal: 15,
        };
        let started = Health {
            started: true,
            ..Health::default()
        };
        self.health.insert(id.clone(), started);
        if code.is_some() {
            self.ended.insert(id.clone(), at(0));
        }
        self.containers.insert(id, status);
        self
    }

    fn ending(mut self, seconds: u64) -> Stage {
        self.ending = Some(Ending {
            deadline: at(seconds),
            verdict: None,
            message: None,
        });
        self
    }

    fn plan(&self) -> Plan {
        plan(&Scene {
            pod: &self.pod,
            sandboxes: &self.sandboxes,
            containers: &self.containers,
            ending: self.ending.as_ref(),
            volumes_ready: self.volumes_ready,
            busy: &self.busy,
            health: &self.health,
            backoffs: &self.backoffs,
            not_before: &self.not_before,
            actuated: &self.actuated,
            hold_until: None,
            ended: &self.ended,
            dead: self.dead,
            surplus: &self.surplus,
            now: self.now,
        })
    }

    fn outcome(&self) -> Option<&'static str> {
        outcome(&self.pod, &self.containers)
    }

    #[track_caller]
    fn check(self, expected: &str) -> Stage {
        assert_eq!(shown(&self.plan()), expected);
        self
    }
}

fn shown(plan: &Plan) -> String {
    let mut words: Vec<String> = plan.actions.iter().map(show).collect();
    for (name, delay) in &plan.backing_off {
        words.push(format!("wait {name} {}s", delay.as_secs()));
    }
    if plan.ended {
        words.push("ended".into());
    }
    words.join(", ")
}

fn show(action: &Action) -> String {
    match action {
        Action::MountVolumes => "mount".into(),
        Action::RunSandbox { attempt } => format!("sandbox {attempt}"),
        Action::StopSandbox { id } => format!("stop {id}"),
        Action::RemoveSandbox { id } => format!("remove {id}"),
        Action::RemoveContainer { id } => format!("remove {id}"),
        Action::Start { starts, .. } => {
            let names: Vec<_> = starts
                .iter()
                .map(|s| format!("{}#{}", s.name, s.attempt))
                .collect();
            format!("start {}", names.join("+"))
        }
        Action::Kill(kill) => format!(
            "kill {} in {}s",
            kill.id,
            kill.deadline.duration_since(at(0)).as_secs()
        ),
    }
}

fn two() -> serde_json::Value {
    json!({"containers": [{"name": "a"}, {"name": "b"}]})
}

fn layered() -> serde_json::Value {
    json!({
        "initContainers": [
            {"name": "i1"}, {"name": "side1", "restartPolicy": "Always"},
            {"name": "i2"}, {"name": "side2", "restartPolicy": "Always"},
        ],
        "containers": [{"name": "main"}],
    })
}

#[test]
fn a_new_pod_mounts_then_makes_its_sandbox_then_starts() {
    let mut new = stage(two());
    new.volumes_ready = false;
    let mut new = new.check("mount");
    new.busy.volumes = true;
    let mut new = new.check("");
    new.volumes_ready = true;
    new.check("sandbox 0").ready().check("start a#0+b#0");
}

#[test]
fn what_runs_is_left_alone() {
    stage(two())
        .ready()
        .container("a", 0, None)
        .container("b", 0, None)
        .check("");
    let one = stage(two()).ready().container("a", 0, None);
    one.check("start b#0");
}

#[test]
fn init_containers_go_one_by_one_and_sidecars_stay() {
    stage(layered()).ready().check("start i1#0");
    stage(layered()).ready().container("i1", 0, None).check("");
    let first = stage(layered())
        .ready()
        .container("i1", 0, Some(0))
        .check("start side1#0");
    let mut side = first.container("side1", 0, None);
    side.health.insert("side1#0".into(), Health::default());
    let mut side = side.check("");
    side.health.get_mut("side1#0").unwrap().started = true;
    let second = side
        .check("start i2#0")
        .container("i2", 0, Some(0))
        .check("start side2#0");
    let all = second.container("side2", 0, None).check("start main#0");
    all.container("main", 0, None).check("");
}

#[test]
fn a_sidecar_that_ends_comes_back_beside_the_main_container() {
    stage(layered())
        .ready()
        .container("i1", 0, Some(0))
        .container("i2", 0, Some(0))
        .container("side1", 0, Some(1))
        .container("side2", 0, None)
        .container("main", 0, None)
        .check("start side1#1");
}

#[test]
fn restart_policies_decide() {
    let with = |policy: &str| {
        let mut spec = two();
        spec["restartPolicy"] = policy.into();
        stage(spec).ready()
    };
    with("Always")
        .container("a", 0, Some(0))
        .container("b", 0, None)
        .check("start a#1");
    with("OnFailure")
        .container("a", 0, Some(0))
        .container("b", 0, Some(3))
        .check("start b#1");
    let never = with("Never")
        .container("a", 0, Some(0))
        .container("b", 0, Some(3))
        .check("");
    assert_eq!(outcome(&never.pod, &never.containers), Some("Failed"));
    let done = with("OnFailure")
        .container("a", 0, Some(0))
        .container("b", 0, Some(0));
    assert_eq!(outcome(&done.pod, &done.containers), Some("Succeeded"));
    let half = with("Never")
        .container("a", 0, Some(1))
        .container("b", 0, None);
    assert_eq!(outcome(&half.pod, &half.containers), None);
}

#[test]
fn an_init_container_that_fails_for_good_fails_the_pod() {
    let mut spec = layered();
    spec["restartPolicy"] = "Never".into();
    let failed = stage(spec).ready().container("i1", 0, Some(1)).check("");
    assert_eq!(outcome(&failed.pod, &failed.containers), Some("Failed"));
    stage(layered())
        .ready()
        .container("i1", 0, Some(1))
        .check("start i1#1");
}

#[test]
fn exit_code_rules_override_the_policy() {
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "a",
        "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}]});
    stage(spec.clone())
        .ready()
        .container("a", 0, Some(42))
        .check("start a#1");
    stage(spec).ready().container("a", 0, Some(1)).check("");
}

#[test]
fn crashes_wait_longer_and_longer() {
    let mut crashed = stage(two())
        .ready()
        .container("a", 0, Some(1))
        .container("b", 0, None);
    let backoff = crashed.backoffs.entry("a".into()).or_default();
    let limits = (Duration::from_secs(10), Duration::from_secs(300));
    backoff.attempt(at(0), at(0), limits);
    let mut crashed = crashed.check("wait a 10s");
    assert_eq!(crashed.plan().wake_at, Some(at(10)));
    crashed.now = at(10);
    crashed.check("start a#1");
}

#[test]
fn a_sandbox_that_broke_is_made_anew_with_all_containers() {
    let broken = stage(two())
        .sandbox("s", 0, SandboxState::NotReady)
        .container("a", 0, None);
    broken.check("stop s");
    let broken = stage(two())
        .sandbox("s", 0, SandboxState::NotReady)
        .container("a", 0, Some(137));
    let again = broken
        .check("sandbox 1")
        .sandbox("t", 1, SandboxState::Ready);
    let again = again.check("start a#1+b#0");
    let again = again
        .container_in("t", "a", 1, None)
        .container_in("t", "b", 0, None);
    again.check("remove s");
}

#[test]
fn a_finished_pod_gets_no_new_sandbox() {
    let mut spec = two();
    spec["restartPolicy"] = "Never".into();
    let done = stage(spec).sandbox("s", 0, SandboxState::NotReady);
    done.container("a", 0, Some(0))
        .container("b", 0, Some(0))
        .check("");
}

#[test]
fn a_changed_image_or_failed_probe_kills() {
    let mut changed = stage(two())
        .ready()
        .container("a", 0, None)
        .container("b", 0, None);
    changed.pod.spec.as_mut().unwrap().containers[0].image = Some("new".into());
    changed.check("kill a#0 in 30s");
    let mut sick = stage(two())
        .ready()
        .container("a", 0, None)
        .container("b", 0, None);
    sick.health.get_mut("b#0").unwrap().failed = Some(("sick".into(), Some(7)));
    let mut sick = sick.check("kill b#0 in 7s");
    sick.busy.killing.insert("b#0".into(), at(7));
    sick.check("");
}

#[test]
fn the_end_takes_sidecars_last_and_in_reverse() {
    let all = stage(layered())
        .ready()
        .container("side1", 0, None)
        .container("side2", 0, None)
        .container("main", 0, None)
        .ending(20);
    all.check("kill main#0 in 20s");
    let rest = stage(layered())
        .ready()
        .container("side1", 0, None)
        .container("side2", 0, None)
        .container("main", 0, Some(0))
        .ending(20);
    rest.check("kill side2#0 in 20s");
    let last = stage(layered())
        .ready()
        .container("side1", 0, Some(0))
        .container("main", 0, Some(0))
        .ending(20)
        .check("stop s");
    let gone = Stage {
        sandboxes: BTreeMap::new(),
        ..last
    };
    gone.sandbox("s", 0, SandboxState::NotReady).check("ended");
}

#[test]
fn a_grace_cut_short_is_passed_on() {
    let mut slow = stage(two()).ready().container("a", 0, None).ending(30);
    slow.busy.killing.insert("a#0".into(), at(30));
    let mut slow = slow.check("");
    slow.ending.as_mut().unwrap().deadline = at(2);
    slow.check("kill a#0 in 2s");
}

#[test]
fn a_start_in_flight_holds_back_the_end() {
    let mut busy = stage(two()).ready().ending(5);
    busy.busy.starting.insert("a".into(), 1);
    busy.check("");
}

#[test]
fn two_runs_of_a_container_are_kept() {
    let many = stage(two())
        .ready()
        .container("a", 0, Some(1))
        .container("a", 1, Some(1))
        .container("a", 2, None)
        .container("b", 0, None);
    many.check("remove a#0");
}

#[test]
fn ephemeral_containers_come_first_and_once() {
    let mut spec = two();
    spec["ephemeralContainers"] = json!([{"name": "look", "image": "i"}]);
    let ready = stage(spec).ready().check("start look#0+a#0+b#0");
    let over = ready
        .container("a", 0, None)
        .container("b", 0, None)
        .container("look", 0, Some(1));
    over.check("");
}

#[test]
fn a_resize_may_take_a_new_start() {
    let mut spec = two();
    spec["containers"][0]["resources"] = json!({"limits": {"memory": "20Mi"}});
    spec["containers"][0]["resizePolicy"] =
        json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    let mut sized = stage(spec)
        .ready()
        .container("a", 0, None)
        .container("b", 0, None)
        .check("");
    sized.actuated.insert("a".into(), Default::default());
    let mut sized = sized.check("kill a#0 in 30s");
    // Seen before its start is over: what it has is not known yet.
    sized.busy.starting.insert("a".into(), 1);
    sized.check("");
}

#[test]
fn one_container_may_have_all_started_anew() {
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    let mut spec = layered();
    spec["restartPolicy"] = "Never".into();
    spec["initContainers"] = json!([{"name": "init"}, {"name": "side", "restartPolicy": "Always"}]);
    spec["containers"][0]["restartPolicyRules"] = rules;
    let run = |code| {
        stage(spec.clone())
            .ready()
            .container("init", 0, Some(0))
            .container("side", 0, None)
            .container("main", 0, code)
    };
    assert_eq!(run(Some(41)).check("").outcome(), Some("Failed"));
    let mut asked = run(Some(42)).check("kill side#0 in 0s");
    assert_eq!(asked.outcome(), None);
    asked.busy.killing.insert("side#0".into(), at(0));
    let mut asked = asked.check("").container("side", 0, Some(137));
    asked.busy.killing.clear();
    // Not at once, and then from the start.
    assert_eq!(asked.plan().wake_at, Some(at(1)));
    asked.now = at(1);
    let mut again = asked.check("start init#1");
    let mut next = |name: &str, code| {
        let mut one = std::mem::replace(&mut again, stage(json!({})));
        one = one.container(name, 1, code);
        let id = format!("{name}#1");
        let annotations = &mut one.containers.get_mut(&id).unwrap().config.annotations;
        annotations.insert(labels::ROUND.into(), "1".into());
        again = one;
        shown(&again.plan())
    };
    assert_eq!(next("init", Some(0)), "start side#1");
    assert_eq!(next("side", None), "start main#1");
    assert_eq!(next("main", None), "");
    assert_eq!(next("main", Some(42)), "kill side#1 in 1s");
    assert_eq!(next("main", Some(1)), "");
}

#[test]
fn as_many_ended_containers_stay_as_are_wished() {
    let crashed = |dead: DeadContainers| {
        let mut stage = stage(json!({"containers": [{"name": "a"}]})).ready();
        for attempt in 0..3 {
            stage = stage.container("a", attempt, Some(1));
        }
        stage.dead = dead;
        stage.container("a", 3, None)
    };
    let usual = DeadContainers::default();
    crashed(usual).check("remove a#1, remove a#0");
    let none = DeadContainers {
        per_container_max: Some(0),
        ..usual
    };
    crashed(none).check("remove a#2, remove a#1, remove a#0");
    let all = DeadContainers {
        per_container_max: None,
        ..usual
    };
    crashed(all).check("");
    let mut too_many = crashed(all);
    too_many.surplus = HashSet::from(["a#1".to_owned(), "a#3".to_owned()]);
    too_many.check("remove a#1");
    let mut young = crashed(DeadContainers {
        age_min: Duration::from_secs(60),
        ..usual
    });
    young.now = at(59);
    assert_eq!(young.plan().wake_at, Some(at(60)));
    let mut old = young.check("");
    old.now = at(60);
    old.check("remove a#1, remove a#0");
}
