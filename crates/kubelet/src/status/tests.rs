//! Statuses of small pods.

use serde_json::{Value, json};

use super::*;

fn pod(spec: Value) -> Pod {
    let metadata = json!({"name": "web", "namespace": "default", "uid": "u", "generation": 3});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

#[derive(Default)]
struct Given {
    containers: BTreeMap<String, ContainerStatus>,
    sandboxes: BTreeMap<String, PodSandboxStatus>,
    health: HashMap<String, Health>,
    waiting: HashMap<String, Waiting>,
    ending: Option<Ending>,
    resizes: Vec<ResizeCondition>,
    old: PodStatus,
}

fn given() -> Given {
    let mut given = Given::default();
    given.sandboxes.insert(
        "s".into(),
        PodSandboxStatus {
            id: "s".into(),
            config: node_api::PodSandboxConfig::default(),
            state: SandboxState::Ready,
            created_at: 1,
            ips: vec!["10.0.0.5".parse().unwrap()],
        },
    );
    given
}

impl Given {
    fn container(mut self, name: &str, attempt: u32, code: Option<i32>) -> Given {
        let id = format!("{name}{attempt}");
        let state = if code.is_some() { "Exited" } else { "Running" };
        let config = node_api::ContainerConfig {
            name: name.into(),
            attempt,
            ..node_api::ContainerConfig::default()
        };
        let status = json!({
            "id": id, "sandbox_id": "s", "config": config, "state": state, "created_at": attempt + 1,
            "started_at": 5_000_000_000i64, "finished_at": 9_000_000_000i64,
            "exit_code": code.unwrap_or(0), "image_id": "sha256:x", "reason": "", "message": "",
            "log_path": "/l", "pid": 1,
        });
        if code.is_none() {
            let health = Health {
                started: true,
                ..Health::default()
            };
            self.health.insert(id.clone(), health);
        }
        self.containers
            .insert(id, serde_json::from_value(status).unwrap());
        self
    }

    fn of(&self, pod: &Pod) -> Value {
        let status = pod_status(&StatusInputs {
            pod,
            runtime: "sampan",
            old: &self.old,
            sandboxes: &self.sandboxes,
            containers: &self.containers,
            health: &self.health,
            waiting: &self.waiting,
            messages: &HashMap::new(),
            actuated: &HashMap::new(),
            whole: None,
            resizes: &self.resizes,
            ending: self.ending.as_ref(),
            host_ips: &["192.0.2.1".parse().unwrap()],
            ready_to_start: true,
            now: Timestamp::from_second(100).unwrap(),
        });
        serde_json::to_value(status).unwrap()
    }
}

fn condition(status: &Value, kind: &str) -> Value {
    let all = status["conditions"].as_array().unwrap();
    let found = all.iter().find(|c| c["type"] == kind).unwrap();
    json!([found["status"], found["reason"], found["message"]])
}

#[test]
fn phases_follow_containers() {
    let always = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let never = json!({"restartPolicy": "Never", "containers": [{"name": "a"}, {"name": "b"}]});
    type Case<'a> = (&'a Value, &'a [(&'a str, Option<i32>)], &'a str);
    let cases: [Case<'_>; 7] = [
        (&always, &[], "Pending"),
        (&always, &[("a", None)], "Pending"),
        (&always, &[("a", None), ("b", None)], "Running"),
        (&always, &[("a", Some(1)), ("b", Some(1))], "Running"),
        (&never, &[("a", Some(0)), ("b", None)], "Running"),
        (&never, &[("a", Some(0)), ("b", Some(0))], "Succeeded"),
        (&never, &[("a", Some(0)), ("b", Some(2))], "Failed"),
    ];
    for (spec, containers, expected) in cases {
        let mut given = given();
        for (name, code) in containers {
            given = given.container(name, 0, *code);
        }
        let status = given.of(&pod(spec.clone()));
        assert_eq!(status["phase"], expected, "{containers:?} of {spec}");
    }
}

#[test]
fn a_phase_never_goes_back() {
    let mut given = given().container("a", 0, None);
    given.old.phase = Some("Failed".into());
    assert_eq!(
        given.of(&pod(json!({"containers": [{"name": "a"}]})))["phase"],
        "Failed"
    );
}

#[test]
fn a_crash_that_waits_shows_both_states() {
    let mut given = given().container("a", 2, Some(7));
    let message = "back-off 20s restarting failed container=a pod=web_default(u)";
    given
        .waiting
        .insert("a".into(), ("CrashLoopBackOff".into(), message.into()));
    let status = given.of(&pod(json!({"containers": [{"name": "a"}]})));
    let shown = &status["containerStatuses"][0];
    assert_eq!(
        shown["state"]["waiting"],
        json!({"reason": "CrashLoopBackOff", "message": message})
    );
    assert_eq!(shown["lastState"]["terminated"]["exitCode"], 7);
    assert_eq!(shown["lastState"]["terminated"]["reason"], "Error");
    assert_eq!(shown["restartCount"], 2);
    let expected = json!([
        "False",
        "ContainersNotReady",
        "containers with unready status: [a]"
    ]);
    assert_eq!(condition(&status, "Ready"), expected);
}

