//! Questions and answers as values.

use dns::{Answer, Config, Outcome, Zone, answer};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record, RecordType};

use crate::world::World;

fn zone() -> Zone {
    let config = Config {
        listen: Vec::new(),
        cluster_domain: "cluster.local".to_owned(),
        service_address: Some("10.96.0.2".parse().unwrap()),
        private: vec![
            "10.96.0.0/12".parse().unwrap(),
            "10.244.0.0/16".parse().unwrap(),
        ],
        upstream: Vec::new(),
    };
    Zone::new(&config).unwrap()
}

fn outcome(name: &str, kind: RecordType) -> Outcome {
    answer(&zone(), &World, &Name::from_ascii(name).unwrap(), kind)
}

fn ask(name: &str, kind: RecordType) -> Answer {
    match outcome(name, kind) {
        Outcome::Ours(answer) => answer,
        Outcome::Foreign => panic!("{name} is ours"),
    }
}

fn data(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|record| record.data.to_string())
        .collect()
}

fn found(name: &str, kind: RecordType) -> Vec<String> {
    let answer = ask(name, kind);
    assert_eq!(answer.code, ResponseCode::NoError, "{name}");
    assert!(!answer.answers.is_empty(), "{name} {kind}");
    assert!(answer.answers.iter().all(|record| record.ttl == 5));
    assert!(answer.authority.is_empty());
    data(&answer.answers)
}

/// The name exists, but not so.
fn no_data(name: &str, kind: RecordType) {
    let answer = ask(name, kind);
    assert_eq!(answer.code, ResponseCode::NoError, "{name}");
    assert!(answer.answers.is_empty(), "{name}");
    assert_eq!(answer.authority[0].record_type(), RecordType::SOA);
}

fn no_name(name: &str) {
    for kind in [
        RecordType::A,
        RecordType::AAAA,
        RecordType::SRV,
        RecordType::TXT,
    ] {
        let answer = ask(name, kind);
        assert_eq!(answer.code, ResponseCode::NXDomain, "{name}");
        assert_eq!(answer.authority[0].record_type(), RecordType::SOA);
    }
}

#[test]
fn services_have_their_address() {
    assert_eq!(
        found("web.shop.svc.cluster.local.", RecordType::A),
        ["10.96.0.10"]
    );
    assert_eq!(
        found("WEB.Shop.svc.CLUSTER.local.", RecordType::A),
        ["10.96.0.10"]
    );
    no_data("web.shop.svc.cluster.local.", RecordType::AAAA);
    assert_eq!(
        found("dual.shop.svc.cluster.local.", RecordType::AAAA),
        ["fd00:96::b"]
    );
    for name in ["nil.shop", "web.nil", "web.empty"] {
        no_name(&format!("{name}.svc.cluster.local."));
    }
    // The search path of a pod makes such names: they must be denied at once.
    no_name("www.example.org.shop.svc.cluster.local.");
    no_name("www.example.org.cluster.local.");
    no_name("web.shop.cluster.local.");
}

#[test]
fn services_without_address_are_their_ready_endpoints() {
    let db = "db.shop.svc.cluster.local.";
    assert_eq!(
        found(db, RecordType::A),
        ["10.244.0.5", "10.244.0.6", "10.244.0.8"]
    );
    no_data(db, RecordType::AAAA);
    assert_eq!(found(&format!("db-0.{db}"), RecordType::A), ["10.244.0.5"]);
    assert_eq!(
        found(&format!("10-244-0-8.{db}"), RecordType::A),
        ["10.244.0.8"]
    );
    no_name(&format!("db-2.{db}"));
    no_name(&format!("10-244-0-5.{db}"));
    assert_eq!(
        found("early-0.early.shop.svc.cluster.local.", RecordType::A),
        ["10.244.0.20"]
    );
    assert_eq!(
        found("early.shop.svc.cluster.local.", RecordType::A),
        ["10.244.0.20"]
    );
    no_name("nobody.shop.svc.cluster.local.");
}

#[test]
fn ports_are_srv_records() {
    let answer = ask("_http._tcp.web.shop.svc.cluster.local.", RecordType::SRV);
    assert_eq!(
        data(&answer.answers),
        ["0 100 80 web.shop.svc.cluster.local."]
    );
    assert_eq!(data(&answer.additional), ["10.96.0.10"]);
    assert_eq!(
        found("_dns._udp.web.shop.svc.cluster.local.", RecordType::SRV).len(),
        1
    );
    assert_eq!(
        found("web.shop.svc.cluster.local.", RecordType::SRV).len(),
        2
    );
    no_name("_http._udp.web.shop.svc.cluster.local.");
    no_name("http._tcp.web.shop.svc.cluster.local.");
    no_name("_nil._tcp.web.shop.svc.cluster.local.");
    no_data("_tcp.web.shop.svc.cluster.local.", RecordType::SRV);
    no_name("_sctp.web.shop.svc.cluster.local.");
    let answer = ask("_sql._tcp.db.shop.svc.cluster.local.", RecordType::SRV);
    assert_eq!(
        data(&answer.answers),
        [
            "0 33 5432 10-244-0-8.db.shop.svc.cluster.local.",
            "0 33 5432 db-0.db.shop.svc.cluster.local.",
            "0 33 5432 db-1.db.shop.svc.cluster.local.",
        ]
    );
    assert_eq!(answer.additional.len(), 3);
}

