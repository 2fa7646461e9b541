//! The server dies and comes back; a supervisor dies; nothing is left behind.

use std::time::Duration;

use node_api::{ContainerEventKind, ContainerState, RuntimeService, SandboxState};

use crate::host::{Host, log_of};

fn supervisor_of(host: &Host, pod: &str) -> i32 {
    let path = host.folder.path().join("run").join(pod).join("pid");
    std::fs::read_to_string(path)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn containers_outlive_the_engine() {
    let mut host = Host::new().await;
    let pod = host.pod().await;
    let lasting = host
        .start(&pod, host.shell("while :; do sleep 0.1; done"))
        .await;
    let mut config = host.shell("sleep 0.5; echo done; exit 9");
    config.log_path = "ending/0.log".into();
    let ending = host.start(&pod, config).await;
    let created = host
        .engine()
        .create_container(&pod, host.shell("exit 2"))
        .await
        .unwrap();
    let before = host.engine().container_status(&lasting).await.unwrap();
    host.lose_engine().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    host.open().await;

    let engine = host.engine().clone();
    let sandbox = engine.pod_sandbox_status(&pod).await.unwrap();
    assert_eq!(sandbox.state, SandboxState::Ready);
    assert_eq!(sandbox.ips.len(), 1, "the network's answer is remembered");
    assert_eq!(engine.container_status(&lasting).await.unwrap(), before);
    let ended = engine.container_status(&ending).await.unwrap();
    assert_eq!((ended.state, ended.exit_code), (ContainerState::Exited, 9));
    assert!(log_of(&ended.log_path).contains("stdout F done"));
    assert_eq!(
        engine.container_status(&created).await.unwrap().state,
        ContainerState::Created
    );
    // The new engine gives orders and hears news.
    engine.start_container(&created).await.unwrap();
    assert_eq!(host.ended(&created).await.exit_code, 2);
    let result = engine
        .exec_sync(&lasting, vec!["echo".to_owned(), "hi".to_owned()], None)
        .await
        .unwrap();
    assert_eq!(result.stdout, b"hi\n");
    engine
        .stop_container(&lasting, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(
        engine.container_status(&lasting).await.unwrap().exit_code,
        137
    );
    host.close().await;
}

#[tokio::test]
async fn a_killed_supervisor_takes_its_pod_along() {
    let mut host = Host::new().await;
    let pod = host.pod().await;
    let id = host.start(&pod, host.shell("sleep 1000")).await;
    let pid = host.engine().container_status(&id).await.unwrap().pid;
    let mut events = host.engine().events();
    let supervisor = nix::unistd::Pid::from_raw(supervisor_of(&host, &pod));
    nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGKILL).unwrap();
    let status = host.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    let event = tokio::time::timeout(Duration::from_secs(5), events.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (event.kind, event.pod_uid.as_str()),
        (ContainerEventKind::Stopped, "uid-1")
    );
    assert_eq!(
        host.engine().pod_sandbox_status(&pod).await.unwrap().state,
        SandboxState::NotReady
    );
    for _ in 0..100 {
        if !std::path::Path::new(&format!("/proc/{pid}")).exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(
        !std::path::Path::new(&format!("/proc/{pid}")).exists(),
        "its containers died with it"
    );

    // The same while nobody looks.
    let second = host.pod().await;
    let id = host.start(&second, host.shell("sleep 1000")).await;
    let supervisor = nix::unistd::Pid::from_raw(supervisor_of(&host, &second));
    host.lose_engine().await;
    nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGKILL).unwrap();
    host.open().await;
    let status = host.ended(&id).await;
    assert_eq!(
        (status.state, status.exit_code),
        (ContainerState::Exited, 137)
    );
    assert_eq!(
        host.engine()
            .pod_sandbox_status(&second)
            .await
            .unwrap()
            .state,
        SandboxState::NotReady
    );
    host.close().await;
}

#[tokio::test]
async fn twenty_rounds_leave_nothing() {
    let host = Host::new().await;
    let groups = linux::cgroup::Hierarchies::of_this_machine().unwrap();
    let folder = host.folder.path().to_str().unwrap().to_owned();
    for round in 0..20 {
        let pod = host.pod().await;
        let id = host
            .start(&pod, host.shell("sleep 1000 & sleep 1000"))
            .await;
        host.engine()
            .exec_sync(&id, vec!["echo".to_owned()], None)
            .await
            .unwrap();
        let supervisor = supervisor_of(&host, &pod);
        if round % 2 == 0 {
            host.engine()
                .stop_container(&id, Duration::ZERO)
                .await
                .unwrap();
        }
        host.engine().remove_pod_sandbox(&pod).await.unwrap();
        let state =
            std::fs::read_to_string(format!("/proc/{supervisor}/status")).unwrap_or_default();
        assert!(
            state.is_empty() || state.contains("State:\tZ") || state.contains("State:\tX"),
            "round {round}: {state}"
        );
        let group = groups
            .group(&format!("{}/kubepods/pod1", host.cgroup_root))
            .unwrap();
        assert!(!group.exists(), "round {round}");
        assert_eq!(
            std::fs::read_dir(host.folder.path().join("run"))
                .unwrap()
                .count(),
            0
        );
        assert_eq!(
            std::fs::read_dir(host.folder.path().join("containers/containers"))
                .unwrap()
                .count(),
            0
        );
        assert_eq!(
            std::fs::read_dir(host.folder.path().join("containers/images/leases"))
                .unwrap()
                .count(),
            0
        );
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&folder), "round {round}");
    }
    host.close().await;
}

#[tokio::test]
async fn a_supervisor_is_small() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let id = host
        .start(&pod, host.shell("while :; do sleep 1; done"))
        .await;
    host.engine()
        .exec_sync(&id, vec!["echo".to_owned()], None)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", supervisor_of(&host, &pod))).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    println!(
        "supervisor: VmRSS {} kB, RssAnon {} kB",
        field("VmRSS:"),
        field("RssAnon:")
    );
    assert!(
        field("RssAnon:") < 512 && field("VmRSS:") < 3000,
        "{status}"
    );
    assert_eq!(field("Threads:"), 1);
    // What a container could reach through /proc is not writable, not even for root.
    let program = format!("/proc/{}/exe", supervisor_of(&host, &pod));
    let flags = nix::sys::statvfs::statvfs(program.as_str())
        .unwrap()
        .flags();
    assert!(flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
    host.close().await;
}

#[tokio::test]
async fn everything_can_be_taken_away() {
    let mut host = Host::new().await;
    let pod = host.pod().await;
    let id = host.start(&pod, host.shell("sleep 1000")).await;
    let pid = host.engine().container_status(&id).await.unwrap().pid;
    host.lose_engine().await;
    // As a runtime of somebody else leaves it, in hierarchies that are nothing to us, too.
    let all = linux::cgroup::Hierarchies::all_of_this_machine().unwrap();
    let theirs = all.group(&format!("{}/pods/x", host.config().cgroup_root));
    theirs.unwrap().create().unwrap();
    runtime::clean_up(&host.config()).unwrap();
    let root = all.group(&host.config().cgroup_root).unwrap();
    assert!(!root.exists());
    let gone = || {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_or(true, |stat| stat.contains(") Z"))
    };
    for _ in 0..100 {
        if gone() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(gone());
    assert!(!host.folder.path().join("run").exists());
    host.open().await;
    assert!(host.engine().list_pod_sandboxes().await.unwrap().is_empty());
    assert_eq!(host.engine().images().list().unwrap().len(), 1);
    host.close().await;
}
