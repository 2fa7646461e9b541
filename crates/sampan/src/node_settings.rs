//! The kubelet by its KubeletConfiguration: what its fields mean for its parts.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::core::v1::Taint;
use kubelet::{
    CgroupFacts, CpuConfig, CpuSet, EvictionConfig, Features, ImageVerification, MemoryConfig,
    MemoryQos, NODES_MAX, PlacementConfig, ReservedGroup, ShutdownConfig, ShutdownPeriod,
    StaticPodUrl, SystemLogs, Threshold, TopologyPolicy, TopologyScope,
};
use meta::Quantity;
use node_api::CgroupDriver;
use node_config::{GoDuration, Settings};

/// Everything that can be wrong with the values, before anything is started.
pub(crate) fn check(settings: &Settings) -> Result<()> {
    eviction(settings)?;
    cgroup_driver(settings)?;
    placement(settings, Path::new("/"), Path::new("/"))?;
    cluster_dns(settings)?;
    static_pod_url(settings)?;
    qos_reserved(settings)?;
    reserved_groups(settings)?;
    let text = &settings.container_log_max_size;
    Quantity::parse(text).with_context(|| format!("containerLogMaxSize {text:?}"))?;
    address(&settings.address, settings.port).context("address")?;
    address(&settings.healthz_bind_address, settings.healthz_port).context("healthzBindAddress")?;
    if !["Webhook", "AlwaysAllow"].contains(&settings.authorization.mode.as_str()) {
        let mode = &settings.authorization.mode;
        bail!("unknown authorization mode {mode:?}");
    }
    Ok(())
}

/// Fills in what the configuration decides.
pub(crate) fn apply(settings: &Settings, root: &Path, config: &mut kubelet::Config) -> Result<()> {
    let seconds = |number: i32| std::time::Duration::from_secs(number.max(0).unsigned_abs().into());
    let manifests = &settings.static_pod_path;
    config.static_pod_path = (!manifests.is_empty()).then(|| manifests.into());
    config.static_pod_url = static_pod_url(settings)?;
    config.log_dir = settings.pod_logs_dir.clone().into();
    // `/var/log/containers` beside `/var/log/pods`.
    config.log_links = Some(config.log_dir.with_file_name("containers"));
    config.local_storage_isolation = settings.local_storage_capacity_isolation;
    config.cluster_dns = cluster_dns(settings)?;
    config.cluster_domain = settings.cluster_domain.clone();
    config.resolv_conf = settings.resolv_conf.clone().into();
    config.max_pods = max_pods(settings);
    config.provider_id = (!settings.provider_id.is_empty()).then(|| settings.provider_id.clone());
    config.taints = taints(settings);
    config.reserved = reserved(settings)?;
    config.register_node = settings.register_node;
    config.status_check_interval = settings.node_status_update_frequency.time();
    config.status_report_interval = settings.node_status_report_frequency.time();
    config.images_shown_max = usize::try_from(settings.node_status_max_images).ok();
    config.lease_duration = seconds(settings.node_lease_duration_seconds);
    // Upstream renews a lease four times in its life.
    config.lease_interval = config.lease_duration / 4;
    config.image_pulls_max = match settings.max_parallel_image_pulls {
        _ if settings.serialize_image_pulls => 1,
        Some(most) => usize::try_from(most)?,
        None => usize::MAX >> 4,
    };
    config.image_verification = image_verification(settings);
    let root_of_cgroups = settings.cgroup_root.trim_matches('/');
    let pods = if settings.cgroups_per_qos {
        "/kubepods"
    } else {
        ""
    };
    config.cgroup_root = match root_of_cgroups {
        "" => pods.into(),
        below => format!("/{below}{pods}"),
    };
    config.cgroups_per_qos = settings.cgroups_per_qos;
    config.enforce_allocatable = enforces(settings, "pods");
    config.reserved_groups = reserved_groups(settings)?;
    config.cgroups = CgroupFacts::look();
    config.limited_swap = limited_swap(settings);
    config.die_together = !settings.single_process_oom_kill.unwrap_or(false);
    config.qos_reserved_memory = qos_reserved(settings)?;
    config.memory_qos = settings.gate("MemoryQoS").then(|| MemoryQos {
        throttling: settings.memory_throttling_factor,
        tiered: settings.memory_reservation_policy == "TieredReservation",
    });
    config.cpu_cfs_quota = settings.cpu_cfs_quota;
    config.cpu_period = settings.cpu_cfs_quota_period.nanos / 1_000;
    config.system_logs = settings.enable_system_log_handler.then(|| SystemLogs {
        query: settings.enable_system_log_query,
        ..SystemLogs::default()
    });
    let (first, most) = restart_pauses(settings);
    config.restart_pause_first = first;
    config.restart_pause_max = most;
    config.features = Features {
        no_quota_with_exclusive_cpus: settings.gate("DisableCPUQuotaWithExclusiveCPUs"),
        ready_to_start_condition: settings.gate("PodReadyToStartContainersCondition"),
        resource_health: settings.gate("ResourceHealthStatus"),
    };
    config.seccomp_default = settings.seccomp_default;
    config.pod_pids_limit = settings.pod_pids_limit.max(0);
    let size = Quantity::parse(&settings.container_log_max_size)?;
    config.log_bytes_max = u64::try_from(size.value())?;
    config.log_files_max = usize::try_from(settings.container_log_max_files)?;
    config.log_check_interval = settings.container_log_monitor_interval.time();
    config.allowed_unsafe_sysctls = settings.allowed_unsafe_sysctls.clone();
    config.image_gc_high_percent = u8::try_from(settings.image_gc_high_threshold_percent)?;
    config.image_gc_low_percent = u8::try_from(settings.image_gc_low_threshold_percent)?;
    config.image_age_min = settings.image_minimum_gc_age.time();
    config.image_age_max = settings.image_maximum_gc_age.time();
    config.eviction = eviction(settings)?;
    config.placement = placement(settings, root, &config.root_dir)?;
    if settings.healthz_port != 0 {
        let bound = address(&settings.healthz_bind_address, settings.healthz_port)?;
        config.healthz = Some(bound);
    }
    Ok(())
}

