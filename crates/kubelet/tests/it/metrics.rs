//! Pages of metrics on the kubelet's port.

use serde_json::{Value, json};

use crate::server::Front;

/// Asserts that a page has a line that begins so.
fn has(page: &str, wanted: &str) {
    let found = page.lines().any(|line| line.starts_with(wanted));
    assert!(found, "{wanted} in:\n{page}");
}

#[tokio::test]
async fn resources_are_told_by_container_pod_and_node() {
    let front = Front::new().await;
    front.rig.create("web", json!({}));
    front.rig.wait_phase("web", "Running").await;
    let (code, page) = front.get("/metrics/resource").await;
    assert_eq!(code, 200);
    let labels = "container=\"main\",namespace=\"default\",pod=\"web\"";
    for wanted in [
        "# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the container in core-seconds",
        "# TYPE container_cpu_usage_seconds_total counter",
        &format!("container_cpu_usage_seconds_total{{{labels}}} 1.5 "),
        &format!("container_memory_working_set_bytes{{{labels}}} 4096 "),
        &format!("container_start_time_seconds{{{labels}}} "),
        "pod_cpu_usage_seconds_total{namespace=\"default\",pod=\"web\"} 2.5 ",
        "node_cpu_usage_seconds_total ",
        "node_memory_working_set_bytes ",
        "node_swap_usage_bytes ",
        "resource_scrape_error 0",
        "scrape_error 0",
    ] {
        has(&page, wanted);
    }
    front.finish().await;
}

#[tokio::test]
async fn cadvisor_tells_of_cgroups() {
    let front = Front::new().await;
    front.rig.create("web", json!({}));
    let pod = front.rig.wait_phase("web", "Running").await;
    let (code, page) = front.get("/metrics/cadvisor").await;
    assert_eq!(code, 200);
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let id = front.rig.runtime.running("main").unwrap().id;
    let group = format!("/kubepods/besteffort/pod{uid}");
    let labels = format!(
        "container=\"main\",id=\"{group}/{id}\",image=\"demo:1\",name=\"{id}\",namespace=\"default\",pod=\"web\""
    );
    let (own, more) = labels.split_at("container=\"main\",".len());
    for wanted in [
        "# TYPE container_cpu_usage_seconds_total counter",
        &format!("container_cpu_usage_seconds_total{{{own}cpu=\"total\",{more}}} 1.5 "),
        &format!("container_memory_working_set_bytes{{{labels}}} 4096 "),
        &format!("container_memory_usage_bytes{{{labels}}} 8192 "),
        &format!("container_oom_events_total{{{labels}}} 3 "),
        &format!("container_processes{{{labels}}} 2 "),
        &format!("container_start_time_seconds{{{labels}}} "),
        &format!(
            "container_network_receive_bytes_total{{container=\"\",id=\"{group}\",image=\"\",interface=\"eth0\",name=\"\",namespace=\"default\",pod=\"web\"}} 77 "
        ),
        "container_cpu_usage_seconds_total{container=\"\",cpu=\"total\",id=\"/\",",
        "container_scrape_error 0",
        "machine_cpu_cores{boot_id=",
        "machine_memory_bytes{",
    ] {
        has(&page, wanted);
    }
    // Space is told by device, whatever this machine's is called.
    let value = |family: &str, container: &str| {
        let start = format!("container_fs_{family}{{container=\"{container}\",device=\"");
        let mut lines = page.lines().filter(|line| line.starts_with(&start));
        let words = lines.next().unwrap_or_else(|| panic!("{start} in {page}"));
        let value = words.rsplit(' ').nth(1).unwrap();
        value.parse::<f64>().unwrap()
    };
    assert_eq!(value("usage_bytes", "main"), 4711.0);
    assert!(value("limit_bytes", "main") >= 4711.0);
    assert!(value("limit_bytes", "") >= value("usage_bytes", ""));
    assert!(value("inodes_total", "") >= value("inodes_free", ""));
    front.finish().await;
}

