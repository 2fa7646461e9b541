//! The cgroups of pods: a runtime by CRI makes those of containers below them, and leaves limits of a
//! pod as a whole to its kubelet.

use std::io;

use linux::cgroup::{Cgroup, Hierarchies, Limits};
use node_api::{LinuxResources, RuntimeError};

pub(super) struct Cgroups {
    own: Hierarchies,
    /// With those in which runtimes alone make groups.
    all: Hierarchies,
}

fn fault(error: impl std::fmt::Display) -> RuntimeError {
    RuntimeError::Internal(format!("cgroup of the pod: {error}"))
}

impl Cgroups {
    pub(super) fn of_this_machine() -> io::Result<Cgroups> {
        Ok(Cgroups {
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
        let group = self.own.group(path).map_err(fault)?;
        let limits = limits(resources);
        blocking(move || {
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
        let group: Cgroup = self.all.group(path).map_err(fault)?;
        blocking(move || group.dissolve().map(drop)).await
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
        pids: resources.pids_limit,
        huge_pages: resources.hugepage_limits.clone(),
        unified: resources.unified.clone(),
        ..Limits::default()
    }
}
