//! Output that goes elsewhere, too, and devices by their names.

use std::os::unix::net::UnixDatagram;

use serde_json::{Value, json};

use crate::host::{Host, PATIENCE, split};

fn logging(kind: &str, options: Value) -> Value {
    json!({"HostConfig": {"NetworkMode": "none",
        "LogConfig": {"Type": kind, "Config": options}}})
}

fn receive(server: &UnixDatagram) -> String {
    let mut bytes = [0; 1024];
    let length = server.recv(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[test]
fn lines_go_to_syslog_and_stay_readable() {
    let mut host = Host::new();
    let path = host.folder().join("syslog");
    let server = UnixDatagram::bind(&path).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let options = json!({"syslog-address": format!("unixgram://{}", path.display()),
        "tag": "{{.Name}}", "syslog-format": "rfc5424"});
    host.create(
        "said",
        "echo one; echo two >&2; sleep 1000",
        logging("syslog", options.clone()),
    );
    host.start("said");
    // Priorities of a daemon: information, then an error, in the order in which the pipes were read.
    let mut seen = [receive(&server), receive(&server)];
    seen.sort_by_key(|line| line.contains("- two"));
    assert!(
        seen[0].starts_with("<30>1 ") && seen[0].ends_with(" said - one\n"),
        "{seen:?}"
    );
    assert!(
        seen[1].starts_with("<27>1 ") && seen[1].ends_with(" said - two\n"),
        "{seen:?}"
    );
    let logs = host.get("/containers/said/logs?stdout=1&stderr=1");
    let (out, err) = split(&logs.body);
    assert_eq!((out.as_str(), err.as_str()), ("one\n", "two\n"));
    // What is said while no engine is there is sent by the next one; what the last one was just
    // sending when it died may come twice.
    let shown = host.inspect("said");
    assert_eq!(shown["HostConfig"]["LogConfig"]["Type"], "syslog");
    let pid = shown["State"]["Pid"].clone();
    host.kill();
    let output = format!("/proc/{pid}/fd/1");
    std::io::Write::write_all(
        &mut std::fs::File::options().write(true).open(output).unwrap(),
        b"three\n",
    )
    .unwrap();
    host.boot();
    let mut next = receive(&server);
    while next.contains(" said - one") || next.contains(" said - two") {
        next = receive(&server);
    }
    assert!(next.ends_with(" said - three\n"), "{next}");
    host.remove("said");
    let gone = json!({"syslog-address": "unixgram:///nowhere/at/all"});
    host.create("mute", "true", logging("syslog", gone));
    let refused = host.post("/containers/mute/start", &Value::Null);
    assert_eq!(refused.status, 500);
    let words = "failed to initialize logging driver: dial unixgram /nowhere/at/all: no such file";
    assert!(refused.text().contains(words), "{}", refused.text());
    // The whole output of a container that is removed when it has ended.
    let mut once = logging("syslog", options);
    once["HostConfig"]["AutoRemove"] = json!(true);
    host.create("once", "for i in 1 2 3; do echo $i; done", once);
    host.start("once");
    for number in 1..=3 {
        assert!(receive(&server).ends_with(&format!(" once - {number}\n")));
    }
}

#[test]
fn what_reads_logs_elsewhere_may_forbid_to_read_them_here() {
    let host = Host::new();
    let wish = json!({"fluentd-async": "true", "cache-disabled": "true"});
    host.create("hidden", "echo x", logging("fluentd", wish));
    let refused = host.get("/containers/hidden/logs?stdout=1");
    assert_eq!(refused.status, 501);
    let wrong = json!({"Image": "busybox", "HostConfig":
        logging("gelf", json!({}))["HostConfig"]});
    let refused = host.post("/containers/create", &wrong);
    let words = "gelf-address is a required parameter";
    assert_eq!(
        (refused.status, &refused.json()["message"]),
        (400, &json!(words))
    );
}

#[test]
fn devices_nobody_knows_are_refused() {
    let host = Host::new();
    let body = |request: Value| {
        json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none",
            "DeviceRequests": [request]}})
    };
    let named = body(json!({"Driver": "cdi", "DeviceIDs": ["sampan.test/none=1"]}));
    assert_eq!(
        host.post("/containers/create?name=named", &named).status,
        201
    );
    let refused = host.post("/containers/named/start", &Value::Null);
    assert!(
        refused.text().contains("sampan.test/none=1"),
        "{}",
        refused.text()
    );
    let all = body(json!({"Driver": "none", "Count": -1, "Capabilities": [["gpu"]]}));
    let refused = host.post("/containers/create", &all);
    let words = "could not select device driver \"none\" with capabilities: [[gpu]]";
    assert_eq!(
        (refused.status, &refused.json()["message"]),
        (500, &json!(words))
    );
}
