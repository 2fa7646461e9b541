//! The cgroups of pods: a runtime by CRI makes those of containers below them, and leaves limits of a
//! pod as a whole to its kubelet.

use std::io;

use linux::cgroup::{Cgroup, Hierarchies, Limits};
use node_api::{CgroupDriver, LinuxResources, RuntimeError};

pub(super) struct Cgroups {
    pub(super) driver: CgroupDriver,
    own: Hierarchies,
    /// With those in which runtimes alone make groups.
    all: Hierarchies,
}

fn fault(error: impl std::fmt::Display) -> RuntimeError {
    RuntimeError::Internal(format!("cgroup of the pod: {error}"))
}

impl Cgroups {
    pub(super) fn new(driver: CgroupDriver) -> io::Result<Cgroups> {
        Ok(Cgroups {
            driver,
            own: Hierarchies::of_this_machine()?,
            all: Hierarchies::all_of_this_machine()?,
        })
    }

    /// Makes a pod's cgroup where there is none, and limits it.
    pub(super) async fn limit(
        &self,
        path: &str,
        resources: &LinuxResources,
    ) -> Result<(), RuntimeError> {
        let path = self.place(path)?;
        let group = self.own.group(&path).map_err(fault)?;
        let limits = limits(resources);
        blocking(move || {
            if systemd::is_unit(&path) {
                systemd::start_slice(&path, "sampan pod", &limits).map_err(io::Error::other)?;
            }
            group.create()?;
            for controller in group.limit(&limits)? {
                tracing::warn!(controller, "no such cgroup controller, pod limit not set");
            }
            Ok(())
        })
        .await
    }

    /// Removes a pod's cgroup, unless another sandbox of the pod still lives in it.
    pub(super) async fn remove(&self, path: &str) -> Result<(), RuntimeError> {
        let path = self.place(path)?;
        let group: Cgroup = self.all.group(&path).map_err(fault)?;
        blocking(move || {
            if systemd::is_unit(&path) {
                if group.processes_below().is_empty() {
                    systemd::stop(&path).map_err(io::Error::other)?;
                }
                // What it does not manage is left.
                return group.dissolve().map(drop);
            }
            group.dissolve().map(drop)
        })
        .await
    }

    /// Where a pod's cgroup is: a slice has its place by its name.
    fn place(&self, parent: &str) -> Result<String, RuntimeError> {
        match self.driver {
            CgroupDriver::Cgroupfs => Ok(parent.to_owned()),
            CgroupDriver::Systemd => {
                let slice = systemd::slice_name(parent).map_err(fault)?;
                systemd::expand(slice).map_err(fault)
            }
        }
    }
}

async fn blocking(
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<(), RuntimeError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(fault)?.map_err(fault)
}

fn limits(resources: &LinuxResources) -> Limits {
    Limits {
        cpu_period: resources.cpu_period,
        cpu_quota: resources.cpu_quota,
        cpu_shares: resources.cpu_shares,
        memory_bytes: resources.memory_limit_bytes,
        swap_bytes: resources.memory_swap_limit_bytes,
        pids: resources.pids_limit,
        huge_pages: resources.hugepage_limits.clone(),
        unified: resources.unified.clone(),
        ..Limits::default()
    }
}
