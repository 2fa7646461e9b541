//! Flags of the kubelet under upstream's names, given as `--kubelet-arg name=value`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use kubelet::{
    CpuConfig, CpuSet, EvictionConfig, PlacementConfig, ProblemConfig, ProblemMonitor,
    ShutdownConfig, ShutdownPeriod, Threshold, TopologyPolicy, TopologyScope,
};
use meta::Quantity;
use serde::{Deserialize, Serialize};

use crate::serving::time;

/// The flags; lists are `signal<amount,…`, `signal=duration,…` and `signal=amount,…`.
#[derive(Parser, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[command(name = "kubelet", no_binary_name = true)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct NodeArgs {
    /// Below these, pods have to go at once; replaces the usual ones
    #[arg(long)]
    eviction_hard: Option<String>,
    /// Below these, pods have to go after a while
    #[arg(long)]
    eviction_soft: Option<String>,
    /// How long the soft ones may be crossed
    #[arg(long)]
    eviction_soft_grace_period: Option<String>,
    /// How much more than the threshold is to be won back
    #[arg(long)]
    eviction_minimum_reclaim: Option<String>,
    /// How long the node says that it is short of something after it no longer is [default: 5m]
    #[arg(long)]
    eviction_pressure_transition_period: Option<String>,
    /// Most seconds a pod gets to end by a soft threshold [default: 0]
    #[arg(long)]
    eviction_max_pod_grace_period: Option<i64>,
    /// Folder of `device-plugins/kubelet.sock` and `pod-resources/kubelet.sock`; plugins made for
    /// other distributions look below /var/lib/kubelet [default: kubelet in the data folder]
    #[arg(long)]
    plugin_sockets_dir: Option<PathBuf>,
    /// none, best-effort, restricted or single-numa-node
    #[arg(long)]
    topology_manager_policy: Option<String>,
    /// container or pod
    #[arg(long)]
    topology_manager_scope: Option<String>,
    /// none or static
    #[arg(long)]
    cpu_manager_policy: Option<String>,
    /// full-pcpus-only, strict-cpu-reservation, prefer-align-cpus-by-uncorecache: `name=true,…`
    #[arg(long)]
    cpu_manager_policy_options: Option<String>,
    /// Processors that no container has alone, such as 0-1; wins over what is reserved otherwise
    #[arg(long)]
    reserved_cpus: Option<String>,
    /// What Kubernetes' own programs need of the node: `cpu=200m,memory=256Mi,…`
    #[arg(long)]
    kube_reserved: Option<String>,
    /// What the system needs
    #[arg(long)]
    system_reserved: Option<String>,
    /// Files of the node problem detector (plugins kmsg and custom), beside its usual rules
    #[arg(long)]
    node_problem_monitors: Option<String>,
    /// Whether the kernel's log is watched by the usual rules [default: true]
    #[arg(long)]
    node_problem_detector: Option<bool>,
    /// How long pods have to end when the machine goes down, all of them together [default: 0s,
    /// they are left alone]
    #[arg(long)]
    shutdown_grace_period: Option<String>,
    /// How much of that is for critical pods
    #[arg(long)]
    shutdown_grace_period_critical_pods: Option<String>,
    /// The same by priority: `priority=duration,…`
    #[arg(long)]
    shutdown_grace_period_by_pod_priority: Option<String>,
    /// Takes every SIGTERM for the machine's end, where no systemd says which one it is
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    shutdown_on_sigterm: Option<bool>,
}

impl NodeArgs {
    /// From `name=value` entries, with or without dashes before.
    pub(crate) fn of_words(words: &[String]) -> Result<NodeArgs> {
        let dashed = words
            .iter()
            .map(|word| format!("--{}", word.trim_start_matches("--")));
        NodeArgs::try_parse_from(dashed).context("kubelet-arg")
    }

    /// When pods have to go.
    pub(crate) fn eviction(&self) -> Result<EvictionConfig> {
        let mut config = EvictionConfig::default();
        if let Some(hard) = &self.eviction_hard {
            config.thresholds = Threshold::parse_all(hard).context("eviction-hard")?;
        }
        let reclaims = self.eviction_minimum_reclaim.as_deref().unwrap_or_default();
        // Written as a threshold, an amount for a signal reads the same.
        let reclaims = Threshold::parse_all(&reclaims.replace('=', "<"));
        let reclaims = reclaims.context("eviction-minimum-reclaim")?;
        config.thresholds.extend(self.soft()?);
        for threshold in &mut config.thresholds {
            let known = reclaims.iter().find(|one| one.signal == threshold.signal);
            threshold.reclaim = known.map(|one| one.amount);
        }
        if let Some(period) = &self.eviction_pressure_transition_period {
            config.transition_period = time("eviction-pressure-transition-period", period)?;
        }
        config.max_pod_grace_seconds = self.eviction_max_pod_grace_period.unwrap_or(0);
        Ok(config)
    }

