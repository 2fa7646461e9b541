//! How long things take; printed, and bounded generously for busy machines.

use std::time::Instant;

use node_api::RuntimeService;

use crate::host::Host;

#[tokio::test]
async fn a_pod_starts_quickly() {
    let host = Host::new().await;
    let engine = host.engine().clone();
    let (mut sandbox, mut container, mut end) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..10 {
        let begin = Instant::now();
        let pod = host.pod().await;
        sandbox.push(begin.elapsed());
        let begin = Instant::now();
        let id = host.start(&pod, host.shell("sleep 1000")).await;
        container.push(begin.elapsed());
        let begin = Instant::now();
        engine.remove_container(&id).await.unwrap();
        engine.remove_pod_sandbox(&pod).await.unwrap();
        end.push(begin.elapsed());
    }
    for (name, mut times) in [
        ("sandbox", sandbox),
        ("container", container),
        ("removal", end),
    ] {
        times.sort_unstable();
        println!("{name}: median {:?}, worst {:?}", times[5], times[9]);
        assert!(times[5].as_millis() < 1000, "{name}");
    }
    host.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pods_at_once() {
    let host = Host::new().await;
    let host = std::sync::Arc::new(host);
    let mut tasks = tokio::task::JoinSet::new();
    let begin = Instant::now();
    for number in 0..30 {
        let host = std::sync::Arc::clone(&host);
        tasks.spawn(async move {
            let mut config = host.pod_config();
            config.cgroup_parent = format!("/kubepods/pod{number}");
            let begin = Instant::now();
            let pod = host.engine().run_pod_sandbox(config).await.unwrap();
            let mut config = host.shell("echo ready; sleep 1000");
            config.log_path = format!("{number}/0.log").into();
            config.security.seccomp = node_api::SeccompProfile::RuntimeDefault;
            let id = host.start(&pod, config).await;
            let started = begin.elapsed();
            let result = host
                .engine()
                .exec_sync(&id, vec!["echo".to_owned(), number.to_string()], None)
                .await
                .unwrap();
            assert_eq!(result.stdout, format!("{number}\n").as_bytes());
            host.engine().remove_pod_sandbox(&pod).await.unwrap();
            started
        });
    }
    let mut times: Vec<_> = tasks.join_all().await;
    times.sort_unstable();
    println!(
        "30 pods: median {:?}, worst {:?}, all gone after {:?}",
        times[15],
        times[29],
        begin.elapsed()
    );
    std::sync::Arc::into_inner(host).unwrap().close().await;
}
