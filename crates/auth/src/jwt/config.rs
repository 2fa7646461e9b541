//! The AuthenticationConfiguration file (`apiserver.config.k8s.io`), and what is wrong with one.

use std::collections::BTreeSet;

use meta::Faults;
use serde::Deserialize;

use super::mapping::Mapper;
use crate::authenticator::Anonymous;
use crate::jwk::ALGORITHMS;

/// Issuers that one file may name.
const ISSUERS_MAX: usize = 64;
const VERSIONS: [&str; 3] = [
    "apiserver.config.k8s.io/v1",
    "apiserver.config.k8s.io/v1beta1",
    "apiserver.config.k8s.io/v1alpha1",
];

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AuthenticationConfiguration {
    pub api_version: String,
    pub kind: String,
    pub jwt: Vec<JwtAuthenticator>,
    pub anonymous: Option<AnonymousConfig>,
}

/// Who is let in without a name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AnonymousConfig {
    pub enabled: bool,
    pub conditions: Vec<AnonymousCondition>,
}

/// A path on which strangers are let in.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AnonymousCondition {
    pub path: String,
}

/// One issuer, and what its tokens mean.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct JwtAuthenticator {
    pub issuer: IssuerConfig,
    pub claim_validation_rules: Vec<ClaimValidationRule>,
    pub claim_mappings: ClaimMappings,
    pub user_validation_rules: Vec<UserValidationRule>,
    /// Not part of the file: which signatures count (`--oidc-signing-algs`); empty: all.
    #[serde(skip)]
    pub signing_algorithms: Vec<String>,
}

/// Where an issuer is, and for whom its tokens must be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct IssuerConfig {
    pub url: String,
    #[serde(rename = "discoveryURL")]
    pub discovery_url: Option<String>,
    /// PEM; empty: the system's.
    pub certificate_authority: String,
    pub audiences: Vec<String>,
    pub audience_match_policy: String,
    pub egress_selector_type: String,
}

/// A claim that must have a value, or an expression that must hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimValidationRule {
    pub claim: String,
    pub required_value: String,
    pub expression: String,
    pub message: String,
}

/// How claims become a user.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimMappings {
    pub username: PrefixedClaim,
    pub groups: PrefixedClaim,
    pub uid: ClaimOrExpression,
    pub extra: Vec<ExtraMapping>,
}

/// A claim, perhaps with a prefix, or an expression.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PrefixedClaim {
    pub claim: String,
    pub prefix: Option<String>,
    pub expression: String,
}

/// A claim, or an expression.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimOrExpression {
    pub claim: String,
    pub expression: String,
}

/// One extra of a user.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExtraMapping {
    pub key: String,
    pub value_expression: String,
}

/// What must hold of the user in the end.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UserValidationRule {
    pub expression: String,
    pub message: String,
}

/// The `--oidc-*` flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OidcFlags {
    pub issuer_url: String,
    pub client_id: String,
    /// PEM.
    pub ca: String,
    pub username_claim: Option<String>,
    pub username_prefix: Option<String>,
    pub groups_claim: Option<String>,
    pub groups_prefix: Option<String>,
    /// `claim=value`.
    pub required_claims: Vec<(String, String)>,
    pub signing_algorithms: Vec<String>,
}

impl OidcFlags {
    /// The same as a structured configuration has it.
    pub fn structured(self) -> JwtAuthenticator {
        let claim = self.username_claim.unwrap_or_else(|| "sub".into());
        // Names of other claims than the e-mail address are the issuer's own.
        let prefix = match (self.username_prefix, claim.as_str()) {
            (None, "email") => String::new(),
            (None, _) => format!("{}#", self.issuer_url),
            (Some(none), _) if none == "-" => String::new(),
            (Some(prefix), _) => prefix,
        };
        let rules = self.required_claims.into_iter();
        let rules = rules.map(|(claim, required_value)| ClaimValidationRule {
            claim,
            required_value,
            ..ClaimValidationRule::default()
        });
        let groups_claim = self.groups_claim.unwrap_or_default();
        let algorithms = match self.signing_algorithms.is_empty() {
            true => vec!["RS256".to_owned()],
            false => self.signing_algorithms,
        };
        JwtAuthenticator {
            issuer: IssuerConfig {
                url: self.issuer_url,
                certificate_authority: self.ca,
                audiences: vec![self.client_id],
                ..IssuerConfig::default()
            },
            claim_validation_rules: rules.collect(),
            claim_mappings: ClaimMappings {
                username: PrefixedClaim {
                    claim,
                    prefix: Some(prefix),
                    ..PrefixedClaim::default()
                },
                groups: PrefixedClaim {
                    prefix: (!groups_claim.is_empty())
                        .then(|| self.groups_prefix.unwrap_or_default()),
                    claim: groups_claim,
                    ..PrefixedClaim::default()
                },
                ..ClaimMappings::default()
            },
            signing_algorithms: algorithms,
            ..JwtAuthenticator::default()
        }
    }
}

