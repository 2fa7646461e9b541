//! TaintNodesByCondition: a new node takes no pods until it is found ready.

use meta::object::map_at;
use meta::{Object, Status};
use serde_json::json;

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::tree::{list, push, spec, text};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const NO_SCHEDULE: &str = "NoSchedule";

pub(crate) struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        _lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_on("nodes") {
            return Ok(());
        }
        let tainted = list(spec(object), "taints")
            .any(|taint| text(taint, "key") == NOT_READY && text(taint, "effect") == NO_SCHEDULE);
        if !tainted {
            let taint = json!({"key": NOT_READY, "effect": NO_SCHEDULE});
            push(map_at(&mut object.0, "spec"), "taints", taint);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, object, request};

    #[test]
    fn new_nodes_are_tainted_once() {
        let mut node = object(json!({"metadata": {"name": "a"}}));
        for operation in [Operation::Create, Operation::Create] {
            let asked = request(operation, "nodes", "a");
            TaintNodesByCondition
                .mutate(&asked.borrow(), &mut node, &World::default())
                .unwrap();
        }
        assert_eq!(
            node.0["spec"]["taints"],
            json!([{"key": NOT_READY, "effect": NO_SCHEDULE}])
        );
        let mut old = object(json!({"metadata": {"name": "b"}}));
        let asked = request(Operation::Update, "nodes", "b");
        TaintNodesByCondition
            .mutate(&asked.borrow(), &mut old, &World::default())
            .unwrap();
        assert!(old.0.get("spec").is_none());
    }
}
