//! What a server is told, by flags and by `sampan.yaml`. Names are kube's and
//! k3s's where these have one; flags override the file.

mod admission;
mod node;
mod service;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::access::AccessArgs;
use crate::node_flags::NodeArgs;
use crate::serving::time;
pub(crate) use service::ServiceManager;

pub(crate) const DEFAULT_DATA_DIR: &str = "/var/lib/sampan";
const CLUSTER_DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const CLUSTER_DOMAIN: &str = "cluster.local";

/// Which parts this process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// Everything
    #[default]
    All,
    Apiserver,
    Scheduler,
    ControllerManager,
    Kubelet,
    Proxy,
}

/// Flags of `sampan server`; the same names are the keys of `sampan.yaml`.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct ServerArgs {
    /// File with these settings [default: <data-dir>/sampan.yaml if it exists]
    #[arg(short = 'c', long)]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Folder that holds everything
    #[arg(short = 'd', long)]
    data_dir: Option<PathBuf>,
    /// Run only one part, against the API server of --kubeconfig
    #[arg(long)]
    role: Option<Role>,
    /// Address the API server listens on, besides the node's own
    #[arg(long)]
    bind_address: Option<IpAddr>,
    /// Port of the API server
    #[arg(long, visible_alias = "secure-port")]
    https_listen_port: Option<u16>,
    /// Further names or addresses in the API server's certificate
    #[arg(long)]
    #[serde(default)]
    tls_san: Vec<String>,
    /// Where to write the administrator's kubeconfig [default: <data-dir>/admin.kubeconfig]
    #[arg(short = 'o', long)]
    write_kubeconfig: Option<PathBuf>,
    /// Pods of all nodes
    #[arg(long)]
    cluster_cidr: Option<String>,
    /// Pods of this node
    #[arg(long)]
    pod_cidr: Option<String>,
    /// Cluster addresses of services
    #[arg(long, visible_alias = "service-cluster-ip-range")]
    service_cidr: Option<String>,
    /// Ports of services of type NodePort
    #[arg(long)]
    service_node_port_range: Option<String>,
    /// Cluster address of the DNS service
    #[arg(long)]
    cluster_dns: Option<Ipv4Addr>,
    /// Domain of the cluster's names
    #[arg(long)]
    cluster_domain: Option<String>,
    /// Name of this node [default: the host's name]
    #[arg(long, visible_alias = "hostname-override")]
    node_name: Option<String>,
    /// Address of this node [default: that of the default route, else of the pod bridge]
    #[arg(short = 'i', long)]
    node_ip: Option<Ipv4Addr>,
    /// Labels of the node, key=value
    #[arg(long)]
    #[serde(default)]
    node_label: Vec<String>,
    /// Port of the kubelet
    #[arg(long)]
    kubelet_port: Option<u16>,
    /// Most pods on this node
    #[arg(long)]
    max_pods: Option<u32>,
    /// Kubeconfig with a bootstrap token, by which a kubelet that runs alone asks for its certificate
    /// if --kubeconfig does not exist; that is written then
    #[arg(long)]
    bootstrap_kubeconfig: Option<PathBuf>,
    /// How long certificates live that controllers sign, at most [default: 8760h]
    #[arg(long)]
    cluster_signing_duration: Option<String>,
    /// File with a KubeletConfiguration (kubelet.config.k8s.io/v1beta1)
    #[arg(long)]
    kubelet_config: Option<PathBuf>,
    /// Folder with drop-ins for it, *.conf, in the order of their names
    #[arg(long)]
    kubelet_config_dir: Option<PathBuf>,
    /// A flag of the kubelet, name=value; wins over the files
    #[arg(long)]
    #[serde(default)]
    kubelet_arg: Vec<String>,
    /// Folder with manifests of static pods [default: <data-dir>/manifests]
    #[arg(long)]
    pod_manifest_path: Option<PathBuf>,
    /// Name servers of the node
    #[arg(long)]
    resolv_conf: Option<PathBuf>,
    /// Unix socket that serves the node's container engine by CRI v1 [default: none]
    #[arg(long)]
    cri_socket: Option<PathBuf>,
    /// Unix socket for NRI plugins, which adjust the node's containers; plugins in /opt/nri/plugins are
    /// started then [default: none]
    #[arg(long)]
    nri_socket: Option<PathBuf>,
    /// Unix socket of somebody else's container runtime (CRI v1), to be used instead of our own
    /// engine; pods then have that runtime's network
    #[arg(long)]
    container_runtime_endpoint: Option<String>,
    /// Unix socket of its images [default: --container-runtime-endpoint]
    #[arg(long)]
    image_service_endpoint: Option<String>,
    /// File that says how registries are spoken to, as k3s' registries.yaml does: mirrors, credentials,
    /// certificates [default: <data-dir>/engine/registries.yaml if it exists]
    #[arg(long)]
    private_registry: Option<PathBuf>,
    /// Bridge that the pods of this node hang on
    #[arg(long)]
    bridge: Option<String>,
    /// Serving certificate and key of the API server, or of a kubelet that runs alone
    #[arg(long)]
    tls_cert_file: Option<PathBuf>,
    #[arg(long)]
    tls_private_key_file: Option<PathBuf>,
    /// Certificates by which clients are known: to the API server besides the cluster's own, to a
    /// kubelet that runs alone at all
    #[arg(long)]
    client_ca_file: Option<PathBuf>,
    /// File that says what is encrypted in the store [default: <data-dir>/encryption.yaml, made
    /// with a new key at the first start]
    #[arg(long)]
    encryption_provider_config: Option<PathBuf>,
    /// Follow changes of --encryption-provider-config [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    encryption_provider_config_automatic_reload: Option<bool>,
    /// Serve profiles of this process at /debug/pprof of the API server [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    profiling: Option<bool>,
    /// Groups, versions and resources to serve or not: api/all, api/ga, GROUP/VERSION,
    /// GROUP/VERSION/RESOURCE, each with =true or =false
    #[arg(long, value_delimiter = ',')]
    #[serde(default)]
    runtime_config: Vec<String>,
    /// Admission plugins to run besides those that are on by default
    #[arg(long, value_delimiter = ',')]
    #[serde(default)]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins that are on by default and shall not run
    #[arg(long, value_delimiter = ',')]
    #[serde(default)]
    disable_admission_plugins: Vec<String>,
    /// File with an AdmissionConfiguration
    #[arg(long)]
    admission_control_config_file: Option<PathBuf>,
    /// Policy that says which requests are recorded, and how much of them
    #[arg(long)]
    audit_policy_file: Option<PathBuf>,
    /// File that takes the records, as lines of JSON; - is the standard output
    #[arg(long)]
    audit_log_path: Option<PathBuf>,
    /// Megabytes at which that file is rotated [default: 100]
    #[arg(long)]
    audit_log_maxsize: Option<u64>,
    /// Rotated files kept [default: all]
    #[arg(long)]
    audit_log_maxbackup: Option<usize>,
    /// Days for which rotated files are kept [default: for ever]
    #[arg(long)]
    audit_log_maxage: Option<u64>,
    /// Kubeconfig of the server that takes the records in batches
    #[arg(long)]
    audit_webhook_config_file: Option<PathBuf>,
    /// A flag of the API server, name=value
    #[arg(long)]
    #[serde(default)]
    kube_apiserver_arg: Vec<String>,
    /// The same flags by their own names; the file has them in kube-apiserver-arg.
    #[command(flatten)]
    #[serde(skip)]
    access: AccessArgs,
    /// Threads that serve requests
    #[arg(long)]
    worker_threads: Option<usize>,
    /// Taken from the global flag; where a part that runs alone finds the API server.
    #[arg(skip)]
    #[serde(skip)]
    kubeconfig: Option<PathBuf>,
}

