//! Who is let in, and who may do what: flags of the API server, under kube-apiserver's names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use auth::abac::Policies;
use auth::access_webhook::{AccessOptions, AccessWebhook};
use auth::authorization::{AuthorizationConfiguration, AuthorizerConfiguration};
use auth::jwt::{AuthenticationConfiguration, Issuer, JwtAuthenticator, OidcFlags};
use auth::token_webhook::TokenWebhook;
use auth::{Anonymous, ForeignTokens, Mode, Pki, RequestHeaders, TokenSigner, Trust};
use clap::{Args, Parser};
use meta::Faults;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use webhook::Webhook;

use crate::audit::AuditArgs;
use crate::files::text;
use crate::serving::{ServingArgs, time};
use crate::tokens::TokenArgs;

/// The flags; in `sampan.yaml` they are entries of `kube-apiserver-arg`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct AccessArgs {
    /// Whether strangers are let in as system:anonymous [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    anonymous_auth: Option<bool>,
    /// Let in by bootstrap tokens in kube-system [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_bootstrap_token_auth: Option<bool>,
    /// File of tokens: token,user,uid,"group1,group2"
    #[arg(long)]
    pub(crate) token_auth_file: Option<PathBuf>,
    /// Certificates by which front proxies are known [default: the cluster's own]
    #[arg(long)]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of front proxies [default: front-proxy-client]
    #[arg(long, value_delimiter = ',')]
    requestheader_allowed_names: Vec<String>,
    /// Headers that front proxies name users by [default: X-Remote-User]
    #[arg(long, value_delimiter = ',')]
    requestheader_username_headers: Vec<String>,
    /// Headers with uids [default: X-Remote-Uid]
    #[arg(long, value_delimiter = ',')]
    requestheader_uid_headers: Vec<String>,
    /// Headers with groups [default: X-Remote-Group]
    #[arg(long, value_delimiter = ',')]
    requestheader_group_headers: Vec<String>,
    /// How headers with extras begin [default: X-Remote-Extra-]
    #[arg(long, value_delimiter = ',')]
    requestheader_extra_headers_prefix: Vec<String>,
    /// File that says which tokens are known, and whether strangers are let in
    #[arg(long)]
    pub(crate) authentication_config: Option<PathBuf>,
    /// Kubeconfig of a webhook that knows tokens
    #[arg(long)]
    authentication_token_webhook_config_file: Option<PathBuf>,
    /// Version of its TokenReviews [default: v1beta1]
    #[arg(long)]
    authentication_token_webhook_version: Option<String>,
    /// How long its answers are good [default: 2m]
    #[arg(long)]
    authentication_token_webhook_cache_ttl: Option<String>,
    /// Issuer of OpenID Connect tokens
    #[arg(long)]
    oidc_issuer_url: Option<String>,
    /// Audience of these tokens
    #[arg(long)]
    oidc_client_id: Option<String>,
    /// Certificates by which the issuer is known [default: the system's]
    #[arg(long)]
    oidc_ca_file: Option<PathBuf>,
    /// Claim with the user's name [default: sub]
    #[arg(long)]
    oidc_username_claim: Option<String>,
    /// What is put before names [default: the issuer, unless the claim is email]
    #[arg(long)]
    oidc_username_prefix: Option<String>,
    /// Claim with groups
    #[arg(long)]
    oidc_groups_claim: Option<String>,
    /// What is put before groups
    #[arg(long)]
    oidc_groups_prefix: Option<String>,
    /// Claims that must be, claim=value
    #[arg(long, value_delimiter = ',')]
    oidc_required_claim: Vec<String>,
    /// Signatures that count [default: RS256]
    #[arg(long, value_delimiter = ',')]
    oidc_signing_algs: Vec<String>,
    /// Who decides, in this order [default: Node,RBAC]
    #[arg(long, value_delimiter = ',')]
    authorization_mode: Vec<String>,
    /// File that says who decides
    #[arg(long)]
    pub(crate) authorization_config: Option<PathBuf>,
    /// File of rules for mode ABAC
    #[arg(long)]
    authorization_policy_file: Option<PathBuf>,
    /// Kubeconfig of a webhook for mode Webhook
    #[arg(long)]
    authorization_webhook_config_file: Option<PathBuf>,
    /// Version of its SubjectAccessReviews [default: v1beta1]
    #[arg(long)]
    authorization_webhook_version: Option<String>,
    /// How long it is remembered that something is allowed [default: 5m]
    #[arg(long)]
    authorization_webhook_cache_authorized_ttl: Option<String>,
    /// How long it is remembered that something is not [default: 30s]
    #[arg(long)]
    authorization_webhook_cache_unauthorized_ttl: Option<String>,
    /// Further certificates to show, by name: cert,key[:name,…]
    #[arg(long)]
    tls_sni_cert_key: Vec<String>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) serving: ServingArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) tokens: TokenArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) audit: AuditArgs,
}

