//! `apiserver.config.k8s.io/v1 EncryptionConfiguration`: reading and checking.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

const API_VERSIONS: [&str; 2] = [
    "apiserver.config.k8s.io/v1",
    "apiserver.config.k8s.io/v1beta1",
];
const AES_KEY_BYTES: &[usize] = &[16, 24, 32];
const SECRETBOX_KEY_BYTES: &[usize] = &[32];

/// The configuration is not usable; one line per fault.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No YAML of this shape.
    #[error("cannot read EncryptionConfiguration: {0}")]
    Syntax(String),
    /// Read, but wrong.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}

/// Which resources are encrypted by which providers.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EncryptionConfiguration {
    pub(crate) kind: String,
    pub(crate) api_version: String,
    #[serde(default)]
    pub(crate) resources: Vec<ResourceConfiguration>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ResourceConfiguration {
    #[serde(default)]
    pub(crate) resources: Vec<String>,
    #[serde(default)]
    pub(crate) providers: Vec<ProviderConfiguration>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct ProviderConfiguration {
    pub(crate) aesgcm: Option<Keys>,
    pub(crate) aescbc: Option<Keys>,
    pub(crate) secretbox: Option<Keys>,
    pub(crate) identity: Option<Identity>,
    pub(crate) kms: Option<KmsConfiguration>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Keys {
    pub(crate) keys: Vec<Key>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Key {
    pub(crate) name: String,
    /// Base64.
    pub(crate) secret: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// The secret's bytes; empty unless it is base64.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        STANDARD.decode(&self.secret).unwrap_or_default()
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct KmsConfiguration {
    pub(crate) api_version: Option<String>,
    pub(crate) name: String,
    pub(crate) cachesize: Option<i64>,
    pub(crate) endpoint: String,
    /// Such as `3s`, which is the default.
    pub(crate) timeout: Option<String>,
}

impl EncryptionConfiguration {
    /// Reads YAML or JSON, and checks it.
    pub fn parse(text: &str) -> Result<EncryptionConfiguration, ConfigError> {
        let config: EncryptionConfiguration =
            serde_saphyr::from_str(text).map_err(|error| ConfigError::Syntax(error.to_string()))?;
        if config.kind != "EncryptionConfiguration"
            || !API_VERSIONS.contains(&config.api_version.as_str())
        {
            return Err(ConfigError::Syntax(format!(
                "no kind \"{}\" is registered for version \"{}\"",
                config.kind, config.api_version
            )));
        }
        let faults = config.faults();
        match faults.is_empty() {
            true => Ok(config),
            false => Err(ConfigError::Invalid(faults)),
        }
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.resources.is_empty() {
            faults.push("resources: Required value: at least one resources is required".into());
        }
        let mut services = BTreeSet::new();
        for (at, part) in self.resources.iter().enumerate() {
            let (own, providers) = (
                format!("resources[{at}].resources"),
                format!("resources[{at}].providers"),
            );
            if part.resources.is_empty() {
                faults.push(format!(
                    "{own}: Required value: at least one {own} is required"
                ));
            }
            overlaps(&part.resources, &own, &mut faults);
            for (at, name) in part.resources.iter().enumerate() {
                if let Some(why) = misnamed(name) {
                    faults.push(format!("{own}[{at}]: Invalid value: {name:?}: {why}"));
                }
            }
            if part.providers.is_empty() {
                faults.push(format!(
                    "{providers}: Required value: at least one {providers} is required"
                ));
            }
            for (at, provider) in part.providers.iter().enumerate() {
                let path = format!("{providers}[{at}]");
                provider.check(&path, &mut services, &mut faults);
            }
        }
        faults
    }
}

impl ProviderConfiguration {
    fn check(&self, path: &str, services: &mut BTreeSet<String>, faults: &mut Vec<String>) {
        let present = [
            self.aesgcm.is_some(),
            self.aescbc.is_some(),
            self.secretbox.is_some(),
            self.identity.is_some(),
            self.kms.is_some(),
        ];
        match present.iter().filter(|present| **present).count() {
            1 => {}
            0 => faults.push(format!(
                "{path}: Invalid value: provider does not contain any of the expected providers: \
                 KMS, AESGCM, AESCBC, Secretbox, Identity"
            )),
            _ => faults.push(format!(
                "{path}: Invalid value: more than one provider specified in a single element, \
                 should split into different list elements"
            )),
        }
        let lists = [
            ("aesgcm", &self.aesgcm, AES_KEY_BYTES),
            ("aescbc", &self.aescbc, AES_KEY_BYTES),
            ("secretbox", &self.secretbox, SECRETBOX_KEY_BYTES),
        ];
        for (name, keys, lengths) in lists {
            if let Some(keys) = keys {
                check_keys(keys, &format!("{path}.{name}.keys"), lengths, faults);
            }
        }
        if let Some(kms) = &self.kms {
            kms.check(&format!("{path}.kms"), services, faults);
        }
    }
}

fn check_keys(keys: &Keys, path: &str, lengths: &[usize], faults: &mut Vec<String>) {
    if keys.keys.is_empty() {
        faults.push(format!(
            "{path}: Required value: at least one keys is required"
        ));
    }
    for (at, key) in keys.keys.iter().enumerate() {
        let path = format!("{path}[{at}]");
        if key.name.is_empty() {
            faults.push(format!(
                "{path}.name: Required value: name is a mandatory field for a key"
            ));
        }
        if key.secret.is_empty() {
            faults.push(format!(
                "{path}.secret: Required value: secret is a mandatory field for a key"
            ));
            continue;
        }
        match STANDARD.decode(&key.secret) {
            Err(_) => faults.push(format!(
                "{path}.secret: Invalid value: \"REDACTED\": secrets must be base64 encoded"
            )),
            Ok(bytes) if !lengths.contains(&bytes.len()) => {
                let wanted: Vec<String> = lengths.iter().map(usize::to_string).collect();
                faults.push(format!(
                    "{path}.secret: Invalid value: \"REDACTED\": secret is not of the expected \
                     length, got {}, expected one of [{}]",
                    bytes.len(),
                    wanted.join(" ")
                ));
            }
            Ok(_) => {}
        }
    }
}

impl KmsConfiguration {
    /// The socket's path.
    pub(crate) fn socket(&self) -> Option<&str> {
        let path = self.endpoint.strip_prefix("unix:")?;
        Some(path.strip_prefix("//").unwrap_or(path))
    }

    /// How long one call may take.
    pub(crate) fn deadline(&self) -> Option<std::time::Duration> {
        let text = self.timeout.as_deref().unwrap_or("3s");
        let at = text.find(|sign: char| !sign.is_ascii_digit() && sign != '.')?;
        let (number, unit) = text.split_at(at);
        let number: f64 = number.parse().ok()?;
        let seconds = match unit {
            "ms" => number / 1000.0,
            "s" => number,
            "m" => number * 60.0,
            _ => return None,
        };
        let sane = seconds > 0.0 && seconds <= 3600.0;
        sane.then(|| std::time::Duration::from_secs_f64(seconds))
    }

    fn check(&self, path: &str, services: &mut BTreeSet<String>, faults: &mut Vec<String>) {
        match self.api_version.as_deref() {
            Some("v2") => {}
            other => faults.push(format!(
                "{path}.apiVersion: Invalid value: {:?}: unsupported apiVersion {} for KMS \
                 provider, only v2 is supported",
                other.unwrap_or("v1"),
                other.unwrap_or("v1")
            )),
        }
        if self.name.is_empty() {
            faults.push(format!(
                "{path}.name: Required value: name is a mandatory field for a provider"
            ));
        }
        if self.name.contains(':') {
            faults.push(format!(
                "{path}.name: Invalid value: {:?}: invalid KMS provider name {}, must not contain \
                 ':'",
                self.name, self.name
            ));
        }
        if !services.insert(self.name.clone()) {
            faults.push(format!(
                "{path}.name: Invalid value: {:?}: duplicate KMS provider name {}, names must be \
                 unique",
                self.name, self.name
            ));
        }
        if self.endpoint.is_empty() {
            faults.push(format!(
                "{path}.endpoint: Required value: endpoint is a mandatory field for a kms"
            ));
        } else if self.socket().is_none() {
            let scheme = self.endpoint.split(':').next().unwrap_or("");
            faults.push(format!(
                "{path}.endpoint: Invalid value: {:?}: unsupported scheme {scheme:?} for KMS \
                 provider, only unix is supported",
                self.endpoint
            ));
        }
        if self.deadline().is_none() {
            faults.push(format!(
                "{path}.timeout: Invalid value: {:?}: timeout should be a positive value",
                self.timeout.as_deref().unwrap_or("")
            ));
        }
        if let Some(size) = self.cachesize {
            faults.push(format!(
                "{path}.cachesize: Invalid value: {size}: cachesize is not supported in v2"
            ));
        }
    }
}

/// Resource and group of `deployments.apps`, `*.apps`, `*.` or `secrets`.
pub(crate) fn split(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or((name, ""))
}

fn overlaps(names: &[String], path: &str, faults: &mut Vec<String>) {
    let pairs: Vec<_> = names.iter().map(|name| split(name)).collect();
    let (mut twice, mut masked) = (false, false);
    for (at, one) in pairs.iter().enumerate() {
        for other in &pairs[at + 1..] {
            twice |= one == other;
            let wild = one.0 == "*" || other.0 == "*";
            let all = *one == ("*", "*") || *other == ("*", "*");
            masked |= one != other && (all || (one.1 == other.1 && wild));
        }
    }
    if twice {
        faults.push(format!(
            "{path}: Invalid value: {names:?}: the same resource cannot be specified multiple times"
        ));
    }
    if masked {
        faults.push(format!(
            "{path}: Invalid value: {names:?}: using overlapping resources such as 'secrets' and \
             '*.' in the same resource list is not allowed as they will be masked"
        ));
    }
}

fn misnamed(name: &str) -> Option<&'static str> {
    if name.to_lowercase() != name {
        return Some("resource name should not contain capital letters");
    }
    if name == "*" {
        return Some(
            "use '*.' to encrypt all the resources from core API group or *.* to encrypt all \
             resources",
        );
    }
    let internal = [
        "apiserveripinfo",
        "serviceipallocations",
        "servicenodeportallocations",
    ];
    if internal.contains(&name) {
        return Some("resources which do not have REST API/s cannot be encrypted");
    }
    match split(name) {
        (_, "events.k8s.io") => Some(
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use \
             'events' instead in the config file",
        ),
        (_, "extensions") => {
            Some("'extensions' group has been removed and cannot be used for encryption")
        }
        (resource, "*") if resource != "*" => {
            Some("encrypting the same resource across groups is not supported")
        }
        _ => None,
    }
}
