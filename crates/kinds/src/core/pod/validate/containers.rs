//! Faults in containers of all three lists.

use std::collections::BTreeSet;

use meta::{Faults, naming};
use serde_json::Value;

use super::volumes::{self, Volumes};
use super::{handlers, resources, security};
use crate::spot::{Spot, is_empty, named, one_of, required, rules, unsupported};
use crate::tree::Tree;

const RULES_MAX: usize = 20;

/// Faults in init, main and ephemeral containers.
pub(super) fn validate_all(spec: &Spot<'_>, volumes: &Volumes<'_>, faults: &mut Faults) {
    if spec.count("containers") == 0 {
        faults.required(spec.path("containers"), "");
    }
    let mut names = BTreeSet::new();
    let mut ports = BTreeSet::new();
    for container in spec.items("containers") {
        validate_common(&container, spec, volumes, faults);
        unique_name(&container, &mut names, faults);
        handlers::validate_lifecycle(&container, spec, faults);
        handlers::validate_probes(&container, spec, faults);
        validate_restart_rules(&container, faults);
    }
    for container in spec.items("containers") {
        unique_host_ports(&container, &mut ports, faults);
    }
    for container in spec.items("initContainers") {
        validate_common(&container, spec, volumes, faults);
        validate_restart_rules(&container, faults);
        unique_name(&container, &mut names, faults);
        unique_host_ports(&container, &mut BTreeSet::new(), faults);
        validate_init(&container, spec, faults);
    }
    validate_ephemeral(spec, volumes, names, faults);
}

/// Spaces around an image's name are a slip of the pen.
pub(super) fn untrimmed_image(container: &Spot<'_>, faults: &mut Faults) {
    let image = container.text("image");
    if image.trim().len() != image.len() {
        let rule = "must not have leading or trailing whitespace";
        faults.invalid(container.path("image"), image, rule);
    }
}

fn unique_name(container: &Spot<'_>, names: &mut BTreeSet<String>, faults: &mut Faults) {
    let name = container.text("name");
    if !name.is_empty() && !names.insert(name.to_owned()) {
        faults.duplicate(container.path("name"), name);
    }
}

fn unique_host_ports(container: &Spot<'_>, ports: &mut BTreeSet<String>, faults: &mut Faults) {
    for port in container
        .items("ports")
        .filter(|port| port.int("hostPort") != 0)
    {
        let (protocol, ip) = (port.text("protocol"), port.text("hostIP"));
        let key = format!("{protocol}/{ip}/{}", port.int("hostPort"));
        if !ports.insert(key.clone()) {
            faults.duplicate(port.path("hostPort"), key);
        }
    }
}

fn validate_common(
    container: &Spot<'_>,
    spec: &Spot<'_>,
    volumes: &Volumes<'_>,
    faults: &mut Faults,
) {
    named(container, "name", naming::dns1123_label, faults);
    required(container, "image", faults);
    let policies = ["File", "FallbackToLogsOnError"];
    one_of(container, "terminationMessagePolicy", &policies, faults);
    validate_ports(container, faults);
    for variable in container.items("env") {
        validate_variable(&variable, faults);
        validate_file_source(&variable, volumes, faults);
    }
    for source in container.items("envFrom") {
        validate_source(&source, &container.path("envFrom"), faults);
    }
    volumes::validate_mounts(container, volumes, faults);
    volumes::validate_devices(container, volumes, faults);
    let policies = ["Always", "IfNotPresent", "Never"];
    one_of(container, "imagePullPolicy", &policies, faults);
    resources::validate_container(&container.child("resources"), spec, faults);
    validate_resize(container, spec, faults);
    let host_users = spec.at("hostUsers") != &Value::Bool(false);
    security::validate_context(&container.child("securityContext"), host_users, faults);
}

fn validate_ports(container: &Spot<'_>, faults: &mut Faults) {
    let mut names = BTreeSet::new();
    for port in container.items("ports") {
        let name = port.text("name").to_owned();
        if !name.is_empty() {
            let broken = naming::port_name(&name);
            if !broken.is_empty() {
                rules(faults, port.path("name"), name, broken);
            } else if !names.insert(name.clone()) {
                faults.duplicate(port.path("name"), name);
            }
        }
        match port.int("containerPort") {
            0 => faults.required(port.path("containerPort"), ""),
            number => {
                let broken = naming::port_number(number);
                rules(faults, port.path("containerPort"), number, broken);
            }
        }
        if port.int("hostPort") != 0 {
            let number = port.int("hostPort");
            rules(
                faults,
                port.path("hostPort"),
                number,
                naming::port_number(number),
            );
        }
        one_of(&port, "protocol", &["SCTP", "TCP", "UDP"], faults);
    }
}

