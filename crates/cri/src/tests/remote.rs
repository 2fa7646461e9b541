//! Our own client in front of our own server, by the wire.

use std::time::Duration;

use node_api::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

struct Wire {
    folder: tempfile::TempDir,
    runtime: Arc<Fake>,
    crew: Crew,
    remote: Arc<Remote>,
}

impl Wire {
    async fn new() -> Wire {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            socket: folder.path().join("cri.sock"),
            streaming: "127.0.0.1:0".parse().unwrap(),
            state: folder.path().to_owned(),
        };
        let (runtime, crew) = (Arc::new(Fake::default()), Crew::new());
        let parts = Parts {
            runtime: runtime.clone(),
            images: runtime.clone(),
        };
        let endpoints = Endpoints {
            runtime: config.socket.clone(),
            images: None,
            cgroup_driver: node_api::CgroupDriver::Cgroupfs,
        };
        serve(parts, config, &crew).await.unwrap();
        let remote = Remote::connect(endpoints, &crew).await.unwrap();
        Wire {
            folder,
            runtime,
            crew,
            remote,
        }
    }

    async fn close(self) {
        self.crew.stop().raise();
        self.crew.finished().await.unwrap();
        drop(self.folder);
    }
}

#[tokio::test]
async fn a_runtime_behind_the_wire_is_the_same() {
    let wire = Wire::new().await;
    let (remote, fake) = (&wire.remote, &wire.runtime);
    assert_eq!(remote.version(), fake.version());
    let status = remote.status().await;
    assert_eq!(status.handlers, fake.status().await.handlers);
    let reason = status.not_ready.unwrap();
    assert!(reason.ends_with("message:no network yet"), "{reason}");
    for _ in 0..2 {
        let listed = remote.list_pod_sandboxes().await.unwrap();
        assert_eq!(listed, fake.list_pod_sandboxes().await.unwrap());
        let listed = remote.list_containers().await.unwrap();
        let mut own = fake.list_containers().await.unwrap();
        // Of these CRI tells nothing, or something better.
        own[0].pid = 0;
        own[0].image_id = listed[0].image_id.clone();
        assert_eq!(listed, own);
        assert_eq!(listed[0].image_id, "web@sha256:2");
        let one = remote.container_status(CONTAINER).await.unwrap();
        assert_eq!(one, listed[0]);
    }
    let missing = remote.container_status("none").await;
    assert!(matches!(missing, Err(RuntimeError::NotFound(_))));
    assert!(remote.image_status("web").await.unwrap().is_some());
    assert_eq!(remote.image_status("no").await.unwrap(), None);
    let words = vec!["say".to_owned(), "it".to_owned()];
    let limit = Some(Duration::from_millis(1500));
    let done = remote.exec_sync(CONTAINER, words, limit).await.unwrap();
    assert_eq!(
        (done.stdout.as_slice(), done.exit_code),
        (&b"say it"[..], 3)
    );
    let stats = remote.container_stats(CONTAINER).await.unwrap();
    assert_eq!(
        (stats.id.as_str(), stats.cpu_usage_core_nanos),
        (CONTAINER, 7)
    );
    wire.close().await;
}

#[tokio::test]
async fn configurations_arrive_as_they_were_meant() {
    let wire = Wire::new().await;
    let sandbox = PodSandboxConfig {
        name: "web".to_owned(),
        uid: "u".to_owned(),
        namespace: "default".to_owned(),
        attempt: 2,
        hostname: "web".to_owned(),
        log_directory: "/logs/web".into(),
        sysctls: [("a.b".to_owned(), "1".to_owned())].into(),
        namespaces: NamespaceOptions {
            pid: NamespaceMode::Container,
            ..NamespaceOptions::default()
        },
        resources: Some(LinuxResources {
            cpu_shares: 512,
            ..LinuxResources::default()
        }),
        runtime_handler: "own".to_owned(),
        privileged: true,
        ..PodSandboxConfig::default()
    };
    wire.remote.run_pod_sandbox(sandbox.clone()).await.unwrap();
    let mut seen = wire.runtime.made.lock().0.clone();
    seen.annotations.clear();
    assert_eq!(seen, sandbox);
    let container = ContainerConfig {
        name: "main".to_owned(),
        image: "sha256:1".to_owned(),
        user_specified_image: "web".to_owned(),
        command: vec!["run".to_owned()],
        envs: vec![("A".to_owned(), "b=c".to_owned())],
        cdi_devices: vec!["vendor.com/card=one".to_owned()],
        mounts: vec![Mount {
            host_path: wire.folder.path().to_owned(),
            container_path: "/data".into(),
            readonly: true,
            propagation: MountPropagation::HostToContainer,
            ..Mount::default()
        }],
        log_path: "main/0.log".into(),
        stop_signal: Some("SIGUSR1".to_owned()),
        security: SecurityContext {
            run_as_user: Some(5),
            seccomp: SeccompProfile::Localhost("/profile".into()),
            drop_capabilities: vec!["ALL".to_owned()],
            ..SecurityContext::default()
        },
        ..ContainerConfig::default()
    };
    let made = wire
        .remote
        .create_container(SANDBOX, container.clone())
        .await;
    assert_eq!(made.unwrap(), "made main of sha256:1");
    let seen = wire.runtime.made.lock().1.clone();
    // What is the engine's to choose is said aloud on the wire.
    let expected = ContainerConfig {
        security: SecurityContext {
            masked_paths: Some(MASKED_PATHS.map(str::to_owned).to_vec()),
            readonly_paths: Some(READONLY_PATHS.map(str::to_owned).to_vec()),
            ..container.security.clone()
        },
        ..container
    };
    assert_eq!(seen, expected);
    wire.close().await;
}

