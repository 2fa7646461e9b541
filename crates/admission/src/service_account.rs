//! ServiceAccount: every pod runs as one, and finds its token where clients look for it.

use std::sync::Arc;

use meta::object::map_at;
use meta::{Object, Status};
use serde_json::{Value, json};

use crate::plugin::{Awaited, Lookup, Operation, Plugin, Request};
use crate::tree::{list, list_mut, push, spec, text};

const DEFAULT: &str = "default";
const MIRROR: &str = "kubernetes.io/config.mirror";
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
const VOLUME: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The alphabet of generated names: nothing that could be read as a word or mistaken.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX: usize = 5;

pub(crate) struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn awaits(
        &self,
        request: &Request<'_>,
        object: &Object,
        lookup: &dyn Lookup,
    ) -> Option<Awaited> {
        if !is_new_pod(request) || is_mirror(object) {
            return None;
        }
        let name = account_name(object);
        let has = |resource, namespace, name| lookup.get(resource, namespace, name).is_some();
        let missing = !has("serviceaccounts", request.namespace, name);
        // Only this one is made by a controller, and only where the namespace exists.
        let comes = missing && name == DEFAULT && has("namespaces", "", request.namespace);
        comes.then(|| Awaited {
            resource: "serviceaccounts",
            namespace: request.namespace.into(),
            name: name.into(),
            create: false,
        })
    }

    fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        // A kubelet compares its mirror pods with their files, so they stay as they are.
        if !is_new_pod(request) || is_mirror(object) {
            return Ok(());
        }
        let account = account_of(request, object, lookup)?;
        let spec = map_at(&mut object.0, "spec");
        spec.insert("serviceAccountName".into(), account.name().into());
        spec.insert("serviceAccount".into(), account.name().into());
        if automounts(object, &account) {
            mount_token(object);
        }
        if list(crate::tree::spec(object), "imagePullSecrets")
            .next()
            .is_none()
        {
            let secrets: Vec<Value> = list(&account.0, "imagePullSecrets").cloned().collect();
            if !secrets.is_empty() {
                map_at(&mut object.0, "spec").insert("imagePullSecrets".into(), secrets.into());
            }
        }
        Ok(())
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let Some(pod) = object.filter(|_| is_new_pod(request)) else {
            return Ok(());
        };
        if is_mirror(pod) {
            return mirror_references(pod).map_err(|why| request.refused(Some(pod), why));
        }
        let account = account_of(request, pod, lookup)?;
        if account.annotation(ENFORCE) == Some("true") {
            limit_secrets(pod, &account).map_err(|why| request.refused(Some(pod), &why))?;
        }
        Ok(())
    }
}

fn is_new_pod(request: &Request<'_>) -> bool {
    request.operation == Operation::Create && request.is_on("pods")
}

fn is_mirror(pod: &Object) -> bool {
    pod.annotation(MIRROR).is_some()
}

/// The account a pod names, under the new or the old name of the field.
fn account_name(pod: &Object) -> &str {
    let given = [
        text(spec(pod), "serviceAccountName"),
        text(spec(pod), "serviceAccount"),
    ];
    given
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or(DEFAULT)
}

fn account_of(
    request: &Request<'_>,
    pod: &Object,
    lookup: &dyn Lookup,
) -> Result<Arc<Object>, Status> {
    let (namespace, name) = (request.namespace, account_name(pod));
    let missing = || {
        let why = format!(
            "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
        );
        request.refused(Some(pod), &why)
    };
    lookup
        .get("serviceaccounts", namespace, name)
        .ok_or_else(missing)
}

/// Whether the pod, else the account, wants the token; both silent means yes.
fn automounts(pod: &Object, account: &Object) -> bool {
    let says = |tree: &Value| {
        tree.get("automountServiceAccountToken")
            .and_then(Value::as_bool)
    };
    says(spec(pod)).or_else(|| says(&account.0)).unwrap_or(true)
}

/// Mounts the token's volume in each container that mounts nothing at its path.
fn mount_token(pod: &mut Object) {
    let existing = list(spec(pod), "volumes")
        .map(|volume| text(volume, "name"))
        .find(|name| name.starts_with(VOLUME))
        .map(str::to_owned);
    let name = existing
        .clone()
        .unwrap_or_else(|| format!("{VOLUME}{}", suffix()));
    let mut needed = false;
    let spec = map_at(&mut pod.0, "spec");
    for field in ["initContainers", "containers"] {
        let Some(containers) = spec.get_mut(field).and_then(Value::as_array_mut) else {
            continue;
        };
        for container in containers.iter_mut() {
            let taken = list_mut(container, "volumeMounts")
                .any(|mount| text(mount, "mountPath") == MOUNT_PATH);
            if let Some(container) = container.as_object_mut().filter(|_| !taken) {
                let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
                push(container, "volumeMounts", mount);
                needed = true;
            }
        }
    }
    if needed && existing.is_none() {
        push(
            spec,
            "volumes",
            json!({"name": name, "projected": token_volume()}),
        );
    }
}

