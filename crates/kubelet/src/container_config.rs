//! What the runtime is told of a container.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use node_api::{ContainerConfig, Image, ImageMount, Mount, MountPropagation};
use volumes::{Mounted, Volumes};

use crate::config::Config;
use crate::env::expand;
use crate::pod::PodExt;
use crate::{labels, names, resources, security};

/// Where a container leaves its last words when it names no other file.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// All that goes into a container's configuration.
pub(crate) struct ContainerInputs<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) attempt: u32,
    pub(crate) round: u32,
    pub(crate) image: &'a Image,
    pub(crate) envs: Vec<(String, String)>,
    pub(crate) mounted: &'a Mounted,
    /// Images by the volumes they are.
    pub(crate) images: &'a BTreeMap<String, Image>,
    pub(crate) volumes: &'a Volumes,
    pub(crate) pod_ips: &'a [IpAddr],
    pub(crate) config: &'a Config,
    pub(crate) memory_capacity: i64,
}

/// Builds the configuration and prepares the files it mounts. The error is what
/// `CreateContainerConfigError` shows.
pub(crate) fn container_config(inputs: ContainerInputs<'_>) -> Result<ContainerConfig, String> {
    let (pod, container) = (inputs.pod, inputs.container);
    let known: BTreeMap<String, String> = inputs.envs.iter().cloned().collect();
    let expand_all = |words: &Option<Vec<String>>| -> Vec<String> {
        words
            .iter()
            .flatten()
            .map(|word| expand(word, &known))
            .collect()
    };
    let security = security::context(pod, container, inputs.image, inputs.config)?;
    let log_path = PathBuf::from(&container.name).join(format!("{}.log", inputs.attempt));
    let log_folder = inputs
        .config
        .log_dir
        .join(pod.log_folder())
        .join(&container.name);
    fs::create_dir_all(&log_folder).map_err(|e| format!("create log folder: {e}"))?;
    let stop_signal = container
        .lifecycle
        .as_ref()
        .and_then(|l| l.stop_signal.clone());
    Ok(ContainerConfig {
        name: container.name.clone(),
        attempt: inputs.attempt,
        image: inputs.image.id.clone(),
        user_specified_image: container.image.clone().unwrap_or_default(),
        command: expand_all(&container.command),
        args: expand_all(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts: mounts(&inputs, &known)?,
        devices: Vec::new(),
        cdi_devices: Vec::new(),
        labels: labels::of_container(pod, container),
        annotations: labels::annotations(pod, container, inputs.attempt, inputs.round),
        log_path,
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        resources: resources::of_container(pod, container, inputs.config, inputs.memory_capacity),
        security,
        stop_signal,
        envs: inputs.envs,
    })
}

fn mounts(
    inputs: &ContainerInputs<'_>,
    known: &BTreeMap<String, String>,
) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for (index, wish) in inputs.container.volume_mounts.iter().flatten().enumerate() {
        mounts.push(volume_mount(inputs, known, wish, index)?);
    }
    let taken = |path: &str| {
        mounts
            .iter()
            .any(|mount: &Mount| mount.container_path == Path::new(path))
    };
    let folder = inputs.volumes.pod_dir(inputs.pod.uid());
    let mut extra = Vec::new();
    if !taken("/etc/hosts") {
        let path = folder.join("etc-hosts");
        let text = names::hosts_file(inputs.pod, inputs.config, inputs.pod_ips);
        write_file(&path, text.as_bytes(), 0o644)?;
        extra.push(plain(path, "/etc/hosts"));
    }
    let target = inputs.container.termination_message_path.as_deref();
    let target = target
        .filter(|path| !path.is_empty())
        .unwrap_or(TERMINATION_LOG);
    let name = format!("{}-{}", inputs.attempt, uuid_like());
    let path = folder
        .join("containers")
        .join(&inputs.container.name)
        .join(name);
    write_file(&path, b"", 0o666)?;
    extra.push(plain(path, target));
    mounts.append(&mut extra);
    if inputs.pod.has_user_namespace() {
        for mount in mounts.iter_mut().filter(|mount| mount.image.is_none()) {
            mount.mapped = true;
        }
    }
    Ok(mounts)
}

fn plain(host_path: PathBuf, container_path: &str) -> Mount {
    Mount {
        host_path,
        container_path: PathBuf::from(container_path),
        ..Mount::default()
    }
}

fn uuid_like() -> String {
    format!("{:08x}", rand::random::<u32>())
}

fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
    let fault = |error: std::io::Error| format!("write {}: {error}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(fault)?;
    }
    // Written in place: running containers have this very file mounted.
    fs::write(path, bytes).map_err(fault)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(fault)
}

fn volume_mount(
    inputs: &ContainerInputs<'_>,
    known: &BTreeMap<String, String>,
    wish: &VolumeMount,
    index: usize,
) -> Result<Mount, String> {
    let container = &inputs.container.name;
    let volume = inputs.mounted.volumes.get(&wish.name).ok_or_else(|| {
        format!(
            "cannot find volume {:?} to mount into container {container:?}",
            wish.name
        )
    })?;
    let subpath = match wish
        .sub_path_expr
        .as_deref()
        .filter(|expr| !expr.is_empty())
    {
        Some(expr) => expand_strictly(expr, known)?,
        None => wish.sub_path.clone().unwrap_or_default(),
    };
    if let Some(image) = inputs.images.get(&wish.name) {
        return Ok(image_mount(inputs.pod, wish, image, &subpath));
    }
    let host_path =
        match subpath.as_str() {
            "" => volume.path.clone(),
            subpath => {
                let subpaths = inputs.volumes.subpaths(inputs.pod.uid());
                let slot = (wish.name.as_str(), container.as_str(), index);
                subpaths.bind(&volume.path, subpath, slot).map_err(|error| {
                tracing::debug!(%error, subpath, "subPath not bound");
                format!(
                    "failed to prepare subPath for volumeMount {:?} of container {container:?}",
                    wish.name
                )
            })?
            }
        };
    let read_only = wish.read_only == Some(true) || volume.read_only;
    let recursive = matches!(
        wish.recursive_read_only.as_deref(),
        Some("Enabled" | "IfPossible")
    );
    Ok(Mount {
        container_path: absolute(&wish.mount_path),
        host_path,
        readonly: read_only,
        recursive_read_only: read_only && recursive,
        propagation: match wish.mount_propagation.as_deref() {
            Some("HostToContainer") => MountPropagation::HostToContainer,
            Some("Bidirectional") => MountPropagation::Bidirectional,
            _ => MountPropagation::Private,
        },
        ..Mount::default()
    })
}

/// An image as a volume; it is never written to.
fn image_mount(pod: &Pod, wish: &VolumeMount, image: &Image, subpath: &str) -> Mount {
    let source = pod.image_volume(&wish.name);
    Mount {
        container_path: absolute(&wish.mount_path),
        readonly: true,
        image: Some(ImageMount {
            image: image.id.clone(),
            user_specified_image: source
                .and_then(|source| source.reference.clone())
                .unwrap_or_default(),
            sub_path: PathBuf::from(subpath),
        }),
        ..Mount::default()
    }
}

fn absolute(path: &str) -> PathBuf {
    Path::new("/").join(path)
}

/// Like [`expand`], but a name that is not known is an error.
fn expand_strictly(text: &str, known: &BTreeMap<String, String>) -> Result<String, String> {
    let expanded = expand(text, known);
    match expanded.contains("$(") {
        true => Err(format!("missing value for {text:?}")),
        false => Ok(expanded),
    }
}
