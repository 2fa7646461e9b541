//! What the API server needs to be told.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use auth::{Anonymous, ForeignTokens, Mode, Pki, RequestHeaders, TokenSigner, Trust};
use encryption::Encryption;

/// How one API server behaves.
#[derive(Clone)]
pub struct Config {
    /// Where ClusterIPs come from; the first address is the API server's own Service.
    pub service_cidr: String,
    pub node_port_range: RangeInclusive<u16>,
    /// Such as `cluster.local`.
    pub cluster_domain: String,
    /// Signs and verifies service account tokens; `None`: the cluster's own key, for the usual
    /// issuer.
    pub signer: Option<Arc<TokenSigner>>,
    pub pki: Arc<Pki>,
    /// How long events are kept.
    pub event_ttl: Duration,
    /// The address under which pods reach this server; `None`: no endpoints are published.
    pub advertise_address: Option<IpAddr>,
    /// The port that goes with it.
    pub port: u16,
    /// Who is let in.
    pub authentication: Authentication,
    /// Who decides what they may do, in this order.
    pub authorization: Vec<Mode>,
    /// Requests that change something and are served at one time.
    pub max_mutating_requests_inflight: usize,
    /// Other requests that are served at one time; watches and streams do not count.
    pub max_requests_inflight: usize,
    /// How long an ordinary request may take.
    pub request_timeout: Duration,
    /// Which requests are recorded, and where; `None`: none.
    pub audit: Option<Arc<audit::Audit>>,
    /// What is encrypted in the store, and how; `None`: nothing.
    pub encryption: Option<Arc<Encryption>>,
    /// Which admission plugins run, and what they are told.
    pub admission: admission::Settings,
    /// Raised when this server is about to end: it is not ready any more, and serves on.
    pub leaving: base::Stop,
    /// Raised when clients are sent away: watches end. `None`: when the crew stops.
    pub closing: Option<base::Stop>,
    /// Whether `/debug/pprof` is there.
    pub profiling: bool,
    /// Which groups and versions are served.
    pub runtime: crate::RuntimeConfig,
    /// Who else of this process answers for groups and versions.
    pub delegates: Vec<crate::Delegate>,
    /// Which of `scheduler` and `controller-manager` run in this process.
    pub parts: &'static [&'static str],
    /// What `/version` reports, such as `v1.36.0+sampan`.
    pub git_version: String,
    /// The commit this binary was built from.
    pub git_commit: String,
    /// When it was built.
    pub build_date: String,
}

/// How users are told apart.
#[derive(Clone)]
pub struct Authentication {
    /// Whether and where strangers are let in as `system:anonymous`.
    pub anonymous: Anonymous,
    /// Tokens and their users, one per line; may be empty.
    pub static_tokens: String,
    pub bootstrap_tokens: bool,
    /// How front proxies name users.
    pub request_headers: RequestHeaders,
    /// Whose certificates are believed; `None`: the cluster's own.
    pub trust: Option<Arc<Trust>>,
    /// Who knows further tokens.
    pub foreign: Vec<Arc<dyn ForeignTokens>>,
}

impl Default for Authentication {
    fn default() -> Authentication {
        Authentication {
            anonymous: Anonymous {
                enabled: true,
                paths: Vec::new(),
            },
            static_tokens: String::new(),
            bootstrap_tokens: true,
            request_headers: RequestHeaders::default(),
            trust: None,
            foreign: Vec::new(),
        }
    }
}

impl Config {
    /// The usual values; nothing is published about where the server is.
    pub fn new(pki: Arc<Pki>) -> Config {
        Config {
            service_cidr: "10.96.0.0/12".into(),
            node_port_range: 30000..=32767,
            cluster_domain: "cluster.local".into(),
            signer: None,
            pki,
            event_ttl: Duration::from_secs(3600),
            advertise_address: None,
            port: 6443,
            authentication: Authentication::default(),
            authorization: vec![Mode::Node, Mode::Rbac],
            max_mutating_requests_inflight: 400,
            max_requests_inflight: 800,
            request_timeout: Duration::from_secs(60),
            audit: None,
            encryption: None,
            admission: admission::Settings::default(),
            leaving: base::Stop::new(),
            closing: None,
            profiling: true,
            runtime: crate::RuntimeConfig::default(),
            delegates: Vec::new(),
            parts: &[],
            git_version: "v1.36.2+sampan".into(),
            git_commit: "unknown".into(),
            build_date: "1970-01-01T00:00:00Z".into(),
        }
    }
}
