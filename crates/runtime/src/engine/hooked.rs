//! Containers with hooks: those that are run among the node's processes are run here.

use node_api::{ContainerState, RuntimeError};

use super::link::{Answered, Link};
use super::{Entry, blocking, internal};
use crate::hooks::{Moment, Plan};
use crate::protocol::{Call, Refusal};
use crate::spec::{ContainerSpec, file, read_json};

impl Entry {
    /// The container's hooks, if it has some. Reads a file then.
    pub(super) fn hooks(&self) -> Result<Option<Box<Plan>>, RuntimeError> {
        if !self.record.read().hooked {
            return Ok(None);
        }
        let spec: ContainerSpec = read_json(&self.folder.join(file::SPEC)).map_err(internal)?;
        Ok(spec.hooks)
    }

    /// Before the container's files go; one that was never started has nothing to be cleaned up.
    pub(super) async fn run_last_hooks(&self) -> Result<(), RuntimeError> {
        let id = self.record.read().id.clone();
        match self.hooks() {
            Ok(Some(hooks)) if self.state() == ContainerState::Exited => {
                after(hooks, Moment::Poststop, &id, 0).await
            }
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, container = id, "its last hooks are not known");
                Ok(())
            }
        }
    }
}

/// Runs what a container waits for in its creation, and has it go on, or end.
pub(super) async fn create(
    link: &Link,
    hooks: &Plan,
    id: &str,
    pid: i32,
) -> Result<Answered, Refusal> {
    let (hooks, container) = (hooks.clone(), id.to_owned());
    let run = move || {
        for moment in [Moment::Prestart, Moment::CreateRuntime] {
            hooks.run(moment, &container, pid).map_err(internal)?;
        }
        Ok(())
    };
    let fault = blocking(run).await.err().map(|fault| fault.to_string());
    let container = id.to_owned();
    link.call(Call::Proceed { container, fault }, Vec::new())
        .await
}

/// Runs hooks whose faults change nothing any more.
pub(super) async fn after(
    hooks: Box<Plan>,
    moment: Moment,
    id: &str,
    pid: i32,
) -> Result<(), RuntimeError> {
    let container = id.to_owned();
    let run = move || {
        for fault in hooks.faults(moment, &container, pid) {
            tracing::warn!(container, "{fault}");
        }
        Ok(())
    };
    blocking(run).await
}
