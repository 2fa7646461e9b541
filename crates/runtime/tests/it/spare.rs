//! The supervisor that waits for the next pod.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use node_api::RuntimeService;

use crate::host::Host;

const PATIENCE: Duration = Duration::from_secs(20);

/// Supervisors that wait for a pod of this process: ours, and those of tests beside.
fn waiting() -> Vec<Pid> {
    let ours = format!("(sampan-spare) S {} ", std::process::id());
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|one| std::fs::read_to_string(one.path().join("stat")).ok());
    let found = stats.filter(|stat| stat.contains(&ours));
    found
        .map(|stat| Pid::from_raw(stat.split(' ').next().unwrap().parse().unwrap()))
        .collect()
}

async fn one_waits() {
    let deadline = std::time::Instant::now() + PATIENCE;
    while waiting().is_empty() {
        assert!(std::time::Instant::now() < deadline, "no spare supervisor");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spare_that_died_is_not_missed() {
    let host = Host::new().await;
    for _ in 0..3 {
        host.run("exit 0").await;
        one_waits().await;
        for pid in waiting() {
            // It may have got its pod just now, and be none any more.
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
    let (status, log) = host.run("hostname").await;
    assert_eq!((status.exit_code, log.as_str()), (0, "stdout F podhost"));
    host.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_share_more_with_the_node_get_it_from_a_spare_too() {
    let host = Host::new().await;
    host.run("exit 0").await;
    one_waits().await;
    let mut config = host.pod_config();
    config.uid = "uid-node".to_owned();
    config.namespaces.network = node_api::NamespaceMode::Node;
    config.namespaces.ipc = node_api::NamespaceMode::Node;
    let pod = host.engine().run_pod_sandbox(config).await.unwrap();
    let script = "ls -l /proc/self/ns";
    let id = host.start(&pod, host.shell(script)).await;
    let status = host.ended(&id).await;
    let log = crate::host::log_of(&status.log_path);
    for (kind, same) in [("net", true), ("ipc", true), ("uts", true), ("mnt", false)] {
        let node = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_eq!(log.contains(node.to_str().unwrap()), same, "{kind}: {log}");
    }
    host.close().await;
}
