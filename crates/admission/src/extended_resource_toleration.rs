//! ExtendedResourceToleration: who asks for a device tolerates the taint of its nodes.

use std::collections::BTreeSet;

use meta::object::map_at;
use meta::{Object, Status};
use serde_json::{Value, json};

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::tree::{list, list_mut, push, spec, text};

pub(crate) struct ExtendedResourceToleration;

impl Plugin for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        _lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let written = matches!(request.operation, Operation::Create | Operation::Update);
        if !written || !request.is_on("pods") {
            return Ok(());
        }
        for resource in asked_for(object) {
            let toleration = json!({"key": resource, "operator": "Exists", "effect": "NoSchedule"});
            let spec = map_at(&mut object.0, "spec");
            let mut tree = Value::Object(std::mem::take(spec));
            let same = list_mut(&mut tree, "tolerations").find(|own| {
                // The same but for how long it is tolerated.
                ["key", "operator", "effect", "value"]
                    .iter()
                    .all(|field| text(own, field) == text(&toleration, field))
            });
            let found = match same {
                Some(own) => {
                    *own = toleration.clone();
                    true
                }
                None => false,
            };
            if let Value::Object(map) = tree {
                *spec = map;
            }
            if !found {
                push(spec, "tolerations", toleration);
            }
        }
        Ok(())
    }
}

/// Extended resources of all containers, each once.
fn asked_for(pod: &Object) -> BTreeSet<String> {
    let containers = ["containers", "initContainers"];
    let containers = containers.iter().flat_map(|field| list(spec(pod), field));
    let requests = containers.filter_map(|container| {
        let requests = container.pointer("/resources/requests")?;
        requests.as_object()
    });
    let names = requests.flat_map(|requests| requests.keys());
    names.filter(|name| is_extended(name)).cloned().collect()
}

/// Names with a domain that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, object, request};

    #[test]
    fn devices_bring_tolerations() {
        let requests = json!({"cpu": "1", "example.com/b": 1, "example.com/a": 1,
            "x.kubernetes.io/y": 1});
        let mut pod = object(json!({"spec": {
            "containers": [{"resources": {"requests": requests}}],
            "tolerations": [{"key": "example.com/a", "operator": "Exists",
                "effect": "NoSchedule"}]}}));
        let asked = request(Operation::Create, "pods", "web");
        let plugin = ExtendedResourceToleration;
        let done = plugin.mutate(&asked.borrow(), &mut pod, &World::default());
        assert!(done.is_ok());
        let keys: Vec<_> = list(spec(&pod), "tolerations")
            .map(|own| text(own, "key"))
            .collect();
        assert_eq!(keys, ["example.com/a", "example.com/b"]);
    }
}
