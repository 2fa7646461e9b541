//! Faults in pods and in the templates of pods.

mod containers;
mod handlers;
mod resources;
mod scheduling;
mod security;
mod status;
mod subresource;
#[cfg(test)]
mod tests;
mod update;
mod volumes;

use meta::{Faults, naming};
use serde_json::Value;

pub(crate) use resources::{
    is_extended, is_overcommitted, validate_amount, validate_container_name,
    validate_name as validate_resource_name, validate_overhead,
};
pub(crate) use scheduling::{node_selector, validate_effect, validate_tolerations};
pub(crate) use volumes::{descending, no_backsteps, validate_driver, validate_host_path};

pub(super) use status::validate_status;
pub(super) use subresource::{prepare_subresource, validate_subresource};
pub(super) use update::validate_update;

use crate::metadata::{validate_annotations, validate_labels};
use crate::spot::{Spot, maybe_named, maybe_one_of, one_of, required, rules, unsupported};
use crate::tree::Tree;

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARACTERS_MAX: usize = 2048;

/// Where the specification being validated stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Pod,
    Template,
}

/// Faults of a new pod.
pub(super) fn validate_create(pod: &Value, faults: &mut Faults) {
    validate_pod(pod, faults);
    let spec = Spot::new(pod, "spec");
    if spec.count("ephemeralContainers") > 0 {
        faults.forbidden(spec.path("ephemeralContainers"), "cannot be set on create");
    }
    if !spec.text("nodeName").is_empty() && spec.count("schedulingGates") > 0 {
        let rule = "cannot be set until all schedulingGates have been cleared";
        faults.forbidden(spec.path("nodeName"), rule);
    }
}