/// Which images that are there pods must have the credentials for.
fn image_verification(settings: &Settings) -> Option<ImageVerification> {
    let policy = settings.image_pull_credentials_verification_policy.as_str();
    let on = settings.gate("KubeletEnsureSecretPulledImages");
    on.then(|| match policy {
        "NeverVerify" => ImageVerification::Never,
        "NeverVerifyAllowlistedImages" => {
            ImageVerification::NeverListed(settings.preloaded_images_verification_allowlist.clone())
        }
        "AlwaysVerify" => ImageVerification::Always,
        _ => ImageVerification::NeverPreloaded,
    })
}

fn static_pod_url(settings: &Settings) -> Result<Option<StaticPodUrl>> {
    let url = settings.static_pod_url.as_str();
    if url.is_empty() {
        return Ok(None);
    }
    let interval = settings.http_check_frequency.time();
    let made = StaticPodUrl::new(url, &settings.static_pod_url_header, interval);
    made.map(Some).map_err(|why| anyhow!("staticPodURL: {why}"))
}

/// An address and a port.
pub(crate) fn address(ip: &str, port: i32) -> Result<SocketAddr> {
    let ip: IpAddr = ip.parse().with_context(|| format!("{ip:?}"))?;
    Ok(SocketAddr::new(ip, u16::try_from(port)?))
}

/// What the machine must be like; only asked for by who says so.
pub(crate) fn check_machine(settings: &Settings) -> Result<()> {
    if settings.fail_swap_on {
        let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
        // The first line names the columns.
        if swaps.lines().count() > 1 {
            bail!(
                "running with swap on is not supported, please disable swap or set --fail-swap-on \
                 flag to false"
            );
        }
    }
    let unified = CgroupFacts::look().unified;
    if limited_swap(settings) && !unified {
        bail!("swap feature is enabled and LimitedSwap but it is only supported with cgroupv2");
    }
    if settings.single_process_oom_kill == Some(false) && !unified {
        bail!(
            "invalid configuration: singleProcessOOMKill must not be explicitly set to false when \
             using cgroup v1"
        );
    }
    if settings.fail_cgroup_v1 && !unified {
        bail!(
            "kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is \
             unsupported and will be removed in a future release"
        );
    }
    Ok(())
}

/// Whether containers have a part of the machine's swap.
fn limited_swap(settings: &Settings) -> bool {
    settings.memory_swap.swap_behavior == "LimitedSwap"
}

