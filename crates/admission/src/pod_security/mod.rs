//! PodSecurity: pods keep to the standard that their namespace's labels ask for.
//!
//! Pods that break what is enforced are refused. Pods, and workloads that would make such pods,
//! are warned of and audited. A namespace whose standard gets stricter is told which of its pods
//! break it.

mod checks;
mod config;
mod standard;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meta::{Object, Status};
use serde_json::Value;

use self::checks::{Pod, details, findings, reasons};
use self::config::Config;
use self::standard::{Level, Policy, Standard, policy};
use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::settings::ConfigError;
use crate::tree::{list, text};

/// Of more pods than this a namespace is not told.
const PODS_CHECKED_MAX: usize = 3000;
/// Writes to these leave alone what is checked.
const PLAIN_SUBRESOURCES: [&str; 8] = [
    "exec",
    "attach",
    "binding",
    "eviction",
    "log",
    "portforward",
    "proxy",
    "status",
];

#[derive(Default)]
pub(crate) struct PodSecurity {
    config: Config,
}

impl PodSecurity {
    /// The plugin as an AdmissionConfiguration wants it.
    pub(crate) fn new(config: &Value) -> Result<PodSecurity, ConfigError> {
        let config = Config::read(config)?;
        Ok(PodSecurity { config })
    }

    fn policy(&self, namespace: &Object) -> (Policy, meta::Faults) {
        policy(labels(namespace), self.config.defaults)
    }

    /// Who or what is let through unseen.
    fn exemption(&self, request: &Request<'_>) -> Option<&'static str> {
        let has = |list: &[String], name: &str| list.iter().any(|one| one == name);
        if has(&self.config.namespaces, request.namespace) {
            return Some("namespace");
        }
        has(&self.config.users, &request.user.name).then_some("user")
    }

    fn is_exempt_class(&self, spec: &Value) -> bool {
        let class = text(spec, "runtimeClassName");
        !class.is_empty() && self.config.runtime_classes.iter().any(|one| one == class)
    }

    fn namespace(
        &self,
        request: &Request<'_>,
        namespace: &Object,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        if !request.subresource.is_empty() {
            return Ok(());
        }
        let (new, faults) = self.policy(namespace);
        let before = match request.operation {
            Operation::Update => request.old.map(|old| self.policy(old)),
            _ => None,
        };
        let known = before.as_ref().is_some_and(|(_, old)| *old == faults);
        if !faults.is_empty() && !known {
            return Err(Status::invalid(request.names, namespace.name(), &faults));
        }
        let exempt = self.config.namespaces.iter();
        let is_exempt = exempt.into_iter().any(|name| name == namespace.name());
        let Some((old, _)) = before else {
            if is_exempt {
                self.warn_exempt(request, namespace, &new);
            }
            return Ok(());
        };
        let (now, then) = (new.enforce, old.enforce);
        let relaxed = now.version == then.version && now.level <= then.level;
        if now == then || now.level == Level::Privileged || relaxed {
            return Ok(());
        }
        match is_exempt {
            true => self.warn_exempt(request, namespace, &new),
            false => self.warn_of_pods(request, namespace.name(), now, lookup),
        }
        Ok(())
    }

    fn warn_exempt(&self, request: &Request<'_>, namespace: &Object, policy: &Policy) {
        if policy.is_privileged() || policy.equivalent(&self.config.defaults) {
            return;
        }
        let named = policy.named(labels(namespace));
        let name = namespace.name();
        request.notes.warn(format!(
            "namespace {name:?} is exempt from Pod Security, and the policy ({named}) will be \
             ignored"
        ));
    }

    fn warn_of_pods(
        &self,
        request: &Request<'_>,
        namespace: &str,
        standard: Standard,
        lookup: &dyn Lookup,
    ) {
        let pods = self.prioritized(lookup.list("pods", namespace));
        let mut broken: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for pod in pods.iter().take(PODS_CHECKED_MAX) {
            let found = findings(standard, view(&pod.0));
            if !found.is_empty() {
                broken
                    .entry(reasons(&found))
                    .or_default()
                    .insert(pod.name());
            }
        }
        if pods.len() > PODS_CHECKED_MAX {
            request.notes.warn(format!(
                "new PodSecurity enforce level only checked against the first {PODS_CHECKED_MAX} \
                 of {} existing pods",
                pods.len()
            ));
        }
        if !broken.is_empty() {
            request.notes.warn(format!(
                "existing pods in namespace {namespace:?} violate the new PodSecurity enforce \
                 level \"{standard}\""
            ));
        }
        let lines = broken.iter().map(|(reasons, names)| {
            let first = names.first().copied().unwrap_or_default();
            match names.len() {
                1 => format!("{first}: {reasons}"),
                2 => format!("{first} (and 1 other pod): {reasons}"),
                count => format!("{first} (and {} other pods): {reasons}", count - 1),
            }
        });
        let mut lines: Vec<_> = lines.collect();
        lines.sort();
        lines.into_iter().for_each(|line| request.notes.warn(line));
    }

    /// One pod of each controller first: the others are like it.
    fn prioritized(&self, pods: Vec<Arc<Object>>) -> Vec<Arc<Object>> {
        let mut seen = BTreeSet::new();
        let (mut first, mut alike) = (Vec::new(), Vec::new());
        for pod in pods {
            if self.is_exempt_class(pod.0.get("spec").unwrap_or(&Value::Null)) {
                continue;
            }
            let owners = pod.0.pointer("/metadata/ownerReferences");
            let mut owners = owners.and_then(Value::as_array).into_iter().flatten();
            let controller = owners.find(|owner| owner.get("controller") == Some(&true.into()));
            let uid = controller.map(|owner| text(owner, "uid").to_owned());
            match uid {
                Some(uid) if !seen.insert(uid.clone()) => alike.push(pod),
                _ => first.push(pod),
            }
        }
        first.append(&mut alike);
        first
    }

    fn pod(&self, request: &Request<'_>, pod: &Object, lookup: &dyn Lookup) -> Result<(), Status> {
        if PLAIN_SUBRESOURCES.contains(&request.subresource) {
            return Ok(());
        }
        if let Some(why) = self.exemption(request) {
            request.notes.annotate(EXEMPT, why);
            return Ok(());
        }
        let Some(namespace) = lookup.get("namespaces", "", request.namespace) else {
            let why = format!("failed to lookup namespace {:?}", request.namespace);
            return Err(Status::internal(why));
        };
        let (policy, faults) = self.policy(&namespace);
        if faults.is_empty() && policy.is_privileged() {
            request.notes.annotate(ENFORCED, "privileged:latest");
            return Ok(());
        }
        if request.operation == Operation::Update
            && request.old.is_some_and(|old| !matters(pod, old))
        {
            return Ok(());
        }
        self.evaluate(request, Some(pod), view(&pod.0), &policy, &faults)
    }

    fn workload(
        &self,
        request: &Request<'_>,
        workload: &Object,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        if !request.subresource.is_empty() {
            return Ok(());
        }
        if let Some(why) = self.exemption(request) {
            request.notes.annotate(EXEMPT, why);
            return Ok(());
        }
        let Some(namespace) = lookup.get("namespaces", "", request.namespace) else {
            return Ok(());
        };
        let (policy, faults) = self.policy(&namespace);
        let quiet = [policy.warn, policy.audit]
            .iter()
            .all(|standard| standard.level == Level::Privileged);
        if faults.is_empty() && quiet {
            return Ok(());
        }
        match template(request, &workload.0) {
            Some(template) => self.evaluate(request, None, view(template), &policy, &faults),
            None => Ok(()),
        }
    }

    /// Judges a pod; `enforced` is the pod itself where it is one and not a template.
    fn evaluate(
        &self,
        request: &Request<'_>,
        enforced: Option<&Object>,
        pod: Pod<'_>,
        policy: &Policy,
        faults: &meta::Faults,
    ) -> Result<(), Status> {
        let notes = request.notes;
        if self.is_exempt_class(pod.spec) {
            notes.annotate(EXEMPT, "runtimeClass");
            return Ok(());
        }
        if !faults.is_empty() {
            let why = format!("Failed to parse policy: {}", faults.summary());
            notes.annotate("pod-security.kubernetes.io/error", &why);
        }
        let judge = |standard: Standard| {
            let found = findings(standard, pod);
            let says =
                |verb: &str| format!("{verb} PodSecurity \"{standard}\": {}", details(&found));
            (!found.is_empty()).then(|| (says("violates"), says("would violate")))
        };
        let refusal = match enforced {
            Some(pod) => {
                notes.annotate(ENFORCED, &policy.enforce.to_string());
                judge(policy.enforce).map(|(why, _)| request.refused(Some(pod), &why))
            }
            None => None,
        };
        if let Some((_, why)) = judge(policy.audit) {
            notes.annotate("pod-security.kubernetes.io/audit-violations", &why);
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        if let Some((_, why)) = judge(policy.warn) {
            notes.warn(why);
        }
        Ok(())
    }
}

const EXEMPT: &str = "pod-security.kubernetes.io/exempt";
const ENFORCED: &str = "pod-security.kubernetes.io/enforce-policy";

impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let written = matches!(request.operation, Operation::Create | Operation::Update);
        let Some(object) = object.filter(|_| written) else {
            return Ok(());
        };
        match (request.names.group.as_str(), request.names.plural.as_str()) {
            ("", "namespaces") => self.namespace(request, object, lookup),
            ("", "pods") => self.pod(request, object, lookup),
            ("", "replicationcontrollers" | "podtemplates")
            | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
            | ("batch", "jobs" | "cronjobs") => self.workload(request, object, lookup),
            _ => Ok(()),
        }
    }
}