/// Faults of any pod, new or changed.
fn validate_pod(pod: &Value, faults: &mut Faults) {
    let spec = Spot::new(pod, "spec");
    let mirror = pod.at("metadata.annotations").get(MIRROR);
    if let Some(mirror) = mirror.filter(|_| spec.text("nodeName").is_empty()) {
        let rule = "must set spec.nodeName if mirror pod annotation is set";
        let path = format!("metadata.annotations[{MIRROR}]");
        faults.invalid(path, mirror.clone(), rule);
    }
    validate_spec(&spec, Place::Pod, pod.text("metadata.name"), faults);
    if spec.text("serviceAccountName").is_empty() {
        for volume in spec.items("volumes") {
            for source in volume.items("projected.sources") {
                if source.has("serviceAccountToken") {
                    let rule = "must not be specified when serviceAccountName is not set";
                    faults.forbidden(source.path("serviceAccountToken"), rule);
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        for container in spec.items(list) {
            containers::untrimmed_image(&container, faults);
        }
    }
}

/// Static pods of a kubelet's own are mirrored with this annotation.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Faults of the template at `path`, such as `spec.template`.
pub(crate) fn validate_template(object: &Value, path: &str, faults: &mut Faults) {
    let template = Spot::new(object, path);
    let labels = template.child("metadata.labels");
    validate_labels(labels.value, &template.path("labels"), faults);
    let annotations = template.child("metadata.annotations");
    validate_annotations(annotations.value, &template.path("annotations"), faults);
    let spec = template.child("spec");
    validate_spec(&spec, Place::Template, "", faults);
    if spec.count("ephemeralContainers") > 0 {
        let rule = "ephemeral containers not allowed in pod template";
        faults.forbidden(spec.path("ephemeralContainers"), rule);
    }
}

fn validate_spec(spec: &Spot<'_>, place: Place, name: &str, faults: &mut Faults) {
    let volumes = volumes::validate_volumes(spec, name, faults);
    resources::validate_claims(spec, faults);
    containers::validate_all(spec, &volumes, faults);
    resources::validate_pod_level(spec, faults);
    validate_host_network(spec, place, faults);
    one_of(
        spec,
        "restartPolicy",
        &["Always", "OnFailure", "Never"],
        faults,
    );
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(spec, "dnsPolicy", &dns, faults);
    validate_labels(spec.at("nodeSelector"), &spec.path("nodeSelector"), faults);
    security::validate_pod_context(spec, faults);
    scheduling::validate_affinity(spec, faults);
    validate_dns(spec, faults);
    for gate in spec.items("readinessGates") {
        let kind = gate.text("conditionType");
        rules(
            faults,
            gate.path("conditionType"),
            kind,
            naming::qualified_name(kind),
        );
    }
    validate_scheduling_gates(spec, faults);
    scheduling::validate_spread(spec, faults);
    security::validate_host_users(spec, faults);
    validate_names(spec, faults);
    scheduling::validate_tolerations(spec, faults);
    validate_host_aliases(spec, faults);
    maybe_one_of(
        spec,
        "preemptionPolicy",
        &["PreemptLowerPriority", "Never"],
        faults,
    );
    if let Some(overhead) = spec.some("overhead") {
        resources::validate_overhead(&overhead, faults);
    }
    if let Some(os) = spec.some("os") {
        match os.text("name") {
            "" => required(&os, "name", faults),
            "linux" | "windows" => {}
            other => unsupported(faults, os.path.clone(), other, &["linux", "windows"]),
        }
    }
}

fn validate_names(spec: &Spot<'_>, faults: &mut Faults) {
    for field in ["serviceAccountName", "nodeName"] {
        maybe_named(spec, field, naming::dns1123_subdomain, faults);
    }
    if let Some(seconds) = spec.maybe_int("activeDeadlineSeconds") {
        let broken = naming::in_range(seconds, 1, i64::from(i32::MAX));
        rules(faults, spec.path("activeDeadlineSeconds"), seconds, broken);
    }
    for field in ["hostname", "subdomain"] {
        maybe_named(spec, field, naming::dns1123_label, faults);
    }
    for field in ["priorityClassName", "runtimeClassName"] {
        maybe_named(spec, field, naming::dns1123_subdomain, faults);
    }
    if spec.has("hostnameOverride") {
        let path = spec.path("hostnameOverride");
        if spec.flag("setHostnameAsFQDN") {
            faults.forbidden(
                path.clone(),
                "may not be specified when setHostnameAsFQDN is true",
            );
        }
        if spec.flag("hostNetwork") {
            faults.forbidden(
                path.clone(),
                "may not be specified when hostNetwork is true",
            );
        }
        let name = spec.text("hostnameOverride");
        if name.len() > 64 {
            faults.too_long(path.clone(), 64);
        }
        rules(faults, path, name, naming::dns1123_subdomain(name));
    }
}

fn validate_host_network(spec: &Spot<'_>, place: Place, faults: &mut Faults) {
    if !spec.flag("hostNetwork") {
        return;
    }
    for container in spec.items("containers") {
        for port in container.items("ports") {
            let host = port.int("hostPort");
            let relevant = place == Place::Pod || host != 0;
            if relevant && host != port.int("containerPort") {
                let rule = "must match `containerPort` when `hostNetwork` is true";
                faults.invalid(port.path("hostPort"), host, rule);
            }
        }
    }
}

fn validate_dns(spec: &Spot<'_>, faults: &mut Faults) {
    let config = spec.child("dnsConfig");
    if spec.text("dnsPolicy") == "None" {
        if config.is_null() {
            let rule = "must provide `dnsConfig` when `dnsPolicy` is None";
            return faults.required(config.path, rule);
        }
        if config.count("nameservers") == 0 {
            let rule = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return faults.required(config.path("nameservers"), rule);
        }
    }
    if config.count("nameservers") > NAMESERVERS_MAX {
        let rule = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        faults.invalid(
            config.path("nameservers"),
            config.at("nameservers").clone(),
            rule,
        );
    }
    for server in config.items("nameservers") {
        let text = server.as_str().unwrap_or("");
        rules(faults, server.path.clone(), text, naming::ip(text));
    }
    let searches = config.at("searches").clone();
    if config.count("searches") > SEARCHES_MAX {
        let rule = format!("must not have more than {SEARCHES_MAX} search paths");
        faults.invalid(config.path("searches"), searches.clone(), rule);
    }
    let joined: Vec<_> = config.texts("searches").collect();
    if joined.join(" ").len() > SEARCH_CHARACTERS_MAX {
        let rule = format!(
            "must not have more than {SEARCH_CHARACTERS_MAX} characters (including spaces) in \
             the search list"
        );
        faults.invalid(config.path("searches"), searches, rule);
    }
    for search in config.items("searches") {
        let text = search.as_str().unwrap_or("");
        if text != "." {
            let text = text.strip_suffix('.').unwrap_or(text);
            // Underscores are allowed here, as service names of other systems have them.
            let broken = naming::dns1123_subdomain(&text.replace('_', "a"));
            rules(faults, search.path.clone(), text, broken);
        }
    }
    for option in config.items("options") {
        if option.text("name").is_empty() {
            faults.required(option.path.clone(), "must not be empty");
        }
    }
}

fn validate_scheduling_gates(spec: &Spot<'_>, faults: &mut Faults) {
    let mut seen = Vec::new();
    for gate in spec.items("schedulingGates") {
        let name = gate.text("name").to_owned();
        rules(
            faults,
            gate.path.clone(),
            name.as_str(),
            naming::qualified_name(&name),
        );
        if seen.contains(&name) {
            faults.duplicate(gate.path.clone(), name.as_str());
        }
        seen.push(name);
    }
}

fn validate_host_aliases(spec: &Spot<'_>, faults: &mut Faults) {
    for alias in spec.items("hostAliases") {
        let ip = alias.text("ip");
        rules(faults, alias.path("ip"), ip, naming::ip(ip));
        for name in alias.items("hostnames") {
            let text = name.as_str().unwrap_or("");
            rules(
                faults,
                name.path.clone(),
                text,
                naming::dns1123_subdomain(text),
            );
        }
    }
}
