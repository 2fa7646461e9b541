//! Containers whose ids are others on the machine (`--userns-remap`).

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::host::{FIRST_GROUP, FIRST_USER, Host};
use crate::nets::{exec, on};
use crate::share::with;

const ROOT: (u32, u32) = (FIRST_USER, FIRST_GROUP);
/// Who somebody without an id inside is there.
const NOBODY: &str = "65534:65534";

/// Who something of the machine belongs to.
fn owner(path: impl AsRef<Path>) -> (u32, u32) {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

/// A script that prints who these belong to.
fn owners(paths: &str) -> String {
    format!("busybox stat -c %u:%g {paths}")
}

/// Names and owners in an archive.
fn archived(bytes: &[u8]) -> BTreeMap<String, (u64, u64)> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().unwrap().map(Result::unwrap);
    let entry = |entry: tar::Entry<'_, &[u8]>| {
        let name = entry.path().unwrap().display().to_string();
        let header = entry.header();
        (
            name.trim_end_matches('/').to_owned(),
            (header.uid().unwrap(), header.gid().unwrap()),
        )
    };
    entries.map(entry).collect()
}

/// An archive of one file, that has this owner.
fn file(name: &str, (uid, gid): (u64, u64)) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o4755);
    header.set_uid(uid);
    header.set_gid(gid);
    header.set_mtime(0);
    archive.append_data(&mut header, name, &b"hi"[..]).unwrap();
    archive.into_inner().unwrap()
}

fn pid(host: &Host, name: &str) -> u64 {
    host.inspect(name)["State"]["Pid"].as_u64().unwrap()
}

fn namespace(host: &Host, name: &str, kind: &str) -> String {
    let path = format!("/proc/{}/ns/{kind}", pid(host, name));
    std::fs::read_link(path).unwrap().display().to_string()
}

#[test]
fn root_of_a_container_is_somebody_else_on_the_machine() {
    let host = Host::remapping();
    let options = host.get("/info").json()["SecurityOptions"].clone();
    let options = options.as_array().unwrap();
    assert!(options.contains(&json!("name=userns")), "{options:?}");

    let more = with(json!({
        "Tmpfs": {"/memory": "mode=700"},
        "Sysctls": {"net.ipv4.ip_unprivileged_port_start": "77"},
    }));
    let id = host.create("box", "sleep 1000", more);
    host.start("box");
    assert_eq!(host.inspect("box")["HostConfig"]["UsernsMode"], "");
    let pid = pid(&host, "box");
    assert_eq!(owner(format!("/proc/{pid}")), ROOT);
    for (file, first) in [("uid_map", FIRST_USER), ("gid_map", FIRST_GROUP)] {
        let map = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        let words: Vec<_> = map.split_whitespace().collect();
        assert_eq!(words, ["0", &first.to_string(), "65536"]);
    }
    let script = "id -u; touch /mine /memory/x /dev/shm/x; busybox mkdir -p /data/more; \
                  busybox chown 7:8 /data/seed /mine; cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
    assert_eq!(exec(&host, "box", script), (0, "0\n77\n".to_owned()));
    let places = "/ /data/more /memory /etc/hosts /etc/resolv.conf /etc/hostname /bin/busybox";
    let (code, seen) = exec(&host, "box", &owners(places));
    assert_eq!((code, seen), (0, "0:0\n".repeat(7)));
    // It may write to its files of /etc, and to nothing of the kernel's.
    let writes = "echo >> /etc/hosts && ! { echo 1 > /proc/sys/kernel/panic; } 2> /dev/null";
    assert_eq!(exec(&host, "box", writes), (0, String::new()));
    // On disk all is as inside.
    let upper = host
        .folder()
        .join("docker/containers")
        .join(&id)
        .join("rw/upper");
    for (name, expect) in [
        ("", (0, 0)),
        ("mine", (7, 8)),
        ("data/seed", (7, 8)),
        ("memory", (0, 0)),
    ] {
        assert_eq!(owner(upper.join(name)), expect, "{name:?}");
    }
    let changes = host.get("/containers/box/changes").json();
    let changed: Vec<_> = changes
        .as_array()
        .unwrap()
        .iter()
        .map(|change| change["Path"].as_str().unwrap())
        .collect();
    assert_eq!(changed, ["/data", "/data/more", "/data/seed", "/mine"]);
}

