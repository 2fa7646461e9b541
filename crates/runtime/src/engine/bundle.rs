//! What hooks read of a container beyond the state they are told: `config.json` of an OCI bundle,
//! with as much as is known before the container is made.

use std::path::Path;

use node_api::{Device, Mount, NamespaceMode, NamespaceOptions, PodSandboxConfig, RuntimeError};
use serde_json::{Value, json};

use super::{ContainerRecord, Pod, internal, translate};
use crate::hooks::{Hooks, OCI_VERSION, Plan};
use crate::spec::{ContainerSpec, DeviceNode, PidScope, file, write_json};

/// Gives the container its hooks, and writes what they read.
pub(super) fn write(
    spec: &mut ContainerSpec,
    hooks: Hooks,
    folder: &Path,
    pod: &Pod,
    record: &ContainerRecord,
) -> Result<(), RuntimeError> {
    let plan = Plan {
        hooks,
        bundle: folder.to_owned(),
        annotations: record.config.annotations.clone(),
    };
    let config = config(spec, &plan, &pod.record.config);
    write_json(&folder.join(file::BUNDLE), &config).map_err(internal)?;
    spec.hooks = Some(Box::new(plan));
    Ok(())
}

fn config(spec: &ContainerSpec, plan: &Plan, pod: &PodSandboxConfig) -> Value {
    json!({
        "ociVersion": OCI_VERSION,
        "root": {"path": spec.writable, "readonly": spec.readonly_rootfs},
        "hostname": translate::hostname(pod),
        "process": process(spec),
        "mounts": spec.mounts.iter().map(mount).collect::<Vec<_>>(),
        "hooks": plan.hooks,
        "annotations": plan.annotations,
        "linux": {
            "cgroupsPath": spec.cgroup,
            "namespaces": namespaces(spec, &pod.namespaces),
            "devices": (spec.devices.iter().filter_map(device))
                .chain(spec.device_nodes.iter().map(node_json))
                .collect::<Vec<_>>(),
            "timeOffsets": spec.time,
            "maskedPaths": spec.masked_paths,
            "readonlyPaths": spec.readonly_paths,
        },
    })
}

fn process(spec: &ContainerSpec) -> Value {
    let kept = spec.capabilities.names();
    let cwd = match spec.cwd.as_str() {
        "" => "/",
        cwd => cwd,
    };
    json!({
        "terminal": spec.tty,
        "user": {
            "uid": spec.user.uid.unwrap_or_default(),
            "gid": spec.user.gid.unwrap_or_default(),
            "additionalGids": spec.user.supplemental,
        },
        "args": spec.args,
        "env": spec.env,
        "cwd": cwd,
        "capabilities": {
            "bounding": kept,
            "effective": kept,
            "permitted": kept,
            "ambient": spec.ambient.names(),
        },
        "noNewPrivileges": spec.no_new_privs,
        "oomScoreAdj": spec.oom_score_adj,
    })
}

fn mount(mount: &Mount) -> Value {
    let access = if mount.readonly { "ro" } else { "rw" };
    json!({
        "destination": mount.container_path,
        "type": "bind",
        "source": mount.host_path.join(&mount.sub_path),
        "options": ["rbind", access],
    })
}

/// Those that are not the node's.
fn namespaces(spec: &ContainerSpec, pod: &NamespaceOptions) -> Vec<Value> {
    let of_pod = |mode: &NamespaceMode| *mode != NamespaceMode::Node;
    let kinds = [
        ("mount", true),
        ("cgroup", true),
        ("pid", spec.pids != PidScope::Node),
        ("network", of_pod(&pod.network)),
        ("uts", of_pod(&pod.network)),
        ("ipc", of_pod(&pod.ipc)),
        ("user", spec.user_namespace.is_some()),
        ("time", spec.time.is_some()),
    ];
    let made = kinds.into_iter().filter(|(_, made)| *made);
    made.map(|(kind, _)| json!({"type": kind})).collect()
}

/// One that is not there fails the start, which says so.
fn device(device: &Device) -> Option<Value> {
    DeviceNode::of(device).map(|node| node_json(&node))
}

fn node_json(node: &DeviceNode) -> Value {
    json!({
        "path": node.path,
        "type": node.kind,
        "major": node.major,
        "minor": node.minor,
        "fileMode": node.mode,
        "uid": node.uid,
        "gid": node.gid,
    })
}
