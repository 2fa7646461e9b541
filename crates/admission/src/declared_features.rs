//! NodeDeclaredFeatureValidator: a pod is changed only in ways that its node says it can follow.

use meta::{Object, Status};
use serde_json::Value;

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::tree::{list, spec, text};

pub(crate) struct NodeDeclaredFeatureValidator;

impl Plugin for NodeDeclaredFeatureValidator {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatureValidator"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let update = request.operation == Operation::Update
            && matches!(request.subresource, "" | "resize")
            && request.resource_is("pods");
        let (Some(pod), Some(old)) = (object.filter(|_| update), request.old) else {
            return Ok(());
        };
        let generation = |pod: &Object| pod.0.pointer("/metadata/generation").cloned();
        let name = text(spec(pod), "nodeName");
        if name.is_empty() || generation(pod) == generation(old) {
            return Ok(());
        }
        let needs = needed(spec(pod), spec(old));
        if needs.is_empty() {
            return Ok(());
        }
        let Some(node) = lookup.get("nodes", "", name) else {
            return Err(request.refused(object, &format!("node {name:?} not found")));
        };
        let status = node.0.get("status").unwrap_or(&Value::Null);
        let declares = |feature: &&str| list(status, "declaredFeatures").any(|own| own == feature);
        let missing: Vec<_> = needs.into_iter().filter(|one| !declares(one)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(", ");
        let why = format!(
            "pod update requires features {missing} which are not available on node {name:?}"
        );
        Err(request.refused(object, &why))
    }
}

/// The features that a change asks of the node.
fn needed(new: &Value, old: &Value) -> Vec<&'static str> {
    let resources = |holder: &Value| {
        holder
            .get("resources")
            .filter(|own| !own.is_null())
            .cloned()
    };
    let mut needs = Vec::new();
    if resources(new) != resources(old) {
        needs.push("InPlacePodLevelResourcesVerticalScaling");
    }
    let mut now = list(new, "initContainers");
    let differs = |before: &Value| {
        let after = now.next().and_then(resources);
        text(before, "restartPolicy") != "Always" && after != resources(before)
    };
    if list(old, "initContainers").any(differs) {
        needs.push("InPlacePodVerticalScalingInitContainers");
    }
    needs
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{World, object, request};

    #[test]
    fn nodes_say_what_they_can() {
        let pod = |generation: i64, cpu: &str| {
            object(
                json!({"metadata": {"name": "web", "generation": generation},
                "spec": {"nodeName": "n1", "initContainers": [{"resources": {"cpu": cpu}}]}}),
            )
        };
        let mut asked = request(Operation::Update, "pods/resize", "web");
        asked.old = Some(pod(1, "1"));
        let new = pod(2, "2");
        let node = |features: Value| {
            let status = json!({"declaredFeatures": features});
            World::default().with(
                "nodes",
                json!({"metadata": {"name": "n1"}, "status": status}),
            )
        };
        let plugin = NodeDeclaredFeatureValidator;
        let able = node(json!(["InPlacePodVerticalScalingInitContainers"]));
        assert!(plugin.validate(&asked.borrow(), Some(&new), &able).is_ok());
        let refusal = plugin.validate(&asked.borrow(), Some(&new), &node(json!([])));
        assert_eq!(
            refusal.map_err(|status| status.message),
            Err("pods \"web\" is forbidden: pod update requires features \
                 InPlacePodVerticalScalingInitContainers which are not available on node \"n1\""
                .into())
        );
    }
}
