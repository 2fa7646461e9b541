//! Registry credentials out of pull secrets.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use node_api::AuthConfig;
use serde::Deserialize;

use super::reference::registry;

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

/// The credentials of a secret that fit an image, the most specific first.
pub(super) fn of_secret(secret: &Secret, image: &str) -> Vec<AuthConfig> {
    let bytes = |key: &str| secret.data.as_ref().and_then(|data| data.get(key));
    let auths: BTreeMap<String, Entry> = if let Some(text) = bytes(".dockerconfigjson") {
        let config: Result<DockerConfig, _> = serde_json::from_slice(&text.0);
        config.map(|config| config.auths).unwrap_or_default()
    } else if let Some(text) = bytes(".dockercfg") {
        serde_json::from_slice(&text.0).unwrap_or_default()
    } else {
        BTreeMap::new()
    };
    let mut fitting: Vec<(usize, AuthConfig)> = auths
        .into_iter()
        .filter_map(|(server, entry)| Some((fit(&server, image)?, auth_of(entry))))
        .collect();
    fitting.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    fitting.into_iter().map(|(_, auth)| auth).collect()
}

/// How much of an image's name an entry names; `None` when it is another registry's.
fn fit(server: &str, image: &str) -> Option<usize> {
    let bare = server
        .strip_prefix("https://")
        .or_else(|| server.strip_prefix("http://"));
    let bare = bare.unwrap_or(server).trim_end_matches('/');
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let path = match path {
        // Where Docker keeps its own hub.
        "v1" | "v2" => "",
        path => path,
    };
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    };
    let wanted = registry(image);
    let same = match host.strip_prefix("*.") {
        Some(suffix) => wanted
            .split_once('.')
            .is_some_and(|(_, rest)| rest == suffix),
        None => host == wanted,
    };
    let below = match image.strip_prefix(wanted) {
        Some(rest) => rest.trim_start_matches('/'),
        None => image,
    };
    (same && below.starts_with(path)).then_some(bare.len())
}

fn auth_of(entry: Entry) -> AuthConfig {
    let decoded = STANDARD.decode(&entry.auth).ok();
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let (username, password) = match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((username, password)) => (username.to_owned(), password.to_owned()),
        None => (entry.username, entry.password),
    };
    AuthConfig {
        username,
        password,
        identity_token: entry.identitytoken,
        registry_token: entry.registrytoken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fitting_entry_wins() {
        let text = serde_json::json!({"auths": {
            "https://index.docker.io/v1/": {"auth": STANDARD.encode("hub:pw")},
            "quay.io": {"username": "q", "password": "p"},
            "quay.io/team": {"username": "t", "password": "p"},
        }});
        let secret = Secret {
            data: Some(BTreeMap::from([(
                ".dockerconfigjson".to_owned(),
                k8s_openapi::ByteString(text.to_string().into_bytes()),
            )])),
            ..Secret::default()
        };
        let users = |image: &str| -> Vec<String> {
            let all = of_secret(&secret, image);
            all.into_iter().map(|auth| auth.username).collect()
        };
        assert_eq!(users("nginx"), ["hub"]);
        assert_eq!(users("quay.io/team/x:1"), ["t", "q"]);
        assert_eq!(users("quay.io/other"), ["q"]);
        assert!(users("ghcr.io/x").is_empty());
    }
}
