//! What kubelets may do: a node reads what its own pods use, and writes what is its own.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use meta::Object;
use parking_lot::RwLock;
use serde_json::Value;

use crate::bootstrap;
use crate::identity::{Attributes, Decision, Identity};
use crate::rbac::Rule;

/// The group of all kubelets.
pub const NODES: &str = "system:nodes";
const USER_PREFIX: &str = "system:node:";
const LEASES: &str = "kube-node-lease";

/// An object that a pod uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Thing {
    kind: Kind,
    namespace: String,
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Pod,
    Secret,
    ConfigMap,
    Claim,
    Volume,
    ServiceAccount,
}

/// Who uses what, kept current by watch events.
#[derive(Default)]
pub struct NodeGraph {
    graph: RwLock<Graph>,
}

#[derive(Default)]
struct Graph {
    /// Per pod (`namespace/name`): its node and what it uses, itself included.
    pods: HashMap<String, (String, HashSet<Thing>)>,
    /// Per node: how many of its pods use a thing.
    nodes: HashMap<String, HashMap<Thing, usize>>,
    /// Per PersistentVolume: the claim it is bound to, and the secrets its driver needs.
    volumes: HashMap<String, (Thing, Vec<Thing>)>,
    /// The other way round: volumes by secret.
    volumes_by_secret: HashMap<Thing, HashSet<String>>,
}

impl NodeGraph {
    /// Takes in a new or changed pod or PersistentVolume; all else is ignored.
    pub fn set(&self, group_resource: &str, object: &Object) {
        match group_resource {
            "pods" => {
                // What a pod uses never changes once it has a node, so most updates end here.
                let key = key(object.namespace(), object.name());
                let node = object.text("/spec/nodeName");
                let known = self.graph.read().pods.get(&key).map(|(on, _)| on == node);
                if known == Some(true) && !may_differ(object) {
                    return;
                }
                let uses = used_by(object);
                self.graph.write().set_pod(key, node, uses);
            }
            "persistentvolumes" => self.graph.write().set_volume(object),
            _ => {}
        }
    }

    /// Forgets a pod or PersistentVolume.
    pub fn remove(&self, group_resource: &str, namespace: &str, name: &str) {
        match group_resource {
            "pods" => self.graph.write().remove_pod(&key(namespace, name)),
            "persistentvolumes" => self.graph.write().remove_volume(name),
            _ => {}
        }
    }

    /// Whether the user is a kubelet, known or not.
    pub fn is_node(&self, identity: &Identity) -> bool {
        identity.name.starts_with(USER_PREFIX) && identity.is_in(NODES)
    }

    /// Whether a node may do it; no opinion on anybody else.
    pub fn authorize(&self, identity: &Identity, asked: &Attributes) -> Decision {
        let Some(node) = identity
            .name
            .strip_prefix(USER_PREFIX)
            .filter(|_| identity.is_in(NODES))
        else {
            return Decision::NoOpinion(String::new());
        };
        if node.is_empty() {
            let reason = format!("unknown node for user {:?}", identity.name);
            return Decision::NoOpinion(reason);
        }
        let allowed = match (asked.group.as_str(), asked.resource.as_str()) {
            ("", "secrets") => self.read_used(node, Kind::Secret, asked),
            ("", "configmaps") => self.read_used(node, Kind::ConfigMap, asked),
            ("", "persistentvolumeclaims") if asked.subresource == "status" => only(
                &["update", "patch"],
                asked,
                "can only get/update/patch this type",
            )
            .and_then(|()| self.related(node, Kind::Claim, asked)),
            ("", "persistentvolumeclaims") => self.get_used(node, Kind::Claim, asked),
            ("", "persistentvolumes") => self.get_used(node, Kind::Volume, asked),
            ("", "serviceaccounts") => self.service_account(node, asked),
            ("coordination.k8s.io", "leases") => lease(node, asked),
            ("storage.k8s.io", "csinodes") => own_csi_node(node, asked),
            ("", "nodes") => own_node(node, asked),
            ("", "pods") => self.pods(node, asked),
            _ => match rules().iter().any(|rule| rule.allows(asked)) {
                true => Ok(()),
                false => Err(String::new()),
            },
        };
        match allowed {
            Ok(()) => Decision::Allow(String::new()),
            Err(reason) => Decision::NoOpinion(reason),
        }
    }

