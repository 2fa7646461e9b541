//! What clients say about containers, in docker's names. What a field means is docker's too; members
//! nobody here reads are kept and shown again.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::answer::Fault;

pub(crate) type Labels = BTreeMap<String, String>;

/// What runs in a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Config {
    pub(crate) hostname: String,
    pub(crate) domainname: String,
    pub(crate) user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) mac_address: String,
    pub(crate) attach_stdin: bool,
    pub(crate) attach_stdout: bool,
    pub(crate) attach_stderr: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) exposed_ports: BTreeMap<String, Value>,
    pub(crate) tty: bool,
    pub(crate) open_stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) env: Vec<String>,
    #[serde(deserialize_with = "words")]
    pub(crate) cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) healthcheck: Option<Healthcheck>,
    pub(crate) image: String,
    pub(crate) volumes: Option<BTreeMap<String, Value>>,
    pub(crate) working_dir: String,
    #[serde(deserialize_with = "words")]
    pub(crate) entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) network_disabled: bool,
    pub(crate) on_build: Option<Vec<String>>,
    pub(crate) labels: Labels,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stop_timeout: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "words")]
    pub(crate) shell: Option<Vec<String>>,
}

/// A command may be one word or a list of them.
fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        One(String),
        Many(Vec<String>),
    }
    Ok(
        Option::<Words>::deserialize(deserializer)?.map(|words| match words {
            Words::One(word) => vec![word],
            Words::Many(words) => words,
        }),
    )
}

/// How to tell whether a container is well. Times are nanoseconds; 0 is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Healthcheck {
    pub(crate) test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) retries: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) start_interval: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// What a container may do and have on this machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct HostConfig {
    pub(crate) binds: Option<Vec<String>>,
    pub(crate) network_mode: String,
    pub(crate) port_bindings: BTreeMap<String, Option<Vec<PortBinding>>>,
    pub(crate) publish_all_ports: bool,
    pub(crate) log_config: LogConfig,
    pub(crate) storage_opt: Option<Labels>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<Labels>,
    pub(crate) restart_policy: RestartPolicy,
    pub(crate) auto_remove: bool,
    pub(crate) volumes_from: Option<Vec<String>>,
    pub(crate) mounts: Option<Vec<MountWish>>,
    pub(crate) tmpfs: Option<BTreeMap<String, String>>,
    pub(crate) cap_add: Option<Vec<String>>,
    pub(crate) cap_drop: Option<Vec<String>>,
    pub(crate) dns: Vec<String>,
    pub(crate) dns_options: Vec<String>,
    pub(crate) dns_search: Vec<String>,
    pub(crate) extra_hosts: Option<Vec<String>>,
    pub(crate) group_add: Option<Vec<String>>,
    pub(crate) ipc_mode: String,
    pub(crate) pid_mode: String,
    #[serde(rename = "UTSMode")]
    pub(crate) uts_mode: String,
    pub(crate) userns_mode: String,
    pub(crate) cgroup_parent: String,
    pub(crate) links: Option<Vec<String>>,
    pub(crate) oom_score_adj: i64,
    pub(crate) privileged: bool,
    pub(crate) readonly_rootfs: bool,
    pub(crate) security_opt: Option<Vec<String>>,
    pub(crate) shm_size: i64,
    pub(crate) sysctls: Labels,
    pub(crate) init: Option<bool>,
    pub(crate) runtime: String,
    pub(crate) masked_paths: Option<Vec<String>>,
    pub(crate) readonly_paths: Option<Vec<String>>,
    #[serde(flatten)]
    pub(crate) limits: Limits,
    /// The rest, as it was said.
    #[serde(flatten)]
    pub(crate) other: Map<String, Value>,
}

