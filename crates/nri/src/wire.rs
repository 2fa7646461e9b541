//! Messages of NRI `v1alpha1` and of ttrpc below it, with the numbers of their own definitions. What
//! we neither tell nor heed is left out; what we refuse is kept as the bytes it came in.

use std::collections::BTreeMap;

type Map = BTreeMap<String, String>;

/// What plugins are told of; a plugin's wishes are bits, the first event's the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    RunPodSandbox = 1,
    StopPodSandbox = 2,
    RemovePodSandbox = 3,
    CreateContainer = 4,
    PostCreateContainer = 5,
    StartContainer = 6,
    PostStartContainer = 7,
    UpdateContainer = 8,
    PostUpdateContainer = 9,
    StopContainer = 10,
    RemoveContainer = 11,
    UpdatePodSandbox = 12,
    PostUpdatePodSandbox = 13,
    ValidateContainerAdjustment = 14,
}

impl Event {
    /// All there are.
    pub(crate) const ALL: i32 = (1 << 14) - 1;

    /// Its place in a plugin's wishes.
    pub(crate) fn bit(self) -> i32 {
        1 << (self as i32 - 1)
    }
}

/// What of a container can be adjusted, for those who are told who did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Annotations = 1,
    Mounts = 2,
    OciHooks = 3,
    Devices = 4,
    CdiDevices = 5,
    Env = 6,
    Args = 7,
    MemLimit = 8,
    MemReservation = 9,
    MemSwapLimit = 10,
    MemSwappiness = 13,
    MemDisableOomKiller = 14,
    CpuShares = 16,
    CpuQuota = 17,
    CpuPeriod = 18,
    CpuRealtimeRuntime = 19,
    CpuRealtimePeriod = 20,
    CpuSetCpus = 21,
    CpuSetMems = 22,
    PidsLimit = 23,
    HugepageLimits = 24,
    CgroupsUnified = 27,
    OomScoreAdj = 29,
    Rlimits = 30,
}

/// A container's `state`.
pub(crate) mod state {
    pub(crate) const UNKNOWN: i32 = 0;
    pub(crate) const CREATED: i32 = 1;
    pub(crate) const RUNNING: i32 = 3;
    pub(crate) const STOPPED: i32 = 4;
}

/// ttrpc: a call.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Request {
    #[prost(string, tag = "1")]
    pub(crate) service: String,
    #[prost(string, tag = "2")]
    pub(crate) method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    pub(crate) timeout_nano: i64,
}

/// ttrpc: its answer.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Response {
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) payload: Vec<u8>,
}

