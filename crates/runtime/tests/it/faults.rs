//! What goes wrong inside or below containers: processes that die, multiply or hang, disks that
//! are full, machines that start anew.

use std::io::Write;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use node_api::{ContainerState, ExecRequest, RuntimeError, RuntimeService, SandboxState};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::host::{Host, log_of};

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

fn streams_of(id: &str) -> ExecRequest {
    ExecRequest {
        container_id: id.to_owned(),
        stdout: true,
        ..Default::default()
    }
}

/// Everything a process of the machine may still be, but for one that waits to be reaped.
fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z") && !stat.contains(") X")
}

#[tokio::test]
async fn a_killed_first_process_takes_the_rest_along() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let id = host
        .start(&pod, host.shell("sleep 1000 & echo $!; sleep 1000"))
        .await;
    let status = host.engine().container_status(&id).await.unwrap();
    let groups = linux::cgroup::Hierarchies::of_this_machine().unwrap();
    let path = format!("{}/kubepods/pod1/{pod}/{id}", host.cgroup_root);
    let group = groups.group(&path).unwrap();
    let all = group.processes();
    assert!(all.contains(&Pid::from_raw(status.pid)), "{all:?}");
    kill(Pid::from_raw(status.pid), Signal::SIGKILL).unwrap();
    let ended = host.ended(&id).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "Error"));
    assert!(!all.iter().any(|pid| lives(pid.as_raw())));
    // The pod is as it was, and takes another.
    let sandbox = host.engine().pod_sandbox_status(&pod).await.unwrap();
    assert_eq!(sandbox.state, SandboxState::Ready);
    let mut config = host.shell("exit 3");
    config.log_path = "second/0.log".into();
    let second = host.start(&pod, config).await;
    assert_eq!(host.ended(&second).await.exit_code, 3);
    host.engine().remove_container(&id).await.unwrap();
    assert!(!group.exists());
    host.close().await;
}

#[tokio::test]
async fn nothing_is_executed_in_what_has_ended() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let id = host.start(&pod, host.shell("true")).await;
    host.ended(&id).await;
    let engine = host.engine();
    let sync = engine.exec_sync(&id, words(&["true"]), None).await;
    let streamed = ExecRequest {
        command: words(&["true"]),
        ..streams_of(&id)
    };
    let streamed = engine.exec(streamed).await.map(drop);
    let attached = engine.attach(streams_of(&id)).await.map(drop);
    for refused in [sync.map(drop), streamed, attached] {
        let fault = refused.unwrap_err();
        assert!(
            matches!(&fault, RuntimeError::FailedPrecondition(message) if message.contains("is not running")),
            "{fault}"
        );
    }
    host.close().await;
}

#[tokio::test]
async fn a_reader_that_hangs_holds_up_its_container_only() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let chatter = host.shell("while :; do echo 0123456789012345678901234567890123456789; done");
    let id = host.engine().create_container(&pod, chatter).await.unwrap();
    let session = host.engine().attach_early(streams_of(&id)).await.unwrap();
    host.engine().start_container(&id).await.unwrap();
    let path = host.engine().container_status(&id).await.unwrap().log_path;
    // Nobody reads: pipe, socket and what the supervisor holds fill up, then nothing is written.
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let length = std::fs::metadata(&path).unwrap().len();
        // Here, so that a test that fails ends, and fills no disk.
        assert!(length < 4 << 20, "{length} bytes were taken from it");
        if length == last && length > 0 {
            break;
        }
        last = length;
    }
    // The supervisor serves everybody else meanwhile, commands in that very container included.
    let result = host
        .engine()
        .exec_sync(&id, words(&["echo", "here"]), None)
        .await
        .unwrap();
    assert_eq!(result.stdout, b"here\n");
    let mut config = host.shell("echo there");
    config.log_path = "second/0.log".into();
    let second = host.start(&pod, config).await;
    let status = host.ended(&second).await;
    assert_eq!(log_of(&status.log_path), "stdout F there");
    host.engine()
        .stop_container(&id, Duration::ZERO)
        .await
        .unwrap();
    drop(session);
    host.close().await;
}