/// What can also be changed while a container runs. Zero is not set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Limits {
    pub(crate) cpu_shares: i64,
    pub(crate) memory: i64,
    pub(crate) nano_cpus: i64,
    pub(crate) cpu_period: i64,
    pub(crate) cpu_quota: i64,
    pub(crate) cpuset_cpus: String,
    pub(crate) cpuset_mems: String,
    pub(crate) memory_reservation: i64,
    pub(crate) memory_swap: i64,
    pub(crate) pids_limit: Option<i64>,
    pub(crate) devices: Option<Vec<DeviceWish>>,
    pub(crate) ulimits: Option<Vec<Ulimit>>,
    pub(crate) device_cgroup_rules: Option<Vec<String>>,
    pub(crate) device_requests: Option<Vec<DeviceRequest>>,
    pub(crate) oom_kill_disable: Option<bool>,
    pub(crate) blkio_weight: u64,
    pub(crate) blkio_weight_device: Option<Vec<DeviceWeight>>,
    pub(crate) blkio_device_read_bps: Option<Vec<DeviceRate>>,
    pub(crate) blkio_device_write_bps: Option<Vec<DeviceRate>>,
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub(crate) blkio_device_read_iops: Option<Vec<DeviceRate>>,
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub(crate) blkio_device_write_iops: Option<Vec<DeviceRate>>,
    #[serde(rename = "CpuRealtimePeriod")]
    pub(crate) rt_period: i64,
    #[serde(rename = "CpuRealtimeRuntime")]
    pub(crate) rt_runtime: i64,
    /// -1 and none are the machine's.
    pub(crate) memory_swappiness: Option<i64>,
}

/// Devices by what they can do, or by their names.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct DeviceRequest {
    pub(crate) driver: String,
    pub(crate) count: i64,
    #[serde(rename = "DeviceIDs")]
    pub(crate) device_ids: Option<Vec<String>>,
    pub(crate) capabilities: Option<Vec<Vec<String>>>,
    pub(crate) options: Option<Labels>,
}

/// A block device and its share.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct DeviceWeight {
    pub(crate) path: String,
    pub(crate) weight: u64,
}

