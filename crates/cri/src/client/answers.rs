//! What a runtime tells, in the words of `node-api`. Its state is what counts; of configurations it
//! tells what it must, the rest stays empty.

use node_api::{
    ContainerConfig, ContainerState, ContainerStats, ContainerStatus, ContainerUser,
    FilesystemUsage, Image, ImageMount, InterfaceStats, Mount, MountPropagation, PodSandboxConfig,
    PodSandboxStats, PodSandboxStatus, Pressure, SandboxState, TrafficStats, Waits,
};

use super::requests::{CGROUP_PARENT, HOSTNAME, LOG_DIRECTORY};
use crate::{convert, security, signals, wire};

/// The label by which kubelets mark whose a container is.
const POD_UID: &str = "io.kubernetes.pod.uid";

/// The pod that labels name; empty without one.
pub(super) fn pod_uid(labels: &wire::Map) -> String {
    labels.get(POD_UID).cloned().unwrap_or_default()
}

pub(super) fn sandbox(told: wire::PodSandboxStatus) -> PodSandboxStatus {
    let metadata = told.metadata.clone().unwrap_or_default();
    let state = match told.state() {
        wire::PodSandboxState::Ready => SandboxState::Ready,
        wire::PodSandboxState::NotReady => SandboxState::NotReady,
    };
    let options = told.linux.and_then(|linux| linux.namespaces);
    let options = options.and_then(|namespaces| namespaces.options);
    let mut annotations = told.annotations;
    let mut kept = |key| annotations.remove(key).unwrap_or_default();
    let (cgroup_parent, log_directory) = (kept(CGROUP_PARENT), kept(LOG_DIRECTORY));
    let hostname = kept(HOSTNAME);
    let network = told.network.unwrap_or_default();
    let more = network.additional_ips.iter().map(|more| more.ip.as_str());
    let ips = std::iter::once(network.ip.as_str()).chain(more);
    PodSandboxStatus {
        id: told.id,
        state,
        created_at: told.created_at,
        ips: ips.filter_map(|ip| ip.parse().ok()).collect(),
        config: PodSandboxConfig {
            name: metadata.name,
            uid: metadata.uid,
            namespace: metadata.namespace,
            attempt: metadata.attempt,
            cgroup_parent,
            log_directory: log_directory.into(),
            hostname,
            labels: told.labels,
            annotations,
            namespaces: security::namespaces(options).unwrap_or_default(),
            runtime_handler: told.runtime_handler,
            ..PodSandboxConfig::default()
        },
    }
}

fn state(state: wire::ContainerState) -> ContainerState {
    match state {
        wire::ContainerState::Created => ContainerState::Created,
        wire::ContainerState::Running => ContainerState::Running,
        wire::ContainerState::Exited => ContainerState::Exited,
        wire::ContainerState::Unknown => ContainerState::Unknown,
    }
}

/// `sandbox_id` comes from elsewhere: a status does not name it.
pub(super) fn container(told: wire::ContainerStatus, sandbox_id: String) -> ContainerStatus {
    let metadata = told.metadata.clone().unwrap_or_default();
    let state = state(told.state());
    let image = told.image.unwrap_or_default();
    let given = match image.user_specified_image.is_empty() {
        true => image.image.clone(),
        false => image.user_specified_image,
    };
    let resources = told.resources.and_then(|resources| resources.linux);
    let user = told.user.and_then(|user| user.linux);
    // Older runtimes know one of the two.
    let image_id = match told.image_ref.is_empty() {
        true => told.image_id,
        false => told.image_ref,
    };
    ContainerStatus {
        id: told.id,
        sandbox_id,
        state,
        created_at: told.created_at,
        started_at: told.started_at,
        finished_at: told.finished_at,
        exit_code: told.exit_code,
        image_id,
        reason: told.reason,
        message: told.message,
        log_path: told.log_path.into(),
        pid: 0,
        user: user.map(|user| ContainerUser {
            uid: user.uid,
            gid: user.gid,
            supplemental_groups: user.supplemental_groups,
        }),
        stop_signal: signals::of_cri(told.stop_signal),
        config: ContainerConfig {
            name: metadata.name,
            attempt: metadata.attempt,
            image: image.image,
            user_specified_image: given,
            mounts: told.mounts.into_iter().map(mount).collect(),
            labels: told.labels,
            annotations: told.annotations,
            resources: resources.map(convert::resources).unwrap_or_default(),
            ..ContainerConfig::default()
        },
    }
}

