//! What may not be: upstream's checks, in its order and words.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::settings::Settings;
use crate::{at, gates};

/// Collects what is wrong.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn when(&mut self, wrong: bool, why: impl FnOnce() -> String) {
        if wrong {
            self.0.push(format!("invalid configuration: {}", why()));
        }
    }

    /// A number below zero; `name` may hold the flag.
    fn negative(&mut self, name: &str, number: i64) {
        self.when(number < 0, || {
            format!("{name} {number} must not be a negative number")
        });
    }

    fn range(&mut self, name: &str, number: i32, least: i32, most: i32) {
        self.when(!(least..=most).contains(&number), || {
            format!("{name} {number} must be between {least} and {most}, inclusive")
        });
    }

    fn one_of(&mut self, name: &str, value: &str, known: &[&str]) {
        let list: Vec<_> = known.iter().map(|one| format!("{one:?}")).collect();
        self.when(!known.contains(&value), || {
            format!("{name} {value:?} must be one of: [{}]", list.join(" "))
        });
    }

    fn option(&mut self, name: &str, value: &str, known: &[&str]) {
        let quoted: Vec<_> = known.iter().map(|one| format!("{one:?}")).collect();
        let list = match quoted.as_slice() {
            [all @ .., last] => format!("{} or {last}", all.join(", ")),
            [] => String::new(),
        };
        self.when(!known.contains(&value), || {
            format!("option {value:?} specified for {name}. Valid options are {list}")
        });
    }
}

/// Everything that is wrong.
pub(crate) fn faults(tree: &Value, settings: &Settings) -> Vec<String> {
    let mut faults = Faults::default();
    for (name, on) in &settings.feature_gates {
        faults.0.extend(gates::fault(name, *on));
    }
    numbers(&mut faults, settings);
    images(&mut faults, settings);
    image_verification(&mut faults, settings);
    taints(&mut faults, settings);
    topology(&mut faults, settings);
    shutdown(&mut faults, settings);
    requirements(&mut faults, tree, settings);
    let back_off = settings.crash_loop_back_off.max_container_restart_period;
    faults.when(
        settings.gate("KubeletCrashLoopBackOffMax")
            && !(1_000..=300_000).contains(&(back_off.nanos / 1_000_000)),
        || {
            let seconds = back_off.time().as_secs_f64();
            format!(
                "CrashLoopBackOff.MaxContainerRestartPeriod (got: {seconds} seconds) must be set \
                 between 1s and 300s"
            )
        },
    );
    let swap = settings.memory_swap.swap_behavior.as_str();
    faults.when(!["", "LimitedSwap", "NoSwap"].contains(&swap), || {
        format!(
            "memorySwap.swapBehavior {swap:?} must be one of: \"\", \"LimitedSwap\" or \"NoSwap\""
        )
    });
    enforcement(&mut faults, settings);
    let hairpins = ["none", "hairpin-veth", "promiscuous-bridge"];
    faults.option(
        "hairpinMode (--hairpin-mode)",
        &settings.hairpin_mode,
        &hairpins,
    );
    reserved(&mut faults, settings);
    let factor = settings.memory_throttling_factor;
    faults.when(!(factor > 0.0 && factor <= 1.0), || {
        format!(
            "memoryThrottlingFactor {factor} must be greater than 0 and less than or equal to 1.0"
        )
    });
    let (policy, tiered) = (
        settings.memory_reservation_policy.as_str(),
        "TieredReservation",
    );
    faults.when(policy == tiered && !settings.gate("MemoryQoS"), || {
        format!("memoryReservationPolicy {tiered:?} requires MemoryQoS feature gate to be enabled")
    });
    faults.when(!["None", tiered].contains(&policy), || {
        format!(
            "option {policy:?} specified for memoryReservationPolicy. Valid options are \"None\" or \
             {tiered:?}"
        )
    });
    logs(&mut faults, settings);
    faults.0
}

