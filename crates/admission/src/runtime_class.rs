//! RuntimeClass: pods take overhead, node selector and tolerations from their runtime class.

use std::sync::Arc;

use meta::object::map_at;
use meta::{Object, Status};
use serde_json::Value;

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::resources::{read, write};
use crate::tree::{list, push, spec, text};

const CLASSES: &str = "runtimeclasses.node.k8s.io";

pub(crate) struct RuntimeClass;

impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_on("pods") {
            return Ok(());
        }
        let Some(class) = class_of(request, object, lookup)? else {
            return Ok(());
        };
        let overhead = read(class.0.pointer("/overhead/podFixed"));
        if !overhead.is_empty() {
            let given = read(spec(object).get("overhead"));
            if !given.is_empty() && given != overhead {
                return Err(mismatch(request, object));
            }
            map_at(&mut object.0, "spec").insert("overhead".into(), write(&overhead));
        }
        if let Some(scheduling) = class.fields().get("scheduling") {
            schedule(request, object, scheduling)?;
        }
        Ok(())
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let asked = request.operation == Operation::Create && request.is_on("pods");
        let Some(pod) = object.filter(|_| asked) else {
            return Ok(());
        };
        let class = class_of(request, pod, lookup)?;
        let overhead = class.map(|class| read(class.0.pointer("/overhead/podFixed")));
        let given = read(spec(pod).get("overhead"));
        match overhead.filter(|overhead| !overhead.is_empty()) {
            Some(overhead) if overhead != given => Err(mismatch(request, pod)),
            None if !given.is_empty() => Err(request.refused(
                Some(pod),
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
            )),
            _ => Ok(()),
        }
    }
}

fn class_of(
    request: &Request<'_>,
    pod: &Object,
    lookup: &dyn Lookup,
) -> Result<Option<Arc<Object>>, Status> {
    let name = text(spec(pod), "runtimeClassName");
    if name.is_empty() {
        return Ok(None);
    }
    let missing = || {
        request.refused(
            Some(pod),
            &format!("pod rejected: RuntimeClass {name:?} not found"),
        )
    };
    lookup.get(CLASSES, "", name).ok_or_else(missing).map(Some)
}

fn mismatch(request: &Request<'_>, pod: &Object) -> Status {
    let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
    request.refused(Some(pod), why)
}

fn schedule(request: &Request<'_>, pod: &mut Object, scheduling: &Value) -> Result<(), Status> {
    let selector = scheduling.get("nodeSelector").and_then(Value::as_object);
    for (key, wanted) in selector.into_iter().flatten() {
        let given = spec(pod)
            .get("nodeSelector")
            .and_then(|selector| selector.get(key));
        if let Some(given) = given.filter(|given| *given != wanted) {
            let plain = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; \
                 pod.spec.nodeSelector[{key}] = {}",
                plain(wanted),
                plain(given)
            );
            return Err(request.refused(Some(pod), &why));
        }
        map_at(&mut pod.0, "spec");
        if let Some(spec) = pod.0.get_mut("spec") {
            map_at(spec, "nodeSelector").insert(key.clone(), wanted.clone());
        }
    }
    for toleration in list(scheduling, "tolerations") {
        if !list(spec(pod), "tolerations").any(|own| own == toleration) {
            push(
                map_at(&mut pod.0, "spec"),
                "tolerations",
                toleration.clone(),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{World, object, request};

    fn admitted(given: Value) -> Result<Value, String> {
        let world = World::default().with(
            CLASSES,
            json!({"metadata": {"name": "box"}, "overhead": {"podFixed": {"cpu": "250m"}},
                "scheduling": {"nodeSelector": {"box": "yes"},
                    "tolerations": [{"key": "box", "operator": "Exists"}]}}),
        );
        let mut pod = object(json!({"metadata": {"name": "web"}, "spec": given}));
        let asked = request(Operation::Create, "pods", "web");
        let judged = RuntimeClass
            .mutate(&asked.borrow(), &mut pod, &world)
            .and_then(|()| RuntimeClass.validate(&asked.borrow(), Some(&pod), &world));
        judged
            .map(|()| pod.0["spec"].clone())
            .map_err(|status| status.message)
    }

    #[test]
    fn a_class_gives_what_it_has() {
        assert_eq!(
            admitted(json!({"runtimeClassName": "box"})),
            Ok(
                json!({"runtimeClassName": "box", "overhead": {"cpu": "250m"},
                "nodeSelector": {"box": "yes"},
                "tolerations": [{"key": "box", "operator": "Exists"}]})
            )
        );
        assert_eq!(admitted(json!({})), Ok(json!({})));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refusal = |given: Value| admitted(given).unwrap_err();
        assert_eq!(
            refusal(json!({"runtimeClassName": "x"})),
            "pods \"web\" is forbidden: pod rejected: RuntimeClass \"x\" not found"
        );
        assert_eq!(
            refusal(json!({"runtimeClassName": "box", "nodeSelector": {"box": "no"}})),
            "pods \"web\" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[box] = yes; \
             pod.spec.nodeSelector[box] = no"
        );
        assert!(refusal(json!({"overhead": {"cpu": "1"}})).contains("set without corresponding"));
        assert!(
            refusal(json!({"runtimeClassName": "box", "overhead": {"cpu": "1"}}))
                .contains("doesn't match")
        );
    }
}