fn mount(told: wire::Mount) -> Mount {
    let propagation = match told.propagation() {
        wire::MountPropagation::Private => MountPropagation::Private,
        wire::MountPropagation::HostToContainer => MountPropagation::HostToContainer,
        wire::MountPropagation::Bidirectional => MountPropagation::Bidirectional,
    };
    Mount {
        container_path: told.container_path.into(),
        host_path: told.host_path.into(),
        readonly: told.readonly,
        recursive_read_only: told.recursive_read_only,
        propagation,
        mapped: !told.uid_mappings.is_empty(),
        image: told
            .image
            .filter(|image| !image.image.is_empty())
            .map(|image| ImageMount {
                image: image.image,
                user_specified_image: image.user_specified_image,
                sub_path: told.image_sub_path.into(),
            }),
        ..Mount::default()
    }
}

pub(super) fn image(told: wire::Image) -> Image {
    Image {
        id: told.id,
        repo_tags: told.repo_tags,
        repo_digests: told.repo_digests,
        size: told.size,
        uid: told.uid.map(|uid| uid.value),
        username: told.username,
        pinned: told.pinned,
    }
}

fn number(value: Option<wire::UInt64Value>) -> u64 {
    value.map_or(0, |value| value.value)
}

pub(super) fn file_system(told: wire::FilesystemUsage) -> FilesystemUsage {
    FilesystemUsage {
        mountpoint: told
            .fs_id
            .map(|id| id.mountpoint.into())
            .unwrap_or_default(),
        used_bytes: number(told.used_bytes),
        inodes_used: number(told.inodes_used),
    }
}

pub(super) fn stats(told: &wire::ContainerStats) -> ContainerStats {
    let about = told.attributes.clone().unwrap_or_default();
    let name = about.metadata.map(|metadata| metadata.name);
    let figures = figures(told.cpu.as_ref(), told.memory.as_ref());
    ContainerStats {
        id: about.id,
        name: name.unwrap_or_default(),
        pod_uid: pod_uid(&about.labels),
        swap_bytes: number(told.swap.as_ref().and_then(|swap| swap.swap_usage_bytes)),
        pressure: figures
            .pressure
            .into_iter()
            .chain(pressure(
                "io",
                told.io.as_ref().and_then(|io| io.psi.as_ref()),
            ))
            .collect(),
        ..figures
    }
}

fn figures(cpu: Option<&wire::CpuUsage>, memory: Option<&wire::MemoryUsage>) -> ContainerStats {
    let (cpu, memory) = (
        cpu.cloned().unwrap_or_default(),
        memory.cloned().unwrap_or_default(),
    );
    ContainerStats {
        timestamp: cpu.timestamp.max(memory.timestamp),
        cpu_usage_core_nanos: number(cpu.usage_core_nano_seconds),
        memory_usage_bytes: number(memory.usage_bytes),
        memory_working_set_bytes: number(memory.working_set_bytes),
        memory_rss_bytes: number(memory.rss_bytes),
        page_faults: number(memory.page_faults),
        major_page_faults: number(memory.major_page_faults),
        pressure: [("cpu", &cpu.psi), ("memory", &memory.psi)]
            .into_iter()
            .filter_map(|(resource, psi)| pressure(resource, psi.as_ref()))
            .collect(),
        ..ContainerStats::default()
    }
}

fn pressure(resource: &'static str, told: Option<&wire::PsiStats>) -> Option<Pressure> {
    let waits = |data: &Option<wire::PsiData>| {
        let data = data.clone().unwrap_or_default();
        let averages = [data.avg10, data.avg60, data.avg300];
        Waits {
            total_micros: data.total,
            // Of no more than 100 percent.
            averages: averages.map(|one| (one.clamp(0.0, 100.0) * 100.0).round() as u32),
        }
    };
    let told = told?;
    Some(Pressure {
        resource,
        some: waits(&told.some),
        full: waits(&told.full),
    })
}

pub(super) fn sandbox_stats(told: wire::PodSandboxStats) -> PodSandboxStats {
    let about = told.attributes.unwrap_or_default();
    let linux = told.linux.unwrap_or_default();
    let processes = linux.process.and_then(|process| process.process_count);
    let metadata = about.metadata.unwrap_or_default();
    let network = linux.network.unwrap_or_default();
    let interfaces = network
        .default_interface
        .into_iter()
        .chain(network.interfaces);
    PodSandboxStats {
        total: ContainerStats {
            id: about.id,
            name: metadata.name,
            pod_uid: metadata.uid,
            process_count: number(processes),
            ..figures(linux.cpu.as_ref(), linux.memory.as_ref())
        },
        interfaces: interfaces.map(interface).collect(),
    }
}

fn interface(told: wire::NetworkInterfaceUsage) -> InterfaceStats {
    let traffic = |bytes, errors| TrafficStats {
        bytes: number(bytes),
        errors: number(errors),
        ..TrafficStats::default()
    };
    InterfaceStats {
        name: told.name,
        receive: traffic(told.rx_bytes, told.rx_errors),
        transmit: traffic(told.tx_bytes, told.tx_errors),
    }
}
