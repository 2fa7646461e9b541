//! `--runtime-config`: which groups and versions are served.

use std::collections::BTreeMap;

use meta::GroupVersion;

/// All, or all of a stage; later ones weigh more.
const STAGES: [(&str, Stage); 4] = [
    ("api/all", Stage::All),
    ("api/ga", Stage::Stable),
    ("api/beta", Stage::Beta),
    ("api/alpha", Stage::Alpha),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    All,
    Stable,
    Beta,
    Alpha,
}

impl Stage {
    fn has(self, version: &str) -> bool {
        let stage = match version {
            _ if version.contains("alpha") => Stage::Alpha,
            _ if version.contains("beta") => Stage::Beta,
            _ => Stage::Stable,
        };
        self == Stage::All || self == stage
    }
}

/// What is switched on or off; everything is on that is not named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig(BTreeMap<String, String>);

/// Why a runtime configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeConfigError {
    #[error("malformed pair, expect string=string")]
    Pair,
    #[error("runtime-config invalid key {0}")]
    Key(String),
    #[error(
        "invalid value of {key}: {value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax"
    )]
    Value { key: String, value: String },
    #[error("invalid value {key}={value}")]
    Stage { key: String, value: String },
    #[error(
        "invalid key {key}: group/version/resource and resource is always lowercase plural, not \
         {resource:?}"
    )]
    Case { key: String, resource: String },
    #[error("invalid key with only api/all=false")]
    Nothing,
    #[error("unknown api groups {0}")]
    Groups(String),
    #[error("group version {0} that has not been registered")]
    Version(String),
}

impl RuntimeConfig {
    /// Reads `key=value` pairs.
    pub fn parse(pairs: &[String]) -> Result<RuntimeConfig, RuntimeConfigError> {
        let pairs = pairs.iter().filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').ok_or(RuntimeConfigError::Pair)?;
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        });
        let config = RuntimeConfig(pairs.collect::<Result<_, _>>()?);
        for (key, value) in &config.0 {
            read(key, value)?;
        }
        Ok(config)
    }

    /// Compares what is named with what there is.
    pub fn check(&self, known: &[GroupVersion]) -> Result<(), RuntimeConfigError> {
        if self.0.len() == 1 && self.0.get("api/all").is_some_and(|value| value == "false") {
            return Err(RuntimeConfigError::Nothing);
        }
        let mut unknown = Vec::new();
        let mut absent = None;
        for key in self.named() {
            let steps: Vec<&str> = key.split('/').collect();
            let ([group, version] | [group, version, _]) = steps[..] else {
                return Err(RuntimeConfigError::Key(key.to_owned()));
            };
            if let Some(resource) = steps.get(2).filter(|own| own.to_lowercase() != **own) {
                let (key, resource) = (key.to_owned(), (*resource).to_owned());
                return Err(RuntimeConfigError::Case { key, resource });
            }
            if !known.iter().any(|own| own.group == group) {
                unknown.push(group);
            } else if !known
                .iter()
                .any(|own| own.group == group && own.version == version)
            {
                absent = absent.or(Some(format!("{group}/{version}")));
            }
        }
        match (unknown.is_empty(), absent) {
            (false, _) => Err(RuntimeConfigError::Groups(unknown.join(","))),
            (true, Some(version)) => Err(RuntimeConfigError::Version(version)),
            (true, None) => Ok(()),
        }
    }

    /// What is named that is no stage.
    fn named(&self) -> impl Iterator<Item = &str> {
        let keys = self.0.keys().map(String::as_str);
        keys.filter(|key| !is_stage(key))
    }

    /// Whether a resource is served. The core group always is: this server needs it itself.
    pub fn serves(&self, group: &str, version: &str, resource: &str) -> bool {
        if self.0.is_empty() || group.is_empty() {
            return true;
        }
        let of = |key: &str| {
            let value = self.0.get(key)?;
            read(key, value).ok()
        };
        let version_key = format!("{group}/{version}");
        let own = of(&format!("{version_key}/{resource}")).or_else(|| of(&version_key));
        if let Some(own) = own {
            return own;
        }
        let stages = STAGES.iter().rev().filter(|(_, stage)| stage.has(version));
        stages.filter_map(|(key, _)| of(key)).next().unwrap_or(true)
    }
}

fn is_stage(key: &str) -> bool {
    STAGES.iter().any(|(stage, _)| *stage == key)
}

/// As Go reads truth; nothing is true. Of stages only two words are understood.
fn read(key: &str, value: &str) -> Result<bool, RuntimeConfigError> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ if is_stage(key) => Err(RuntimeConfigError::Stage {
            key: key.to_owned(),
            value: value.to_owned(),
        }),
        "" | "1" | "t" | "T" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "False" => Ok(false),
        _ => Err(RuntimeConfigError::Value {
            key: key.to_owned(),
            value: value.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[&str]) -> Result<RuntimeConfig, String> {
        let pairs: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        let config = RuntimeConfig::parse(&pairs).map_err(|error| error.to_string())?;
        let known =
            [("", "v1"), ("apps", "v1"), ("batch", "v1")].map(|(group, version)| GroupVersion {
                group: group.into(),
                version: version.into(),
            });
        config.check(&known).map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn named_versions_weigh_more_than_stages() {
        for (pairs, apps, batch) in [
            (&[][..], true, true),
            (&["apps/v1=false"], false, true),
            (&["api/all=false", "apps/v1="], true, false),
            (&["api/ga=false", "api/all=true"], false, false),
            (&["api/beta=false"], true, true),
            (&["apps/v1=false", "apps/v1/deployments=true"], true, true),
            (&["apps/v1/deployments=false"], false, true),
        ] {
            let config = config(pairs).unwrap();
            let served = (
                config.serves("apps", "v1", "deployments"),
                config.serves("batch", "v1", "jobs"),
            );
            assert_eq!(served, (apps, batch), "{pairs:?}");
        }
    }

    #[test]
    fn faults_are_told_in_upstream_s_words() {
        for (pairs, why) in [
            (&["x"][..], "malformed pair, expect string=string"),
            (&["api/all=false"], "invalid key with only api/all=false"),
            (&["nothing/v1=true"], "unknown api groups nothing"),
            (
                &["apps/v9=true"],
                "group version apps/v9 that has not been registered",
            ),
            (&["apps=true"], "runtime-config invalid key apps"),
            (&["v1=true"], "runtime-config invalid key v1"),
            (&["api/ga=yes"], "invalid value api/ga=yes"),
            (
                &["apps/v1/Deployments=true"],
                "invalid key apps/v1/Deployments: group/version/resource and resource is always \
                 lowercase plural, not \"Deployments\"",
            ),
            (
                &["apps/v1=maybe"],
                "invalid value of apps/v1: maybe, err: strconv.ParseBool: parsing \"maybe\": \
                 invalid syntax",
            ),
        ] {
            assert_eq!(config(pairs).unwrap_err(), why);
        }
    }
}
