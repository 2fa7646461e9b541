//! What the runtime says of itself.

use node_api::CgroupDriver;

use crate::{Service, wire};

/// The version of CRI.
const API_VERSION: &str = "v1";
/// The version of the kubelet's own runtime API, the same since its beginning.
const VERSION: &str = "0.1.0";

impl Service {
    pub(crate) fn version(&self) -> wire::VersionResponse {
        let (runtime_name, runtime_version) = self.runtime.version();
        wire::VersionResponse {
            version: VERSION.to_owned(),
            runtime_name,
            runtime_version,
            runtime_api_version: API_VERSION.to_owned(),
        }
    }

    pub(crate) async fn status(&self, request: wire::Verbose) -> wire::StatusResponse {
        let own = self.runtime.status().await;
        let reason = own.not_ready;
        let condition = |(kind, word): (&str, &str)| wire::RuntimeCondition {
            r#type: kind.to_owned(),
            status: reason.is_none(),
            reason: reason
                .as_ref()
                .map_or_else(String::new, |_| word.to_owned()),
            message: reason.clone().unwrap_or_default(),
        };
        // One engine has both, and tells of both at once.
        let conditions = [
            ("RuntimeReady", "RuntimeNotReady"),
            ("NetworkReady", "NetworkPluginNotReady"),
        ];
        let conditions = conditions.map(condition);
        let mut info = wire::Map::new();
        if request.verbose {
            let config = serde_json::json!({ "stateDir": self.state });
            info.insert("config".to_owned(), config.to_string());
        }
        let handlers = own
            .handlers
            .into_iter()
            .map(|handler| wire::RuntimeHandler {
                name: handler.name,
                features: Some(wire::RuntimeHandlerFeatures {
                    recursive_read_only_mounts: handler.recursive_read_only_mounts,
                    user_namespaces: handler.user_namespaces,
                }),
            });
        wire::StatusResponse {
            status: Some(wire::RuntimeStatus {
                conditions: conditions.into(),
            }),
            info,
            runtime_handlers: handlers.collect(),
            features: Some(wire::RuntimeFeatures {
                supplemental_groups_policy: own.supplemental_groups_policy,
                user_namespaces_host_network: own.user_namespaces_host_network,
            }),
        }
    }

    pub(crate) fn runtime_config(&self) -> wire::RuntimeConfigResponse {
        let driver = match self.runtime.cgroup_driver() {
            CgroupDriver::Cgroupfs => wire::CgroupDriver::Cgroupfs,
            CgroupDriver::Systemd => wire::CgroupDriver::Systemd,
        };
        wire::RuntimeConfigResponse {
            linux: Some(wire::LinuxRuntimeConfiguration {
                cgroup_driver: driver.into(),
            }),
        }
    }
}
