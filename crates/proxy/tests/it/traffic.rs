//! Connections through services.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::lab::{Namespace, PATIENCE, in_own_namespace, leaked, outside, sh};
use crate::objects::{Node, Told, here, node_port, service, state, there};

fn asks(from: &Namespace, to: &str, times: usize) -> BTreeSet<String> {
    (0..times).map(|_| from.ask(to).unwrap()).collect()
}

fn set<const N: usize>(texts: [&str; N]) -> BTreeSet<String> {
    texts.into_iter().map(str::to_owned).collect()
}

fn refused_at_once(from: &Namespace, to: &str) {
    let start = Instant::now();
    let error = from.ask(to).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}: {error}");
    assert!(
        start.elapsed() < PATIENCE / 2,
        "{to}: {:?}",
        start.elapsed()
    );
}

#[test]
fn a_cluster_ip_reaches_its_pods_from_pods_and_node() {
    for bridge_filter in [false, true] {
        in_own_namespace(move || async move {
            let node = Node::new(bridge_filter).await;
            let world = outside();
            let (a, a_ip) = node.pod("a").await;
            let (_b, b_ip) = node.pod("b").await;
            let (client, _) = node.pod("client").await;
            let mut told = Told::new();
            told.set(
                service("web", "10.96.0.10", json!({})),
                &[here(&a_ip), here(&b_ip)],
            );

            let seen = asks(&client, "10.96.0.10:80", 30);
            assert_eq!(seen, set(["a 10.244.0.4", "b 10.244.0.4"]));
            let seen = asks(&node.own, "10.96.0.10:80", 30);
            assert_eq!(seen, set(["a 10.244.0.1", "b 10.244.0.1"]));
            // The pod itself among its service's pods: the reply must come back by the node.
            let seen = asks(&a, "10.96.0.10:80", 30);
            assert_eq!(seen, set(["a 10.244.0.1", "b 10.244.0.2"]));
            assert!(
                client
                    .ask_udp("10.96.0.10:53")
                    .unwrap()
                    .ends_with("10.244.0.4")
            );
            assert!(
                node.own
                    .ask_udp("10.96.0.10:53")
                    .unwrap()
                    .ends_with("10.244.0.1")
            );

            // No endpoint, no service at that port, no service at that address.
            told.set(service("empty", "10.96.0.11", json!({})), &[]);
            for from in [&client, &node.own] {
                refused_at_once(from, "10.96.0.11:80");
                refused_at_once(from, "10.96.0.10:81");
                refused_at_once(from, "10.96.9.9:80");
                // The node's own datagrams are refused as they are sent.
                let error = from.ask_udp("10.96.0.11:53").unwrap_err().kind();
                let refusals = [ErrorKind::ConnectionRefused, ErrorKind::PermissionDenied];
                assert!(refusals.contains(&error), "{error}");
            }
            assert_eq!(leaked(&world), 0);

            told.set(service("empty", "10.96.0.11", json!({})), &[here(&b_ip)]);
            assert_eq!(client.ask("10.96.0.11:80").unwrap(), "b 10.244.0.4");
            told.remove("web");
            refused_at_once(&client, "10.96.0.10:80");
        });
    }
}

#[test]
fn endpoints_are_used_as_long_as_any_serves() {
    in_own_namespace(|| async {
        let node = Node::new(true).await;
        let (_a, a_ip) = node.pod("a").await;
        let (_b, b_ip) = node.pod("b").await;
        let (_c, c_ip) = node.pod("c").await;
        let mut told = Told::new();
        let web = || service("web", "10.96.0.10", json!({}));
        let leaving = state(&b_ip, false, true, true);
        let broken = state(&c_ip, false, false, false);
        told.set(web(), &[here(&a_ip), leaving.clone(), broken.clone()]);
        assert_eq!(asks(&node.own, "10.96.0.10:80", 12), set(["a 10.244.0.1"]));
        told.set(web(), &[leaving, broken.clone()]);
        assert_eq!(asks(&node.own, "10.96.0.10:80", 12), set(["b 10.244.0.1"]));
        told.set(web(), &[broken]);
        refused_at_once(&node.own, "10.96.0.10:80");
    });
}