#[tokio::test]
async fn events_come_by_the_stream() {
    let wire = Wire::new().await;
    let mut heard = wire.remote.events();
    let listened = tokio::time::timeout(PATIENCE, wire.runtime.listened.notified());
    listened.await.expect("events are asked for");
    let stopped = ContainerEvent {
        sandbox_id: SANDBOX.to_owned(),
        container_id: CONTAINER.to_owned(),
        pod_uid: String::new(),
        kind: ContainerEventKind::Stopped,
    };
    let sender = wire.runtime.listeners.lock().pop().unwrap();
    sender.send(stopped.clone()).await.unwrap();
    // What the first list found comes before it.
    let found = async {
        loop {
            let event = heard.recv().await.unwrap();
            if event.kind == ContainerEventKind::Stopped {
                return event;
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, found).await.unwrap();
    assert_eq!(found, stopped);
    wire.close().await;
}

#[tokio::test]
async fn commands_run_by_the_url_that_the_runtime_gives() {
    let wire = Wire::new().await;
    let wish = ExecRequest {
        container_id: CONTAINER.to_owned(),
        command: vec!["cat".to_owned()],
        tty: false,
        stdin: true,
        stdout: true,
        stderr: true,
    };
    let mut session = wire.remote.exec(wish.clone()).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    let long = vec![b'x'; 200_000];
    let (mut output, mut complaint) = (Vec::new(), String::new());
    let write = async {
        stdin.write_all(&long).await.unwrap();
        drop(stdin);
    };
    let mut stdout = session.stdout.take().unwrap();
    let mut stderr = session.stderr.take().unwrap();
    let talk = async {
        tokio::join!(
            write,
            stdout.read_to_end(&mut output),
            stderr.read_to_string(&mut complaint),
            session.exit
        )
    };
    let (_, _, _, exit) = tokio::time::timeout(PATIENCE, talk).await.unwrap();
    assert_eq!((exit.unwrap().unwrap(), complaint.as_str()), (7, "no"));
    assert_eq!(output, long);
    let terminal = ExecRequest {
        tty: true,
        stderr: false,
        ..wish
    };
    let mut session = wire.remote.exec(terminal).await.unwrap();
    let size = TerminalSize {
        width: 80,
        height: 24,
    };
    session.resize.take().unwrap().send(size).await.unwrap();
    drop(session.stdin.take());
    let mut output = String::new();
    let mut stdout = session.stdout.take().unwrap();
    stdout.read_to_string(&mut output).await.unwrap();
    assert_eq!(output, "80x24:");
    wire.close().await;
}

#[tokio::test]
async fn ports_are_reached_or_the_fault_is_told() {
    let wire = Wire::new().await;
    let mut port = wire.remote.port_forward(SANDBOX, 80).await.unwrap();
    port.write_all(b"hello").await.unwrap();
    port.shutdown().await.unwrap();
    let mut echo = String::new();
    port.read_to_string(&mut echo).await.unwrap();
    assert_eq!(echo, "hello");
    let mut port = wire.remote.port_forward(SANDBOX, 81).await.unwrap();
    let fault = port.read_to_string(&mut echo).await.unwrap_err();
    assert_eq!(fault.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(fault.to_string().contains("port 81"), "{fault}");
    wire.close().await;
}
