//! What may be replaced while the server runs: who decides, who knows tokens, whom it believes.

use std::fmt::Write;
use std::sync::Arc;

use auth::authenticator::TokenFileError;
use auth::{ForeignTokens, Identity, Mode};
use jiff::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::server::ApiServer;
use crate::start::bootstrap;

/// A file that is read again when it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// The AuthenticationConfiguration.
    Authentication,
    /// The AuthorizationConfiguration.
    Authorization,
}

/// What became of reading files again.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    authentication: Mutex<Counts>,
    authorization: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Times and the last time, in Unix seconds: of success, and of failure.
    succeeded: (u64, i64),
    failed: (u64, i64),
    /// Of the file in force.
    digest: String,
}

impl ApiServer {
    /// Lets these decide from now on, in this order.
    pub fn set_authorization(&self, modes: Vec<Mode>) {
        self.core.authorizer.replace(modes);
    }

    /// Asks these about tokens of others from now on.
    pub fn set_foreign_tokens(&self, foreign: Vec<Arc<dyn ForeignTokens>>) {
        self.core.authenticator.replace_foreign(foreign);
    }

    /// Knows the tokens of this file, and no others, from now on.
    pub fn set_static_tokens(&self, csv: &str) -> Result<(), TokenFileError> {
        self.core.authenticator.replace_static_tokens(csv)
    }

    /// Tells the servers behind this one whom it believes, after that has changed.
    pub async fn publish_trust(&self) {
        let client = self.client(Identity::loopback());
        if let Err(error) = bootstrap::publish_trust(&self.core, &client).await {
            tracing::error!(%error, "servers behind this one are not told of authorities");
        }
    }

    /// Notes the file in force at the start.
    pub fn note_loaded(&self, file: Reloaded, data: &str) {
        self.core.reloads.of(file).lock().digest = digest(data);
    }

    /// Notes that a changed file was read, and with what success.
    pub fn note_reload(&self, file: Reloaded, data: &str, succeeded: bool) {
        let mut counts = self.core.reloads.of(file).lock();
        let (count, last) = match succeeded {
            true => &mut counts.succeeded,
            false => &mut counts.failed,
        };
        *count += 1;
        *last = Timestamp::now().as_second();
        if succeeded {
            counts.digest = digest(data);
        }
    }
}

impl Reloads {
    fn of(&self, file: Reloaded) -> &Mutex<Counts> {
        match file {
            Reloaded::Authentication => &self.authentication,
            Reloaded::Authorization => &self.authorization,
        }
    }

    /// In the text form of Prometheus; `server` names this server.
    pub(crate) fn metrics(&self, server: &str) -> String {
        let mut text = String::new();
        let id = digest(server);
        for (subsystem, counts) in [
            ("authentication_config", &self.authentication),
            ("authorization_config", &self.authorization),
        ] {
            let counts = counts.lock();
            if counts.digest.is_empty() {
                continue;
            }
            let name = format!("apiserver_{subsystem}_controller");
            let both = [("failure", counts.failed), ("success", counts.succeeded)];
            let known = || both.iter().filter(|(_, (count, _))| *count > 0);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# TYPE {name}_automatic_reloads_total counter");
            for (status, (count, _)) in known() {
                let labels = format!("apiserver_id_hash=\"{id}\",status=\"{status}\"");
                let _ = writeln!(text, "{name}_automatic_reloads_total{{{labels}}} {count}");
            }
            let last = format!("{name}_automatic_reload_last_timestamp_seconds");
            let _ = writeln!(text, "# TYPE {last} gauge");
            for (status, (_, at)) in known() {
                let labels = format!("apiserver_id_hash=\"{id}\",status=\"{status}\"");
                let _ = writeln!(text, "{last}{{{labels}}} {at}");
            }
            let digest = &counts.digest;
            let labels = format!("apiserver_id_hash=\"{id}\",hash=\"{digest}\"");
            let _ = writeln!(text, "# TYPE {name}_last_config_info gauge");
            let _ = writeln!(text, "{name}_last_config_info{{{labels}}} 1");
        }
        text
    }
}

fn digest(text: &str) -> String {
    let digits = Sha256::digest(text.as_bytes());
    let digits: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}
