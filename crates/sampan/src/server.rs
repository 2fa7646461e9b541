//! The composition root: every part is built here and nowhere else. A part
//! sees only the API; whether that is a value of this process or a server
//! elsewhere it cannot tell.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use apiserver::ApiServer;
use auth::certificate::{Pair, Subject, Usage};
use auth::tls::ServingCertificates;
use auth::{Pki, TokenSigner};
use base::Crew;
use client::{Access, Client, Hub};
use node_api::CgroupDriver;

use crate::accounts::Accounts;
use crate::certificates::{Certificates, in_memory, keep_fresh};
use crate::cli::VERSION;
use crate::config::{Config, Role, ServiceManager};
use crate::crews::{Crews, Farewell};
use crate::files::text;
use crate::guard::Delegated;
use crate::{addons, identity, join, node_runtime, node_settings, reload, service};

/// Runs what the configuration says until SIGTERM or SIGINT.
pub(crate) async fn run(config: Config) -> Result<()> {
    let crews = Crews::default();
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("cannot create {}", config.data_dir.display()))?;
    let farewell = Farewell {
        most: shutdown_config(&config, &crews).whole(),
        always: config.kubelet_arg.ends_with_sigterm(),
    };
    crews.stop_on_signals(config.access.serving.delay()?, farewell)?;
    service::delay_shutdown(farewell.most, &crews);
    let started = start(&config, &crews).await;
    match &started {
        Ok(()) => service::ready(&ServiceManager::of_environment(), &crews),
        Err(_) => crews.work.stop().raise(),
    }
    let ended = crews.finished().await;
    started?;
    ended?;
    tracing::info!("stopped; containers go on running");
    Ok(())
}

/// How the pods of this machine end with it; nothing where no kubelet runs.
fn shutdown_config(config: &Config, crews: &Crews) -> kubelet::ShutdownConfig {
    let periods = match config.role {
        Role::All | Role::Kubelet => node_settings::shutdown_periods(config.kubelet.settings()),
        _ => Vec::new(),
    };
    kubelet::ShutdownConfig {
        periods,
        begun: crews.going_down.clone(),
        ended: crews.pods_ended.clone(),
    }
}

async fn start(config: &Config, crews: &Crews) -> Result<()> {
    let crew = &crews.work;
    match config.role {
        Role::All => everything(config, crews).await,
        Role::Apiserver => {
            // Alone, the server publishes the address it is bound to.
            let advertised = config
                .node_ip
                .map(IpAddr::from)
                .unwrap_or(config.bind_address);
            api_server(config, advertised, crews).await
        }
        Role::Scheduler => {
            let client = Client::remote(&access(config)?)?;
            start_scheduler(client, crew);
            Ok(())
        }
        Role::ControllerManager => {
            let access = access(config)?;
            let client = Client::remote(&access)?;
            let accounts = Accounts::new(&access, client.clone())?;
            let root_ca = access.ca.clone().unwrap_or_default();
            let root_ca = String::from_utf8(root_ca).context("CA of the kubeconfig is not text")?;
            start_controllers(
                config,
                client,
                Arc::new(move |name| accounts.client(name)),
                root_ca,
                signing_keys(config)?,
                crew,
            );
            Ok(())
        }
        Role::Proxy => {
            let client = Client::remote(&access(config)?)?;
            let network = network_config(config)?;
            start_proxy(config, &network, client, crew);
            Ok(())
        }
        Role::Kubelet => kubelet_alone(config, crews).await,
    }
}

