//! Files that say who is known and who decides, followed while the server runs. A new file with
//! faults leaves the old one in force, and is told by log and metrics.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use apiserver::{ApiServer, Reloaded};
use auth::jwt::AuthenticationConfiguration;
use auth::{Anonymous, ForeignTokens, TokenSigner};
use base::Crew;
use parking_lot::Mutex;

use crate::access::AccessArgs;
use crate::files::{self, Look, text};

/// What was read last.
#[derive(Default)]
struct Last {
    authentication: String,
    authorization: String,
    tokens: String,
}

struct Follower {
    access: AccessArgs,
    api: ApiServer,
    signer: Arc<TokenSigner>,
    /// Those who know tokens, and whom no file names.
    fixed: Vec<Arc<dyn ForeignTokens>>,
    /// What the file said of strangers at the start.
    anonymous: Option<Anonymous>,
    last: Mutex<Last>,
}

/// Follows the files. `foreign` is who knows tokens now: first those that the file names.
pub(crate) fn follow(
    access: &AccessArgs,
    api: &ApiServer,
    signer: &Arc<TokenSigner>,
    mut foreign: Vec<Arc<dyn ForeignTokens>>,
    crew: &Crew,
) -> Result<()> {
    let read = |path: Option<&Path>| path.map(text).transpose().map(Option::unwrap_or_default);
    let last = Last {
        authentication: read(access.authentication_config.as_deref())?,
        authorization: read(access.authorization_config.as_deref())?,
        tokens: read(access.token_auth_file.as_deref())?,
    };
    let named = access.authentication_file(signer.issuer())?;
    let anonymous = named
        .as_ref()
        .and_then(AuthenticationConfiguration::anonymous);
    let named = named.map_or(0, |file| file.jwt.len());
    for (file, data) in [
        (Reloaded::Authentication, &last.authentication),
        (Reloaded::Authorization, &last.authorization),
    ] {
        if !data.is_empty() {
            api.note_loaded(file, data);
        }
    }
    let followed = [
        &access.authentication_config,
        &access.authorization_config,
        &access.token_auth_file,
    ];
    let followed: Vec<_> = followed.into_iter().flatten().cloned().collect();
    let follower = Arc::new(Follower {
        access: access.clone(),
        api: api.clone(),
        signer: Arc::clone(signer),
        fixed: foreign.split_off(named.min(foreign.len())),
        anonymous,
        last: Mutex::new(last),
    });
    let look: Look = Arc::new(move || {
        let follower = Arc::clone(&follower);
        Box::pin(async move { follower.look() })
    });
    files::follow("access files", followed, crew, &look)
}

impl Follower {
    fn look(&self) {
        let mut last = self.last.lock();
        let access = &self.access;
        if let Some(path) = &access.authentication_config {
            let read = again(path, &mut last.authentication, |_| self.authentication());
            self.told(Reloaded::Authentication, &last.authentication, read);
        }
        if let Some(path) = &access.authorization_config {
            let read = again(path, &mut last.authorization, |_| {
                self.api.set_authorization(access.authorization()?);
                Ok(())
            });
            self.told(Reloaded::Authorization, &last.authorization, read);
        }
        if let Some(path) = &access.token_auth_file {
            let read = again(path, &mut last.tokens, |csv| {
                Ok(self.api.set_static_tokens(csv)?)
            });
            match read {
                Some(Ok(())) => tracing::info!("reloaded token auth file"),
                Some(Err(error)) => {
                    tracing::error!(error = format!("{error:#}"), "tokens stay as they were");
                }
                None => {}
            }
        }
    }

    fn authentication(&self) -> Result<()> {
        let file = self.access.authentication_file(self.signer.issuer())?;
        let file = file.context("no authentication config")?;
        if file.anonymous() != self.anonymous {
            bail!("anonymous: Forbidden: changed from initial configuration file");
        }
        let mut foreign = AccessArgs::issuers(file.jwt)?;
        foreign.extend(self.fixed.iter().cloned());
        self.api.set_foreign_tokens(foreign);
        Ok(())
    }

    fn told(&self, file: Reloaded, data: &str, read: Option<Result<()>>) {
        let what = match file {
            Reloaded::Authentication => "authentication config",
            Reloaded::Authorization => "authorization config",
        };
        match read {
            None => {}
            Some(Ok(())) => {
                tracing::info!("reloaded {what}");
                self.api.note_reload(file, data, true);
            }
            Some(Err(error)) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "reloading {what}; the old one stays"
                );
                self.api.note_reload(file, data, false);
            }
        }
    }
}

/// Reads a file again; `None`: it is what it was.
fn again(
    path: &Path,
    last: &mut String,
    take: impl FnOnce(&str) -> Result<()>,
) -> Option<Result<()>> {
    let now = match text(path) {
        Ok(now) => now,
        Err(error) => return Some(Err(error)),
    };
    if now == *last {
        return None;
    }
    *last = now;
    Some(take(last))
}