/// The first and the longest wait before a container that keeps ending is started again.
fn restart_pauses(settings: &Settings) -> (Duration, Duration) {
    let (first, most) = match settings.gate("ReduceDefaultCrashLoopBackOffDecay") {
        true => (1, 60),
        false => (10, 300),
    };
    let most = match settings.gate("KubeletCrashLoopBackOffMax") {
        true => settings
            .crash_loop_back_off
            .max_container_restart_period
            .time(),
        false => Duration::from_secs(most),
    };
    (Duration::from_secs(first).min(most), most)
}

/// Who makes pods' cgroups.
pub(crate) fn cgroup_driver(settings: &Settings) -> Result<CgroupDriver> {
    let name = &settings.cgroup_driver;
    let driver = CgroupDriver::parse(name);
    driver.with_context(|| {
        format!("invalid value for cgroupDriver: {name:?}, must be cgroupfs or systemd")
    })
}

fn max_pods(settings: &Settings) -> u32 {
    let most = settings.max_pods.max(0).unsigned_abs();
    match settings.pods_per_core.unsigned_abs() {
        0 => most,
        per_core => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            most.min(per_core.saturating_mul(u32::try_from(cores).unwrap_or(u32::MAX)))
        }
    }
}

fn cluster_dns(settings: &Settings) -> Result<Vec<IpAddr>> {
    let servers = settings.cluster_dns.iter();
    let read = |text: &String| {
        text.parse()
            .with_context(|| format!("clusterDNS {text:?}: not an IP address"))
    };
    servers.map(read).collect()
}

fn taints(settings: &Settings) -> Vec<Taint> {
    let taints = settings.register_with_taints.iter();
    let taints = taints.map(|taint| Taint {
        key: taint.key.clone(),
        value: (!taint.value.is_empty()).then(|| taint.value.clone()),
        effect: taint.effect.clone(),
        time_added: None,
    });
    taints.collect()
}

/// When pods have to go.
pub(crate) fn eviction(settings: &Settings) -> Result<EvictionConfig> {
    let parse = |name: &'static str, map: &BTreeMap<String, String>| {
        let texts = map
            .iter()
            .map(|(signal, amount)| format!("{signal}<{amount}"));
        let all: Result<Vec<_>, _> = texts.map(|text| Threshold::parse_all(&text)).collect();
        Ok::<_, anyhow::Error>(all.context(name)?.concat())
    };
    let mut thresholds = parse("evictionHard", &settings.eviction_hard)?;
    for (signal, amount) in &settings.eviction_soft {
        let Some(grace) = settings.eviction_soft_grace_period.get(signal) else {
            bail!("grace period must be specified for the soft eviction threshold {signal}");
        };
        let grace = GoDuration::parse(grace).map_err(anyhow::Error::msg);
        let grace = grace.context("evictionSoftGracePeriod")?.time();
        let one = BTreeMap::from([(signal.clone(), amount.clone())]);
        for threshold in parse("evictionSoft", &one)? {
            thresholds.push(Threshold { grace, ..threshold });
        }
    }
    let reclaims = parse("evictionMinimumReclaim", &settings.eviction_minimum_reclaim)?;
    for threshold in &mut thresholds {
        let known = reclaims.iter().find(|one| one.signal == threshold.signal);
        threshold.reclaim = known.map(|one| one.amount);
    }
    Ok(EvictionConfig {
        thresholds,
        transition_period: settings.eviction_pressure_transition_period.time(),
        max_pod_grace_seconds: settings.eviction_max_pod_grace_period.into(),
    })
}

/// Which devices and processors containers have for themselves; sockets lie below `sockets`, what
/// is remembered in `state`.
fn placement(settings: &Settings, sockets: &Path, state: &Path) -> Result<PlacementConfig> {
    let mut config = PlacementConfig::below(sockets);
    let name = &settings.topology_manager_policy;
    config.policy =
        TopologyPolicy::parse(name).with_context(|| format!("unknown policy: {name:?}"))?;
    config.scope = match settings.topology_manager_scope.as_str() {
        "pod" => TopologyScope::Pod,
        _ => TopologyScope::Container,
    };
    for (name, value) in &settings.topology_manager_policy_options {
        match name.as_str() {
            "prefer-closest-numa-nodes" => config.prefer_closest = truth(name, value)?,
            "max-allowable-numa-nodes" => {
                let most = value.parse::<usize>();
                config.nodes_max = most.with_context(|| {
                    format!("unable to convert policy option to integer {name:?}")
                })?;
                if config.nodes_max < NODES_MAX {
                    bail!("the minimum value of {name:?} should not be less than {NODES_MAX}");
                }
            }
            other => bail!("unknown Topology Manager Policy option: {other:?}"),
        }
    }
    config.state = state.to_owned();
    config.cpus = cpus(settings)?;
    config.memory = memory(settings)?;
    Ok(config)
}

