//! Starting, ending, failing to start, and what a program finds around it.

use std::time::{Duration, Instant};

use node_api::{
    ContainerConfig, ContainerEventKind, ContainerState, Mount, RuntimeError, RuntimeService,
    SandboxState,
};

use crate::host::{Host, log_of};

#[tokio::test]
async fn exit_codes_and_logs() {
    let host = Host::new().await;
    let (status, log) = host.run("echo hello; echo problem >&2; exit 3").await;
    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["stderr F problem", "stdout F hello"]);
    let (status, _) = host.run("exit 0").await;
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    assert!(status.started_at > 0 && status.finished_at >= status.started_at);
    let (_, log) = host
        .run("dd if=/dev/zero bs=1000 count=100 2>/dev/null | tr '\\0' x")
        .await;
    let length: usize = log.lines().map(|line| line.len() - "stdout P ".len()).sum();
    assert_eq!(length, 100_000, "nothing is lost at the end");
    host.close().await;
}

#[tokio::test]
async fn a_program_that_cannot_run() {
    let host = Host::new().await;
    let pod = host.pod().await;
    for (command, expected) in [
        (
            "nonsense",
            "exec: \"nonsense\": executable file not found in $PATH",
        ),
        (
            "/no/such",
            "exec: \"/no/such\": stat /no/such: no such file or directory",
        ),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
        ("/etc", "exec: \"/etc\": is a directory"),
    ] {
        let config = ContainerConfig {
            command: vec![command.to_owned()],
            ..host.shell("")
        };
        let id = host.engine().create_container(&pod, config).await.unwrap();
        let fault = host.engine().start_container(&id).await.unwrap_err();
        assert_eq!(fault.to_string(), expected);
        let status = host.engine().container_status(&id).await.unwrap();
        assert_eq!(status.state, ContainerState::Exited);
        assert_eq!(
            (status.exit_code, status.reason.as_str()),
            (128, "StartError")
        );
        assert_eq!(status.message, expected);
    }
    host.close().await;
}

#[tokio::test]
async fn the_world_inside() {
    let host = Host::new().await;
    let script = "hostname; echo $HOSTNAME; id -u; echo $HOME; echo $$; ls /dev | tr '\\n' ' '; echo; \
                  cat /proc/sys/kernel/ostype; cat /etc/resolv.conf; \
                  echo x > /proc/sys/kernel/domainname || echo read-only; cat /proc/interrupts | wc -c; \
                  grep -c . /sys/firmware/x 2>/dev/null || echo masked; touch /new && ls /new; pwd; \
                  chroot / /bin/echo root; unshare -n /bin/echo escaped || echo filtered";
    let mut pod = host.pod_config();
    pod.dns = Some(node_api::DnsConfig {
        servers: vec!["10.43.0.10".to_owned()],
        ..Default::default()
    });
    let pod = host.engine().run_pod_sandbox(pod).await.unwrap();
    let mut config = host.shell(script);
    config.working_dir = "/made/for/me".to_owned();
    config.security.seccomp = node_api::SeccompProfile::RuntimeDefault;
    let id = host.start(&pod, config).await;
    let status = host.ended(&id).await;
    let log = log_of(&status.log_path);
    let lines: Vec<&str> = log
        .lines()
        .filter_map(|line| line.strip_prefix("stdout F "))
        .collect();
    assert_eq!(&lines[..5], ["podhost", "podhost", "0", "/", "1"], "{log}");
    assert_eq!(
        lines[5].trim(),
        "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    );
    let rest = [
        "Linux",
        "nameserver 10.43.0.10",
        "read-only",
        "0",
        "masked",
        "/new",
        "/made/for/me",
        "root",
        "filtered",
    ];
    assert_eq!(&lines[6..], rest, "{log}");
    host.close().await;
}

#[tokio::test]
async fn mounts_and_read_only_roots() {
    let host = Host::new().await;
    let source = host.folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "from the node").unwrap();
    let mount = |path: &str, from: &std::path::Path, readonly| Mount {
        container_path: path.into(),
        host_path: from.to_owned(),
        readonly,
        ..Mount::default()
    };
    let mut config = host.shell(
        "cat /data/file; echo; echo new > /data/written; touch /ro/x || echo no; cat /one/deep/file; echo; touch /x || echo no root",
    );
    config.mounts = vec![
        mount("/one/deep/file", &source.join("file"), true),
        mount("/data", &source, false),
        mount("/ro", &source, true),
    ];
    config.security.readonly_rootfs = true;
    let (status, log) = host.run_config(config).await;
    let lines: Vec<&str> = log
        .lines()
        .filter_map(|line| line.strip_prefix("stdout F "))
        .collect();
    assert_eq!(
        lines,
        ["from the node", "no", "from the node", "no root"],
        "{log} {status:?}"
    );
    assert_eq!(
        std::fs::read_to_string(source.join("written")).unwrap(),
        "new\n"
    );
    let mut config = host.shell("");
    config.mounts = vec![mount("/x", std::path::Path::new("/no/such/source"), false)];
    let pod = host.pod().await;
    let id = host.engine().create_container(&pod, config).await.unwrap();
    let fault = host.engine().start_container(&id).await.unwrap_err();
    assert!(fault.to_string().contains("/no/such/source"), "{fault}");
    host.close().await;
}