async fn everything(config: &Config, crews: &Crews) -> Result<()> {
    let crew = &crews.work;
    // The store first: it refuses a second server on the same folder before anything is touched.
    let store = open_store(config, &crews.store).await?;
    let network = network_config(config)?;
    network::bring_up_loopback().await.context("loopback")?;
    let pods = node_runtime::pod_network(config, &network).await?;
    let node_ip = node_ip(config, &network).await?;
    // Where pods find the node: a bridge that another runtime makes is not there before its pods.
    let gateway = match &pods {
        Some(_) => IpAddr::from(network.gateway()),
        None => node_ip,
    };
    let hosts = [node_ip, gateway];
    let served = api_server_on(config, store, node_ip, &hosts, crews).await?;
    let Served { api, pki, signer } = served;

    let local = |who| api.client(who);
    start_scheduler(local(identity::scheduler()), crew);
    let by_name = {
        let api = api.clone();
        move |name: &str| api.client(identity::controller(name))
    };
    let manager = local(identity::controller_manager());
    start_controllers(
        config,
        manager,
        Arc::new(by_name),
        pki.ca_pem().to_owned(),
        Some(keys(&pki, signer)),
        crew,
    );
    start_proxy(config, &network, local(identity::proxy()), crew);
    start_dns(config, &network, gateway, local(identity::dns()), crew);
    addons::dns(
        &local(auth::Identity::loopback()),
        &config.cluster_dns.to_string(),
        gateway,
    )
    .await
    .context("kube-dns service")?;

    let settings = config.kubelet.settings();
    if settings.rotate_certificates {
        tracing::warn!(
            "kubelet configuration: rotateCertificates has no effect here: this kubelet needs no \
             certificate to speak to the API server of its own process"
        );
    }
    let node = local(identity::node(&config.node_name));
    let own = settings.tls_cert_file.is_empty() && !settings.server_tls_bootstrap;
    let shown = match own {
        true => kept_node_certificate(config, &pki, &hosts, crew)?,
        false => join::shown(config, &node, node_ip, crew)?,
    };
    let reviewer = local(auth::Identity::loopback());
    let tls = kubelet_tls(settings, shown, pki.client_ca_pem())?;
    start_kubelet(config, &network, pods, node, reviewer, node_ip, tls, crews).await?;
    tracing::info!(
        kubeconfig = %config.write_kubeconfig.display(),
        "ready: export KUBECONFIG={}", config.write_kubeconfig.display()
    );
    Ok(())
}

async fn open_store(config: &Config, crew: &Crew) -> Result<Arc<dyn store::Store>> {
    let settings = store::Config {
        dir: config.data_dir.join("store"),
        ..store::Config::default()
    };
    let place = settings.dir.display().to_string();
    store::open(settings, crew)
        .await
        .with_context(|| format!("store {place}"))
}

/// The API server alone, with what the other parts need to reach it.
async fn api_server(config: &Config, advertised: IpAddr, crews: &Crews) -> Result<()> {
    let store = open_store(config, &crews.store).await?;
    let served = api_server_on(config, store, advertised, &[], crews).await?;
    write_component_kubeconfigs(config, &served.pki, &crews.work)
}

/// The API server, and what others of this process share with it.
struct Served {
    api: ApiServer,
    pki: Arc<Pki>,
    signer: Arc<TokenSigner>,
}