fn validate_variable(variable: &Spot<'_>, faults: &mut Faults) {
    named(variable, "name", naming::environment_variable, faults);
    let Some(from) = variable.some("valueFrom") else {
        return;
    };
    let mut count = 0;
    if let Some(field) = from.some("fieldRef") {
        count += 1;
        const FIELDS: [&str; 9] = [
            "metadata.name",
            "metadata.namespace",
            "metadata.uid",
            "spec.nodeName",
            "spec.serviceAccountName",
            "status.hostIP",
            "status.hostIPs",
            "status.podIP",
            "status.podIPs",
        ];
        validate_field_ref(&field, &FIELDS, faults);
    }
    if let Some(resource) = from.some("resourceFieldRef") {
        count += 1;
        resources::validate_field_ref(&resource, faults);
    }
    for source in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(source) = from.some(source) {
            count += 1;
            let name = source.text("name");
            rules(
                faults,
                source.path("name"),
                name,
                naming::dns1123_subdomain(name),
            );
            named(&source, "key", naming::config_key, faults);
        }
    }
    if let Some(file) = from.some("fileKeyRef") {
        count += 1;
        required(&file, "key", faults);
        required(&file, "volumeName", faults);
        volumes::validate_local_path(&file, "path", faults);
    }
    let rule = match count {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, \
             `secretKeyRef` or `fileKeyRef`"
        }
        _ if !variable.text("value").is_empty() => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    faults.invalid(from.path, "", rule);
}

/// Files of variables come from empty directories that init containers fill.
fn validate_file_source(variable: &Spot<'_>, volumes: &Volumes<'_>, faults: &mut Faults) {
    let Some(file) = variable.some("valueFrom.fileKeyRef") else {
        return;
    };
    let name = file.text("volumeName");
    match volumes.get(name) {
        None => faults.not_found(file.path("volumeName"), name),
        Some(volume) if !volume.has("emptyDir") => {
            let rule = "referenced volume must be of type emptyDir";
            faults.invalid(file.path("volumeName"), name, rule);
        }
        Some(_) => {}
    }
}

/// Fields of which one item may be meant.
const SUBSCRIPTED: [&str; 2] = ["metadata.annotations", "metadata.labels"];
/// Fields of pods that have a name in this version of the API.
const CONVERTED: [&str; 15] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "spec.host",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// A field of the pod itself, as variables and downward volumes have it.
pub(super) fn validate_field_ref(field: &Spot<'_>, fields: &[&str], faults: &mut Faults) {
    for part in ["apiVersion", "fieldPath"] {
        if field.text(part).is_empty() {
            return faults.required(field.path(part), "");
        }
    }
    let path = field.text("fieldPath");
    let subscript = path.split_once("['").and_then(|(path, rest)| {
        let key = rest.strip_suffix("']")?;
        Some((path, key))
    });
    let path_spot = field.path("fieldPath");
    let unknown = if field.text("apiVersion") != "v1" {
        format!("unsupported pod version: {}", field.text("apiVersion"))
    } else if subscript.is_some_and(|(path, _)| !SUBSCRIPTED.contains(&path)) {
        format!("field label does not support subscript: {path}")
    } else if subscript.is_none() && !CONVERTED.contains(&path) {
        format!("field label not supported: {path}")
    } else {
        String::new()
    };
    if !unknown.is_empty() {
        let rule = format!("error converting fieldPath: {unknown}");
        return faults.invalid(path_spot, path, rule);
    }
    match subscript {
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            let broken = naming::qualified_name(&key);
            rules(faults, field.path.clone(), key, broken);
        }
        Some(("metadata.labels", key)) => {
            rules(faults, field.path.clone(), key, naming::qualified_name(key));
        }
        Some((path, _)) => faults.invalid(field.path.clone(), path, "does not support subscript"),
        None if fields.contains(&path) => {}
        None if path == "spec.host" && fields.contains(&"spec.nodeName") => {}
        None => unsupported(faults, path_spot, path, fields),
    }
}

fn validate_source(source: &Spot<'_>, list: &str, faults: &mut Faults) {
    let prefix = source.text("prefix");
    if !prefix.is_empty() {
        let broken = naming::environment_variable(prefix);
        rules(faults, source.path("prefix"), prefix, broken);
    }
    let mut count = 0;
    for kind in ["configMapRef", "secretRef"] {
        if let Some(reference) = source.some(kind) {
            count += 1;
            named(&reference, "name", naming::dns1123_subdomain, faults);
        }
    }
    match count {
        0 => faults.invalid(
            list,
            "",
            "must specify one of: `configMapRef` or `secretRef`",
        ),
        1 => {}
        _ => {
            let rule = "may not have more than one field specified at a time";
            faults.invalid(list, "", rule);
        }
    }
}

