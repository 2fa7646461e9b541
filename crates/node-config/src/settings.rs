//! The configuration by type: the fields that count here, and those that are checked.

use std::collections::BTreeMap;

use meta::Quantity;
use serde::Deserialize;
use serde_json::Value;

use crate::{GoDuration, gates};

/// What is in force; names are upstream's.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    pub enable_server: bool,
    #[serde(default)]
    pub static_pod_path: String,
    #[serde(default, rename = "staticPodURL")]
    pub static_pod_url: String,
    #[serde(default, rename = "staticPodURLHeader")]
    pub static_pod_url_header: BTreeMap<String, Vec<String>>,
    pub http_check_frequency: GoDuration,
    #[serde(default)]
    pub container_runtime_endpoint: String,
    #[serde(default)]
    pub image_service_endpoint: String,
    pub pod_logs_dir: String,
    pub address: String,
    pub port: i32,
    #[serde(default)]
    pub read_only_port: i32,
    #[serde(default)]
    pub tls_cert_file: String,
    #[serde(default)]
    pub tls_private_key_file: String,
    #[serde(default)]
    pub tls_cipher_suites: Vec<String>,
    #[serde(default)]
    pub tls_min_version: String,
    #[serde(default)]
    pub rotate_certificates: bool,
    #[serde(default, rename = "serverTLSBootstrap")]
    pub server_tls_bootstrap: bool,
    pub authentication: Authentication,
    pub authorization: Authorization,
    pub image_pull_credentials_verification_policy: String,
    #[serde(default)]
    pub preloaded_images_verification_allowlist: Vec<String>,
    #[serde(rename = "eventRecordQPS")]
    pub(crate) event_record_qps: i32,
    pub(crate) event_burst: i32,
    pub enable_debugging_handlers: bool,
    pub healthz_port: i32,
    pub healthz_bind_address: String,
    pub oom_score_adj: i32,
    #[serde(default)]
    pub cluster_domain: String,
    #[serde(default, rename = "clusterDNS")]
    pub cluster_dns: Vec<String>,
    pub node_status_update_frequency: GoDuration,
    pub node_status_report_frequency: GoDuration,
    pub node_lease_duration_seconds: i32,
    #[serde(rename = "imageMinimumGCAge")]
    pub image_minimum_gc_age: GoDuration,
    #[serde(rename = "imageMaximumGCAge")]
    pub image_maximum_gc_age: GoDuration,
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: i32,
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: i32,
    #[serde(default)]
    pub(crate) system_cgroups: String,
    #[serde(default)]
    pub cgroup_root: String,
    pub cgroup_driver: String,
    #[serde(default, rename = "singleProcessOOMKill")]
    pub single_process_oom_kill: Option<bool>,
    #[serde(default, rename = "qosReserved")]
    pub qos_reserved: BTreeMap<String, String>,
    #[serde(rename = "cgroupsPerQOS")]
    pub cgroups_per_qos: bool,
    pub cpu_manager_policy: String,
    #[serde(default)]
    pub cpu_manager_policy_options: BTreeMap<String, String>,
    pub memory_manager_policy: String,
    pub topology_manager_policy: String,
    pub topology_manager_scope: String,
    #[serde(default)]
    pub topology_manager_policy_options: BTreeMap<String, String>,
    pub(crate) hairpin_mode: String,
    pub max_pods: i32,
    #[serde(default, rename = "podCIDR")]
    pub pod_cidr: String,
    pub pod_pids_limit: i64,
    pub resolv_conf: String,
    #[serde(default)]
    pub(crate) run_once: bool,
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: bool,
    #[serde(rename = "cpuCFSQuotaPeriod")]
    pub cpu_cfs_quota_period: GoDuration,
    pub node_status_max_images: i32,
    pub(crate) max_open_files: i64,
    #[serde(rename = "kubeAPIQPS")]
    pub(crate) kube_api_qps: i32,
    #[serde(rename = "kubeAPIBurst")]
    pub(crate) kube_api_burst: i32,
    #[serde(rename = "registryPullQPS")]
    pub(crate) registry_pull_qps: i32,
    pub(crate) registry_burst: i32,
    pub serialize_image_pulls: bool,
    pub max_parallel_image_pulls: Option<i32>,
    #[serde(default)]
    pub eviction_hard: BTreeMap<String, String>,
    #[serde(default)]
    pub eviction_soft: BTreeMap<String, String>,
    #[serde(default)]
    pub eviction_soft_grace_period: BTreeMap<String, String>,
    pub eviction_pressure_transition_period: GoDuration,
    #[serde(default)]
    pub eviction_max_pod_grace_period: i32,
    #[serde(default)]
    pub eviction_minimum_reclaim: BTreeMap<String, String>,
    #[serde(default)]
    pub pods_per_core: i32,
    pub(crate) iptables_masquerade_bit: i32,
    pub(crate) iptables_drop_bit: i32,
    #[serde(default)]
    pub(crate) feature_gates: BTreeMap<String, bool>,
    pub fail_swap_on: bool,
    #[serde(default)]
    pub memory_swap: MemorySwap,
    pub container_log_max_size: String,
    pub container_log_max_files: i32,
    pub(crate) container_log_max_workers: i32,
    pub container_log_monitor_interval: GoDuration,
    #[serde(default)]
    pub system_reserved: BTreeMap<String, String>,
    #[serde(default)]
    pub kube_reserved: BTreeMap<String, String>,
    #[serde(default, rename = "reservedSystemCPUs")]
    pub reserved_system_cpus: String,
    #[serde(default)]
    pub system_reserved_cgroup: String,
    #[serde(default)]
    pub kube_reserved_cgroup: String,
    #[serde(default)]
    pub enforce_node_allocatable: Vec<String>,
    #[serde(default)]
    pub allowed_unsafe_sysctls: Vec<String>,
    #[serde(default, rename = "providerID")]
    pub provider_id: String,
    pub enable_system_log_handler: bool,
    pub enable_system_log_query: bool,
    pub shutdown_grace_period: GoDuration,
    pub shutdown_grace_period_critical_pods: GoDuration,
    #[serde(default)]
    pub shutdown_grace_period_by_pod_priority: Vec<ShutdownPeriod>,
    pub crash_loop_back_off: CrashLoopBackOff,
    #[serde(default)]
    pub reserved_memory: Vec<MemoryReservation>,
    pub seccomp_default: bool,
    pub memory_throttling_factor: f64,
    pub memory_reservation_policy: String,
    #[serde(default)]
    pub register_with_taints: Vec<Taint>,
    pub register_node: bool,
    pub local_storage_capacity_isolation: bool,
    #[serde(rename = "failCgroupV1")]
    pub fail_cgroup_v1: bool,
}