#[test]
fn aliases_are_followed_within_and_handed_on_without() {
    let alias = found("alias.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(alias, ["web.shop.svc.cluster.local.", "10.96.0.10"]);
    assert_eq!(
        found("alias.shop.svc.cluster.local.", RecordType::CNAME).len(),
        1
    );
    let abroad = ask("abroad.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(data(&abroad.answers), ["WWW.example.org."]);
    assert_eq!(abroad.follow.unwrap().to_ascii(), "WWW.example.org.");
    let round = ask("loop.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(round.answers.len(), 8);
}

#[test]
fn addresses_have_names() {
    let name = |address: &str| found(&format!("{address}.in-addr.arpa."), RecordType::PTR);
    assert_eq!(name("10.0.96.10"), ["web.shop.svc.cluster.local."]);
    assert_eq!(name("5.0.244.10"), ["db-0.db.shop.svc.cluster.local."]);
    assert_eq!(
        name("8.0.244.10"),
        ["10-244-0-8.db.shop.svc.cluster.local."]
    );
    let nibbles = "b.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa.";
    assert_eq!(
        found(nibbles, RecordType::PTR),
        ["dual.shop.svc.cluster.local."]
    );
    no_data("10.0.96.10.in-addr.arpa.", RecordType::A);
    // Not ready, or of a service with an address of its own.
    for address in ["7.0.244.10", "9.0.244.10", "99.0.96.10"] {
        no_name(&format!("{address}.in-addr.arpa."));
    }
    assert_eq!(
        outcome("8.8.8.8.in-addr.arpa.", RecordType::PTR),
        Outcome::Foreign
    );
    assert_eq!(
        outcome("96.10.in-addr.arpa.", RecordType::PTR),
        Outcome::Foreign
    );
}

#[test]
fn the_domain_itself_pods_and_branches() {
    assert_eq!(
        found("dns-version.cluster.local.", RecordType::TXT),
        ["1.1.0"]
    );
    let soa = found("cluster.local.", RecordType::SOA).remove(0);
    assert!(
        soa.starts_with("ns.dns.cluster.local. hostmaster.cluster.local. "),
        "{soa}"
    );
    assert_eq!(
        found("cluster.local.", RecordType::NS),
        ["ns.dns.cluster.local."]
    );
    assert_eq!(found("ns.dns.cluster.local.", RecordType::A), ["10.96.0.2"]);
    assert_eq!(
        found("10-244-0-5.shop.pod.cluster.local.", RecordType::A),
        ["10.244.0.5"]
    );
    no_data("10-244-0-5.shop.pod.cluster.local.", RecordType::AAAA);
    assert_eq!(
        found("fd00--7.shop.pod.cluster.local.", RecordType::AAAA),
        ["fd00::7"]
    );
    no_name("10-244-0-5.nil.pod.cluster.local.");
    no_name("nonsense.shop.pod.cluster.local.");
    for branch in [
        "cluster.local.",
        "svc.cluster.local.",
        "shop.svc.cluster.local.",
        "empty.svc.cluster.local.",
        "empty.pod.cluster.local.",
    ] {
        no_data(branch, RecordType::A);
    }
    no_name("nil.svc.cluster.local.");
    for foreign in ["example.org.", "local.", "notcluster.local.", "."] {
        assert_eq!(
            outcome(foreign, RecordType::A),
            Outcome::Foreign,
            "{foreign}"
        );
    }
}

#[test]
fn resolv_conf_names_servers_but_not_ourselves() {
    let folder = std::env::temp_dir().join(format!("dns-test-{}", std::process::id()));
    std::fs::write(&folder, "# c\nsearch x\nnameserver 192.0.2.1\nnameserver 10.96.0.2\nnameserver nil\nnameserver fd00::1\n").unwrap();
    let servers = dns::upstream_servers(&folder, &["10.96.0.2:53".parse().unwrap()]);
    std::fs::remove_file(&folder).unwrap();
    assert_eq!(
        servers,
        [
            "192.0.2.1:53".parse().unwrap(),
            "[fd00::1]:53".parse().unwrap()
        ]
    );
    assert!(dns::upstream_servers(&folder, &[]).is_empty());
}
