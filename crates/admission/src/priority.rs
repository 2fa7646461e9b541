//! Priority: pods get the number behind the name of their priority class.

use std::sync::Arc;

use meta::object::map_at;
use meta::{Object, Status};
use serde_json::{Value, json};

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::tree::{spec, text};

const CLASSES: &str = "priorityclasses.scheduling.k8s.io";
const PREEMPT: &str = "PreemptLowerPriority";
/// Built-in classes, above all that users may define.
const SYSTEM: [(&str, i64, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];

pub(crate) struct Priority;

/// What a class gives to its pods.
struct Class {
    name: String,
    value: i64,
    preemption_policy: String,
}

/// The priority classes that every cluster has; the API server creates them at its start.
pub fn system_priority_classes() -> Vec<Value> {
    let class = |(name, value, description): (&str, i64, &str)| {
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value, "description": description,
            "preemptionPolicy": PREEMPT})
    };
    SYSTEM.into_iter().map(class).collect()
}

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        if !request.is_on("pods") {
            return Ok(());
        }
        match request.operation {
            Operation::Create => resolve(request, object, lookup),
            Operation::Update => {
                keep(request, object);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let Some(object) = object.filter(|_| request.is_on(CLASSES)) else {
            return Ok(());
        };
        if object.fields().get("globalDefault") != Some(&Value::Bool(true)) {
            return Ok(());
        }
        match default_class(lookup) {
            Some(other)
                if other.name() != object.name() || request.operation == Operation::Create =>
            {
                let name = other.name();
                let why = format!(
                    "PriorityClass {name} is already marked as default. Only one default can exist"
                );
                Err(request.refused(Some(object), &why))
            }
            _ => Ok(()),
        }
    }
}

fn resolve(request: &Request<'_>, object: &mut Object, lookup: &dyn Lookup) -> Result<(), Status> {
    let name = text(spec(object), "priorityClassName");
    let class = match name {
        "" => default_class(lookup)
            .map(|class| read(&class))
            .unwrap_or(Class {
                name: String::new(),
                value: 0,
                preemption_policy: PREEMPT.into(),
            }),
        name => named(name, lookup).ok_or_else(|| {
            request.refused(
                Some(object),
                &format!("no PriorityClass with name {name} was found"),
            )
        })?,
    };
    let given = spec(object).get("priority").and_then(Value::as_i64);
    if let Some(given) = given.filter(|given| *given != class.value) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority \
             admission controller computed {} from the given PriorityClass name",
            class.value
        );
        return Err(request.refused(Some(object), &why));
    }
    let given = text(spec(object), "preemptionPolicy");
    if !given.is_empty() && given != class.preemption_policy {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; \
             priority admission controller computed {} from the given PriorityClass name",
            class.preemption_policy
        );
        return Err(request.refused(Some(object), &why));
    }
    let spec = map_at(&mut object.0, "spec");
    if !class.name.is_empty() {
        spec.insert("priorityClassName".into(), class.name.into());
    }
    spec.insert("priority".into(), class.value.into());
    spec.insert("preemptionPolicy".into(), class.preemption_policy.into());
    Ok(())
}

/// An update that leaves the computed fields out means to leave them alone.
fn keep(request: &Request<'_>, object: &mut Object) {
    let Some(old) = request.old else {
        return;
    };
    for field in ["priority", "preemptionPolicy"] {
        let before = spec(old).get(field).filter(|value| !value.is_null());
        let absent = spec(object).get(field).is_none_or(Value::is_null);
        if let Some(value) = before.filter(|_| absent) {
            map_at(&mut object.0, "spec").insert(field.into(), value.clone());
        }
    }
}

fn named(name: &str, lookup: &dyn Lookup) -> Option<Class> {
    if let Some(class) = lookup.get(CLASSES, "", name) {
        return Some(read(&class));
    }
    // The built-in ones hold even before their objects are there.
    let (name, value, _) = SYSTEM.into_iter().find(|(own, _, _)| *own == name)?;
    Some(Class {
        name: name.into(),
        value,
        preemption_policy: PREEMPT.into(),
    })
}