async fn api_server_on(
    config: &Config,
    store: Arc<dyn store::Store>,
    advertised: IpAddr,
    hosts: &[IpAddr],
    crews: &Crews,
) -> Result<Served> {
    let crew = &crews.work;
    let mut names: Vec<String> = hosts.iter().map(IpAddr::to_string).collect();
    names.extend([advertised.to_string(), config.bind_address.to_string()]);
    names.push(config.node_name.clone());
    names.extend(config.tls_san.iter().cloned());
    let pki = Arc::new(Pki::open(&config.data_dir.join("pki"), &names).context("certificates")?);

    let port = config.https_listen_port;
    let mut addresses = vec![SocketAddr::new(config.bind_address, port)];
    for host in hosts {
        let address = SocketAddr::new(*host, port);
        if !config.bind_address.is_unspecified() && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let mut listeners = Vec::new();
    for address in addresses {
        let listener = std::net::TcpListener::bind(address).with_context(|| {
            format!("cannot listen on {address} (choose another with --https-listen-port)")
        })?;
        listener.set_nonblocking(true)?;
        listeners.push(listener);
    }

    let client_ca = config.client_ca_file.as_deref();
    let signer = config.access.tokens.signer(&pki)?;
    let authentication = config.access.authentication(&pki, &signer, client_ca)?;
    let foreign = authentication.foreign.clone();
    let trust = authentication.trust.clone().unwrap_or_default();
    let certificates = Certificates::new(config, Arc::clone(&pki), trust)?;
    let metrics = metrics::Metrics::new();
    let settings = apiserver::Config {
        delegates: vec![measured(&metrics)],
        authentication,
        authorization: config.access.authorization()?,
        signer: Some(Arc::clone(&signer)),
        service_cidr: config.service_cidr.clone(),
        node_port_range: config.service_node_port_range.0..=config.service_node_port_range.1,
        cluster_domain: config.cluster_domain.clone(),
        advertise_address: Some(advertised),
        port,
        audit: config.access.audit.trail(&config.audit, &crews.api)?,
        encryption: Some(encryption_at_rest(config, crew).await?),
        profiling: config.profiling,
        runtime: apiserver::RuntimeConfig::parse(&config.runtime_config)
            .context("--runtime-config")?,
        parts: match config.role {
            Role::All => &["controller-manager", "scheduler"],
            _ => &[],
        },
        git_version: VERSION.into(),
        admission: config.admission()?,
        leaving: crews.leaving.clone(),
        closing: Some(crew.stop()),
        ..apiserver::Config::new(pki.clone())
    };
    let api = apiserver::build(settings, store, &crews.api)
        .await
        .context("API server")?;
    metrics
        .start(api.client(auth::Identity::loopback()), &crews.api)
        .await
        .context("metrics of nodes and pods")?;
    let tls = auth::tls::open_config(certificates.shown(), &config.access.serving.spoken()?)?;
    apiserver::listen(api.clone(), listeners, tls, crew).context("API server's listeners")?;
    let url = format!(
        "https://{}",
        SocketAddr::new(reachable(config.bind_address), port)
    );
    let (path, ca) = (config.write_kubeconfig.clone(), pki.ca_pem().to_owned());
    let write =
        move |admin: &Pair| write_private(&path, &auth::kubeconfig(&url, &ca, admin, "sampan"));
    write(pki.admin())?;
    certificates.follow(&api, crew, write)?;
    reload::follow(&config.access, &api, &signer, foreign, crew)?;
    Ok(Served { api, pki, signer })
}

/// `metrics.k8s.io`, as metrics-server is ranked.
fn measured(metrics: &metrics::Metrics) -> apiserver::Delegate {
    apiserver::Delegate {
        group: metrics::GROUP.into(),
        version: metrics::VERSION.into(),
        priority: (100, 100),
        resources: metrics.resources(),
        schemas: metrics::schemas(),
        service: metrics.service(),
    }
}

/// What is encrypted in the store: what the file says, or secrets with a key of our own.
async fn encryption_at_rest(config: &Config, crew: &Crew) -> Result<Arc<encryption::Encryption>> {
    let own = config.data_dir.join("encryption.yaml");
    let path = match &config.encryption_provider_config {
        Some(path) => path,
        None => {
            encryption::create_default(&own)?;
            &own
        }
    };
    let reload = config.encryption_provider_config_automatic_reload;
    Ok(encryption::load(path, reload, crew).await?)
}

/// The address by which a client on this machine reaches a listener.
fn reachable(bound: IpAddr) -> IpAddr {
    if bound.is_unspecified() {
        Ipv4Addr::LOCALHOST.into()
    } else {
        bound
    }
}

/// Kubeconfigs and certificates for parts that run in processes of their own, kept fresh.
fn write_component_kubeconfigs(config: &Config, pki: &Arc<Pki>, crew: &Crew) -> Result<()> {
    let url = format!(
        "https://{}",
        SocketAddr::new(reachable(config.bind_address), config.https_listen_port)
    );
    let node = format!("system:node:{}", config.node_name);
    let parts: [(&str, &str, &'static [&'static str]); 4] = [
        ("scheduler", "system:kube-scheduler", &[]),
        ("controller-manager", "system:kube-controller-manager", &[]),
        ("proxy", "system:kube-proxy", &[]),
        ("kubelet", &node, &["system:nodes"]),
    ];
    for (name, user, groups) in parts {
        let (own, user) = (Arc::clone(pki), user.to_owned());
        let issue = move || Ok(own.issue_client(&user, groups)?);
        let path = config.data_dir.join(format!("{name}.kubeconfig"));
        let (url, ca) = (url.clone(), pki.ca_pem().to_owned());
        let write =
            move |pair: &Pair| write_private(&path, &auth::kubeconfig(&url, &ca, pair, name));
        let first = issue()?;
        write(&first)?;
        keep_fresh(crew, &first, in_memory(first.clone(), issue), write);
    }
    let mut hosts: Vec<IpAddr> = vec![config.bind_address];
    hosts.extend(config.node_ip.map(IpAddr::from));
    kept_node_certificate(config, pki, &hosts, crew).map(drop)
}