#[tokio::test]
async fn probes_are_counted_while_their_pod_is_there() {
    let front = Front::new().await;
    let probe = json!({"exec": {"command": ["look"]}, "periodSeconds": 1});
    front.rig.create(
        "probed",
        json!({"containers": [{"name": "main", "image": "demo:1", "readinessProbe": probe}]}),
    );
    let ready = |pod: &Value| pod["status"]["containerStatuses"][0]["ready"] == true;
    let pod = front.rig.wait_pod("probed", "ready", ready).await;
    let (code, page) = front.get("/metrics/probes").await;
    assert_eq!(code, 200);
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let own = "container=\"main\",namespace=\"default\",pod=\"probed\"";
    for wanted in [
        "# TYPE prober_probe_total counter",
        &format!(
            "prober_probe_total{{{own},pod_uid=\"{uid}\",probe_type=\"Readiness\",result=\"successful\"}} "
        ),
        "# TYPE prober_probe_duration_seconds histogram",
        &format!(
            "prober_probe_duration_seconds_bucket{{{own},probe_type=\"Readiness\",le=\"+Inf\"}} "
        ),
    ] {
        has(&page, wanted);
    }
    front.finish().await;
}

#[tokio::test]
async fn the_summary_is_complete() {
    let front = Front::with(|config, _| {
        config.limited_swap = true;
        config.cgroups = kubelet::CgroupFacts {
            unified: true,
            limits_swap: true,
            swap_bytes: 1 << 40,
        };
    })
    .await;
    front.rig.create(
        "web",
        json!({"containers": [{"name": "main", "image": "demo:1",
                "resources": {"requests": {"memory": "512Ki"}, "limits": {"memory": "1Mi"}},
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}],
            "volumes": [{"name": "scratch", "emptyDir": {}}]}),
    );
    let pod = front.rig.wait_phase("web", "Running").await;
    let (code, text) = front.get("/stats/summary").await;
    assert_eq!(code, 200);
    let summary: Value = serde_json::from_str(&text).unwrap();
    let number = |path: &str| summary.pointer(path).and_then(Value::as_u64);
    for path in [
        "/node/cpu/usageCoreNanoSeconds",
        "/node/memory/workingSetBytes",
        "/node/memory/availableBytes",
        "/node/swap/swapUsageBytes",
        "/node/fs/capacityBytes",
        "/node/fs/inodesUsed",
        "/node/runtime/imageFs/usedBytes",
        "/node/runtime/containerFs/usedBytes",
        "/node/rlimit/maxpid",
        "/node/systemContainers/0/memory/rssBytes",
        "/pods/0/ephemeral-storage/usedBytes",
        "/pods/0/process_stats/process_count",
        "/pods/0/swap/swapUsageBytes",
        "/pods/0/containers/0/rootfs/usedBytes",
        "/pods/0/containers/0/logs/inodesUsed",
    ] {
        assert!(number(path).is_some(), "{path} in {text}");
    }
    assert!(number("/pods/0/containers/0/swap/swapAvailableBytes") > Some(0));
    let own = &summary["pods"][0];
    assert_eq!(own["podRef"]["uid"], pod["metadata"]["uid"]);
    assert_eq!(own["network"]["name"], "eth0");
    assert_eq!(own["network"]["interfaces"][0]["rxBytes"], 77);
    assert_eq!(own["volume"][0]["name"], "scratch");
    assert_eq!(own["volume"][0]["inodesUsed"], 1);
    assert_eq!(
        own["containers"][0]["memory"]["availableBytes"],
        (1 << 20) - 4096
    );
    let waits = |resource: &str| own["containers"][0][resource]["psi"].clone();
    let some = json!({"total": 12, "avg10": 1.5, "avg60": 0.25, "avg300": 0.0});
    assert_eq!(
        (waits("io")["some"].clone(), waits("memory")),
        (some, Value::Null)
    );
    assert_eq!(waits("cpu")["full"]["total"], 0);
    let (_, text) = front.get("/stats/summary?only_cpu_and_memory=true").await;
    let brief: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        brief["pods"][0]["containers"][0]["memory"]["workingSetBytes"],
        4096
    );
    assert!(brief["node"].get("fs").is_none() && brief["pods"][0].get("volume").is_none());
    front.finish().await;
}
