//! The environment of a container.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVar, EnvVarSource, FileKeySelector, Pod, Service,
};
use volumes::{Mounted, PodFacts, Sources, fields};

use crate::env_file;
use crate::pod::PodExt;

/// Why an environment cannot be made; shown as `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvError {
    #[error("{kind} {name:?} not found")]
    NotFound { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        kind: &'static str,
        namespace: String,
        name: String,
        key: String,
    },
    #[error("{0}")]
    Other(String),
}

/// Everything an environment is made of.
pub(crate) struct EnvInputs<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) facts: &'a PodFacts,
    pub(crate) sources: &'a Sources,
    pub(crate) mounted: &'a Mounted,
    /// Variables of services, the lowest in rank.
    pub(crate) services: BTreeMap<String, String>,
}

/// All variables in a stable order: services, `envFrom`, then `env` as listed.
pub(crate) async fn environment(inputs: &EnvInputs<'_>) -> Result<Vec<(String, String)>, EnvError> {
    let mut known = inputs.services.clone();
    for source in inputs.container.env_from.iter().flatten() {
        add_source(inputs, source, &mut known).await?;
    }
    let mut order: Vec<String> = known.keys().cloned().collect();
    for variable in inputs.container.env.iter().flatten() {
        let Some(value) = value_of(inputs, variable, &known).await? else {
            continue;
        };
        if known.insert(variable.name.clone(), value).is_none() {
            order.push(variable.name.clone());
        }
    }
    let pair = |name: String| known.get(&name).cloned().map(|value| (name, value));
    Ok(order.into_iter().filter_map(pair).collect())
}

async fn add_source(
    inputs: &EnvInputs<'_>,
    source: &EnvFromSource,
    known: &mut BTreeMap<String, String>,
) -> Result<(), EnvError> {
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let namespace = inputs.pod.namespace();
    if let Some(reference) = &source.config_map_ref {
        let object = inputs.sources.config_map(namespace, &reference.name).await;
        match object.map_err(|e| EnvError::Other(e.to_string()))? {
            Some(object) => {
                let data = object.data.iter().flatten();
                known.extend(data.map(|(key, value)| (format!("{prefix}{key}"), value.clone())));
            }
            None if reference.optional == Some(true) => {}
            None => return Err(not_found("configmap", &reference.name)),
        }
    }
    if let Some(reference) = &source.secret_ref {
        let object = inputs.sources.secret(namespace, &reference.name).await;
        match object.map_err(|e| EnvError::Other(e.to_string()))? {
            Some(object) => {
                let data = object.data.iter().flatten();
                known.extend(data.map(|(key, value)| (format!("{prefix}{key}"), text(&value.0))));
            }
            None if reference.optional == Some(true) => {}
            None => return Err(not_found("secret", &reference.name)),
        }
    }
    Ok(())
}

async fn value_of(
    inputs: &EnvInputs<'_>,
    variable: &EnvVar,
    known: &BTreeMap<String, String>,
) -> Result<Option<String>, EnvError> {
    let Some(source) = &variable.value_from else {
        let value = variable.value.as_deref().unwrap_or_default();
        return Ok(Some(expand(value, known)));
    };
    let other = |error: fields::FieldError| EnvError::Other(error.to_string());
    if let Some(field) = &source.field_ref {
        return fields::field(inputs.pod, inputs.facts, &field.field_path)
            .map(Some)
            .map_err(other);
    }
    if let Some(selector) = &source.resource_field_ref {
        let named = selector
            .container_name
            .as_deref()
            .filter(|name| !name.is_empty());
        let container = match named {
            None => inputs.container,
            Some(name) => fields::container_of(inputs.pod, name)
                .ok_or_else(|| other(fields::FieldError::NoContainer(name.to_owned())))?,
        };
        return fields::resource(inputs.pod, container, inputs.facts, selector)
            .map(Some)
            .map_err(other);
    }
    if let Some(selector) = &source.file_key_ref {
        return file_value(inputs, selector).await;
    }
    key_value(inputs, source).await
}

/// A variable out of a file in a volume.
async fn file_value(
    inputs: &EnvInputs<'_>,
    selector: &FileKeySelector,
) -> Result<Option<String>, EnvError> {
    let name = &selector.volume_name;
    let volume = inputs.mounted.volumes.get(name);
    let volume = volume.filter(|volume| !volume.path.as_os_str().is_empty());
    let volume = volume.ok_or_else(|| {
        EnvError::Other(format!(
            "cannot find the volume {name:?} referenced by FileKeyRef"
        ))
    })?;
    let folder = volume.path.clone();
    let (path, key) = (selector.path.clone(), selector.key.clone());
    let read = tokio::task::spawn_blocking(move || env_file::read(&folder, &path, &key));
    let found = match read.await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::info!(%error, pod = inputs.pod.display(), "env file not read");
            return Err(EnvError::Other("couldn't parse env file".to_owned()));
        }
        Err(fault) => return Err(EnvError::Other(fault.to_string())),
    };
    if found.is_none() && selector.optional != Some(true) {
        let file = volume.path.join(&selector.path);
        return Err(EnvError::Other(format!(
            "environment variable key {:?} not found in file {file:?}",
            selector.key
        )));
    }
    Ok(found)
}