/// The settings in force.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Config {
    pub data_dir: PathBuf,
    pub role: Role,
    pub bind_address: IpAddr,
    pub https_listen_port: u16,
    pub tls_san: Vec<String>,
    pub write_kubeconfig: PathBuf,
    pub cluster_cidr: String,
    pub pod_cidr: String,
    pub service_cidr: String,
    pub service_node_port_range: (u16, u16),
    pub cluster_dns: Ipv4Addr,
    pub cluster_domain: String,
    pub node_name: String,
    pub node_ip: Option<Ipv4Addr>,
    pub node_label: Vec<(String, String)>,
    pub bootstrap_kubeconfig: Option<PathBuf>,
    pub cluster_signing_duration: Duration,
    pub kubelet_arg: NodeArgs,
    pub kubelet: node_config::Configuration,
    pub resolv_conf: PathBuf,
    pub cri_socket: Option<PathBuf>,
    pub nri_socket: Option<PathBuf>,
    pub container_runtime_endpoint: Option<PathBuf>,
    pub image_service_endpoint: Option<PathBuf>,
    pub private_registry: Option<PathBuf>,
    pub bridge: String,
    pub tls_cert_file: Option<PathBuf>,
    pub tls_private_key_file: Option<PathBuf>,
    pub client_ca_file: Option<PathBuf>,
    pub encryption_provider_config: Option<PathBuf>,
    pub encryption_provider_config_automatic_reload: bool,
    pub profiling: bool,
    pub runtime_config: Vec<String>,
    pub enable_admission_plugins: Vec<String>,
    pub disable_admission_plugins: Vec<String>,
    pub admission_control_config_file: Option<PathBuf>,
    #[serde(flatten)]
    pub audit: Audit,
    pub access: AccessArgs,
    pub worker_threads: usize,
    pub kubeconfig: Option<PathBuf>,
}

