//! Transactions against the kernel, in a network namespace of their own, with
//! `nft` as the judge.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../../../network/tests/it/lab.rs"]
#[allow(unreachable_pub, reason = "shared with other test crates")]
mod lab;

use lab::{in_own_namespace, sh};
use netfilter::{
    Batch, Element, Error, Hook, HookKind, Load, Register, Rule, SetSpec, Socket, Type, Value,
    Verdict, conntrack, priority,
};

fn key(port: u16) -> Value {
    Value::new().protocol(6).port(port)
}

fn data(last: u8) -> Value {
    Value::new().address([10, 0, 0, last].into()).port(80)
}

fn frame(batch: &mut Batch) {
    let endpoint = [Type::Ipv4Address, Type::Port];
    batch.add_set(&SetSpec::map(
        "ports",
        &[Type::Protocol, Type::Port],
        &endpoint,
    ));
    let hook = Hook {
        kind: HookKind::Prerouting,
        priority: priority::DNAT,
        nat: true,
    };
    batch.add_chain("in", Some(hook));
}

fn content(batch: &mut Batch) {
    batch.add_chain("go", None);
    let load = [Load::Protocol, Load::DestinationPort];
    let (key, port) = (Register(0), Register(1));
    let rule = Rule::new().load_key(&load, key).value_of("ports", key, key);
    batch.add_rule("go", &rule.dnat(key, port));
    let jump = Rule::new().address(Load::SourceAddress, false, ([10, 1, 2, 0].into(), 23));
    batch.add_rule("in", &jump.verdict(Verdict::Jump("go".to_owned())));
}

#[test]
fn a_table_reads_as_it_was_meant() {
    in_own_namespace(|| async {
        let mut socket = Socket::open().unwrap();
        for _ in 0..2 {
            socket.put_table("t", &["ports"], frame, content).unwrap();
            let mut batch = Batch::new("t");
            let elements: Vec<Element> = (0..1000)
                .map(|i| Element::Data(key(i), data(i as u8)))
                .collect();
            batch.add_elements("ports", &elements);
            assert_eq!(batch.len(), 3, "at most 400 elements in a message");
            socket.apply(batch).unwrap();
            assert_eq!(socket.map_elements("t", "ports").unwrap().len(), 1000);
        }
        let mut batch = Batch::new("t");
        let most: Vec<Element> = (1..1000).map(|i| Element::Key(key(i))).collect();
        batch.delete_elements("ports", &most);
        socket.apply(batch).unwrap();
        socket
            .forget_elements("t", "ports", [key(1), key(2)])
            .unwrap();
        assert_eq!(
            socket.map_elements("t", "ports").unwrap(),
            [(key(0), data(0))]
        );
        let expected = "table ip t {
	map ports {
		type inet_proto . inet_service : ipv4_addr . inet_service
		elements = { 6 . 0 : 10.0.0.0 . 80 }
	}

	chain in {
		type nat hook prerouting priority -100; policy accept;
		ip saddr != 10.1.2.0/23 jump go
	}

	chain go {
		dnat ip to meta l4proto . th dport map @ports
	}
}
";
        assert_eq!(sh("nft -n list ruleset"), expected);
    });
}

#[test]
fn a_refused_transaction_names_its_message_and_changes_nothing() {
    in_own_namespace(|| async {
        let mut socket = Socket::open().unwrap();
        socket.put_table("t", &["ports"], frame, content).unwrap();
        let before = sh("nft list ruleset");
        let mut batch = Batch::new("t");
        batch.add_chain("fine", None);
        batch.delete_elements("ports", [&Element::Key(key(7))]);
        batch.add_chain("fine-too", None);
        match socket.apply(batch).unwrap_err() {
            Error::Refused {
                step,
                index,
                count,
                source,
                ..
            } => {
                assert_eq!(step, "delete elements of ports");
                assert_eq!((index, count), (2, 3));
                assert_eq!(source.raw_os_error(), Some(nix::libc::ENOENT));
            }
            other => panic!("{other}"),
        }
        assert_eq!(sh("nft list ruleset"), before);
        // The socket is still good.
        let mut batch = Batch::new("t");
        batch.delete_table();
        socket.apply(batch).unwrap();
        assert_eq!(sh("nft list ruleset"), "");
    });
}

#[test]
fn connections_are_listed_and_forgotten() {
    in_own_namespace(|| async {
        // Something must want connections tracked.
        sh("ip link set lo up
            nft add table ip t
            nft 'add chain ip t out { type filter hook output priority 0; }'
            nft add rule ip t out ct state new accept");
        let node = lab::Namespace::current();
        node.serve_udp("echo", "127.0.0.1:5000");
        node.ask_udp("127.0.0.1:5000").unwrap();
        let mut socket = Socket::open().unwrap();
        let mut seen = Vec::new();
        let mut count = |wanted: bool| {
            let pick = |flow: &conntrack::Flow| {
                seen.push((flow.protocol, flow.destination_port, flow.endpoint_port));
                wanted
            };
            conntrack::forget(&mut socket, pick).unwrap()
        };
        assert_eq!(count(false), 0);
        assert_eq!(count(true), 1);
        assert_eq!(count(true), 0);
        assert_eq!(seen, [(17, 5000, 5000); 2]);
    });
}
