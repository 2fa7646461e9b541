//! Which cgroups a sandbox has, by the driver in use; and pods' slices, which systemd makes with the
//! first sandbox of a pod and removes with the last.

use std::collections::{BTreeMap, BTreeSet};

use linux::cgroup::Cgroup;
use node_api::{CgroupDriver, LinuxResources, PodSandboxConfig, RuntimeError};

use super::{Engine, Pod, blocking, internal, translate};
use crate::units;

/// Slices that are ours, and the sandboxes in them.
pub(super) type Slices = tokio::sync::Mutex<BTreeMap<String, BTreeSet<String>>>;

/// Where systemd's own root lies in the hierarchies.
pub(super) fn root() -> Result<String, super::OpenError> {
    let host = |why: String| super::OpenError::Host(why);
    if !systemd::is_running() {
        let why = "systemd not running on this host, cannot use systemd cgroups manager";
        return Err(host(why.to_owned()));
    }
    systemd::prefix().map_err(|error| host(format!("systemd: {error}")))
}

impl Engine {
    pub(super) fn by_systemd(&self) -> bool {
        self.config.cgroup_driver == CgroupDriver::Systemd
    }

    /// The pod's cgroup; the sandbox's own lies in it, for a pod may have an old sandbox that ends
    /// while the new one lives.
    fn pod_cgroup(&self, config: &PodSandboxConfig) -> Result<String, RuntimeError> {
        if self.by_systemd() {
            let parent = match config.cgroup_parent.as_str() {
                "" => units::USUAL_SLICE,
                parent => systemd::slice_name(parent).map_err(refused)?,
            };
            let path = systemd::expand(parent).map_err(refused)?;
            return Ok(format!("{}{path}", self.systemd_root));
        }
        let parent = config.cgroup_parent.trim_matches('/');
        let root = self.config.cgroup_root.trim_matches('/');
        Ok(match parent {
            "" => format!("/{root}"),
            _ if self.config.foreign_cgroup_parents => format!("/{parent}"),
            _ => format!("/{root}/{parent}"),
        })
    }

    /// The sandbox's own cgroup.
    pub(super) fn sandbox_cgroup(
        &self,
        config: &PodSandboxConfig,
        id: &str,
    ) -> Result<String, RuntimeError> {
        let whole = self.pod_cgroup(config)?;
        Ok(match self.by_systemd() {
            true => units::sandbox(&whole, id),
            false => format!("{whole}/{id}"),
        })
    }

    /// The pod's, where it is ours alone: to be limited, and removed with its last sandbox.
    pub(super) fn own_pod_cgroup(
        &self,
        config: &PodSandboxConfig,
    ) -> Result<Option<(String, Cgroup)>, RuntimeError> {
        if config.cgroup_parent.is_empty() || self.config.foreign_cgroup_parents {
            return Ok(None);
        }
        let path = self.pod_cgroup(config)?;
        let group = self.group(&path)?;
        Ok(Some((path, group)))
    }

    /// All cgroups of a sandbox that lie not below each other.
    pub(super) fn groups_of(&self, pod: &Pod) -> Result<Vec<(String, Cgroup)>, RuntimeError> {
        let own = pod.record.cgroup.clone();
        let mut paths = Vec::new();
        if systemd::is_unit(&own) {
            let containers = self.containers_of(&pod.record.id);
            paths.extend(containers.iter().map(|c| c.record.read().cgroup.clone()));
        }
        paths.push(own);
        let group = |path: String| Ok((path.clone(), self.group(&path)?));
        paths.into_iter().map(group).collect()
    }

    /// Has systemd make the pod's slice, if it is ours to make.
    pub(super) async fn enter_slice(&self, pod: &Pod) -> Result<(), RuntimeError> {
        if !systemd::is_unit(&pod.record.cgroup) {
            return Ok(());
        }
        let config = &pod.record.config;
        let Some((path, group)) = self.own_pod_cgroup(config)? else {
            return Ok(());
        };
        let limits = translate::limits(&config.resources.clone().unwrap_or_default());
        let mut slices = self.slices.lock().await;
        let users = slices.entry(path.clone()).or_default();
        users.insert(pod.record.id.clone());
        blocking(move || units::start_slice(&path, &group, &limits).map_err(internal)).await
    }

    /// The same, for a sandbox that is there already.
    pub(super) async fn found_in_slice(&self, pod: &Pod) {
        if systemd::is_unit(&pod.record.cgroup)
            && let Ok(Some((path, _))) = self.own_pod_cgroup(&pod.record.config)
        {
            let mut slices = self.slices.lock().await;
            let users = slices.entry(path).or_default();
            users.insert(pod.record.id.clone());
        }
    }

    /// Has systemd remove the pod's slice with its last sandbox.
    pub(super) async fn leave_slice(&self, pod: &Pod) -> Result<(), RuntimeError> {
        if !systemd::is_unit(&pod.record.cgroup) {
            return Ok(());
        }
        let Some((path, group)) = self.own_pod_cgroup(&pod.record.config)? else {
            return Ok(());
        };
        let mut slices = self.slices.lock().await;
        if let Some(users) = slices.get_mut(&path) {
            users.remove(&pod.record.id);
            if !users.is_empty() {
                return Ok(());
            }
        }
        let stopped = path.clone();
        blocking(move || units::remove(&stopped, &group).map_err(internal)).await?;
        slices.remove(&path);
        Ok(())
    }
}

/// Limits a pod as a whole.
pub(super) fn limit_pod(
    path: &str,
    whole: &Cgroup,
    resources: &LinuxResources,
) -> Result<(), RuntimeError> {
    let limits = translate::limits(resources);
    for controller in units::limit(path, whole, &limits).map_err(internal)? {
        tracing::warn!(controller, "no such cgroup controller, pod limit not set");
    }
    Ok(())
}

fn refused(error: systemd::NameError) -> RuntimeError {
    RuntimeError::InvalidArgument(format!(
        "cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\": {error}"
    ))
}