/// The audit trail; without a policy and a place to write to there is none.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Audit {
    pub audit_policy_file: Option<PathBuf>,
    pub audit_log_path: Option<PathBuf>,
    pub audit_log_maxsize: u64,
    pub audit_log_maxbackup: usize,
    pub audit_log_maxage: u64,
    pub audit_webhook_config_file: Option<PathBuf>,
}

impl ServerArgs {
    /// Reads the file, lets flags override it, fills defaults and checks the whole.
    pub(crate) fn resolve(&self, kubeconfig: Option<PathBuf>) -> Result<Config> {
        let data_dir = self
            .data_dir
            .clone()
            .unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        let file = match &self.config {
            Some(path) => read(path)?,
            None => {
                let usual = data_dir.join("sampan.yaml");
                if usual.exists() {
                    read(&usual)?
                } else {
                    ServerArgs::default()
                }
            }
        };
        let mut merged = self.clone().over(file);
        merged.kubeconfig = kubeconfig;
        merged.fill()
    }

    fn over(self, file: ServerArgs) -> ServerArgs {
        let list =
            |flags: Vec<String>, file: Vec<String>| if flags.is_empty() { file } else { flags };
        ServerArgs {
            config: self.config,
            data_dir: self.data_dir.or(file.data_dir),
            role: self.role.or(file.role),
            bind_address: self.bind_address.or(file.bind_address),
            https_listen_port: self.https_listen_port.or(file.https_listen_port),
            tls_san: list(self.tls_san, file.tls_san),
            write_kubeconfig: self.write_kubeconfig.or(file.write_kubeconfig),
            cluster_cidr: self.cluster_cidr.or(file.cluster_cidr),
            pod_cidr: self.pod_cidr.or(file.pod_cidr),
            service_cidr: self.service_cidr.or(file.service_cidr),
            service_node_port_range: self
                .service_node_port_range
                .or(file.service_node_port_range),
            cluster_dns: self.cluster_dns.or(file.cluster_dns),
            cluster_domain: self.cluster_domain.or(file.cluster_domain),
            node_name: self.node_name.or(file.node_name),
            node_ip: self.node_ip.or(file.node_ip),
            node_label: list(self.node_label, file.node_label),
            kubelet_port: self.kubelet_port.or(file.kubelet_port),
            max_pods: self.max_pods.or(file.max_pods),
            bootstrap_kubeconfig: self.bootstrap_kubeconfig.or(file.bootstrap_kubeconfig),
            cluster_signing_duration: self
                .cluster_signing_duration
                .or(file.cluster_signing_duration),
            kubelet_config: self.kubelet_config.or(file.kubelet_config),
            kubelet_config_dir: self.kubelet_config_dir.or(file.kubelet_config_dir),
            kubelet_arg: list(self.kubelet_arg, file.kubelet_arg),
            pod_manifest_path: self.pod_manifest_path.or(file.pod_manifest_path),
            resolv_conf: self.resolv_conf.or(file.resolv_conf),
            cri_socket: self.cri_socket.or(file.cri_socket),
            nri_socket: self.nri_socket.or(file.nri_socket),
            container_runtime_endpoint: self
                .container_runtime_endpoint
                .or(file.container_runtime_endpoint),
            image_service_endpoint: self.image_service_endpoint.or(file.image_service_endpoint),
            private_registry: self.private_registry.or(file.private_registry),
            bridge: self.bridge.or(file.bridge),
            tls_cert_file: self.tls_cert_file.or(file.tls_cert_file),
            tls_private_key_file: self.tls_private_key_file.or(file.tls_private_key_file),
            client_ca_file: self.client_ca_file.or(file.client_ca_file),
            encryption_provider_config: self
                .encryption_provider_config
                .or(file.encryption_provider_config),
            encryption_provider_config_automatic_reload: self
                .encryption_provider_config_automatic_reload
                .or(file.encryption_provider_config_automatic_reload),
            profiling: self.profiling.or(file.profiling),
            runtime_config: list(self.runtime_config, file.runtime_config),
            enable_admission_plugins: list(
                self.enable_admission_plugins,
                file.enable_admission_plugins,
            ),
            disable_admission_plugins: list(
                self.disable_admission_plugins,
                file.disable_admission_plugins,
            ),
            admission_control_config_file: self
                .admission_control_config_file
                .or(file.admission_control_config_file),
            audit_policy_file: self.audit_policy_file.or(file.audit_policy_file),
            audit_log_path: self.audit_log_path.or(file.audit_log_path),
            audit_log_maxsize: self.audit_log_maxsize.or(file.audit_log_maxsize),
            audit_log_maxbackup: self.audit_log_maxbackup.or(file.audit_log_maxbackup),
            audit_log_maxage: self.audit_log_maxage.or(file.audit_log_maxage),
            audit_webhook_config_file: self
                .audit_webhook_config_file
                .or(file.audit_webhook_config_file),
            kube_apiserver_arg: list(self.kube_apiserver_arg, file.kube_apiserver_arg),
            access: self.access,
            worker_threads: self.worker_threads.or(file.worker_threads),
            kubeconfig: self.kubeconfig,
        }
    }