fn numbers(faults: &mut Faults, settings: &Settings) {
    faults.when(settings.node_lease_duration_seconds <= 0, || {
        "nodeLeaseDurationSeconds must be greater than 0".into()
    });
    let cgroups = !settings.system_cgroups.is_empty() && settings.cgroup_root.is_empty();
    faults.when(cgroups, || {
        "systemCgroups (--system-cgroups) was specified and cgroupRoot (--cgroup-root) was not \
         specified"
            .into()
    });
    faults.negative("eventBurst (--event-burst)", settings.event_burst.into());
    faults.negative(
        "eventRecordQPS (--event-qps)",
        settings.event_record_qps.into(),
    );
    if settings.healthz_port != 0 {
        faults.range(
            "healthzPort (--healthz-port)",
            settings.healthz_port,
            1,
            65_535,
        );
    }
    let period = settings.cpu_cfs_quota_period;
    faults.when(!(1_000_000..=1_000_000_000).contains(&period.nanos), || {
        format!(
            "cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {{{period}}} must be between 1ms and 1sec, \
             inclusive"
        )
    });
    let (high, low) = (
        settings.image_gc_high_threshold_percent,
        settings.image_gc_low_threshold_percent,
    );
    faults.range(
        "imageGCHighThresholdPercent (--image-gc-high-threshold)",
        high,
        0,
        100,
    );
    faults.range(
        "imageGCLowThresholdPercent (--image-gc-low-threshold)",
        low,
        0,
        100,
    );
    faults.when(low >= high, || {
        format!(
            "imageGCLowThresholdPercent (--image-gc-low-threshold) {low} must be less than \
             imageGCHighThresholdPercent (--image-gc-high-threshold) {high}"
        )
    });
    let (least, most) = (settings.image_minimum_gc_age, settings.image_maximum_gc_age);
    for (name, age) in [("imageMinimumGCAge", least), ("imageMaximumGCAge", most)] {
        faults.when(age.nanos < 0, || {
            format!("{name} {age} must not be negative")
        });
    }
    faults.when(most.nanos > 0 && most.nanos <= least.nanos, || {
        format!("imageMaximumGCAge {most} must be greater than imageMinimumGCAge {least}")
    });
    faults.range(
        "iptablesDropBit (--iptables-drop-bit)",
        settings.iptables_drop_bit,
        0,
        31,
    );
    let bit = settings.iptables_masquerade_bit;
    faults.range(
        "iptablesMasqueradeBit (--iptables-masquerade-bit)",
        bit,
        0,
        31,
    );
    faults.negative(
        "kubeAPIBurst (--kube-api-burst)",
        settings.kube_api_burst.into(),
    );
    faults.negative("kubeAPIQPS (--kube-api-qps)", settings.kube_api_qps.into());
    let images = settings.node_status_max_images;
    faults.when(images < -1, || {
        format!("nodeStatusMaxImages (--node-status-max-images) {images} must be -1 or greater")
    });
    faults.negative("maxOpenFiles (--max-open-files)", settings.max_open_files);
    faults.negative("maxPods (--max-pods)", settings.max_pods.into());
    faults.range(
        "oomScoreAdj (--oom-score-adj)",
        settings.oom_score_adj,
        -1_000,
        1_000,
    );
    faults.negative(
        "podsPerCore (--pods-per-core)",
        settings.pods_per_core.into(),
    );
    faults.range("port (--port)", settings.port, 1, 65_535);
    let read_only = settings.read_only_port;
    faults.range("readOnlyPort (--read-only-port)", read_only, 0, 65_535);
}

fn images(faults: &mut Faults, settings: &Settings) {
    faults.negative(
        "registryBurst (--registry-burst)",
        settings.registry_burst.into(),
    );
    faults.negative(
        "registryPullQPS (--registry-qps)",
        settings.registry_pull_qps.into(),
    );
    if let Some(most) = settings.max_parallel_image_pulls {
        faults.when(most < 1, || {
            format!("maxParallelImagePulls {most} must be a positive number")
        });
        faults.when(settings.serialize_image_pulls && most > 1, || {
            "maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls \
             (--serialize-image-pulls) is set to false"
                .into()
        });
    }
    faults.when(settings.run_once, || {
        "runOnce (--runOnce) true, Runonce mode has been deprecated and should not be set".into()
    });
}

