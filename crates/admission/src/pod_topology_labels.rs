//! PodTopologyLabels: pods carry the zone and region of their node.

use meta::object::map_at;
use meta::{Object, Status};

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::tree::{spec, text};

const LABELS: [&str; 2] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

pub(crate) struct PodTopologyLabels;

impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.resource_is("pods") {
            return Ok(());
        }
        let node = match request.subresource {
            "" => text(spec(object), "nodeName"),
            // The labels of a binding become the pod's.
            "binding" => object.text("/target/name"),
            _ => return Ok(()),
        };
        let Some(node) = Some(node).filter(|node| !node.is_empty()) else {
            return Ok(());
        };
        let Some(node) = lookup.get("nodes", "", node) else {
            return Ok(());
        };
        for label in LABELS {
            let value = node.0.pointer("/metadata/labels");
            if let Some(value) = value.and_then(|labels| labels.get(label)) {
                map_at(&mut object.0, "metadata");
                if let Some(metadata) = object.0.get_mut("metadata") {
                    map_at(metadata, "labels").insert(label.into(), value.clone());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{World, object, request};

    #[test]
    fn bound_pods_carry_their_zone() {
        let labels = json!({LABELS[0]: "z1", "other": "x"});
        let world = World::default().with(
            "nodes",
            json!({"metadata": {"name": "n1", "labels": labels}}),
        );
        let mut pod = object(json!({"metadata": {"labels": {"a": "b"}}, "target": {"name": "n1"}}));
        let asked = request(Operation::Create, "pods/binding", "web");
        let done = PodTopologyLabels.mutate(&asked.borrow(), &mut pod, &world);
        assert!(done.is_ok());
        assert_eq!(
            pod.0["metadata"]["labels"],
            json!({"a": "b", LABELS[0]: "z1"})
        );
        let mut status = object(json!({"spec": {"nodeName": "n1"}}));
        let asked = request(Operation::Update, "pods/status", "web");
        let done = PodTopologyLabels.mutate(&asked.borrow(), &mut status, &world);
        assert!(done.is_ok() && status.0.get("metadata").is_none());
    }
}