fn token_volume() -> Value {
    json!({
        "defaultMode": 0o644,
        "sources": [
            {"serviceAccountToken": {
                "expirationSeconds": auth::token::PROJECTED_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt",
                "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace",
                "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ],
    })
}

fn suffix() -> String {
    let letter = || char::from(ALPHABET[rand::random_range(0..ALPHABET.len())]);
    std::iter::repeat_with(letter).take(SUFFIX).collect()
}

/// What a pod from a file on a node may not refer to.
fn mirror_references(pod: &Object) -> Result<(), &'static str> {
    let spec = spec(pod);
    if !text(spec, "serviceAccountName").is_empty() {
        return Err("a mirror pod may not reference service accounts");
    }
    let secret_in = |container: &Value| {
        list(container, "envFrom").any(|source| source.get("secretRef").is_some())
            || list(container, "env")
                .any(|variable| variable.pointer("/valueFrom/secretKeyRef").is_some())
    };
    let containers = ["containers", "initContainers", "ephemeralContainers"];
    let mut containers = containers.into_iter().flat_map(|field| list(spec, field));
    let sources = |volume: &Value, field: &str| {
        let projected = volume.get("projected").unwrap_or(&Value::Null);
        list(projected, "sources").any(|source| source.get(field).is_some())
    };
    let mounts_secret =
        |volume: &Value| volume.get("secret").is_some() || sources(volume, "secret");
    if list(spec, "imagePullSecrets").next().is_some()
        || containers.any(secret_in)
        || list(spec, "volumes").any(mounts_secret)
    {
        return Err("a mirror pod may not reference secrets");
    }
    if list(spec, "volumes").any(|volume| sources(volume, "serviceAccountToken")) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

/// For accounts that ask for it: their pods use only the secrets they list.
fn limit_secrets(pod: &Object, account: &Object) -> Result<(), String> {
    let listed = |field: &str, name: &str| {
        list(&account.0, field).any(|reference| text(reference, "name") == name)
    };
    let tail = |name: &str| {
        let account = account.name();
        format!("is not allowed because service account {account} does not reference that {name}")
    };
    let refused = |what: String, name: &str| match listed("secrets", name) {
        true => Ok(()),
        false => Err(format!(
            "{what} secret.secretName=\"{name}\" {}",
            tail("secret")
        )),
    };
    let spec = spec(pod);
    for volume in list(spec, "volumes") {
        if let Some(secret) = volume.pointer("/secret/secretName").and_then(Value::as_str) {
            refused("volume with".into(), secret)?;
        }
    }
    for (field, word) in [
        ("initContainers", "init container"),
        ("containers", "container"),
    ] {
        for container in list(spec, field) {
            let name = text(container, "name");
            for variable in list(container, "env") {
                let secret = variable.pointer("/valueFrom/secretKeyRef/name");
                if let Some(secret) = secret.and_then(Value::as_str) {
                    let variable = text(variable, "name");
                    refused(
                        format!("{word} {name} with envVar {variable} referencing"),
                        secret,
                    )?;
                }
            }
            for source in list(container, "envFrom") {
                let secret = source.pointer("/secretRef/name");
                if let Some(secret) = secret.and_then(Value::as_str) {
                    refused(format!("{word} {name} with envFrom referencing"), secret)?;
                }
            }
        }
    }
    for (index, reference) in list(spec, "imagePullSecrets").enumerate() {
        let name = text(reference, "name");
        if !listed("imagePullSecrets", name) {
            let tail = tail("imagePullSecret");
            return Err(format!("imagePullSecrets[{index}].name=\"{name}\" {tail}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, object, request};

    fn world(account: Value) -> World {
        let mut account = account;
        account["metadata"]["name"] = "web".into();
        account["metadata"]["namespace"] = "default".into();
        World::default().with("serviceaccounts", account).with(
            "serviceaccounts",
            json!({"metadata": {"name": "default", "namespace": "default"}}),
        )
    }

    fn admitted(world: &World, pod: Value) -> Result<Object, String> {
        let mut pod = object(pod);
        let asked = request(Operation::Create, "pods", "p");
        let judged = ServiceAccount
            .mutate(&asked.borrow(), &mut pod, world)
            .and_then(|()| ServiceAccount.validate(&asked.borrow(), Some(&pod), world));
        judged.map(|()| pod).map_err(|status| status.message)
    }

    #[test]
    fn a_pod_gets_the_default_account_and_its_token() {
        let pod =
            json!({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "b"}]}});
        let pod = admitted(&world(json!({})), pod).unwrap();
        let spec = &pod.0["spec"];
        assert_eq!(
            (&spec["serviceAccountName"], &spec["serviceAccount"]),
            (&json!("default"), &json!("default"))
        );
        let volume = &spec["volumes"][0];
        let name = volume["name"].as_str().unwrap();
        let suffix = name.strip_prefix("kube-api-access-").unwrap();
        assert!(suffix.len() == 5 && suffix.bytes().all(|letter| ALPHABET.contains(&letter)));
        let sources = &volume["projected"]["sources"];
        assert_eq!(
            sources[0],
            json!({"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}})
        );
        assert_eq!(sources[1]["configMap"]["name"], "kube-root-ca.crt");
        assert_eq!(
            sources[2]["downwardAPI"]["items"][0]["fieldRef"]["fieldPath"],
            "metadata.namespace"
        );
        assert_eq!(volume["projected"]["defaultMode"], 420);
        let mount = json!([{"name": name, "readOnly": true, "mountPath": MOUNT_PATH}]);
        assert_eq!(spec["containers"][0]["volumeMounts"], mount);
        assert_eq!(spec["initContainers"][0]["volumeMounts"], mount);
    }

    #[test]
    fn tokens_can_be_declined() {
        let pod = |spec: Value| json!({"spec": spec});
        let silent = world(json!({"automountServiceAccountToken": false}));
        let of = |world: &World, spec: Value| admitted(world, pod(spec)).unwrap().0["spec"].clone();
        let containers = || json!([{"name": "a"}]);
        let web = of(
            &silent,
            json!({"serviceAccountName": "web", "containers": containers()}),
        );
        assert!(web.get("volumes").is_none());
        let wins = of(
            &silent,
            json!({"serviceAccount": "web", "automountServiceAccountToken": true, "containers": containers()}),
        );
        assert_eq!(wins["serviceAccountName"], "web");
        assert!(wins.get("volumes").is_some());
        let taken =
            json!([{"name": "a", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}]);
        let own = of(&silent, json!({"containers": taken}));
        assert_eq!(own["containers"], taken);
        assert!(own.get("volumes").is_none());
    }

    #[test]
    fn pull_secrets_come_from_the_account() {
        let world = world(json!({"imagePullSecrets": [{"name": "hub"}]}));
        let with = |given: Value| {
            let spec = json!({"serviceAccountName": "web", "imagePullSecrets": given});
            admitted(&world, json!({"spec": spec})).unwrap().0["spec"]["imagePullSecrets"].clone()
        };
        assert_eq!(with(json!([])), json!([{"name": "hub"}]));
        assert_eq!(with(json!([{"name": "own"}])), json!([{"name": "own"}]));
    }

    #[test]
    fn the_account_must_exist() {
        let empty = World::default();
        let named = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "x"}});
        assert_eq!(
            admitted(&empty, named).unwrap_err(),
            "pods \"p\" is forbidden: error looking up service account default/x: serviceaccount \
             \"x\" not found"
        );
        let asked = request(Operation::Create, "pods", "p");
        let awaits = |world: &World, pod: Value| {
            ServiceAccount
                .awaits(&asked.borrow(), &object(pod), world)
                .map(|awaited| awaited.name)
        };
        assert_eq!(awaits(&empty, json!({"spec": {}})), None);
        let young = empty.with("namespaces", json!({"metadata": {"name": "default"}}));
        let account = awaits(&young, json!({"spec": {}}));
        assert_eq!(account.as_deref(), Some("default"));
        assert_eq!(
            awaits(&young, json!({"spec": {"serviceAccountName": "x"}})),
            None
        );
    }

    #[test]
    fn mirror_pods_stay_as_they_are() {
        let mirror = |spec: Value| json!({"metadata": {"name": "p", "annotations": {MIRROR: "x"}}, "spec": spec});
        let plain = mirror(json!({"containers": [{"name": "a"}]}));
        assert_eq!(admitted(&World::default(), plain.clone()).unwrap().0, plain);
        for (spec, why) in [
            (
                json!({"serviceAccountName": "x"}),
                "a mirror pod may not reference service accounts",
            ),
            (
                json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}),
                "a mirror pod may not reference secrets",
            ),
        ] {
            let refusal = admitted(&World::default(), mirror(spec)).unwrap_err();
            assert!(refusal.ends_with(why), "{refusal}");
        }
    }

    #[test]
    fn accounts_may_limit_secrets() {
        let world = world(json!({"metadata": {"annotations": {ENFORCE: "true"}},
            "secrets": [{"name": "mine"}]}));
        let with = |name: &str| {
            let volume = json!({"name": "v", "secret": {"secretName": name}});
            let spec = json!({"serviceAccountName": "web", "volumes": [volume]});
            admitted(&world, json!({"spec": spec})).err()
        };
        assert_eq!(with("mine"), None);
        assert!(with("other").unwrap().ends_with(
            "volume with secret.secretName=\"other\" is not allowed because service account web \
             does not reference that secret"
        ));
    }
}
