//! Networks: names, isolation, published ports.

use serde_json::{Value, json};

use crate::host::{Host, split};

pub(crate) fn exec(host: &Host, name: &str, script: &str) -> (i64, String) {
    let made = host.post(
        &format!("/containers/{name}/exec"),
        &json!({
            "AttachStdout": true, "AttachStderr": true, "Cmd": ["sh", "-c", script],
        }),
    );
    let id = made.json()["Id"].as_str().unwrap().to_owned();
    let (out, err) = host
        .hijack(&format!("/exec/{id}/start"), &json!({}))
        .outputs();
    let code = host.get(&format!("/exec/{id}/json")).json()["ExitCode"]
        .as_i64()
        .unwrap();
    (code, out + &err)
}

pub(crate) fn on(network: &str, more: Value) -> Value {
    let mut host = json!({"NetworkMode": network});
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        host[key] = value;
    }
    json!({ "HostConfig": host })
}

#[test]
fn containers_of_a_network_know_each_other_by_name() {
    let host = Host::new();
    let made = host.post(
        "/networks/create",
        &json!({
            "Name": "front", "IPAM": {"Config": [{"Subnet": "10.77.0.0/24"}]}, "Labels": {"a": "b"},
        }),
    );
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(
        host.post("/networks/create", &json!({"Name": "front"}))
            .status,
        409
    );
    assert_eq!(
        host.post("/networks/create", &json!({"Name": "back"}))
            .status,
        201
    );
    let serve = "while true; do echo page | nc -l -p 80; done";
    let mut body = on(
        "front",
        json!({"PortBindings": {"80/tcp": [{"HostPort": "8099"}]}}),
    );
    body["NetworkingConfig"] = json!({"EndpointsConfig": {"front": {
        "Aliases": ["site"], "IPAMConfig": {"IPv4Address": "10.77.0.50"},
    }}});
    host.create("web", serve, body);
    host.create("near", "sleep 1000", on("front", Value::Null));
    host.create("far", "sleep 1000", on("back", Value::Null));
    for name in ["web", "near", "far"] {
        host.start(name);
    }
    // Listening is the program's affair: it says so by being there.
    exec(
        &host,
        "web",
        "until netstat -ltn | grep -q :80; do true; done",
    );
    let shown = host.inspect("web");
    assert_eq!(
        shown["NetworkSettings"]["Networks"]["front"]["IPAddress"],
        "10.77.0.50"
    );
    assert_eq!(
        shown["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"],
        "8099"
    );
    for name in ["web", "site", "web.front"] {
        let (_, words) = exec(&host, "near", &format!("nslookup {name}"));
        assert!(words.contains("10.77.0.50"), "{name}: {words}");
    }
    // Published on the machine, which is a namespace here; its loopback too.
    assert_eq!(host.inside("nc -w 4 127.0.0.1 8099"), "page\n");
    // Between two answers nobody listens for a moment.
    let patient = "for i in 1 2 3 4 5 6 7 8 9; do nc -w 4 10.77.0.50 80 2>/dev/null && exit; sleep 0.2; done; exit 1";
    assert_eq!(exec(&host, "near", patient), (0, "page\n".to_owned()));
    // Another network knows neither the name nor the way.
    let (code, words) = exec(&host, "far", "nc -w 1 10.77.0.50 80");
    assert_ne!(code, 0, "{words}");
    assert_eq!(
        host.post("/networks/back/connect", &json!({"Container": "web"}))
            .status,
        200
    );
    let web = host.inspect("web")["NetworkSettings"]["Networks"]["back"]["IPAddress"].clone();
    let (_, words) = exec(&host, "far", "nslookup web");
    assert!(words.contains(web.as_str().unwrap()), "{words}");
    let left = host.post("/networks/back/disconnect", &json!({"Container": "web"}));
    assert_eq!(left.status, 200, "{}", left.text());
    assert_eq!(host.send("DELETE", "/networks/front", "", b"").status, 403);
    for name in ["web", "near", "far"] {
        host.remove(name);
    }
    assert_eq!(host.send("DELETE", "/networks/front", "", b"").status, 204);
    let pruned = host.post("/networks/prune", &Value::Null).json();
    assert_eq!(pruned["NetworksDeleted"], json!(["back"]));
}

#[test]
fn a_port_is_given_once_and_comes_back_free() {
    let host = Host::new();
    let ports = json!({"PortBindings": {"80/tcp": [{"HostPort": "8098"}], "81/udp": [{}]}});
    let first = host.create("first", "sleep 1000", on("bridge", ports.clone()));
    host.create("second", "sleep 1000", on("bridge", ports));
    host.start("first");
    let shown = host.inspect(&first);
    let any = &shown["NetworkSettings"]["Ports"]["81/udp"][0]["HostPort"];
    assert!(any.as_str().unwrap().parse::<u16>().unwrap() > 0);
    let refused = host.post("/containers/second/start", &Value::Null);
    assert_eq!(refused.status, 500);
    assert!(
        refused.text().contains("port is already allocated"),
        "{}",
        refused.text()
    );
    host.remove("first");
    host.start("second");
    let hosts = "cat /etc/hosts";
    let (_, text) = exec(&host, "second", hosts);
    let own = host.inspect("second");
    let address = own["NetworkSettings"]["IPAddress"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(text.contains(&address), "{text}");
    let logs = host.get("/containers/second/logs?stdout=1");
    assert_eq!(split(&logs.body).0, "");
}
