//! What a container consists of beyond its configuration, for those who adjust containers.

use node_api::{ContainerConfig, Mount, RuntimeError, SandboxState};

use super::translate::{self, Places};
use super::{Engine, Pod, blocking, fresh_id, internal};
use crate::hooks::Hooks;
use crate::spec::{ContainerSpec, DeviceNode, Rlimit, file, read_json};

/// A container as it is started.
#[derive(Clone, Debug, Default)]
pub struct Outline {
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Those of the node's files; what every container has is not among them.
    pub mounts: Vec<Mount>,
    pub devices: Vec<DeviceNode>,
    pub rlimits: Vec<Rlimit>,
    pub hooks: Hooks,
    /// Its cgroup, below the root of each hierarchy.
    pub cgroup: String,
    pub oom_score_adj: i64,
    /// Numbers that were asked for.
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    pub groups: Vec<i64>,
}

impl Outline {
    fn of(spec: ContainerSpec, hooks: Hooks) -> Outline {
        let mut devices: Vec<_> = spec.devices.iter().filter_map(DeviceNode::of).collect();
        devices.extend(spec.device_nodes);
        Outline {
            args: spec.args,
            env: spec.env,
            mounts: spec.mounts,
            devices,
            rlimits: spec.rlimits,
            hooks,
            cgroup: spec.cgroup,
            oom_score_adj: spec.oom_score_adj,
            uid: spec.user.uid,
            gid: spec.user.gid,
            groups: spec.user.supplemental,
        }
    }
}

impl Engine {
    /// What a container would be, and the id it is going to have by [`super::Extras::id`]. Nothing
    /// is made.
    pub async fn draft_container(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
    ) -> Result<(String, Outline), RuntimeError> {
        let pod = self.pod(sandbox_id)?;
        if *pod.state.lock() != SandboxState::Ready {
            let message = format!("sandbox {sandbox_id} is not ready");
            return Err(RuntimeError::FailedPrecondition(message));
        }
        let (id, mut config, store) = (fresh_id(), config.clone(), self.store.clone());
        blocking(move || {
            let hooks = match config.cdi_devices.is_empty() {
                true => Hooks::default(),
                false => super::cdi::inject(&mut config)?,
            };
            let image = (store.get(&config.image)).map_err(super::images::explain)?;
            let places = Places {
                layers: store.layers_folder(),
                skeleton: None,
                writable: Default::default(),
                log: None,
                images: Vec::new(),
            };
            let spec = translate::container(&id, &config, &pod, &image, places)?;
            Ok((id, Outline::of(spec, hooks)))
        })
        .await
    }

    /// The same of one that is there.
    pub async fn container_outline(&self, id: &str) -> Result<Outline, RuntimeError> {
        let path = self.entry(id)?.folder.join(file::SPEC);
        blocking(move || {
            let mut spec: ContainerSpec = read_json(&path).map_err(internal)?;
            let hooks = spec.hooks.take().map(|plan| plan.hooks);
            Ok(Outline::of(spec, hooks.unwrap_or_default()))
        })
        .await
    }

    /// A process in a sandbox's namespaces; 0 where there is none.
    pub fn sandbox_pid(&self, id: &str) -> i32 {
        self.pod(id).map_or(0, |pod| pod.pid())
    }

    /// Whether a sandbox was stopped by request.
    pub fn is_stopped(&self, id: &str) -> bool {
        (self.pod(id)).is_ok_and(|pod| pod.folder.join(file::STOPPED).exists())
    }
}

impl Pod {
    pub(super) fn pid(&self) -> i32 {
        let text = std::fs::read_to_string(self.folder.join(file::PID)).unwrap_or_default();
        match self.link.lock().is_some() {
            true => text.trim().parse().unwrap_or_default(),
            false => 0,
        }
    }
}
