//! Sets up, refreshes and takes down the volumes of pods.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use client::Client;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::fields::PodFacts;
use crate::ownership::Ownership;
use crate::payload::{MODE_DEFAULT, Payload, mode_or};
use crate::projected::Context;
use crate::sources::Sources;
use crate::subpath::Subpaths;
use crate::tokens::{TokenWish, Tokens};
use crate::{VolumeError, atomic, config_map, downward_api, empty_dir, host_path, mounts};
use crate::{projected, secret};

/// All volumes of this node. Cheap to clone.
#[derive(Clone)]
pub struct Volumes {
    pods_dir: PathBuf,
    sources: Sources,
    tokens: Arc<Tokens>,
}

/// A pod's volumes, ready to be mounted into containers.
#[derive(Clone, Debug, Default)]
pub struct Mounted {
    pub volumes: BTreeMap<String, MountedVolume>,
    /// When a token must be renewed.
    pub refresh_at: Option<Timestamp>,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountedVolume {
    /// Empty for an image.
    pub path: PathBuf,
    /// Containers may never write to it.
    pub read_only: bool,
}

impl Volumes {
    /// Volumes below `<root>/pods`.
    pub fn new(root: &Path, client: Client, sources: Sources) -> Volumes {
        Volumes {
            pods_dir: root.join("pods"),
            sources,
            tokens: Arc::new(Tokens::new(client)),
        }
    }

    /// A pod's folder.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.pods_dir.join(uid)
    }

    /// A token of the pod's service account for an audience, kept until it is soon to expire. The
    /// account must be the one with this uid.
    pub async fn account_token(
        &self,
        pod: &Pod,
        audience: &str,
        account_uid: &str,
    ) -> Result<String, VolumeError> {
        let wish = TokenWish::for_audience(pod, audience, account_uid);
        Ok(self.tokens.get(&wish).await?.text)
    }

    /// The place of bound subPaths of a pod.
    pub fn subpaths(&self, uid: &str) -> Subpaths {
        Subpaths::new(&self.pod_dir(uid))
    }

