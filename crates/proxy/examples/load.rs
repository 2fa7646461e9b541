//! Loads many services into the kernel and changes one, in a network namespace
//! of its own: `cargo run --release -p proxy --example load [services] [endpoints]`.
#![allow(clippy::print_stdout, reason = "a benchmark prints what it measures")]

use std::time::{Duration, Instant};

use client::Key;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use nix::sched::{CloneFlags, unshare};
use proxy::{Config, Engine};
use serde_json::json;

fn service(index: u32) -> Service {
    let ip = std::net::Ipv4Addr::from_bits(0x0a60_0001 + index).to_string();
    let value = json!({
        "metadata": {"namespace": "bench", "name": format!("s{index}")},
        "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80}]},
    });
    serde_json::from_value(value).expect("a service")
}

fn slice(index: u32, endpoints: u32, shift: u32) -> EndpointSlice {
    let first = 0x0af4_0002 + (index * endpoints) % 60_000 + shift;
    let address = |i: u32| std::net::Ipv4Addr::from_bits(first + i).to_string();
    let endpoint = |i: u32| json!({"addresses": [address(i)], "nodeName": "other"});
    let endpoints: Vec<_> = (0..endpoints).map(endpoint).collect();
    let value = json!({
        "metadata": {"namespace": "bench", "name": format!("s{index}-x")},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    });
    serde_json::from_value(value).expect("a slice")
}

fn timed(what: &str, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    println!("{what}: {:?}", start.elapsed());
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|text| text.parse().expect("a number"));
    let services: u32 = arguments.next().unwrap_or(10_000);
    let endpoints: u32 = arguments.next().unwrap_or(3);
    unshare(CloneFlags::CLONE_NEWNET).expect("root is needed");
    let config = Config {
        node_name: "node-1".to_owned(),
        zone: None,
        cluster_cidr: "10.244.0.0/16".parse().expect("a range"),
        service_cidr: "10.96.0.0/12".parse().expect("a range"),
    };
    let objects: Vec<_> = (0..services)
        .map(|i| (service(i), slice(i, endpoints, 0)))
        .collect();
    for round in ["first start", "restart over the table of the first"] {
        println!("{round}: {services} services, {endpoints} endpoints each");
        let mut engine = Engine::open(config.clone()).expect("netlink");
        timed("  plan", || {
            for (service, slice) in &objects {
                engine.set(&Key::of(service), Some(service), [slice]);
            }
        });
        timed("  load", || engine.commit().expect("load"));
        let mut times: Vec<Duration> = Vec::new();
        for index in 0..100 {
            let (service, _) = &objects[index as usize % objects.len()];
            let start = Instant::now();
            engine.set(
                &Key::of(service),
                Some(service),
                [&slice(index, endpoints, 1)],
            );
            engine.commit().expect("change");
            times.push(start.elapsed());
        }
        times.sort();
        println!(
            "  change of one: median {:?}, slowest {:?}",
            times[50], times[99]
        );
    }
}
