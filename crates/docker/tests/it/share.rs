//! Containers in other containers' namespaces, links, and other wishes of `run`.

use serde_json::{Value, json};

use crate::host::Host;
use crate::nets::exec;

pub(crate) fn with(host: Value) -> Value {
    let mut all = json!({"NetworkMode": "none"});
    for (key, value) in host.as_object().unwrap() {
        all[key] = value.clone();
    }
    json!({ "HostConfig": all })
}

impl Host {
    /// What a script prints in a container with these wishes.
    pub(crate) fn said(&self, script: &str, more: Value) -> String {
        self.create("probe", script, more);
        self.start("probe");
        self.wait("probe");
        let logs = self.get("/containers/probe/logs?stdout=1&stderr=1");
        let (out, err) = crate::host::split(&logs.body);
        assert_eq!(self.remove("probe").status, 204);
        out + &err
    }

    /// How a creation and a start of a container with these wishes are refused.
    pub(crate) fn refused(&self, more: Value) -> (u16, String) {
        let mut body = json!({"Image": "busybox", "Cmd": ["true"]});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        let mut answer = self.post("/containers/create?name=refused", &body);
        if answer.status == 201 {
            answer = self.post("/containers/refused/start", &Value::Null);
            assert_eq!(self.remove("refused").status, 204);
        }
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        (answer.status, message)
    }
}

#[test]
fn annotations_ask_for_a_time_namespace() {
    let host = Host::new();
    let wish = json!({"io.sampan.time-offset/boottime": "-2.5s"});
    let said = host.said(
        "cat /proc/self/timens_offsets",
        with(json!({ "Annotations": wish })),
    );
    let boottime = said.lines().last().unwrap().split_whitespace();
    assert!(boottime.eq(["boottime", "-3", "500000000"]), "{said}");
}

#[test]
fn a_container_joins_the_namespaces_of_another() {
    let host = Host::new();
    let shareable = with(json!({"IpcMode": "shareable"}));
    let id = host.create("one", "echo kept > /dev/shm/x; sleep 1000", shareable);
    let joins = with(json!({"NetworkMode": "container:one"}));
    let (status, message) = host.refused(joins.clone());
    assert_eq!(status, 409);
    assert!(
        message.ends_with(&format!("of a non running container: {id}")),
        "{message}"
    );
    host.start("one");
    // Written before anybody looks.
    let mut streams = host.hijack("/containers/one/attach?stream=1&stdout=1", &Value::Null);
    streams.input(b"");
    let seen = |kinds: &str, more: Value| {
        let script = format!("for kind in {kinds}; do busybox readlink /proc/self/ns/$kind; done");
        host.said(&script, more)
    };
    let of_one = |kind: &str| {
        let pid = host.inspect("one")["State"]["Pid"].clone();
        let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        format!("{}\n", link.display())
    };
    assert_eq!(seen("net", joins.clone()), of_one("net"));
    assert_ne!(seen("ipc", joins.clone()), of_one("ipc"));
    let name = host.inspect("one")["Config"]["Hostname"].clone();
    let files = host.said("cat /etc/hostname", joins.clone());
    assert_eq!(json!(files.trim()), name);
    let pids = with(json!({"PidMode": "container:one"}));
    assert_eq!(seen("pid", pids.clone()), of_one("pid"));
    let first = host.said("cat /proc/1/cmdline", pids);
    assert!(first.contains("sleep"), "{first:?}");
    let ipc = with(json!({"IpcMode": "container:one"}));
    assert_eq!(seen("ipc", ipc.clone()), of_one("ipc"));
    assert_eq!(host.said("cat /dev/shm/x", ipc), "kept\n");

    let mut own_name = joins;
    own_name["Hostname"] = json!("mine");
    let conflict = "conflicting options: hostname and the network mode".to_owned();
    assert_eq!(host.refused(own_name), (400, conflict));
    host.create("private", "sleep 1000", json!({}));
    host.start("private");
    let (status, message) = host.refused(with(json!({"IpcMode": "container:private"})));
    assert_eq!(status, 400);
    assert!(message.contains("non-shareable IPC"), "{message}");
}

#[test]
fn links_tell_addresses_and_settings() {
    let host = Host::new();
    let mut on_bridge = with(json!({"NetworkMode": "bridge"}));
    on_bridge["ExposedPorts"] = json!({"80/tcp": {}});
    on_bridge["Env"] = json!(["COLOUR=red"]);
    host.create("web", "sleep 1000", on_bridge);
    let linked = with(json!({"NetworkMode": "bridge", "Links": ["/web:site"]}));
    let (status, message) = host.refused(linked.clone());
    assert_eq!(
        (status, message.contains("non running container: /web AS")),
        (409, true)
    );
    host.start("web");
    let address = host.inspect("web")["NetworkSettings"]["IPAddress"].clone();
    let address = address.as_str().unwrap();
    let said = host.said(
        "grep site /etc/hosts; echo $SITE_PORT $SITE_ENV_COLOUR",
        linked,
    );
    assert!(said.starts_with(&format!("{address}\tsite ")), "{said}");
    assert!(
        said.ends_with(&format!("\ntcp://{address}:80 red\n")),
        "{said}"
    );
    let nobody = with(json!({"NetworkMode": "bridge", "Links": ["/nobody:site"]}));
    assert_eq!(host.refused(nobody).0, 400);
}

