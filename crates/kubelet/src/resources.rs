//! Requests and limits as the kernel takes them: shares, quotas, cgroup names,
//! and who is killed first when memory runs out.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use meta::Quantity;
use node_api::{CgroupDriver, LinuxResources};

use crate::allocations::Amounts;
use crate::config::Config;
use crate::pod::{PodExt, Role};
use crate::{memory_qos, swap};

/// Period of CPU quotas, in microseconds.
/// The kernel's smallest quota per period.
const CPU_QUOTA_MIN: i64 = 1_000;
const SHARES_PER_CPU: i64 = 1_024;
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
/// The class of pods whose node cannot do without them.
const NODE_CRITICAL: &str = "system-node-critical";
pub(crate) const HUGE_PAGES: &str = "hugepages-";
const OOM_ADJ_GUARANTEED: i64 = -997;
const OOM_ADJ_BEST_EFFORT: i64 = 1_000;

/// The file of version 2 that says whether a container's processes end together.
const OOM_GROUP: &str = "memory.oom.group";

/// Upstream's quality of service classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

/// One amount out of limits or requests, if it is set and not zero.
pub(crate) fn amount(
    resources: Option<&ResourceRequirements>,
    limits: bool,
    name: &str,
) -> Option<Quantity> {
    let resources = resources?;
    let map = match limits {
        true => resources.limits.as_ref()?,
        false => resources.requests.as_ref()?,
    };
    let quantity = Quantity::parse(&map.get(name)?.0).ok()?;
    (!quantity.is_zero()).then_some(quantity)
}

fn limit(container: &Container, name: &str) -> Option<Quantity> {
    amount(container.resources.as_ref(), true, name)
}

/// A request; where only a limit is set, the limit.
fn request(container: &Container, name: &str) -> Option<Quantity> {
    let own = amount(container.resources.as_ref(), false, name);
    let named = container
        .resources
        .as_ref()
        .and_then(|r| r.requests.as_ref());
    let named = named.is_some_and(|requests| requests.contains_key(name));
    own.or_else(|| limit(container, name).filter(|_| !named))
}

/// The class of a pod, by its resources (upstream's rules).
pub(crate) fn qos(pod: &Pod) -> Qos {
    if let Some(resources) = pod.spec().resources.as_ref() {
        let whole = Container {
            resources: Some(resources.clone()),
            ..Container::default()
        };
        if whole
            .resources
            .as_ref()
            .is_some_and(|r| r.limits.is_some() || r.requests.is_some())
        {
            return qos_of(&[&whole]);
        }
    }
    let containers: Vec<_> = pod.all_containers().into_iter().map(|(_, c)| c).collect();
    qos_of(&containers)
}

