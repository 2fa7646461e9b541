//! The whole of it: a fake engine, the real socket, plugins at its other end.

mod fake;
mod peer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::Crew;
use node_api::{ContainerConfig, LinuxResources, PodSandboxConfig, RuntimeService};
use prost::Message as _;

use crate::wire::{self, Event};
use fake::Fake;
use peer::{Peer, Reply, fine};

struct World {
    engine: Arc<Fake>,
    /// What kubelets speak to.
    runtime: Arc<dyn RuntimeService>,
    socket: PathBuf,
    crew: Crew,
    folder: tempfile::TempDir,
}

impl World {
    async fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let engine = Arc::new(Fake::default());
        let crew = Crew::new();
        let socket = folder.path().join("nri.sock");
        let config = crate::Config {
            programs: folder.path().join("programs"),
            hidden_logs: Some("/other".into()),
            ..crate::Config::new(socket.clone())
        };
        let runtime = crate::open(engine.clone(), config, &crew).await.unwrap();
        World {
            engine,
            runtime,
            socket,
            crew,
            folder,
        }
    }

    async fn pod(&self) -> String {
        let config = PodSandboxConfig {
            name: "web".to_owned(),
            ..PodSandboxConfig::default()
        };
        self.runtime.run_pod_sandbox(config).await.unwrap()
    }

    async fn container(&self, pod: &str) -> String {
        let made = self.runtime.create_container(pod, named("main")).await;
        made.unwrap()
    }

    async fn end(self) {
        self.crew.stop().raise();
        self.crew.finished().await.unwrap();
        drop(self.folder);
    }
}

fn named(name: &str) -> ContainerConfig {
    ContainerConfig {
        name: name.to_owned(),
        command: vec!["run".to_owned()],
        ..ContainerConfig::default()
    }
}

fn event(event: Event) -> String {
    format!("event {}", event as i32)
}

fn adjustment(adjust: wire::ContainerAdjustment) -> Reply {
    let answer = wire::CreateContainerResponse {
        adjust: Some(adjust),
        ..Default::default()
    };
    Reply::With(answer.encode_to_vec())
}

fn with_env(key: &'static str) -> impl Fn(&str, &bytes::Bytes) -> Reply + Send {
    move |title, _| match title {
        "CreateContainer" => adjustment(wire::ContainerAdjustment {
            env: vec![wire::KeyValue {
                key: key.to_owned(),
                value: "1".to_owned(),
            }],
            ..Default::default()
        }),
        _ => fine(),
    }
}

fn with_quota(id: &str, quota: i64) -> wire::ContainerUpdate {
    let resources = wire::LinuxResources {
        cpu: Some(wire::LinuxCpu {
            quota: Some(wire::OptionalInt { value: quota }),
            ..Default::default()
        }),
        ..Default::default()
    };
    wire::ContainerUpdate {
        container_id: id.to_owned(),
        linux: Some(wire::LinuxContainerUpdate {
            resources: Some(resources),
        }),
        ignore_failure: false,
    }
}

#[tokio::test]
async fn a_plugin_hears_of_a_whole_life_in_its_order() {
    let world = World::new().await;
    let mut peer = Peer::joined(&world.socket, "10", |_, _| fine()).await;
    let pod = world.pod().await;
    let container = world.container(&pod).await;
    world.runtime.start_container(&container).await.unwrap();
    let stopped = world.runtime.stop_container(&container, Duration::ZERO);
    stopped.await.unwrap();
    for _ in 0..2 {
        world.runtime.stop_pod_sandbox(&pod).await.unwrap();
    }
    world.runtime.remove_pod_sandbox(&pod).await.unwrap();
    for expected in [
        event(Event::RunPodSandbox),
        "CreateContainer".to_owned(),
        "ValidateContainerAdjustment".to_owned(),
        event(Event::PostCreateContainer),
        event(Event::StartContainer),
        event(Event::PostStartContainer),
        "StopContainer".to_owned(),
        event(Event::StopPodSandbox),
        event(Event::RemoveContainer),
        event(Event::RemovePodSandbox),
    ] {
        assert_eq!(peer.next().await, expected);
    }
    assert!(world.engine.pods.lock().is_empty());
    assert!(peer.heard.try_recv().is_err(), "told once");
    world.end().await;
}