#[test]
fn init_containers_hold_back() {
    let spec = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
    let status = given().container("i", 0, None).of(&pod(spec.clone()));
    assert_eq!(status["phase"], "Pending");
    let shown = &status["containerStatuses"][0]["state"]["waiting"]["reason"];
    assert_eq!(shown, "PodInitializing");
    let expected = json!([
        "False",
        "ContainersNotInitialized",
        "containers with incomplete status: [i]"
    ]);
    assert_eq!(condition(&status, "Initialized"), expected);
    let done = given()
        .container("i", 0, Some(0))
        .container("a", 0, None)
        .of(&pod(spec));
    assert_eq!(condition(&done, "Initialized")[0], "True");
    assert_eq!(condition(&done, "Ready")[0], "True");
    assert_eq!(
        done["initContainerStatuses"][0]["state"]["terminated"]["reason"],
        "Completed"
    );
}

#[test]
fn readiness_needs_the_probe_and_the_gates() {
    let spec = json!({"containers": [{"name": "a", "readinessProbe": {"periodSeconds": 1}}],
        "readinessGates": [{"conditionType": "example.com/ok"}]});
    let mut given = given().container("a", 0, None);
    assert_eq!(
        given.of(&pod(spec.clone()))["containerStatuses"][0]["ready"],
        false
    );
    given.health.get_mut("a0").unwrap().ready = Some(true);
    let status = given.of(&pod(spec.clone()));
    assert_eq!(condition(&status, "ContainersReady")[0], "True");
    assert_eq!(condition(&status, "Ready")[1], "ReadinessGatesNotReady");
    let gate = json!([{"type": "example.com/ok", "status": "True"}]);
    given.old.conditions = serde_json::from_value(gate).unwrap();
    assert_eq!(condition(&given.of(&pod(spec)), "Ready")[0], "True");
}

#[test]
fn a_pod_ended_from_outside_has_the_verdict() {
    let mut given = given().container("a", 0, Some(137));
    given.ending = Some(Ending {
        deadline: tokio::time::Instant::now(),
        verdict: Some(("DeadlineExceeded".into(), "too long".into())),
        message: None,
    });
    let status = given.of(&pod(json!({"containers": [{"name": "a"}]})));
    assert_eq!(status["phase"], "Failed");
    assert_eq!(status["reason"], "DeadlineExceeded");
    assert_eq!(
        status["containerStatuses"][0]["state"]["terminated"]["exitCode"],
        137
    );
}

#[test]
fn a_patch_names_what_left_and_only_own_conditions() {
    let ips = |ip: &str| Some(vec![PodIP { ip: ip.into() }]);
    let old = PodStatus {
        reason: Some("Old".into()),
        pod_ips: ips("10.0.0.1"),
        conditions: serde_json::from_value(json!([
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady"}
        ]))
        .unwrap(),
        ..PodStatus::default()
    };
    let conditions = json!([
        {"type": "Ready", "status": "True"}, {"type": "example.com/ok", "status": "True"}
    ]);
    let new = PodStatus {
        pod_ips: ips("10.0.0.2"),
        conditions: serde_json::from_value(conditions).unwrap(),
        ..PodStatus::default()
    };
    let patch = patch("u", &old, &new);
    assert_eq!(patch["metadata"]["uid"], "u");
    assert_eq!(patch["status"]["reason"], Value::Null);
    assert_eq!(
        patch["status"]["podIPs"],
        json!([{"$patch": "replace"}, {"ip": "10.0.0.2"}])
    );
    let ready = json!({"type": "Ready", "status": "True", "reason": null});
    assert_eq!(patch["status"]["conditions"], json!([ready]));
    assert!(differs(&old, &new) && !differs(&new, &new.clone()));
}

#[test]
fn what_a_container_is_and_has_is_told() {
    let spec = json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}},
        "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}]}]});
    let mut given = given().container("a", 0, None);
    let user = node_api::ContainerUser {
        uid: 7,
        ..node_api::ContainerUser::default()
    };
    given.containers.get_mut("a0").unwrap().user = Some(user);
    given.resizes = vec![ResizeCondition::progress(Some(2), Some("busy".into()))];
    let status = given.of(&pod(spec.clone()));
    let container = &status["containerStatuses"][0];
    assert_eq!(container["user"]["linux"]["uid"], 7);
    assert_eq!(container["allocatedResources"], json!({"cpu": "1"}));
    assert_eq!(container["resources"], json!({"requests": {"cpu": "1"}}));
    let mount = json!({"name": "v", "mountPath": "/v", "readOnly": true,
        "recursiveReadOnly": "Disabled"});
    assert_eq!(container["volumeMounts"], json!([mount]));
    let resize = condition(&status, "PodResizeInProgress");
    assert_eq!(resize, json!(["True", "Error", "busy"]));
    // What is over is taken away by name.
    given.resizes.clear();
    given.old = serde_json::from_value(status).unwrap();
    let after = given.of(&pod(spec));
    let after: PodStatus = serde_json::from_value(after).unwrap();
    let patch = patch("u", &given.old, &after);
    let all = patch["status"]["conditions"].as_array().unwrap();
    assert!(all.contains(&json!({"$patch": "delete", "type": "PodResizeInProgress"})));
}
