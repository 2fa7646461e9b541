//! Cgroups by systemd: a real one, which is the first process of namespaces of its own.

use std::process::Command;

use node_api::{CgroupDriver, LinuxResources, RuntimeService};

use crate::host::{Host, log_of};
use crate::machine::{Layout, Machine, missing};

const SLICE: &str = "kubepods-burstable-pod1_2.slice";
const PATH: &str = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice";

#[test]
fn systemd_makes_cgroups_beside_version_1() {
    inside(
        Layout::Hybrid,
        "systemd::a_pod_is_a_slice_and_its_containers_are_scopes",
    );
}

#[test]
fn systemd_makes_cgroups_in_version_2() {
    inside(
        Layout::Unified,
        "systemd::units_have_their_places_in_version_2",
    );
}

/// Runs an ignored test of this file where systemd runs.
fn inside(layout: Layout, test: &str) {
    if let Some(why) = missing() {
        println!("skipped: {why}");
        return;
    }
    let program = std::env::current_exe().unwrap();
    let script = format!("{} --ignored --exact --nocapture {test}", program.display());
    let said = Machine::new(layout).run(&script);
    assert_eq!(said.code, 0, "{}", said.output);
    assert!(said.output.contains("1 passed"), "{}", said.output);
}

fn systemctl(words: &[&str]) -> String {
    let said = Command::new("systemctl")
        .arg("--no-pager")
        .args(words)
        .output()
        .unwrap();
    String::from_utf8_lossy(&said.stdout).into_owned()
}

fn shown(unit: &str, property: &str) -> String {
    let text = systemctl(&["show", unit, "-p", property, "--value"]);
    text.trim().to_owned()
}

/// Units of ours that systemd knows.
fn units() -> String {
    systemctl(&["list-units", "--all", "--no-legend", "kubepods*", "sampan*"])
}

fn by_systemd(host: &Host) -> runtime::Config {
    runtime::Config {
        cgroup_driver: CgroupDriver::Systemd,
        ..host.config()
    }
}

