//! Limits of block devices and others that not every machine has, room on disks, ids of execs.

use serde_json::{Value, json};

use crate::host::Host;

/// The first block device there is.
fn device() -> Option<(String, String)> {
    let mut entries: Vec<_> = std::fs::read_dir("/sys/block").ok()?.flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let usable = |entry: &std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let number = std::fs::read_to_string(entry.path().join("dev")).ok()?;
        let path = format!("/dev/{name}");
        std::fs::exists(&path)
            .ok()?
            .then(|| (path, number.trim().to_owned()))
    };
    entries.iter().find_map(usable)
}

/// A file of a container's cgroup, in version 1.
fn old_group(host: &Host, name: &str, controller: &str, file: &str) -> Option<String> {
    let pid = host.inspect(name)["State"]["Pid"].to_string();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let own = groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        (controllers == controller).then(|| path.to_owned())
    })?;
    std::fs::read_to_string(format!("/sys/fs/cgroup/{controller}{own}/{file}")).ok()
}

#[test]
fn block_devices_are_limited_as_far_as_the_kernel_goes() {
    let host = Host::new();
    let info = host.get("/info").json();
    let Some((path, number)) = device() else {
        eprintln!("skipped: no block device");
        return;
    };
    let limits = json!({
        "NetworkMode": "none", "BlkioWeight": 300,
        "BlkioDeviceReadBps": [{"Path": path, "Rate": 1_048_576}],
        "BlkioDeviceWriteIOps": [{"Path": path, "Rate": 50}],
    });
    let body = json!({"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": limits});
    let made = host.post("/containers/create?name=slow", &body);
    assert_eq!(made.status, 201, "{}", made.text());
    let warned = made.json()["Warnings"].as_array().unwrap().len();
    let unable = |name: &str| usize::from(info[name] == false);
    let told =
        unable("BlkioWeight") + unable("BlkioReadBpsDevice") + unable("BlkioWriteIOpsDevice");
    assert_eq!(warned, told, "{}", made.text());
    host.start("slow");
    if info["BlkioReadBpsDevice"] == true {
        let kept = host.inspect("slow")["HostConfig"]["BlkioDeviceReadBps"].clone();
        assert_eq!(kept, json!([{"Path": path, "Rate": 1_048_576}]));
    }
    let rate = |file: &str| old_group(&host, "slow", "blkio", file);
    let reads = "blkio.throttle.read_bps_device";
    if let Some(text) = rate(reads) {
        assert_eq!(text.trim(), format!("{number} 1048576"));
        let wish = json!({"BlkioDeviceReadBps": [{"Path": path, "Rate": 2_097_152}]});
        let updated = host.post("/containers/slow/update", &wish);
        assert_eq!(updated.status, 200, "{}", updated.text());
        assert_eq!(rate(reads).unwrap().trim(), format!("{number} 2097152"));
        let writes = rate("blkio.throttle.write_iops_device").unwrap();
        assert_eq!(writes.trim(), format!("{number} 50"), "the others stay");
    }
    for wrong in [
        json!({"BlkioWeight": 5}),
        json!({"BlkioDeviceReadBps": [{"Path": "/dev/none", "Rate": 1}]}),
    ] {
        let refused = host.post("/containers/slow/update", &wrong);
        assert_eq!(refused.status, 400, "{}", refused.text());
    }
}

#[test]
fn real_time_and_swapping_are_the_kernels_to_give() {
    let host = Host::new();
    let info = host.get("/info").json();
    let limits = json!({"NetworkMode": "none", "CpuRealtimeRuntime": 1000});
    let body = json!({"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": limits});
    let made = host.post("/containers/create?name=rt", &body);
    if info["CpuRealtimeRuntime"] == true {
        host.start("rt");
        let own = old_group(&host, "rt", "cpu", "cpu.rt_runtime_us");
        assert_eq!(own.as_deref().map(str::trim), Some("1000"));
    } else {
        assert_eq!(made.status, 400);
        assert!(
            made.text().contains("CPU real-time runtime"),
            "{}",
            made.text()
        );
    }
    host.create(
        "kept",
        "sleep 1000",
        json!({"HostConfig": {"NetworkMode": "none", "MemorySwappiness": 11}}),
    );
    host.start("kept");
    if let Some(swappiness) = old_group(&host, "kept", "memory", "memory.swappiness") {
        assert_eq!(swappiness.trim(), "11");
    }
}

#[test]
fn room_is_limited_only_where_it_is_counted() {
    let host = Host::new();
    // Tests' folders are on file systems without accounts of projects, or with: both are right.
    let volume = host.post(
        "/volumes/create",
        &json!({"Name": "small", "DriverOpts": {"size": "8m"}}),
    );
    let limits = json!({"NetworkMode": "none", "StorageOpt": {"size": "8m"}});
    let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": limits});
    let made = host.post("/containers/create?name=small", &body);
    if linux::quota::is_supported(host.folder()) {
        assert_eq!((volume.status, made.status), (201, 201));
        return;
    }
    assert_eq!(volume.status, 400);
    let words = "create small: quota size requested but no quota support";
    assert_eq!(volume.json()["message"], words);
    assert_eq!(made.status, 400);
    assert!(made.text().contains("overlay over xfs with 'pquota'"));
    assert_eq!(host.get("/containers/json?all=1").json(), json!([]));
}

#[test]
fn an_exec_tells_its_process() {
    let host = Host::new();
    host.create("one", "sleep 1000", Value::Null);
    host.start("one");
    let wish = json!({"Cmd": ["sleep", "1000"], "AttachStdout": true});
    let id = host.post("/containers/one/exec", &wish).json()["Id"].clone();
    let id = id.as_str().unwrap();
    let started = host.post(&format!("/exec/{id}/start"), &json!({"Detach": true}));
    assert_eq!(started.status, 200, "{}", started.text());
    let pid = host.get(&format!("/exec/{id}/json")).json()["Pid"].clone();
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(words, b"sleep\x001000\x00");
}
