//! Rules by attributes, one per line of a file (`--authorization-policy-file`).

use serde::Deserialize;

use crate::identity::{Attributes, Identity};
use crate::rbac::Rule;

const VERSION: &str = "abac.authorization.kubernetes.io/v1beta1";
const AUTHENTICATED: &str = "system:authenticated";

/// A line of the file that is no policy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct PolicyFileError {
    pub line: usize,
    pub why: String,
}

/// All policies of a file.
#[derive(Clone, Debug, Default)]
pub struct Policies(Vec<Policy>);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Policy {
    user: String,
    group: String,
    readonly: bool,
    api_group: String,
    resource: String,
    namespace: String,
    non_resource_path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versioned {
    api_version: String,
    #[serde(default)]
    spec: Policy,
}

impl Policies {
    /// Reads a file; lines that are empty or begin with `#` do not count.
    pub fn parse(text: &str) -> Result<Policies, PolicyFileError> {
        let mut policies = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = |why: String| PolicyFileError {
                line: index + 1,
                why,
            };
            let policy = match serde_json::from_str::<Versioned>(line) {
                Ok(versioned) if versioned.api_version == VERSION => versioned.spec.versioned(),
                Ok(versioned) => {
                    return Err(bad(format!(
                        "no kind \"Policy\" in {:?}",
                        versioned.api_version
                    )));
                }
                Err(_) => {
                    let policy = serde_json::from_str::<Policy>(line);
                    policy
                        .map_err(|error| bad(error.to_string()))?
                        .unversioned()
                }
            };
            policies.push(policy);
        }
        Ok(Policies(policies))
    }

    /// Whether any policy allows it.
    pub fn allow(&self, identity: &Identity, asked: &Attributes) -> bool {
        let allows = |policy: &Policy| policy.is_about(identity) && policy.allows(asked);
        self.0.iter().any(allows)
    }

    /// The rules that apply to a user in a namespace.
    pub fn rules_for(&self, identity: &Identity, namespace: &str) -> Vec<Rule> {
        let fits = |policy: &&Policy| policy.is_about(identity) && is(&policy.namespace, namespace);
        self.0.iter().filter(fits).flat_map(Policy::rules).collect()
    }
}

/// Whether a policy's word is the star or the same.
fn is(word: &str, asked: &str) -> bool {
    word == "*" || word == asked
}

impl Policy {
    /// In this version the star among users means everybody who is somebody.
    fn versioned(mut self) -> Policy {
        if self.user == "*" || self.group == "*" {
            self.user.clear();
            self.group = AUTHENTICATED.into();
        }
        self
    }

    /// Lines without a version: what is left out means all.
    fn unversioned(mut self) -> Policy {
        if self.user.is_empty() && self.group.is_empty() {
            self.group = AUTHENTICATED.into();
        }
        if self.namespace.is_empty() && self.resource.is_empty() {
            self.non_resource_path = "*".into();
        }
        for word in [&mut self.namespace, &mut self.resource] {
            if word.is_empty() {
                *word = "*".into();
            }
        }
        self.api_group = "*".into();
        self.versioned()
    }

    fn is_about(&self, identity: &Identity) -> bool {
        let (user, group) = (self.user.as_str(), self.group.as_str());
        (!user.is_empty() || !group.is_empty())
            && (user.is_empty() || is(user, &identity.name))
            && (group.is_empty() || group == "*" || identity.is_in(group))
    }

    fn allows(&self, asked: &Attributes) -> bool {
        let reads = matches!(asked.verb.as_str(), "get" | "list" | "watch");
        if self.readonly && !reads {
            return false;
        }
        if asked.is_resource() {
            return is(&self.namespace, &asked.namespace)
                && is(&self.resource, &asked.resource)
                && is(&self.api_group, &asked.group);
        }
        let path = self.non_resource_path.as_str();
        let below = path
            .strip_suffix('*')
            .map(|prefix| prefix.trim_end_matches('*'));
        path == asked.path || below.is_some_and(|prefix| asked.path.starts_with(prefix))
    }

    fn rules(&self) -> Vec<Rule> {
        let one = |text: &str| vec![text.to_owned()];
        let verbs: &[&str] = if self.readonly {
            &["get", "list", "watch"]
        } else {
            &["*"]
        };
        let verbs: Vec<String> = verbs.iter().map(|verb| (*verb).to_owned()).collect();
        let mut rules = Vec::new();
        if !self.resource.is_empty() {
            rules.push(Rule {
                verbs: verbs.clone(),
                api_groups: one(&self.api_group),
                resources: one(&self.resource),
                ..Rule::default()
            });
        }
        if !self.non_resource_path.is_empty() {
            rules.push(Rule {
                verbs,
                non_resource_urls: one(&self.non_resource_path),
                ..Rule::default()
            });
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(file: &str, user: &str, verb: &str, what: &str) -> bool {
        let policies = Policies::parse(file).unwrap();
        let mut asked = Attributes {
            verb: verb.into(),
            ..Attributes::default()
        };
        match what.strip_prefix('/') {
            Some(_) => asked.path = what.into(),
            None => {
                let (namespace, resource) = what.split_once('/').unwrap();
                (asked.namespace, asked.resource) = (namespace.into(), resource.into());
            }
        }
        policies.allow(&Identity::user(user, &[]), &asked)
    }

    #[test]
    fn policies_are_upstreams() {
        let file = r#"
            # people
            {"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"user": "alice", "namespace": "*", "resource": "*", "apiGroup": "*"}}
            {"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"user": "bob", "namespace": "projectx", "resource": "pods", "readonly": true}}
            {"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"group": "system:authenticated", "readonly": true, "nonResourcePath": "/api*"}}
        "#;
        assert!(allows(file, "alice", "delete", "x/pods"));
        assert!(allows(file, "bob", "get", "projectx/pods"));
        assert!(!allows(file, "bob", "create", "projectx/pods"));
        assert!(!allows(file, "bob", "get", "other/pods"));
        assert!(allows(file, "carol", "get", "/apis/apps"));
        assert!(!allows(file, "carol", "get", "/metrics"));
        assert!(!allows(file, "alice", "post", "/metrics"));
        // The old form, without a version.
        assert!(allows("{\"user\": \"dave\"}", "dave", "post", "/metrics"));
        assert!(allows("{}", "anybody", "delete", "x/secrets"));
        assert!(!allows(
            "{\"user\": \"dave\", \"resource\": \"pods\"}",
            "dave",
            "get",
            "/metrics"
        ));
        let error = Policies::parse("# a\nnonsense").unwrap_err();
        assert_eq!(error.line, 2);
        assert!(Policies::parse("{\"apiVersion\": \"x/v1\"}").is_err());
    }
}
