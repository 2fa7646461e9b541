//! `audit.k8s.io/v1 Policy`: reading, checking, and finding the rule of a request.

use serde::{Deserialize, Serialize};

/// How much of a request is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    #[default]
    None,
    /// Who, what, when, and how it ended.
    Metadata,
    /// And what was sent.
    Request,
    /// And what was answered.
    RequestResponse,
}

impl Level {
    /// All levels, the least first.
    pub const ALL: [Level; 4] = [
        Level::None,
        Level::Metadata,
        Level::Request,
        Level::RequestResponse,
    ];

    /// The word in policies and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

/// A moment in the life of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    RequestReceived,
    /// Long-running requests only: headers are sent, the body follows.
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    fn bit(self) -> u8 {
        1 << self as u8
    }

    fn parse(text: &str) -> Option<Stage> {
        match text {
            "RequestReceived" => Some(Stage::RequestReceived),
            "ResponseStarted" => Some(Stage::ResponseStarted),
            "ResponseComplete" => Some(Stage::ResponseComplete),
            "Panic" => Some(Stage::Panic),
            _ => None,
        }
    }
}

/// The policy is not usable; one line per fault.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// No YAML of this shape.
    #[error("failed decoding: {0}")]
    Syntax(String),
    /// Read, but wrong.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}

/// What a request asks for, as rules see it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    pub user: &'a str,
    pub groups: &'a [String],
    pub verb: &'a str,
    pub is_resource: bool,
    pub path: &'a str,
    pub namespace: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub name: &'a str,
}

/// What a rule says of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ruling {
    pub(crate) level: Level,
    omitted: u8,
    pub(crate) omit_managed_fields: bool,
}

impl Ruling {
    pub(crate) fn omits(self, stage: Stage) -> bool {
        self.omitted & stage.bit() != 0
    }
}

/// The rules; the first that matches decides.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Vec<(Rule, Ruling)>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<String>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    level: String,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

impl Policy {
    /// Reads YAML or JSON, and checks it.
    pub fn parse(text: &str) -> Result<Policy, PolicyError> {
        let file: File =
            serde_saphyr::from_str(text).map_err(|error| PolicyError::Syntax(error.to_string()))?;
        if (file.api_version.as_str(), file.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            return Err(PolicyError::Syntax(format!(
                "unknown group version field {}, Kind={} in policy",
                file.api_version, file.kind
            )));
        }
        let mut faults = Vec::new();
        let everywhere = stages(&file.omit_stages, "omitStages", &mut faults);
        let mut rules = Vec::new();
        for (at, rule) in file.rules.into_iter().enumerate() {
            let path = format!("rules[{at}]");
            let omitted = stages(
                &rule.omit_stages,
                &format!("{path}.omitStages"),
                &mut faults,
            );
            rule.check(&path, &mut faults);
            let level = Level::ALL
                .into_iter()
                .find(|level| level.as_str() == rule.level);
            let ruling = Ruling {
                level: level.unwrap_or_default(),
                omitted: omitted | everywhere,
                omit_managed_fields: rule.omit_managed_fields.unwrap_or(file.omit_managed_fields),
            };
            rules.push((rule, ruling));
        }
        if rules.is_empty() {
            faults.push("loaded illegal policy with 0 rules".into());
        }
        match faults.is_empty() {
            true => Ok(Policy { rules }),
            false => Err(PolicyError::Invalid(faults)),
        }
    }

    pub(crate) fn evaluate(&self, asked: &Asked<'_>) -> Ruling {
        let found = self.rules.iter().find(|(rule, _)| rule.matches(asked));
        found.map_or(Ruling::default(), |(_, ruling)| *ruling)
    }
}

fn stages(names: &[String], path: &str, faults: &mut Vec<String>) -> u8 {
    let mut bits = 0;
    for (at, name) in names.iter().enumerate() {
        match Stage::parse(name) {
            Some(stage) => bits |= stage.bit(),
            None => faults.push(format!(
                "{path}[{at}]: Invalid value: {name:?}: allowed stages are \
                 RequestReceived,ResponseStarted,ResponseComplete,Panic"
            )),
        }
    }
    bits
}