#[test]
fn copies_and_images_have_the_ids_that_are_seen_inside() {
    let host = Host::remapping();
    let script = "touch /mine; busybox chown 7:8 /mine; busybox ln -s /mine /link; sleep 1000";
    host.create("box", script, Value::Null);
    host.start("box");
    exec(&host, "box", "until test -L /link; do true; done");
    let put = |place: &str, owner| {
        let path = format!("/containers/box/archive?path={place}");
        host.send("PUT", &path, "application/x-tar", &file("deep/in", owner))
    };
    let get = |path: &str| {
        let got = host.get(&format!("/containers/box/archive?path={path}"));
        assert_eq!(got.status, 200, "{}", got.text());
        archived(&got.body)
    };
    for place in ["/data", "/tmp"] {
        let answer = put(place, (9, 10));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let (_, seen) = exec(
            &host,
            "box",
            &owners(&format!("{place}/deep {place}/deep/in")),
        );
        assert_eq!(seen, "0:0\n9:10\n");
        let modes = format!("busybox stat -c %a {place}/deep/in");
        assert_eq!(exec(&host, "box", &modes).1, "4755\n");
        let found = get(&format!("{place}/deep"));
        assert_eq!((found["deep"], found["deep/in"]), ((0, 0), (9, 10)));
    }
    let refused = put("/tmp", (70_000, 0));
    assert!(
        refused.text().contains("--userns-remap"),
        "{}",
        refused.text()
    );
    assert_eq!(
        (get("/mine")["mine"], get("/link")["link"]),
        ((7, 8), (0, 0))
    );

    let exported = host.get("/containers/box/export");
    let found = archived(&exported.body);
    assert_eq!((found["mine"], found["tmp/deep/in"]), ((7, 8), (9, 10)));
    let made = host.post("/commit?container=box&repo=made", &json!({}));
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(
        host.output("made", &owners("/mine /tmp/deep/in")),
        "7:8\n9:10\n"
    );

    host.post("/containers/box/kill", &Value::Null);
    host.wait("box");
    assert_eq!(put("/data", (11, 12)).status, 200);
    assert_eq!(get("/data/deep")["deep/in"], (11, 12));
    host.start("box");
    assert_eq!(exec(&host, "box", &owners("/data/deep/in")).1, "11:12\n");
}

#[test]
fn volumes_belong_to_containers_and_binds_to_the_machine() {
    let host = Host::remapping();
    let bound = host.folder().join("bound");
    let (made, private) = (bound.join("new/er"), bound.join("private"));
    std::fs::create_dir_all(&private).unwrap();
    std::os::unix::fs::chown(&private, Some(5), Some(FIRST_GROUP + 6)).unwrap();
    let binds = json!([
        "filled:/data",
        "empty:/empty",
        format!("{}:/made", made.display()),
        format!("{}:/private", private.display()),
    ]);
    let script = format!(
        "touch /empty/x /made/x; busybox chown 7:8 /empty/x; touch /private/x 2>/dev/null || echo denied; {}",
        owners("/data /data/seed /empty /empty/x /made /made/x /private"),
    );
    let said = host.said(&script, with(json!({ "Binds": binds })));
    assert_eq!(said, "denied\n0:0\n0:0\n0:0\n7:8\n0:0\n0:0\n65534:6\n");
    let volume = |name: &str| {
        host.folder()
            .join("docker/volumes")
            .join(name)
            .join("_data")
    };
    assert_eq!(owner(volume("filled")), ROOT);
    assert_eq!(owner(volume("filled").join("seed")), ROOT);
    assert_eq!(
        owner(volume("empty").join("x")),
        (FIRST_USER + 7, FIRST_GROUP + 8)
    );
    assert_eq!(owner(bound.join("new")), ROOT);
    assert_eq!(owner(made.join("x")), ROOT);
    assert_eq!(owner(&private), (5, FIRST_GROUP + 6));
    // Who is not remapped sees the machine's ids.
    let binds = json!(["empty:/empty"]);
    let plain = with(json!({"Binds": binds, "UsernsMode": "host"}));
    let said = host.said(&owners("/empty/x"), plain);
    assert_eq!(said, format!("{}:{}\n", FIRST_USER + 7, FIRST_GROUP + 8));
}