fn groups_of(pid: i64) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
#[ignore = "runs on a machine of systemd's, which another test starts"]
async fn a_pod_is_a_slice_and_its_containers_are_scopes() {
    let mut host = Host::new().await;
    host.reopen_with(by_systemd).await;
    let mut config = host.pod_config();
    let wrong = host
        .engine()
        .run_pod_sandbox(config.clone())
        .await
        .unwrap_err();
    assert!(
        wrong.to_string().contains("should be a valid slice"),
        "{wrong}"
    );

    config.cgroup_parent = SLICE.to_owned();
    config.resources = Some(LinuxResources {
        memory_limit_bytes: 256 << 20,
        cpu_shares: 512,
        ..Default::default()
    });
    let pod = host.engine().run_pod_sandbox(config.clone()).await.unwrap();
    assert_eq!(shown(SLICE, "MemoryLimit"), (256 << 20).to_string());
    assert_eq!(shown(SLICE, "CPUShares"), "512");
    assert_eq!(shown(SLICE, "ControlGroup"), PATH);
    let sandbox = format!("sampan-{pod}.scope");
    assert_eq!(shown(&sandbox, "ActiveState"), "active");

    let mut shell = host.shell("while :; do sleep 1; done");
    shell.resources = LinuxResources {
        memory_limit_bytes: 64 << 20,
        cpu_quota: 15_500,
        cpu_period: 100_000,
        cpu_shares: 256,
        pids_limit: 50,
        ..Default::default()
    };
    let id = host.start(&pod, shell).await;
    let scope = format!("sampan-{id}.scope");
    for (property, value) in [
        ("ActiveState", "active"),
        ("Slice", SLICE),
        ("Delegate", "yes"),
        ("MemoryLimit", "67108864"),
        ("CPUQuotaPerSecUSec", "160ms"),
        ("CPUShares", "256"),
        ("TasksMax", "50"),
    ] {
        assert_eq!(shown(&scope, property), value, "{property}");
    }
    let status = host.engine().container_status(&id).await.unwrap();
    let own = format!("{PATH}/{scope}");
    for group in groups_of(status.pid.into()) {
        // Hierarchies that neither side mounts show the root.
        let place = group.splitn(3, ':').nth(2).unwrap().to_owned();
        let known = ["hugetlb", "blkio", "freezer"];
        assert!(
            place == own || known.iter().any(|name| group.contains(name)),
            "{group}"
        );
    }
    // What runs beside the first process is in the same groups, systemd's own among them.
    let beside = ["cat", "/proc/self/cgroup"].map(str::to_owned).to_vec();
    let exec = host.engine().exec_sync(&id, beside, None).await.unwrap();
    let text = String::from_utf8_lossy(&exec.stdout).into_owned();
    assert!(
        text.contains("name=systemd:/\n") && text.contains("memory:/\n"),
        "{text}"
    );

    // Systemd reads everything anew; nothing of ours changes.
    let files = |file: &str| {
        let all = linux::cgroup::Hierarchies::with_systemd().unwrap();
        let group = all.group(&own).unwrap();
        let found = group
            .mounts()
            .into_iter()
            .map(|(_, folder)| folder.join(file));
        let found = found.map(std::fs::read_to_string).find_map(Result::ok);
        found.unwrap().trim().to_owned()
    };
    let devices = files("devices.list");
    assert!(
        devices.contains("c 1:3 ") && !devices.contains("a *:*"),
        "{devices}"
    );
    systemctl(&["daemon-reload"]);
    assert_eq!(files("devices.list"), devices);
    assert_eq!(files("memory.limit_in_bytes"), "67108864");

    let more = LinuxResources {
        memory_limit_bytes: 96 << 20,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        ..Default::default()
    };
    host.engine()
        .update_container_resources(&id, more)
        .await
        .unwrap();
    assert_eq!(shown(&scope, "MemoryLimit"), (96 << 20).to_string());
    assert_eq!(shown(&scope, "CPUQuotaPerSecUSec"), "500ms");
    assert_eq!(files("memory.limit_in_bytes"), (96 << 20).to_string());
    assert_eq!(files("cpu.cfs_quota_us"), "50000");
    assert_eq!(files("devices.list"), devices);
    let whole = LinuxResources {
        memory_limit_bytes: 300 << 20,
        ..Default::default()
    };
    host.engine()
        .update_pod_sandbox_resources(&pod, whole)
        .await
        .unwrap();
    assert_eq!(shown(SLICE, "MemoryLimit"), (300 << 20).to_string());
    let stats = host.engine().pod_sandbox_stats(&pod).await.unwrap();
    assert!(stats.total.process_count >= 2, "{stats:?}");

    // Want of memory is known as such, though systemd takes the group away at once.
    let mut greedy = host.shell("x=0123456789abcdef; while :; do x=$x$x; done");
    greedy.resources.memory_limit_bytes = 16 << 20;
    let greedy = host.start(&pod, greedy).await;
    let ended = host.ended(&greedy).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"));
    let brief = host.shell("cat /sys/fs/cgroup/memory/memory.limit_in_bytes >/dev/null; exit 3");
    let brief = host.start(&pod, brief).await;
    let ended = host.ended(&brief).await;
    assert_eq!(ended.exit_code, 3, "{}", log_of(&ended.log_path));
    let gone = format!("sampan-{brief}.scope");
    host.engine().remove_container(&brief).await.unwrap();
    assert!(!units().contains(&gone), "{}", units());

    // The next server knows them, and the last sandbox of a pod takes the slice with it.
    host.lose_engine().await;
    host.reopen_with(by_systemd).await;
    config.attempt = 1;
    let second = host.engine().run_pod_sandbox(config).await.unwrap();
    host.engine().remove_pod_sandbox(&pod).await.unwrap();
    assert_eq!(shown(SLICE, "ActiveState"), "active");
    assert!(!units().contains(&scope), "{}", units());
    host.engine().remove_pod_sandbox(&second).await.unwrap();
    let left = units();
    assert!(!left.contains(SLICE) && !left.contains("scope"), "{left}");

    // Purging takes what lives, and the slices above.
    let mut config = host.pod_config();
    config.cgroup_parent = SLICE.to_owned();
    let pod = host.engine().run_pod_sandbox(config).await.unwrap();
    host.start(&pod, host.shell("sleep 1000")).await;
    host.lose_engine().await;
    runtime::clean_up(&by_systemd(&host)).unwrap();
    assert_eq!(units(), "");
}

#[tokio::test]
#[ignore = "runs on a machine of systemd's, which another test starts"]
async fn units_have_their_places_in_version_2() {
    let mut host = Host::new().await;
    host.reopen_with(by_systemd).await;
    let mut config = host.pod_config();
    config.cgroup_parent = SLICE.to_owned();
    config.resources = Some(LinuxResources {
        memory_limit_bytes: 256 << 20,
        cpu_shares: 1024,
        ..Default::default()
    });
    let pod = host.engine().run_pod_sandbox(config).await.unwrap();
    assert_eq!(shown(SLICE, "MemoryMax"), (256 << 20).to_string());
    assert_eq!(shown(SLICE, "CPUWeight"), "39");
    let mut shell = host.shell("while :; do sleep 1; done");
    shell.resources.memory_limit_bytes = 64 << 20;
    shell.resources.cpuset_cpus = "0".to_owned();
    let id = host.start(&pod, shell).await;
    let scope = format!("sampan-{id}.scope");
    assert_eq!(shown(&scope, "MemoryMax"), "67108864");
    assert_eq!(shown(&scope, "AllowedCPUs"), "0");
    let status = host.engine().container_status(&id).await.unwrap();
    let groups = groups_of(status.pid.into());
    assert!(groups.contains(&format!("0::{PATH}/{scope}")), "{groups:?}");
    let beside = ["cat", "/proc/self/cgroup"].map(str::to_owned).to_vec();
    let exec = host.engine().exec_sync(&id, beside, None).await.unwrap();
    let text = String::from_utf8_lossy(&exec.stdout).into_owned();
    assert!(text.lines().any(|line| line == "0::/"), "{text}");
    host.engine().remove_pod_sandbox(&pod).await.unwrap();
    assert!(
        !units().contains("scope") && !units().contains(SLICE),
        "{}",
        units()
    );
    host.close().await;
}