async fn key_value(
    inputs: &EnvInputs<'_>,
    source: &EnvVarSource,
) -> Result<Option<String>, EnvError> {
    let namespace = inputs.pod.namespace();
    let (kind, display, name, key, optional, value) =
        if let Some(selector) = &source.config_map_key_ref {
            let object = inputs.sources.config_map(namespace, &selector.name).await;
            let object = object.map_err(|e| EnvError::Other(e.to_string()))?;
            let value = object.map(|o| {
                o.data
                    .as_ref()
                    .and_then(|data| data.get(&selector.key).cloned())
            });
            (
                "configmap",
                "ConfigMap",
                &selector.name,
                &selector.key,
                selector.optional,
                value,
            )
        } else if let Some(selector) = &source.secret_key_ref {
            let object = inputs.sources.secret(namespace, &selector.name).await;
            let object = object.map_err(|e| EnvError::Other(e.to_string()))?;
            let value = object.map(|o| {
                let bytes = o.data.as_ref().and_then(|data| data.get(&selector.key));
                bytes.map(|bytes| text(&bytes.0))
            });
            (
                "secret",
                "Secret",
                &selector.name,
                &selector.key,
                selector.optional,
                value,
            )
        } else {
            let message = "this source of a variable is not supported by this node";
            return Err(EnvError::Other(message.to_owned()));
        };
    match value {
        Some(Some(value)) => Ok(Some(value)),
        _ if optional == Some(true) => Ok(None),
        None => Err(not_found(kind, name)),
        Some(None) => Err(EnvError::NoKey {
            kind: display,
            namespace: namespace.to_owned(),
            name: name.clone(),
            key: key.clone(),
        }),
    }
}

fn not_found(kind: &'static str, name: &str) -> EnvError {
    EnvError::NotFound {
        kind,
        name: name.to_owned(),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Replaces `$(NAME)` by what is known; `$$` is a plain `$`, and what is unknown stays.
pub(crate) fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match known.get(name) {
                Some(value) => result.push_str(value),
                None => result.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    result
}

/// The variables of services a pod sees: `kubernetes` always, those of its own namespace when
/// it wants links.
pub(crate) fn service_variables<'a>(
    namespace: &str,
    links: bool,
    services: impl Iterator<Item = &'a Service>,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let home = service.metadata.namespace.as_deref().unwrap_or_default();
        let master = home == "default" && name == "kubernetes";
        if master || (links && home == namespace) {
            add_service(service, name, &mut variables);
        }
    }
    variables
}

fn add_service(service: &Service, name: &str, variables: &mut BTreeMap<String, String>) {
    let spec = service.spec.as_ref();
    let address = spec
        .and_then(|s| s.cluster_ip.as_deref())
        .unwrap_or_default();
    let ports = spec.and_then(|s| s.ports.as_deref()).unwrap_or_default();
    if matches!(address, "" | "None") || ports.is_empty() {
        return;
    }
    let prefix = variable_name(name);
    let host = match address.contains(':') {
        true => format!("[{address}]"),
        false => address.to_owned(),
    };
    variables.insert(format!("{prefix}_SERVICE_HOST"), address.to_owned());
    variables.insert(format!("{prefix}_SERVICE_PORT"), ports[0].port.to_string());
    for (index, port) in ports.iter().enumerate() {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let key = format!("{prefix}_SERVICE_PORT_{}", variable_name(port_name));
            variables.insert(key, port.port.to_string());
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            variables.insert(format!("{prefix}_PORT"), url.clone());
        }
        let stem = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        variables.insert(format!("{stem}_PROTO"), protocol.to_lowercase());
        variables.insert(format!("{stem}_PORT"), port.port.to_string());
        variables.insert(format!("{stem}_ADDR"), address.to_owned());
        variables.insert(stem, url);
    }
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_expand_once() {
        let known = BTreeMap::from([
            ("A".to_owned(), "1".to_owned()),
            ("B".to_owned(), "$(A)".to_owned()),
        ]);
        for (text, expected) in [
            ("x$(A)y", "x1y"),
            ("$(B)", "$(A)"),
            ("$$(A)", "$(A)"),
            ("$(NONE)", "$(NONE)"),
            ("5$ and $(", "5$ and $("),
        ] {
            assert_eq!(expand(text, &known), expected, "{text}");
        }
    }

    #[test]
    fn services_become_variables() {
        let service = |namespace: &str, name: &str| -> Service {
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]}
            }))
            .unwrap()
        };
        let all = [
            service("default", "kubernetes"),
            service("shop", "red-is"),
            service("other", "x"),
        ];
        let got = service_variables("shop", true, all.iter());
        assert_eq!(got["KUBERNETES_SERVICE_HOST"], "10.96.0.1");
        assert_eq!(got["KUBERNETES_SERVICE_PORT_HTTPS"], "443");
        assert_eq!(got["RED_IS_PORT_443_TCP"], "tcp://10.96.0.1:443");
        assert!(!got.contains_key("X_SERVICE_HOST"));
        let got = service_variables("shop", false, all.iter());
        assert!(got.contains_key("KUBERNETES_PORT") && !got.contains_key("RED_IS_PORT"));
    }
}