/// The memory of NUMA nodes; what is kept from pods must be named node by node.
fn memory(settings: &Settings) -> Result<MemoryConfig> {
    let exclusive = match settings.memory_manager_policy.as_str() {
        "None" => false,
        "Static" => true,
        other => bail!("unknown policy: {other:?}"),
    };
    let mut config = MemoryConfig {
        exclusive,
        ..MemoryConfig::default()
    };
    for one in &settings.reserved_memory {
        let node = config.reserved.entry(usize::try_from(one.numa_node)?);
        let limits = one.limits.iter();
        let limits = limits.map(|(kind, amount)| (kind.clone(), amount.value()));
        node.or_default().extend(limits);
    }
    if exclusive {
        let kept = reserved(settings)?
            .get("memory")
            .map_or(0, |kept| kept.value());
        let hard = settings.eviction_hard.get("memory.available");
        let hard = hard.and_then(|text| Quantity::parse(text).ok());
        let kept = kept + hard.map_or(0, Quantity::value);
        config.reserved_in_all.insert("memory".to_owned(), kept);
    }
    Ok(config)
}

fn cpus(settings: &Settings) -> Result<CpuConfig> {
    let mut cpus = CpuConfig {
        exclusive: match settings.cpu_manager_policy.as_str() {
            "none" => false,
            "static" => true,
            other => bail!("unknown policy: {other:?}"),
        },
        ..CpuConfig::default()
    };
    if !settings.reserved_system_cpus.is_empty() {
        cpus.reserved = reserved_cpus(settings)?;
    }
    let milli = reserved(settings)?.get("cpu").map_or(0, |cpu| cpu.milli());
    cpus.reserved_count = usize::try_from(milli)?.div_ceil(1_000);
    for (name, value) in &settings.cpu_manager_policy_options {
        let level = match name.as_str() {
            "align-by-socket" | "distribute-cpus-across-cores" => "Alpha",
            "distribute-cpus-across-numa" => "Beta",
            _ => "",
        };
        if !level.is_empty() && !settings.gate(&format!("CPUManagerPolicy{level}Options")) {
            bail!(
                "CPU Manager Policy {level}-level Options not enabled, but option {name:?} provided"
            );
        }
        let value = truth(name, value)?;
        match name.as_str() {
            "align-by-socket" => cpus.align_by_socket = value,
            "distribute-cpus-across-cores" => cpus.across_cores = value,
            "distribute-cpus-across-numa" => cpus.across_nodes = value,
            "full-pcpus-only" => cpus.full_cores_only = value,
            "strict-cpu-reservation" => cpus.strict_reservation = value,
            "prefer-align-cpus-by-uncorecache" => cpus.align_by_cache = value,
            other => bail!("unknown CPU Manager Policy option: {other:?}"),
        }
    }
    for (one, other, both) in [
        (
            "full-pcpus-only",
            "distribute-cpus-across-cores",
            cpus.full_cores_only && cpus.across_cores,
        ),
        (
            "distribute-cpus-across-numa",
            "distribute-cpus-across-cores",
            cpus.across_nodes && cpus.across_cores,
        ),
        (
            "prefer-align-cpus-by-uncorecache",
            "distribute-cpus-across-cores",
            cpus.align_by_cache && cpus.across_cores,
        ),
        (
            "prefer-align-cpus-by-uncorecache",
            "distribute-cpus-across-numa",
            cpus.align_by_cache && cpus.across_nodes,
        ),
    ] {
        if both {
            bail!("static policy options {one} and {other} can not be used at the same time");
        }
    }
    Ok(cpus)
}

/// A truth as Go reads it.
fn truth(name: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => bail!("bad value for option {name:?}: {value:?}"),
    }
}

