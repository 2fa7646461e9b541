//! PodResizeValidator: a pod grows no larger than its node.

use meta::status::Cause;
use meta::{Object, Quantity, Status};

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::resources::{of_pod_with_overhead, read};
use crate::tree::{spec, text};

pub(crate) struct PodResizeValidator;

impl Plugin for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let resize = request.operation == Operation::Update
            && request.subresource == "resize"
            && request.resource_is("pods");
        let (Some(pod), Some(old)) = (object.filter(|_| resize), request.old) else {
            return Ok(());
        };
        let generation = |pod: &Object| pod.0.pointer("/metadata/generation").cloned();
        let name = text(spec(pod), "nodeName");
        if name.is_empty() || generation(pod) == generation(old) {
            return Ok(());
        }
        let Some(node) = lookup.get("nodes", "", name) else {
            return Err(request.refused(object, &format!("node {name:?} not found")));
        };
        let labels = node.0.pointer("/metadata/labels");
        let system = labels.map_or("", |labels| text(labels, "kubernetes.io/os"));
        if !matches!(system, "" | "linux") {
            let why =
                format!("pod resize is only supported on linux nodes, node {name:?} is {system:?}");
            return Err(refused(request, object, &why, "UnsupportedPlatform"));
        }
        match beyond(pod, &node) {
            None => Ok(()),
            Some(what) => {
                let why = format!("node didn't have enough allocatable resources: {what}");
                Err(refused(request, object, &why, "NodeCapacity"))
            }
        }
    }
}

fn refused(request: &Request<'_>, object: Option<&Object>, why: &str, cause: &str) -> Status {
    let mut status = request.refused(object, why);
    status.causes.push(Cause {
        reason: cause.into(),
        message: String::new(),
        field: String::new(),
    });
    status
}

/// What the pod asks for beyond all that its node has.
fn beyond(pod: &Object, node: &Object) -> Option<String> {
    let requests = of_pod_with_overhead(pod, "requests");
    let allocatable = read(node.0.pointer("/status/allocatable"));
    let show = |name: &str, amount: Quantity| match name {
        "cpu" => amount.milli(),
        _ => amount.value(),
    };
    let of = |list: &crate::resources::Resources, name: &str| {
        list.get(name).copied().unwrap_or(Quantity::ZERO)
    };
    let parts: Vec<_> = ["cpu", "memory"]
        .into_iter()
        .map(|name| (name, of(&requests, name), of(&allocatable, name)))
        .filter(|(_, asked, has)| asked > has)
        .map(|(name, asked, has)| {
            let (asked, has) = (show(name, asked), show(name, has));
            format!("{name}, requested: {asked}, allocatable: {has}")
        })
        .collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{World, object, request};

    fn judged(system: &str, cpu: &str) -> Result<(), String> {
        let world = World::default().with(
            "nodes",
            json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/os": system}},
                "status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}}),
        );
        let pod = |generation: i64, cpu: Value| {
            object(
                json!({"metadata": {"name": "web", "generation": generation},
                "spec": {"nodeName": "n1",
                    "containers": [{"resources": {"requests": {"cpu": cpu}}}]}}),
            )
        };
        let mut asked = request(Operation::Update, "pods/resize", "web");
        asked.old = Some(pod(1, json!("1")));
        let new = pod(2, json!(cpu));
        let judged = PodResizeValidator.validate(&asked.borrow(), Some(&new), &world);
        judged.map_err(|status| status.message)
    }

    #[test]
    fn pods_fit_their_node() {
        assert_eq!(judged("linux", "2"), Ok(()));
        assert_eq!(
            judged("linux", "2500m"),
            Err(
                "pods \"web\" is forbidden: node didn't have enough allocatable resources: cpu, \
                 requested: 2500, allocatable: 2000"
                    .into()
            )
        );
        assert_eq!(
            judged("windows", "1"),
            Err(
                "pods \"web\" is forbidden: pod resize is only supported on linux nodes, node \
                 \"n1\" is \"windows\""
                    .into()
            )
        );
    }
}
