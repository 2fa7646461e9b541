//! Containers with a time namespace of their own.

use std::path::Path;

use node_api::RuntimeService;

use crate::host::{Host, log_of};

const BOOTTIME: &str = "io.sampan.time-offset/boottime";
const MONOTONIC: &str = "io.sampan.time-offset/monotonic";

/// Seconds since the start of the machine, as `/proc/uptime` has them.
fn uptime(text: &str) -> f64 {
    text.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn annotations_move_a_container_s_clocks() {
    let host = Host::new().await;
    let mut pod = host.pod_config();
    pod.annotations.insert(BOOTTIME.to_owned(), "1h".to_owned());
    let pod = host.engine().run_pod_sandbox(pod).await.unwrap();
    let before = uptime(&std::fs::read_to_string("/proc/uptime").unwrap());
    let script = "cat /proc/uptime /proc/self/timens_offsets; /bin/busybox readlink /proc/self/ns/time; echo > /told; read x";
    let mut config = host.shell(script);
    config.stdin = true;
    let own = ("1000000h".to_owned(), "0.5s".to_owned());
    config.annotations.insert(BOOTTIME.to_owned(), own.0);
    config.annotations.insert(MONOTONIC.to_owned(), own.1);
    let id = host.start(&pod, config).await;
    // An exec is where its container is.
    let script = "until [ -e /told ]; do sleep 0.01; done; for of in self 1; do /bin/busybox readlink /proc/$of/ns/time; done";
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let said = host.engine().exec_sync(&id, command, None).await.unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let ours = std::fs::read_link("/proc/self/ns/time").unwrap();
    let (exec, first) = said.trim().split_once('\n').unwrap();
    assert_eq!(exec, first);
    assert_ne!(Path::new(exec), ours);
    host.engine()
        .stop_container(&id, std::time::Duration::ZERO)
        .await
        .unwrap();
    let log = log_of(&host.ended(&id).await.log_path);
    let lines: Vec<&str> = log
        .lines()
        .filter_map(|line| line.strip_prefix("stdout F "))
        .collect();
    assert!(uptime(lines[0]) >= before + 3.6e9, "{log}");
    let words = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(words(lines[1]), ["monotonic", "0", "500000000"], "{log}");
    assert_eq!(words(lines[2]), ["boottime", "3600000000", "0"], "{log}");
    assert_eq!(lines[3], exec, "{log}");
    // The pod's, where the container wishes for nothing.
    let id = host
        .start(&pod, host.shell("cat /proc/self/timens_offsets"))
        .await;
    let log = log_of(&host.ended(&id).await.log_path);
    let last = log.lines().last().unwrap();
    assert_eq!(words(last)[2..], ["boottime", "3600", "0"], "{log}");
    host.close().await;
}

#[tokio::test]
async fn offsets_that_cannot_be() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let with = |offset: &str| {
        let mut config = host.shell("true");
        let wish = (BOOTTIME.to_owned(), offset.to_owned());
        config.annotations.extend([wish]);
        config
    };
    let made = host.engine().create_container(&pod, with("tomorrow")).await;
    let expected = "annotation io.sampan.time-offset/boottime: invalid duration \"tomorrow\"";
    assert_eq!(made.unwrap_err().to_string(), expected);
    // No clock goes back beyond the start of the machine.
    let made = host
        .engine()
        .create_container(&pod, with("-2000000h"))
        .await;
    let fault = host.engine().start_container(&made.unwrap()).await;
    let fault = fault.unwrap_err().to_string();
    assert!(fault.starts_with("time offsets: "), "{fault}");
    host.close().await;
}
