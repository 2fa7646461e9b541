//! What waits goes on waiting as long as it should when the machine's clock is set forward or
//! back. Waits are counted by tokio's clock, which is paused here: they pass at once, and how long
//! they were can be told exactly.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::rig::{Rig, condition, wait};

/// Hours by which the clock is set.
const STEPS: [i64; 2] = [-1, 1];

fn waiting(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
}

/// Seconds since, to the nearest.
fn seconds(since: Instant) -> u64 {
    (since.elapsed() + Duration::from_millis(500)).as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_container_that_crashes_is_held_as_long_as_told() {
    for step in STEPS {
        let rig = Rig::new().await;
        rig.runtime.set_ends("main", Some(1));
        rig.create("web", json!({}));
        let held = |pod: &Value| waiting(pod) == "CrashLoopBackOff";
        rig.wait_pod("web", "is held", held).await;
        let since = Instant::now();
        rig.runtime.step_clock(step);
        rig.runtime.set_ends("main", None);
        let pod = rig
            .wait_pod("web", "is back", |pod| condition(pod, "Ready") == "True")
            .await;
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 2);
        assert_eq!(seconds(since), 10, "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_has_the_grace_it_was_promised() {
    for step in STEPS {
        let rig = Rig::new().await;
        let spec = json!({"containers": [{"name": "main", "image": crate::rig::IMAGE,
            "lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}]});
        rig.create("web", spec);
        rig.wait_phase("web", "Running").await;
        rig.delete("web", 20);
        wait("told to go", || {
            (!rig.api.events_of("Killing").is_empty()).then_some(())
        })
        .await;
        rig.runtime.step_clock(step);
        wait("stopped", || {
            let calls = rig.runtime.calls();
            let stop = calls.into_iter().find(|call| call.starts_with("stop main"));
            stop.inspect(|stop| assert_eq!(stop, "stop main 15", "{step}"))
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_is_asked_for_again_when_its_time_has_come() {
    for step in STEPS {
        let rig = Rig::new().await;
        rig.runtime.set_pull_error(Some("no such host"));
        let spec = json!({"containers": [{"name": "main", "image": "absent:1"}]});
        rig.create("web", spec);
        let failed = |pod: &Value| waiting(pod) == "ErrImagePull";
        rig.wait_pod("web", "fails", failed).await;
        let since = Instant::now();
        rig.runtime.step_clock(step);
        let held = |pod: &Value| waiting(pod) == "ImagePullBackOff";
        rig.wait_pod("web", "is held", held).await;
        rig.runtime.set_pull_error(None);
        rig.wait_phase("web", "Running").await;
        assert_eq!(seconds(since), 10, "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn probes_go_on() {
    for step in STEPS {
        let rig = Rig::new().await;
        rig.runtime.set_exec("ask", 1);
        let probe = json!({"exec": {"command": ["ask"]}, "initialDelaySeconds": 2,
            "periodSeconds": 3, "failureThreshold": 1});
        let spec = json!({"containers": [{"name": "main", "image": crate::rig::IMAGE,
            "readinessProbe": probe}]});
        rig.create("web", spec);
        rig.wait_phase("web", "Running").await;
        rig.runtime.step_clock(step);
        wait("asked", || {
            (!rig.api.events_of("Unhealthy").is_empty()).then_some(())
        })
        .await;
        let since = Instant::now();
        rig.runtime.step_clock(step);
        rig.runtime.set_exec("ask", 0);
        rig.wait_pod("web", "is ready", |pod| condition(pod, "Ready") == "True")
            .await;
        assert_eq!(seconds(since), 3, "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_wall_time_comes_with_the_clock() {
    let rig = Rig::new().await;
    rig.create("job", json!({"activeDeadlineSeconds": 3600}));
    rig.wait_phase("job", "Running").await;
    rig.runtime.step_clock(1);
    // The clock is looked at once a minute.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let pod = rig.wait_phase("job", "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
}

#[tokio::test(start_paused = true)]
async fn the_delay_of_a_probe_is_the_containers() {
    let mut rig = Rig::new().await;
    let probe = json!({"exec": {"command": ["ask"]}, "initialDelaySeconds": 20});
    let spec = json!({"containers": [{"name": "main", "image": crate::rig::IMAGE,
        "readinessProbe": probe}]});
    rig.create("web", spec);
    rig.wait_phase("web", "Running").await;
    rig.runtime.step_clock(1);
    rig.restart_kubelet().await;
    let since = Instant::now();
    rig.wait_pod("web", "is ready", |pod| condition(pod, "Ready") == "True")
        .await;
    assert_eq!(seconds(since), 0, "it has been running for an hour");
}