    fn read_used(&self, node: &str, kind: Kind, asked: &Attributes) -> Result<(), String> {
        only(
            &["get", "list", "watch"],
            asked,
            "can only read resources of this type",
        )?;
        if !asked.subresource.is_empty() {
            return Err("cannot read subresource".into());
        }
        if asked.namespace.is_empty() {
            return Err("can only read namespaced object of this type".into());
        }
        self.related(node, kind, asked)
    }

    fn get_used(&self, node: &str, kind: Kind, asked: &Attributes) -> Result<(), String> {
        only(
            &["get"],
            asked,
            "can only get individual resources of this type",
        )?;
        if !asked.subresource.is_empty() {
            return Err("cannot get subresource".into());
        }
        self.related(node, kind, asked)
    }

    fn service_account(&self, node: &str, asked: &Attributes) -> Result<(), String> {
        if asked.verb == "get" && asked.subresource.is_empty() {
            return self.read_used(node, Kind::ServiceAccount, asked);
        }
        if asked.verb != "create" || asked.name.is_empty() {
            return Err("can only create tokens for individual service accounts".into());
        }
        if asked.subresource != "token" {
            return Err("can only create token subresource of serviceaccount".into());
        }
        self.related(node, Kind::ServiceAccount, asked)
    }

    fn pods(&self, node: &str, asked: &Attributes) -> Result<(), String> {
        match (asked.subresource.as_str(), asked.verb.as_str()) {
            ("", "get") => self.get_used(node, Kind::Pod, asked),
            ("", "list" | "watch") => {
                if asked.field_selector.required_value("spec.nodeName") == Some(node) {
                    return Ok(());
                }
                if !asked.name.is_empty() {
                    return self.related(node, Kind::Pod, asked);
                }
                Err("can only list/watch pods with spec.nodeName field selector".into())
            }
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Ok(())
            }
            _ => Err(String::new()),
        }
    }

    fn related(&self, node: &str, kind: Kind, asked: &Attributes) -> Result<(), String> {
        if asked.name.is_empty() {
            return Err("No Object name found".into());
        }
        let thing = Thing {
            kind,
            namespace: asked.namespace.clone(),
            name: asked.name.clone(),
        };
        match self.graph.read().reaches(node, &thing) {
            true => Ok(()),
            false => Err(format!(
                "no relationship found between node '{node}' and this object"
            )),
        }
    }
}

impl Graph {
    fn set_pod(&mut self, key: String, node: &str, uses: HashSet<Thing>) {
        self.remove_pod(&key);
        if node.is_empty() {
            return;
        }
        let counts = self.nodes.entry(node.into()).or_default();
        for thing in &uses {
            *counts.entry(thing.clone()).or_default() += 1;
        }
        self.pods.insert(key, (node.into(), uses));
    }

    fn remove_pod(&mut self, key: &str) {
        let Some((node, uses)) = self.pods.remove(key) else {
            return;
        };
        let Some(counts) = self.nodes.get_mut(&node) else {
            return;
        };
        for thing in &uses {
            match counts.get_mut(thing) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(counts.remove(thing)),
            }
        }
        if counts.is_empty() {
            self.nodes.remove(&node);
        }
    }

    fn set_volume(&mut self, volume: &Object) {
        self.remove_volume(volume.name());
        let claim = Thing {
            kind: Kind::Claim,
            namespace: volume.text("/spec/claimRef/namespace").into(),
            name: volume.text("/spec/claimRef/name").into(),
        };
        if claim.name.is_empty() {
            return;
        }
        let secrets = volume_secrets(volume);
        for secret in &secrets {
            let names = self.volumes_by_secret.entry(secret.clone()).or_default();
            names.insert(volume.name().into());
        }
        self.volumes.insert(volume.name().into(), (claim, secrets));
    }

    fn remove_volume(&mut self, name: &str) {
        let Some((_, secrets)) = self.volumes.remove(name) else {
            return;
        };
        for secret in secrets {
            if let Some(names) = self.volumes_by_secret.get_mut(&secret) {
                names.remove(name);
                if names.is_empty() {
                    self.volumes_by_secret.remove(&secret);
                }
            }
        }
    }

    fn reaches(&self, node: &str, thing: &Thing) -> bool {
        let Some(used) = self.nodes.get(node) else {
            return false;
        };
        let by_volume = |name: &String| {
            self.volumes
                .get(name)
                .is_some_and(|(claim, _)| used.contains_key(claim))
        };
        match thing.kind {
            Kind::Volume => by_volume(&thing.name),
            Kind::Secret if !used.contains_key(thing) => {
                let volumes = self.volumes_by_secret.get(thing);
                volumes.into_iter().flatten().any(by_volume)
            }
            _ => used.contains_key(thing),
        }
    }
}

fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// Whether a pod's uses may have changed though its node did not: ephemeral containers come later.
fn may_differ(pod: &Object) -> bool {
    meta::object::at(&pod.0, "/spec/ephemeralContainers").is_some()
}

/// Everything a pod names, and the pod itself.
fn used_by(pod: &Object) -> HashSet<Thing> {
    let namespace = pod.namespace();
    let thing = |kind: Kind, name: &str| Thing {
        kind,
        namespace: namespace.into(),
        name: name.into(),
    };
    let mut used = HashSet::from([thing(Kind::Pod, pod.name())]);
    let account = pod.text("/spec/serviceAccountName");
    if !account.is_empty() {
        used.insert(thing(Kind::ServiceAccount, account));
    }
    let spec = pod.fields().get("spec").unwrap_or(&Value::Null);
    for secret in list(spec, "imagePullSecrets") {
        used.extend(text(secret, "/name").map(|name| thing(Kind::Secret, name)));
    }
    for lists in ["containers", "initContainers", "ephemeralContainers"] {
        for container in list(spec, lists) {
            for (kind, name) in environment(container) {
                used.insert(thing(kind, name));
            }
        }
    }
    for volume in list(spec, "volumes") {
        for (kind, name) in mounted(volume) {
            used.insert(thing(kind, name));
        }
        // The claim of an ephemeral volume is named after pod and volume.
        if let (Some(_), Some(name)) = (volume.get("ephemeral"), text(volume, "/name")) {
            used.insert(thing(Kind::Claim, &format!("{}-{name}", pod.name())));
        }
    }
    used
}

fn environment(container: &Value) -> Vec<(Kind, &str)> {
    let mut found = Vec::new();
    for source in list(container, "envFrom") {
        found.extend(text(source, "/secretRef/name").map(|name| (Kind::Secret, name)));
        found.extend(text(source, "/configMapRef/name").map(|name| (Kind::ConfigMap, name)));
    }
    for variable in list(container, "env") {
        let secret = text(variable, "/valueFrom/secretKeyRef/name");
        found.extend(secret.map(|name| (Kind::Secret, name)));
        let map = text(variable, "/valueFrom/configMapKeyRef/name");
        found.extend(map.map(|name| (Kind::ConfigMap, name)));
    }
    found
}

fn mounted(volume: &Value) -> Vec<(Kind, &str)> {
    let paths = [
        (Kind::Secret, "/secret/secretName"),
        (Kind::ConfigMap, "/configMap/name"),
        (Kind::Claim, "/persistentVolumeClaim/claimName"),
        (Kind::Secret, "/csi/nodePublishSecretRef/name"),
        (Kind::Secret, "/azureFile/secretName"),
        (Kind::Secret, "/cephfs/secretRef/name"),
        (Kind::Secret, "/cinder/secretRef/name"),
        (Kind::Secret, "/flexVolume/secretRef/name"),
        (Kind::Secret, "/iscsi/secretRef/name"),
        (Kind::Secret, "/rbd/secretRef/name"),
        (Kind::Secret, "/scaleIO/secretRef/name"),
        (Kind::Secret, "/storageos/secretRef/name"),
    ];
    let found = paths
        .into_iter()
        .filter_map(|(kind, path)| Some((kind, text(volume, path)?)));
    let mut found: Vec<(Kind, &str)> = found.collect();
    let sources = volume
        .get("projected")
        .map(|projected| list(projected, "sources"));
    for source in sources.into_iter().flatten() {
        found.extend(text(source, "/secret/name").map(|name| (Kind::Secret, name)));
        found.extend(text(source, "/configMap/name").map(|name| (Kind::ConfigMap, name)));
    }
    found
}