fn reserved_cpus(settings: &Settings) -> Result<CpuSet> {
    let text = &settings.reserved_system_cpus;
    let set = CpuSet::parse(text).filter(|set| !set.is_empty());
    set.with_context(|| {
        format!(
            "invalid configuration: unable to parse reservedSystemCPUs (--reserved-cpus) {text}"
        )
    })
}

/// The percentage of the memory that better pods ask for which others cannot have.
fn qos_reserved(settings: &Settings) -> Result<Option<i64>> {
    let mut reserved = None;
    for (name, text) in &settings.qos_reserved {
        let failed = "--qos-reserved value failed to parse";
        if name != "memory" {
            bail!("{failed}: cannot reserve {name:?} resource");
        }
        let why = match text.strip_suffix('%').map(str::parse) {
            None => format!("percentage expected, got '{text}'"),
            Some(Err(_)) => format!("invalid number in percentage '{text}'"),
            Some(Ok(percent @ 0..=100)) => {
                reserved = Some(percent);
                continue;
            }
            Some(Ok(_)) => "percentage must be between 0 and 100".to_owned(),
        };
        bail!("{failed}: failed to parse percentage {text:?} for {name:?} resource: {why}");
    }
    Ok(reserved.filter(|_| settings.gate("QOSReserved")))
}

fn enforces(settings: &Settings, what: &str) -> bool {
    let mut all = settings.enforce_node_allocatable.iter();
    all.any(|one| one == what)
}

/// The services that are limited to what is reserved for them.
fn reserved_groups(settings: &Settings) -> Result<Vec<ReservedGroup>> {
    let (kube, system) = (&settings.kube_reserved, &settings.system_reserved);
    let mut groups = Vec::new();
    for (word, compressible) in [("", false), ("-compressible", true)] {
        for (name, path, texts) in [
            ("System", &settings.system_reserved_cgroup, system),
            ("Kube", &settings.kube_reserved_cgroup, kube),
        ] {
            if enforces(settings, &format!("{}-reserved{word}", name.to_lowercase())) {
                groups.push(ReservedGroup {
                    name,
                    path: path.clone(),
                    amounts: amounts(texts)?,
                    compressible,
                });
            }
        }
    }
    Ok(groups)
}

/// What pods cannot have of the node.
fn reserved(settings: &Settings) -> Result<BTreeMap<String, Quantity>> {
    let mut all = amounts(&settings.kube_reserved)?;
    for (name, amount) in amounts(&settings.system_reserved)? {
        let known = all.entry(name).or_insert(Quantity::ZERO);
        *known = *known + amount;
    }
    if !settings.reserved_system_cpus.is_empty() {
        let count = reserved_cpus(settings)?.len();
        let count = Quantity::from_units(i64::try_from(count)?);
        all.insert("cpu".to_owned(), count);
    }
    Ok(all)
}

/// Amounts of resources that can be kept from pods.
fn amounts(texts: &BTreeMap<String, String>) -> Result<BTreeMap<String, Quantity>> {
    let mut all = BTreeMap::new();
    for (name, text) in texts {
        if !["cpu", "memory", "ephemeral-storage", "pid"].contains(&name.as_str()) {
            bail!("cannot reserve {name:?} resource");
        }
        let amount = Quantity::parse(text);
        let amount = amount
            .with_context(|| format!("failed to parse quantity {text:?} for {name:?} resource"))?;
        if amount.is_negative() {
            bail!("resource quantity for {name:?} cannot be negative: {text}");
        }
        all.insert(name.clone(), amount);
    }
    Ok(all)
}

/// How long pods have to end when the machine goes down.
pub(crate) fn shutdown_periods(settings: &Settings) -> Vec<ShutdownPeriod> {
    let listed = settings.shutdown_grace_period_by_pod_priority.iter();
    let listed: Vec<_> = listed
        .map(|one| ShutdownPeriod {
            priority: one.priority,
            seconds: one.shutdown_grace_period_seconds,
        })
        .collect();
    match listed.is_empty() {
        true => ShutdownConfig::periods_of(
            settings.shutdown_grace_period.time(),
            settings.shutdown_grace_period_critical_pods.time(),
        ),
        false => listed,
    }
}

#[cfg(test)]
mod tests {
    use kubelet::{Amount, Signal};
    use node_config::{Configuration, Layers};

    use super::*;

