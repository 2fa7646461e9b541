//! How long things take; printed, and bounded generously for busy machines.

use std::time::Instant;

use node_api::RuntimeService;

use crate::host::Host;

#[tokio::test]
async fn a_pod_starts_quickly() {
    let Some(host) = Host::new().await else {
        return;
    };
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
