//! Who is asked for credentials of images: `CredentialProviderConfig` (kubelet.config.k8s.io), from
//! one file or several.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use crate::{GoDuration, ImagePlace, KIND_PROVIDERS, Source, aggregate, read};

/// The version of requests that knows service account tokens.
const WITH_TOKENS: &str = "credentialprovider.kubelet.k8s.io/v1";
/// All versions of requests.
const VERSIONS: [&str; 3] = [
    WITH_TOKENS,
    "credentialprovider.kubelet.k8s.io/v1alpha1",
    "credentialprovider.kubelet.k8s.io/v1beta1",
];
/// The versions of the file, the one with `tokenAttributes` first.
const FILE_VERSIONS: [&str; 3] = [
    "kubelet.config.k8s.io/v1",
    "kubelet.config.k8s.io/v1beta1",
    "kubelet.config.k8s.io/v1alpha1",
];

/// A program that knows credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialProvider {
    /// Of the program, too.
    pub name: String,
    /// The images it is asked about.
    pub places: Vec<ImagePlace>,
    /// How long answers hold that do not say it.
    pub cache_duration: GoDuration,
    /// The version of requests and answers.
    pub api_version: String,
    pub args: Vec<String>,
    /// Beside the kubelet's own environment.
    pub env: Vec<(String, String)>,
    pub token: Option<TokenAttributes>,
}