#[tokio::test]
async fn stopping_asks_first() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let polite = host
        .start(
            &pod,
            host.shell("trap 'echo bye; exit 7' TERM; while :; do sleep 0.05; done"),
        )
        .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    host.engine()
        .stop_container(&polite, Duration::from_secs(10))
        .await
        .unwrap();
    let status = host.engine().container_status(&polite).await.unwrap();
    assert_eq!(
        (status.state, status.exit_code),
        (ContainerState::Exited, 7)
    );
    let deaf = host
        .start(&pod, host.shell("trap '' TERM; while :; do sleep 1; done"))
        .await;
    let begin = Instant::now();
    host.engine()
        .stop_container(&deaf, Duration::from_millis(300))
        .await
        .unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert_eq!(
        host.engine()
            .container_status(&deaf)
            .await
            .unwrap()
            .exit_code,
        137
    );
    host.engine()
        .stop_container(&deaf, Duration::ZERO)
        .await
        .unwrap();
    host.engine().remove_container(&deaf).await.unwrap();
    host.engine().remove_container(&deaf).await.unwrap();
    assert!(matches!(
        host.engine().container_status(&deaf).await,
        Err(RuntimeError::NotFound(_))
    ));
    host.engine().stop_pod_sandbox(&pod).await.unwrap();
    host.engine().stop_pod_sandbox(&pod).await.unwrap();
    let status = host.engine().pod_sandbox_status(&pod).await.unwrap();
    assert_eq!(status.state, SandboxState::NotReady);
    assert!(matches!(
        host.engine().create_container(&pod, host.shell("")).await,
        Err(RuntimeError::FailedPrecondition(_))
    ));
    host.close().await;
}

#[tokio::test]
async fn users_and_capabilities() {
    let host = Host::new().await;
    let facts = "id -u; id -g; id -G; grep CapEff /proc/self/status; grep CapBnd /proc/self/status; grep NoNewPrivs /proc/self/status";
    let mut config = host.shell(facts);
    config.security.run_as_user = Some(1000);
    config.security.run_as_group = Some(2000);
    config.security.supplemental_groups = vec![3000];
    config.security.no_new_privs = true;
    config.security.seccomp = node_api::SeccompProfile::RuntimeDefault;
    let (_, log) = host.run_config(config).await;
    let lines: Vec<&str> = log
        .lines()
        .filter_map(|line| line.strip_prefix("stdout F "))
        .collect();
    assert_eq!(
        &lines[..4],
        ["1000", "2000", "2000 3000", "CapEff:\t0000000000000000"],
        "{log}"
    );
    assert_eq!(
        lines[4..],
        ["CapBnd:\t00000000a80425fb", "NoNewPrivs:\t1"],
        "{log}"
    );
    let mut config = host.shell(facts);
    config.security.drop_capabilities = vec!["ALL".to_owned()];
    config.security.add_capabilities = vec!["NET_BIND_SERVICE".to_owned()];
    let (_, log) = host.run_config(config).await;
    assert!(
        log.contains("CapEff:\t0000000000000400") && log.contains("NoNewPrivs:\t0"),
        "{log}"
    );
    let mut config = host.shell("ls /dev/vda /dev/fuse 2>/dev/null; mount -t tmpfs x /mnt 2>&1 || ls -d /bin; echo 1 > /proc/sys/vm/overcommit_memory 2>&1 | wc -l");
    config.security.privileged = true;
    let (status, log) = host.run_config(config).await;
    assert_eq!(status.exit_code, 0, "{log}");
    host.close().await;
}