/// Whose images pods may use without having pulled them.
fn image_verification(faults: &mut Faults, settings: &Settings) {
    const GATE: &str = "KubeletEnsureSecretPulledImages";
    let policy = settings.image_pull_credentials_verification_policy.as_str();
    let list = &settings.preloaded_images_verification_allowlist;
    if !settings.gate(GATE) {
        let without =
            |name: &str| format!("`{name}` must not be set if {GATE} feature gate is not enabled");
        faults.when(policy != "NeverVerifyPreloadedImages", || {
            without("imagePullCredentialsVerificationPolicy")
        });
        faults.when(!list.is_empty(), || {
            without("preloadedImagesVerificationAllowlist")
        });
        return;
    }
    let listed = "NeverVerifyAllowlistedImages";
    let known = [
        "NeverVerify",
        "NeverVerifyPreloadedImages",
        listed,
        "AlwaysVerify",
    ];
    faults.option("imagePullCredentialsVerificationPolicy", policy, &known);
    if !list.is_empty() && policy != listed {
        faults.when(true, || {
            format!(
                "can't set `preloadedImagesVerificationAllowlist` if \
                 `imagePullCredentialsVertificationPolicy` is not {listed:?}"
            )
        });
        return;
    }
    if let Some(why) = list.iter().find_map(|pattern| pattern_fault(pattern)) {
        faults.when(true, || {
            format!("invalid image pattern in `preloadedImagesVerificationAllowlist`: {why}")
        });
    }
}

/// What is wrong with the name of an image, or with a folder of such that ends with `/*`.
fn pattern_fault(pattern: &str) -> Option<String> {
    if pattern != pattern.trim() {
        return Some(format!(
            "leading/trailing spaces are not allowed: {pattern}"
        ));
    }
    let folder = pattern
        .strip_suffix('*')
        .filter(|folder| folder.ends_with('/'));
    let name = folder.unwrap_or(pattern);
    if name.is_empty() {
        return Some(format!("the supplied pattern is too short: {pattern}"));
    }
    if name.contains('*') {
        return Some(format!(
            "not a valid wildcard pattern, only patterns ending with '/*' are allowed: {pattern}"
        ));
    }
    if folder.is_some() {
        return (name == "/").then(|| "at least registry hostname is required".into());
    }
    let last = name.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) {
        return Some(format!(
            "neither tag nor digest is accepted in an image reference: {pattern}"
        ));
    }
    let word = |part: &str, extra: &[char]| {
        let plain = |sign: char| sign.is_ascii_alphanumeric();
        part.starts_with(plain)
            && part.ends_with(plain)
            && part
                .chars()
                .all(|sign| plain(sign) || extra.contains(&sign))
    };
    let lower = |part: &str| !part.contains(|sign: char| sign.is_ascii_uppercase());
    let mut parts = name.split('/').enumerate();
    let is_name = parts.all(|(at, part)| match at {
        0 if name.contains('/') => word(part, &['.', '-', '_', ':']),
        _ => word(part, &['.', '-', '_']) && lower(part),
    });
    (!is_name).then(|| "failed to parse as an image name: invalid reference format".into())
}

fn taints(faults: &mut Faults, settings: &Settings) {
    for taint in &settings.register_with_taints {
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        let wrong = !meta::naming::qualified_name(&taint.key).is_empty()
            || !meta::naming::label_value(&taint.value).is_empty()
            || !(taint.effect.is_empty() || effects.contains(&taint.effect.as_str()));
        if wrong {
            faults.0.push(format!(
                "invalid taint: {{{} {} {} <nil>}}",
                taint.key, taint.value, taint.effect
            ));
        }
        faults.when(taint.time_added.is_some(), || {
            "taint.TimeAdded is not nil".into()
        });
    }
}