impl AuthenticationConfiguration {
    /// Everything that is wrong; `own_issuer` is that of service accounts, which nobody else is.
    pub fn faults(&self, own_issuer: &str) -> Faults {
        let mut faults = Faults::new();
        if !VERSIONS.contains(&self.api_version.as_str()) {
            faults.not_supported("apiVersion", self.api_version.as_str(), &VERSIONS);
        }
        if self.kind != "AuthenticationConfiguration" {
            faults.not_supported("kind", self.kind.as_str(), &["AuthenticationConfiguration"]);
        }
        if self.jwt.len() > ISSUERS_MAX {
            faults.too_many("jwt", self.jwt.len(), ISSUERS_MAX);
            return faults;
        }
        let (mut urls, mut discoveries) = (BTreeSet::new(), BTreeSet::new());
        for (index, jwt) in self.jwt.iter().enumerate() {
            let path = format!("jwt[{index}]");
            jwt.check(&path, own_issuer, &mut faults);
            let issuer = &jwt.issuer;
            if !urls.insert(issuer.url.as_str()) {
                faults.duplicate(format!("{path}.issuer.url"), issuer.url.as_str());
            }
            let discovery = issuer.discovery_url.as_deref().unwrap_or_default();
            if !discovery.is_empty() && !discoveries.insert(discovery) {
                faults.duplicate(format!("{path}.issuer.discoveryURL"), discovery);
            }
        }
        if self
            .anonymous
            .as_ref()
            .is_some_and(|one| !one.enabled && !one.conditions.is_empty())
        {
            let rule = "enabled should be set to true when conditions are defined";
            faults.invalid("anonymous.conditions", "", rule);
        }
        faults
    }

    /// Who is let in without a name, if the file says so.
    pub fn anonymous(&self) -> Option<Anonymous> {
        let own = self.anonymous.as_ref()?;
        Some(Anonymous {
            enabled: own.enabled,
            paths: own.conditions.iter().map(|one| one.path.clone()).collect(),
        })
    }
}

impl JwtAuthenticator {
    /// Everything that is wrong with it; `path` names it in messages.
    pub fn check(&self, path: &str, own_issuer: &str, faults: &mut Faults) {
        self.issuer
            .check(&format!("{path}.issuer"), own_issuer, faults);
        for algorithm in &self.signing_algorithms {
            if !ALGORITHMS.contains(&algorithm.as_str()) {
                faults.not_supported("oidc-signing-algs", algorithm.as_str(), &ALGORITHMS);
            }
        }
        let rules = self.claim_validation_rules.iter().enumerate();
        for (index, rule) in rules {
            rule.check(&format!("{path}.claimValidationRules[{index}]"), faults);
        }
        self.claim_mappings
            .check(&format!("{path}.claimMappings"), faults);
        for (index, rule) in self.user_validation_rules.iter().enumerate() {
            if rule.expression.is_empty() {
                let path = format!("{path}.userValidationRules[{index}].expression");
                faults.required(path, "");
            }
        }
        self.check_unique(path, faults);
        Mapper::compile(self, path, faults);
        self.check_email(path, faults);
    }

