//! Drivers of volumes and logs, and networks beside plain bridges: IPv6, options, macvlan, overlays between two machines, which are
//! network namespaces here.

use serde_json::{Value, json};

use crate::host::Host;
use crate::nets::{exec, on};

/// Serves a page on port 80, again and again.
const SERVE: &str = "while true; do echo page | nc -l -p 80; done";
const LISTENS: &str = "until netstat -ltn | grep -q :80; do true; done";

fn make(host: &Host, wish: &Value) -> Value {
    let made = host.post("/networks/create", wish);
    assert_eq!(made.status, 201, "{}", made.text());
    let name = wish["Name"].as_str().unwrap();
    host.get(&format!("/networks/{name}")).json()
}

fn refusal(host: &Host, wish: &Value) -> (u16, String) {
    let answer = host.post("/networks/create", wish);
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    (answer.status, message)
}

/// Asks until somebody listens: between two answers nobody does for a moment.
fn page(address: &str) -> String {
    format!(
        "for i in 1 2 3 4 5 6 7 8 9; do nc -w 4 {address} 80 2>/dev/null && exit; sleep 0.2; done; exit 1"
    )
}

fn endpoint(host: &Host, name: &str, network: &str) -> Value {
    host.inspect(name)["NetworkSettings"]["Networks"][network].clone()
}

#[test]
fn a_network_of_both_families() {
    let host = Host::new();
    let shown = make(
        &host,
        &json!({
            "Name": "dual", "EnableIPv6": true,
            "IPAM": {"Config": [
                {"Subnet": "10.88.0.0/16", "IPRange": "10.88.5.0/24", "Gateway": "10.88.0.9",
                 "AuxiliaryAddresses": {"printer": "10.88.5.0"}},
                {"Subnet": "fd00:88::/64"},
            ]},
            "Options": {"com.docker.network.driver.mtu": "1400",
                "com.docker.network.bridge.name": "dual0"},
        }),
    );
    assert_eq!(shown["EnableIPv6"], true);
    let six = json!({"Subnet": "fd00:88::/64", "Gateway": "fd00:88::1"});
    assert_eq!(shown["IPAM"]["Config"][1], six);
    let ports = json!({"PortBindings": {"80/tcp": [{"HostPort": "8097"}]}});
    host.create("web", SERVE, on("dual", ports));
    let mut wish = on("dual", Value::Null);
    wish["NetworkingConfig"] = json!({"EndpointsConfig": {"dual": {
        "IPAMConfig": {"IPv6Address": "fd00:88::99", "LinkLocalIPs": ["169.254.7.7"]},
        "DriverOpts": {"com.docker.network.endpoint.ifname": "up0"},
    }}});
    host.create("near", "sleep 1000", wish);
    host.start("web");
    host.start("near");
    exec(&host, "web", LISTENS);
    let web = endpoint(&host, "web", "dual");
    assert_eq!(web["IPAddress"], "10.88.5.1");
    assert_eq!(web["GlobalIPv6Address"], "fd00:88::2");
    assert_eq!(web["IPv6Gateway"], "fd00:88::1");
    let near = endpoint(&host, "near", "dual");
    assert_eq!(near["GlobalIPv6Address"], "fd00:88::99");
    // The address of one that is down is free for its successor, but for nobody else.
    let mut wish = on("dual", Value::Null);
    wish["NetworkingConfig"] = json!({"EndpointsConfig": {"dual": {
        "IPAMConfig": {"IPv4Address": "10.88.5.3"},
    }}});
    for (name, wish) in [
        ("old", &wish),
        ("new", &wish),
        ("any", &on("dual", Value::Null)),
    ] {
        host.create(name, "sleep 1000", wish.clone());
    }
    host.start("any");
    assert_eq!(endpoint(&host, "any", "dual")["IPAddress"], "10.88.5.4");
    host.start("new");
    let refused = host.post("/containers/old/start", &Value::Null);
    assert_eq!(refused.status, 403, "{}", refused.text());
    let (_, words) = exec(&host, "near", "nslookup -type=aaaa web");
    assert!(words.contains("fd00:88::2"), "{words}");
    let got = exec(&host, "near", &page("fd00:88::2"));
    assert_eq!(got, (0, "page\n".to_owned()));
    let (_, hosts) = exec(&host, "near", "cat /etc/hosts");
    assert!(hosts.contains("fd00:88::99"), "{hosts}");
    let (_, mtu) = exec(&host, "near", "cat /sys/class/net/up0/mtu");
    assert_eq!(mtu, "1400\n");
    // Published in both families: a neighbour of the machine comes by IPv6.
    let shown = host.inspect("web")["NetworkSettings"]["Ports"]["80/tcp"].clone();
    let both =
        json!([{"HostIp": "0.0.0.0", "HostPort": "8097"}, {"HostIp": "::", "HostPort": "8097"}]);
    assert_eq!(shown, both);
    let world = World::beside(&host);
    assert_eq!(world.busybox("nc -w 4 fd00:99::1 8097"), "page\n");
    // What goes out has the machine's address: the world knows no way back to the network.
    let serve = world.spawn("nc -l -p 81");
    let knock = page("fd00:99::2").replace(" 80 ", " 81 </etc/hostname ");
    assert_eq!(exec(&host, "near", &knock).0, 0);
    assert!(serve.wait_with_output().unwrap().status.success());
}