/// The default class; of several, the lowest.
fn default_class(lookup: &dyn Lookup) -> Option<Arc<Object>> {
    let classes = lookup.list(CLASSES, "");
    let marked = |class: &Arc<Object>| class.fields().get("globalDefault") == Some(&true.into());
    classes
        .into_iter()
        .filter(marked)
        .min_by_key(|class| value(class))
}

fn value(class: &Object) -> i64 {
    class
        .fields()
        .get("value")
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

fn read(class: &Object) -> Class {
    let policy = text(&class.0, "preemptionPolicy");
    Class {
        name: class.name().into(),
        value: value(class),
        preemption_policy: if policy.is_empty() { PREEMPT } else { policy }.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, object, request};

    fn world() -> World {
        World::default().with(
            CLASSES,
            json!({"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}),
        )
    }

    fn with_default() -> World {
        world().with(
            CLASSES,
            json!({"metadata": {"name": "usual"}, "value": 7, "globalDefault": true}),
        )
    }

    fn admitted(world: &World, given: Value) -> Result<Value, String> {
        let mut pod = object(json!({"metadata": {"name": "web"}, "spec": given}));
        let asked = request(Operation::Create, "pods", "web");
        let judged = Priority.mutate(&asked.borrow(), &mut pod, world);
        judged
            .map(|()| pod.0["spec"].clone())
            .map_err(|status| status.message)
    }

    #[test]
    fn names_become_numbers() {
        assert_eq!(
            admitted(&world(), json!({})),
            Ok(json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"}))
        );
        assert_eq!(
            admitted(&world(), json!({"priorityClassName": "high"})),
            Ok(json!({"priorityClassName": "high", "priority": 1000, "preemptionPolicy": "Never"}))
        );
        assert_eq!(
            admitted(&with_default(), json!({}))
                .map(|spec| (spec["priorityClassName"].clone(), spec["priority"].clone())),
            Ok((json!("usual"), json!(7)))
        );
        let critical = admitted(
            &world(),
            json!({"priorityClassName": "system-node-critical"}),
        );
        assert_eq!(critical.unwrap()["priority"], 2_000_001_000);
        assert_eq!(
            admitted(&world(), json!({"priorityClassName": "x"})),
            Err("pods \"web\" is forbidden: no PriorityClass with name x was found".into())
        );
        assert_eq!(
            admitted(&world(), json!({"priorityClassName": "high", "priority": 3})),
            Err("pods \"web\" is forbidden: the integer value of priority (3) must not be provided \
                 in pod spec; priority admission controller computed 1000 from the given \
                 PriorityClass name"
                .into())
        );
    }

    #[test]
    fn updates_keep_what_was_computed() {
        let mut pod = object(json!({"spec": {}}));
        let mut asked = request(Operation::Update, "pods", "web");
        asked.old = Some(object(
            json!({"spec": {"priority": 5, "preemptionPolicy": "Never"}}),
        ));
        Priority
            .mutate(&asked.borrow(), &mut pod, &world())
            .unwrap();
        assert_eq!(
            pod.0["spec"],
            json!({"priority": 5, "preemptionPolicy": "Never"})
        );
    }

    #[test]
    fn there_is_one_default() {
        let class = object(json!({"metadata": {"name": "new"}, "value": 1, "globalDefault": true}));
        let asked = request(Operation::Create, CLASSES, "new");
        let refusal = Priority.validate(&asked.borrow(), Some(&class), &with_default());
        assert_eq!(
            refusal.unwrap_err().message,
            "priorityclasses.scheduling.k8s.io \"new\" is forbidden: PriorityClass usual is already \
             marked as default. Only one default can exist"
        );
        assert_eq!(
            Priority.validate(&asked.borrow(), Some(&class), &world()),
            Ok(())
        );
    }
}
