//! LimitPodHardAntiAffinityTopology: pods keep apart by host only.

use meta::{Object, Status};
use serde_json::Value;

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::tree::{spec, text};

const TERMS: &str = "/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution";
const HOST: &str = "kubernetes.io/hostname";

pub(crate) struct LimitPodHardAntiAffinityTopology;

impl Plugin for LimitPodHardAntiAffinityTopology {
    fn name(&self) -> &'static str {
        "LimitPodHardAntiAffinityTopology"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        _lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let written = matches!(request.operation, Operation::Create | Operation::Update);
        let Some(pod) = object.filter(|_| written && request.is_on("pods")) else {
            return Ok(());
        };
        let terms = spec(pod).pointer(TERMS).and_then(Value::as_array);
        let keys = terms.into_iter().flatten();
        let mut keys = keys.map(|term| text(term, "topologyKey"));
        match keys.find(|key| *key != HOST) {
            None => Ok(()),
            Some(key) => Err(request.refused(
                object,
                &format!(
                    "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but \
                     only key {HOST} is allowed"
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{World, object, request};

    fn judged(key: &str) -> Result<(), String> {
        let terms = json!([{"topologyKey": HOST}, {"topologyKey": key}]);
        let affinity = json!({"podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": terms}});
        let pod = object(json!({"metadata": {"name": "web"}, "spec": {"affinity": affinity}}));
        let asked = request(Operation::Create, "pods", "web");
        let plugin = LimitPodHardAntiAffinityTopology;
        let judged = plugin.validate(&asked.borrow(), Some(&pod), &World::default());
        judged.map_err(|status| status.message)
    }

    #[test]
    fn only_hosts_keep_pods_apart() {
        assert_eq!(judged(HOST), Ok(()));
        assert_eq!(
            judged("zone"),
            Err(
                "pods \"web\" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has \
                 TopologyKey zone but only key kubernetes.io/hostname is allowed"
                    .into()
            )
        );
    }
}
