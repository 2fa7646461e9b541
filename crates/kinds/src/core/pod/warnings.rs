//! What is allowed in pods but hardly meant.

use std::collections::HashSet;

use serde_json::Value;

use super::defaults::CONTAINER_LISTS;
use crate::spot::Spot;
use crate::tree::Tree;
use crate::warnings as common;

/// Volumes of storage that no longer works, and since when.
const GONE_VOLUMES: [(&str, &str); 9] = [
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
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Annotations that do nothing any more.
const GONE_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

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

/// Warnings about a new pod.
pub(super) fn of_pod(pod: &Value) -> Vec<String> {
    let mut warnings: Vec<_> = host_name(pod, "the Pod's hostname").into_iter().collect();
    warnings.extend(of(&Spot::new(pod, "")));
    warnings
}

/// Warnings about the template at `path` of a new object.
pub(crate) fn of_template(object: &Value, path: &str) -> Vec<String> {
    of(&Spot::new(object, path))
}

/// The same for an object that was changed.
pub(crate) fn of_changed_template(object: &Value, old: &Value, path: &str) -> Vec<String> {
    let generation = |object: &Value| object.int("metadata.generation");
    match generation(object) == generation(old) {
        true => Vec::new(),
        false => of_template(object, path),
    }
}

/// Warnings about a pod or a template, in upstream's order.
fn of(pod: &Spot<'_>) -> Vec<String> {
    let spec = pod.child("spec");
    let mut warnings = node_labels(&spec);
    warnings.extend(spread(&spec));
    warnings.extend(common::annotations(pod, &GONE_ANNOTATIONS));
    for volume in spec.items("volumes") {
        let gone = GONE_VOLUMES.iter().filter(|(source, _)| volume.has(source));
        warnings.extend(gone.map(|(source, since)| format!("{}: {since}", volume.path(source))));
        if let Some(claim) = volume.some("ephemeral.volumeClaimTemplate.spec") {
            warnings.extend(common::claim_spec(&claim));
        }
    }
    warnings.extend(super::paths::overlapping(&spec));
    warnings.extend(repeated(&spec, "hostAliases", "ip"));
    warnings.extend(repeated(&spec, "imagePullSecrets", "name"));
    for secret in spec.items("imagePullSecrets") {
        if secret.text("name").is_empty() {
            warnings.push(format!("{}: invalid empty name \"\"", secret.path("name")));
        }
    }
    let bytes = ["memory", "ephemeral-storage"];
    if let Some(overhead) = spec.some("overhead") {
        let own = bytes.iter();
        warnings.extend(own.filter_map(|own| common::fraction(&overhead, own)));
    }
    let annotations = pod.some("metadata.annotations");
    if let Some(annotations) = annotations.filter(|own| own.get(SECCOMP_POD).is_some())
        && !spec.has("securityContext.seccompProfile")
    {
        warnings.push(format!(
            "{}: {SECCOMP}",
            annotations.entry_path(SECCOMP_POD)
        ));
    }
    let containers = || CONTAINER_LISTS.iter().flat_map(|list| spec.items(list));
    for container in containers() {
        profiles(&container, pod, &mut warnings);
        let lists = ["resources.limits", "resources.requests"];
        let lists = lists.map(|list| container.some(list));
        for resource in bytes {
            let fractions = lists.iter().flatten();
            warnings.extend(fractions.filter_map(|list| common::fraction(list, resource)));
        }
        hidden_variables(&container, &mut warnings);
    }
    warnings.extend(shared_ports(&spec));
    warnings.extend(shared_names(&spec));
    let grace = spec.maybe_int("terminationGracePeriodSeconds");
    if grace.is_some_and(|seconds| seconds < 0) {
        let path = spec.path("terminationGracePeriodSeconds");
        warnings.push(format!(
            "{path}: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    warnings.extend(null_selectors(&spec));
    warnings.extend(common::each(
        spec.items("dnsConfig.nameservers"),
        common::ip,
    ));
    let aliases = spec.items("hostAliases").map(|alias| alias.child("ip"));
    warnings.extend(common::each(aliases, common::ip));
    warnings
}

/// Labels of nodes that have other names today.
fn node_labels(spec: &Spot<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(selector) = spec.some("nodeSelector") {
        for (key, _) in selector.fields("") {
            if let Some(what) = common::node_label(key) {
                warnings.push(format!("{}: {what}", selector.entry_path(key)));
            }
        }
    }
    let Some(affinity) = spec.some("affinity.nodeAffinity") else {
        return warnings;
    };
    for term in affinity.child(REQUIRED).items("nodeSelectorTerms") {
        warnings.extend(common::expressions(&term));
    }
    for term in affinity.items(PREFERRED) {
        warnings.extend(common::preference(&term.child("preference")));
    }
    warnings
}

fn spread(spec: &Spot<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    for constraint in spec.items("topologySpreadConstraints") {
        let key = constraint.text("topologyKey");
        if let Some(message) = common::node_label(key) {
            let path = constraint.path("topologyKey");
            warnings.push(format!("{path}: {key} is {message}"));
        }
        if !constraint.has("labelSelector") {
            warnings.push(format!(
                "{}: {NULL_SELECTOR}",
                constraint.path("labelSelector")
            ));
        }
    }
    warnings
}

/// Terms of affinity that match no pod.
fn null_selectors(spec: &Spot<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = spec.some("affinity").and_then(|own| own.some(kind)) else {
            continue;
        };
        let weighted = affinity.items(PREFERRED);
        let terms = affinity
            .items(REQUIRED)
            .chain(weighted.map(|one| one.child("podAffinityTerm")));
        let null = terms.filter(|term| !term.has("labelSelector"));
        warnings
            .extend(null.map(|term| format!("{}: {NULL_SELECTOR}", term.path("labelSelector"))));
    }
    warnings
}

/// Items of a list that say the same as one before.
fn repeated(spec: &Spot<'_>, list: &str, field: &str) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut again = Vec::new();
    for item in spec.items(list) {
        let text = item.text(field);
        if !seen.insert(text.to_owned()) {
            again.push(format!(
                "{}: duplicate {field} \"{text}\"",
                item.path(field)
            ));
        }
    }
    again
}

/// Annotations that were fields of a container's security before there were such.
fn profiles(container: &Spot<'_>, pod: &Spot<'_>, warnings: &mut Vec<String>) {
    let Some(annotations) = pod.some("metadata.annotations") else {
        return;
    };
    let name = container.text("name");
    let key = format!("{SECCOMP_CONTAINER}{name}");
    if annotations.get(&key).is_some() && !container.has("securityContext.seccompProfile") {
        warnings.push(format!("{}: {SECCOMP}", annotations.entry_path(&key)));
    }
    // Those of pods themselves become fields.
    let field = "securityContext.appArmorProfile";
    if pod.path.is_empty() || container.has(field) {
        return;
    }
    let key = format!("{APP_ARMOR}{name}");
    let Some(value) = annotations.get(&key).and_then(Value::as_str) else {
        return;
    };
    let own = pod.child("spec").child(field);
    if own.is_null() || !is_profile(&own, value) {
        let path = annotations.entry_path(&key);
        warnings.push(format!(
            "{path}: deprecated since v1.30; use the \"appArmorProfile\" field instead"
        ));
    }
}

/// Whether a profile is what an annotation says.
fn is_profile(profile: &Value, annotation: &str) -> bool {
    let (kind, local) = (profile.text("type"), profile.text("localhostProfile"));
    match annotation {
        "unconfined" => kind == "Unconfined",
        "runtime/default" => kind == "RuntimeDefault",
        other => other.strip_prefix("localhost/") == Some(local) && kind == "Localhost",
    }
}

/// Two containers of a pod cannot both listen on a port.
fn shared_ports(spec: &Spot<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut seen: Vec<Spot<'_>> = Vec::new();
    let containers = CONTAINER_LISTS.iter().flat_map(|list| spec.items(list));
    for port in containers.flat_map(|container| container.items("ports").collect::<Vec<_>>()) {
        if !port.text("hostIP").is_empty() && port.int("hostPort") == 0 {
            warnings.push(format!(
                "{}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} \
                 Protocol:{} HostIP:{}}}",
                port.path,
                port.text("name"),
                port.int("containerPort"),
                port.text("protocol"),
                port.text("hostIP"),
            ));
        }
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

/// Ports are found by their names, which only one can have.
fn shared_names(spec: &Spot<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut seen: Vec<Spot<'_>> = Vec::new();
    let containers = CONTAINER_LISTS.iter().flat_map(|list| spec.items(list));
    for port in containers.flat_map(|container| container.items("ports").collect::<Vec<_>>()) {
        let name = port.text("name");
        if name.is_empty() {
            continue;
        }
        match seen.iter().find(|other| other.text("name") == name) {
            Some(Spot { path, .. }) => warnings.push(format!(
                "{}: duplicate port name \"{name}\" with {path}, services and probes that select \
                 ports by name will use {path}",
                port.path
            )),
            None => seen.push(port),
        }
    }
    warnings
}

/// A variable that is set twice is fine only where the second time uses the first.
fn hidden_variables(container: &Spot<'_>, warnings: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for variable in container.items("env") {
        let name = variable.text("name");
        if seen.insert(name.to_owned()) {
            continue;
        }
        let reference = format!("$({name})");
        let value = variable.text("value");
        if variable.has("valueFrom") || value == reference || !value.contains(&reference) {
            warnings.push(format!(
                "{}: hides previous definition of \"{name}\", which may be dropped when using \
                 apply",
                variable.path
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(spec: Value, expected: &[&str]) {
        assert_eq!(of_template(&json!({ "spec": spec }), ""), expected);
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

    #[test]
    fn what_no_longer_works_is_named() {
        let term = json!({"matchExpressions": [{"key": "beta.kubernetes.io/os",
            "operator": "In", "values": ["a b"]}]});
        let bare = json!({"topologyKey": "x"});
        let pod = json!({"template": {
        "metadata": {"annotations": {
            "security.alpha.kubernetes.io/sysctls": "", SECCOMP_POD: "x",
            "container.apparmor.security.beta.kubernetes.io/c": "unconfined"}},
        "spec": {
            "nodeSelector": {"node-role.kubernetes.io/master": ""},
            "affinity": {
                "nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [term]},
                    PREFERRED: [{"preference": term}]},
                "podAffinity": {PREFERRED: [{"podAffinityTerm": bare}]}},
            "topologySpreadConstraints": [{"topologyKey":
                "failure-domain.beta.kubernetes.io/zone"}],
            "hostAliases": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.1"}],
            "imagePullSecrets": [{"name": "a"}, {"name": "a"}, {}],
            "containers": [{"name": "c", "ports": [
                {"name": "p", "containerPort": 1, "hostIP": "127.0.0.1"},
                {"name": "p", "containerPort": 2}]}],
            "dnsConfig": {"nameservers": ["2001:DB8::1"]},
        }}});
        let os =
            "beta.kubernetes.io/os is deprecated since v1.14; use \"kubernetes.io/os\" instead";
        let value = naming_rule();
        let node = "template.spec.affinity.nodeAffinity";
        let expected = [
            "template.spec.nodeSelector[node-role.kubernetes.io/master]: use \
             \"node-role.kubernetes.io/control-plane\" instead"
                .to_owned(),
            format!("{node}.{REQUIRED}.nodeSelectorTerms[0].matchExpressions[0].key: {os}"),
            format!("{node}.{PREFERRED}[0].preference.matchExpressions[0].key: {os}"),
            format!(
                "{node}.{PREFERRED}[0].preference.matchExpressions[0].values[0]: a b is invalid, \
                 {value}"
            ),
            "template.spec.topologySpreadConstraints[0].topologyKey: \
             failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use \
             \"topology.kubernetes.io/zone\" instead"
                .to_owned(),
            format!("template.spec.topologySpreadConstraints[0].labelSelector: {NULL_SELECTOR}"),
            "template.metadata.annotations[security.alpha.kubernetes.io/sysctls]: non-functional \
             in v1.11+; use the \"sysctls\" field instead"
                .to_owned(),
            "template.spec.hostAliases[1].ip: duplicate ip \"10.0.0.1\"".to_owned(),
            "template.spec.imagePullSecrets[1].name: duplicate name \"a\"".to_owned(),
            "template.spec.imagePullSecrets[2].name: invalid empty name \"\"".to_owned(),
            format!("template.metadata.annotations[{SECCOMP_POD}]: {SECCOMP}"),
            "template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: \
             deprecated since v1.30; use the \"appArmorProfile\" field instead"
                .to_owned(),
            "template.spec.containers[0].ports[0]: hostIP set without hostPort: {Name:p \
             HostPort:0 ContainerPort:1 Protocol: HostIP:127.0.0.1}"
                .to_owned(),
            "template.spec.containers[0].ports[1]: duplicate port name \"p\" with \
             template.spec.containers[0].ports[0], services and probes that select ports by name \
             will use template.spec.containers[0].ports[0]"
                .to_owned(),
            format!(
                "template.spec.affinity.podAffinity.{PREFERRED}[0].podAffinityTerm.labelSelector: \
                 {NULL_SELECTOR}"
            ),
            "template.spec.dnsConfig.nameservers[0]: IPv6 address \"2001:DB8::1\" should be in \
             RFC 5952 canonical format (\"2001:db8::1\")"
                .to_owned(),
        ];
        assert_eq!(of_template(&pod, "template"), expected);
    }

    fn naming_rule() -> String {
        meta::naming::label_value("a b").remove(0)
    }
}
