//! The server dies at any moment: what it had promised is there, what it had
//! not finished can be taken away, nothing stays behind.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use node_api::{ContainerState, RuntimeService};

use crate::host::Host;

/// Delays that differ from run to run, without a dependency for it.
fn moment(limit_millis: u64) -> Duration {
    let nanos = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    Duration::from_millis(u64::from(nanos / 1000) % limit_millis)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_deaths_at_any_moment() {
    let mut host = Host::new().await;
    let lasting_pod = host.pod().await;
    let mut config = host.shell("while :; do sleep 0.1; done");
    config.log_path = "lasting/0.log".into();
    let lasting = host.start(&lasting_pod, config).await;
    let pid = host.engine().container_status(&lasting).await.unwrap().pid;
    for round in 0..10 {
        let engine = Arc::clone(host.engine());
        let (pod, container) = (host.pod_config(), host.shell("sleep 1000"));
        let work = tokio::spawn(async move {
            for number in 0..20 {
                let mut pod = pod.clone();
                pod.uid = format!("round-{round}-{number}");
                pod.cgroup_parent = format!("/kubepods/pod-{round}-{number}");
                let pod = engine.run_pod_sandbox(pod).await?;
                let id = engine.create_container(&pod, container.clone()).await?;
                engine.start_container(&id).await?;
                if number % 2 == 0 {
                    engine.stop_container(&id, Duration::ZERO).await?;
                    engine.remove_pod_sandbox(&pod).await?;
                }
            }
            Ok::<_, node_api::RuntimeError>(())
        });
        tokio::time::sleep(moment(250)).await;
        work.abort();
        let _ = work.await;
        host.lose_engine().await;
        host.open().await;
        let status = host.engine().container_status(&lasting).await.unwrap();
        assert_eq!(
            (status.state, status.pid),
            (ContainerState::Running, pid),
            "round {round}"
        );
    }
    for container in host.engine().list_containers().await.unwrap() {
        assert_ne!(container.state, ContainerState::Unknown);
        if container.state == ContainerState::Running {
            assert!(
                std::path::Path::new(&format!("/proc/{}", container.pid)).exists(),
                "{}",
                container.id
            );
        }
    }
    host.close().await;
}

/// Processes of the machine that have this word among their arguments.
fn running(word: &str) -> Vec<Pid> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let numbered = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let has = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|one| one == word.as_bytes())
    };
    numbered.filter(has).map(Pid::from_raw).collect()
}

/// The supervisors of all pods there are.
fn supervisors(host: &Host) -> Vec<Pid> {
    let pods = std::fs::read_dir(host.config().state).unwrap().flatten();
    let pids = pods.filter_map(|pod| std::fs::read_to_string(pod.path().join("pid")).ok());
    pids.filter_map(|text| Some(Pid::from_raw(text.trim().parse().ok()?)))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_leaves_no_orphan() {
    let mut host = Host::new().await;
    // A number that no other process knows.
    let word = (10_000_000 + std::process::id()).to_string();
    let mut killed = 0;
    for round in 0..8 {
        let engine = Arc::clone(host.engine());
        let script = format!("sleep {word} & sleep {word} & sleep {word}");
        let (pod, container) = (host.pod_config(), host.shell(&script));
        let work = tokio::spawn(async move {
            for number in 0..20 {
                let mut pod = pod.clone();
                pod.uid = format!("round-{round}-{number}");
                pod.cgroup_parent = format!("/kubepods/pod-{round}-{number}");
                // Whatever fails here has lost its supervisor or its first process just now.
                let Ok(pod) = engine.run_pod_sandbox(pod).await else {
                    continue;
                };
                if let Ok(id) = engine.create_container(&pod, container.clone()).await {
                    let _ = engine.start_container(&id).await;
                }
            }
        });
        tokio::time::sleep(moment(250)).await;
        let mut victims = running(&word);
        victims.extend(supervisors(&host));
        for (number, pid) in victims.into_iter().enumerate() {
            // One of three, others in each round.
            if (number + round) % 3 == 0 && kill(pid, Signal::SIGKILL).is_ok() {
                killed += 1;
            }
        }
        work.abort();
        let _ = work.await;
        if round % 2 == 1 {
            host.lose_engine().await;
            host.open().await;
        }
    }
    assert!(killed > 0, "nobody was killed");
    for pod in host.engine().list_pod_sandboxes().await.unwrap() {
        host.engine().remove_pod_sandbox(&pod.id).await.unwrap();
    }
    assert_eq!(running(&word), [], "processes without a container");
    assert_eq!(supervisors(&host), [], "supervisors without a pod");
    let groups = linux::cgroup::Hierarchies::of_this_machine().unwrap();
    let path = format!("{}/kubepods", host.cgroup_root);
    assert_eq!(groups.group(&path).unwrap().processes(), []);
    host.close().await;
}

#[tokio::test]
async fn a_removal_cut_short_is_finished() {
    let mut host = Host::new().await;
    let (first, second) = (host.pod().await, host.pod().await);
    let ended = host.start(&second, host.shell("true")).await;
    host.ended(&ended).await;
    for pod in [&first, &second] {
        host.engine().stop_pod_sandbox(pod).await.unwrap();
    }
    host.lose_engine().await;
    let run = host.config().state;
    // What a dying server may have left of a sandbox: its record alone, or all but its record.
    std::fs::remove_dir_all(run.join(&first).join("containers")).unwrap();
    std::fs::remove_file(run.join(&second).join("sandbox.json")).unwrap();
    host.open().await;
    let left = host.engine().list_pod_sandboxes().await.unwrap();
    assert_eq!(left.iter().map(|pod| &pod.id).collect::<Vec<_>>(), [&first]);
    assert!(!run.join(&second).exists());
    host.close().await;
}
