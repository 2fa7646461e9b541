//! What a kubelet is told: `KubeletConfiguration` (kubelet.config.k8s.io/v1beta1) from a file,
//! drop-ins and flags, with upstream's defaults, checks and words. Reads no files itself.

mod duration;
mod flags;
mod gates;
mod places;
mod providers;
mod read;
mod settings;
mod table;
mod validate;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub use duration::GoDuration;
pub use flags::is_flag;
pub use places::ImagePlace;
pub use providers::{CredentialProvider, TokenAttributes};
pub use settings::{MemoryReservation, Settings, ShutdownPeriod, Taint};
pub use table::{Effect, FIELDS, Row};

/// The group and version of the file.
pub const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
/// Its kind.
pub const KIND: &str = "KubeletConfiguration";
/// The kind of files that name credential providers.
pub const KIND_PROVIDERS: &str = "CredentialProviderConfig";

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("failed to load kubelet config file, path: {path}, error: {why}")]
    File { path: String, why: String },
    #[error("failed to load kubelet dropin file, path: {path}, {why}")]
    Dropin { path: String, why: String },
    #[error("failed to parse kubelet flag: {0}")]
    Flag(String),
    #[error("failed to validate kubelet configuration, error: {0}")]
    Invalid(String),
}

/// A file that was read.
#[derive(Clone, Debug)]
pub struct Source {
    pub path: PathBuf,
    pub text: String,
}

/// Where settings come from; what is named later wins.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// What holds here where upstream has another default: fields as in the file.
    pub own: Value,
    pub file: Option<Source>,
    /// In the order in which they count.
    pub dropins: Vec<Source>,
    /// Fields that somebody who starts us has set already.
    pub given: Value,
    /// Upstream's flags.
    pub flags: Vec<(String, String)>,
}

/// Everything in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    tree: Value,
    /// What somebody asked for.
    asked: Value,
    settings: Settings,
    warnings: Vec<String>,
}

impl Default for Configuration {
    /// Upstream's defaults.
    fn default() -> Configuration {
        let mut tree = Value::Null;
        let settings = read::complete(Value::Object(Map::new()), &Value::Null).and_then(|whole| {
            tree = whole;
            Settings::of(&tree)
        });
        Configuration {
            settings: settings.unwrap_or_default(),
            tree,
            asked: Value::Null,
            warnings: Vec::new(),
        }
    }
}

impl serde::Serialize for Configuration {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.tree.serialize(to)
    }
}

impl Configuration {
    /// Reads, merges, fills in defaults and checks the whole.
    pub fn read(layers: &Layers) -> Result<Configuration, Error> {
        let mut asked = Value::Object(Map::new());
        if let Some(file) = &layers.file {
            let path = file.path.display().to_string();
            let tree = read::file(&file.text).map_err(|why| {
                let why = match why.is_empty() {
                    true => format!("kubelet config file {path:?} was empty"),
                    false => format!("failed to decode: {why}"),
                };
                Error::File {
                    path: path.clone(),
                    why,
                }
            })?;
            merge(&mut asked, beside(&file.path, tree));
        }
        for file in &layers.dropins {
            let path = file.path.display().to_string();
            let tree = read::dropin(&file.text).map_err(|why| Error::Dropin { path, why })?;
            merge(&mut asked, tree);
        }
        merge(&mut asked, layers.given.clone());
        for (name, value) in &layers.flags {
            flags::apply(&mut asked, name, value).map_err(Error::Flag)?;
        }
        let mut tree = layers.own.clone();
        // What is asked for stands as a whole.
        for (asked_for, with_it) in [
            ("serializeImagePulls", "maxParallelImagePulls"),
            ("evictionHard", "evictionHard"),
        ] {
            if at(&asked, asked_for).is_some()
                && let Some(own) = tree.as_object_mut()
            {
                own.remove(with_it);
            }
        }
        let own = tree.clone();
        let usual = read::complete(tree.clone(), &own).map_err(Error::Invalid)?;
        merge(&mut tree, asked.clone());
        let tree = read::complete(tree, &own).map_err(Error::Invalid)?;
        let settings = Settings::of(&tree).map_err(Error::Invalid)?;
        let mut faults = validate::faults(&tree, &settings);
        let mut warnings = Vec::new();
        for row in FIELDS {
            let (now, before) = (at(&tree, row.path), at(&usual, row.path));
            match row.effect {
                Effect::Idle if now != before => {
                    warnings.push(format!("{} has no effect here", row.path));
                }
                Effect::Missing if now != before => {
                    let value = now.unwrap_or(&Value::Null);
                    let path = row.path;
                    faults.push(format!(
                        "invalid configuration: {path} {value} is not supported"
                    ));
                }
                _ => {}
            }
        }
        let gates = settings.feature_gates.iter();
        warnings.extend(gates.filter_map(|(name, on)| gates::warning(name, *on)));
        if !faults.is_empty() {
            return Err(Error::Invalid(aggregate(&faults)));
        }
        Ok(Configuration {
            tree,
            asked,
            settings,
            warnings,
        })
    }

    /// What is in force, as `/configz` shows it.
    pub fn shown(&self) -> &Value {
        &self.tree
    }

    /// Whether somebody asked for a value of this field.
    pub fn is_asked(&self, path: &str) -> bool {
        at(&self.asked, path).is_some()
    }

    /// What is in force, by type.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What was asked for and changes nothing.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Several faults as one text.
fn aggregate(faults: &[String]) -> String {
    match faults {
        [only] => only.clone(),
        all => format!("[{}]", all.join(", ")),
    }
}

/// The value at a path with dots.
pub(crate) fn at<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(tree, |tree, name| tree.get(name))
}

/// Puts a value at a path with dots.
pub(crate) fn put(tree: &mut Value, path: &str, value: Value) {
    let mut here = tree;
    for name in path.split('.') {
        if !here.is_object() {
            *here = Value::Object(Map::new());
        }
        let Some(map) = here.as_object_mut() else {
            return;
        };
        here = map.entry(name).or_insert(Value::Null);
    }
    *here = value;
}

/// A JSON merge patch.
fn merge(tree: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        return;
    };
    if !tree.is_object() {
        *tree = Value::Object(Map::new());
    }
    let Some(map) = tree.as_object_mut() else {
        return;
    };
    for (name, value) in patch {
        match value {
            Value::Null => {
                map.remove(&name);
            }
            Value::Object(_) => merge(map.entry(name).or_insert(Value::Null), value),
            value => {
                map.insert(name, value);
            }
        }
    }
}

/// Makes relative paths relative to the folder of the file.
fn beside(file: &Path, mut tree: Value) -> Value {
    const PATHS: [&str; 7] = [
        "staticPodPath",
        "authentication.x509.clientCAFile",
        "tlsCertFile",
        "tlsPrivateKeyFile",
        "resolvConf",
        "volumePluginDir",
        "podLogsDir",
    ];
    let folder = file.parent().unwrap_or(Path::new(""));
    for path in PATHS {
        let Some(Value::String(text)) = at(&tree, path) else {
            continue;
        };
        if !text.is_empty() && !Path::new(text).is_absolute() {
            let whole = folder.join(text).display().to_string();
            put(&mut tree, path, Value::String(whole));
        }
    }
    tree
}

#[cfg(test)]
mod tests;