    /// Defaults and checks; all faults are told at once.
    fn fill(self) -> Result<Config> {
        let mut faults = Vec::new();
        let data_dir = self.data_dir.clone();
        let data_dir = data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        let data_dir = std::path::absolute(&data_dir).unwrap_or(data_dir);
        let role = self.role.unwrap_or_default();
        let alone = !matches!(role, Role::All | Role::Apiserver);
        if alone && self.kubeconfig.is_none() {
            faults.push(
                "--kubeconfig is needed: a part that runs alone must know its API server".into(),
            );
        }
        let (kubelet_arg, kubelet) = self.kubelet(role, &data_dir).unwrap_or_else(|error| {
            faults.push(format!("{error:#}"));
            Default::default()
        });
        let settings = kubelet.settings();
        let node_name = self.node_name.unwrap_or_else(host_name);
        for fault in meta::naming::dns1123_subdomain(&node_name) {
            faults.push(format!("node-name {node_name:?}: {fault}"));
        }
        let range = self
            .service_node_port_range
            .unwrap_or_else(|| "30000-32767".into());
        let service_node_port_range = parse_ports(&range).unwrap_or_else(|| {
            faults.push(format!(
                "service-node-port-range {range:?}: must be two ports, as 30000-32767"
            ));
            (30000, 32767)
        });
        let cidr = |name: &str, value: Option<String>, default: &str, faults: &mut Vec<String>| {
            let value = value.unwrap_or_else(|| default.into());
            if value.parse::<base::Ipv4Cidr>().is_err() {
                faults.push(format!(
                    "{name} {value:?}: must be an IPv4 range, as {default}"
                ));
            }
            value
        };
        let node_label = self
            .node_label
            .iter()
            .filter_map(|text| match text.split_once('=') {
                Some((key, value)) => Some((key.to_owned(), value.to_owned())),
                None => {
                    faults.push(format!("node-label {text:?}: must be key=value"));
                    None
                }
            });
        let node_label = node_label.collect();
        let words = AccessArgs::of_words(&self.kube_apiserver_arg);
        let access = words.and_then(|words| self.access.over(words));
        let access = access.unwrap_or_else(|error| {
            faults.push(format!("{error:#}"));
            AccessArgs::default()
        });
        let given = self.cluster_signing_duration.as_deref().unwrap_or("8760h");
        let cluster_signing_duration = time("cluster-signing-duration", given);
        let cluster_signing_duration = cluster_signing_duration.unwrap_or_else(|error| {
            faults.push(format!("{error:#}"));
            Duration::ZERO
        });
        let pod_cidr = self.pod_cidr.or_else(|| {
            let own = &settings.pod_cidr;
            (!own.is_empty()).then(|| own.clone())
        });
        let mut endpoint = |name: &str, value: &str| {
            let path = socket_of(value);
            if path.is_none() && !value.is_empty() {
                faults.push(format!("{name} {value:?}: must be unix:///PATH"));
            }
            path
        };
        let runtime = &settings.container_runtime_endpoint;
        let container_runtime_endpoint = endpoint("container-runtime-endpoint", runtime);
        let images = &settings.image_service_endpoint;
        let image_service_endpoint = endpoint("image-service-endpoint", images);
        for (name, socket) in [
            ("cri-socket", &self.cri_socket),
            ("nri-socket", &self.nri_socket),
        ] {
            if container_runtime_endpoint.is_none() || socket.is_none() {
                continue;
            }
            faults.push(format!(
                "{name}: our own engine does not run with container-runtime-endpoint"
            ));
        }
        let config = Config {
            role,
            access,
            bind_address: self.bind_address.unwrap_or(Ipv4Addr::LOCALHOST.into()),
            https_listen_port: self.https_listen_port.unwrap_or(6443),
            tls_san: self.tls_san,
            write_kubeconfig: self
                .write_kubeconfig
                .unwrap_or_else(|| data_dir.join("admin.kubeconfig")),
            cluster_cidr: cidr(
                "cluster-cidr",
                self.cluster_cidr,
                "10.244.0.0/16",
                &mut faults,
            ),
            pod_cidr: cidr("pod-cidr", pod_cidr, "10.244.0.0/24", &mut faults),
            service_cidr: cidr(
                "service-cidr",
                self.service_cidr,
                "10.96.0.0/12",
                &mut faults,
            ),
            service_node_port_range,
            cluster_dns: self.cluster_dns.unwrap_or(CLUSTER_DNS),
            cluster_domain: settings.cluster_domain.clone(),
            node_name,
            node_ip: self.node_ip,
            node_label,
            resolv_conf: settings.resolv_conf.clone().into(),
            bootstrap_kubeconfig: self.bootstrap_kubeconfig,
            cluster_signing_duration,
            kubelet_arg,
            kubelet,
            cri_socket: self.cri_socket,
            nri_socket: self.nri_socket,
            container_runtime_endpoint,
            image_service_endpoint,
            private_registry: self.private_registry,
            bridge: self.bridge.unwrap_or_else(|| "sampan0".into()),
            tls_cert_file: self.tls_cert_file,
            tls_private_key_file: self.tls_private_key_file,
            client_ca_file: self.client_ca_file,
            encryption_provider_config: self.encryption_provider_config,
            profiling: self.profiling.unwrap_or(true),
            encryption_provider_config_automatic_reload: self
                .encryption_provider_config_automatic_reload
                .unwrap_or(true),
            runtime_config: self.runtime_config,
            enable_admission_plugins: self.enable_admission_plugins,
            disable_admission_plugins: self.disable_admission_plugins,
            admission_control_config_file: self.admission_control_config_file,
            audit: Audit {
                audit_policy_file: self.audit_policy_file,
                audit_log_path: self.audit_log_path,
                audit_log_maxsize: self.audit_log_maxsize.unwrap_or(0),
                audit_log_maxbackup: self.audit_log_maxbackup.unwrap_or(0),
                audit_log_maxage: self.audit_log_maxage.unwrap_or(0),
                audit_webhook_config_file: self.audit_webhook_config_file,
            },
            worker_threads: self.worker_threads.unwrap_or_else(default_threads),
            kubeconfig: self.kubeconfig,
            data_dir,
        };
        if !faults.is_empty() {
            bail!("configuration is not valid:\n  {}", faults.join("\n  "));
        }
        Ok(config)
    }
}

