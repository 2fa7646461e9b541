//! Names of services, by the Kubernetes DNS specification 1.1.0: the cluster's
//! domain is answered from the API's caches, everything else is forwarded.
//!
//! `answer` decides and does no I/O; `records` is its view of the caches;
//! `handler` speaks DNS; `forward` asks others.

mod answer;
mod forward;
mod handler;
mod listen;
mod records;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use base::{Ipv4Cidr, Stop};
use client::Hub;
use hickory_server::Server;

pub use answer::{Answer, Outcome, Zone, answer};
pub use records::{Cached, Records};

use crate::forward::Forwarder;
use crate::handler::Handler;

/// How long open questions have to be answered at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the DNS server must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Addresses to answer on, by UDP and TCP. They should be particular ones:
    /// an answer from `0.0.0.0` may leave by another address than it was asked at.
    pub listen: Vec<SocketAddr>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// The address clients use, for the server's own name.
    pub service_address: Option<IpAddr>,
    /// Ranges whose reverse names nobody outside of the cluster knows.
    pub private: Vec<Ipv4Cidr>,
    /// Who knows the rest; see [`upstream_servers`].
    pub upstream: Vec<SocketAddr>,
}

/// What can end the DNS server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cluster domain {0:?} is not a domain name")]
    BadDomain(String),
    #[error("listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("forwarder: {0}")]
    Forwarder(hickory_server::net::NetError),
    #[error("server: {0}")]
    Server(hickory_server::net::NetError),
}

/// Answers until told to stop. Questions that arrive before the caches are
/// filled wait for them.
pub async fn run(hub: Hub, config: Config, stop: Stop) -> Result<(), Error> {
    let zone = Zone::new(&config)?;
    let forwarder = Forwarder::new(&config.upstream)?;
    let handler = Handler::new(zone, Cached::new(&hub), forwarder);
    let mut server = Server::new(handler);
    for address in &config.listen {
        listen::register(&mut server, *address)?;
    }
    tracing::info!(listen = ?config.listen, upstream = ?config.upstream, "DNS is up");
    tokio::select! {
        ended = server.block_until_done() => return ended.map_err(Error::Server),
        () = stop.raised() => {}
    }
    // An idle TCP client must not hold up the end.
    let ending = tokio::time::timeout(FAREWELL, server.shutdown_gracefully());
    ending.await.unwrap_or(Ok(())).map_err(Error::Server)
}

/// The name servers a `resolv.conf` names, without those of `own`: a server
/// must not forward to itself. A file that is missing names none.
pub fn upstream_servers(resolv_conf: &Path, own: &[SocketAddr]) -> Vec<SocketAddr> {
    const DNS_PORT: u16 = 53;
    let text = std::fs::read_to_string(resolv_conf).unwrap_or_default();
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address: IpAddr = match words.next()? {
            "nameserver" => words.next()?.parse().ok()?,
            _ => return None,
        };
        Some(SocketAddr::new(address, DNS_PORT))
    };
    let servers = text.lines().filter_map(server);
    servers.filter(|server| !own.contains(server)).collect()
}
