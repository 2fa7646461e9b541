//! Pod security levels and versions, and what a namespace's labels ask for.

use std::fmt;

use meta::Faults;
use serde_json::Value;

const PREFIX: &str = "pod-security.kubernetes.io/";
/// What upstream says of a level that is none.
pub(super) const LEVEL_RULE: &str = "must be one of privileged, baseline, restricted";
/// What upstream says of a version that is none.
pub(super) const VERSION_RULE: &str = "must be \"latest\" or \"v1.x\"";

/// How strict a standard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub(super) fn parse(text: &str) -> Option<Level> {
        match text {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })
    }
}

/// The release whose checks count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// `v1.x`.
    Minor(u32),
    Latest,
}

impl Version {
    pub(super) fn parse(text: &str) -> Option<Version> {
        if text == "latest" {
            return Some(Version::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let plain = minor.bytes().all(|byte| byte.is_ascii_digit());
        let padded = minor.len() > 1 && minor.starts_with('0');
        if !plain || padded {
            return None;
        }
        minor.parse().ok().map(Version::Minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Latest => f.write_str("latest"),
            Version::Minor(minor) => write!(f, "v1.{minor}"),
        }
    }
}

/// A level at a version, such as `restricted:latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standard {
    pub(super) level: Level,
    pub(super) version: Version,
}

impl Standard {
    const PRIVILEGED: Standard = Standard {
        level: Level::Privileged,
        version: Version::Latest,
    };

    /// Whether both ask for the same.
    fn equivalent(self, other: Standard) -> bool {
        let privileged = Level::Privileged;
        self == other || (self.level == privileged && other.level == privileged)
    }
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}

/// What a namespace refuses, audits and warns of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) enforce: Standard,
    pub(super) audit: Standard,
    pub(super) warn: Standard,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            enforce: Standard::PRIVILEGED,
            audit: Standard::PRIVILEGED,
            warn: Standard::PRIVILEGED,
        }
    }
}

impl Policy {
    /// Whether nothing is asked for at all.
    pub(super) fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn]
            .iter()
            .all(|standard| standard.level == Level::Privileged)
    }

    pub(super) fn equivalent(&self, other: &Policy) -> bool {
        self.enforce.equivalent(other.enforce)
            && self.audit.equivalent(other.audit)
            && self.warn.equivalent(other.warn)
    }

    /// The standards that labels name, beside their modes.
    pub(super) fn named(&self, labels: &Value) -> String {
        let modes = [
            ("enforce", self.enforce),
            ("audit", self.audit),
            ("warn", self.warn),
        ];
        let set = |mode: &str| {
            label(labels, mode).is_some() || label(labels, &format!("{mode}-version")).is_some()
        };
        let named = modes
            .iter()
            .filter(|(mode, standard)| standard.level != Level::Privileged && set(mode))
            .map(|(mode, standard)| format!("{mode}={standard}"));
        named.collect::<Vec<_>>().join(", ")
    }
}

/// The value of `pod-security.kubernetes.io/<name>`.
fn label<'a>(labels: &'a Value, name: &str) -> Option<&'a str> {
    labels
        .get(format!("{PREFIX}{name}"))
        .and_then(Value::as_str)
}

/// What labels ask for; where they are silent, the defaults. Labels that cannot be read count as
/// the strictest to enforce and as nothing to audit or warn of.
pub(super) fn policy(labels: &Value, defaults: Policy) -> (Policy, Faults) {
    let (mut policy, mut faults) = (defaults, Faults::new());
    let ours = |key: &String| key.starts_with(PREFIX);
    if !labels
        .as_object()
        .is_some_and(|labels| labels.keys().any(ours))
    {
        return (policy, faults);
    }
    let mut good_enforce = false;
    for mode in ["enforce", "audit", "warn"] {
        let standard = match mode {
            "enforce" => &mut policy.enforce,
            "audit" => &mut policy.audit,
            _ => &mut policy.warn,
        };
        if let Some(text) = label(labels, mode) {
            let level = Level::parse(text);
            if level.is_none() {
                faults.invalid(path(mode), text, LEVEL_RULE);
            }
            let unread = match mode {
                "enforce" => Level::Restricted,
                _ => Level::Privileged,
            };
            good_enforce |= mode == "enforce" && level.is_some();
            standard.level = level.unwrap_or(unread);
        }
        let versioned = format!("{mode}-version");
        if let Some(text) = label(labels, &versioned) {
            let version = Version::parse(text);
            if version.is_none() {
                faults.invalid(path(&versioned), text, VERSION_RULE);
            }
            standard.version = version.unwrap_or(Version::Latest);
        }
    }
    // Who enforces without a word on warnings is warned of as much.
    let silent = label(labels, "warn").is_none();
    if silent && good_enforce && policy.enforce.level > policy.warn.level {
        policy.warn.level = policy.enforce.level;
        if label(labels, "warn-version").is_none() {
            policy.warn.version = policy.enforce.version;
        }
    }
    (policy, faults)
}

fn path(name: &str) -> String {
    format!("metadata.labels[{PREFIX}{name}]")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(labels: &[(&str, &str)], expected: [&str; 3], faults: &[&str]) {
        let labels = labels
            .iter()
            .map(|(name, value)| (format!("{PREFIX}{name}"), json!(value)));
        let (policy, found) = policy(&Value::Object(labels.collect()), Policy::default());
        let standards = [policy.enforce, policy.audit, policy.warn].map(|one| one.to_string());
        assert_eq!(standards, expected);
        let found: Vec<_> = found.0.iter().map(ToString::to_string).collect();
        assert_eq!(found, faults);
    }

    #[test]
    fn labels_make_a_policy() {
        let nothing = "privileged:latest";
        check(&[], [nothing; 3], &[]);
        check(
            &[("enforce", "baseline"), ("enforce-version", "v1.20")],
            ["baseline:v1.20", nothing, "baseline:v1.20"],
            &[],
        );
        check(
            &[("enforce", "baseline"), ("warn", "privileged")],
            ["baseline:latest", nothing, nothing],
            &[],
        );
        check(
            &[("enforce", "x"), ("audit", "y"), ("warn-version", "v1.01")],
            ["restricted:latest", nothing, nothing],
            &[
                "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"x\": must \
                 be one of privileged, baseline, restricted",
                "metadata.labels[pod-security.kubernetes.io/audit]: Invalid value: \"y\": must be \
                 one of privileged, baseline, restricted",
                "metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \
                 \"v1.01\": must be \"latest\" or \"v1.x\"",
            ],
        );
    }
}