fn qos_of(containers: &[&Container]) -> Qos {
    let mut any = false;
    let mut all_guaranteed = true;
    for container in containers {
        for name in ["cpu", "memory"] {
            let (request, limit) = (request(container, name), limit(container, name));
            any |= request.is_some() || limit.is_some();
            all_guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (any, all_guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// The cgroup of a pod, as the runtime's driver names it: `/kubepods/burstable/pod<uid>`, or
/// `kubepods-burstable-pod<uid>.slice`. Without classes it is the same for all pods.
pub(crate) fn cgroup_parent(pod: &Pod, config: &Config) -> String {
    let path = cgroup_path(pod, config);
    match config.cgroup_driver {
        // Nowhere in particular.
        _ if path.is_empty() => path,
        CgroupDriver::Cgroupfs => path,
        CgroupDriver::Systemd => systemd::slice_of(&path),
    }
}

fn cgroup_path(pod: &Pod, config: &Config) -> String {
    let root = &config.cgroup_root;
    if !config.cgroups_per_qos {
        return root.clone();
    }
    match qos(pod) {
        Qos::Guaranteed => format!("{root}/pod{}", pod.uid()),
        Qos::Burstable => format!("{root}/burstable/pod{}", pod.uid()),
        Qos::BestEffort => format!("{root}/besteffort/pod{}", pod.uid()),
    }
}

pub(crate) fn shares(milli_cpu: i64) -> i64 {
    (milli_cpu * SHARES_PER_CPU / 1_000).clamp(SHARES_MIN, SHARES_MAX)
}

fn quota(milli_cpu: i64, period: i64) -> i64 {
    (milli_cpu * period / 1_000).max(CPU_QUOTA_MIN)
}

/// Thousandths of a processor that shares stand for.
pub(crate) fn milli_of_shares(shares: i64) -> i64 {
    (shares * 1_000 + SHARES_PER_CPU - 1) / SHARES_PER_CPU
}

/// Thousandths of a processor that a quota stands for.
pub(crate) fn milli_of_quota(limits: &LinuxResources) -> i64 {
    limits.cpu_quota * 1_000 / limits.cpu_period.max(1)
}

/// What counts for a container: its own, and for a limit that it does not have that of its pod.
pub(crate) fn effective(
    own: &ResourceRequirements,
    whole: Option<&ResourceRequirements>,
) -> ResourceRequirements {
    let mut resources = own.clone();
    for (name, limit) in whole.iter().flat_map(|whole| whole.limits.iter().flatten()) {
        let zero = amount(Some(own), true, name).is_none();
        if zero && (matches!(name.as_str(), "cpu" | "memory") || name.starts_with(HUGE_PAGES)) {
            let limits = resources.limits.get_or_insert_default();
            limits.insert(name.clone(), limit.clone());
        }
    }
    resources
}

/// Limits of one container.
pub(crate) fn of_container(
    pod: &Pod,
    container: &Container,
    config: &Config,
    memory_capacity: i64,
) -> LinuxResources {
    let own = container.resources.clone().unwrap_or_default();
    let counted = Container {
        resources: Some(effective(&own, pod.spec().resources.as_ref())),
        ..container.clone()
    };
    let mut resources = LinuxResources {
        cpu_shares: shares(cpu_request(container, &counted)),
        memory_limit_bytes: limit(&counted, "memory").map_or(0, Quantity::value),
        oom_score_adj: oom_score_adj(pod, container, memory_capacity),
        hugepage_limits: hugepages(&counted),
        ..LinuxResources::default()
    };
    if config.cpu_cfs_quota
        && let Some(cpu) = limit(&counted, "cpu")
    {
        resources.cpu_period = config.cpu_period;
        resources.cpu_quota = quota(cpu.milli(), config.cpu_period);
    }
    if config.cgroups.unified {
        let together = i64::from(config.die_together).to_string();
        resources.unified.insert(OOM_GROUP.to_owned(), together);
    }
    swap::limit(&mut resources, pod, container, config, memory_capacity);
    memory_qos::of_container(&mut resources, pod, container, config, memory_capacity);
    resources
}

/// Thousandths of a processor by which a container is weighed.
fn cpu_request(container: &Container, counted: &Container) -> i64 {
    request(container, "cpu")
        .or_else(|| request(counted, "cpu"))
        .map_or(0, Quantity::milli)
}

/// Limits of the pod as a whole, where it has a group: the sum of its containers', where all have
/// one.
pub(crate) fn of_pod(pod: &Pod, config: &Config) -> LinuxResources {
    if !config.cgroups_per_qos {
        return LinuxResources::default();
    }
    let whole = pod.spec().resources.as_ref();
    let pod_limit = |name: &str| amount(whole, true, name);
    let cpu_request =
        amount(whole, false, "cpu").map_or_else(|| sum(pod, request, "cpu").0, Quantity::milli);
    let (cpu_sum, cpu_all) = sum(pod, limit, "cpu");
    let cpu_limit = pod_limit("cpu")
        .map(Quantity::milli)
        .or(cpu_all.then_some(cpu_sum));
    let (memory_sum, memory_all) = sum(pod, limit, "memory");
    let memory_limit = pod_limit("memory")
        .map(Quantity::value)
        .or(memory_all.then_some(memory_sum));
    let mut resources = LinuxResources {
        cpu_shares: shares(cpu_request),
        memory_limit_bytes: memory_limit.unwrap_or(0),
        pids_limit: config.pod_pids_limit,
        ..LinuxResources::default()
    };
    if qos(pod) == Qos::BestEffort {
        resources.cpu_shares = SHARES_MIN;
    }
    if config.cgroups.unified && resources.memory_limit_bytes > 0 {
        // Its containers say who has swap.
        resources.memory_swap_limit_bytes = -1;
    }
    memory_qos::of_pod(&mut resources, pod, config);
    if config.cpu_cfs_quota
        && let Some(milli) = cpu_limit.filter(|milli| *milli > 0)
    {
        resources.cpu_period = config.cpu_period;
        resources.cpu_quota = quota(milli, config.cpu_period);
    }
    resources
}

/// What the scheduler counts for a pod.
pub(crate) fn requests(pod: &Pod) -> Amounts {
    let whole = pod.spec().resources.as_ref();
    let read = |name: &str, value: fn(Quantity) -> i64| {
        amount(whole, false, name).map_or_else(|| sum(pod, request, name).0, value)
    };
    Amounts {
        milli_cpu: read("cpu", Quantity::milli),
        memory_bytes: read("memory", Quantity::value),
        disk_bytes: disk_request(pod),
    }
}

/// What the scheduler counts of the disk for a pod.
pub(crate) fn disk_request(pod: &Pod) -> i64 {
    sum(pod, request, "ephemeral-storage").0
}

/// Bytes in huge pages that a pod needs, by resource.
pub(crate) fn huge_pages_of(pod: &Pod) -> BTreeMap<String, i64> {
    let whole = pod.spec().resources.as_ref();
    let own = pod.all_containers().into_iter();
    let lists = own
        .filter_map(|(_, one)| one.resources.clone())
        .chain(whole.cloned());
    let lists = lists.flat_map(|all| [all.limits, all.requests]).flatten();
    let names = lists.flat_map(BTreeMap::into_keys);
    let names = names.filter(|name| name.starts_with(HUGE_PAGES));
    let read = |name: String| {
        let whole = amount(whole, false, &name);
        let bytes = whole.map_or_else(|| sum(pod, request, &name).0, Quantity::value);
        (name, bytes)
    };
    names.map(read).collect()
}

/// A container's request for processors, in thousandths.
pub(crate) fn milli_cpus_of(container: &Container) -> i64 {
    request(container, "cpu").map_or(0, Quantity::milli)
}

/// A container's request, as a plain number.
pub(crate) fn request_of(container: &Container, name: &str) -> i64 {
    request(container, name).map_or(0, Quantity::value)
}

type Amount = fn(&Container, &str) -> Option<Quantity>;

/// What a pod needs at most at one time: its main containers and sidecars together, or an init
/// container with the sidecars before it. And whether every container has an amount.
fn sum(pod: &Pod, of: Amount, name: &str) -> (i64, bool) {
    let read = |quantity: Quantity| match name {
        "cpu" => quantity.milli(),
        _ => quantity.value(),
    };
    let (mut running, mut peak, mut sidecars, mut all) = (0, 0, 0, true);
    for (role, container) in pod.all_containers() {
        let found = of(container, name).map(read);
        all &= found.is_some();
        let amount = found.unwrap_or(0);
        match role {
            Role::Init => peak = peak.max(sidecars + amount),
            Role::Sidecar => sidecars += amount,
            Role::Main => running += amount,
            Role::Ephemeral => {}
        }
    }
    let overhead = pod.spec().overhead.as_ref().and_then(|map| map.get(name));
    let overhead = overhead
        .and_then(|q| Quantity::parse(&q.0).ok())
        .map_or(0, read);
    (peak.max(running + sidecars) + overhead, all)
}

fn hugepages(container: &Container) -> BTreeMap<String, i64> {
    let limits = container
        .resources
        .iter()
        .flat_map(|r| r.limits.iter().flatten());
    limits
        .filter_map(|(name, quantity)| {
            let size = name.strip_prefix(HUGE_PAGES)?;
            let bytes = Quantity::parse(&quantity.0).ok()?.value();
            Some((page_size(size), bytes))
        })
        .collect()
}

/// The kernel's files say MB where the API says Mi.
pub(crate) fn page_size(size: &str) -> String {
    format!("{size}B").replace("iB", "B")
}

/// Burstable containers are killed the sooner, the smaller their request of the node's memory. What
/// the pod asks for beyond its containers is theirs in equal parts, and a sidecar goes no sooner
/// than any of those it serves.
fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    if pod.is_critical() && pod.spec().priority_class_name.as_deref() == Some(NODE_CRITICAL) {
        return OOM_ADJ_GUARANTEED;
    }
    match qos(pod) {
        Qos::Guaranteed => OOM_ADJ_GUARANTEED,
        Qos::BestEffort => OOM_ADJ_BEST_EFFORT,
        Qos::Burstable => {
            let own =
                |container: &Container| request(container, "memory").map_or(0, Quantity::value);
            let mut memory = own(container);
            if role_of(pod, container) == Some(Role::Sidecar) {
                let served = pod.spec().containers.iter().map(own).min();
                memory = memory.max(served.unwrap_or(0));
            }
            memory += memory_beyond_containers(pod);
            let share = 1_000 * i128::from(memory) / i128::from(memory_capacity.max(1));
            let adjust = 1_000 - i64::try_from(share).unwrap_or(1_000);
            adjust.clamp(1_000 + OOM_ADJ_GUARANTEED, OOM_ADJ_BEST_EFFORT - 1)
        }
    }
}

fn role_of(pod: &Pod, container: &Container) -> Option<Role> {
    let mut all = pod.all_containers().into_iter();
    all.find(|(_, known)| known.name == container.name)
        .map(|(role, _)| role)
}

/// The part of each container in what the pod itself asks for beyond them.
fn memory_beyond_containers(pod: &Pod) -> i64 {
    let Some(whole) = amount(pod.spec().resources.as_ref(), false, "memory") else {
        return 0;
    };
    let lasting = pod.all_containers().into_iter();
    let count = lasting.filter(|(role, _)| *role != Role::Init).count();
    let rest = (whole.value() - sum(pod, request, "memory").0).max(0);
    rest / i64::try_from(count).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(resources: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"uid": "u"},
            "spec": {"containers": [{"name": "a", "resources": resources}]}
        }))
        .unwrap()
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        for (resources, expected) in [
            (json!({}), Qos::BestEffort),
            (json!({"requests": {"cpu": "1"}}), Qos::Burstable),
            (
                json!({"limits": {"cpu": "1", "memory": "1Mi"}}),
                Qos::Guaranteed,
            ),
            (json!({"limits": {"cpu": "1"}}), Qos::Burstable),
            (
                json!({"limits": {"cpu": "1", "memory": "1Mi"}, "requests": {"cpu": "500m"}}),
                Qos::Burstable,
            ),
        ] {
            assert_eq!(qos(&pod(resources.clone())), expected, "{resources}");
        }
    }

    #[test]
    fn amounts_become_kernel_numbers() {
        let config = Config::new("n", [127, 0, 0, 1].into(), "/r".into(), "/l".into());
        let pod = pod(
            json!({"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m", "memory": "1Gi"}}),
        );
        let got = of_container(&pod, &pod.spec().containers[0], &config, 4 << 30);
        assert_eq!(got.cpu_shares, 256);
        assert_eq!((got.cpu_quota, got.cpu_period), (50_000, 100_000));
        assert_eq!(got.memory_limit_bytes, 64 << 20);
        assert_eq!(got.oom_score_adj, 750);
        let whole: Pod = serde_json::from_value(json!({"spec": {
            "resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "3Gi", "cpu": "1"}},
            "initContainers": [{"name": "side", "restartPolicy": "Always"}],
            "containers": [{"name": "a", "resources": {"requests": {"memory": "1Gi"}}}]}}))
        .unwrap();
        let adjust = |container: &Container| of_container(&whole, container, &config, 4 << 30);
        let (side, main) = (&whole.init_containers()[0], &whole.spec().containers[0]);
        assert_eq!(adjust(side).oom_score_adj, 625);
        assert_eq!(adjust(main).oom_score_adj, 625);
        assert_eq!(adjust(main).memory_limit_bytes, 3 << 30);
        assert_eq!(
            (adjust(main).cpu_quota, adjust(main).cpu_shares),
            (100_000, 1_024)
        );
        assert_eq!(cgroup_parent(&pod, &config), "/kubepods/burstable/podu");
        let by_systemd = Config {
            cgroup_driver: CgroupDriver::Systemd,
            ..config
        };
        let slice = cgroup_parent(&pod, &by_systemd);
        assert_eq!(slice, "kubepods-burstable-podu.slice");
    }
}
