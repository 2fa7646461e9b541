//! Registry credentials out of pull secrets.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use node_api::AuthConfig;
use serde::Deserialize;

use super::keyring::{Coordinates, Credentials, Keyring, Owner};

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

/// Adds the credentials of a secret.
pub(super) fn add_secret(secret: &Secret, keyring: &mut Keyring) {
    let bytes = |key: &str| secret.data.as_ref().and_then(|data| data.get(key));
    let auths: BTreeMap<String, Entry> = if let Some(text) = bytes(".dockerconfigjson") {
        let config: Result<DockerConfig, _> = serde_json::from_slice(&text.0);
        config.map(|config| config.auths).unwrap_or_default()
    } else if let Some(text) = bytes(".dockercfg") {
        serde_json::from_slice(&text.0).unwrap_or_default()
    } else {
        BTreeMap::new()
    };
    let metadata = &secret.metadata;
    let owner = Owner::Secret(Coordinates {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
    });
    for (server, entry) in auths {
        let (auth, owner) = (auth_of(entry), owner.clone());
        keyring.add(&server, Credentials { auth, owner });
    }
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
    fn secrets_name_users_plainly_or_encoded() {
        let text = serde_json::json!({"auths": {
            "https://index.docker.io/v1/": {"auth": STANDARD.encode("hub:pw")},
            "quay.io": {"username": "q", "password": "p"},
        }});
        let data = k8s_openapi::ByteString(text.to_string().into_bytes());
        let mut secret = Secret {
            data: Some(BTreeMap::from([(".dockerconfigjson".to_owned(), data)])),
            ..Secret::default()
        };
        secret.metadata.uid = Some("u".into());
        let mut keyring = Keyring::default();
        add_secret(&secret, &mut keyring);
        let hub = keyring.lookup("docker.io/library/nginx");
        assert_eq!(
            (hub[0].auth.username.as_str(), hub[0].auth.password.as_str()),
            ("hub", "pw")
        );
        let Owner::Secret(of) = &hub[0].owner else {
            panic!("{hub:?}");
        };
        assert_eq!(of.uid, "u");
        assert_eq!(keyring.lookup("quay.io/x")[0].auth.username, "q");
    }
}