#[test]
fn the_way_out_and_what_needs_it() {
    let host = Host::remapping();
    let plain = "cat /proc/self/uid_map";
    let whole = ["0", "0", "4294967295"];
    for wish in [
        json!({"UsernsMode": "host"}),
        json!({"UsernsMode": "host", "Privileged": true}),
        json!({"UsernsMode": "host", "NetworkMode": "host", "PidMode": "host", "IpcMode": "host"}),
    ] {
        let said = host.said(plain, with(wish));
        assert!(said.split_whitespace().eq(whole), "{said}");
    }
    let cannot = |what: &str| {
        format!("cannot share the host{what} namespace when user namespaces are enabled")
    };
    for (wish, expect) in [
        (
            json!({"Privileged": true}),
            "privileged mode is incompatible with user namespaces.  You must run the container in \
             the host namespace when running privileged mode"
                .to_owned(),
        ),
        (json!({"NetworkMode": "host"}), cannot("'s network")),
        (json!({"PidMode": "host"}), cannot(" PID")),
        (json!({"IpcMode": "host"}), cannot(" IPC")),
        (
            json!({"UsernsMode": "private"}),
            "--userns: invalid USER mode".to_owned(),
        ),
    ] {
        assert_eq!(host.refused(with(wish)), (400, expect));
    }
}

#[test]
fn who_joins_a_container_is_in_its_user_namespace() {
    let host = Host::remapping();
    let shareable = json!({"IpcMode": "shareable", "UsernsMode": ""});
    host.create("one", "sleep 1000", with(shareable.clone()));
    let mut plain = shareable;
    plain["UsernsMode"] = json!("host");
    host.create("plain", "sleep 1000", with(plain));
    host.start("one");
    host.start("plain");
    // Only who is in the namespace that owns the network may change it.
    let script = "busybox ip link set lo mtu 1400 && cat /sys/class/net/lo/mtu; sleep 1000";
    for (index, wish) in [
        json!({"NetworkMode": "container:one", "CapAdd": ["NET_ADMIN"], "Init": true}),
        json!({"PidMode": "container:one"}),
        json!({"IpcMode": "container:one"}),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("two{index}");
        host.create(&name, script, with(wish.clone()));
        host.start(&name);
        assert_eq!(
            namespace(&host, &name, "user"),
            namespace(&host, "one", "user")
        );
        let own = exec(&host, &name, &owners("/ /bin/busybox")).1;
        assert_eq!(own, "0:0\n0:0\n");
        let mut other = wish;
        for (_, mode) in other.as_object_mut().unwrap() {
            if mode == "container:one" {
                *mode = json!("container:plain");
            }
        }
        let (status, message) = host.refused(with(other));
        assert_eq!(status, 400);
        assert!(message.contains("(--userns=host)"), "{message}");
    }
    assert_eq!(
        namespace(&host, "two0", "net"),
        namespace(&host, "one", "net")
    );
    assert_eq!(
        namespace(&host, "two2", "ipc"),
        namespace(&host, "one", "ipc")
    );
    let changed = "until grep -q 1400 /sys/class/net/lo/mtu; do true; done";
    assert_eq!(exec(&host, "two0", changed).0, 0);
    // The other way round, too.
    let (_, message) = host.refused(with(json!({
        "NetworkMode": "container:one", "UsernsMode": "host",
    })));
    assert!(message.contains("(--userns=host)"), "{message}");
}

