//! A real client against a real server.

use std::convert::Infallible;

use base::Crew;
use client::{Body, Client, Hub};
use dns::Config;
use http::{Request, Response};
use serde_json::json;

use crate::lab::{in_own_namespace, sh};
use crate::world;

/// An API of three lists whose watches never say anything.
fn hub(crew: &Crew) -> Hub {
    let service = tower::service_fn(|request: Request<Body>| async move {
        let uri = request.uri().to_string();
        if uri.contains("watch=") {
            std::future::pending::<()>().await;
        }
        let items = match uri {
            uri if uri.contains("/services") => world::services(),
            uri if uri.contains("/endpointslices") => world::slices(),
            _ => vec![json!({"metadata": {"name": "shop", "uid": "s", "resourceVersion": "3"}})],
        };
        let list = json!({"metadata": {"resourceVersion": "5"}, "items": items});
        Ok::<_, Infallible>(Response::new(client::full(list.to_string())))
    });
    Hub::new(Client::local(service, ()), crew)
}

fn config(listen: &str, domain: &str, upstream: &[&str]) -> Config {
    Config {
        listen: vec![listen.parse().unwrap()],
        cluster_domain: domain.to_owned(),
        service_address: None,
        private: Vec::new(),
        upstream: upstream
            .iter()
            .map(|address| address.parse().unwrap())
            .collect(),
    }
}

/// What `dig` prints, in a thread so that the server can answer.
async fn dig(arguments: &str) -> String {
    let command = format!("dig @127.0.0.1 +tries=1 +time=3 {arguments}");
    tokio::task::spawn_blocking(move || sh(&command))
        .await
        .unwrap()
}

#[test]
fn dig_is_answered() {
    in_own_namespace(|| async {
        sh("ip link set lo up");
        let crew = Crew::new();
        let hub = hub(&crew);
        let own = config("127.0.0.1:5301", "cluster.local", &["127.0.0.1:5302"]);
        let other = config("127.0.0.1:5302", "example.org", &[]);
        for config in [own, other] {
            crew.spawn_fallible("dns", dns::run(hub.clone(), config, crew.stop()));
        }
        for way in ["", "+tcp", "+noedns"] {
            let short = dig(&format!("-p 5301 +short {way} web.shop.svc.cluster.local")).await;
            assert_eq!(short, "10.96.0.10\n");
        }
        let long = dig("-p 5301 nil.shop.svc.cluster.local").await;
        assert!(
            long.contains("status: NXDOMAIN") && long.contains("flags: qr aa rd ra;"),
            "{long}"
        );
        assert!(long.contains("cluster.local.\t\t5\tIN\tSOA"), "{long}");
        let long = dig("-p 5301 _sql._tcp.db.shop.svc.cluster.local SRV").await;
        assert!(
            long.contains("ANSWER: 3, AUTHORITY: 0, ADDITIONAL: 4"),
            "{long}"
        );
        // Each answer starts with another address.
        let first = dig("-p 5301 +short db.shop.svc.cluster.local").await;
        let second = dig("-p 5301 +short db.shop.svc.cluster.local").await;
        assert_ne!(first, second);

        // Others' names are forwarded: addresses, absence, and the end of an alias.
        let long = dig("-p 5301 web.shop.svc.example.org").await;
        assert!(
            long.contains("10.96.0.10") && long.contains("flags: qr rd ra;"),
            "{long}"
        );
        let long = dig("-p 5301 nil.shop.svc.example.org").await;
        assert!(
            long.contains("status: NXDOMAIN") && long.contains("SOA"),
            "{long}"
        );
        let long = dig("-p 5301 web.shop.svc.example.org AAAA").await;
        assert!(
            long.contains("status: NOERROR") && long.contains("ANSWER: 0"),
            "{long}"
        );
        let long = dig("-p 5301 abroad.shop.svc.cluster.local").await;
        assert!(long.contains("CNAME\tWWW.example.org."), "{long}");

        // Nobody to forward to: said at once.
        let long = dig("-p 5302 www.kernel.org").await;
        assert!(long.contains("status: SERVFAIL"), "{long}");
        let long = dig("-p 5301 -c CH version.bind TXT").await;
        assert!(long.contains("status: REFUSED"), "{long}");

        crew.stop().raise();
        crew.finished().await.unwrap();
    });
}