#[test]
fn a_link_is_taken_away_by_its_name() {
    let host = Host::new();
    host.create("web", "sleep 1000", with(json!({"NetworkMode": "bridge"})));
    let linked = json!({"NetworkMode": "bridge", "Links": ["/web:site", "/web:other"]});
    host.create("user", "sleep 1000", with(linked));
    host.start("web");
    host.start("user");
    let known = || exec(&host, "user", "grep -o 'site\\|other' /etc/hosts").1;
    assert_eq!(known(), "site\nother\n");
    let remove = |name: &str| {
        let path = format!("/containers/{name}?link=1");
        host.send("DELETE", &path, "", b"").status
    };
    assert_eq!(remove("user"), 500, "that is its own name");
    assert_eq!((remove("nobody"), remove("user/nobody")), (404, 404));
    assert_eq!(remove("user/site"), 204);
    assert_eq!(known(), "other\n");
    let links = &host.inspect("user")["HostConfig"]["Links"];
    assert_eq!(*links, json!(["/web:/user/other"]));
    assert_eq!(remove("user/site"), 404);
}

#[test]
fn wishes_that_the_kernel_fulfils() {
    let host = Host::new();
    let groups = host.folder().join("group");
    std::fs::write(&groups, "root:x:0:\nmakers:x:4711:\n").unwrap();
    let bind = format!("{}:/etc/group:ro", groups.display());
    let wish = json!({"GroupAdd": ["makers", "4712"], "Binds": [bind]});
    let said = host.said("id -G", with(wish));
    assert!(said.contains("4711") && said.contains("4712"), "{said}");
    let (_, message) = host.refused(with(json!({"GroupAdd": ["strangers"]})));
    assert!(
        message.ends_with("Unable to find group strangers"),
        "{message}"
    );

    let node = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let read = "cat /proc/sys/kernel/hostname";
    assert_eq!(host.said(read, with(json!({"UTSMode": "host"}))), node);
    assert_ne!(host.said(read, json!({})), node);

    let read = "cat /sys/fs/cgroup/memory/memory.soft_limit_in_bytes /sys/fs/cgroup/memory.low";
    let said = host.said(read, with(json!({"MemoryReservation": 32 << 20})));
    assert!(said.contains("33554432\n"), "{said}");

    // A device that no container may use by itself.
    let open = "busybox mknod /tmp/loops c 10 237; cat < /tmp/loops";
    let denied = host.said(open, json!({}));
    assert!(denied.contains("Operation not permitted"), "{denied}");
    let allowed = host.said(open, with(json!({"DeviceCgroupRules": ["c 10:* rmw"]})));
    assert!(!allowed.contains("Operation not permitted"), "{allowed}");
    let (status, _) = host.refused(with(json!({"DeviceCgroupRules": ["x 10:* rmw"]})));
    assert_eq!(status, 400);

    let mut wish = with(json!({"NetworkMode": "bridge"}));
    wish["MacAddress"] = json!("02:42:AC:11:00:99");
    let address = host.said("cat /sys/class/net/eth0/address", wish);
    assert_eq!(address, "02:42:ac:11:00:99\n");
}

#[test]
fn parts_of_volumes_and_images_are_mounted() {
    let host = Host::new();
    let whole = with(json!({"Binds": ["kept:/all"]}));
    let script =
        "busybox mkdir -p /all/part; echo text > /all/part/file; busybox ln -s /etc /all/out";
    assert_eq!(host.said(script, whole), "");
    let part = |path: &str| {
        let options = json!({"Subpath": path});
        with(json!({"Mounts": [
            {"Type": "volume", "Source": "kept", "Target": "/part", "VolumeOptions": options},
        ]}))
    };
    assert_eq!(host.said("cat /part/file", part("part")), "text\n");
    // A link leads nowhere out of the volume.
    assert!(host.refused(part("out")).1.contains("/kept"));
    assert_eq!(host.refused(part("../kept")).0, 400);
    let image = with(json!({"Mounts": [
        {"Type": "image", "Source": "busybox", "Target": "/image", "ImageOptions": {"Subpath": "data"}},
    ]}));
    let said = host.said("cat /image/seed; touch /image/new", image);
    assert!(
        said.starts_with("from the image\n") && said.contains("Read-only"),
        "{said}"
    );
}