fn topology(faults: &mut Faults, settings: &Settings) {
    let policies = ["none", "best-effort", "restricted", "single-numa-node"];
    faults.one_of(
        "topologyManagerPolicy (--topology-manager-policy)",
        &settings.topology_manager_policy,
        &policies,
    );
    let scope = settings.topology_manager_scope.as_str();
    faults.when(!["container", "pod"].contains(&scope), || {
        format!(
            "topologyManagerScope (--topology-manager-scope) {scope:?} must be one of: \
             \"container\", or \"pod\""
        )
    });
}

fn shutdown(faults: &mut Faults, settings: &Settings) {
    let whole = settings.shutdown_grace_period;
    let critical = settings.shutdown_grace_period_critical_pods;
    faults.when(critical.nanos > whole.nanos, || {
        format!(
            "shutdownGracePeriodCriticalPods {{{critical}}} must be <= shutdownGracePeriod \
             {{{whole}}}"
        )
    });
    for (name, period) in [
        ("shutdownGracePeriod", whole),
        ("shutdownGracePeriodCriticalPods", critical),
    ] {
        faults.when(period.nanos < 1_000_000_000 && period.nanos != 0, || {
            format!("{name} {{{period}}} must be either zero or otherwise >= 1 sec")
        });
    }
    let listed = !settings.shutdown_grace_period_by_pod_priority.is_empty();
    faults.when(listed && (whole.nanos > 0 || critical.nanos > 0), || {
        "Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same \
         time"
            .into()
    });
}

/// Fields that must not be set where a gate is off.
fn requirements(faults: &mut Faults, tree: &Value, settings: &Settings) {
    let off = |name: &str| !settings.gate(name);
    let period = settings.cpu_cfs_quota_period;
    faults.when(
        off("CustomCPUCFSQuotaPeriod") && period.nanos != 100_000_000,
        || {
            format!(
                "cpuCFSQuotaPeriod (--cpu-cfs-quota-period) {{{period}}} requires feature gate \
                 CustomCPUCFSQuotaPeriod"
            )
        },
    );
    let bootstrap = at(tree, "serverTLSBootstrap").and_then(Value::as_bool) == Some(true);
    faults.when(off("RotateKubeletServerCertificate") && bootstrap, || {
        "serverTLSBootstrap true requires feature gate RotateKubeletServerCertificate".into()
    });
    let whole = settings.shutdown_grace_period.nanos.max(0);
    let critical = settings.shutdown_grace_period_critical_pods.nanos.max(0);
    faults.when(off("GracefulNodeShutdown") && whole + critical > 0, || {
        "specifying shutdownGracePeriod or shutdownGracePeriodCriticalPods requires feature gate \
         GracefulNodeShutdown"
            .into()
    });
    let listed = !settings.shutdown_grace_period_by_pod_priority.is_empty();
    faults.when(
        off("GracefulNodeShutdownBasedOnPodPriority") && listed,
        || {
            "Specifying shutdownGracePeriodByPodPriority requires feature gate \
             GracefulNodeShutdownBasedOnPodPriority"
                .into()
        },
    );
    faults.when(
        settings.enable_system_log_query && !settings.enable_system_log_handler,
        || "enableSystemLogHandler is required for enableSystemLogQuery".into(),
    );
}