#[test]
fn a_node_port_answers_everywhere() {
    for bridge_filter in [false, true] {
        in_own_namespace(move || async move {
            let node = Node::new(bridge_filter).await;
            let world = outside();
            let (a, a_ip) = node.pod("a").await;
            let (client, _) = node.pod("client").await;
            let mut told = Told::new();
            let external = json!({"externalIPs": ["198.51.100.7"]});
            let web = || node_port("web", "10.96.0.10", 30080, external.clone());
            told.set(web(), &[here(&a_ip)]);
            world.sh(
                "ip route add 198.51.100.7 via 192.0.2.1; ip route add 10.96.0.0/12 via 192.0.2.1",
            );

            let from_node = "a 10.244.0.1";
            assert_eq!(world.ask("192.0.2.1:30080").unwrap(), from_node);
            assert_eq!(world.ask_udp("192.0.2.1:30080").unwrap(), from_node);
            assert_eq!(world.ask("198.51.100.7:80").unwrap(), from_node);
            assert_eq!(world.ask("10.96.0.10:80").unwrap(), from_node);
            assert_eq!(node.own.ask("127.0.0.1:30080").unwrap(), from_node);
            assert_eq!(node.own.ask_udp("127.0.0.1:30080").unwrap(), from_node);
            assert_eq!(node.own.ask("192.0.2.1:30080").unwrap(), from_node);
            assert_eq!(node.own.ask("10.244.0.1:30080").unwrap(), from_node);
            assert_eq!(client.ask("192.0.2.1:30080").unwrap(), from_node);
            assert_eq!(client.ask("10.244.0.1:30080").unwrap(), from_node);
            assert_eq!(a.ask("192.0.2.1:30080").unwrap(), from_node);

            told.set(web(), &[]);
            for from in [&world, &client, &node.own] {
                refused_at_once(from, "192.0.2.1:30080");
            }
            refused_at_once(&node.own, "127.0.0.1:30080");
        });
    }
}

#[test]
fn local_policies_keep_the_source_and_stay_on_the_node() {
    in_own_namespace(|| async {
        let node = Node::new(false).await;
        let world = outside();
        let (_a, a_ip) = node.pod("a").await;
        let (_b, b_ip) = node.pod("b").await;
        let (client, _) = node.pod("client").await;
        let mut told = Told::new();
        let external = json!({"externalTrafficPolicy": "Local"});
        let edge = || node_port("edge", "10.96.0.10", 30080, external.clone());
        // The second only seems to be elsewhere.
        told.set(edge(), &[here(&a_ip), there(&b_ip)]);
        assert_eq!(asks(&world, "192.0.2.1:30080", 12), set(["a 192.0.2.2"]));
        assert_eq!(
            asks(&client, "192.0.2.1:30080", 30),
            set(["a 10.244.0.4", "b 10.244.0.4"])
        );
        assert_eq!(
            asks(&node.own, "127.0.0.1:30080", 30),
            set(["a 10.244.0.1", "b 10.244.0.1"])
        );
        told.set(edge(), &[there(&b_ip)]);
        assert_eq!(
            world.ask("192.0.2.1:30080").unwrap_err().kind(),
            ErrorKind::TimedOut
        );
        assert_eq!(client.ask("10.96.0.10:80").unwrap(), "b 10.244.0.4");

        let internal = json!({"internalTrafficPolicy": "Local"});
        let agent = || service("agent", "10.96.0.11", internal.clone());
        told.set(agent(), &[here(&a_ip), there(&b_ip)]);
        assert_eq!(asks(&client, "10.96.0.11:80", 12), set(["a 10.244.0.4"]));
        told.set(agent(), &[there(&b_ip)]);
        assert_eq!(
            client.ask("10.96.0.11:80").unwrap_err().kind(),
            ErrorKind::TimedOut
        );
    });
}