#[tokio::test]
async fn processes_multiply_up_to_the_limit() {
    const LIMIT: i64 = 24;
    let host = Host::new().await;
    let pod = host.pod().await;
    // The inner shell forks until it is refused; the outer one then needs no fork any more.
    let mut config =
        host.shell("(while :; do sleep 1000 & done) 2>/dev/null; echo refused; exec sleep 1000");
    config.resources.pids_limit = LIMIT;
    let id = host.engine().create_container(&pod, config).await.unwrap();
    let session = host.engine().attach_early(streams_of(&id)).await.unwrap();
    host.engine().start_container(&id).await.unwrap();
    let mut lines = BufReader::new(session.stdout.unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "refused");
    let groups = linux::cgroup::Hierarchies::of_this_machine().unwrap();
    let path = format!("{}/kubepods/pod1/{pod}/{id}", host.cgroup_root);
    let count = groups.group(&path).unwrap().processes().len();
    assert!((2..=24).contains(&count), "{count} processes");
    // Others are not bound by it.
    let mut config = host.shell("sleep 0 | sleep 0 | sleep 0; exit 4");
    config.log_path = "second/0.log".into();
    let second = host.start(&pod, config).await;
    assert_eq!(host.ended(&second).await.exit_code, 4);
    host.engine()
        .stop_container(&id, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(host.ended(&id).await.exit_code, 137);
    host.close().await;
}

/// A file that takes what room a file system has left, to the last byte.
fn fill(path: &std::path::Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for size in [4096, 1] {
        while file.write_all(&vec![b'x'; size]).is_ok() {}
    }
}

#[tokio::test]
async fn a_full_disk_costs_lines_but_no_container() {
    let mut host = Host::new().await;
    host.lose_engine().await;
    // Logs and the supervisor's own files are on one small disk.
    let (run, logs) = (
        host.folder.path().join("run"),
        host.folder.path().join("run/.logs"),
    );
    let flags = MsFlags::empty();
    mount(Some("tmpfs"), &run, Some("tmpfs"), flags, Some("size=512k")).unwrap();
    host.open().await;
    let mut config = host.pod_config();
    config.log_directory = logs.clone();
    let pod = host.engine().run_pod_sandbox(config).await.unwrap();
    let mut config = host.shell("while read line; do echo $line; done; exit 5");
    (config.stdin, config.stdin_once) = (true, true);
    let id = host.start(&pod, config).await;
    let request = ExecRequest {
        stdin: true,
        ..streams_of(&id)
    };
    let mut session = host.engine().attach(request).await.unwrap();
    let mut lines = BufReader::new(session.stdout.take().unwrap()).lines();
    let mut stdin = session.stdin.take().unwrap();
    fill(&run.join("filler"));
    // What comes back by the session has been offered to the log before.
    for number in 0..300 {
        stdin
            .write_all(format!("lost {number}\n").as_bytes())
            .await
            .unwrap();
        let line = lines.next_line().await.unwrap().unwrap();
        assert_eq!(line, format!("lost {number}"));
    }
    std::fs::remove_file(run.join("filler")).unwrap();
    stdin.write_all(b"kept\n").await.unwrap();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "kept");
    fill(&run.join("filler"));
    drop(stdin);
    // Its end cannot be written down, but is told.
    let status = host.ended(&id).await;
    assert_eq!(
        (status.state, status.exit_code),
        (ContainerState::Exited, 5)
    );
    std::fs::remove_file(run.join("filler")).unwrap();
    let log = log_of(&status.log_path);
    let whole = |line: &str| line.starts_with("stdout F lost ") || line == "stdout F kept";
    assert!(log.lines().all(whole), "{log}");
    assert!(log.lines().any(|line| line == "stdout F kept"), "{log}");
    host.engine().remove_pod_sandbox(&pod).await.unwrap();
    umount2(&run, MntFlags::MNT_DETACH).unwrap();
    host.close().await;
}

#[tokio::test]
async fn after_a_reboot_nothing_is_left_of_pods_but_images() {
    let mut host = Host::new().await;
    let pod = host.pod().await;
    let id = host.start(&pod, host.shell("sleep 1000")).await;
    let run = host.config().state;
    let supervisor = std::fs::read_to_string(run.join(&pod).join("pid")).unwrap();
    host.lose_engine().await;
    // The machine is off: no process, no mount, no cgroup, and what was in memory is gone.
    kill(
        Pid::from_raw(supervisor.trim().parse().unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    let groups = linux::cgroup::Hierarchies::of_this_machine().unwrap();
    let root = groups.group(&host.cgroup_root).unwrap();
    root.kill().unwrap();
    root.remove().unwrap();
    linux::mount::unmount_if_mounted(&run.join(&pod).join("shm")).unwrap();
    std::fs::remove_dir_all(&run).unwrap();
    host.open().await;
    let engine = host.engine();
    assert!(engine.list_pod_sandboxes().await.unwrap().is_empty());
    let gone = engine.container_status(&id).await.unwrap_err();
    assert!(matches!(gone, RuntimeError::NotFound(_)), "{gone}");
    let below = |name: &str| std::fs::read_dir(host.folder.path().join(name)).unwrap();
    assert_eq!(below("containers/containers").count(), 0);
    assert_eq!(below("containers/images/leases").count(), 0);
    let (status, log) = host.run("echo again").await;
    assert_eq!((status.exit_code, log.as_str()), (0, "stdout F again"));
    host.close().await;
}