    /// Makes all volumes ready, or brings their content up to date; idempotent. Stops at the
    /// first that fails.
    pub async fn mount(&self, pod: &Pod, facts: &PodFacts) -> Result<Mounted, VolumeError> {
        let mut mounted = Mounted::default();
        let volumes = pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten());
        for volume in volumes {
            let made = self.mount_one(pod, facts, volume).await;
            let (ready, refresh_at) = made.map_err(|source| VolumeError::SetUp {
                volume: volume.name.clone(),
                source: Box::new(source),
            })?;
            mounted.volumes.insert(volume.name.clone(), ready);
            mounted.refresh_at = [mounted.refresh_at, refresh_at].into_iter().flatten().min();
        }
        Ok(mounted)
    }

    async fn mount_one(
        &self,
        pod: &Pod,
        facts: &PodFacts,
        volume: &Volume,
    ) -> Result<(MountedVolume, Option<Timestamp>), VolumeError> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let owner = ownership_of(pod);
        let place = |plugin: &str| {
            let folder = format!("kubernetes.io~{plugin}");
            self.pod_dir(uid)
                .join("volumes")
                .join(folder)
                .join(&volume.name)
        };
        if let Some(source) = &volume.host_path {
            let path = host_path::set_up(source)?;
            let read_only = false;
            return Ok((MountedVolume { path, read_only }, None));
        }
        if let Some(source) = volume.empty_dir.clone() {
            let path = place("empty-dir");
            let folder = path.clone();
            blocking(move || empty_dir::set_up(&folder, &source, owner)).await?;
            let read_only = false;
            return Ok((MountedVolume { path, read_only }, None));
        }
        if volume.image.is_some() {
            // Nothing to set up: the runtime mounts the image when a container is made.
            let (path, read_only) = (PathBuf::new(), true);
            return Ok((MountedVolume { path, read_only }, None));
        }
        let Some((plugin, in_memory, payload)) = self.content(pod, facts, volume).await? else {
            return Err(unsupported(volume));
        };
        let (path, refresh_at) = (place(plugin), payload.refresh_at);
        let folder = path.clone();
        let owner = Ownership {
            read_only: true,
            ..owner
        };
        blocking(move || write_content(&folder, in_memory, &payload, owner)).await?;
        let read_only = true;
        Ok((MountedVolume { path, read_only }, refresh_at))
    }

    /// Plugin, whether it must stay in memory, and files; `None` when it is no volume of content.
    async fn content(
        &self,
        pod: &Pod,
        facts: &PodFacts,
        volume: &Volume,
    ) -> Result<Option<(&'static str, bool, Payload)>, VolumeError> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        if let Some(source) = &volume.config_map {
            let payload = config_map::payload(&self.sources, namespace, source).await?;
            return Ok(Some(("configmap", false, payload)));
        }
        if let Some(source) = &volume.secret {
            let payload = secret::payload(&self.sources, namespace, source).await?;
            return Ok(Some(("secret", true, payload)));
        }
        if let Some(source) = &volume.downward_api {
            let mut payload = Payload::default();
            let mode = mode_or(source.default_mode, MODE_DEFAULT);
            let items = source.items.as_deref().unwrap_or_default();
            downward_api::project(pod, facts, items, mode, &mut payload)?;
            return Ok(Some(("downward-api", true, payload)));
        }
        if let Some(source) = &volume.projected {
            let context = Context {
                sources: &self.sources,
                tokens: &self.tokens,
                pod,
                facts,
            };
            let payload = projected::payload(&context, source).await?;
            return Ok(Some(("projected", true, payload)));
        }
        Ok(None)
    }

    /// Unmounts and removes everything of a pod; idempotent.
    pub async fn unmount(&self, uid: &str) -> Result<(), VolumeError> {
        self.tokens.forget(uid);
        let folder = self.pod_dir(uid);
        if uid.is_empty() || !folder.exists() {
            return Ok(());
        }
        blocking(move || remove_pod_dir(&folder)).await
    }

    /// The uids that have a folder on this node.
    pub fn known(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.pods_dir).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }
}

async fn blocking(
    work: impl FnOnce() -> Result<(), VolumeError> + Send + 'static,
) -> Result<(), VolumeError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|fault| Err(VolumeError::Refused(fault.to_string())))
}

fn write_content(
    folder: &Path,
    in_memory: bool,
    payload: &Payload,
    owner: Ownership,
) -> Result<(), VolumeError> {
    fs::create_dir_all(folder).map_err(VolumeError::io("create", folder))?;
    if in_memory && let Err(error) = mounts::tmpfs(folder, None) {
        // Without the right to mount, a plain folder of root's is the best there is.
        tracing::warn!(%error, folder = %folder.display(), "secret content is not kept in memory");
    }
    atomic::write(folder, payload, owner)?;
    Ok(())
}

fn remove_pod_dir(folder: &Path) -> Result<(), VolumeError> {
    mounts::unmount_below(folder)?;
    let left = mounts::below(folder)?;
    if let Some(mount) = left.first() {
        // Removing files now could reach into what is mounted.
        let message = format!("{} is still mounted", mount.display());
        return Err(VolumeError::Refused(message));
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(VolumeError::io("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

fn ownership_of(pod: &Pod) -> Ownership {
    let context = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref());
    let group = context.and_then(|context| context.fs_group);
    Ownership {
        fs_group: group.and_then(|group| u32::try_from(group).ok()),
        read_only: false,
    }
}

fn unsupported(volume: &Volume) -> VolumeError {
    let message = match &volume.persistent_volume_claim {
        Some(claim) => format!(
            "persistentvolumeclaim {:?} cannot be mounted: this node has no driver for persistent volumes",
            claim.claim_name
        ),
        None => "no volume plugin matched".to_owned(),
    };
    VolumeError::Refused(message)
}