fn validate_resize(container: &Spot<'_>, spec: &Spot<'_>, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    let path = container.path("resizePolicy");
    for policy in container.items("resizePolicy") {
        let resource = policy.text("resourceName");
        if !seen.insert(resource.to_owned()) {
            faults.duplicate(policy.path.clone(), resource);
        }
        match resource {
            "cpu" | "memory" => {}
            "" => faults.required(path.clone(), ""),
            other => unsupported(faults, path.clone(), other, &["cpu", "memory"]),
        }
        let restart = policy.text("restartPolicy");
        match restart {
            "NotRequired" | "RestartContainer" => {}
            "" => faults.required(path.clone(), ""),
            other => {
                let words = ["NotRequired", "RestartContainer"];
                unsupported(faults, path.clone(), other, &words);
            }
        }
        if spec.text("restartPolicy") == "Never" && restart != "NotRequired" {
            let rule = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            faults.invalid(path.clone(), restart, rule);
        }
    }
}

fn validate_restart_rules(container: &Spot<'_>, faults: &mut Faults) {
    let count = container.count("restartPolicyRules");
    match container.at("restartPolicy") {
        Value::Null if count > 0 => {
            let rule = "must specify restartPolicy when restart rules are used";
            faults.required(container.path("restartPolicy"), rule);
        }
        Value::Null => {}
        policy => {
            let words = ["Always", "Never", "OnFailure"];
            if !words.contains(&policy.as_str().unwrap_or("")) {
                unsupported(
                    faults,
                    container.path("restartPolicy"),
                    policy.clone(),
                    &words,
                );
            }
        }
    }
    if count > RULES_MAX {
        faults.too_many(container.path("restartPolicyRules"), count, RULES_MAX);
    }
    for rule in container.items("restartPolicyRules") {
        let actions = ["Restart", "RestartAllContainers"];
        if !actions.contains(&rule.text("action")) {
            unsupported(faults, rule.path("action"), rule.text("action"), &actions);
        }
        match rule.some("exitCodes") {
            None => faults.required(rule.path("exitCodes"), "must be specified"),
            Some(codes) if !matches!(codes.text("operator"), "In" | "NotIn") => {
                let operator = codes.text("operator");
                unsupported(faults, codes.path("operator"), operator, &["In", "NotIn"]);
            }
            Some(_) => {}
        }
    }
}

fn validate_init(container: &Spot<'_>, spec: &Spot<'_>, faults: &mut Faults) {
    if container.text("restartPolicy") == "Always" {
        handlers::validate_lifecycle(container, spec, faults);
        handlers::validate_probes(container, spec, faults);
        return;
    }
    for field in [
        "lifecycle",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
    ] {
        if container.has(field) {
            let rule = "may not be set for init containers without restartPolicy=Always";
            faults.forbidden(container.path(field), rule);
        }
    }
    for policy in container.items("resizePolicy") {
        if policy.text("restartPolicy") == "RestartContainer" {
            let rule = "must not be set to 'RestartContainer' for non-sidecar initContainers";
            faults.invalid(policy.path("restartPolicy"), "RestartContainer", rule);
        }
    }
}

fn validate_ephemeral(
    spec: &Spot<'_>,
    volumes: &Volumes<'_>,
    others: BTreeSet<String>,
    faults: &mut Faults,
) {
    const RULE: &str = "cannot be set for an Ephemeral Container";
    const BANNED: [&str; 8] = [
        "ports",
        "resources",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
        "restartPolicy",
        "resizePolicy",
    ];
    let mut names = others.clone();
    for container in spec.items("ephemeralContainers") {
        validate_common(&container, spec, volumes, faults);
        untrimmed_image(&container, faults);
        unique_name(&container, &mut names, faults);
        let target = container.text("targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            faults.not_found(container.path("targetContainerName"), target);
        }
        for field in BANNED.iter().filter(|field| !is_empty(container.at(field))) {
            faults.forbidden(container.path(field), RULE);
        }
        for mount in container.items("volumeMounts") {
            for field in ["subPath", "subPathExpr"] {
                if !mount.text(field).is_empty() {
                    faults.forbidden(mount.path(field), RULE);
                }
            }
        }
    }
}
