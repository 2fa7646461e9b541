//! PodSecurityConfiguration: the standard of namespaces without labels, and who is exempt.

use meta::{Faults, naming};
use serde_json::Value;

use super::standard::{LEVEL_RULE, Level, Policy, VERSION_RULE, Version};
use crate::settings::{ConfigError, fields};
use crate::tree::{list, text};

const PLUGIN: &str = "PodSecurity";

/// What the plugin was told at its start.
#[derive(Clone, Debug, Default)]
pub(super) struct Config {
    pub(super) defaults: Policy,
    pub(super) users: Vec<String>,
    pub(super) namespaces: Vec<String>,
    pub(super) runtime_classes: Vec<String>,
}

impl Config {
    /// Reads the plugin's part of an AdmissionConfiguration; null means upstream's defaults.
    pub(super) fn read(tree: &Value) -> Result<Config, ConfigError> {
        if tree.is_null() {
            return Ok(Config::default());
        }
        let version = text(tree, "apiVersion");
        let known = ["v1", "v1beta1", "v1alpha1"]
            .iter()
            .any(|known| version == format!("pod-security.admission.config.k8s.io/{known}"));
        if !known || text(tree, "kind") != "PodSecurityConfiguration" {
            let kind = text(tree, "kind");
            let why = format!("no kind \"{kind}\" is registered for version \"{version}\"");
            return Err(ConfigError::new(PLUGIN, why));
        }
        let null = Value::Null;
        let part = |name: &str| tree.get(name).unwrap_or(&null);
        let (defaults, exemptions) = (part("defaults"), part("exemptions"));
        fields(
            PLUGIN,
            tree,
            &["apiVersion", "kind", "defaults", "exemptions"],
        )?;
        let modes = [
            "enforce",
            "enforce-version",
            "audit",
            "audit-version",
            "warn",
            "warn-version",
        ];
        fields(PLUGIN, defaults, &modes)?;
        let lists = ["usernames", "namespaces", "runtimeClasses"];
        fields(PLUGIN, exemptions, &lists)?;
        let mut faults = Faults::new();
        let config = Config {
            defaults: read_defaults(defaults, &mut faults),
            namespaces: names(exemptions, "namespaces", naming::dns1123_label, &mut faults),
            runtime_classes: names(
                exemptions,
                "runtimeClasses",
                naming::dns1123_subdomain,
                &mut faults,
            ),
            users: names(exemptions, "usernames", not_empty, &mut faults),
        };
        match faults.is_empty() {
            true => Ok(config),
            false => Err(ConfigError::new(PLUGIN, faults.summary())),
        }
    }
}

fn not_empty(name: &str) -> Vec<String> {
    match name {
        "" => vec!["username must not be empty".into()],
        _ => Vec::new(),
    }
}

fn read_defaults(tree: &Value, faults: &mut Faults) -> Policy {
    let mut policy = Policy::default();
    for mode in ["enforce", "warn", "audit"] {
        let standard = match mode {
            "enforce" => &mut policy.enforce,
            "audit" => &mut policy.audit,
            _ => &mut policy.warn,
        };
        let level = text(tree, mode);
        match Level::parse(level) {
            Some(level) => standard.level = level,
            None if level.is_empty() => {}
            None => faults.invalid(format!("defaults.{mode}"), level, LEVEL_RULE),
        }
        let field = format!("{mode}-version");
        let version = text(tree, &field);
        match Version::parse(version) {
            Some(version) => standard.version = version,
            None if version.is_empty() => {}
            None => faults.invalid(format!("defaults.{field}"), version, VERSION_RULE),
        }
    }
    policy
}

fn names(
    tree: &Value,
    field: &str,
    rule: fn(&str) -> Vec<String>,
    faults: &mut Faults,
) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for (index, name) in list(tree, field).enumerate() {
        let (name, path) = (
            name.as_str().unwrap_or_default(),
            format!("exemptions.{field}[{index}]"),
        );
        let broken = rule(name);
        if !broken.is_empty() {
            faults.invalid(path, name, broken.join(", "));
        } else if all.iter().any(|one| one == name) {
            faults.duplicate(path, name);
        } else {
            all.push(name.to_owned());
        }
    }
    all
}