impl ServerArgs {
    /// What the kubelet is told.
    fn kubelet(
        &self,
        role: Role,
        data_dir: &Path,
    ) -> Result<(NodeArgs, node_config::Configuration)> {
        let args = NodeArgs::of_words(&self.kubelet_arg)?;
        let configuration = node::configuration(self, &args, role, data_dir)?;
        Ok((args, configuration))
    }
}

fn read(path: &Path) -> Result<ServerArgs> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    if text.trim().is_empty() {
        return Ok(ServerArgs::default());
    }
    serde_saphyr::from_str(&text).with_context(|| format!("{} is not valid", path.display()))
}

/// The path of `unix:///path`, or of a path alone.
fn socket_of(text: &str) -> Option<PathBuf> {
    let path = Path::new(text.strip_prefix("unix://").unwrap_or(text));
    path.is_absolute().then(|| path.to_owned())
}

fn parse_ports(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (0 < first && first <= last).then_some((first, last))
}

fn host_name() -> String {
    let name = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    name.map(|name| name.to_lowercase())
        .filter(|name| !name.is_empty())
        .unwrap_or("sampan".into())
}

fn default_threads() -> usize {
    std::thread::available_parallelism()
        .map_or(2, usize::from)
        .min(8)
}

/// `sampan config`.
#[derive(Subcommand, Debug)]
pub(crate) enum ConfigCommand {
    /// Print the settings in force, as `sampan server` with the same flags would have them
    Explain(Box<ServerArgs>),
}

