//! What containers and images go through.

use serde_json::{Value, json};

use crate::host::{Host, split};

#[test]
fn the_server_says_what_it_is() {
    let host = Host::new();
    let ping = host.get("/_ping");
    assert_eq!((ping.status, ping.text().as_str()), (200, "OK"));
    assert!(ping.head.contains("api-version: 1.51") && ping.head.contains("ostype: linux"));
    assert_eq!(host.get("/v1.24/version").json()["MinAPIVersion"], "1.24");
    assert_eq!(host.get("/v9.9/version").status, 400);
    let image = host.get("/images/busybox/json").json();
    assert_eq!(image["RepoTags"][0], "busybox:latest");
    assert_eq!(image["Config"]["Labels"]["maker"], "test");
    assert_eq!(image["ContainerConfig"], Value::Null);
    let old = host.get("/v1.44/images/busybox/json").json();
    assert_eq!(old["ContainerConfig"], old["Config"]);
    assert_eq!(
        host.get("/images/busybox/history").json()[0]["CreatedBy"],
        "COPY busybox"
    );
    let tagged = host.post(
        "/images/busybox/tag?repo=localhost:5000/box&tag=2",
        &Value::Null,
    );
    assert_eq!(tagged.status, 201);
    let list = host.get("/images/json").json();
    assert_eq!(
        list[0]["RepoTags"],
        json!(["busybox:latest", "localhost:5000/box:2"])
    );
    let saved = host.get("/images/localhost:5000/box:2/get");
    let gone = host.send("DELETE", "/images/localhost:5000/box:2", "", b"");
    assert_eq!(gone.json(), json!([{"Untagged": "localhost:5000/box:2"}]));
    assert_eq!(host.get("/images/localhost:5000/box:2/json").status, 404);
    let back = host.send("POST", "/images/load", "application/x-tar", &saved.body);
    assert!(
        back.text().contains("localhost:5000/box:2"),
        "{}",
        back.text()
    );
}

#[test]
fn nothing_of_a_first_run_is_missed() {
    let host = Host::new();
    host.create(
        "run",
        "cat; echo $FROM_IMAGE; echo err >&2; exit 7",
        json!({
            "OpenStdin": true, "StdinOnce": true, "AttachStdin": true,
        }),
    );
    // As `docker run -i` does: attach, then start.
    let mut streams = host.hijack(
        "/containers/run/attach?stream=1&stdin=1&stdout=1&stderr=1",
        &Value::Null,
    );
    host.start("run");
    streams.input(b"typed\n");
    assert_eq!(
        streams.outputs(),
        ("typed\nyes\n".to_owned(), "err\n".to_owned())
    );
    assert_eq!(host.wait("run"), 7);
    let state = host.inspect("run")["State"].clone();
    assert_eq!(
        (state["Status"].as_str(), state["ExitCode"].as_i64()),
        (Some("exited"), Some(7))
    );
    let logs = host.get("/containers/run/logs?stdout=1&stderr=1");
    assert_eq!(
        split(&logs.body),
        ("typed\nyes\n".to_owned(), "err\n".to_owned())
    );
    // Its files outlive a run: it is the same container that starts again.
    let copied = host.get("/containers/run/archive?path=/data");
    assert!(copied.head.contains("x-docker-container-path-stat"));
    assert_eq!(host.remove("run").status, 204);
    assert_eq!(host.get("/containers/run/json").status, 404);
}

#[test]
fn commands_that_cannot_start_have_their_codes() {
    let host = Host::new();
    for (command, code) in [("nope", 127), ("/etc", 126)] {
        let id = host.create("wrong", "", json!({"Cmd": [command]}));
        let refused = host.post("/containers/wrong/start", &Value::Null);
        assert_eq!(refused.status, 400, "{}", refused.text());
        assert_eq!(host.inspect(&id)["State"]["ExitCode"], code);
        host.remove(&id);
    }
    let missing = host.post(
        "/containers/create",
        &json!({"Image": "nobody/has:it", "Cmd": ["x"]}),
    );
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json()["message"], "No such image: nobody/has:it");
    let unable = host.post(
        "/containers/create",
        &json!({
            "Image": "busybox", "Cmd": ["true"], "HostConfig": {"UsernsMode": "private"},
        }),
    );
    assert_eq!(unable.status, 400, "{}", unable.text());
}

