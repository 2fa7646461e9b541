//! Certificates while they are in use: files that change are read again, and whatever Sampan
//! issued itself is issued anew before it ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use apiserver::ApiServer;
use arc_swap::ArcSwap;
use auth::certificate::{Pair, RENEW_BEFORE, facts};
use auth::pki::Own;
use auth::tls::ServingCertificates;
use auth::{Pki, Trust};
use base::Crew;
use jiff::Timestamp;
use node_config::Settings;

use crate::config::Config;
use crate::files::{self, Look, text};

/// The longest wait before the clock is looked at again; machines sleep.
const LOOK: Duration = Duration::from_secs(24 * 3600);
/// The shortest: what cannot be renewed must not be tried without pause.
const PAUSE: Duration = Duration::from_secs(60);

/// What the API server shows and believes, and where it comes from.
#[derive(Clone)]
pub(crate) struct Certificates {
    config: Config,
    pki: Arc<Pki>,
    trust: Arc<Trust>,
    shown: Arc<ServingCertificates>,
    /// The cluster's own serving certificate, as it is now.
    own: Arc<ArcSwap<Pair>>,
}

impl Certificates {
    /// Reads everything once.
    pub(crate) fn new(config: &Config, pki: Arc<Pki>, trust: Arc<Trust>) -> Result<Certificates> {
        let certificates = Certificates {
            config: config.clone(),
            shown: Arc::new(ServingCertificates::new(pki.serving())?),
            own: Arc::new(ArcSwap::from_pointee(pki.serving().clone())),
            pki,
            trust,
        };
        certificates.read()?;
        Ok(certificates)
    }

    /// What the listeners show.
    pub(crate) fn shown(&self) -> Arc<ServingCertificates> {
        Arc::clone(&self.shown)
    }

    /// Follows files and the clock; `renewed` is told of a new administrator's pair.
    pub(crate) fn follow(
        &self,
        api: &ApiServer,
        crew: &Crew,
        renewed: impl Fn(&Pair) -> Result<()> + Send + Sync + 'static,
    ) -> Result<()> {
        let (own, api) = (self.clone(), api.clone());
        let look: Look = Arc::new(move || {
            let (own, api) = (own.clone(), api.clone());
            Box::pin(async move {
                match own.read() {
                    Ok(()) => api.publish_trust().await,
                    Err(error) => tracing::error!(%error, "certificates stay as they were"),
                }
            })
        });
        files::follow("certificate files", self.files(), crew, &look)?;
        let renew = |which: Own| {
            let pki = Arc::clone(&self.pki);
            move |now: Timestamp| Ok(pki.renewed(which, now)?)
        };
        let own = self.clone();
        let read = move |pair: &Pair| {
            own.own.store(Arc::new(pair.clone()));
            own.read()
        };
        keep_fresh(crew, self.pki.serving(), renew(Own::Serving), read);
        keep_fresh(crew, self.pki.admin(), renew(Own::Admin), renewed);
        let pki = Arc::clone(&self.pki);
        let show = move |pair: &Pair| Ok(pki.shown_to_servers().set(pair)?);
        let proxy = self.pki.front_proxy_client();
        keep_fresh(crew, proxy, renew(Own::FrontProxyClient), show);
        let (pki, shown) = (Arc::clone(&self.pki), Arc::clone(&self.pki));
        let show = move |pair: &Pair| Ok(shown.shown_to_kubelets().set(pair)?);
        // It is in no file; one that lives as long as any stands for its clock.
        let first = self.pki.new_kubelet_client()?;
        show(&first)?;
        let renew = in_memory(first.clone(), move || Ok(pki.new_kubelet_client()?));
        keep_fresh(crew, &first, renew, show);
        Ok(())
    }