#[test]
fn ports_are_published_and_names_known() {
    let host = Host::remapping();
    let made = host.post("/networks/create", &json!({"Name": "front"}));
    assert_eq!(made.status, 201, "{}", made.text());
    let serve = "while true; do echo page | nc -l -p 80; done";
    let ports = json!({"PortBindings": {"80/tcp": [{"HostPort": "8097"}]}});
    host.create("web", serve, on("front", ports));
    host.create("near", "sleep 1000", on("front", Value::Null));
    host.start("web");
    host.start("near");
    exec(
        &host,
        "web",
        "until netstat -ltn | grep -q :80; do true; done",
    );
    assert_eq!(host.inside("nc -w 4 127.0.0.1 8097"), "page\n");
    let address = host.inspect("web")["NetworkSettings"]["Networks"]["front"]["IPAddress"].clone();
    let (_, words) = exec(&host, "near", "nslookup web");
    assert!(words.contains(address.as_str().unwrap()), "{words}");
}

#[test]
fn builds_run_with_other_ids_and_make_the_same_images() {
    let host = Host::remapping();
    let dockerfile = format!(
        "FROM busybox\n\
         COPY --chown=7:8 file /copied\n\
         RUN --mount=type=cache,target=/cache,uid=7 \
           busybox mkdir /home && busybox chown 7 /home && \
           touch /made /cache/x && busybox chown 9:10 /made && {} && cat /proc/self/uid_map\n\
         USER 7\n\
         RUN touch /home/own\n",
        owners("/cache /cache/x /copied"),
    );
    let text = host.built("t=made", &[("Dockerfile", &dockerfile), ("file", "x")]);
    assert!(text.contains("7:0\n0:0\n7:8\n"), "{text}");
    assert!(text.contains(&FIRST_USER.to_string()), "{text}");
    let seen = host.output("made", &owners("/copied /made /home/own /bin/busybox"));
    assert_eq!(seen, "7:8\n9:10\n7:7\n0:0\n");
}

#[test]
fn an_engine_takes_over_what_ran_with_other_ids() {
    let mut host = Host::remapping();
    let script = "touch /mine; sleep 1000";
    host.create("box", script, Value::Null);
    host.start("box");
    exec(&host, "box", "until test -e /mine; do true; done");
    let before = pid(&host, "box");
    host.kill();
    host.remaps = false;
    host.boot();
    assert_eq!(pid(&host, "box"), before);
    assert_eq!(exec(&host, "box", &owners("/mine /")).1, "0:0\n0:0\n");
    let get = || archived(&host.get("/containers/box/archive?path=/mine").body)["mine"];
    assert_eq!(get(), (0, 0));
    // Started anew it is as the engine is told now, with the files it had.
    host.post("/containers/box/restart?t=0", &Value::Null);
    assert_eq!(owner(format!("/proc/{}", pid(&host, "box"))), (0, 0));
    assert_eq!(exec(&host, "box", &owners("/mine /")).1, "0:0\n0:0\n");
    host.create("bound", "sleep 1000", with(json!({"Privileged": true})));
    host.kill();
    host.remaps = true;
    host.boot();
    host.post("/containers/box/restart?t=0", &Value::Null);
    assert_eq!(owner(format!("/proc/{}", pid(&host, "box"))), ROOT);
    assert_eq!(exec(&host, "box", &owners("/mine /")).1, "0:0\n0:0\n");
    assert_eq!(
        exec(&host, "box", &owners("/proc/sys")).1,
        format!("{NOBODY}\n")
    );
    let refused = host.post("/containers/bound/start", &Value::Null);
    assert!(
        refused.text().contains("privileged mode is incompatible"),
        "{}",
        refused.text()
    );
}
