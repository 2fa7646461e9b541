//! Services as the API server reaches them: by ClusterIP, through the node's proxy.

use std::sync::{Arc, OnceLock, Weak};

use meta::{Names, Status};
use serde_json::Value;

use crate::registry::Registry;
use crate::verbs::write::text;

/// Finds services in the API server's own cache.
#[derive(Default)]
pub(crate) struct Services {
    registry: OnceLock<Weak<Registry>>,
}

impl Services {
    /// Begins to find those of this registry.
    pub(crate) fn follow(&self, registry: &Arc<Registry>) {
        self.registry.get_or_init(|| Arc::downgrade(registry));
    }
}

impl webhook::Resolve for Services {
    fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<(String, u16), String> {
        let registry = self.registry.get().and_then(Weak::upgrade);
        let services = registry.and_then(|registry| registry.now().find("", "v1", "services"));
        let entry = services.and_then(|services| {
            let cache = services.cache.as_ref()?;
            cache.get(&services.key(namespace, name))
        });
        let Some(entry) = entry else {
            let names = Names::namespaced("", "v1", "Service", "services");
            return Err(Status::not_found(&names, name).message);
        };
        address(&entry.shared_tree().0, name, port)
    }
}

/// Upstream's `ResolveCluster`.
fn address(service: &Value, name: &str, port: u16) -> Result<(String, u16), String> {
    let ip = text(service, "/spec/clusterIP");
    match text(service, "/spec/type") {
        "ClusterIP" | "" if ip == "None" => {
            Err("cannot route to service with ClusterIP \"None\"".into())
        }
        "ClusterIP" | "" | "LoadBalancer" | "NodePort" => {
            let ports = service.pointer("/spec/ports").and_then(Value::as_array);
            let mut ports = ports.into_iter().flatten();
            match ports.any(|own| own["port"] == port) {
                true => Ok((ip.to_owned(), port)),
                false => Err(format!("no service port {port} found for service {name:?}")),
            }
        }
        "ExternalName" => Ok((text(service, "/spec/externalName").to_owned(), port)),
        other => Err(format!("unsupported service type {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_is_reached_by_its_own_address() {
        let ports = json!([{"port": 443}]);
        let check = |spec: Value, expect: Result<(&str, u16), &str>| {
            let got = address(&json!({ "spec": spec }), "hook", 443);
            let expect = expect.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(got, expect.map_err(str::to_owned));
        };
        let ip = "10.96.0.9";
        check(
            json!({"type": "ClusterIP", "clusterIP": ip, "ports": ports}),
            Ok((ip, 443)),
        );
        check(
            json!({"type": "ExternalName", "externalName": "localhost"}),
            Ok(("localhost", 443)),
        );
        check(
            json!({"type": "NodePort", "clusterIP": ip, "ports": [{"port": 80}]}),
            Err("no service port 443 found for service \"hook\""),
        );
        check(
            json!({"type": "ClusterIP", "clusterIP": "None"}),
            Err("cannot route to service with ClusterIP \"None\""),
        );
    }
}