    /// Which devices containers have for themselves; `root` is the kubelet's folder.
    pub(crate) fn placement(&self, root: &Path) -> Result<PlacementConfig> {
        let folder = self.plugin_sockets_dir.as_deref().unwrap_or(root);
        let mut config = PlacementConfig::below(folder);
        if let Some(name) = &self.topology_manager_policy {
            let policy = TopologyPolicy::parse(name);
            config.policy = policy.with_context(|| format!("unknown policy: \"{name}\""))?;
        }
        config.scope = match self.topology_manager_scope.as_deref() {
            None | Some("container") => TopologyScope::Container,
            Some("pod") => TopologyScope::Pod,
            Some(other) => bail!("unknown scope: \"{other}\""),
        };
        config.state = root.to_owned();
        config.cpus = self.cpus()?;
        Ok(config)
    }

    fn cpus(&self) -> Result<CpuConfig> {
        let mut cpus = CpuConfig {
            exclusive: match self.cpu_manager_policy.as_deref() {
                None | Some("none") => false,
                Some("static") => true,
                Some(other) => bail!("unknown policy: \"{other}\""),
            },
            ..CpuConfig::default()
        };
        if let Some(text) = &self.reserved_cpus {
            let set = CpuSet::parse(text).filter(|set| !set.is_empty());
            cpus.reserved = set.with_context(|| format!("reserved-cpus {text:?}"))?;
        }
        let milli = self.reserved()?.get("cpu").map_or(0, |cpu| cpu.milli());
        cpus.reserved_count = usize::try_from(milli)?.div_ceil(1_000);
        let options = self
            .cpu_manager_policy_options
            .as_deref()
            .unwrap_or_default();
        for option in options
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
        {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let value: bool = value
                .parse()
                .with_context(|| format!("bad value for option {name:?}"))?;
            match name {
                "full-pcpus-only" => cpus.full_cores_only = value,
                "strict-cpu-reservation" => cpus.strict_reservation = value,
                "prefer-align-cpus-by-uncorecache" => cpus.align_by_cache = value,
                other => bail!("unknown CPU Manager Policy option: {other:?}"),
            }
        }
        Ok(cpus)
    }

    /// What pods cannot have of the node.
    pub(crate) fn reserved(&self) -> Result<BTreeMap<String, Quantity>> {
        let mut all: BTreeMap<String, Quantity> = BTreeMap::new();
        for (flag, list) in [
            ("kube-reserved", &self.kube_reserved),
            ("system-reserved", &self.system_reserved),
        ] {
            let entries = list.iter().flat_map(|list| list.split(','));
            for entry in entries.map(str::trim).filter(|text| !text.is_empty()) {
                let read = |entry: &str| {
                    let (name, amount) = entry.split_once('=')?;
                    Some((name.to_owned(), Quantity::parse(amount).ok()?))
                };
                let (name, amount) = read(entry).with_context(|| format!("{flag} {entry:?}"))?;
                if !["cpu", "memory", "ephemeral-storage", "pid"].contains(&name.as_str())
                    || amount.is_negative()
                {
                    bail!("{flag} {entry:?}");
                }
                let known = all.entry(name).or_insert(Quantity::ZERO);
                *known = *known + amount;
            }
        }
        if let Some(text) = &self.reserved_cpus {
            let count = CpuSet::parse(text).map_or(0, |set| set.len());
            let count = Quantity::from_units(i64::try_from(count)?);
            all.insert("cpu".to_owned(), count);
        }
        Ok(all)
    }

    /// What is watched to find what is wrong with the machine; reads the files it names.
    pub(crate) fn problems(&self) -> Result<ProblemConfig> {
        let mut config = ProblemConfig::default();
        if self.node_problem_detector == Some(false) {
            config.monitors.clear();
        }
        let files = self
            .node_problem_monitors
            .iter()
            .flat_map(|list| list.split(','));
        for file in files.map(str::trim).filter(|file| !file.is_empty()) {
            let text = std::fs::read_to_string(file).with_context(|| file.to_owned())?;
            let monitor = ProblemMonitor::read(&text).with_context(|| file.to_owned())?;
            config.monitors.push(monitor);
        }
        Ok(config)
    }

