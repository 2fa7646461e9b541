//! DefaultTolerationSeconds: pods survive five minutes on a node that is not ready or unreachable,
//! unless they say otherwise.

use meta::object::map_at;
use meta::{Object, Status};
use serde_json::{Value, json};

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::tree::{list, push, spec, text};

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];

pub(crate) struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        _lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        if !writes || !request.is_on("pods") {
            return Ok(());
        }
        for taint in TAINTS {
            if !list(spec(object), "tolerations").any(|toleration| tolerates(toleration, taint)) {
                let toleration = json!({"key": taint, "operator": "Exists",
                    "effect": "NoExecute", "tolerationSeconds": SECONDS});
                push(map_at(&mut object.0, "spec"), "tolerations", toleration);
            }
        }
        Ok(())
    }
}

fn tolerates(toleration: &Value, taint: &str) -> bool {
    let (key, effect) = (text(toleration, "key"), text(toleration, "effect"));
    (key.is_empty() || key == taint) && (effect.is_empty() || effect == "NoExecute")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, object, request};

    fn tolerations(given: Value) -> Value {
        let mut pod = object(json!({"spec": {"tolerations": given}}));
        let asked = request(Operation::Create, "pods", "web");
        DefaultTolerationSeconds
            .mutate(&asked.borrow(), &mut pod, &World::default())
            .unwrap();
        pod.0["spec"]["tolerations"].clone()
    }

    fn default(taint: &str) -> Value {
        json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})
    }

    #[test]
    fn both_taints_are_tolerated_for_five_minutes() {
        assert_eq!(
            tolerations(json!(null)),
            json!([default(TAINTS[0]), default(TAINTS[1])])
        );
    }

    #[test]
    fn what_the_user_says_stands() {
        let own = json!({"key": TAINTS[0], "operator": "Exists", "tolerationSeconds": 5});
        assert_eq!(tolerations(json!([own])), json!([own, default(TAINTS[1])]));
        let all = json!([{"operator": "Exists"}]);
        assert_eq!(tolerations(all.clone()), all);
        let other = json!({"operator": "Exists", "effect": "NoSchedule"});
        assert_eq!(
            tolerations(json!([other])),
            json!([other, default(TAINTS[0]), default(TAINTS[1])])
        );
    }
}