#[tokio::test]
async fn the_end_of_a_container_is_told_without_being_asked_for() {
    let world = World::new().await;
    let pod = world.pod().await;
    let container = world.container(&pod).await;
    world.runtime.start_container(&container).await.unwrap();
    let wish = Event::StopContainer.bit();
    let mut peer = Peer::join(&world.socket, "10", wish, |_, _| fine()).await;
    assert_eq!(peer.next().await, "Configure");
    assert_eq!(peer.next().await, "Synchronize");
    // Not before it is let in.
    world.pod().await;
    world.engine.end(&container);
    let (title, payload) = peer.heard.recv().await.unwrap();
    assert_eq!(title, "StopContainer");
    let told = wire::StopContainerRequest::decode(payload).unwrap();
    let told = told.container.unwrap();
    assert_eq!((told.id, told.name), (container, "main".to_owned()));
    world.end().await;
}

#[tokio::test]
async fn adjustments_of_all_plugins_are_made() {
    let world = World::new().await;
    let _second = Peer::joined(&world.socket, "20", |title, payload| {
        if title != "CreateContainer" {
            return fine();
        }
        // It sees what the first one did.
        let told = wire::CreateContainerRequest::decode(payload.clone()).unwrap();
        let env = told.container.unwrap().env;
        adjustment(wire::ContainerAdjustment {
            args: env,
            rlimits: vec![wire::PosixRlimit {
                kind: "RLIMIT_NOFILE".to_owned(),
                hard: 9,
                soft: 8,
            }],
            ..Default::default()
        })
    })
    .await;
    let _first = Peer::joined(&world.socket, "10", with_env("A")).await;
    let pod = world.pod().await;
    let container = world.container(&pod).await;
    let made = world.engine.containers.lock()[&container].config.clone();
    assert_eq!(made.envs, [("A".to_owned(), "1".to_owned())]);
    assert_eq!(made.command, ["PATH=/bin", "A=1"]);
    let limit = world.engine.extras.lock().rlimits[0].clone();
    assert_eq!(
        (limit.name.as_str(), limit.soft, limit.hard),
        ("nofile", 8, 9)
    );
    world.end().await;
}

#[tokio::test]
async fn plugins_that_contradict_each_other_fail_the_creation() {
    let world = World::new().await;
    let mut first = Peer::joined(&world.socket, "10", with_env("A")).await;
    let _second = Peer::joined(&world.socket, "20", with_env("A")).await;
    let pod = world.pod().await;
    let fault = world.runtime.create_container(&pod, named("main")).await;
    let fault = fault.unwrap_err().to_string();
    let expected = r#"plugins "20-test" and "10-test" both tried to set Env A"#;
    assert_eq!(fault, expected);
    assert!(world.engine.containers.lock().is_empty());
    assert_eq!(first.next().await, event(Event::RunPodSandbox));
    assert_eq!(first.next().await, "CreateContainer");
    // Who has heard of it hears that it is gone.
    assert_eq!(first.next().await, "StopContainer");
    assert_eq!(first.next().await, event(Event::RemoveContainer));
    world.end().await;
}

