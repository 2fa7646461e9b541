//! Somebody else's container runtime, by CRI: what `node-api` asks for, asked over its socket.
//!
//! ```text
//!   kubelet ► node-api ► service, images ► answers  ► link ──gRPC──► runtime
//!                        events (a stream, or lists)
//!                        cgroups: a pod's own limits, which are the kubelet's to set
//! ```

mod answers;
mod cgroups;
mod events;
mod images;
mod link;
mod requests;
mod service;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, Crew};
use node_api::{CgroupDriver, ContainerStatus, Listeners, PodSandboxStatus, RuntimeError};
use parking_lot::Mutex;

use crate::wire;
use cgroups::Cgroups;
use link::{Link, method};

/// How long a runtime may take to answer for the first time.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// Where a runtime listens.
#[derive(Clone, Debug)]
pub struct Endpoints {
    pub runtime: PathBuf,
    /// Where images are another server's.
    pub images: Option<PathBuf>,
    /// What to take for its driver where it does not say.
    pub cgroup_driver: CgroupDriver,
}

/// Why a runtime is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("container runtime at {0} does not answer: {1}")]
    Silent(PathBuf, RuntimeError),
    #[error("cgroups")]
    Cgroups(#[source] std::io::Error),
}

/// A runtime on the other end of a socket.
pub struct Remote {
    link: Link,
    images: Link,
    name: String,
    version: String,
    listeners: Listeners,
    cgroups: Cgroups,
    /// What does not change as long as the state is the same: lists name no more than states.
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    sandboxes: HashMap<String, (i32, PodSandboxStatus)>,
    containers: HashMap<String, (i32, ContainerStatus)>,
}

impl Remote {
    /// Waits until the runtime answers, and follows what happens in it.
    pub async fn connect(endpoints: Endpoints, crew: &Crew) -> Result<Arc<Remote>, ConnectError> {
        let place = endpoints.runtime.clone();
        let link = Link::new(endpoints.runtime);
        let images = endpoints.images.map(Link::new);
        let version = answered(&link)
            .await
            .map_err(|error| ConnectError::Silent(place.clone(), error))?;
        // Runtimes before this method make their cgroups themselves unless told otherwise.
        let config = link.call::<_, wire::RuntimeConfigResponse>(method!("RuntimeConfig"), ());
        let linux = config.await.ok().and_then(|config| config.linux);
        let by_systemd =
            linux.is_some_and(|linux| linux.cgroup_driver() == wire::CgroupDriver::Systemd);
        let driver = match by_systemd {
            true => CgroupDriver::Systemd,
            false => endpoints.cgroup_driver,
        };
        let remote = Arc::new(Remote {
            images: images.unwrap_or_else(|| link.clone()),
            link,
            name: version.runtime_name,
            version: version.runtime_version,
            listeners: Listeners::default(),
            cgroups: Cgroups::new(driver).map_err(ConnectError::Cgroups)?,
            known: Mutex::default(),
        });
        let (following, stop) = (events::follow(Arc::clone(&remote)), crew.stop());
        crew.spawn("runtime's events", async move {
            tokio::select! {
                () = following => {}
                () = stop.raised() => {}
            }
        });
        let (name, version) = (&remote.name, &remote.version);
        tracing::info!(socket = %place.display(), name, version, "using a container runtime by CRI");
        Ok(remote)
    }
}

/// What the runtime is, as soon as it is there.
async fn answered(link: &Link) -> Result<wire::VersionResponse, RuntimeError> {
    let deadline = tokio::time::Instant::now() + START_TIMEOUT;
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    loop {
        // The version of the kubelet's side, the same since its beginning.
        let request = wire::Identifier {
            id: "0.1.0".to_owned(),
        };
        match link.call(method!("Version"), request).await {
            Err(error) if tokio::time::Instant::now() < deadline => {
                tracing::debug!(%error, "container runtime does not answer yet");
                tokio::time::sleep(backoff.next_delay()).await;
            }
            answer => return answer,
        }
    }
}
