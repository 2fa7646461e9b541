//! From parts to a running server, and the objects that every cluster has.

pub(crate) mod bootstrap;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use auth::{Authenticator, Authorizer, Identity, TokenSigner, Trust};
use base::Crew;
use fairness::Fairness;
use meta::Status;
use store::{Store, StoreError};

use crate::allocate::Allocations;
use crate::cache::{Feed, Observer};
use crate::chain::flow;
use crate::chain::inflight::Inflight;
use crate::config::Config;
use crate::flowcontrol::FlowControl;
use crate::lookup::{Lookup, Rights};
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::server::{ApiServer, Core};
use crate::stream::Dialer;

/// Why an API server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Objects cannot be read from the store.
    #[error("cannot read the store")]
    Store(#[source] StoreError),
    /// The keys are not those that the store was written with.
    #[error(
        "{0} stored objects cannot be decrypted: bring back the encryption provider configuration \
         that they were written with"
    )]
    Encrypted(u64),
    /// The service range is no range.
    #[error("service range {0:?} is not an IPv4 range")]
    ServiceRange(String),
    /// What is to be served is not there.
    #[error("--runtime-config")]
    Runtime(#[source] crate::RuntimeConfigError),
    /// Tokens cannot be signed.
    #[error("cannot sign tokens")]
    Signer(#[source] auth::pki::PkiError),
    /// The file of static tokens cannot be read.
    #[error("token auth file")]
    Tokens(#[source] auth::authenticator::TokenFileError),
    /// The authorities of clients cannot be read.
    #[error("cannot read the authorities of clients")]
    Trust(#[source] auth::tls::TlsError),
    /// Kubelets cannot be dialed.
    #[error("cannot set up TLS for kubelets")]
    KubeletClient(#[source] client::remote::RemoteError),
    /// The settings of admission cannot be followed.
    #[error("admission")]
    Admission(#[source] admission::ConfigError),
    /// An object that every cluster has cannot be written.
    #[error("cannot write {what}")]
    Bootstrap {
        what: String,
        #[source]
        status: Box<Status>,
    },
}

/// Builds the server over a store: fills the caches, follows the store, writes the objects that
/// every cluster has. It serves when this returns.
pub async fn build(
    config: Config,
    store: Arc<dyn Store>,
    crew: &Crew,
) -> Result<ApiServer, BuildError> {
    let authorizer = Arc::new(Authorizer::of(config.authorization.clone()));
    let allocations = Allocations::new(&config.service_cidr, config.node_port_range.clone())
        .map_err(|error| BuildError::ServiceRange(error.0))?;
    let services = Arc::new(crate::webhooks::Services::default());
    let webhooks = Arc::new(webhook::Webhooks::new(Arc::clone(&services) as _));
    let hooks = crate::webhooks::Hooks::new(&webhooks, &config.admission);
    let policies = admission::Policies::new(Arc::clone(&authorizer), &config.admission);
    let observing = |group_resource: &str| {
        let observer = observer(group_resource, &authorizer, &allocations);
        let observer = observer.or_else(|| hooks.observer(group_resource));
        observer.or_else(|| policy_observer(group_resource, &policies))
    };
    let encryption = config.encryption.as_ref();
    let registry = Arc::new(Registry::builtin(observing, encryption));
    registry
        .serve(&config.runtime)
        .map_err(BuildError::Runtime)?;
    services.follow(&registry);
    let feed = Arc::new(Feed::new(Arc::clone(&store), registry.caches()));
    let stream = feed.start().await.map_err(BuildError::Store)?;
    let unreadable = config.encryption.as_ref().map_or(0, |own| own.failures());
    if unreadable > 0 {
        return Err(BuildError::Encrypted(unreadable));
    }
    crew.spawn("apiserver feed", Arc::clone(&feed).run(stream, crew.stop()));
    let signer = match &config.signer {
        Some(signer) => Arc::clone(signer),
        None => {
            let signer = config.pki.token_signer(auth::token::DEFAULT_ISSUER);
            Arc::new(signer.map_err(BuildError::Signer)?)
        }
    };
    let authenticator = authenticator(&config, Arc::clone(&signer))?;
    let seats = config.max_mutating_requests_inflight + config.max_requests_inflight;
    let core = Core {
        store,
        lookup: Lookup::new(Arc::clone(&registry), Arc::clone(&authorizer)),
        registry,
        feed,
        authenticator,
        authorizer,
        impersonation: crate::chain::impersonate::Impersonation::default(),
        signer,
        admission: admission::chain_with(&config.admission).map_err(BuildError::Admission)?,
        policies,
        webhooks,
        hooks,
        allocations,
        event_leases: crate::keep::EventLeases::new(config.event_ttl),
        inflight: Inflight::default(),
        fairness: Fairness::new(
            u32::try_from(seats).unwrap_or(u32::MAX),
            config.request_timeout / flow::WAIT_PART,
        ),
        metrics: Metrics::default(),
        reloads: crate::reload::Reloads::default(),
        documents: crate::openapi::Documents::default(),
        dialer: Dialer::new(&config.pki, crew)?,
        aggregate: crate::aggregate::Aggregate::new(services, config.delegates.clone()),
        stop: config.closing.clone().unwrap_or_else(|| crew.stop()),
        begun: jiff::Timestamp::now(),
        compacted: Arc::default(),
        started: AtomicBool::new(false),
        config,
    };
    let server = ApiServer {
        core: Arc::new(core),
    };
    let client = server.client(Identity::loopback());
    bootstrap::write(&server.core, &client).await?;
    let flow_control = FlowControl::new(&server.core, client);
    let synced = flow_control.sync().await;
    synced.map_err(|status| BuildError::Bootstrap {
        what: "FlowSchemas and PriorityLevelConfigurations".into(),
        status: Box::new(status),
    })?;
    crew.spawn("priority and fairness", flow_control.run(crew.stop()));
    let mut definitions = crate::custom::definitions(&server.core, &server);
    definitions.sync().await;
    crew.spawn("custom resources", definitions.run(crew.stop()));
    let aggregate = crate::aggregate::run(
        Arc::clone(&server.core),
        server.client(Identity::loopback()),
        crew.stop(),
    );
    crew.spawn("aggregation", aggregate);
    let compactor = crate::compact::run(
        Arc::clone(&server.core.store),
        Arc::clone(&server.core.compacted),
        crew.stop(),
    );
    crew.spawn("store compaction", compactor);
    let repair = crate::allocate::repair::run(
        Arc::clone(&server.core),
        server.client(Identity::loopback()),
        crew.stop(),
    );
    crew.spawn("addresses of services", repair);
    let forget = crate::forget::run(Arc::clone(&server.core), crew.stop());
    crew.spawn("forgetting", forget);
    let checks = server.client(Identity::loopback());
    let checks = crate::policy_status::run(Arc::clone(&server.core), checks, crew.stop());
    crew.spawn("policy status", checks);
    server.core.started.store(true, Ordering::Release);
    Ok(server)
}

fn authenticator(config: &Config, signer: Arc<TokenSigner>) -> Result<Authenticator, BuildError> {
    let own = &config.authentication;
    let trust = match &own.trust {
        Some(trust) => Arc::clone(trust),
        None => {
            let pki = &config.pki;
            let trust = Trust::new(pki.client_ca_pem(), pki.front_proxy_ca_pem());
            Arc::new(trust.map_err(BuildError::Trust)?)
        }
    };
    let authenticator = Authenticator::new(signer)
        .trust(trust)
        .request_headers(own.request_headers.clone())
        .bootstrap_tokens(own.bootstrap_tokens)
        .anonymous(own.anonymous.clone())
        .static_tokens(&own.static_tokens)
        .map_err(BuildError::Tokens)?;
    let foreign = own.foreign.iter().cloned();
    Ok(foreign.fold(authenticator, Authenticator::foreign))
}

fn observer(
    group_resource: &str,
    authorizer: &Arc<Authorizer>,
    allocations: &Allocations,
) -> Option<Arc<dyn Observer>> {
    if let Some(observer) = allocations.observer(group_resource) {
        return Some(observer);
    }
    Authorizer::WATCHES.contains(&group_resource).then(|| {
        let rights = Rights {
            authorizer: Arc::clone(authorizer),
            group_resource: group_resource.to_owned(),
        };
        Arc::new(rights) as Arc<dyn Observer>
    })
}

fn policy_observer(
    group_resource: &str,
    policies: &Arc<admission::Policies>,
) -> Option<Arc<dyn Observer>> {
    let watched = admission::policy::WATCHES.contains(&group_resource);
    watched.then(|| {
        let observer = crate::lookup::PolicyObserver {
            policies: Arc::clone(policies),
            group_resource: group_resource.to_owned(),
        };
        Arc::new(observer) as Arc<dyn Observer>
    })
}