/// The flags alone, as `--kube-apiserver-arg` has them.
#[derive(Parser)]
#[command(name = "kube-apiserver", no_binary_name = true)]
struct Words {
    #[command(flatten)]
    args: AccessArgs,
}

impl AccessArgs {
    /// From `name=value` entries, with or without dashes before.
    pub(crate) fn of_words(words: &[String]) -> Result<AccessArgs> {
        let dashed = words
            .iter()
            .map(|word| format!("--{}", word.trim_start_matches("--")));
        Ok(Words::try_parse_from(dashed)
            .context("kube-apiserver-arg")?
            .args)
    }

    /// What is set here, and what is set there only.
    pub(crate) fn over(self, other: AccessArgs) -> Result<AccessArgs> {
        let mut below = serde_json::to_value(other)?;
        let serde_json::Value::Object(own) = serde_json::to_value(self)? else {
            return Ok(AccessArgs::default());
        };
        let is_set = |value: &serde_json::Value| match value {
            serde_json::Value::Null => false,
            serde_json::Value::Array(list) => !list.is_empty(),
            _ => true,
        };
        for (name, value) in own.into_iter().filter(|(_, value)| is_set(value)) {
            if let Some(field) = below.get_mut(&name) {
                *field = value;
            }
        }
        Ok(serde_json::from_value(below)?)
    }

    /// How the API server authenticates; `client_ca` joins the cluster's own authority.
    pub(crate) fn authentication(
        &self,
        pki: &Pki,
        signer: &TokenSigner,
        client_ca: Option<&Path>,
    ) -> Result<apiserver::Authentication> {
        let mut clients = pki.client_ca_pem().to_owned();
        if let Some(path) = client_ca {
            clients.push_str(&text(path)?);
        }
        let proxies = match &self.requestheader_client_ca_file {
            Some(path) => text(path)?,
            None => pki.front_proxy_ca_pem().to_owned(),
        };
        let file = self.authentication_file(signer.issuer())?;
        let from_file = file
            .as_ref()
            .and_then(AuthenticationConfiguration::anonymous);
        if from_file.is_some() && self.anonymous_auth.is_some() {
            bail!("--anonymous-auth cannot be set when --authentication-config says it");
        }
        let tokens = self.token_auth_file.as_deref().map(text).transpose()?;
        Ok(apiserver::Authentication {
            anonymous: from_file.unwrap_or(Anonymous {
                enabled: self.anonymous_auth.unwrap_or(true),
                paths: Vec::new(),
            }),
            static_tokens: tokens.unwrap_or_default(),
            bootstrap_tokens: self.enable_bootstrap_token_auth.unwrap_or(true),
            request_headers: self.request_headers(),
            trust: Some(Arc::new(Trust::new(&clients, &proxies)?)),
            foreign: self.foreign_tokens(signer, file)?,
        })
    }

    fn request_headers(&self) -> RequestHeaders {
        let usual = RequestHeaders::default();
        let or = |given: &Vec<String>, usual: Vec<String>| match given.is_empty() {
            true => usual,
            false => given.clone(),
        };
        let usual_names = match self.requestheader_client_ca_file {
            // Of a foreign authority all are believed, as upstream.
            Some(_) => Vec::new(),
            None => usual.allowed_names,
        };
        RequestHeaders {
            allowed_names: or(&self.requestheader_allowed_names, usual_names),
            username_headers: or(&self.requestheader_username_headers, usual.username_headers),
            uid_headers: or(&self.requestheader_uid_headers, usual.uid_headers),
            group_headers: or(&self.requestheader_group_headers, usual.group_headers),
            extra_prefixes: or(
                &self.requestheader_extra_headers_prefix,
                usual.extra_prefixes,
            ),
        }
    }