impl Rule {
    fn check(&self, path: &str, faults: &mut Vec<String>) {
        match self.level.as_str() {
            "" => faults.push(format!("{path}.level: Required value")),
            level if Level::ALL.iter().any(|known| known.as_str() == level) => {}
            level => faults.push(format!(
                "{path}.level: Unsupported value: {level:?}: supported values: \"None\", \
                 \"Metadata\", \"Request\", \"RequestResponse\""
            )),
        }
        for (at, url) in self.non_resource_urls.iter().enumerate() {
            let path = format!("{path}.nonResourceURLs[{at}]");
            if url != "*" && !url.starts_with('/') {
                faults.push(format!(
                    "{path}: Invalid value: {url:?}: non-resource URL rules must begin with a '/' \
                     character"
                ));
            }
            if url.strip_suffix('*').unwrap_or(url).contains('*') {
                faults.push(format!(
                    "{path}: Invalid value: {url:?}: non-resource URL wildcards '*' must be the \
                     final character of the rule"
                ));
            }
        }
        for own in &self.resources {
            let group = &own.group;
            if !group.is_empty() && group != "*" {
                let why = meta::naming::dns1123_subdomain(group);
                if !why.is_empty() {
                    let why: Vec<String> = why.iter().map(ToString::to_string).collect();
                    faults.push(format!(
                        "{path}.resources.group: Invalid value: {group:?}: {}",
                        why.join(",")
                    ));
                }
            }
            if !own.resource_names.is_empty() && own.resources.is_empty() {
                faults.push(format!(
                    "{path}.resources.resourceNames: Invalid value: {:?}: using resourceNames \
                     requires at least one resource",
                    own.resource_names
                ));
            }
        }
        let both = !self.resources.is_empty() || !self.namespaces.is_empty();
        if !self.non_resource_urls.is_empty() && both {
            faults.push(format!(
                "{path}.nonResourceURLs: Invalid value: {:?}: rules cannot apply to both regular \
                 resources and non-resource URLs",
                self.non_resource_urls
            ));
        }
    }

    fn matches(&self, asked: &Asked<'_>) -> bool {
        let has = |list: &[String], value: &str| list.iter().any(|own| own == value);
        if !self.users.is_empty() && !has(&self.users, asked.user) {
            return false;
        }
        if !self.user_groups.is_empty()
            && !asked
                .groups
                .iter()
                .any(|group| has(&self.user_groups, group))
        {
            return false;
        }
        if !self.verbs.is_empty() && !has(&self.verbs, asked.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return asked.is_resource
                && (self.namespaces.is_empty() || has(&self.namespaces, asked.namespace))
                && (self.resources.is_empty()
                    || self.resources.iter().any(|own| own.matches(asked)));
        }
        if !self.non_resource_urls.is_empty() {
            return !asked.is_resource
                && self
                    .non_resource_urls
                    .iter()
                    .any(|url| match url.strip_suffix('*') {
                        Some(prefix) => asked.path.starts_with(prefix),
                        None => asked.path == url,
                    });
        }
        true
    }
}

impl GroupResources {
    fn matches(&self, asked: &Asked<'_>) -> bool {
        if self.group != asked.group && self.group != "*" {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let named = self.resource_names.is_empty()
            || self.resource_names.iter().any(|name| name == asked.name);
        let fits = |own: &str| match own.split_once('/') {
            _ if own == "*" => true,
            None => own == asked.resource && asked.subresource.is_empty(),
            Some(("*", sub)) => !asked.subresource.is_empty() && sub == asked.subresource,
            Some((resource, "*")) => resource == asked.resource,
            Some((resource, sub)) => resource == asked.resource && sub == asked.subresource,
        };
        named && self.resources.iter().any(|own| fits(own))
    }
}
