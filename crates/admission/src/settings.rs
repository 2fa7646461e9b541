//! Which plugins run, and what an AdmissionConfiguration tells them.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// What an operator decides about admission.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Plugins to run besides those that are on by default.
    pub enable: Vec<String>,
    /// Plugins that are on by default and shall not run.
    pub disable: Vec<String>,
    /// The configuration of plugins by name, as in AdmissionConfiguration.
    pub plugins: BTreeMap<String, Value>,
}

/// Why settings cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    plugin: String,
    why: String,
}

impl ConfigError {
    pub(crate) fn new(plugin: &str, why: impl Into<String>) -> ConfigError {
        ConfigError {
            plugin: plugin.into(),
            why: why.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "admission plugin {}: {}", self.plugin, self.why)
    }
}

impl std::error::Error for ConfigError {}

impl Settings {
    /// Takes in an AdmissionConfiguration. `load` reads the file that a plugin's `path` names.
    pub fn configure(
        &mut self,
        file: &Value,
        load: &mut dyn FnMut(&str) -> Result<Value, String>,
    ) -> Result<(), ConfigError> {
        let error = |why: String| ConfigError::new("AdmissionConfiguration", why);
        let text = |tree: &Value, field: &str| {
            let text = tree.get(field).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let (version, kind) = (text(file, "apiVersion"), text(file, "kind"));
        let known = ["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1"];
        if !known.contains(&version.as_str()) || kind != "AdmissionConfiguration" {
            let why = format!("no kind \"{kind}\" is registered for version \"{version}\"");
            return Err(error(why));
        }
        fields(&kind, file, &["apiVersion", "kind", "plugins"])?;
        let plugins = file.get("plugins").and_then(Value::as_array);
        for plugin in plugins.into_iter().flatten() {
            fields(&kind, plugin, &["name", "path", "configuration"])?;
            let (name, path) = (text(plugin, "name"), text(plugin, "path"));
            let given = plugin.get("configuration").filter(|tree| !tree.is_null());
            let tree = match (given, path.as_str()) {
                (Some(tree), _) => tree.clone(),
                (None, "") => Value::Null,
                (None, path) => load(path).map_err(|why| ConfigError::new(&name, why))?,
            };
            self.plugins.insert(name, tree);
        }
        Ok(())
    }

    /// Whether a plugin that is on by default shall not run.
    pub fn disables(&self, plugin: &str) -> bool {
        self.disable.iter().any(|name| name == plugin)
    }

    /// What a plugin was told; null for nothing.
    pub(crate) fn of(&self, plugin: &str) -> &Value {
        self.plugins.get(plugin).unwrap_or(&Value::Null)
    }

    /// Refuses names of no plugin and names on both lists.
    pub(crate) fn check(&self, known: &[&str]) -> Result<(), ConfigError> {
        let named = self.enable.iter().chain(&self.disable);
        for name in named.clone().chain(self.plugins.keys()) {
            if !known.contains(&name.as_str()) {
                return Err(ConfigError::new(name, "unknown"));
            }
        }
        match self.enable.iter().find(|name| self.disable.contains(name)) {
            Some(name) => Err(ConfigError::new(name, "is both enabled and disabled")),
            None => Ok(()),
        }
    }
}

/// Configuration has only fields that are known.
pub(crate) fn fields(plugin: &str, tree: &Value, known: &[&str]) -> Result<(), ConfigError> {
    let map = match tree {
        Value::Null => return Ok(()),
        Value::Object(map) => map,
        _ => return Err(ConfigError::new(plugin, "must be a map")),
    };
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(ConfigError::new(plugin, format!("unknown field \"{key}\""))),
        None => Ok(()),
    }
}
