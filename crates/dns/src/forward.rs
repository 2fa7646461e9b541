//! Asking others what is not ours.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Resolver, TokioResolver};
use hickory_server::net::{DnsError, NetError};
use tokio::sync::Semaphore;

use crate::Error;

/// Answers that are kept.
const CACHE_ENTRIES: u64 = 4096;
/// No answer is kept longer.
const CACHE_TIME: Duration = Duration::from_secs(30);
/// Questions that may be open at once; more are refused at once.
const QUESTIONS_MAX: usize = 1000;
/// For one attempt at one server.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// What others said.
#[derive(Clone, Debug)]
pub(crate) struct Forwarded {
    pub(crate) code: ResponseCode,
    pub(crate) answers: Vec<Record>,
    pub(crate) authority: Vec<Record>,
}

/// A way to other name servers, if there is any.
pub(crate) struct Forwarder {
    resolver: Option<TokioResolver>,
    open: Semaphore,
}

impl Forwarder {
    pub(crate) fn new(upstream: &[SocketAddr]) -> Result<Forwarder, Error> {
        let resolver = match upstream {
            [] => None,
            upstream => Some(resolver(upstream).map_err(Error::Forwarder)?),
        };
        let open = Semaphore::new(QUESTIONS_MAX);
        Ok(Forwarder { resolver, open })
    }

    /// Whether there is anybody to ask.
    pub(crate) fn is_available(&self) -> bool {
        self.resolver.is_some()
    }

    pub(crate) async fn ask(&self, name: &Name, kind: RecordType) -> Forwarded {
        let failed = |code| Forwarded {
            code,
            answers: Vec::new(),
            authority: Vec::new(),
        };
        let (Some(resolver), Ok(_permit)) = (&self.resolver, self.open.try_acquire()) else {
            return failed(ResponseCode::ServFail);
        };
        match resolver.lookup(name.clone(), kind).await {
            Ok(lookup) => Forwarded {
                code: ResponseCode::NoError,
                answers: lookup.answers().to_vec(),
                authority: Vec::new(),
            },
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Forwarded {
                code: none.response_code,
                answers: Vec::new(),
                authority: none
                    .soa
                    .map(|soa| soa.into_record_of_rdata())
                    .into_iter()
                    .collect(),
            },
            Err(NetError::Dns(DnsError::ResponseCode(code))) => failed(code),
            Err(error) => {
                tracing::debug!(%name, %kind, %error, "forwarding failed");
                failed(ResponseCode::ServFail)
            }
        }
    }
}

fn resolver(upstream: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let server = |address: &SocketAddr| {
        let on_port = |mut connection: ConnectionConfig| {
            connection.port = address.port();
            connection
        };
        let ways = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
        NameServerConfig::new(address.ip(), true, ways.map(on_port).into())
    };
    let servers = upstream.iter().map(server).collect();
    let config = ResolverConfig::from_name_servers(servers);
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    let mut options = ResolverOpts::default();
    options.cache_size = CACHE_ENTRIES;
    options.positive_max_ttl = Some(CACHE_TIME);
    options.negative_max_ttl = Some(CACHE_TIME);
    options.timeout = TIMEOUT;
    options.attempts = ATTEMPTS;
    // The client wants the whole chain of aliases, and the hosts file is the node's own.
    options.preserve_intermediates = true;
    options.use_hosts_file = ResolveHosts::Never;
    *builder.options_mut() = options;
    builder.build()
}
