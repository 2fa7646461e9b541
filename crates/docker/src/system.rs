//! What the server is, and how much room everything takes.

use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use node_api::RuntimeService;

use crate::answer::{self, Answer};
use crate::call::{Call, Filters};
use crate::containers;
use crate::record::{Status, moment, now};
use crate::routes::{NEWEST_TEXT, OLDEST_TEXT};

/// The version of docker whose behaviour this is.
const VERSION: &str = "28.2.2";

/// `GET` and `HEAD` of `/_ping`.
pub(crate) fn ping(head: bool) -> Answer {
    let body = match head {
        true => answer::nothing(),
        false => answer::full("OK"),
    };
    let mut response = answer::with_type(StatusCode::OK, "text/plain; charset=utf-8", body);
    let headers = response.headers_mut();
    headers.insert("builder-version", HeaderValue::from_static("2"));
    headers.insert("swarm", HeaderValue::from_static("inactive"));
    headers.insert(
        "cache-control",
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    headers.insert("pragma", HeaderValue::from_static("no-cache"));
    Ok(response)
}

fn kernel() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    text.trim().to_owned()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(crate) async fn version() -> Answer {
    let engine = env!("CARGO_PKG_VERSION");
    answer::ok(&json!({
        "Platform": {"Name": "Sampan"},
        "Version": VERSION,
        "ApiVersion": NEWEST_TEXT,
        "MinAPIVersion": OLDEST_TEXT,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": architecture(),
        "KernelVersion": kernel(),
        "BuildTime": "",
        "Components": [
            {"Name": "Engine", "Version": VERSION, "Details": {
                "ApiVersion": NEWEST_TEXT, "MinAPIVersion": OLDEST_TEXT, "Os": "linux",
                "Arch": architecture(), "KernelVersion": kernel(), "Experimental": "false",
                "GitCommit": "", "GoVersion": "", "BuildTime": "",
            }},
            {"Name": "sampan", "Version": engine, "Details": {"GitCommit": ""}},
        ],
    }))
}

/// Lines such as `PRETTY_NAME="…"` of `/etc/os-release`.
fn os_release(name: &str) -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let start = format!("{name}=");
    let found = text.lines().find_map(|line| line.strip_prefix(&start));
    found.unwrap_or_default().trim_matches('"').to_owned()
}

pub(crate) async fn info(call: Call) -> Answer {
    let daemon = &call.daemon;
    let count = |wanted: &dyn Fn(Status) -> bool| {
        let all = daemon.all();
        all.iter()
            .filter(|c| wanted(c.record.read().state.status))
            .count()
    };
    let (running, paused) = (
        count(&|status| status == Status::Running),
        count(&|status| status == Status::Paused),
    );
    let total = count(&|_| true);
    let images = crate::images::shown(daemon, &Filters::default())
        .await?
        .len();
    let unified = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let able = &daemon.able;
    let mut security = vec!["name=seccomp,profile=builtin"];
    if daemon.remap.is_some() {
        security.push("name=userns");
    }
    answer::ok(&json!({
        "ID": "sampan", "Containers": total, "ContainersRunning": running,
        "ContainersPaused": paused, "ContainersStopped": total - running - paused,
        "Images": images, "Driver": "overlay2", "DriverStatus": [],
        "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "ipvlan", "macvlan", "null", "overlay"],
            "Authorization": null, "Log": ["fluentd", "gelf", "journald", "json-file", "local", "none", "syslog"]},
        "MemoryLimit": able.memory, "SwapLimit": able.swap, "CpuCfsPeriod": able.cpu_quota,
        "CpuCfsQuota": able.cpu_quota, "CPUShares": able.cpu_quota, "CPUSet": able.cpuset,
        "PidsLimit": able.pids, "IPv4Forwarding": true, "OomKillDisable": able.oom_kill_disable,
        "BlkioWeight": able.block_weight, "BlkioWeightDevice": able.block_weight_device,
        "BlkioReadBpsDevice": able.block_rates, "BlkioWriteBpsDevice": able.block_rates,
        "BlkioReadIOpsDevice": able.block_rates, "BlkioWriteIOpsDevice": able.block_rates,
        "CpuRealtimePeriod": able.real_time, "CpuRealtimeRuntime": able.real_time, "Debug": false, "NFd": 0, "NGoroutines": 0,
        "NEventsListener": 0, "SystemTime": moment(now()), "LoggingDriver": "json-file",
        "CgroupDriver": daemon.engine.cgroup_driver().name(), "CgroupVersion": if unified { "2" } else { "1" },
        "KernelVersion": kernel(), "OperatingSystem": os_release("PRETTY_NAME"),
        "OSVersion": os_release("VERSION_ID"), "OSType": "linux",
        "Architecture": std::env::consts::ARCH,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {"InsecureRegistryCIDRs": ["127.0.0.0/8"], "IndexConfigs": {},
            "Mirrors": []},
        "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
        "MemTotal": containers::machine_memory(), "GenericResources": null,
        "DockerRootDir": daemon.folder, "HttpProxy": "", "HttpsProxy": "", "NoProxy": "",
        "Name": name.trim(), "Labels": [], "ExperimentalBuild": false, "ServerVersion": VERSION,
        "Runtimes": {"sampan": {"path": "sampan"}}, "DefaultRuntime": "sampan",
        "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive",
            "ControlAvailable": false, "Error": "", "RemoteManagers": null},
        "LiveRestoreEnabled": true, "Isolation": "", "InitBinary": "",
        "ContainerdCommit": {"ID": ""}, "RuncCommit": {"ID": ""}, "InitCommit": {"ID": ""},
        "SecurityOptions": security, "Warnings": null,
    }))
}

/// `GET /system/df`.
pub(crate) async fn usage(call: Call) -> Answer {
    let daemon = &call.daemon;
    let images = crate::images::shown(daemon, &Filters::default()).await?;
    let mut shown: Vec<Value> = Vec::new();
    for container in daemon.all() {
        let record = container.snapshot();
        shown.push(json!({
            "Id": record.id, "Names": [format!("/{}", record.name)], "Image": record.config.image,
            "ImageID": record.image_id, "Created": record.created / 1_000_000_000,
            "State": record.state.status.word(), "Status": record.state.status.word(),
            "SizeRw": crate::volumes::folder_bytes(&container.folder.join("rw/upper")),
            "Mounts": record.mounts, "Labels": record.config.labels, "Ports": [],
            "Command": record.args().join(" "),
        }));
    }
    let store = daemon.engine.images().clone();
    let bytes = tokio::task::spawn_blocking(move || store.disk_bytes())
        .await
        .map_err(crate::answer::Fault::internal)??;
    answer::ok(&json!({
        "LayersSize": bytes, "Images": images, "Containers": shown,
        "Volumes": crate::volumes::usage(daemon),
        "BuildCache": crate::builds::usage(daemon).await?,
    }))
}
