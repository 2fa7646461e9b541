//! The supervisor that waits for the next pod.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use node_api::RuntimeService;

use crate::host::Host;

const PATIENCE: Duration = Duration::from_secs(20);

/// Supervisors that wait for a pod of this process: ours, and those of tests beside. They read from a
/// pipe of ours.
fn waiting() -> Vec<Pid> {
    let pipes: BTreeSet<PathBuf> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .filter_map(|fd| std::fs::read_link(fd.path()).ok())
        .collect();
    let is_spare = |path: &Path| {
        let stat = std::fs::read_to_string(path.join("stat")).unwrap_or_default();
        stat.contains(" (sampan-spare) S ")
            && std::fs::read_link(path.join("fd/0")).is_ok_and(|pipe| pipes.contains(&pipe))
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|one| is_spare(&one.path()))
        .map(|one| Pid::from_raw(one.file_name().to_str().unwrap().parse().unwrap()))
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

/// The folders of the engine's own cgroup, wherever it has them.
fn groups_of(host: &Host) -> BTreeSet<String> {
    let all = linux::cgroup::Hierarchies::of_this_machine().unwrap();
    let folders = all.0.iter().map(|hierarchy| {
        let root = host.cgroup_root.trim_matches('/');
        hierarchy.folder.join(root)
    });
    folders
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

async fn until(host: &Host, holds: impl Fn(&BTreeSet<String>) -> bool) -> BTreeSet<String> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let groups = groups_of(host);
        if holds(&groups) {
            return groups;
        }
        assert!(std::time::Instant::now() < deadline, "{groups:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_pod_takes_the_cgroups_that_wait_for_it() {
    let mut host = Host::new().await;
    let mut plain = host.pod_config();
    plain.cgroup_parent = String::new();
    let run = async |host: &Host, config: &node_api::PodSandboxConfig| {
        let pod = host.engine().run_pod_sandbox(config.clone()).await.unwrap();
        let id = host.start(&pod, host.shell("exit 0")).await;
        assert_eq!(host.ended(&id).await.exit_code, 0);
        pod
    };
    let first = run(&host, &plain).await;
    let mut place = until(&host, |groups| groups.len() == 2).await;
    assert!(place.remove(&first));
    let second = run(&host, &plain).await;
    assert!(place.contains(&second), "{place:?}");

    // Whoever does not want it has it removed, and then there is none for the next.
    let mut unused = until(&host, |groups| groups.len() == 3).await;
    assert!(unused.remove(&first) && unused.remove(&second));
    let third = run(&host, &host.pod_config()).await;
    until(&host, |groups| groups.is_disjoint(&unused)).await;
    for pod in [&first, &second, &third] {
        host.engine().remove_pod_sandbox(pod).await.unwrap();
    }

    // What waited when the engine was lost is gone after the next start.
    let fourth = run(&host, &plain).await;
    let mut waiting = until(&host, |groups| {
        groups
            .iter()
            .filter(|name| name.len() == fourth.len())
            .count()
            == 2
    })
    .await;
    assert!(waiting.remove(&fourth));
    // All is made when somebody is there.
    let path = format!("{}/{}", host.cgroup_root, waiting.first().unwrap());
    let all = linux::cgroup::Hierarchies::of_this_machine().unwrap();
    let place = all.group(&path).unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while place.processes().is_empty() {
        assert!(std::time::Instant::now() < deadline, "nobody in {path}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    host.lose_engine().await;
    host.open().await;
    let kept = groups_of(&host);
    let ids = kept.iter().filter(|name| name.len() == fourth.len());
    assert_eq!(ids.collect::<Vec<_>>(), [&fourth]);
    host.close().await;
}