#[tokio::test]
async fn a_validator_has_the_last_word() {
    let world = World::new().await;
    let _first = Peer::joined(&world.socket, "10", with_env("A")).await;
    let _validator = Peer::joined(&world.socket, "00", |title, payload| {
        if title != "ValidateContainerAdjustment" {
            return fine();
        }
        let request = wire::ValidateContainerAdjustmentRequest::decode(payload.clone()).unwrap();
        let owners = request.owners.unwrap().owners;
        let of_env = &owners.values().next().unwrap().compound[&(wire::Field::Env as i32)];
        let answer = wire::ValidateContainerAdjustmentResponse {
            reject: true,
            reason: format!("{} sets A", of_env.owners["A"]),
        };
        Reply::With(answer.encode_to_vec())
    })
    .await;
    let pod = world.pod().await;
    let fault = world.runtime.create_container(&pod, named("main")).await;
    let expected = r#"plugin "00-test" rejected the adjustments of the container: 10-test sets A"#;
    assert_eq!(fault.unwrap_err().to_string(), expected);
    world.end().await;
}

#[tokio::test]
async fn a_refused_pod_is_not_there() {
    let world = World::new().await;
    let mut peer = Peer::joined(&world.socket, "10", |title, _| match title {
        "event 1" => Reply::Refusal("not this one"),
        _ => fine(),
    })
    .await;
    let refused = world.runtime.run_pod_sandbox(PodSandboxConfig::default());
    assert_eq!(refused.await.unwrap_err().to_string(), "not this one");
    assert!(world.engine.pods.lock().is_empty());
    for expected in [
        Event::RunPodSandbox,
        Event::StopPodSandbox,
        Event::RemovePodSandbox,
    ] {
        assert_eq!(peer.next().await, event(expected));
    }
    world.end().await;
}