    fn check_unique(&self, path: &str, faults: &mut Faults) {
        let mut seen = BTreeSet::new();
        let mut once = |kind: &'static str, text: &str, path: String, faults: &mut Faults| {
            if !text.is_empty() && !seen.insert((kind, text.to_owned())) {
                faults.duplicate(path, text);
            }
        };
        for (index, rule) in self.claim_validation_rules.iter().enumerate() {
            let path = format!("{path}.claimValidationRules[{index}]");
            once("claim", &rule.claim, format!("{path}.claim"), faults);
            once(
                "rule",
                &rule.expression,
                format!("{path}.expression"),
                faults,
            );
        }
        for (index, extra) in self.claim_mappings.extra.iter().enumerate() {
            let path = format!("{path}.claimMappings.extra[{index}].key");
            once("extra", &extra.key, path, faults);
        }
        for (index, rule) in self.user_validation_rules.iter().enumerate() {
            let path = format!("{path}.userValidationRules[{index}].expression");
            once("user", &rule.expression, path, faults);
        }
    }

    /// An e-mail address is a name only where somebody has looked whether it is verified.
    fn check_email(&self, path: &str, faults: &mut Faults) {
        let mappings = &self.claim_mappings;
        let username = &mappings.username.expression;
        let extras = mappings.extra.iter().map(|extra| &extra.value_expression);
        let rules = self
            .claim_validation_rules
            .iter()
            .map(|rule| &rule.expression);
        let mut all = std::iter::once(username).chain(extras).chain(rules);
        if uses_claim(username, "email") && !all.any(|text| uses_claim(text, "email_verified")) {
            let rule = "claims.email_verified must be used in claimMappings.username.expression or \
                claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when \
                claims.email is used in claimMappings.username.expression";
            let path = format!("{path}.claimMappings.username.expression");
            faults.invalid(path, username.as_str(), rule);
        }
    }
}

/// Whether an expression selects a claim by name.
fn uses_claim(expression: &str, claim: &str) -> bool {
    let is_word = |sign: char| sign.is_ascii_alphanumeric() || sign == '_';
    let ends = |at: usize| {
        !expression
            .get(at..)
            .unwrap_or_default()
            .starts_with(is_word)
    };
    [format!("claims.{claim}"), format!("claims.?{claim}")]
        .iter()
        .any(|selection| {
            let mut found = expression.match_indices(selection.as_str());
            found.any(|(at, text)| ends(at + text.len()))
        })
}

impl IssuerConfig {
    fn check(&self, path: &str, own_issuer: &str, faults: &mut Faults) {
        let url_path = format!("{path}.url");
        match self.url.as_str() {
            "" => faults.required(url_path, ""),
            url if url == own_issuer => {
                let rule = format!("URL must not overlap with disallowed issuers: [{own_issuer}]");
                faults.invalid(url_path, url, rule);
            }
            url => check_url(url, &url_path, faults),
        }
        let trimmed = |url: &str| url.trim_end_matches('/').to_owned();
        if let Some(url) = self.discovery_url.as_deref().filter(|url| !url.is_empty()) {
            let path = format!("{path}.discoveryURL");
            if trimmed(url) == trimmed(&self.url) {
                faults.invalid(path.clone(), url, "discoveryURL must be different from URL");
            }
            check_url(url, &path, faults);
        }
        self.check_audiences(path, faults);
        if !self.certificate_authority.is_empty() {
            let known = crate::tls::certificates(&self.certificate_authority);
            if known.is_ok_and(|list| list.is_empty()) {
                let rule = "data does not contain any valid RSA or ECDSA certificates";
                faults.invalid(format!("{path}.certificateAuthority"), "<omitted>", rule);
            }
        }
        if !matches!(
            self.egress_selector_type.as_str(),
            "" | "controlplane" | "cluster"
        ) {
            let rule = "egress selector must be either controlplane or cluster";
            let path = format!("{path}.egressSelectorType");
            faults.invalid(path, self.egress_selector_type.as_str(), rule);
        }
    }

    fn check_audiences(&self, path: &str, faults: &mut Faults) {
        let list = format!("{path}.audiences");
        if self.audiences.is_empty() {
            let rule = format!("at least one {list} is required");
            return faults.required(list, rule);
        }
        let mut seen = BTreeSet::new();
        for (index, audience) in self.audiences.iter().enumerate() {
            let path = format!("{list}[{index}]");
            if audience.is_empty() {
                faults.required(path.clone(), "");
            }
            if !seen.insert(audience) {
                faults.duplicate(path, audience.as_str());
            }
        }
        let policy = self.audience_match_policy.as_str();
        let path = format!("{path}.audienceMatchPolicy");
        match (self.audiences.len(), policy) {
            (_, "MatchAny") | (1, "") => {}
            (1, _) => {
                let rule = "audienceMatchPolicy must be empty or MatchAny for single audience";
                faults.invalid(path, policy, rule);
            }
            _ => {
                let rule = "audienceMatchPolicy must be MatchAny for multiple audiences";
                faults.invalid(path, policy, rule);
            }
        }
    }
}