    /// How long pods have to end when the machine goes down.
    pub(crate) fn shutdown_periods(&self) -> Result<Vec<ShutdownPeriod>> {
        let read = |name: &str, text: &Option<String>| match text {
            Some(text) => time(name, text),
            None => Ok(Duration::ZERO),
        };
        let whole = read("shutdown-grace-period", &self.shutdown_grace_period)?;
        let critical = &self.shutdown_grace_period_critical_pods;
        let critical = read("shutdown-grace-period-critical-pods", critical)?;
        let Some(list) = &self.shutdown_grace_period_by_pod_priority else {
            if critical > whole {
                bail!("shutdown-grace-period-critical-pods must be <= shutdown-grace-period");
            }
            return Ok(ShutdownConfig::periods_of(whole, critical));
        };
        if !whole.is_zero() || !critical.is_zero() {
            bail!("shutdown-grace-period-by-pod-priority stands alone");
        }
        let name = "shutdown-grace-period-by-pod-priority";
        let entries = list
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty());
        entries
            .map(|text| {
                let (priority, period) = text
                    .split_once('=')
                    .with_context(|| format!("{name} {text:?}"))?;
                let priority = priority
                    .parse()
                    .with_context(|| format!("{name} {text:?}"))?;
                let seconds = i64::try_from(time(name, period)?.as_secs())?;
                Ok::<_, anyhow::Error>(ShutdownPeriod { priority, seconds })
            })
            .collect()
    }

    /// Whether every SIGTERM is the machine's end.
    pub(crate) fn ends_with_sigterm(&self) -> bool {
        self.shutdown_on_sigterm == Some(true)
    }

    fn soft(&self) -> Result<Vec<Threshold>> {
        let soft = self.eviction_soft.as_deref().unwrap_or_default();
        let graces = self.eviction_soft_grace_period.as_deref();
        let mut soft_thresholds = Vec::new();
        for text in soft
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
        {
            let signal = text.split('<').next().unwrap_or_default();
            let mut graces = graces.unwrap_or_default().split(',').map(str::trim);
            let grace = graces.find_map(|grace| grace.strip_prefix(signal)?.strip_prefix('='));
            let Some(grace) = grace else {
                bail!("grace period must be specified for the soft eviction threshold {signal}");
            };
            let grace: Duration = time("eviction-soft-grace-period", grace)?;
            for threshold in Threshold::parse_all(text).context("eviction-soft")? {
                soft_thresholds.push(Threshold { grace, ..threshold });
            }
        }
        Ok(soft_thresholds)
    }
}

#[cfg(test)]
mod tests {
    use kubelet::{Amount, Signal};

    use super::*;

    fn read(words: &[&str]) -> Result<EvictionConfig> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        NodeArgs::of_words(&words)?.eviction()
    }

    #[test]
    fn shutdown_is_set_as_upstream_sets_it() {
        let read = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let periods = NodeArgs::of_words(&words)?.shutdown_periods()?;
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
    fn places_are_set_as_upstream_sets_them() {
        let read = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            NodeArgs::of_words(&words)?.placement(Path::new("/data"))
        };
        let config = read(&[]).unwrap();
        assert_eq!(config.device_plugins, Path::new("/data/device-plugins"));
        assert_eq!(config.policy, TopologyPolicy::None);
        let config = read(&[
            "plugin-sockets-dir=/var/lib/kubelet",
            "topology-manager-policy=single-numa-node",
            "topology-manager-scope=pod",
        ])
        .unwrap();
        let socket = "/var/lib/kubelet/pod-resources/kubelet.sock";
        assert_eq!(config.pod_resources, Path::new(socket));
        assert_eq!(config.policy, TopologyPolicy::SingleNumaNode);
        assert_eq!(config.scope, TopologyScope::Pod);
        assert!(read(&["topology-manager-policy=best"]).is_err());
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
        assert_eq!(read(&["reserved-cpus=0,2"]).unwrap().cpus.reserved.len(), 2);
        for bad in [
            "reserved-cpus=x",
            "kube-reserved=cpu",
            "system-reserved=gpu=1",
        ] {
            assert!(read(&[bad]).is_err(), "{bad}");
        }
        assert!(read(&["cpu-manager-policy-options=align-by-socket=true"]).is_err());
        assert!(read(&["topology-manager-scope=node"]).is_err());
    }

    #[test]
    fn eviction_is_set_as_upstream_sets_it() {
        assert_eq!(read(&[]).unwrap(), EvictionConfig::default());
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