    fn settings(words: &[&str]) -> Result<Settings> {
        let flags = words.iter().filter_map(|word| word.split_once('='));
        let layers = Layers {
            flags: flags
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            ..Layers::default()
        };
        Ok(Configuration::read(&layers)?.settings().clone())
    }

    #[test]
    fn shutdown_is_set_as_upstream_sets_it() {
        let read = |words: &[&str]| {
            let periods = shutdown_periods(&settings(words)?);
            let all = periods.iter().map(|one| (one.priority, one.seconds));
            Ok::<_, anyhow::Error>(all.collect::<Vec<_>>())
        };
        assert!(read(&[]).unwrap().is_empty());
        let both = [
            "shutdown-grace-period=30s",
            "shutdown-grace-period-critical-pods=10s",
        ];
        assert_eq!(read(&both).unwrap(), [(0, 20), (2_000_000_000, 10)]);
        let list = ["shutdown-grace-period-by-pod-priority=0=1m,1000=15s"];
        assert_eq!(read(&list).unwrap(), [(0, 60), (1_000, 15)]);
        assert!(read(&["shutdown-grace-period-critical-pods=10s"]).is_err());
        assert!(read(&[both[0], list[0]]).is_err());
        assert!(read(&["shutdown-grace-period-by-pod-priority=x=1s"]).is_err());
    }

    #[test]
    fn images_are_verified_as_told() {
        let read = |text: &str| {
            let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
            let file = node_config::Source {
                path: "/kubelet.yaml".into(),
                text: format!("{head}{text}"),
            };
            let layers = Layers {
                file: Some(file),
                ..Layers::default()
            };
            image_verification(Configuration::read(&layers).unwrap().settings())
        };
        assert_eq!(read(""), Some(ImageVerification::NeverPreloaded));
        assert_eq!(
            read("featureGates: {KubeletEnsureSecretPulledImages: false}"),
            None
        );
        let policy = |name: &str| read(&format!("imagePullCredentialsVerificationPolicy: {name}"));
        assert_eq!(policy("AlwaysVerify"), Some(ImageVerification::Always));
        assert_eq!(policy("NeverVerify"), Some(ImageVerification::Never));
        let listed =
            policy("NeverVerifyAllowlistedImages\npreloadedImagesVerificationAllowlist: [a]");
        assert_eq!(
            listed,
            Some(ImageVerification::NeverListed(vec!["a".into()]))
        );
    }

