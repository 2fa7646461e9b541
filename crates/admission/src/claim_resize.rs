//! PersistentVolumeClaimResize: only bound claims grow, and only where their class allows it.

use meta::{Object, Quantity, Status};

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::resources::of_container;
use crate::tree::{spec, text};

const CLASSES: &str = "storageclasses.storage.k8s.io";
const LEGACY_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(crate) struct PersistentVolumeClaimResize;

impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let update = request.operation == Operation::Update;
        if !update || !request.is_on("persistentvolumeclaims") {
            return Ok(());
        }
        let (Some(new), Some(old)) = (object, request.old) else {
            return Ok(());
        };
        if size(new) <= size(old) {
            return Ok(());
        }
        if old.text("/status/phase") != "Bound" {
            let why = "Only bound persistent volume claims can be expanded";
            return Err(request.refused(object, why));
        }
        let name = class(new);
        let found = lookup.get(CLASSES, "", name).filter(|_| name == class(old));
        let grows =
            |class: &Object| class.fields().get("allowVolumeExpansion") == Some(&true.into());
        match found.is_some_and(|class| grows(&class)) {
            true => Ok(()),
            false => Err(request.refused(
                object,
                "only dynamically provisioned pvc can be resized and the storageclass that \
                 provisions the pvc must support resize",
            )),
        }
    }
}

fn size(claim: &Object) -> Quantity {
    let requests = of_container(spec(claim), "requests");
    requests.get("storage").copied().unwrap_or(Quantity::ZERO)
}

fn class(claim: &Object) -> &str {
    claim
        .annotation(LEGACY_CLASS)
        .unwrap_or_else(|| text(spec(claim), "storageClassName"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{World, object, request};

    fn claim(class: &str, size: &str, phase: &str) -> Object {
        object(
            json!({"metadata": {"name": "d"}, "status": {"phase": phase},
            "spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}}),
        )
    }

    fn refusal(class: &str, size: &str, phase: &str) -> Option<String> {
        let world = World::default()
            .with(CLASSES, json!({"metadata": {"name": "fix"}}))
            .with(
                CLASSES,
                json!({"metadata": {"name": "grow"}, "allowVolumeExpansion": true}),
            );
        let mut asked = request(Operation::Update, "persistentvolumeclaims", "d");
        asked.old = Some(claim(class, "2Gi", phase));
        let new = claim(class, size, phase);
        let judged = PersistentVolumeClaimResize.validate(&asked.borrow(), Some(&new), &world);
        judged.err().map(|status| status.message)
    }

    #[test]
    fn claims_grow_where_they_may() {
        assert_eq!(refusal("grow", "3Gi", "Bound"), None);
        assert_eq!(refusal("fix", "2Gi", "Bound"), None);
        assert_eq!(
            refusal("grow", "3Gi", "Pending").as_deref(),
            Some(
                "persistentvolumeclaims \"d\" is forbidden: Only bound persistent volume claims \
                 can be expanded"
            )
        );
        for class in ["fix", "lost", ""] {
            let refusal = refusal(class, "3Gi", "Bound").unwrap();
            assert!(
                refusal.contains("must support resize"),
                "{class}: {refusal}"
            );
        }
    }
}