    pub(crate) fn authentication_file(
        &self,
        issuer: &str,
    ) -> Result<Option<AuthenticationConfiguration>> {
        let Some(path) = &self.authentication_config else {
            return Ok(None);
        };
        if self.oidc_issuer_url.is_some() {
            bail!("authentication-config file and oidc-* flags are mutually exclusive");
        }
        let file: AuthenticationConfiguration = yaml(path)?;
        told(file.faults(issuer)).with_context(|| path.display().to_string())?;
        Ok(Some(file))
    }

    /// Those who know the tokens of these issuers.
    pub(crate) fn issuers(jwt: Vec<JwtAuthenticator>) -> Result<Vec<Arc<dyn ForeignTokens>>> {
        let made = jwt.into_iter().map(|config| {
            let made = Issuer::new(config);
            let made = made.map_err(|faults| anyhow::anyhow!(faults.summary()))?;
            Ok(Arc::new(made) as Arc<dyn ForeignTokens>)
        });
        made.collect()
    }

    fn foreign_tokens(
        &self,
        signer: &TokenSigner,
        file: Option<AuthenticationConfiguration>,
    ) -> Result<Vec<Arc<dyn ForeignTokens>>> {
        let mut jwt = file.map(|file| file.jwt).unwrap_or_default();
        jwt.extend(self.oidc(signer.issuer())?);
        let mut foreign = AccessArgs::issuers(jwt)?;
        if let Some(path) = &self.authentication_token_webhook_config_file {
            let name = "authentication-token-webhook";
            let version = match self.authentication_token_webhook_version.as_deref() {
                None | Some("v1beta1") => "v1beta1",
                Some("v1") => "v1",
                Some(other) => bail!("--{name}-version {other:?}: must be v1 or v1beta1"),
            };
            let ttl = self.authentication_token_webhook_cache_ttl.as_deref();
            let ttl = time(&format!("{name}-cache-ttl"), ttl.unwrap_or("2m"))?;
            let own = signer.own().to_vec();
            let webhook = Webhook::from_kubeconfig(path).context(name)?;
            foreign.push(Arc::new(TokenWebhook::new(webhook, version, ttl, own)));
        }
        Ok(foreign)
    }

    fn oidc(&self, own_issuer: &str) -> Result<Option<JwtAuthenticator>> {
        let (url, client) = match (&self.oidc_issuer_url, &self.oidc_client_id) {
            (None, None) => return Ok(None),
            (Some(url), Some(client)) => (url.clone(), client.clone()),
            _ => bail!("oidc-issuer-url and oidc-client-id must be specified together"),
        };
        let claim = |text: &String| match text.split_once('=') {
            Some((claim, value)) => Ok((claim.to_owned(), value.to_owned())),
            None => bail!("--oidc-required-claim {text:?}: must be claim=value"),
        };
        let flags = OidcFlags {
            issuer_url: url,
            client_id: client,
            ca: self
                .oidc_ca_file
                .as_deref()
                .map(text)
                .transpose()?
                .unwrap_or_default(),
            username_claim: self.oidc_username_claim.clone(),
            username_prefix: self.oidc_username_prefix.clone(),
            groups_claim: self.oidc_groups_claim.clone(),
            groups_prefix: self.oidc_groups_prefix.clone(),
            required_claims: self
                .oidc_required_claim
                .iter()
                .map(claim)
                .collect::<Result<_>>()?,
            signing_algorithms: self.oidc_signing_algs.clone(),
        };
        let structured = flags.structured();
        let mut faults = Faults::new();
        structured.check("oidc", own_issuer, &mut faults);
        told(faults)?;
        Ok(Some(structured))
    }