fn check_url(url: &str, path: &str, faults: &mut Faults) {
    let rest = url.strip_prefix("https://");
    if rest.is_none() {
        faults.invalid(path, url, "URL scheme must be https");
    }
    let (url_part, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (before, query) = url_part.split_once('?').unwrap_or((url_part, ""));
    let authority = before.split_once("://").map_or("", |(_, rest)| rest);
    if authority
        .split('/')
        .next()
        .is_some_and(|authority| authority.contains('@'))
    {
        faults.invalid(path, url, "URL must not contain a username or password");
    }
    if !query.is_empty() {
        faults.invalid(path, url, "URL must not contain a query");
    }
    if !fragment.is_empty() {
        faults.invalid(path, url, "URL must not contain a fragment");
    }
}

impl ClaimValidationRule {
    fn check(&self, path: &str, faults: &mut Faults) {
        match (self.claim.is_empty(), self.expression.is_empty()) {
            (false, false) => {
                faults.invalid(
                    path,
                    self.claim.as_str(),
                    "claim and expression can't both be set",
                );
            }
            (true, true) => faults.required(path, "claim or expression is required"),
            (false, true) if !self.message.is_empty() => {
                let rule = "may not be specified when claim is set";
                faults.invalid(format!("{path}.message"), self.message.as_str(), rule);
            }
            (true, false) if !self.required_value.is_empty() => {
                let rule = "may not be specified when expression is set";
                let path = format!("{path}.requiredValue");
                faults.invalid(path, self.required_value.as_str(), rule);
            }
            _ => {}
        }
    }
}

impl PrefixedClaim {
    fn check(&self, path: &str, required: bool, faults: &mut Faults) {
        let (claim, expression) = (!self.claim.is_empty(), !self.expression.is_empty());
        match (claim, expression) {
            (true, true) => faults.invalid(path, "", "claim and expression can't both be set"),
            (false, false) if required => {
                faults.required(path, "claim or expression is required");
            }
            (true, false) if self.prefix.is_none() => {
                let rule = "prefix is required when claim is set. It can be set to an empty string \
                    to disable prefixing";
                faults.required(format!("{path}.prefix"), rule);
            }
            (_, true) if self.prefix.is_some() => {
                let rule = "may not be specified when expression is set";
                let shown = self.prefix.as_deref().unwrap_or_default();
                faults.invalid(format!("{path}.prefix"), shown, rule);
            }
            _ => {}
        }
    }
}

impl ClaimMappings {
    fn check(&self, path: &str, faults: &mut Faults) {
        self.username
            .check(&format!("{path}.username"), true, faults);
        self.groups.check(&format!("{path}.groups"), false, faults);
        if !self.uid.claim.is_empty() && !self.uid.expression.is_empty() {
            let rule = "claim and expression can't both be set";
            faults.invalid(format!("{path}.uid"), "", rule);
        }
        for (index, extra) in self.extra.iter().enumerate() {
            let path = format!("{path}.extra[{index}]");
            extra.check(&path, faults);
        }
    }
}

impl ExtraMapping {
    fn check(&self, path: &str, faults: &mut Faults) {
        let (key_path, key) = (format!("{path}.key"), self.key.as_str());
        faults.domain_prefixed_path(&key_path, key);
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        let reserved = ["k8s.io", "kubernetes.io"];
        let below = |own: &&str| *domain == **own || domain.ends_with(&format!(".{own}"));
        if reserved.iter().any(below) {
            let rule = "k8s.io, kubernetes.io and their subdomains are reserved for \
                Kubernetes use";
            faults.invalid(key_path.clone(), key, rule);
        }
        if key.chars().any(char::is_uppercase) {
            faults.invalid(key_path, key, "must be lowercase");
        }
        if self.value_expression.is_empty() {
            faults.required(format!("{path}.valueExpression"), "");
        }
    }
}