    #[test]
    fn places_are_set_as_upstream_sets_them() {
        let read = |words: &[&str]| {
            let sockets = Path::new("/var/lib/kubelet");
            placement(&settings(words)?, sockets, Path::new("/data"))
        };
        let config = read(&[]).unwrap();
        assert_eq!(config.policy, TopologyPolicy::None);
        let config = read(&[
            "topology-manager-policy=single-numa-node",
            "topology-manager-scope=pod",
        ])
        .unwrap();
        let socket = "/var/lib/kubelet/pod-resources/kubelet.sock";
        assert_eq!(config.pod_resources, Path::new(socket));
        assert_eq!(config.policy, TopologyPolicy::SingleNumaNode);
        assert_eq!(config.scope, TopologyScope::Pod);
        assert_eq!(config.state, Path::new("/data"));
        let config = read(&[
            "cpu-manager-policy=static",
            "cpu-manager-policy-options=full-pcpus-only=true",
            "kube-reserved=cpu=500m,memory=1Gi",
            "system-reserved=cpu=600m",
        ])
        .unwrap();
        assert!(config.cpus.exclusive && config.cpus.full_cores_only);
        assert_eq!(config.cpus.reserved_count, 2);
        let config = read(&[
            "feature-gates=CPUManagerPolicyAlphaOptions=true",
            "cpu-manager-policy-options=align-by-socket=true,distribute-cpus-across-numa=1",
            "topology-manager-policy-options=max-allowable-numa-nodes=12,prefer-closest-numa-nodes=true",
        ])
        .unwrap();
        assert!(config.cpus.align_by_socket && config.cpus.across_nodes);
        assert!(config.prefer_closest && config.nodes_max == 12);
        let both =
            "cpu-manager-policy-options=distribute-cpus-across-cores=true,full-pcpus-only=true";
        let fault = read(&["feature-gates=CPUManagerPolicyAlphaOptions=true", both]).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "static policy options full-pcpus-only and distribute-cpus-across-cores can not be \
             used at the same time"
        );
        assert_eq!(read(&["reserved-cpus=0,2"]).unwrap().cpus.reserved.len(), 2);
        for bad in [
            "topology-manager-policy=best",
            "topology-manager-scope=node",
            "reserved-cpus=x",
            "kube-reserved=cpu",
            "system-reserved=gpu=1",
            "cpu-manager-policy-options=align-by-socket=true",
            "topology-manager-policy-options=max-allowable-numa-nodes=7",
            "topology-manager-policy-options=nearest=true",
        ] {
            assert!(read(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_of_better_pods_is_reserved_by_percentage() {
        let read = |words: &[&str]| {
            let reserved = settings(words).and_then(|settings| qos_reserved(&settings));
            reserved.map_err(|error| error.to_string())
        };
        let gate = "feature-gates=QOSReserved=true";
        assert_eq!(read(&["qos-reserved=memory=40%"]), Ok(None));
        assert_eq!(read(&["qos-reserved=memory=40%", gate]), Ok(Some(40)));
        let failed = "--qos-reserved value failed to parse: ";
        for (text, why) in [
            ("cpu=1%", "cannot reserve \"cpu\" resource"),
            (
                "memory=40",
                "failed to parse percentage \"40\" for \"memory\" resource: percentage expected, \
                 got '40'",
            ),
            (
                "memory=x%",
                "failed to parse percentage \"x%\" for \"memory\" resource: invalid number in \
                 percentage 'x%'",
            ),
            (
                "memory=101%",
                "failed to parse percentage \"101%\" for \"memory\" resource: percentage must be \
                 between 0 and 100",
            ),
        ] {
            let fault = read(&[&format!("qos-reserved={text}")]);
            assert_eq!(fault, Err(format!("{failed}{why}")));
        }
    }

    #[test]
    fn services_are_limited_to_what_is_reserved_for_them() {
        let read = |words: &[&str]| reserved_groups(&settings(words).unwrap()).unwrap();
        assert!(read(&[]).is_empty());
        let groups = read(&[
            "enforce-node-allocatable=pods,kube-reserved-compressible,system-reserved",
            "system-reserved-cgroup=/system.slice",
            "system-reserved=memory=1Gi",
            "kube-reserved-cgroup=/kube",
            "kube-reserved=cpu=500m",
        ]);
        let shown = groups.iter().map(|one| {
            let amounts = one.amounts.keys().map(String::as_str).collect::<Vec<_>>();
            (
                one.name,
                one.path.as_str(),
                amounts.join(" "),
                one.compressible,
            )
        });
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [
                ("System", "/system.slice", "memory".to_owned(), false),
                ("Kube", "/kube", "cpu".to_owned(), true),
            ]
        );
    }

    #[test]
    fn eviction_is_set_as_upstream_sets_it() {
        let read = |words: &[&str]| eviction(&settings(words)?);
        let usual = read(&[]).unwrap();
        let expected = EvictionConfig::default();
        assert_eq!(usual.thresholds.len(), expected.thresholds.len());
        for threshold in &expected.thresholds {
            assert!(usual.thresholds.contains(threshold), "{threshold:?}");
        }
        assert_eq!(usual.transition_period, expected.transition_period);
        let config = read(&[
            "eviction-hard=memory.available<5%",
            "eviction-soft=memory.available<10%,nodefs.available<1Gi",
            "eviction-soft-grace-period=memory.available=1m30s,nodefs.available=2m",
            "eviction-minimum-reclaim=memory.available=64Mi",
            "eviction-max-pod-grace-period=20",
        ])
        .unwrap();
        let all: Vec<_> = config
            .thresholds
            .iter()
            .map(|t| (t.signal, t.grace.as_secs()))
            .collect();
        let expected = [
            (Signal::Memory, 0),
            (Signal::Memory, 90),
            (Signal::NodeDisk, 120),
        ];
        assert_eq!(all, expected);
        assert_eq!(
            config.thresholds[1].reclaim,
            Some(Amount::Quantity(64 << 20))
        );
        assert_eq!(config.max_pod_grace_seconds, 20);
        for words in [
            &["eviction-soft=memory.available<10%"][..],
            &["eviction-hard=memory<1"],
            &["no-such-flag=1"],
        ] {
            assert!(read(words).is_err(), "{words:?}");
        }
    }
}
