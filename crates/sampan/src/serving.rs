//! How the API server speaks TLS, and how it takes its leave: flags under kube-apiserver's names.

use std::time::Duration;

use anyhow::{Context, Result};
use auth::authorization::duration;
use auth::ciphers::Spoken;
use clap::Args;
use serde::{Deserialize, Serialize};

/// The flags.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct ServingArgs {
    /// Lowest version of TLS: VersionTLS12 or VersionTLS13 [default: VersionTLS12]
    #[arg(long)]
    tls_min_version: Option<String>,
    /// Cipher suites of TLS 1.2, by Go's names [default: all that are safe]
    #[arg(long, value_delimiter = ',')]
    tls_cipher_suites: Vec<String>,
    /// How long to serve on after SIGTERM, while /readyz fails already [default: 0s]
    #[arg(long)]
    shutdown_delay_duration: Option<String>,
}

impl ServingArgs {
    /// What is spoken.
    pub(crate) fn spoken(&self) -> Result<Spoken> {
        let spoken = Spoken::of(self.tls_min_version.as_deref(), &self.tls_cipher_suites);
        spoken.context("--tls-min-version and --tls-cipher-suites")
    }

    /// How long the server serves on when it was told to stop.
    pub(crate) fn delay(&self) -> Result<Duration> {
        time(
            "shutdown-delay-duration",
            self.shutdown_delay_duration.as_deref().unwrap_or("0s"),
        )
    }
}

/// A flag that is a duration.
pub(crate) fn time(flag: &str, given: &str) -> Result<Duration> {
    duration(given).with_context(|| format!("--{flag} {given:?}: must be a duration, as 30s"))
}
