//! The API server's certificates while it serves: files that change are read again, and what
//! Sampan issued itself is issued anew before it ends.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use auth::certificate::{Pair, RENEW_BEFORE, facts};
use auth::tls::ServingCertificates;
use auth::{Pki, Trust};
use base::Crew;
use jiff::Timestamp;

use crate::config::Config;

/// How long files may change before they are read: a pair is two files.
const SETTLE: Duration = Duration::from_millis(200);
/// The longest wait before the clock is looked at again; machines sleep.
const LOOK: Duration = Duration::from_secs(24 * 3600);

/// What is shown and believed, and where it comes from.
#[derive(Clone)]
pub(crate) struct Certificates {
    config: Config,
    pki: Arc<Pki>,
    trust: Arc<Trust>,
    shown: Arc<ServingCertificates>,
}

impl Certificates {
    /// Reads everything once.
    pub(crate) fn new(config: &Config, pki: Arc<Pki>, trust: Arc<Trust>) -> Result<Certificates> {
        let certificates = Certificates {
            config: config.clone(),
            shown: Arc::new(ServingCertificates::new(pki.serving())?),
            pki,
            trust,
        };
        certificates.read(certificates.pki.serving())?;
        Ok(certificates)
    }

    /// What the listeners show.
    pub(crate) fn shown(&self) -> Arc<ServingCertificates> {
        Arc::clone(&self.shown)
    }

    /// Follows files and the clock; `renewed` is told of a new administrator's pair.
    pub(crate) fn follow(
        &self,
        crew: &Crew,
        renewed: impl Fn(&Pair) -> Result<()> + Send + Sync + 'static,
    ) -> Result<()> {
        for folder in self.folders() {
            let notice = base::Notice::of_folder(&folder);
            let notice = notice.with_context(|| folder.display().to_string())?;
            let (own, stop) = (self.clone(), crew.stop());
            crew.spawn("certificate files", async move {
                tokio::select! {
                    () = own.follow_folder(notice) => {}
                    () = stop.raised() => {}
                }
            });
        }
        let (own, stop) = (self.clone(), crew.stop());
        crew.spawn("certificate renewal", async move {
            tokio::select! {
                () = own.renew(renewed) => {}
                () = stop.raised() => {}
            }
        });
        Ok(())
    }

    async fn follow_folder(&self, mut notice: base::Notice) {
        loop {
            if let Err(error) = notice.changed().await {
                return tracing::error!(%error, "certificate files are not followed");
            }
            tokio::time::sleep(SETTLE).await;
            match self.read(self.pki.serving()) {
                Ok(()) => tracing::debug!("certificate files read"),
                Err(error) => tracing::error!(%error, "certificates stay as they were"),
            }
        }
    }

    async fn renew(&self, renewed: impl Fn(&Pair) -> Result<()>) {
        let mut serving = self.pki.serving().clone();
        loop {
            tokio::time::sleep(wait(&serving, Timestamp::now())).await;
            match self.pki.renewed(Timestamp::now()) {
                Ok((next, admin)) if next != serving => {
                    let done = self.read(&next).and_then(|()| renewed(&admin));
                    if let Err(error) = done {
                        tracing::error!(%error, "the new certificate is not in use");
                    }
                    serving = next;
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "certificates are not renewed"),
            }
        }
    }

    /// Reads all files, and shows `own` where none is given.
    fn read(&self, own: &Pair) -> Result<()> {
        let config = &self.config;
        let usual = match (&config.tls_cert_file, &config.tls_private_key_file) {
            (Some(cert), Some(key)) => Pair {
                cert_pem: text(cert)?,
                key_pem: text(key)?,
            },
            _ => own.clone(),
        };
        self.shown
            .set(&usual, &config.access.named_certificates()?)?;
        if let Some(path) = &config.client_ca_file {
            let both = format!("{}{}", self.pki.client_ca_pem(), text(path)?);
            self.trust.set_clients(&both)?;
        }
        if let Some(path) = config.access.front_proxy_file() {
            self.trust.set_proxies(&text(path)?)?;
        }
        Ok(())
    }

    fn folders(&self) -> BTreeSet<PathBuf> {
        let config = &self.config;
        let files = [
            &config.tls_cert_file,
            &config.tls_private_key_file,
            &config.client_ca_file,
        ];
        let files = files.into_iter().flatten().cloned();
        let folder = |path: PathBuf| match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let all = files.chain(config.access.certificate_files());
        all.map(folder).collect()
    }
}

/// How long until a pair is to be issued anew, or until somebody should look again.
fn wait(pair: &Pair, now: Timestamp) -> Duration {
    let end = facts(&pair.cert_pem).map_or(0, |facts| facts.not_after);
    let left = end.saturating_sub(now.as_second());
    let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
    // A pair that cannot be renewed must not be tried without pause.
    left.saturating_sub(RENEW_BEFORE)
        .clamp(Duration::from_secs(60), LOOK)
}

fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_comes_before_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path(), &[]).unwrap();
        let end = facts(&pki.serving().cert_pem).unwrap().not_after;
        let before = |seconds: i64| Timestamp::from_second(end - seconds).unwrap();
        let month = i64::try_from(RENEW_BEFORE.as_secs()).unwrap();
        assert_eq!(wait(pki.serving(), Timestamp::now()), LOOK);
        assert_eq!(
            wait(pki.serving(), before(month + 600)),
            Duration::from_secs(600)
        );
        assert_eq!(wait(pki.serving(), before(10)), Duration::from_secs(60));
    }
}
