//! Tokens of service accounts: whose they are, for whom, and by which keys. Flags under
//! kube-apiserver's names.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use auth::token::{DEFAULT_ISSUER, MAX_SECONDS};
use auth::{Pki, TokenSigner};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::files::text;
use crate::serving::time;

/// The shortest limit that tokens may be given, in seconds.
const LIMIT_MIN: i64 = 3600;

/// The flags.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct TokenArgs {
    /// Issuer of service account tokens; of several the first one signs, and all are believed
    /// [default: https://kubernetes.default.svc.cluster.local]
    #[arg(long)]
    service_account_issuer: Vec<String>,
    /// Private key that signs them [default: the cluster's own]
    #[arg(long)]
    service_account_signing_key_file: Option<PathBuf>,
    /// Keys that verify them; may be given several times [default: the one that signs]
    #[arg(long)]
    service_account_key_file: Vec<PathBuf>,
    /// Audiences of the API server [default: the issuers]
    #[arg(long, value_delimiter = ',')]
    api_audiences: Vec<String>,
    /// Where others find the keys [default: this server]
    #[arg(long)]
    service_account_jwks_uri: Option<String>,
    /// The longest that a token may live
    #[arg(long)]
    service_account_max_token_expiration: Option<String>,
    /// Let tokens of pods live longer than they say [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    service_account_extend_token_expiration: Option<bool>,
}

impl TokenArgs {
    /// Who signs and verifies.
    pub(crate) fn signer(&self, pki: &Pki) -> Result<Arc<TokenSigner>> {
        self.check()?;
        let first = self.service_account_issuer.first();
        let first = first.map_or(DEFAULT_ISSUER, String::as_str);
        let signer = match &self.service_account_signing_key_file {
            Some(path) => TokenSigner::new(&text(path)?, first).with_context(|| {
                format!("--service-account-signing-key-file {}", path.display())
            })?,
            None => pki.token_signer(first)?,
        };
        let mut signer = signer
            .issuers(self.service_account_issuer.clone())
            .audiences(self.api_audiences.clone())
            .extending(self.service_account_extend_token_expiration.unwrap_or(true))
            .limited(self.limit()?)
            .keys_at(self.service_account_jwks_uri.clone());
        let files = &self.service_account_key_file;
        if !files.is_empty() {
            let keys = files.iter().map(|path| text(path));
            let keys = keys.collect::<Result<Vec<_>>>()?;
            signer = signer
                .verifying(&keys)
                .context("--service-account-key-file")?;
        }
        Ok(Arc::new(signer))
    }

    fn check(&self) -> Result<()> {
        for issuer in &self.service_account_issuer {
            if issuer.is_empty() {
                bail!("service-account-issuer should not be an empty string");
            }
            if issuer.contains(':') && issuer.parse::<http::Uri>().is_err() {
                bail!("service-account-issuer {issuer:?} contained a ':' but was not a valid URL");
            }
        }
        match &self.service_account_jwks_uri {
            Some(uri) if !uri.starts_with("https://") => {
                bail!("service-account-jwks-uri requires https scheme, parsed as: {uri}")
            }
            _ => Ok(()),
        }
    }

    fn limit(&self) -> Result<Option<i64>> {
        let name = "service-account-max-token-expiration";
        let Some(given) = &self.service_account_max_token_expiration else {
            return Ok(None);
        };
        let seconds = i64::try_from(time(name, given)?.as_secs()).unwrap_or(i64::MAX);
        match seconds {
            0 => Ok(None),
            LIMIT_MIN..=MAX_SECONDS => Ok(Some(seconds)),
            _ => bail!("the {name} must be between 1 hour to 2^32 seconds"),
        }
    }
}