    /// Who decides, in order.
    pub(crate) fn authorization(&self) -> Result<Vec<Mode>> {
        if let Some(path) = &self.authorization_config {
            if !self.authorization_mode.is_empty() {
                bail!("--authorization-config can not be specified when --authorization-mode is");
            }
            let file: AuthorizationConfiguration = yaml(path)?;
            told(file.faults()).with_context(|| path.display().to_string())?;
            return file
                .authorizers
                .iter()
                .map(|one| self.configured(one))
                .collect();
        }
        if self.authorization_mode.is_empty() {
            return Ok(vec![Mode::Node, Mode::Rbac]);
        }
        let mut seen = Vec::new();
        for mode in &self.authorization_mode {
            if seen.contains(&mode) {
                bail!("authorization-mode {mode:?} has mode specified more than once");
            }
            seen.push(mode);
        }
        self.authorization_mode
            .iter()
            .map(|mode| self.mode(mode))
            .collect()
    }

    fn configured(&self, authorizer: &AuthorizerConfiguration) -> Result<Mode> {
        let Some(config) = &authorizer.webhook else {
            return self.mode(&authorizer.kind);
        };
        let path = config.connection_info.kube_config_file.as_deref();
        let path = path.context("InClusterConfig: this server is not in a cluster")?;
        webhook_mode(path, config.options())
    }

    fn mode(&self, mode: &str) -> Result<Mode> {
        Ok(match mode {
            "Node" => Mode::Node,
            "RBAC" => Mode::Rbac,
            "AlwaysAllow" => Mode::AlwaysAllow,
            "AlwaysDeny" => Mode::AlwaysDeny,
            "ABAC" => {
                let path = self.authorization_policy_file.as_deref();
                let path =
                    path.context("authorization-mode ABAC's authorization policy file not passed")?;
                let policies = Policies::parse(&text(path)?);
                Mode::Abac(Arc::new(
                    policies.with_context(|| path.display().to_string())?,
                ))
            }
            "Webhook" => {
                let path = self.authorization_webhook_config_file.as_deref();
                let path = path
                    .context("authorization-mode Webhook's authorization config file not passed")?;
                webhook_mode(path, self.webhook_options()?)?
            }
            other => bail!("authorization-mode {other:?} is not a valid mode"),
        })
    }

    fn webhook_options(&self) -> Result<AccessOptions> {
        let name = "authorization-webhook";
        let ttl = |which: &str, given: &Option<String>, usual: &str| {
            time(
                &format!("{name}-cache-{which}-ttl"),
                given.as_deref().unwrap_or(usual),
            )
        };
        let version = self.authorization_webhook_version.clone();
        let version = version.unwrap_or_else(|| "v1beta1".into());
        if !matches!(version.as_str(), "v1" | "v1beta1") {
            bail!("--{name}-version {version:?}: must be v1 or v1beta1");
        }
        let allowed = &self.authorization_webhook_cache_authorized_ttl;
        let refused = &self.authorization_webhook_cache_unauthorized_ttl;
        Ok(AccessOptions {
            version,
            allowed_for: Some(ttl("authorized", allowed, "5m")?),
            refused_for: Some(ttl("unauthorized", refused, "30s")?),
            ..AccessOptions::default()
        })
    }

    /// Where the authority of front proxies is, if not with the cluster's own.
    pub(crate) fn front_proxy_file(&self) -> Option<&Path> {
        self.requestheader_client_ca_file.as_deref()
    }

    /// All files with certificates and keys.
    pub(crate) fn certificate_files(&self) -> Vec<PathBuf> {
        let named = self.tls_sni_cert_key.iter();
        let files = named.filter_map(|entry| entry.split(':').next());
        let files = files.flat_map(|files| files.split(',')).map(PathBuf::from);
        files
            .chain(self.requestheader_client_ca_file.clone())
            .collect()
    }