fn volume_secrets(volume: &Object) -> Vec<Thing> {
    let paths = [
        "/spec/csi/controllerPublishSecretRef",
        "/spec/csi/nodePublishSecretRef",
        "/spec/csi/nodeStageSecretRef",
        "/spec/csi/nodeExpandSecretRef",
        "/spec/flexVolume/secretRef",
        "/spec/iscsi/secretRef",
        "/spec/rbd/secretRef",
        "/spec/cephfs/secretRef",
    ];
    let own = volume.text("/spec/claimRef/namespace");
    let found = paths.into_iter().filter_map(|path| {
        let reference = volume.0.pointer(path)?;
        Some(Thing {
            kind: Kind::Secret,
            namespace: text(reference, "/namespace").unwrap_or(own).into(),
            name: text(reference, "/name")?.into(),
        })
    });
    found.collect()
}

fn list<'a>(tree: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    tree.get(field)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn text<'a>(tree: &'a Value, pointer: &str) -> Option<&'a str> {
    meta::object::at(tree, pointer)?
        .as_str()
        .filter(|text| !text.is_empty())
}

fn only(verbs: &[&str], asked: &Attributes, otherwise: &str) -> Result<(), String> {
    match verbs.contains(&asked.verb.as_str()) {
        true => Ok(()),
        false => Err(otherwise.into()),
    }
}

const OWN_VERBS: [&str; 5] = ["get", "create", "update", "patch", "delete"];

fn lease(node: &str, asked: &Attributes) -> Result<(), String> {
    only(
        &OWN_VERBS,
        asked,
        "can only get, create, update, patch, or delete a node lease",
    )?;
    if asked.namespace != LEASES {
        return Err(format!(
            "can only access leases in the {LEASES:?} system namespace"
        ));
    }
    // A creation's name is in its body.
    if asked.verb != "create" && asked.name != node {
        return Err("can only access node lease with the same name as the requesting node".into());
    }
    Ok(())
}

fn own_csi_node(node: &str, asked: &Attributes) -> Result<(), String> {
    only(
        &OWN_VERBS,
        asked,
        "can only get, create, update, patch, or delete a CSINode",
    )?;
    if !asked.subresource.is_empty() {
        return Err("cannot authorize CSINode subresources".into());
    }
    if asked.verb != "create" && asked.name != node {
        return Err("can only access CSINode with the same name as the requesting node".into());
    }
    Ok(())
}

fn own_node(node: &str, asked: &Attributes) -> Result<(), String> {
    match (asked.subresource.as_str(), asked.verb.as_str()) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") => match asked.name.as_str() {
            name if name == node => Ok(()),
            "" => Err(format!(
                "node '{node}' cannot read all nodes, only its own Node object"
            )),
            name => Err(format!(
                "node '{node}' cannot read '{name}', only its own Node object"
            )),
        },
        _ => Err(String::new()),
    }
}

/// What all nodes may do alike: the rules of `system:node`.
fn rules() -> &'static [Rule] {
    static RULES: OnceLock<Vec<Rule>> = OnceLock::new();
    RULES.get_or_init(|| bootstrap::cluster_role_rules("system:node"))
}

#[cfg(test)]
mod tests {
    use meta::FieldSelector;
    use serde_json::json;

    use super::*;