#[tokio::test]
async fn a_plugin_that_does_not_answer_is_dropped() {
    let world = World::new().await;
    let mut peer = Peer::joined(&world.socket, "10", |title, _| match title {
        "event 1" => Reply::Silence,
        _ => fine(),
    })
    .await;
    let runtime = Arc::clone(&world.runtime);
    let pod = tokio::spawn(async move {
        let made = runtime.run_pod_sandbox(PodSandboxConfig::default());
        made.await.unwrap()
    });
    assert_eq!(peer.next().await, event(Event::RunPodSandbox));
    tokio::time::pause();
    let pod = pod.await.unwrap();
    tokio::time::resume();
    assert!(
        peer.heard.recv().await.is_none(),
        "its connection is closed"
    );
    world.container(&pod).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_while_a_plugin_learns_what_there_is() {
    let world = World::new().await;
    let pod = world.pod().await;
    let before = world.container(&pod).await;
    let hidden = PodSandboxConfig {
        log_directory: "/other/pod".into(),
        ..PodSandboxConfig::default()
    };
    let hidden = world.runtime.run_pod_sandbox(hidden).await.unwrap();
    world.container(&hidden).await;
    let (release, released) = std::sync::mpsc::channel::<()>();
    let started = Arc::new(tokio::sync::Notify::new());
    let begun = Arc::clone(&started);
    let join = Peer::joined(&world.socket, "10", move |title, payload| {
        if title == "Synchronize" {
            let told = wire::SynchronizeRequest::decode(payload.clone()).unwrap();
            assert_eq!((told.pods.len(), told.containers.len()), (1, 1));
            begun.notify_one();
            tokio::task::block_in_place(|| released.recv().unwrap());
        }
        fine()
    });
    let during = async {
        started.notified().await;
        let made = world.container(&pod);
        tokio::pin!(made);
        // It waits for the door, as often as it is asked.
        assert!(futures::poll!(made.as_mut()).is_pending());
        release.send(()).unwrap();
        made.await
    };
    let (mut peer, during) = tokio::join!(join, during);
    let (title, payload) = peer.heard.recv().await.unwrap();
    assert_eq!(title, "CreateContainer");
    let told = wire::CreateContainerRequest::decode(payload).unwrap();
    assert_eq!(told.container.unwrap().id, during);
    assert_ne!(before, during);
    world.end().await;
}

#[tokio::test]
async fn limits_are_changed_by_plugins_in_every_way() {
    let world = World::new().await;
    let mut peer = Peer::joined(&world.socket, "10", |title, payload| {
        if title != "UpdateContainer" {
            return fine();
        }
        let request = wire::UpdateContainerRequest::decode(payload.clone()).unwrap();
        let id = request.container.unwrap().id;
        let answer = wire::UpdateContainerResponse {
            update: vec![with_quota(&id, 500)],
            ..Default::default()
        };
        Reply::With(answer.encode_to_vec())
    })
    .await;
    let pod = world.pod().await;
    let container = world.container(&pod).await;
    let wish = LinuxResources {
        cpu_quota: 100,
        cpu_shares: 7,
        ..LinuxResources::default()
    };
    let updated = world.runtime.update_container_resources(&container, wish);
    updated.await.unwrap();
    let limits = || {
        let containers = world.engine.containers.lock();
        let limits = &containers[&container].config.resources;
        (limits.cpu_quota, limits.cpu_shares)
    };
    assert_eq!(limits(), (500, 7));
    let request = |quota| wire::UpdateContainersRequest {
        update: vec![with_quota(&container, quota)],
        evict: Vec::new(),
    };
    peer.call(3, "UpdateContainers", &request(900));
    let answer = peer.answers.recv().await.unwrap();
    assert_eq!((answer.status, answer.payload.len()), (None, 0));
    assert_eq!(limits(), (900, 0));
    // One that has ended cannot be changed, and the plugin is told.
    world.runtime.start_container(&container).await.unwrap();
    world.engine.end(&container);
    peer.call(5, "UpdateContainers", &request(1));
    let answer = peer.answers.recv().await.unwrap();
    let answer = wire::UpdateContainersResponse::decode(answer.payload.as_slice()).unwrap();
    assert_eq!(answer.failed, [with_quota(&container, 1)]);
    peer.call(7, "Sing", &wire::Empty {});
    let answer = peer.answers.recv().await.unwrap();
    assert_eq!(
        answer.status.unwrap().code,
        crate::link::code::UNIMPLEMENTED
    );
    world.end().await;
}

#[tokio::test]
async fn plugins_evict_containers() {
    let world = World::new().await;
    let pod = world.pod().await;
    let container = world.container(&pod).await;
    world.runtime.start_container(&container).await.unwrap();
    let mut peer = Peer::joined(&world.socket, "10", |_, _| fine()).await;
    let request = wire::UpdateContainersRequest {
        update: Vec::new(),
        evict: vec![wire::ContainerEviction {
            container_id: container.clone(),
            reason: "too loud".to_owned(),
        }],
    };
    peer.call(3, "UpdateContainers", &request);
    assert_eq!(peer.answers.recv().await.unwrap().status, None);
    assert_eq!(peer.next().await, "StopContainer");
    world.end().await;
}

#[tokio::test]
async fn only_root_reaches_the_socket() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new().await;
    let mode = std::fs::metadata(&world.socket)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    world.end().await;
}

#[tokio::test]
async fn a_program_that_is_no_plugin_hinders_nobody() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (programs, told) = (folder.path().join("programs"), folder.path().join("told"));
    std::fs::create_dir(&programs).unwrap();
    let script = format!(
        "#!/bin/sh\n[ -S /dev/stdin ] && echo \"$NRI_PLUGIN_IDX $NRI_PLUGIN_NAME $NRI_PLUGIN_SOCKET\" > {}\n",
        told.display()
    );
    let program = programs.join("10-a");
    std::fs::write(&program, script).unwrap();
    let executable = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&program, executable).unwrap();
    let crew = Crew::new();
    let config = crate::Config {
        programs,
        ..crate::Config::new(folder.path().join("nri.sock"))
    };
    let engine = Arc::new(Fake::default());
    let runtime = crate::open(engine, config, &crew).await.unwrap();
    assert_eq!(std::fs::read_to_string(told).unwrap(), "10 a 0\n");
    let made = runtime.run_pod_sandbox(PodSandboxConfig::default());
    made.await.unwrap();
    crew.stop().raise();
    crew.finished().await.unwrap();
}