/// A block device and how much a second.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct DeviceRate {
    pub(crate) path: String,
    pub(crate) rate: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct DeviceWish {
    pub(crate) path_on_host: String,
    pub(crate) path_in_container: String,
    pub(crate) cgroup_permissions: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Ulimit {
    pub(crate) name: String,
    pub(crate) soft: i64,
    pub(crate) hard: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct PortBinding {
    pub(crate) host_ip: String,
    pub(crate) host_port: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct RestartPolicy {
    pub(crate) name: String,
    pub(crate) maximum_retry_count: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct MountWish {
    #[serde(rename = "Type")]
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) read_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bind_options: Option<BindOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) volume_options: Option<VolumeOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tmpfs_options: Option<TmpfsOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image_options: Option<ImageOptions>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct BindOptions {
    pub(crate) propagation: String,
    pub(crate) create_mountpoint: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct VolumeOptions {
    pub(crate) no_copy: bool,
    pub(crate) labels: Labels,
    pub(crate) subpath: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) driver_config: Option<DriverConfig>,
}

/// The driver of a volume that is made on the way.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct DriverConfig {
    pub(crate) name: String,
    pub(crate) options: Option<Labels>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ImageOptions {
    pub(crate) subpath: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct TmpfsOptions {
    pub(crate) size_bytes: u64,
    pub(crate) mode: u32,
}

/// Where output goes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct LogConfig {
    #[serde(rename = "Type")]
    pub(crate) kind: String,
    pub(crate) config: Option<Labels>,
}

/// A container's place in one network.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Endpoint {
    #[serde(rename = "IPAMConfig")]
    pub(crate) ipam_config: Option<Value>,
    pub(crate) links: Option<Vec<String>>,
    pub(crate) aliases: Option<Vec<String>>,
    pub(crate) mac_address: String,
    pub(crate) driver_opts: Option<Labels>,
    #[serde(rename = "NetworkID")]
    pub(crate) network_id: String,
    #[serde(rename = "EndpointID")]
    pub(crate) endpoint_id: String,
    pub(crate) gateway: String,
    #[serde(rename = "IPAddress")]
    pub(crate) ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    pub(crate) ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    pub(crate) ipv6_gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    pub(crate) global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub(crate) global_ipv6_prefix_len: u8,
    #[serde(rename = "DNSNames")]
    pub(crate) dns_names: Option<Vec<String>>,
    /// What was asked for; [`Endpoint::mac_address`] is what it has.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) wanted_mac_address: String,
    /// The machine's end of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) interface: String,
    /// The container's end, where the machine has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) inner_interface: String,
}

impl Endpoint {
    /// The address that was asked for.
    pub(crate) fn wanted_address(&self) -> Option<std::net::Ipv4Addr> {
        let wish = self.ipam_config.as_ref()?.get("IPv4Address")?.as_str()?;
        wish.parse().ok()
    }

    /// The IPv6 address that was asked for.
    pub(crate) fn wanted_address6(&self) -> Option<std::net::Ipv6Addr> {
        let wish = self.ipam_config.as_ref()?.get("IPv6Address")?.as_str()?;
        wish.parse().ok()
    }

    /// More addresses for its interface, with the bits of their networks.
    pub(crate) fn link_local_addresses(&self) -> Result<Vec<(std::net::IpAddr, u8)>, Fault> {
        let config = self.ipam_config.as_ref();
        let list = config.and_then(|config| config["LinkLocalIPs"].as_array());
        let parse = |value: &Value| {
            let text = value.as_str().unwrap_or_default();
            match text.parse() {
                Ok(address @ std::net::IpAddr::V4(_)) => Ok((address, 16)),
                Ok(address) => Ok((address, 64)),
                Err(_) => Err(Fault::bad(format!(
                    "invalid link-local IP address: {text:?}"
                ))),
            }
        };
        list.into_iter().flatten().map(parse).collect()
    }

    /// The hardware address that was asked for.
    pub(crate) fn wanted_hardware_address(&self) -> Result<Option<[u8; 6]>, Fault> {
        let text = self.wanted_mac_address.as_str();
        if text.is_empty() {
            return Ok(None);
        }
        let parts = text.split([':', '-']);
        let bytes: Option<Vec<u8>> = parts
            .map(|part| u8::from_str_radix(part, 16).ok())
            .collect();
        let address = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
        let wrong = || Fault::bad(format!("invalid MAC address: {text}"));
        address.ok_or_else(wrong).map(Some)
    }
}

/// Body of `POST /containers/create`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CreateRequest {
    #[serde(flatten)]
    pub(crate) config: Config,
    pub(crate) host_config: HostConfig,
    pub(crate) networking_config: NetworkingConfig,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct NetworkingConfig {
    pub(crate) endpoints_config: BTreeMap<String, Option<Endpoint>>,
}

/// Something mounted into a container, as it is shown and kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct MountPoint {
    /// `bind`, `volume`, `tmpfs` or `image`.
    #[serde(rename = "Type")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) destination: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) driver: String,
    pub(crate) mode: String,
    #[serde(rename = "RW")]
    pub(crate) rw: bool,
    pub(crate) propagation: String,
    /// What of the volume or image.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) subpath: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_the_command_line() {
        let text = r#"{"Hostname":"","Cmd":"true","Env":["A=b"],"Image":"busybox","Labels":{},
            "HostConfig":{"Binds":["/a:/b"],"NetworkMode":"default","Memory":64,"Isolation":"",
            "PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}],"81/tcp":null},
            "RestartPolicy":{"Name":"no","MaximumRetryCount":0},"LogConfig":{"Type":""}},
            "NetworkingConfig":{"EndpointsConfig":{"n":{"IPAMConfig":{"IPv4Address":"10.1.2.3"}}}}}"#;
        let request: CreateRequest = serde_json::from_str(text).unwrap();
        assert_eq!(
            request.config.cmd.as_deref(),
            Some(&["true".to_owned()][..])
        );
        assert_eq!(request.host_config.limits.memory, 64);
        assert!(request.host_config.port_bindings["81/tcp"].is_none());
        let endpoint = &request.networking_config.endpoints_config["n"];
        assert!(endpoint.as_ref().unwrap().ipam_config.is_some());
        // What we do not know is shown again.
        let shown = serde_json::to_value(&request.host_config).unwrap();
        assert_eq!(shown["LogConfig"]["Type"], "");
        assert_eq!(shown["Memory"], 64);
    }
}
