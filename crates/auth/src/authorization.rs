//! The AuthorizationConfiguration file (`apiserver.config.k8s.io`): who is asked, in which order.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use meta::{Faults, naming};
use serde::Deserialize;

use crate::access_webhook::{AccessOptions, FailurePolicy, compile};

const VERSIONS: [&str; 3] = [
    "apiserver.config.k8s.io/v1",
    "apiserver.config.k8s.io/v1beta1",
    "apiserver.config.k8s.io/v1alpha1",
];
/// The kinds of authorizers; only webhooks may be there twice.
const TYPES: [&str; 6] = [
    "ABAC",
    "AlwaysAllow",
    "AlwaysDeny",
    "Node",
    "RBAC",
    "Webhook",
];
/// The longest that a webhook may take.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AuthorizationConfiguration {
    pub api_version: String,
    pub kind: String,
    pub authorizers: Vec<AuthorizerConfiguration>,
}

/// One authorizer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AuthorizerConfiguration {
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    pub webhook: Option<WebhookConfiguration>,
}

/// How a webhook is asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WebhookConfiguration {
    #[serde(rename = "authorizedTTL")]
    pub authorized_ttl: String,
    pub cache_authorized_requests: Option<bool>,
    #[serde(rename = "unauthorizedTTL")]
    pub unauthorized_ttl: String,
    pub cache_unauthorized_requests: Option<bool>,
    pub timeout: String,
    pub subject_access_review_version: String,
    pub match_condition_subject_access_review_version: String,
    pub failure_policy: String,
    pub connection_info: ConnectionInfo,
    pub match_conditions: Vec<MatchCondition>,
}

/// Where the webhook is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConnectionInfo {
    #[serde(rename = "type")]
    pub kind: String,
    pub kube_config_file: Option<PathBuf>,
}

/// An expression over a SubjectAccessReview's spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MatchCondition {
    pub expression: String,
}

/// Go's form of a duration: `1h30m`, `10s`, `100ms`.
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let number = rest.find(|sign: char| !sign.is_ascii_digit() && sign != '.')?;
        let (digits, after) = rest.split_at(number);
        let unit = after.find(|sign: char| sign.is_ascii_digit() || sign == '.');
        let (unit, after) = after.split_at(unit.unwrap_or(after.len()));
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += digits.parse::<f64>().ok()? * seconds;
        rest = after;
    }
    (!text.is_empty())
        .then(|| Duration::try_from_secs_f64(total).ok())
        .flatten()
}

impl AuthorizationConfiguration {
    /// Everything that is wrong.
    pub fn faults(&self) -> Faults {
        let mut faults = Faults::new();
        if !VERSIONS.contains(&self.api_version.as_str()) {
            faults.not_supported("apiVersion", self.api_version.as_str(), &VERSIONS);
        }
        if self.kind != "AuthorizationConfiguration" {
            faults.not_supported("kind", self.kind.as_str(), &["AuthorizationConfiguration"]);
        }
        if self.authorizers.is_empty() {
            faults.required(
                "authorizers",
                "at least one authorization mode must be defined",
            );
        }
        let (mut types, mut names) = (BTreeSet::new(), BTreeSet::new());
        for (index, authorizer) in self.authorizers.iter().enumerate() {
            let path = format!("authorizers[{index}]");
            let kind = authorizer.kind.as_str();
            if kind.is_empty() {
                faults.required(format!("{path}.type"), "");
            } else if !TYPES.contains(&kind) {
                faults.not_supported(format!("{path}.type"), kind, &TYPES);
            } else if !types.insert(kind) && kind != "Webhook" {
                faults.duplicate(format!("{path}.type"), kind);
            } else {
                let again = !names.insert(authorizer.name.as_str());
                authorizer.check(&path, again, &mut faults);
            }
        }
        faults
    }
}

impl AuthorizerConfiguration {
    fn check(&self, path: &str, again: bool, faults: &mut Faults) {
        let (name_path, name) = (format!("{path}.name"), self.name.as_str());
        let wrong = naming::dns1123_subdomain(name);
        if name.is_empty() {
            faults.required(name_path, "");
        } else if again {
            faults.duplicate(name_path, name);
        } else if !wrong.is_empty() {
            let why = format!("authorizer name is invalid: {}", wrong.join(", "));
            faults.invalid(name_path, name, why);
        }
        let path = format!("{path}.webhook");
        match (&self.webhook, self.kind == "Webhook") {
            (None, true) => faults.required(path, "required when type=Webhook"),
            (Some(_), false) => {
                faults.invalid(path, "non-null", "may only be specified when type=Webhook");
            }
            (Some(webhook), true) => webhook.check(path.trim_end_matches(".webhook"), faults),
            (None, false) => {}
        }
    }
}

impl WebhookConfiguration {
    /// The same as an authorizer takes it.
    pub fn options(&self) -> AccessOptions {
        let kept = |ttl: &str, kept: Option<bool>| duration(ttl).filter(|_| kept.unwrap_or(true));
        AccessOptions {
            version: self.subject_access_review_version.clone(),
            timeout: duration(&self.timeout).unwrap_or(TIMEOUT_MAX),
            allowed_for: kept(&self.authorized_ttl, self.cache_authorized_requests),
            refused_for: kept(&self.unauthorized_ttl, self.cache_unauthorized_requests),
            failure_policy: match self.failure_policy.as_str() {
                "NoOpinion" => FailurePolicy::NoOpinion,
                _ => FailurePolicy::Deny,
            },
            conditions: self.expressions(),
        }
    }