/// A network namespace that hangs on a cable from the engine's.
struct World(std::process::Child);

impl World {
    fn beside(host: &Host) -> World {
        let mut command = std::process::Command::new("unshare");
        let world = command.args(["--net", "sh", "-c", "echo; exec sleep 1000"]);
        let mut child = world.stdout(std::process::Stdio::piped()).spawn().unwrap();
        // The line comes from inside.
        let mut line = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        let world = World(child);
        host.ip(&format!(
            "link add uplink type veth peer name eth0 netns {}",
            world.0.id()
        ));
        host.ip("-6 addr add fd00:99::1/64 dev uplink nodad");
        host.ip("addr add 192.0.2.1/24 dev uplink");
        host.ip("link set uplink up");
        for words in [
            "-6 addr add fd00:99::2/64 dev eth0 nodad",
            "addr add 192.0.2.2/24 dev eth0",
            "link set eth0 up",
        ] {
            crate::host::ip(world.0.id(), words);
        }
        world
    }

    fn spawn(&self, command: &str) -> std::process::Child {
        crate::host::nsenter(self.0.id())
            .arg(crate::host::BUSYBOX)
            .args(command.split(' '))
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// The page of a server, if it is reached: between two answers nobody listens for a moment.
    fn page(&self, address: &str, port: &str) -> Option<String> {
        let ask = format!("{} nc -w 1 {address} {port}", crate::host::BUSYBOX);
        let output = crate::host::nsenter(self.0.id())
            .args(["sh", "-c"])
            .arg(format!(
                "for i in 1 2 3; do {ask} && exit; sleep 0.2; done; exit 1"
            ))
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        output.status.success().then_some(text)
    }

    fn busybox(&self, command: &str) -> String {
        let output = self.spawn(command).wait_with_output().unwrap();
        assert!(output.status.success(), "{command}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn options_of_bridges() {
    let host = Host::new();
    make(
        &host,
        &json!({"Name": "shy", "Options": {
            "com.docker.network.bridge.enable_icc": "false",
            "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1",
        }}),
    );
    let ports = json!({"PortBindings": {"80/tcp": [{"HostPort": "8096"}]}});
    host.create("web", SERVE, on("shy", ports));
    host.create("near", "sleep 1000", on("shy", Value::Null));
    host.start("web");
    host.start("near");
    exec(&host, "web", LISTENS);
    let shown = host.inspect("web")["NetworkSettings"]["Ports"]["80/tcp"][0].clone();
    assert_eq!(shown, json!({"HostIp": "127.0.0.1", "HostPort": "8096"}));
    assert_eq!(host.inside("nc -w 4 127.0.0.1 8096"), "page\n");
    let address = endpoint(&host, "web", "shy")["IPAddress"].clone();
    let knock = format!("nc -w 1 {} 80", address.as_str().unwrap());
    assert_ne!(exec(&host, "near", &knock).0, 0);
    for (wish, status, words) in [
        (
            json!({"Name": "a", "Driver": "weave"}),
            404,
            "plugin \"weave\" not found",
        ),
        (
            json!({"Name": "a", "Driver": "overlay"}),
            503,
            "not a swarm manager",
        ),
        (
            json!({"Name": "a", "Driver": "macvlan", "Options": {"parent": "none0"}}),
            400,
            "eth0.10",
        ),
        (
            json!({"Name": "a", "IPAM": {"Config": [{"Subnet": "10.1.2.3/24"}]}}),
            400,
            "it should be 10.1.2.0/24",
        ),
    ] {
        let (code, text) = refusal(&host, &wish);
        assert_eq!(code, status, "{text}");
        assert!(text.contains(words), "{text}");
    }
}

const MODE: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const MODE6: &str = "com.docker.network.bridge.gateway_mode_ipv6";

#[test]
fn gateways_say_who_is_reached_and_how() {
    let host = Host::new();
    let world = World::beside(&host);
    crate::host::ip(world.0.id(), "route add 10.0.0.0/8 via 192.0.2.1");
    crate::host::ip(world.0.id(), "-6 route add fd00:93::/64 via fd00:99::1");
    let both = format!("(while true; do echo side | nc -l -p 81; done) & {SERVE}");
    for (number, mode) in [(91, "nat"), (92, "nat-unprotected"), (93, "routed")] {
        make(
            &host,
            &json!({
                "Name": mode, "EnableIPv6": true, "Options": {MODE: mode, MODE6: mode},
                "IPAM": {"Config": [
                    {"Subnet": format!("10.{number}.0.0/24")},
                    {"Subnet": format!("fd00:{number}::/64")},
                ]},
            }),
        );
        let ports = json!({"PortBindings": {"80/tcp": [{"HostPort": format!("80{number}")}]}});
        host.create(mode, &both, on(mode, ports));
        host.start(mode);
        exec(&host, mode, LISTENS);
        exec(&host, mode, &LISTENS.replace(":80", ":81"));
    }
    let page = |address: &str, port: &str| world.page(address, port).unwrap_or_default();
    // By an address of the machine, by the container's own, and there what is not published.
    let seen = |number: u8| {
        let own = format!("10.{number}.0.2");
        let outer = page("192.0.2.1", &format!("80{number}"));
        [outer, page(&own, "80"), page(&own, "81")]
    };
    assert_eq!(seen(91), ["page\n", "", ""]);
    assert_eq!(seen(92), ["page\n", "page\n", "side\n"]);
    assert_eq!(seen(93), ["", "page\n", ""]);
    assert_eq!(page("fd00:93::2", "80"), "page\n");
    assert_eq!(page("fd00:93::2", "81"), "");
    world.busybox("ping -c 1 -W 4 10.93.0.2");
    let shown = host.inspect("routed")["NetworkSettings"]["Ports"]["80/tcp"].clone();
    let open = json!([{"HostIp": "0.0.0.0", "HostPort": ""}, {"HostIp": "::", "HostPort": ""}]);
    assert_eq!(shown, open);
    // Neighbours reach what is published, as everybody does.
    let knock = |address: &str, port: &str| {
        let words = self::page(address).replace(" 80 ", &format!(" {port} "));
        exec(&host, "nat", &words).1
    };
    assert_eq!(knock("192.0.2.1", "8092"), "page\n");
    assert_eq!(knock("10.93.0.2", "80"), "page\n");
    let (code, _) = exec(&host, "routed", "nc -w 1 10.91.0.2 80");
    assert_ne!(code, 0);
    // Whom the world sees: the machine, or the container itself.
    for (name, expected) in [("nat", "192.0.2.1:"), ("routed", "10.93.0.2:")] {
        let serve = world.spawn("nc -l -p 82 -e /bin/busybox netstat -tn");
        let knock = self::page("192.0.2.2").replace(" 80 ", " 82 </etc/hostname ");
        let (_, words) = exec(&host, name, &knock);
        assert!(words.contains(expected), "{name}: {words}");
        assert!(serve.wait_with_output().unwrap().status.success());
    }
}

#[test]
fn bridges_without_addresses_and_networks_without_ipv4() {
    let host = Host::new();
    let bridge = |name: &str| json!({"com.docker.network.bridge.name": name});
    let with = |mut options: Value, more: [(&str, &str); 2]| {
        for (name, value) in more {
            options[name] = json!(value);
        }
        options
    };
    let shown = make(
        &host,
        &json!({
            "Name": "alone", "Internal": true, "EnableIPv6": true,
            "Options": with(bridge("alone0"), [(MODE, "isolated"), (MODE6, "isolated")]),
        }),
    );
    for pool in shown["IPAM"]["Config"].as_array().unwrap() {
        assert_eq!(pool.get("Gateway"), None, "{pool}");
    }
    assert_eq!(host.ip("addr show dev alone0").matches("inet").count(), 0);
    let inhibit = "com.docker.network.bridge.inhibit_ipv4";
    make(
        &host,
        &json!({
            "Name": "other", "Options": with(bridge("other0"), [(inhibit, "1"), (MODE, "nat")]),
            "IPAM": {"Config": [{"Subnet": "10.95.0.0/24", "Gateway": "10.95.0.9"}]},
        }),
    );
    assert_eq!(host.ip("-4 addr show dev other0"), "");
    host.create("led", "sleep 1000", on("other", Value::Null));
    host.start("led");
    assert_eq!(endpoint(&host, "led", "other")["Gateway"], "10.95.0.9");

    let shown = make(
        &host,
        &json!({
            "Name": "six", "EnableIPv4": false, "EnableIPv6": true,
            "IPAM": {"Config": [{"Subnet": "fd00:94::/64"}]},
        }),
    );
    assert_eq!(shown["EnableIPv4"], false);
    assert_eq!(shown["IPAM"]["Config"].as_array().unwrap().len(), 1);
    let ports = json!({"PortBindings": {"80/tcp": [{"HostPort": "8094"}]}});
    host.create("web", SERVE, on("six", ports));
    host.create("near", "sleep 1000", on("six", Value::Null));
    host.start("web");
    host.start("near");
    exec(&host, "web", LISTENS);
    let web = endpoint(&host, "web", "six");
    assert_eq!(web["IPAddress"], "");
    assert_eq!(web["GlobalIPv6Address"], "fd00:94::2");
    assert_eq!(
        exec(&host, "near", "busybox ip -4 addr show dev eth0").1,
        ""
    );
    let got = exec(&host, "near", &page("web"));
    assert_eq!(got, (0, "page\n".to_owned()));
    let shown = host.inspect("web")["NetworkSettings"]["Ports"]["80/tcp"].clone();
    assert_eq!(shown, json!([{"HostIp": "::", "HostPort": "8094"}]));

    for (wish, status, words) in [
        (
            json!({"Name": "a", "Options": {MODE: "isolated"}}),
            500,
            "gateway mode 'isolated' can only be used for an internal network",
        ),
        (
            json!({"Name": "a", "Options": {MODE6: "open"}}),
            400,
            "gateway_mode_ipv6 value: open (unknown gateway mode open)",
        ),
        (
            json!({"Name": "a", "EnableIPv4": false}),
            400,
            "IPv4 or IPv6 must be enabled",
        ),
    ] {
        let (code, text) = refusal(&host, &wish);
        assert_eq!(code, status, "{text}");
        assert!(text.ends_with(words), "{text}");
    }
}

#[test]
fn interfaces_that_share_the_machines() {
    let host = Host::new();
    let world = World::beside(&host);
    let shown = make(
        &host,
        &json!({
            "Name": "lan", "Driver": "macvlan", "Options": {"parent": "uplink"},
            "IPAM": {"Config": [{"Subnet": "192.0.2.0/24", "IPRange": "192.0.2.64/26"}]},
        }),
    );
    assert_eq!(shown["IPAM"]["Config"][0].get("Gateway"), None);
    let twice = json!({"Name": "lan2", "Driver": "macvlan", "Options": {"parent": "uplink"}});
    let (_, text) = refusal(&host, &twice);
    assert!(
        text.contains("already using parent interface uplink"),
        "{text}"
    );
    host.create("web", SERVE, on("lan", Value::Null));
    host.create("near", "sleep 1000", on("none", Value::Null));
    host.start("web");
    exec(&host, "web", LISTENS);
    assert_eq!(endpoint(&host, "web", "lan")["IPAddress"], "192.0.2.64");
    // The neighbour on the cable sees it as one more machine.
    assert_eq!(world.busybox("nc -w 4 192.0.2.64 80"), "page\n");
    host.create("late", "sleep 1000", on("bridge", Value::Null));
    host.start("late");
    let joined = host.post("/networks/lan/connect", &json!({"Container": "late"}));
    assert_eq!(joined.status, 200, "{}", joined.text());
    let got = exec(&host, "late", &page("192.0.2.64"));
    assert_eq!(got, (0, "page\n".to_owned()));
    let left = host.post("/networks/lan/disconnect", &json!({"Container": "late"}));
    assert_eq!(left.status, 200, "{}", left.text());
    assert_eq!(exec(&host, "late", "ls /sys/class/net").1, "eth0\nlo\n");
    host.remove("web");
    assert_eq!(host.send("DELETE", "/networks/lan", "", b"").status, 204);
    host.ip("link show uplink");
}

#[test]
fn an_overlay_between_two_machines() {
    let hosts = [Host::new(), Host::new()];
    hosts[0].ip(&format!(
        "link add cable type veth peer name cable netns {}",
        hosts[1].pid()
    ));
    for (place, host) in hosts.iter().enumerate() {
        host.ip(&format!("addr add 192.0.2.{}/24 dev cable", place + 1));
        host.ip("link set cable up");
        make(
            host,
            &json!({
                "Name": "wide", "Driver": "overlay",
                "Options": {"peers": format!("192.0.2.{}", 2 - place)},
                "IPAM": {"Config": [{
                    "Subnet": "10.66.0.0/16", "IPRange": format!("10.66.{place}.0/24"),
                }]},
            }),
        );
    }
    hosts[0].create("web", SERVE, on("wide", Value::Null));
    hosts[1].create("far", "sleep 1000", on("wide", Value::Null));
    hosts[0].start("web");
    hosts[1].start("far");
    exec(&hosts[0], "web", LISTENS);
    let web = endpoint(&hosts[0], "web", "wide");
    assert_eq!(web["IPAddress"], "10.66.0.1");
    let got = exec(&hosts[1], "far", &page("10.66.0.1"));
    assert_eq!(got, (0, "page\n".to_owned()));
    for (host, name) in hosts.iter().zip(["web", "far"]) {
        host.remove(name);
        assert_eq!(host.send("DELETE", "/networks/wide", "", b"").status, 204);
        let left = host.ip("-o link");
        assert!(!left.contains("vx-") && !left.contains("br-"), "{left}");
    }
}

#[test]
fn volumes_that_are_mounts() {
    let host = Host::new();
    let source = host.folder().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "bound\n").unwrap();
    let make = |name: &str, options: Value| {
        let wish = json!({"Name": name, "DriverOpts": options});
        let made = host.post("/volumes/create", &wish);
        assert_eq!(made.status, 201, "{}", made.text());
    };
    make(
        "bound",
        json!({"type": "none", "o": "bind,ro", "device": source}),
    );
    make(
        "memory",
        json!({"type": "tmpfs", "o": "size=1m", "device": "tmpfs"}),
    );
    make(
        "nowhere",
        json!({"type": "none", "o": "bind", "device": "/no/such/folder"}),
    );
    let body = json!({"HostConfig": {"NetworkMode": "none",
        "Binds": ["bound:/bound", "memory:/memory"]}});
    let script = "cat /bound/file; touch /bound/new || grep -c ' /memory tmpfs' /proc/mounts";
    host.create("one", script, body);
    host.start("one");
    host.wait("one");
    let logs = host.get("/containers/one/logs?stdout=1");
    assert_eq!(crate::host::split(&logs.body).0, "bound\n1\n");
    host.remove("one");
    let body = json!({"HostConfig": {"NetworkMode": "none", "Binds": ["nowhere:/data:nocopy"]}});
    host.create("two", "true", body);
    let refused = host.post("/containers/two/start", &Value::Null);
    let words = "failed to mount local volume: mount /no/such/folder:";
    assert!(refused.text().contains(words), "{}", refused.text());
    host.remove("two");
    for name in ["bound", "memory", "nowhere"] {
        let gone = host.send("DELETE", &format!("/volumes/{name}"), "", b"");
        assert_eq!(gone.status, 204, "{}", gone.text());
    }
    assert!(source.join("file").exists());
}

#[test]
fn logs_that_stay_small() {
    let host = Host::new();
    let log = json!({"Type": "local", "Config": {"max-size": "200", "max-file": "2"}});
    let body = json!({"HostConfig": {"NetworkMode": "none", "LogConfig": log}});
    let id = host.create(
        "busy",
        "for i in 1 2 3 4 5 6 7 8 9; do echo line $i; done",
        body,
    );
    host.start("busy");
    host.wait("busy");
    let shown = host.inspect("busy");
    assert_eq!(shown["HostConfig"]["LogConfig"], log);
    let logs = host.get("/containers/busy/logs?stdout=1");
    assert!(
        crate::host::split(&logs.body)
            .0
            .ends_with("line 8\nline 9\n")
    );
    let folder = host.folder().join("docker/containers").join(id);
    let names = std::fs::read_dir(folder).unwrap().flatten();
    let names = names.map(|entry| entry.file_name().into_string().unwrap());
    let files = names
        .filter(|name| name.starts_with("container.log"))
        .count();
    assert!(files <= 2, "{files}");
    let body = json!({"HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "none"}}});
    host.create("mute", "echo unheard", body);
    host.start("mute");
    host.wait("mute");
    assert_eq!(host.get("/containers/mute/logs?stdout=1").status, 501);
    let log = json!({"Type": "splunk"});
    let wish = json!({"Image": "busybox", "HostConfig": {"LogConfig": log}});
    let refused = host.post("/containers/create", &wish);
    assert!(refused.text().contains("no log driver named 'splunk'"));
}
