//! The ConfigMaps and Secrets a pod needs.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod, Volume};

/// One object of the pod's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reference {
    ConfigMap(String),
    Secret(String),
}

/// Everything a pod refers to: volumes, environment, pull secrets.
pub fn references_of(pod: &Pod) -> BTreeSet<Reference> {
    let mut found = BTreeSet::new();
    let Some(spec) = &pod.spec else {
        return found;
    };
    for volume in spec.volumes.iter().flatten() {
        of_volume(volume, &mut found);
    }
    let inits = spec.init_containers.iter().flatten();
    for container in inits.chain(&spec.containers) {
        of_container(container, &mut found);
    }
    for ephemeral in spec.ephemeral_containers.iter().flatten() {
        let container = Container {
            env: ephemeral.env.clone(),
            env_from: ephemeral.env_from.clone(),
            ..Container::default()
        };
        of_container(&container, &mut found);
    }
    for secret in spec.image_pull_secrets.iter().flatten() {
        found.insert(Reference::Secret(secret.name.clone()));
    }
    found
}

fn of_volume(volume: &Volume, found: &mut BTreeSet<Reference>) {
    if let Some(source) = &volume.config_map {
        found.insert(Reference::ConfigMap(source.name.clone()));
    }
    if let Some(name) = volume.secret.as_ref().and_then(|s| s.secret_name.clone()) {
        found.insert(Reference::Secret(name));
    }
    let projected = volume
        .projected
        .iter()
        .flat_map(|p| p.sources.iter().flatten());
    for part in projected {
        if let Some(source) = &part.config_map {
            found.insert(Reference::ConfigMap(source.name.clone()));
        }
        if let Some(source) = &part.secret {
            found.insert(Reference::Secret(source.name.clone()));
        }
    }
}

fn of_container(container: &Container, found: &mut BTreeSet<Reference>) {
    for source in container.env_from.iter().flatten() {
        if let Some(source) = &source.config_map_ref {
            found.insert(Reference::ConfigMap(source.name.clone()));
        }
        if let Some(source) = &source.secret_ref {
            found.insert(Reference::Secret(source.name.clone()));
        }
    }
    let sources = container
        .env
        .iter()
        .flatten()
        .filter_map(|v| v.value_from.as_ref());
    for source in sources {
        if let Some(source) = &source.config_map_key_ref {
            found.insert(Reference::ConfigMap(source.name.clone()));
        }
        if let Some(source) = &source.secret_key_ref {
            found.insert(Reference::Secret(source.name.clone()));
        }
    }
}