    fn graph() -> NodeGraph {
        let graph = NodeGraph::default();
        let pod = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {
            "nodeName": "a", "serviceAccountName": "web",
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "env"}}],
                "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}]}],
            "volumes": [
                {"name": "p", "projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
            ],
        }});
        graph.set("pods", &Object(pod));
        let volume = json!({"metadata": {"name": "pv1"}, "spec": {
            "claimRef": {"namespace": "default", "name": "data"},
            "csi": {"nodeStageSecretRef": {"namespace": "kube-system", "name": "stage"}},
        }});
        graph.set("persistentvolumes", &Object(volume));
        graph
    }

    fn ask(graph: &NodeGraph, node: &str, line: &str) -> Result<(), String> {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (verb, resource, namespace, name) = (word(), word(), word(), word());
        let (resource, subresource) = resource.split_once('/').unwrap_or((&resource, ""));
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        let asked = Attributes {
            verb,
            namespace: if namespace == "-" {
                String::new()
            } else {
                namespace
            },
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            name,
            ..Attributes::default()
        };
        let user = Identity::user(&format!("system:node:{node}"), &[NODES]);
        match graph.authorize(&user, &asked) {
            Decision::Allow(_) => Ok(()),
            Decision::NoOpinion(reason) | Decision::Deny(reason) => Err(reason),
        }
    }

    #[test]
    fn a_node_reads_what_its_pods_use() {
        let graph = graph();
        for line in [
            "get secrets default pull",
            "watch secrets default key",
            "get secrets kube-system stage",
            "get configmaps default env",
            "list configmaps default kube-root-ca.crt",
            "get persistentvolumeclaims default data",
            "get persistentvolumes - pv1",
            "create serviceaccounts/token default web",
            "get pods default web",
            "get services default web",
        ] {
            assert_eq!(ask(&graph, "a", line), Ok(()), "{line}");
            if !line.contains("services ") {
                let other = ask(&graph, "b", line);
                let reason = "no relationship found between node 'b' and this object";
                assert_eq!(other, Err(reason.into()), "{line}");
            }
        }
        assert!(ask(&graph, "a", "get secrets default other").is_err());
        assert!(ask(&graph, "a", "list secrets default ").is_err());
        assert!(ask(&graph, "a", "delete secrets default pull").is_err());
    }

    #[test]
    fn a_pod_that_leaves_takes_its_permissions_along() {
        let graph = graph();
        graph.remove("pods", "default", "web");
        assert!(ask(&graph, "a", "get secrets default pull").is_err());
        assert!(ask(&graph, "a", "get persistentvolumes - pv1").is_err());
        assert!(graph.graph.read().nodes.is_empty());
    }

    #[test]
    fn a_node_minds_its_own_objects() {
        let graph = graph();
        let lease = "leases.coordination.k8s.io";
        assert_eq!(
            ask(&graph, "a", &format!("update {lease} kube-node-lease a")),
            Ok(())
        );
        assert!(ask(&graph, "a", &format!("update {lease} kube-node-lease b")).is_err());
        assert!(ask(&graph, "a", &format!("get {lease} kube-system a")).is_err());
        assert_eq!(ask(&graph, "a", "get nodes - a"), Ok(()));
        assert_eq!(
            ask(&graph, "a", "get nodes - b"),
            Err("node 'a' cannot read 'b', only its own Node object".into())
        );
        assert_eq!(ask(&graph, "a", "patch nodes/status - a"), Ok(()));
        assert_eq!(ask(&graph, "a", "create events default "), Ok(()));
        assert!(ask(&graph, "a", "delete nodes - a").is_err());
    }

    #[test]
    fn lists_of_pods_need_the_field_selector() {
        let graph = graph();
        let user = Identity::user("system:node:a", &[NODES]);
        let mut asked = Attributes {
            verb: "watch".into(),
            resource: "pods".into(),
            ..Attributes::default()
        };
        assert!(matches!(
            graph.authorize(&user, &asked),
            Decision::NoOpinion(_)
        ));
        asked.field_selector = FieldSelector::parse("spec.nodeName=a").unwrap();
        assert!(matches!(graph.authorize(&user, &asked), Decision::Allow(_)));
        asked.field_selector = FieldSelector::parse("spec.nodeName=b").unwrap();
        assert!(matches!(
            graph.authorize(&user, &asked),
            Decision::NoOpinion(_)
        ));
    }

    #[test]
    fn others_are_not_our_business() {
        let graph = graph();
        let pretender = Identity::user("system:node:a", &[]);
        let asked = Attributes {
            verb: "get".into(),
            resource: "nodes".into(),
            name: "a".into(),
            ..Attributes::default()
        };
        assert_eq!(
            graph.authorize(&pretender, &asked),
            Decision::NoOpinion(String::new())
        );
    }
}
