//! What is allowed in pods but hardly meant.

use serde_json::Value;

use super::defaults::CONTAINER_LISTS;
use crate::spot::{Spot, amount};
use crate::table::quantity;
use crate::tree::Tree;

/// Volumes of storage that no longer works, and since when.
const GONE_VOLUMES: [(&str, &str); 7] = [
    (
        "photonPersistentDisk",
        "deprecated in v1.11, non-functional in v1.16+",
    ),
    (
        "gitRepo",
        "deprecated in v1.11, and disabled by default in v1.33+",
    ),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Names that become part of host names should fit there; `whose` says what they are used in.
pub(crate) fn host_name(object: &Value, whose: &str) -> Option<String> {
    let broken = meta::naming::dns1123_label(object.text("metadata.name"));
    (!broken.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in {whose}, which can result in surprising behavior; a \
             DNS label is recommended: [{}]",
            broken.join(" ")
        )
    })
}

/// Warnings about the pod specification at `path`.
pub(crate) fn of_spec(object: &Value, path: &str) -> Vec<String> {
    let spec = Spot::new(object, path);
    let mut warnings = Vec::new();
    for volume in spec.items("volumes") {
        let gone = GONE_VOLUMES.iter().filter(|(source, _)| volume.has(source));
        warnings.extend(gone.map(|(source, since)| format!("{}: {since}", volume.path(source))));
    }
    let mut seen = Vec::new();
    for secret in spec.items("imagePullSecrets") {
        let name = secret.text("name").to_owned();
        let path = secret.path("name");
        if name.is_empty() {
            warnings.push(format!("{path}: invalid empty name \"\""));
        } else if seen.contains(&name) {
            warnings.push(format!("{path}: duplicate name \"{name}\""));
        }
        seen.push(name);
    }
    for container in CONTAINER_LISTS.iter().flat_map(|list| spec.items(list)) {
        fractions(&container, &mut warnings);
        hidden_variables(&container, &mut warnings);
    }
    warnings.extend(shared_ports(&spec));
    let grace = spec.maybe_int("terminationGracePeriodSeconds");
    if grace.is_some_and(|seconds| seconds < 0) {
        let path = spec.path("terminationGracePeriodSeconds");
        warnings.push(format!(
            "{path}: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    warnings
}

/// Two containers of a pod cannot both listen on a port.
fn shared_ports(spec: &Spot<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut seen: Vec<Spot<'_>> = Vec::new();
    let containers = CONTAINER_LISTS.iter().flat_map(|list| spec.items(list));
    for port in containers.flat_map(|container| container.items("ports").collect::<Vec<_>>()) {
        let alike = |other: &&Spot<'_>| {
            let number = other.int("containerPort") == port.int("containerPort");
            number && other.text("protocol") == port.text("protocol")
        };
        for other in seen.iter().filter(alike) {
            let (here, there) = (port.int("hostPort"), other.int("hostPort"));
            let (ip, other_ip) = (port.text("hostIP"), other.text("hostIP"));
            let what = if here == there && ip == other_ip {
                "duplicate"
            } else if here == 0 || there == 0 {
                "overlapping"
            } else if here == there && ip.is_empty() != other_ip.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            warnings.push(format!(
                "{}: {what} port definition with {}",
                port.path, other.path
            ));
        }
        seen.push(port);
    }
    warnings
}

/// Bytes come whole.
fn fractions(container: &Spot<'_>, warnings: &mut Vec<String>) {
    for resource in ["memory", "ephemeral-storage"] {
        for list in ["limits", "requests"] {
            let list = container.child(&format!("resources.{list}"));
            let Some(value) = list.get(resource) else {
                continue;
            };
            if amount(value).is_some_and(|amount| amount.milli() % 1000 != 0) {
                warnings.push(format!(
                    "{}: fractional byte value \"{}\" is invalid, must be an integer",
                    list.entry_path(resource),
                    quantity(value)
                ));
            }
        }
    }
}

/// A variable that is set twice is fine only where the second time uses the first.
fn hidden_variables(container: &Spot<'_>, warnings: &mut Vec<String>) {
    let mut seen = Vec::new();
    for variable in container.items("env") {
        let name = variable.text("name").to_owned();
        let reference = format!("$({name})");
        let value = variable.text("value");
        let lost = value == reference || !value.contains(&reference);
        if seen.contains(&name) && lost {
            warnings.push(format!(
                "{}: hides previous definition of \"{name}\", which may be dropped when using \
                 apply",
                variable.path
            ));
        }
        seen.push(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(spec: Value, expected: &[&str]) {
        assert_eq!(of_spec(&json!({ "spec": spec }), "spec"), expected);
    }

    #[test]
    fn slips_are_pointed_out() {
        let env =
            json!([{"name": "A"}, {"name": "A", "value": "x"}, {"name": "A", "value": "$(A)1"}]);
        check(
            json!({"containers": [{"env": env, "resources": {"requests": {"memory": "128m"}}}]}),
            &[
                "spec.containers[0].resources.requests[memory]: fractional byte value \"128m\" \
                 is invalid, must be an integer",
                "spec.containers[0].env[1]: hides previous definition of \"A\", which may be \
                 dropped when using apply",
            ],
        );
        check(
            json!({"volumes": [{"rbd": {}}]}),
            &["spec.volumes[0].rbd: deprecated in v1.28, non-functional in v1.31+"],
        );
    }
}