#[test]
fn a_client_sticks_to_its_endpoint_until_that_is_gone() {
    in_own_namespace(|| async {
        let node = Node::new(true).await;
        let mut pods = Vec::new();
        for name in ["a", "b", "c"] {
            pods.push(node.pod(name).await);
        }
        let (client, _) = node.pod("client").await;
        let mut told = Told::new();
        let sticky = json!({"sessionAffinity": "ClientIP"});
        let web = || node_port("web", "10.96.0.10", 30080, sticky.clone());
        let all: Vec<_> = pods.iter().map(|(_, ip)| here(ip)).collect();
        told.set(web(), &all);
        for front in ["10.96.0.10:80", "10.244.0.1:30080"] {
            told.set(web(), &all);
            let chosen = asks(&client, front, 20);
            assert_eq!(chosen.len(), 1, "{chosen:?}");
            // One more or less of the others changes nothing for this client.
            let own = chosen.first().unwrap()[..1].to_owned();
            let index = ["a", "b", "c"]
                .iter()
                .position(|name| *name == own)
                .unwrap();
            told.set(web(), &[all[index].clone(), all[(index + 1) % 3].clone()]);
            assert_eq!(asks(&client, front, 20), chosen);
            told = told.restarted();
            assert_eq!(asks(&client, front, 20), chosen);
            told.set(
                web(),
                &[all[(index + 1) % 3].clone(), all[(index + 2) % 3].clone()],
            );
            let moved = asks(&client, front, 20);
            assert_eq!(moved.len(), 1, "{moved:?}");
            assert_ne!(moved, chosen);
        }
    });
}

#[test]
fn replacing_the_table_loses_no_connection() {
    in_own_namespace(|| async {
        let node = Node::new(true).await;
        let (a, a_ip) = node.pod("a").await;
        let (client, _) = node.pod("client").await;
        let mut told = Told::new();
        told.set(service("web", "10.96.0.10", json!({})), &[here(&a_ip)]);
        let listener = a.run(|| TcpListener::bind("0.0.0.0:5353").unwrap());
        let slow = json!({"ports": [{"name": "dns", "port": 53, "protocol": "UDP"},
                                    {"name": "http", "port": 80}]});
        told.set(service("slow", "10.96.0.12", slow), &[here(&a_ip)]);
        drop(listener);

        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let knock = scope.spawn(|| {
                let mut answers = 0;
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(client.ask("10.96.0.10:80").unwrap(), "a 10.244.0.3");
                    answers += 1;
                }
                answers
            });
            for _ in 0..100 {
                told = told.restarted();
            }
            done.store(true, Ordering::Relaxed);
            assert!(knock.join().unwrap() > 20);
        });
    });
}

/// What a commit does to a packet that is on its way through the rules meanwhile.
#[test]
fn a_packet_that_went_astray_is_not_remembered() {
    in_own_namespace(|| async {
        let node = Node::new(true).await;
        let (_a, a_ip) = node.pod("a").await;
        let (client, client_ip) = node.pod("client").await;
        let mut told = Told::new();
        told.set(service("web", "10.96.0.10", json!({})), &[here(&a_ip)]);
        sh("nft flush chain ip sampan-proxy find");
        std::thread::scope(|scope| {
            let knock = scope.spawn(|| client.ask("10.96.0.10:80"));
            // Time for the first packet to leave; without it this proves less, but passes.
            std::thread::sleep(Duration::from_millis(300));
            let _told = told.restarted();
            assert_eq!(knock.join().unwrap().unwrap(), format!("a {client_ip}"));
        });
    });
}

#[test]
fn an_open_connection_survives_a_restart() {
    in_own_namespace(|| async {
        let node = Node::new(false).await;
        let (a, a_ip) = node.pod("a").await;
        let listener = a.run(|| TcpListener::bind("0.0.0.0:9090").unwrap());
        let mut told = Told::new();
        let mut slice = crate::objects::slice("web", &[here(&a_ip)]);
        slice.ports.as_mut().unwrap()[0].port = Some(9090);
        let web = service("web", "10.96.0.10", json!({}));
        let key = client::Key::new("default", "web");
        told.engine.set(&key, Some(&web), [&slice]);
        told.engine.commit().unwrap();
        let mut near = node
            .own
            .run(|| TcpStream::connect("10.96.0.10:80").unwrap());
        let (mut far, _) = listener.accept().unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut byte = [0];
        near.write_all(b"1").unwrap();
        far.read_exact(&mut byte).unwrap();
        let mut told = Told::new();
        told.engine.commit().unwrap();
        near.write_all(b"2").unwrap();
        far.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"2");
    });
}