/// What a provider is told of the pod's service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenAttributes {
    pub audience: String,
    /// Answers hold for the very token only, not for all of the account.
    pub cached_by_token: bool,
    /// Pods without an account are not asked for.
    pub account_required: bool,
    /// Without one of these annotations the provider is not asked.
    pub required_annotations: Vec<String>,
    pub optional_annotations: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(rename = "apiVersion")]
    _version: String,
    #[serde(rename = "kind")]
    _kind: String,
    providers: Option<Vec<Provider>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Provider {
    name: String,
    match_images: Option<Vec<String>>,
    default_cache_duration: Option<GoDuration>,
    api_version: String,
    args: Option<Vec<String>>,
    env: Option<Vec<Variable>>,
    token_attributes: Option<Token>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Token {
    service_account_token_audience: String,
    cache_type: String,
    require_service_account: Option<bool>,
    required_service_account_annotation_keys: Option<Vec<String>>,
    optional_service_account_annotation_keys: Option<Vec<String>>,
}

impl CredentialProvider {
    /// All providers of some files, in the order of these; `tokens` says whether the feature
    /// `KubeletServiceAccountTokenForCredentialProviders` is on.
    pub fn read(files: &[Source], tokens: bool) -> Result<Vec<CredentialProvider>, String> {
        let mut all: Vec<Provider> = Vec::new();
        for file in files {
            let path = file.path.display().to_string();
            let own = decode(&file.text)
                .map_err(|why| format!("error decoding config {path:?}: {why}"))?;
            for provider in own {
                let name = &provider.name;
                if all.iter().any(|known| known.name == *name) {
                    return Err(format!(
                        "duplicate provider name {name:?} found in configuration file(s)"
                    ));
                }
                all.push(provider);
            }
        }
        let mut faults = Vec::new();
        if all.is_empty() {
            faults.push(
                "providers: Required value: at least 1 item in plugins is required".to_owned(),
            );
        }
        for provider in &all {
            check(provider, tokens, &mut faults);
        }
        match faults.is_empty() {
            true => all.into_iter().map(Provider::complete).collect(),
            false => Err(format!(
                "failed to validate credential provider config: {}",
                aggregate(&faults)
            )),
        }
    }
}

fn decode(text: &str) -> Result<Vec<Provider>, String> {
    let tree = read::parse(text)?;
    let said = |name: &str| tree.get(name).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (said("apiVersion").to_owned(), said("kind").to_owned());
    if kind.is_empty() {
        return Err("Object 'Kind' is missing".into());
    }
    if !FILE_VERSIONS.contains(&version.as_str()) || kind != KIND_PROVIDERS {
        return Err(format!(
            "no kind {kind:?} is registered for version {version:?}"
        ));
    }
    let file =
        File::deserialize(tree).map_err(|fault| format!("strict decoding error: {fault}"))?;
    let all = file.providers.unwrap_or_default();
    match version == FILE_VERSIONS[0] || all.iter().all(|one| one.token_attributes.is_none()) {
        true => Ok(all),
        false => Err("strict decoding error: unknown field \"tokenAttributes\"".into()),
    }
}

/// Notes what is wrong with a provider, in upstream's words.
fn check(provider: &Provider, tokens: bool, faults: &mut Vec<String>) {
    let name = provider.name.as_str();
    for (is_wrong, why) in [
        (name.contains('/'), "cannot contain '/'"),
        (name.contains(' '), "cannot contain spaces"),
        (name == ".", "cannot be '.'"),
        (name == "..", "cannot be '..'"),
    ] {
        if is_wrong {
            faults.push(format!(
                "providers.name: Invalid value: {name:?}: provider name {why}"
            ));
        }
    }
    match provider.api_version.as_str() {
        "" => faults.push("providers.apiVersion: Required value".into()),
        known if VERSIONS.contains(&known) => {}
        other => {
            let all = VERSIONS.map(|version| format!("{version:?}")).join(", ");
            faults.push(format!(
                "providers.apiVersion: Unsupported value: {other:?}: supported values: {all}"
            ));
        }
    }
    let places = provider.match_images.as_deref().unwrap_or_default();
    if places.is_empty() {
        faults.push(
            "providers.matchImages: Required value: at least 1 item in matchImages is required"
                .into(),
        );
    }
    for place in places {
        if let Err(why) = ImagePlace::parse(place) {
            faults.push(format!(
                "providers.matchImages: Invalid value: {place:?}: match image is invalid: {why}"
            ));
        }
    }
    match provider.default_cache_duration {
        None => faults.push("providers.defaultCacheDuration: Required value".into()),
        Some(time) if time.nanos < 0 => faults.push(format!(
            "providers.defaultCacheDuration: Invalid value: \"{time}\": must be greater than or \
             equal to 0"
        )),
        Some(_) => {}
    }
    if let Some(token) = &provider.token_attributes {
        check_token(token, provider, tokens, faults);
    }
}

fn check_token(token: &Token, provider: &Provider, tokens: bool, faults: &mut Vec<String>) {
    let path = "providers.tokenAttributes";
    if !tokens {
        faults.push(format!(
            "{path}: Forbidden: tokenAttributes is not supported when \
             KubeletServiceAccountTokenForCredentialProviders feature gate is disabled"
        ));
    }
    if token.service_account_token_audience.is_empty() {
        faults.push(format!(
            "{path}.serviceAccountTokenAudience: Required value"
        ));
    }
    if token.require_service_account.is_none() {
        faults.push(format!("{path}.requireServiceAccount: Required value"));
    }
    if provider.api_version != WITH_TOKENS {
        faults.push(format!(
            "{path}: Forbidden: tokenAttributes is only supported for {WITH_TOKENS} API version"
        ));
    }
    let required = token.required_service_account_annotation_keys.as_deref();
    let required = required.unwrap_or_default();
    let optional = token.optional_service_account_annotation_keys.as_deref();
    let optional = optional.unwrap_or_default();
    if token.require_service_account == Some(false) && !required.is_empty() {
        faults.push(format!(
            "{path}.requiredServiceAccountAnnotationKeys: Forbidden: requireServiceAccount cannot \
             be false when requiredServiceAccountAnnotationKeys is set"
        ));
    }
    for (field, keys) in [("required", required), ("optional", optional)] {
        let mut seen = BTreeSet::new();
        let path = format!("{path}.{field}ServiceAccountAnnotationKeys");
        for key in keys {
            // As of annotations of any object.
            let wrong = meta::naming::qualified_name(&key.to_lowercase());
            let wrong = wrong.iter();
            faults.extend(wrong.map(|why| format!("{path}: Invalid value: {key:?}: {why}")));
            if !seen.insert(key) {
                faults.push(format!("{path}: Duplicate value: {key:?}"));
            }
        }
    }
    let both: BTreeSet<_> = required
        .iter()
        .filter(|key| optional.contains(key))
        .collect();
    if !both.is_empty() {
        let both: Vec<_> = both.into_iter().map(|key| format!("{key:?}")).collect();
        faults.push(format!(
            "{path}: Invalid value: [{}]: annotation keys cannot be both required and optional",
            both.join(",")
        ));
    }
    match token.cache_type.as_str() {
        "ServiceAccount" | "Token" => {}
        "" => faults.push(format!(
            "{path}.cacheType: Required value: cacheType is required to be set when \
             tokenAttributes is specified. Supported values are: ServiceAccount, Token"
        )),
        other => faults.push(format!(
            "{path}.cacheType: Unsupported value: {other:?}: supported values: \
             \"ServiceAccount\", \"Token\""
        )),
    }
}

impl Provider {
    fn complete(self) -> Result<CredentialProvider, String> {
        let places = self.match_images.unwrap_or_default();
        let places: Result<_, _> = places.iter().map(|text| ImagePlace::parse(text)).collect();
        let env = self.env.unwrap_or_default().into_iter();
        Ok(CredentialProvider {
            name: self.name,
            places: places?,
            cache_duration: self.default_cache_duration.unwrap_or_default(),
            api_version: self.api_version,
            args: self.args.unwrap_or_default(),
            env: env.map(|one| (one.name, one.value)).collect(),
            token: self.token_attributes.map(|token| TokenAttributes {
                audience: token.service_account_token_audience,
                cached_by_token: token.cache_type == "Token",
                account_required: token.require_service_account == Some(true),
                required_annotations: token
                    .required_service_account_annotation_keys
                    .unwrap_or_default(),
                optional_annotations: token
                    .optional_service_account_annotation_keys
                    .unwrap_or_default(),
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn read(texts: &[&str]) -> Result<Vec<CredentialProvider>, String> {
        let files: Vec<_> = (0..)
            .zip(texts)
            .map(|(at, text)| Source {
                path: PathBuf::from(format!("/{at}.yaml")),
                text: (*text).to_owned(),
            })
            .collect();
        CredentialProvider::read(&files, true)
    }

    const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\n";

    fn one(fields: &str) -> String {
        format!("{HEAD}providers:\n- {{{fields}}}\n")
    }

    const WHOLE: &str = "name: a, matchImages: ['*.io'], defaultCacheDuration: 10m, \
        apiVersion: credentialprovider.kubelet.k8s.io/v1";

    #[test]
    fn files_are_joined() {
        let token = "tokenAttributes: {serviceAccountTokenAudience: me, cacheType: Token, \
            requireServiceAccount: true, requiredServiceAccountAnnotationKeys: [a.io/x]}";
        let first = one(&format!(
            "{WHOLE}, args: [get], env: [{{name: A, value: B}}], {token}"
        ));
        let second = one(&WHOLE.replace("name: a", "name: b"));
        let all = read(&[&first, &second]).unwrap();
        assert_eq!((all[0].name.as_str(), all[1].name.as_str()), ("a", "b"));
        assert_eq!(all[0].cache_duration.nanos, 600_000_000_000);
        assert_eq!(all[0].args, ["get"]);
        assert_eq!(all[0].env, [("A".to_owned(), "B".to_owned())]);
        assert_eq!(all[0].places, [ImagePlace::parse("*.io").unwrap()]);
        let token = all[0].token.as_ref().unwrap();
        assert!(token.cached_by_token && token.account_required);
        assert_eq!(token.required_annotations, ["a.io/x"]);
        assert_eq!(all[1].token, None);
    }

    #[test]
    fn faults_are_upstreams() {
        let fault = |text: &str| read(&[text]).unwrap_err();
        for (change, why) in [
            (("name: a", "name: a/b"), "provider name cannot contain '/'"),
            (("name: a", "name: .."), "provider name cannot be '..'"),
            (
                ("/v1", "/v2"),
                "providers.apiVersion: Unsupported value: \"credentialprovider",
            ),
            (("'*.io'", ""), "at least 1 item in matchImages is required"),
            (
                ("'*.io'", "'a:b'"),
                "match image is invalid: parse \"https://a:b\": invalid port",
            ),
            (
                (", defaultCacheDuration: 10m", ""),
                "defaultCacheDuration: Required value",
            ),
            (
                ("10m", "-1s"),
                "\"-1s\": must be greater than or equal to 0",
            ),
            (("10m", "soon"), "time: invalid duration \"soon\""),
            (("name: a", "name: a, arg: b"), "unknown field `arg`"),
        ] {
            let fault = fault(&one(&WHOLE.replace(change.0, change.1)));
            assert!(fault.contains(why), "{fault}");
        }
        let tokens = |fields: &str| fault(&one(&format!("{WHOLE}, tokenAttributes: {{{fields}}}")));
        let none = tokens("");
        for field in [
            "serviceAccountTokenAudience",
            "requireServiceAccount",
            "cacheType",
        ] {
            let why = format!("providers.tokenAttributes.{field}: Required value");
            assert!(none.contains(&why), "{none}");
        }
        let base =
            "serviceAccountTokenAudience: me, cacheType: Token, requireServiceAccount: false";
        let required = tokens(&format!(
            "{base}, requiredServiceAccountAnnotationKeys: [x, x, '-']"
        ));
        for why in [
            "requireServiceAccount cannot be false",
            "Duplicate value: \"x\"",
            "Invalid value: \"-\": name part must consist of",
        ] {
            assert!(required.contains(why), "{required}");
        }
        let twice = read(&[&one(WHOLE), &one(WHOLE)]).unwrap_err();
        assert_eq!(
            twice,
            "duplicate provider name \"a\" found in configuration file(s)"
        );
        assert!(fault(HEAD).ends_with("at least 1 item in plugins is required"));
        assert!(
            fault(&HEAD.replace("/v1", "/v9")).contains("no kind \"CredentialProviderConfig\"")
        );
        let old = one(&format!("{WHOLE}, tokenAttributes: {{}}"))
            .replace("io/v1\nkind", "io/v1beta1\nkind");
        assert!(fault(&old).contains("unknown field \"tokenAttributes\""));
    }
}