    /// Certificates for certain names, and the names.
    pub(crate) fn named_certificates(&self) -> Result<Vec<(auth::certificate::Pair, Vec<String>)>> {
        let read = |entry: &String| {
            let (files, names) = entry.split_once(':').unwrap_or((entry, ""));
            let (cert, key) = files.split_once(',').with_context(|| {
                format!("--tls-sni-cert-key {entry:?}: must be cert,key[:names]")
            })?;
            let names = names.split(',').filter(|name| !name.is_empty());
            let pair = auth::certificate::Pair {
                cert_pem: text(Path::new(cert))?,
                key_pem: text(Path::new(key))?,
            };
            Ok((pair, names.map(str::to_owned).collect()))
        };
        self.tls_sni_cert_key.iter().map(read).collect()
    }
}

fn webhook_mode(path: &Path, options: AccessOptions) -> Result<Mode> {
    let webhook = Webhook::from_kubeconfig(path).context("authorization webhook")?;
    let made = AccessWebhook::new(webhook, options);
    let made = made.map_err(|faults| anyhow::anyhow!(faults.summary()))?;
    Ok(Mode::Webhook(Arc::new(made)))
}

fn told(faults: Faults) -> Result<()> {
    match faults.is_empty() {
        true => Ok(()),
        false => bail!("{}", faults.summary()),
    }
}

fn yaml<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_saphyr::from_str(&text(path)?).with_context(|| format!("{} is not valid", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Result<AccessArgs> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        AccessArgs::of_words(&words)
    }

    #[test]
    fn words_and_flags_are_the_same() {
        let below = words(&["authorization-mode=Node,RBAC", "--oidc-client-id=a"]).unwrap();
        let above = words(&["oidc-client-id=b", "anonymous-auth=false"]).unwrap();
        let both = above.over(below).unwrap();
        assert_eq!(both.authorization_mode, ["Node", "RBAC"]);
        assert_eq!(both.oidc_client_id.as_deref(), Some("b"));
        assert_eq!(both.anonymous_auth, Some(false));
        assert!(words(&["no-such-flag=1"]).is_err());
    }

    #[test]
    fn modes_are_checked() {
        let told = |flags: &[&str]| {
            let modes = words(flags).unwrap().authorization();
            modes
                .map(|modes| modes.len())
                .map_err(|error| error.to_string())
        };
        assert_eq!(told(&[]), Ok(2));
        assert_eq!(told(&["authorization-mode=AlwaysAllow"]), Ok(1));
        assert!(
            told(&["authorization-mode=RBAC,RBAC"])
                .unwrap_err()
                .contains("more than once")
        );
        assert!(
            told(&["authorization-mode=X"])
                .unwrap_err()
                .contains("is not a valid mode")
        );
        assert!(
            told(&["authorization-mode=ABAC"])
                .unwrap_err()
                .contains("not passed")
        );
    }

    #[test]
    fn files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(&dir.path().join("pki"), &[]).unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let config = file(
            "authn.yaml",
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n\
             jwt:\n- issuer: {url: 'https://a', audiences: [x]}\n  \
             claimMappings: {username: {claim: sub, prefix: ''}}\n\
             anonymous: {enabled: true, conditions: [{path: /livez}]}\n",
        );
        let args = words(&[&format!("authentication-config={config}")]).unwrap();
        let signer = pki.token_signer("https://own").unwrap();
        let authentication = args.authentication(&pki, &signer, None).unwrap();
        assert_eq!(authentication.foreign.len(), 1);
        assert_eq!(authentication.anonymous.paths, ["/livez"]);
        let policy = file("abac.jsonl", "{\"user\": \"jane\"}\n");
        let modes = words(&[
            "authorization-mode=ABAC",
            &format!("authorization-policy-file={policy}"),
        ]);
        assert!(matches!(
            modes.unwrap().authorization().unwrap()[0],
            Mode::Abac(_)
        ));
        let order = file(
            "authz.yaml",
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n\
             authorizers:\n- {type: RBAC, name: rbac}\n- {type: Node, name: node}\n",
        );
        let args = words(&[&format!("authorization-config={order}")]).unwrap();
        assert!(matches!(args.authorization().unwrap()[0], Mode::Rbac));
        let bad = file(
            "bad.yaml",
            "apiVersion: x\nkind: AuthorizationConfiguration\n",
        );
        let args = words(&[&format!("authorization-config={bad}")]).unwrap();
        assert!(args.authorization().is_err());
    }
}