#[test]
fn datagrams_follow_when_their_endpoint_goes() {
    in_own_namespace(|| async {
        let node = Node::new(true).await;
        let (_a, a_ip) = node.pod("a").await;
        let (_b, b_ip) = node.pod("b").await;
        let (client, _) = node.pod("client").await;
        let mut told = Told::new();
        let dns = || node_port("dns", "10.96.0.10", 30053, json!({}));
        for front in ["10.96.0.10:53", "10.244.0.1:30053"] {
            told.set(dns(), &[here(&a_ip)]);
            // One socket, so one connection to the kernel.
            let socket = client.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
            socket
                .set_read_timeout(Some(Duration::from_secs(1)))
                .unwrap();
            socket.connect(front).unwrap();
            let ask = || {
                let mut buffer = [0; 64];
                socket.send(b"?").unwrap();
                let length = socket.recv(&mut buffer).unwrap();
                String::from_utf8_lossy(&buffer[..1.min(length)]).into_owned()
            };
            assert_eq!(ask(), "a");
            told.set(dns(), &[here(&b_ip)]);
            assert_eq!(ask(), "b");
        }
    });
}

#[test]
fn the_node_itself_may_be_an_endpoint() {
    for (bridge_filter, with_uplink) in [(false, false), (true, false), (false, true), (true, true)]
    {
        in_own_namespace(move || async move {
            let node = Node::new(bridge_filter).await;
            let _world = with_uplink.then(outside);
            let (client, _) = node.pod("client").await;
            let own = if with_uplink {
                "192.0.2.1"
            } else {
                "10.244.0.1"
            };
            node.own.serve("api", &format!("{own}:8080"));
            node.own.serve_udp("api", &format!("{own}:5353"));
            let mut told = Told::new();
            let api = node_port("api", "10.96.0.1", 30443, json!({}));
            told.set(api, &[json!({"addresses": [own]})]);
            for from in [&client, &node.own] {
                assert!(from.ask("10.96.0.1:80").unwrap().starts_with("api "));
                assert!(from.ask_udp("10.96.0.1:53").unwrap().starts_with("api "));
                assert!(
                    from.ask(&format!("{own}:30443"))
                        .unwrap()
                        .starts_with("api ")
                );
            }
            assert!(node.own.ask("127.0.0.1:30443").unwrap().starts_with("api "));
            // Pods are known by their own address, for the API's audit.
            assert_eq!(client.ask("10.96.0.1:80").unwrap(), "api 10.244.0.2");
        });
    }
}

#[test]
fn a_load_balancer_lets_in_whom_the_service_allows() {
    in_own_namespace(|| async {
        let node = Node::new(true).await;
        let world = outside();
        world.sh("ip route add 198.51.100.0/24 via 192.0.2.1");
        let (_a, a_ip) = node.pod("a").await;
        let mut told = Told::new();
        let mut balanced = |ranges: serde_json::Value| {
            let more = json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ranges});
            let mut service = service("web", "10.96.0.10", more);
            let ingress = json!({"loadBalancer": {"ingress": [
                {"ip": "198.51.100.7", "ipMode": "VIP"}, {"ip": "198.51.100.8", "ipMode": "Proxy"},
            ]}});
            service.status = Some(serde_json::from_value(ingress).unwrap());
            told.set(service, &[here(&a_ip)]);
        };
        balanced(json!(["203.0.113.0/24", "192.0.2.0/24"]));
        assert_eq!(world.ask("198.51.100.7:80").unwrap(), "a 10.244.0.1");
        balanced(json!(["203.0.113.0/24"]));
        assert_eq!(
            world.ask("198.51.100.7:80").unwrap_err().kind(),
            ErrorKind::TimedOut
        );
        assert_eq!(node.own.ask("198.51.100.7:80").unwrap(), "a 10.244.0.1");
        balanced(json!([]));
        assert_eq!(world.ask("198.51.100.7:80").unwrap(), "a 10.244.0.1");
        let listing = crate::objects::table();
        assert!(!listing.contains("198.51.100.8"), "{listing}");
    });
}
