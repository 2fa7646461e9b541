//! Credentials by the places they are for.

use std::collections::BTreeMap;

use node_api::AuthConfig;
use node_config::ImagePlace;
use serde::{Deserialize, Serialize};

/// Docker's own registry, as it is named in files of credentials.
const DEFAULT_REGISTRY: &str = "index.docker.io";

/// Credentials, and who may use them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) auth: AuthConfig,
    pub(super) owner: Owner,
}

/// Whose credentials are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Everybody's on this node.
    Node,
    /// Of those who may use a secret.
    Secret(Coordinates),
    /// Of those who run as a service account.
    Account(Coordinates),
}

/// An object of the API.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Coordinates {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

/// Credentials by place.
#[derive(Debug, Default)]
pub(super) struct Keyring {
    places: BTreeMap<String, Vec<Credentials>>,
}

impl Keyring {
    /// Adds credentials for a server as files name it: `https://host/v1/`, `host/path`.
    pub(super) fn add(&mut self, server: &str, credentials: Credentials) {
        let bare = server
            .strip_prefix("https://")
            .or_else(|| server.strip_prefix("http://"));
        let bare = bare.unwrap_or(server);
        let (host, path) = bare.split_at(bare.find('/').unwrap_or(bare.len()));
        // Where Docker keeps its registries.
        let path = match path.strip_prefix("/v1/").or(path.strip_prefix("/v2/")) {
            Some("") => "",
            Some(below) => &path[path.len() - below.len() - 1..],
            None if path == "/" => "",
            None => path,
        };
        let known = self.places.entry(format!("{host}{path}")).or_default();
        known.push(credentials);
    }

    /// What fits the whole name of an image's repository, the most specific place first.
    pub(super) fn lookup(&self, repository: &str) -> Vec<Credentials> {
        let here = |place: &str| ImagePlace::parse(place).is_ok_and(|p| p.holds(repository));
        let fitting = self.places.iter().rev().filter(|(place, _)| here(place));
        let found: Vec<_> = fitting.flat_map(|(_, all)| all.iter().cloned()).collect();
        match found.is_empty() && repository.starts_with("docker.io/") {
            true => self
                .places
                .get(DEFAULT_REGISTRY)
                .cloned()
                .unwrap_or_default(),
            false => found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_place_comes_first() {
        let mut keyring = Keyring::default();
        for place in [
            "https://index.docker.io/v1/",
            "quay.io",
            "https://quay.io/v2/team",
            "quay.io/team/app",
            "*.gcr.io",
            "localhost:5000/",
        ] {
            let auth = AuthConfig {
                username: place.to_owned(),
                ..AuthConfig::default()
            };
            let owner = Owner::Node;
            keyring.add(place, Credentials { auth, owner });
        }
        let users = |image: &str| -> Vec<String> {
            let all = keyring.lookup(image).into_iter();
            all.map(|one| one.auth.username).collect()
        };
        assert_eq!(
            users("docker.io/library/nginx"),
            ["https://index.docker.io/v1/"]
        );
        let team = ["quay.io/team/app", "https://quay.io/v2/team", "quay.io"];
        assert_eq!(users("quay.io/team/app"), team);
        assert_eq!(users("quay.io/other"), ["quay.io"]);
        assert_eq!(users("eu.gcr.io/x"), ["*.gcr.io"]);
        assert_eq!(users("localhost:5000/x"), ["localhost:5000/"]);
        assert!(users("ghcr.io/x").is_empty() && users("localhost/x").is_empty());
    }
}
