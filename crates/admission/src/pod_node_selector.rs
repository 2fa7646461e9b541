//! PodNodeSelector: pods of a namespace stay on the nodes that it was given.

use std::collections::BTreeMap;

use meta::names::Names;
use meta::object::map_at;
use meta::{Object, Status};
use serde_json::Value;

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::settings::{ConfigError, fields};
use crate::tree::spec;

const NAME: &str = "PodNodeSelector";
const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
/// Under this name the configuration has the selector of namespaces without one.
const CLUSTER: &str = "clusterDefaultNodeSelector";

type Labels = BTreeMap<String, String>;

pub(crate) struct PodNodeSelector {
    /// What a namespace's pods may select at most, and the default of all.
    configured: BTreeMap<String, Labels>,
}

impl PodNodeSelector {
    pub(crate) fn new(config: &Value) -> Result<PodNodeSelector, ConfigError> {
        fields(NAME, config, &["podNodeSelectorPluginConfig"])?;
        let map = config.get("podNodeSelectorPluginConfig");
        let map = map.and_then(Value::as_object).into_iter().flatten();
        let read = map.map(|(namespace, text)| {
            let labels = labels(text.as_str().unwrap_or_default());
            let labels = labels.map_err(|why| ConfigError::new(NAME, why))?;
            Ok((namespace.clone(), labels))
        });
        let configured = read.collect::<Result<_, ConfigError>>()?;
        Ok(PodNodeSelector { configured })
    }

    fn of_namespace(&self, request: &Request<'_>, lookup: &dyn Lookup) -> Result<Labels, Status> {
        let Some(namespace) = lookup.get("namespaces", "", request.namespace) else {
            let names = Names::cluster("", "v1", "Namespace", "namespaces");
            return Err(Status::not_found(&names, request.namespace));
        };
        match namespace.annotation(ANNOTATION) {
            Some(text) => labels(text).map_err(Status::internal),
            None => Ok(self.configured.get(CLUSTER).cloned().unwrap_or_default()),
        }
    }

    /// The pod's selector and its namespace's together.
    fn merged(
        &self,
        request: &Request<'_>,
        pod: &Object,
        lookup: &dyn Lookup,
    ) -> Result<Labels, Status> {
        let mut all = self.of_namespace(request, lookup)?;
        for (key, value) in own(pod) {
            if all.get(&key).is_some_and(|wanted| *wanted != value) {
                let why =
                    "pod node label selector conflicts with its namespace node label selector";
                return Err(request.refused(Some(pod), why));
            }
            all.insert(key, value);
        }
        Ok(all)
    }
}

impl Plugin for PodNodeSelector {
    fn name(&self) -> &'static str {
        NAME
    }

    fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_on("pods") {
            return Ok(());
        }
        let merged = self.merged(request, object, lookup)?;
        if !merged.is_empty() {
            let merged = merged.into_iter().map(|(key, value)| (key, value.into()));
            let merged = Value::Object(merged.collect());
            map_at(&mut object.0, "spec").insert("nodeSelector".into(), merged);
        }
        Ok(())
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let create = request.operation == Operation::Create && request.is_on("pods");
        let Some(pod) = object.filter(|_| create) else {
            return Ok(());
        };
        self.merged(request, pod, lookup)?;
        let allowed = self.configured.get(request.namespace);
        let Some(allowed) = allowed.filter(|allowed| !allowed.is_empty()) else {
            return Ok(());
        };
        match own(pod).all(|(key, value)| allowed.get(&key) == Some(&value)) {
            true => Ok(()),
            false => {
                let why = "pod node label selector labels conflict with its namespace whitelist";
                Err(request.refused(object, why))
            }
        }
    }
}

fn own(pod: &Object) -> impl Iterator<Item = (String, String)> {
    let selector = spec(pod).get("nodeSelector").and_then(Value::as_object);
    let pairs = selector.into_iter().flatten();
    pairs.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
}

/// Reads `a=b,c=d`.
fn labels(text: &str) -> Result<Labels, String> {
    let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
    let read = pairs.map(|pair| {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("invalid selector: [{pair}]"))?;
        let (key, value) = (key.trim(), value.trim_start_matches('=').trim());
        let broken = [
            meta::naming::qualified_name(key),
            meta::naming::label_value(value),
        ];
        match broken.into_iter().flatten().next() {
            None => Ok((key.to_owned(), value.to_owned())),
            Some(rule) => Err(format!("invalid selector {pair:?}: {rule}")),
        }
    });
    read.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{World, object, request};

    fn admitted(annotation: Option<&str>, selector: Value) -> Result<Value, String> {
        let annotations = annotation.map(|text| json!({ANNOTATION: text}));
        let metadata = json!({"name": "default", "annotations": annotations});
        let world = World::default().with("namespaces", json!({"metadata": metadata}));
        let config = json!({"podNodeSelectorPluginConfig":
            {CLUSTER: "env=dev", "default": "env=dev,disk=ssd"}});
        let plugin = PodNodeSelector::new(&config).expect("a configuration");
        let mut pod =
            object(json!({"metadata": {"name": "web"}, "spec": {"nodeSelector": selector}}));
        let asked = request(Operation::Create, "pods", "web");
        let judged = plugin
            .mutate(&asked.borrow(), &mut pod, &world)
            .and_then(|()| plugin.validate(&asked.borrow(), Some(&pod), &world));
        judged
            .map(|()| pod.0["spec"]["nodeSelector"].clone())
            .map_err(|status| status.message)
    }

    #[test]
    fn selectors_of_pod_and_namespace_meet() {
        let both = json!({"env": "dev", "disk": "ssd"});
        assert_eq!(admitted(None, json!({"disk": "ssd"})), Ok(both.clone()));
        assert_eq!(
            admitted(Some("disk = ssd"), json!({})),
            Ok(json!({"disk": "ssd"}))
        );
        let refusal = |annotation, selector| admitted(annotation, selector).unwrap_err();
        assert!(
            refusal(None, json!({"env": "prod"}))
                .ends_with("conflicts with its namespace node label selector")
        );
        assert!(
            refusal(Some("zone=a"), json!({})).ends_with("conflict with its namespace whitelist")
        );
        assert!(PodNodeSelector::new(&json!({"other": {}})).is_err());
    }
}
