//! What `nft` says of the proxy's table.

use serde_json::json;

use crate::lab::{in_own_namespace, sh};
use crate::objects::{Told, here, node_port, service, state, table, there};

#[test]
fn the_table_reads_as_in_the_book() {
    in_own_namespace(|| async {
        let mut told = Told::new();
        told.set(
            service("web", "10.96.0.10", json!({})),
            &[here("10.244.0.5"), there("10.244.1.6")],
        );
        told.set(service("empty", "10.96.0.11", json!({})), &[]);
        let local = json!({"externalTrafficPolicy": "Local", "externalIPs": ["198.51.100.7"]});
        told.set(
            node_port("edge", "10.96.0.12", 30080, local),
            &[here("10.244.0.7"), there("10.244.1.8")],
        );
        let sticky = json!({"sessionAffinity": "ClientIP"});
        told.set(
            service("sticky", "10.96.0.13", sticky),
            &[here("10.244.0.9")],
        );
        let expected = include_str!("table.nft");
        if std::env::var_os("UPDATE").is_some() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/table.nft");
            std::fs::write(path, table()).unwrap();
        } else {
            assert_eq!(table(), expected, "{}", table());
        }
        proxy::cleanup().unwrap();
        proxy::cleanup().unwrap();
        assert_eq!(sh("nft list ruleset"), "");
    });
}

/// The table with its chains in order of name: only creation order differs.
fn canonical() -> Vec<String> {
    let table = table();
    let blocks = table
        .split("\n\n")
        .map(|block| block.trim_matches(['}', '\n', '\t']).to_owned());
    let mut blocks: Vec<String> = blocks.collect();
    blocks.sort();
    blocks
}

#[test]
fn many_small_changes_end_where_one_big_one_does() {
    in_own_namespace(|| async {
        let mut told = Told::new();
        // A fixed little generator: failures repeat.
        let mut seed = 7u32;
        let mut random = move |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) % below
        };
        for round in 0..120 {
            let which = random(6);
            let name = format!("s{which}");
            if random(5) == 0 {
                told.remove(&name);
            } else {
                let mut more = json!({});
                if random(3) == 0 {
                    more["sessionAffinity"] = json!("ClientIP");
                }
                if random(3) == 0 {
                    more["externalTrafficPolicy"] = json!("Local");
                }
                if random(3) == 0 {
                    more["internalTrafficPolicy"] = json!("Local");
                }
                if random(3) == 0 {
                    // Few addresses for many: they quarrel.
                    more["externalIPs"] = json!([format!("198.51.100.{}", random(2))]);
                }
                let ip = format!("10.96.0.{}", 10 + which);
                let service = match random(2) {
                    0 => service(&name, &ip, more),
                    _ => node_port(&name, &ip, 30_000 + which as u16, more),
                };
                let endpoint = |index: u32, kind: u32| {
                    let address = format!("10.244.0.{}", 2 + index);
                    match kind {
                        0 => state(&address, false, true, true),
                        1 => there(&address),
                        _ => here(&address),
                    }
                };
                let endpoints: Vec<_> = (0..random(5)).map(|i| endpoint(i, random(4))).collect();
                told.set(service, &endpoints);
            }
            if round % 20 == 19 {
                let small = canonical();
                // Who of two gets a contested front depends on who came first.
                let contested = small.iter().any(|block| block.contains("198.51.100."));
                let fresh = told.restarted();
                if !contested {
                    assert_eq!(small, canonical(), "round {round}");
                }
                told = fresh;
            }
        }
        for which in 0..6 {
            told.remove(&format!("s{which}"));
        }
        let empty = canonical();
        told.restarted();
        assert_eq!(empty, canonical());
    });
}

#[test]
fn a_table_that_others_destroyed_comes_back() {
    in_own_namespace(|| async {
        let mut told = Told::new();
        told.set(
            service("web", "10.96.0.10", json!({})),
            &[here("10.244.0.5")],
        );
        sh("nft flush ruleset");
        told.set(
            service("other", "10.96.0.11", json!({})),
            &[here("10.244.0.6")],
        );
        let table = table();
        assert!(
            table.contains("10.96.0.10") && table.contains("10.96.0.11"),
            "{table}"
        );
    });
}

#[test]
fn a_contested_address_goes_to_the_other_when_it_comes_free() {
    in_own_namespace(|| async {
        let mut told = Told::new();
        let external = json!({"externalIPs": ["198.51.100.7"]});
        told.set(
            service("first", "10.96.0.10", external.clone()),
            &[here("10.244.0.5")],
        );
        told.set(
            service("second", "10.96.0.11", external.clone()),
            &[here("10.244.0.6")],
        );
        let leads_to = |pod: &str| {
            let wanted = format!("198.51.100.7 . 6 . 80 . 0x00000000 : {pod} . 8080");
            assert!(table().contains(&wanted), "{}", table());
        };
        leads_to("10.244.0.5");
        told.set(
            service("first", "10.96.0.10", json!({})),
            &[here("10.244.0.5")],
        );
        leads_to("10.244.0.6");
        told.set(
            service("first", "10.96.0.10", external),
            &[here("10.244.0.5")],
        );
        told.remove("second");
        leads_to("10.244.0.5");
        told.remove("first");
        assert!(!table().contains("198.51.100.7"));
    });
}
