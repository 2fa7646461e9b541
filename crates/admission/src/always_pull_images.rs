//! AlwaysPullImages: whoever may not pull an image cannot use a copy that somebody else pulled.

use std::collections::BTreeSet;

use meta::object::map_at;
use meta::{FaultKind, Faults, Object, Status};
use serde_json::Value;

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::tree::{list, list_mut, spec, text};

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
const ALWAYS: &str = "Always";

pub(crate) struct AlwaysPullImages;

impl Plugin for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        _lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        if !concerns(request, object) {
            return Ok(());
        }
        map_at(&mut object.0, "spec");
        let Some(spec) = object.0.get_mut("spec") else {
            return Ok(());
        };
        for field in CONTAINERS {
            for container in list_mut(spec, field).filter_map(Value::as_object_mut) {
                container.insert("imagePullPolicy".into(), ALWAYS.into());
            }
        }
        for volume in list_mut(spec, "volumes") {
            if let Some(image) = volume.get_mut("image").and_then(Value::as_object_mut) {
                image.insert("pullPolicy".into(), ALWAYS.into());
            }
        }
        Ok(())
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        _lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let Some(pod) = object.filter(|pod| concerns(request, pod)) else {
            return Ok(());
        };
        let mut faults = Faults::new();
        let mut check = |path: String, policy: &str| {
            if policy != ALWAYS {
                let detail = format!("supported values: \"{ALWAYS}\"");
                faults.add(path, FaultKind::NotSupported, policy.into(), detail);
            }
        };
        for field in CONTAINERS {
            for (index, container) in list(spec(pod), field).enumerate() {
                let path = format!("spec.{field}[{index}].imagePullPolicy");
                check(path, text(container, "imagePullPolicy"));
            }
        }
        for (index, volume) in list(spec(pod), "volumes").enumerate() {
            if let Some(image) = volume.get("image").filter(|image| image.is_object()) {
                let path = format!("spec.volumes[{index}].image.pullPolicy");
                check(path, text(image, "pullPolicy"));
            }
        }
        let refusals: Vec<_> = faults
            .0
            .iter()
            .map(|fault| request.refused(object, &fault.to_string()))
            .collect();
        // Upstream answers several refusals as an error of no kind in particular.
        let messages: Vec<_> = refusals.iter().map(|one| one.message.as_str()).collect();
        match refusals.as_slice() {
            [] => Ok(()),
            [one] => Err(one.clone()),
            _ => Err(Status::internal(format!("[{}]", messages.join(", ")))),
        }
    }
}

/// New pods, and updates that bring new images.
fn concerns(request: &Request<'_>, pod: &Object) -> bool {
    if !request.is_on("pods") {
        return false;
    }
    match (request.operation, request.old) {
        (Operation::Create, _) | (Operation::Update, None) => true,
        (Operation::Update, Some(old)) => {
            let (new, old) = (images(pod), images(old));
            !new.is_subset(&old)
        }
        _ => false,
    }
}

fn images(pod: &Object) -> BTreeSet<&str> {
    let containers = CONTAINERS.iter().flat_map(|field| list(spec(pod), field));
    containers
        .map(|container| text(container, "image"))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{World, object, request};

    #[test]
    fn new_images_are_always_pulled() {
        let given = json!({"metadata": {"name": "web"}, "spec": {
            "containers": [{"name": "a", "image": "x", "imagePullPolicy": "Never"}],
            "volumes": [{"name": "v", "image": {"reference": "y"}}]}});
        let mut pod = object(given.clone());
        let mut asked = request(Operation::Create, "pods", "web");
        let world = World::default();
        let refusal = AlwaysPullImages.validate(&asked.borrow(), Some(&pod), &world);
        assert!(refusal.is_err_and(|status| status.message.contains(
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Never\": supported values: \
             \"Always\""
        )));
        let done = AlwaysPullImages.mutate(&asked.borrow(), &mut pod, &world);
        assert!(done.is_ok());
        assert_eq!(pod.0["spec"]["containers"][0]["imagePullPolicy"], "Always");
        assert_eq!(pod.0["spec"]["volumes"][0]["image"]["pullPolicy"], "Always");
        assert!(
            AlwaysPullImages
                .validate(&asked.borrow(), Some(&pod), &world)
                .is_ok()
        );
        asked.operation = Operation::Update;
        asked.old = Some(object(given.clone()));
        let same = object(given);
        assert!(
            AlwaysPullImages
                .validate(&asked.borrow(), Some(&same), &world)
                .is_ok()
        );
    }
}