#[tokio::test]
async fn a_death_by_a_signal_without_a_name() {
    let host = Host::new().await;
    let pod = host.pod().await;
    // Not the first process of its namespace: that one no signal from inside reaches, and SIGRTMIN
    // from outside does.
    let mut config = host.shell("exec sleep 1000");
    config.stop_signal = Some("SIGRTMIN+3".to_owned());
    config.security.namespaces.pid = node_api::NamespaceMode::Node;
    let id = host.start(&pod, config).await;
    host.engine()
        .stop_container(&id, Duration::from_secs(10))
        .await
        .unwrap();
    let status = host.engine().container_status(&id).await.unwrap();
    assert_eq!(
        (status.exit_code, status.reason.as_str()),
        (128 + 37, "Error")
    );
    host.close().await;
}

/// Run by the test below inside a container, and by the harness outside of one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_and_sockets() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let made = tokio::spawn(async { 40 + 2 }).await.unwrap();
    assert!(made == 42 && listener.is_ok());
}

#[tokio::test]
async fn a_threaded_program_in_the_tightest_place() {
    let host = Host::new().await;
    let store = host.engine().images().clone();
    let own = std::env::current_exe().unwrap();
    let wishes = oci::BinaryImage {
        path: "/app".to_owned(),
        entrypoint: vec!["/app".to_owned()],
        user: "nobody".to_owned(),
        ..Default::default()
    };
    let image = oci::image_from_binary(&store, &own, "test/own", &wishes).unwrap();
    let mut config = ContainerConfig {
        image: image.id.to_string(),
        command: Vec::new(),
        args: ["--exact", "basics::threads_and_sockets"]
            .map(str::to_owned)
            .to_vec(),
        ..host.shell("")
    };
    config.security.seccomp = node_api::SeccompProfile::RuntimeDefault;
    config.security.drop_capabilities = vec!["ALL".to_owned()];
    config.security.no_new_privs = true;
    config.security.readonly_rootfs = true;
    config.resources.memory_limit_bytes = 64 << 20;
    config.resources.pids_limit = 32;
    let (status, log) = host.run_config(config).await;
    assert_eq!(status.exit_code, 0, "{log}");
    assert!(log.contains("1 passed"), "{log}");
    host.close().await;
}

/// However soon the one comes after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_ends_at_once_is_announced_to_start_and_then_to_end() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let mut events = host.engine().events();
    for _ in 0..40 {
        let id = host.start(&pod, host.shell("exit 0")).await;
        let mut told = Vec::new();
        while told.last() != Some(&ContainerEventKind::Stopped) {
            let next = tokio::time::timeout(Duration::from_secs(20), events.recv());
            let event = next.await.expect("the end is announced").unwrap();
            assert_eq!(event.container_id, id);
            told.push(event.kind);
        }
        assert_eq!(
            told,
            [
                ContainerEventKind::Created,
                ContainerEventKind::Started,
                ContainerEventKind::Stopped
            ]
        );
        host.engine().remove_container(&id).await.unwrap();
        let event = events.recv().await.unwrap();
        assert_eq!(event.kind, ContainerEventKind::Deleted);
    }
    host.close().await;
}