fn enforcement(faults: &mut Faults, settings: &Settings) {
    const ALL: [&str; 6] = [
        "pods",
        "system-reserved",
        "system-reserved-compressible",
        "kube-reserved",
        "kube-reserved-compressible",
        "none",
    ];
    let name = "enforceNodeAllocatable (--enforce-node-allocatable)";
    let listed: Vec<&str> = settings
        .enforce_node_allocatable
        .iter()
        .map(String::as_str)
        .collect();
    for one in ["system-reserved", "kube-reserved"] {
        let both = format!("{one}-compressible");
        faults.when(
            listed.contains(&one) && listed.contains(&both.as_str()),
            || format!("both {one:?} and {both:?} cannot be specified together in {name}"),
        );
    }
    let mut seen = BTreeSet::new();
    for one in &listed {
        if !seen.insert(*one) {
            faults.when(true, || {
                format!("duplicated enforcements {one:?} in {name}")
            });
            continue;
        }
        faults.when(*one == "none" && listed.len() > 1, || {
            format!("{name} may not contain additional enforcements when \"none\" is specified")
        });
        for (who, group, place) in [
            (
                "system-reserved",
                &settings.system_reserved_cgroup,
                "systemReservedCgroup (--system-reserved-cgroup)",
            ),
            (
                "kube-reserved",
                &settings.kube_reserved_cgroup,
                "kubeReservedCgroup (--kube-reserved-cgroup)",
            ),
        ] {
            let compressible = format!("{who}-compressible");
            let meant = *one == who || **one == compressible;
            faults.when(meant && group.is_empty(), || {
                format!(
                    "{place} must be specified when {who:?} or {compressible:?} included in {name}"
                )
            });
        }
        if !ALL.contains(one) {
            let [a, b, c, d, e, f] = ALL;
            faults.when(true, || {
                format!(
                    "option {one:?} specified for {name}. Valid options are {a:?}, {b:?}, {c:?}, \
                     {d:?}, {e:?} or {f:?}"
                )
            });
        } else if *one != "none" {
            faults.when(!settings.cgroups_per_qos, || {
                format!(
                    "cgroupsPerQOS (--cgroups-per-qos) must be set to true when {one:?} contained \
                     in {name}"
                )
            });
        }
    }
}

fn reserved(faults: &mut Faults, settings: &Settings) {
    let cgroups =
        !settings.system_reserved_cgroup.is_empty() || !settings.kube_reserved_cgroup.is_empty();
    faults.when(!settings.reserved_system_cpus.is_empty() && cgroups, || {
        "can't use reservedSystemCPUs (--reserved-cpus) with systemReservedCgroup \
         (--system-reserved-cgroup) or kubeReservedCgroup (--kube-reserved-cgroup)"
            .into()
    });
    let mut seen = BTreeSet::new();
    for reservation in &settings.reserved_memory {
        let node = reservation.numa_node;
        for (name, amount) in &reservation.limits {
            let supported = name == "memory" || name.starts_with("hugepages-");
            faults.when(!supported, || {
                format!(
                    "the limit type {name:?} for NUMA node {node} is not supported, only [memory \
                     hugepages-<HugePageSize>] is accepted"
                )
            });
            faults.when(amount.is_zero(), || {
                format!(
                    "reserved memory may not be zero for NUMA node {node} and resource {name:?}"
                )
            });
            faults.when(!seen.insert((node, name)), || {
                format!(
                    "the reserved memory has a duplicate value for NUMA node {node} and resource \
                     {name:?}"
                )
            });
        }
    }
}

fn logs(faults: &mut Faults, settings: &Settings) {
    faults.when(settings.container_log_max_workers < 1, || {
        "containerLogMaxWorkers must be greater than or equal to 1".into()
    });
    let pause = settings.container_log_monitor_interval;
    faults.when(pause.nanos < 3_000_000_000, || {
        "containerLogMonitorInterval must be a positive time duration greater than or equal to 3s"
            .into()
    });
    faults.when(settings.container_log_max_files <= 1, || {
        "containerLogMaxFiles must be greater than 1".into()
    });
    let folder = settings.pod_logs_dir.as_str();
    faults.when(!Path::new(folder).is_absolute(), || {
        format!("pod logs path {folder:?} must be absolute path")
    });
    let unclean = folder.len() > 1 && folder.ends_with('/')
        || folder
            .split('/')
            .skip(1)
            .any(|part| matches!(part, "." | ".."))
        || folder.contains("//");
    faults.when(unclean, || {
        format!("pod logs path {folder:?} must be normalized")
    });
    faults.when(!folder.is_ascii(), || {
        format!("pod logs path {folder:?} mut contains ASCII characters only")
    });
}