    /// Reads all files, and shows our own certificate where none is given.
    fn read(&self) -> Result<()> {
        let config = &self.config;
        let usual = match (&config.tls_cert_file, &config.tls_private_key_file) {
            (Some(cert), Some(key)) => Pair {
                cert_pem: text(cert)?,
                key_pem: text(key)?,
            },
            _ => self.own.load().as_ref().clone(),
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

    fn files(&self) -> impl Iterator<Item = PathBuf> {
        let config = &self.config;
        let files = [
            &config.tls_cert_file,
            &config.tls_private_key_file,
            &config.client_ca_file,
        ];
        let files = files.into_iter().flatten().cloned();
        files.chain(config.access.certificate_files())
    }
}

/// Shows a kubelet that runs alone what its files hold, now and when they change.
pub(crate) fn of_files(settings: &Settings, crew: &Crew) -> Result<Arc<ServingCertificates>> {
    let path = |path: &str, flag: &str| {
        let named = (!path.is_empty()).then(|| PathBuf::from(path));
        named.with_context(|| format!("{flag} is needed"))
    };
    let cert = path(&settings.tls_cert_file, "--tls-cert-file")?;
    let key = path(&settings.tls_private_key_file, "--tls-private-key-file")?;
    let read = {
        let (cert, key) = (cert.clone(), key.clone());
        move || -> Result<Pair> {
            Ok(Pair {
                cert_pem: text(&cert)?,
                key_pem: text(&key)?,
            })
        }
    };
    let shown = Arc::new(ServingCertificates::new(&read()?)?);
    let own = Arc::clone(&shown);
    let look: Look = Arc::new(move || {
        let set = read().and_then(|pair| Ok(own.set(&pair, &[])?));
        if let Err(error) = set {
            tracing::error!(%error, "the kubelet's certificate stays as it was");
        }
        Box::pin(std::future::ready(()))
    });
    files::follow("kubelet certificate", [cert, key], crew, &look)?;
    Ok(shown)
}

/// Issues a pair anew before it ends, for as long as the crew works: `renew` gives the pair as it
/// should be at a time, `used` takes a new one into use.
pub(crate) fn keep_fresh(
    crew: &Crew,
    first: &Pair,
    renew: impl FnMut(Timestamp) -> Result<Pair> + Send + 'static,
    used: impl Fn(&Pair) -> Result<()> + Send + 'static,
) {
    let (first, stop) = (first.clone(), crew.stop());
    crew.spawn("certificate renewal", async move {
        tokio::select! {
            () = renewal(first, renew, used, Timestamp::now) => {}
            () = stop.raised() => {}
        }
    });
}

async fn renewal(
    mut current: Pair,
    mut renew: impl FnMut(Timestamp) -> Result<Pair>,
    used: impl Fn(&Pair) -> Result<()>,
    now: impl Fn() -> Timestamp,
) {
    loop {
        tokio::time::sleep(wait(&current, now())).await;
        let next = match renew(now()) {
            Ok(next) if next != current => next,
            Ok(_) => continue,
            Err(error) => {
                tracing::error!(%error, "a certificate is not renewed");
                continue;
            }
        };
        match used(&next) {
            Ok(()) => tracing::info!("a certificate was renewed"),
            Err(error) => tracing::error!(%error, "the new certificate is not in use"),
        }
        current = next;
    }
}

/// Renews what is in no file: a new one when the last one is not fresh any more.
pub(crate) fn in_memory(
    mut current: Pair,
    issue: impl Fn() -> Result<Pair>,
) -> impl FnMut(Timestamp) -> Result<Pair> {
    move |now| {
        if !facts(&current.cert_pem)?.is_fresh(now) {
            current = issue()?;
        }
        Ok(current.clone())
    }
}

/// How long until a pair is to be issued anew, or until somebody should look again.
fn wait(pair: &Pair, now: Timestamp) -> Duration {
    let end = facts(&pair.cert_pem).map_or(0, |facts| facts.not_after);
    let left = end.saturating_sub(now.as_second());
    let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
    left.saturating_sub(RENEW_BEFORE).clamp(PAUSE, LOOK)
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
        assert_eq!(wait(pki.serving(), before(10)), PAUSE);
    }

    /// A year passes in a moment: each pair is replaced before it ends, and taken into use.
    #[tokio::test(start_paused = true)]
    async fn a_year_of_renewals() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Arc::new(Pki::open(dir.path(), &[]).unwrap());
        let begun = (Timestamp::now(), tokio::time::Instant::now());
        let now = move || begun.0 + begun.1.elapsed();
        let (seen, mut news) = tokio::sync::mpsc::unbounded_channel();
        let kinds = [Own::Serving, Own::Admin, Own::FrontProxyClient];
        let pairs = [pki.serving(), pki.admin(), pki.front_proxy_client()];
        let mut tasks = tokio::task::JoinSet::new();
        let used = |seen: &tokio::sync::mpsc::UnboundedSender<_>, name: usize| {
            let seen = seen.clone();
            move |pair: &Pair| Ok(seen.send((name, pair.clone(), now()))?)
        };
        for (name, (which, first)) in kinds.into_iter().zip(pairs).enumerate() {
            let own = Arc::clone(&pki);
            let renew = move |now| Ok(own.renewed(which, now)?);
            tasks.spawn(renewal(first.clone(), renew, used(&seen, name), now));
        }
        let first = pki.new_kubelet_client().unwrap();
        let own = Arc::clone(&pki);
        let renew = in_memory(first.clone(), move || Ok(own.new_kubelet_client()?));
        tasks.spawn(renewal(first, renew, used(&seen, 3), now));
        let mut renewed = std::collections::BTreeSet::new();
        while renewed.len() < 4 {
            let (name, pair, at) = news.recv().await.unwrap();
            let end = facts(&pki.serving().cert_pem).unwrap().not_after;
            assert!(at.as_second() < end, "{name} renewed at {at}");
            assert!(facts(&pair.cert_pem).is_ok());
            renewed.insert(name);
        }
    }
}