#[test]
fn further_commands_with_their_own_user_and_environment() {
    let host = Host::new();
    host.create("box", "sleep 1000", Value::Null);
    host.start("box");
    let made = host.post(
        "/containers/box/exec",
        &json!({
            "AttachStdout": true, "AttachStderr": true, "Env": ["MINE=1"], "User": "user",
            "WorkingDir": "/data", "Cmd": ["sh", "-c", "id -u; echo $MINE; cat seed; exit 3"],
        }),
    );
    let id = made.json()["Id"].as_str().unwrap().to_owned();
    let streams = host.hijack(&format!("/exec/{id}/start"), &json!({}));
    assert_eq!(streams.outputs().0, "7\n1\nfrom the image\n");
    let shown = host.get(&format!("/exec/{id}/json")).json();
    assert_eq!(
        (shown["ExitCode"].as_i64(), shown["Running"].as_bool()),
        (Some(3), Some(false))
    );
    assert_eq!(host.post("/containers/box/pause", &Value::Null).status, 204);
    assert_eq!(host.inspect("box")["State"]["Status"], "paused");
    assert_eq!(
        host.post("/containers/box/exec", &json!({"Cmd": ["true"]}))
            .status,
        409
    );
    assert_eq!(
        host.post("/containers/box/unpause", &Value::Null).status,
        204
    );
    assert_eq!(
        host.post("/containers/box/stop?t=0", &Value::Null).status,
        204
    );
    assert_eq!(
        host.post("/containers/box/stop?t=0", &Value::Null).status,
        304
    );
    host.start("box");
    assert_eq!(host.inspect("box")["State"]["Running"], true);
}

#[test]
fn a_killed_engine_loses_no_container() {
    let mut host = Host::new();
    let up = host.create("up", "touch /data/mark; sleep 1000", Value::Null);
    host.create(
        "again",
        "echo once more",
        json!({
            "HostConfig": {"NetworkMode": "none", "RestartPolicy": {"Name": "always"}},
        }),
    );
    host.create("idle", "true", Value::Null);
    host.start("up");
    host.start("again");
    let pid = host.inspect("up")["State"]["Pid"].clone();
    host.kill();
    host.boot();
    assert_eq!(
        host.inspect(&up)["State"]["Pid"],
        pid,
        "it is the same process"
    );
    assert_eq!(host.inspect("idle")["State"]["Status"], "created");
    let names = host.get("/containers/json?all=1").json();
    assert_eq!(names.as_array().unwrap().len(), 3);
    // A policy still holds, and a user's word ends it.
    assert_eq!(
        host.post("/containers/again/stop?t=0", &Value::Null).status % 100,
        4
    );
    // What a container wrote is there after it has ended.
    assert_eq!(host.post("/containers/up/kill", &Value::Null).status, 204);
    assert_eq!(host.wait("up"), 137);
    let changes = host.get("/containers/up/changes").json();
    assert!(changes.to_string().contains("/data/mark"), "{changes}");
}

#[test]
fn volumes_are_filled_and_go_with_their_container() {
    let host = Host::new();
    host.create("vol", "cat /data/seed /mem/x; echo more > /data/new", json!({
        "HostConfig": {"NetworkMode": "none", "Binds": ["keep:/data"], "Tmpfs": {"/mem": "size=1m"}},
        "Volumes": {"/tmp": {}},
    }));
    host.start("vol");
    assert_eq!(host.wait("vol"), 0);
    let logs = host.get("/containers/vol/logs?stdout=1");
    assert_eq!(split(&logs.body).0, "from the image\n");
    let volumes = host.get("/volumes").json();
    assert_eq!(volumes["Volumes"].as_array().unwrap().len(), 2);
    assert_eq!(host.send("DELETE", "/volumes/keep", "", b"").status, 409);
    assert_eq!(host.remove("vol").status, 204);
    let left = host.get("/volumes").json();
    assert_eq!(left["Volumes"].as_array().unwrap().len(), 1);
    let place = left["Volumes"][0]["Mountpoint"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(std::fs::read_to_string(place + "/new").unwrap(), "more\n");
    assert_eq!(host.send("DELETE", "/volumes/keep", "", b"").status, 204);
}