    fn expressions(&self) -> Vec<String> {
        let conditions = self.match_conditions.iter();
        conditions
            .map(|condition| condition.expression.clone())
            .collect()
    }

    fn check(&self, path: &str, faults: &mut Faults) {
        let at = |field: &str| format!("{path}.{field}");
        match duration(&self.timeout) {
            None | Some(Duration::ZERO) => faults.required(at("timeout"), ""),
            Some(time) if time > TIMEOUT_MAX => {
                let rule = "must be > 0s and <= 30s";
                faults.invalid(at("timeout"), self.timeout.as_str(), rule);
            }
            Some(_) => {}
        }
        for (field, text) in [
            ("authorizedTTL", &self.authorized_ttl),
            ("unauthorizedTTL", &self.unauthorized_ttl),
        ] {
            match (text.as_str(), duration(text)) {
                (text, None) if !text.is_empty() => {
                    faults.invalid(at(field), text, "must be > 0s");
                }
                (_, None | Some(Duration::ZERO)) => faults.required(at(field), ""),
                _ => {}
            }
        }
        let choice = |field: &str, text: &str, known: &[&str], faults: &mut Faults| match text {
            "" => faults.required(at(field), ""),
            text if !known.contains(&text) => faults.not_supported(at(field), text, known),
            _ => {}
        };
        let version = &self.subject_access_review_version;
        choice(
            "subjectAccessReviewVersion",
            version,
            &["v1", "v1beta1"],
            faults,
        );
        let field = "matchConditionSubjectAccessReviewVersion";
        match self.match_condition_subject_access_review_version.as_str() {
            "" if self.match_conditions.is_empty() => {}
            "" => faults.required(at(field), "required if match conditions are specified"),
            version => choice(field, version, &["v1"], faults),
        }
        choice(
            "failurePolicy",
            &self.failure_policy,
            &["NoOpinion", "Deny"],
            faults,
        );
        self.connection_info.check(&at("connectionInfo"), faults);
        compile(&self.expressions(), &at("matchConditions"), faults);
    }
}

impl ConnectionInfo {
    fn check(&self, path: &str, faults: &mut Faults) {
        let file = format!("{path}.kubeConfigFile");
        match (self.kind.as_str(), &self.kube_config_file) {
            ("", _) => faults.required(format!("{path}.type"), ""),
            ("KubeConfigFile", None) => faults.required(file, ""),
            ("KubeConfigFile", Some(given)) if !given.is_absolute() => {
                faults.invalid(
                    file,
                    given.display().to_string(),
                    "must be an absolute path",
                );
            }
            ("InClusterConfig", Some(given)) => {
                let rule = "can only be set when type=KubeConfigFile";
                faults.invalid(file, given.display().to_string(), rule);
            }
            ("KubeConfigFile" | "InClusterConfig", _) => {}
            (other, _) => {
                let known = ["InClusterConfig", "KubeConfigFile"];
                faults.not_supported(format!("{path}.type"), other, &known);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(authorizers: Value) -> String {
        let file = json!({"apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AuthorizationConfiguration", "authorizers": authorizers});
        let file: AuthorizationConfiguration = serde_json::from_value(file).unwrap();
        file.faults().summary()
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("100ms"), Some(Duration::from_millis(100)));
        for bad in ["", "5", "x", "5x", "-5s", "1h5"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn faults_of_the_file_are_told() {
        let webhook = json!({
            "timeout": "3s", "authorizedTTL": "5m", "unauthorizedTTL": "30s",
            "subjectAccessReviewVersion": "v1", "failurePolicy": "Deny",
            "matchConditionSubjectAccessReviewVersion": "v1",
            "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": "/a/b"},
            "matchConditions": [{"expression": "request.user != 'x'"}, {"expression":
                "has(request.resourceAttributes) && request.resourceAttributes.namespace == 'a'"}],
        });
        let good = json!([{"type": "Node", "name": "node"}, {"type": "RBAC", "name": "rbac"},
            {"type": "Webhook", "name": "a.example.com", "webhook": webhook},
            {"type": "Webhook", "name": "b.example.com", "webhook": webhook}]);
        assert_eq!(told(good), "[]");
        assert!(told(json!([])).contains("at least one authorization mode must be defined"));
        assert!(told(json!([{"type": "X", "name": "x"}])).contains("Unsupported value: \"X\""));
        let twice = json!([{"type": "RBAC", "name": "a"}, {"type": "RBAC", "name": "b"}]);
        assert!(told(twice).contains("authorizers[1].type: Duplicate value: \"RBAC\""));
        let with = |field: &str, value: Value| {
            let mut webhook = webhook.clone();
            webhook[field] = value;
            told(json!([{"type": "Webhook", "name": "a", "webhook": webhook}]))
        };
        assert!(with("timeout", json!("31s")).contains("must be > 0s and <= 30s"));
        assert!(with("failurePolicy", json!("")).contains("failurePolicy: Required value"));
        let relative = json!({"type": "KubeConfigFile", "kubeConfigFile": "a"});
        assert!(with("connectionInfo", relative).contains("must be an absolute path"));
        let wrong = with("matchConditions", json!([{"expression": "request.user"}]));
        assert!(wrong.contains("must evaluate to bool"), "{wrong}");
    }
}