impl Settings {
    /// Whether a feature gate is on.
    pub fn gate(&self, name: &str) -> bool {
        gates::enabled(&self.feature_gates, name)
    }
}

/// Who is believed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authentication {
    pub x509: X509,
    pub webhook: AuthenticationWebhook,
    pub anonymous: Anonymous,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct X509 {
    #[serde(default, rename = "clientCAFile")]
    pub client_ca_file: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct AuthenticationWebhook {
    pub enabled: bool,
    #[serde(rename = "cacheTTL")]
    pub cache_ttl: GoDuration,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Anonymous {
    pub enabled: bool,
}

/// Who may do what.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Authorization {
    pub mode: String,
    pub webhook: AuthorizationWebhook,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct AuthorizationWebhook {
    #[serde(rename = "cacheAuthorizedTTL")]
    pub cache_authorized_ttl: GoDuration,
    #[serde(rename = "cacheUnauthorizedTTL")]
    pub cache_unauthorized_ttl: GoDuration,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CrashLoopBackOff {
    pub max_container_restart_period: GoDuration,
}

/// What containers have of the machine's swap.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemorySwap {
    #[serde(default)]
    pub swap_behavior: String,
}

/// The time that pods from a priority on have to end.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShutdownPeriod {
    #[serde(default)]
    pub priority: i32,
    #[serde(default)]
    pub shutdown_grace_period_seconds: i64,
}

/// Memory of a NUMA node that no container has alone.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryReservation {
    #[serde(default)]
    pub numa_node: i32,
    #[serde(default, deserialize_with = "quantities")]
    pub limits: BTreeMap<String, Quantity>,
}

/// A taint of a new node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    #[serde(default)]
    pub key: String,
    #[serde(default)]
    pub value: String,
    #[serde(default)]
    pub effect: String,
    pub time_added: Option<String>,
}

impl Settings {
    pub(crate) fn of(tree: &Value) -> Result<Settings, String> {
        Settings::deserialize(tree).map_err(|error| error.to_string())
    }
}

/// The amounts of a resource list, as a text or a number each.
fn quantities<'de, D>(from: D) -> Result<BTreeMap<String, Quantity>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let texts = BTreeMap::<String, Value>::deserialize(from)?;
    let read = |(name, value): (String, Value)| {
        let text = match &value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let amount = Quantity::parse(&text).map_err(serde::de::Error::custom)?;
        Ok((name, amount))
    };
    texts.into_iter().map(read).collect()
}