/// The kubelet's serving certificate, kept in the folder of certificates and kept fresh.
fn kept_node_certificate(
    config: &Config,
    pki: &Arc<Pki>,
    hosts: &[IpAddr],
    crew: &Crew,
) -> Result<Arc<ServingCertificates>> {
    let common_name = format!("system:node:{}", config.node_name);
    let mut names: std::collections::BTreeSet<String> =
        hosts.iter().map(IpAddr::to_string).collect();
    names.insert(config.node_name.clone());
    let (own, folder) = (Arc::clone(pki), config.data_dir.join("pki"));
    let renew = move |now| {
        let subject = Subject {
            common_name: &common_name,
            organizations: &["system:nodes"],
            hosts: names.clone(),
            usage: Usage::Server,
        };
        Ok(own.keep(&folder, "kubelet", &subject, now)?)
    };
    let first = renew(jiff::Timestamp::now())?;
    let shown = Arc::new(ServingCertificates::new(&first)?);
    let own = Arc::clone(&shown);
    let used = move |pair: &Pair| Ok(own.set(pair, &[])?);
    keep_fresh(crew, &first, renew, used);
    Ok(shown)
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    base::files::write_atomic(path, text.as_bytes(), 0o600)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn access(config: &Config) -> Result<Access> {
    let path = config
        .kubeconfig
        .as_deref()
        .context("--kubeconfig is needed")?;
    Ok(client::kubeconfig::load(path, None)?)
}

fn network_config(config: &Config) -> Result<network::Config> {
    let parse = |text: &str| {
        text.parse()
            .map_err(|_| anyhow::anyhow!("{text}: not an IPv4 range"))
    };
    Ok(network::Config {
        bridge: config.bridge.clone(),
        pod_cidr: parse(&config.pod_cidr)?,
        cluster_cidr: parse(&config.cluster_cidr)?,
        service_cidr: parse(&config.service_cidr)?,
        ..network::Config::new(config.data_dir.join("network"))
    })
}

async fn node_ip(config: &Config, network: &network::Config) -> Result<IpAddr> {
    match config.node_ip {
        Some(address) => Ok(address.into()),
        None if config.container_runtime_endpoint.is_some() => {
            let address = network::default_route_address().await;
            let address = address.context("node address")?;
            Ok(address
                .context("--node-ip is needed: there is no default route")?
                .into())
        }
        None => Ok(network::node_address(network)
            .await
            .context("node address")?
            .into()),
    }
}

fn start_scheduler(client: Client, crew: &Crew) {
    let own = crew.clone();
    crew.spawn("scheduler", async move {
        scheduler::run(client, scheduler::Config::default(), &own).await;
    });
}

fn start_controllers(
    config: &Config,
    client: Client,
    client_for: Arc<dyn Fn(&str) -> Client + Send + Sync>,
    root_ca: String,
    keys: Option<controllers::Keys>,
    crew: &Crew,
) {
    let cluster_cidr = config.cluster_cidr.clone();
    let settings = controllers::Config {
        client,
        client_for,
        root_ca,
        cluster_cidr,
        keys,
        signing_duration: config.cluster_signing_duration,
    };
    controllers::run(settings, crew);
}

/// What controllers sign with.
fn keys(pki: &Pki, signer: Arc<TokenSigner>) -> controllers::Keys {
    controllers::Keys {
        authority: pki.authority(),
        tokens: signer,
    }
}

/// The same for controllers that run alone: only where the keys are on this machine.
fn signing_keys(config: &Config) -> Result<Option<controllers::Keys>> {
    let folder = config.data_dir.join("pki");
    match folder.join("ca.key").exists() && folder.join("sa.key").exists() {
        true => {
            let pki = Pki::open(&folder, &[]).context("certificates")?;
            let signer = config.access.tokens.signer(&pki)?;
            Ok(Some(keys(&pki, signer)))
        }
        false => Ok(None),
    }
}

fn start_proxy(config: &Config, network: &network::Config, client: Client, crew: &Crew) {
    let settings = proxy::Config {
        node_name: config.node_name.clone(),
        zone: None,
        cluster_cidr: network.cluster_cidr,
        service_cidr: network.service_cidr,
    };
    let hub = Hub::new(client, crew);
    crew.spawn_fallible("service proxy", proxy::run(hub, settings, crew.stop()));
}

fn start_dns(
    config: &Config,
    network: &network::Config,
    address: IpAddr,
    client: Client,
    crew: &Crew,
) {
    let own = vec![SocketAddr::new(address, 53)];
    let settings = dns::Config {
        cluster_domain: config.cluster_domain.clone(),
        service_address: Some(config.cluster_dns.into()),
        private: vec![network.cluster_cidr, network.service_cidr],
        upstream: dns::upstream_servers(&config.resolv_conf, &own),
        listen: own,
    };
    let hub = Hub::new(client, crew);
    crew.spawn_fallible("DNS", dns::run(hub, settings, crew.stop()));
}

async fn kubelet_alone(config: &Config, crews: &Crews) -> Result<()> {
    let crew = &crews.work;
    let client = join::client(config, crew).await?;
    let network = network_config(config)?;
    network::bring_up_loopback().await.context("loopback")?;
    let pods = node_runtime::pod_network(config, &network).await?;
    let node_ip = node_ip(config, &network).await?;
    let settings = config.kubelet.settings();
    let shown = join::shown(config, &client, node_ip, crew)?;
    let tls = kubelet_tls(settings, shown, "")?;
    start_kubelet(
        config,
        &network,
        pods,
        client.clone(),
        client,
        node_ip,
        tls,
        crews,
    )
    .await
}

/// How the kubelet's server speaks TLS; `own_ca` is the authority of clients that it always knows.
fn kubelet_tls(
    settings: &node_config::Settings,
    shown: Arc<ServingCertificates>,
    own_ca: &str,
) -> Result<Arc<rustls::ServerConfig>> {
    let file = &settings.authentication.x509.client_ca_file;
    let named = match file.is_empty() {
        true => String::new(),
        false => text(Path::new(file)).context("authentication.x509.clientCAFile")?,
    };
    let minimum = Some(settings.tls_min_version.as_str()).filter(|version| !version.is_empty());
    let spoken = auth::ciphers::Spoken::of(minimum, &settings.tls_cipher_suites);
    let spoken = spoken.context("tlsMinVersion and tlsCipherSuites")?;
    let authorities = format!("{own_ca}{named}");
    Ok(auth::tls::closed_config(shown, &authorities, &spoken)?)
}

#[expect(
    clippy::too_many_arguments,
    reason = "each is a different part; this is where they meet"
)]
async fn start_kubelet(
    config: &Config,
    network: &network::Config,
    pods: Option<Arc<dyn node_api::PodNetwork>>,
    node: Client,
    reviewer: Client,
    node_ip: IpAddr,
    tls: Arc<rustls::ServerConfig>,
    crews: &Crews,
) -> Result<()> {
    let crew = &crews.work;
    let told = config.kubelet.settings();
    for warning in config.kubelet.warnings() {
        tracing::warn!("kubelet configuration: {warning}");
    }
    node_settings::check_machine(told)?;
    if config.kubelet.is_asked("oomScoreAdj") {
        std::fs::write("/proc/self/oom_score_adj", told.oom_score_adj.to_string())
            .context("oomScoreAdj")?;
    }
    let foreign = pods.is_none();
    let parts = node_runtime::open(config, pods, crew).await?;
    let address = match config.kubelet.is_asked("address") {
        true => told.address.clone(),
        false => node_ip.to_string(),
    };
    let server = kubelet::ServerConfig {
        address: node_settings::address(&address, told.port)?,
        tls,
        guard: Arc::new(Delegated::new(reviewer, &config.node_name, told)),
        debugging: told.enable_debugging_handlers,
    };
    let root = config.data_dir.join("kubelet");
    let mut settings = kubelet::Config::new(
        &config.node_name,
        node_ip,
        root.clone(),
        config.data_dir.join("logs/pods"),
    );
    let sockets = config.kubelet_arg.sockets(&root);
    node_settings::apply(told, sockets, &mut settings)?;
    if let Some(folder) = &settings.static_pod_path {
        std::fs::create_dir_all(folder)?;
    }
    settings.cgroup_driver = parts.runtime.cgroup_driver();
    if foreign && settings.cgroup_driver == CgroupDriver::Cgroupfs {
        // Our own engine puts this below its own; here it is the machine's.
        let above = engine_config(&config.data_dir).cgroup_root;
        settings.cgroup_root = format!("{above}{}", settings.cgroup_root);
    }
    if told.read_only_port != 0 {
        settings.read_only = Some(node_settings::address(&address, told.read_only_port)?);
    }
    settings.problems = config.kubelet_arg.problems()?;
    settings.dead_containers = config.kubelet_arg.dead_containers()?;
    let tokens = told.gate("KubeletServiceAccountTokenForCredentialProviders");
    settings.credential_providers = config.kubelet_arg.credential_providers(tokens)?;
    settings.shutdown = shutdown_config(config, crews);
    settings.shown = config.kubelet.shown().clone();
    settings.shown["address"] = address.into();
    settings.pod_cidrs = vec![network.pod_cidr.to_string()];
    settings.labels = config.node_label.iter().cloned().collect();
    settings.server = told.enable_server.then_some(server);
    settings.version = VERSION.into();
    kubelet::run(node, parts, settings, crew)
        .await
        .context("kubelet")
}

/// Where the engine keeps its things. Sockets and cgroups need short names of their own, so that
/// several clusters can share a machine.
pub(crate) fn engine_config(data_dir: &Path) -> runtime::Config {
    let tag = folder_tag(data_dir);
    runtime::Config {
        root: engine_root(data_dir),
        state: Path::new("/run/sampan").join(&tag),
        ..runtime::Config::below(data_dir, &format!("/sampan-{tag}"))
    }
}

/// Where the engine keeps images and containers.
pub(crate) fn engine_root(data_dir: &Path) -> PathBuf {
    data_dir.join("engine")
}

/// Eight hexadecimal digits that stand for a data folder.
fn folder_tag(folder: &Path) -> String {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619);
    let hash = folder
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(2_166_136_261, step);
    format!("{hash:08x}")
}