impl ConfigCommand {
    #[expect(clippy::print_stdout, reason = "this is what the command is for")]
    pub(crate) fn run(self) -> Result<()> {
        let ConfigCommand::Explain(args) = self;
        let config = args.resolve(None)?;
        print!("{}", serde_saphyr::to_string(&config)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_override_the_file() {
        let file: ServerArgs =
            serde_saphyr::from_str("node-name: file\nmax-pods: 20\nnode-label: [a=b]\n").unwrap();
        let flags = ServerArgs {
            node_name: Some("flag".into()),
            ..ServerArgs::default()
        };
        let config = flags.over(file).fill().unwrap();
        assert_eq!(
            (
                config.node_name.as_str(),
                config.kubelet.settings().max_pods
            ),
            ("flag", 20)
        );
        assert_eq!(config.node_label, [("a".to_owned(), "b".to_owned())]);
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let flags = ServerArgs {
            node_name: Some("Not_A_Name".into()),
            service_cidr: Some("nonsense".into()),
            service_node_port_range: Some("9-1".into()),
            role: Some(Role::Scheduler),
            ..ServerArgs::default()
        };
        let text = flags.fill().unwrap_err().to_string();
        for part in [
            "node-name",
            "service-cidr",
            "service-node-port-range",
            "--kubeconfig",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = serde_saphyr::from_str::<ServerArgs>("node-nam: x\n").unwrap_err();
        assert!(error.to_string().contains("node-nam"), "{error}");
    }
}