/// ttrpc: what went wrong, by the codes of gRPC.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RegisterPluginRequest {
    #[prost(string, tag = "1")]
    pub(crate) plugin_name: String,
    #[prost(string, tag = "2")]
    pub(crate) plugin_idx: String,
    #[prost(string, tag = "3")]
    pub(crate) nri_version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct UpdateContainersRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) update: Vec<ContainerUpdate>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) evict: Vec<ContainerEviction>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct UpdateContainersResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) failed: Vec<ContainerUpdate>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ConfigureRequest {
    #[prost(string, tag = "1")]
    pub(crate) config: String,
    #[prost(string, tag = "2")]
    pub(crate) runtime_name: String,
    #[prost(string, tag = "3")]
    pub(crate) runtime_version: String,
    /// Milliseconds.
    #[prost(int64, tag = "4")]
    pub(crate) registration_timeout: i64,
    #[prost(int64, tag = "5")]
    pub(crate) request_timeout: i64,
    #[prost(string, tag = "6")]
    pub(crate) nri_version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ConfigureResponse {
    /// A bit each; none is all.
    #[prost(int32, tag = "2")]
    pub(crate) events: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SynchronizeRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) pods: Vec<PodSandbox>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) containers: Vec<Container>,
    #[prost(bool, tag = "3")]
    pub(crate) more: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SynchronizeResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) update: Vec<ContainerUpdate>,
    #[prost(bool, tag = "2")]
    pub(crate) more: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct UpdatePodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) pod: Option<PodSandbox>,
    #[prost(message, optional, tag = "2")]
    pub(crate) overhead: Option<LinuxResources>,
    #[prost(message, optional, tag = "3")]
    pub(crate) resources: Option<LinuxResources>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CreateContainerRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) pod: Option<PodSandbox>,
    #[prost(message, optional, tag = "2")]
    pub(crate) container: Option<Container>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CreateContainerResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) adjust: Option<ContainerAdjustment>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) update: Vec<ContainerUpdate>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) evict: Vec<ContainerEviction>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct UpdateContainerRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) pod: Option<PodSandbox>,
    #[prost(message, optional, tag = "2")]
    pub(crate) container: Option<Container>,
    #[prost(message, optional, tag = "3")]
    pub(crate) resources: Option<LinuxResources>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct UpdateContainerResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) update: Vec<ContainerUpdate>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) evict: Vec<ContainerEviction>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StopContainerRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) pod: Option<PodSandbox>,
    #[prost(message, optional, tag = "2")]
    pub(crate) container: Option<Container>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StopContainerResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) update: Vec<ContainerUpdate>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StateChangeEvent {
    #[prost(int32, tag = "1")]
    pub(crate) event: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) pod: Option<PodSandbox>,
    #[prost(message, optional, tag = "3")]
    pub(crate) container: Option<Container>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ValidateContainerAdjustmentRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) pod: Option<PodSandbox>,
    /// Before it was adjusted.
    #[prost(message, optional, tag = "2")]
    pub(crate) container: Option<Container>,
    #[prost(message, optional, tag = "3")]
    pub(crate) adjust: Option<ContainerAdjustment>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) update: Vec<ContainerUpdate>,
    #[prost(message, optional, tag = "5")]
    pub(crate) owners: Option<OwningPlugins>,
    #[prost(message, repeated, tag = "6")]
    pub(crate) plugins: Vec<PluginInstance>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PluginInstance {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) index: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ValidateContainerAdjustmentResponse {
    #[prost(bool, tag = "1")]
    pub(crate) reject: bool,
    #[prost(string, tag = "2")]
    pub(crate) reason: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PodSandbox {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) uid: String,
    #[prost(string, tag = "4")]
    pub(crate) namespace: String,
    #[prost(btree_map = "string, string", tag = "5")]
    pub(crate) labels: Map,
    #[prost(btree_map = "string, string", tag = "6")]
    pub(crate) annotations: Map,
    #[prost(string, tag = "7")]
    pub(crate) runtime_handler: String,
    #[prost(message, optional, tag = "8")]
    pub(crate) linux: Option<LinuxPodSandbox>,
    #[prost(uint32, tag = "9")]
    pub(crate) pid: u32,
    #[prost(string, repeated, tag = "10")]
    pub(crate) ips: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LinuxPodSandbox {
    #[prost(message, optional, tag = "2")]
    pub(crate) pod_resources: Option<LinuxResources>,
    #[prost(string, tag = "3")]
    pub(crate) cgroup_parent: String,
    #[prost(string, tag = "4")]
    pub(crate) cgroups_path: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) namespaces: Vec<LinuxNamespace>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Container {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) pod_sandbox_id: String,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(int32, tag = "4")]
    pub(crate) state: i32,
    #[prost(btree_map = "string, string", tag = "5")]
    pub(crate) labels: Map,
    #[prost(btree_map = "string, string", tag = "6")]
    pub(crate) annotations: Map,
    #[prost(string, repeated, tag = "7")]
    pub(crate) args: Vec<String>,
    #[prost(string, repeated, tag = "8")]
    pub(crate) env: Vec<String>,
    #[prost(message, repeated, tag = "9")]
    pub(crate) mounts: Vec<Mount>,
    #[prost(message, optional, tag = "10")]
    pub(crate) hooks: Option<Hooks>,
    #[prost(message, optional, tag = "11")]
    pub(crate) linux: Option<LinuxContainer>,
    #[prost(uint32, tag = "12")]
    pub(crate) pid: u32,
    #[prost(message, repeated, tag = "13")]
    pub(crate) rlimits: Vec<PosixRlimit>,
    #[prost(int64, tag = "14")]
    pub(crate) created_at: i64,
    #[prost(int64, tag = "15")]
    pub(crate) started_at: i64,
    #[prost(int64, tag = "16")]
    pub(crate) finished_at: i64,
    #[prost(int32, tag = "17")]
    pub(crate) exit_code: i32,
    #[prost(string, tag = "18")]
    pub(crate) status_reason: String,
    #[prost(string, tag = "19")]
    pub(crate) status_message: String,
    #[prost(message, repeated, tag = "20")]
    pub(crate) cdi_devices: Vec<CdiDevice>,
    #[prost(message, optional, tag = "21")]
    pub(crate) user: Option<User>,
    #[prost(message, optional, tag = "22")]
    pub(crate) image: Option<Image>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Image {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "3")]
    pub(crate) config_digest: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Mount {
    #[prost(string, tag = "1")]
    pub(crate) destination: String,
    #[prost(string, tag = "2")]
    pub(crate) kind: String,
    #[prost(string, tag = "3")]
    pub(crate) source: String,
    #[prost(string, repeated, tag = "4")]
    pub(crate) options: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Hooks {
    #[prost(message, repeated, tag = "1")]
    pub(crate) prestart: Vec<Hook>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) create_runtime: Vec<Hook>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) create_container: Vec<Hook>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) start_container: Vec<Hook>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) poststart: Vec<Hook>,
    #[prost(message, repeated, tag = "6")]
    pub(crate) poststop: Vec<Hook>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Hook {
    #[prost(string, tag = "1")]
    pub(crate) path: String,
    #[prost(string, repeated, tag = "2")]
    pub(crate) args: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    pub(crate) env: Vec<String>,
    #[prost(message, optional, tag = "4")]
    pub(crate) timeout: Option<OptionalInt>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LinuxContainer {
    #[prost(message, repeated, tag = "1")]
    pub(crate) namespaces: Vec<LinuxNamespace>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) devices: Vec<LinuxDevice>,
    #[prost(message, optional, tag = "3")]
    pub(crate) resources: Option<LinuxResources>,
    #[prost(message, optional, tag = "4")]
    pub(crate) oom_score_adj: Option<OptionalInt>,
    #[prost(string, tag = "5")]
    pub(crate) cgroups_path: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LinuxNamespace {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LinuxDevice {
    #[prost(string, tag = "1")]
    pub(crate) path: String,
    #[prost(string, tag = "2")]
    pub(crate) kind: String,
    #[prost(int64, tag = "3")]
    pub(crate) major: i64,
    #[prost(int64, tag = "4")]
    pub(crate) minor: i64,
    #[prost(message, optional, tag = "5")]
    pub(crate) file_mode: Option<OptionalUInt>,
    #[prost(message, optional, tag = "6")]
    pub(crate) uid: Option<OptionalUInt>,
    #[prost(message, optional, tag = "7")]
    pub(crate) gid: Option<OptionalUInt>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CdiDevice {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct User {
    #[prost(uint32, tag = "1")]
    pub(crate) uid: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) gid: u32,
    #[prost(uint32, repeated, tag = "3")]
    pub(crate) additional_gids: Vec<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LinuxResources {
    #[prost(message, optional, tag = "1")]
    pub(crate) memory: Option<LinuxMemory>,
    #[prost(message, optional, tag = "2")]
    pub(crate) cpu: Option<LinuxCpu>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) hugepage_limits: Vec<HugepageLimit>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub(crate) blockio_class: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "5")]
    pub(crate) rdt_class: Option<Vec<u8>>,
    #[prost(btree_map = "string, string", tag = "6")]
    pub(crate) unified: Map,
    #[prost(bytes = "vec", repeated, tag = "7")]
    pub(crate) devices: Vec<Vec<u8>>,
    #[prost(message, optional, tag = "8")]
    pub(crate) pids: Option<LinuxPids>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LinuxMemory {
    #[prost(message, optional, tag = "1")]
    pub(crate) limit: Option<OptionalInt>,
    #[prost(message, optional, tag = "2")]
    pub(crate) reservation: Option<OptionalInt>,
    #[prost(message, optional, tag = "3")]
    pub(crate) swap: Option<OptionalInt>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub(crate) kernel: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "5")]
    pub(crate) kernel_tcp: Option<Vec<u8>>,
    #[prost(message, optional, tag = "6")]
    pub(crate) swappiness: Option<OptionalUInt>,
    #[prost(message, optional, tag = "7")]
    pub(crate) disable_oom_killer: Option<OptionalBool>,
    #[prost(bytes = "vec", optional, tag = "8")]
    pub(crate) use_hierarchy: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LinuxCpu {
    #[prost(message, optional, tag = "1")]
    pub(crate) shares: Option<OptionalUInt>,
    #[prost(message, optional, tag = "2")]
    pub(crate) quota: Option<OptionalInt>,
    #[prost(message, optional, tag = "3")]
    pub(crate) period: Option<OptionalUInt>,
    #[prost(message, optional, tag = "4")]
    pub(crate) realtime_runtime: Option<OptionalInt>,
    #[prost(message, optional, tag = "5")]
    pub(crate) realtime_period: Option<OptionalUInt>,
    #[prost(string, tag = "6")]
    pub(crate) cpus: String,
    #[prost(string, tag = "7")]
    pub(crate) mems: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HugepageLimit {
    #[prost(string, tag = "1")]
    pub(crate) page_size: String,
    #[prost(uint64, tag = "2")]
    pub(crate) limit: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PosixRlimit {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(uint64, tag = "2")]
    pub(crate) hard: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) soft: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LinuxPids {
    #[prost(int64, tag = "1")]
    pub(crate) limit: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerAdjustment {
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) annotations: Map,
    #[prost(message, repeated, tag = "3")]
    pub(crate) mounts: Vec<Mount>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) env: Vec<KeyValue>,
    #[prost(message, optional, tag = "5")]
    pub(crate) hooks: Option<Hooks>,
    #[prost(message, optional, tag = "6")]
    pub(crate) linux: Option<LinuxContainerAdjustment>,
    #[prost(message, repeated, tag = "7")]
    pub(crate) rlimits: Vec<PosixRlimit>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) cdi_devices: Vec<CdiDevice>,
    #[prost(string, repeated, tag = "9")]
    pub(crate) args: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LinuxContainerAdjustment {
    #[prost(message, repeated, tag = "1")]
    pub(crate) devices: Vec<LinuxDevice>,
    #[prost(message, optional, tag = "2")]
    pub(crate) resources: Option<LinuxResources>,
    #[prost(string, tag = "3")]
    pub(crate) cgroups_path: String,
    #[prost(message, optional, tag = "4")]
    pub(crate) oom_score_adj: Option<OptionalInt>,
    #[prost(bytes = "vec", optional, tag = "5")]
    pub(crate) io_priority: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "6")]
    pub(crate) seccomp_policy: Option<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "7")]
    pub(crate) namespaces: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub(crate) sysctl: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub(crate) net_devices: Vec<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "10")]
    pub(crate) scheduler: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "11")]
    pub(crate) rdt: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "12")]
    pub(crate) memory_policy: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerUpdate {
    #[prost(string, tag = "1")]
    pub(crate) container_id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) linux: Option<LinuxContainerUpdate>,
    #[prost(bool, tag = "3")]
    pub(crate) ignore_failure: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LinuxContainerUpdate {
    #[prost(message, optional, tag = "1")]
    pub(crate) resources: Option<LinuxResources>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerEviction {
    #[prost(string, tag = "1")]
    pub(crate) container_id: String,
    #[prost(string, tag = "2")]
    pub(crate) reason: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct KeyValue {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// Any of the signed ones: all are encoded alike.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OptionalInt {
    #[prost(int64, tag = "1")]
    pub(crate) value: i64,
}

/// Any of the unsigned ones.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OptionalUInt {
    #[prost(uint64, tag = "1")]
    pub(crate) value: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OptionalBool {
    #[prost(bool, tag = "1")]
    pub(crate) value: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CompoundFieldOwners {
    #[prost(btree_map = "string, string", tag = "1")]
    pub(crate) owners: Map,
}

/// Who set what of a container, by numbers of [`Field`].
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FieldOwners {
    #[prost(btree_map = "int32, string", tag = "1")]
    pub(crate) simple: BTreeMap<i32, String>,
    #[prost(btree_map = "int32, message", tag = "2")]
    pub(crate) compound: BTreeMap<i32, CompoundFieldOwners>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OwningPlugins {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(crate) owners: BTreeMap<String, FieldOwners>,
}