fn labels(namespace: &Object) -> &Value {
    namespace
        .0
        .pointer("/metadata/labels")
        .unwrap_or(&Value::Null)
}

fn view(pod: &Value) -> Pod<'_> {
    Pod {
        annotations: pod.pointer("/metadata/annotations").unwrap_or(&Value::Null),
        spec: pod.get("spec").unwrap_or(&Value::Null),
    }
}

/// What a workload makes pods of.
fn template<'a>(request: &Request<'_>, workload: &'a Value) -> Option<&'a Value> {
    let pointer = match request.names.plural.as_str() {
        "podtemplates" => "/template",
        "cronjobs" => "/spec/jobTemplate/spec/template",
        _ => "/spec/template",
    };
    workload.pointer(pointer)
}

/// Whether an update changes something that is checked: pods can hardly be changed.
fn matters(pod: &Object, old: &Object) -> bool {
    let null = Value::Null;
    let (new, old) = (
        pod.0.get("spec").unwrap_or(&null),
        old.0.get("spec").unwrap_or(&null),
    );
    let image = |container: &Value| text(container, "image").to_owned();
    let images =
        |spec: &Value, field: &str| -> Vec<String> { list(spec, field).map(image).collect() };
    if ["containers", "initContainers"]
        .iter()
        .any(|field| images(new, field) != images(old, field))
    {
        return true;
    }
    list(new, "ephemeralContainers").any(|container| {
        let mut before = list(old, "ephemeralContainers");
        let same = before.find(|one| text(one, "name") == text(container, "name"));
        same.is_none_or(|same| image(same) != image(container))
    })
}

#[cfg(test)]
mod tests;
