//! Keeps a certificate fresh: a new one is asked for after 70 to 90 % of its life, a different
//! part for each, so that nodes which came together do not ask together.

use std::collections::BTreeSet;
use std::time::Duration;

use auth::certificate::{Facts, Pair, facts};
use base::metrics::Counters;
use base::{Backoff, Stop};
use client::Client;
use jiff::Timestamp;

use crate::request::{self, NODES, Signing, Template};
use crate::{Error, PairStore};

/// How long a request may stay without an answer before another is made.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Waits between attempts that fail.
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_LAST: Duration = Duration::from_secs(32);
/// The shortest time between two certificates.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest wait before the clock is looked at again: machines sleep, and clocks are set.
const LOOK: Duration = Duration::from_secs(60);

static CLIENT_ERRORS: Counters = Counters::new(
    "kubelet_certificate_manager_client_expiration_renew_errors",
    "[ALPHA] Counter of certificate renewal errors.",
    &[],
);
static SERVER_ERRORS: Counters = Counters::new(
    "kubelet_server_expiration_renew_errors",
    "[ALPHA] Counter of certificate renewal errors.",
    &[],
);

/// Takes a new pair into use.
pub type Used = Box<dyn Fn(&Pair) -> Result<(), Error> + Send + Sync>;

/// What keeps one certificate fresh.
pub struct Rotation {
    /// Who asks.
    pub client: Client,
    pub signing: Signing,
    pub template: Template,
    pub store: PairStore,
    pub used: Used,
}

/// When a new certificate is asked for; `part` is a random number from 0 to 1.
pub fn deadline(facts: &Facts, part: f64) -> Timestamp {
    let whole = facts.not_after.saturating_sub(facts.not_before);
    #[expect(clippy::cast_precision_loss, reason = "seconds of some years")]
    #[expect(clippy::cast_possible_truncation, reason = "a part of an i64")]
    let life = (whole as f64 * (0.7 + 0.2 * part)).round() as i64;
    let second = facts.not_before.saturating_add(life);
    Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
}

impl Rotation {
    /// Keeps on until the process stops. `current` is what is in use now, if anything.
    pub async fn run(self, mut current: Option<Pair>, stop: Stop) {
        loop {
            let next = tokio::select! {
                next = self.next(current.as_ref()) => next,
                () = stop.raised() => return,
            };
            match (self.used)(&next) {
                Ok(()) => tracing::info!(signer = self.signing.signer, "a certificate was rotated"),
                Err(error) => tracing::error!(%error, "the new certificate is not in use"),
            }
            current = Some(next);
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.raised() => return,
            }
        }
    }

    /// Waits until it is time, and has a new certificate then.
    async fn next(&self, current: Option<&Pair>) -> Pair {
        let known = current.and_then(|pair| facts(&pair.cert_pem).ok());
        let known = known.filter(|facts| self.fits(facts));
        if let Some(known) = known {
            let due = deadline(&known, rand::random());
            tracing::debug!(signer = self.signing.signer, %due, "certificate rotation");
            while let Some(left) = left(due) {
                tokio::time::sleep(left.min(LOOK)).await;
            }
        }
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LAST);
        loop {
            match self.ask().await {
                Ok(pair) => return pair,
                Err(error) => {
                    let errors = match self.signing == request::CLIENT {
                        true => &CLIENT_ERRORS,
                        false => &SERVER_ERRORS,
                    };
                    errors.add(&[], 1);
                    let signer = self.signing.signer;
                    tracing::error!(%error, signer, "a certificate is not rotated");
                }
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    async fn ask(&self) -> Result<Pair, Error> {
        let key = request::new_key()?;
        let asked = request::certificate(
            &self.client,
            self.signing,
            &self.template,
            &key,
            None,
            PATIENCE,
        );
        let pair = asked.await?;
        self.store.update(&pair)?;
        Ok(pair)
    }

    /// Whether a certificate names what it should, and has not ended.
    fn fits(&self, facts: &Facts) -> bool {
        let has: BTreeSet<&String> = facts.hosts.iter().collect();
        facts.common_name == self.template.common_name
            && facts.organizations.iter().any(|one| one == NODES)
            && self.template.hosts.iter().all(|host| has.contains(host))
            && facts.not_after > Timestamp::now().as_second()
    }
}

fn left(due: Timestamp) -> Option<Duration> {
    let left = due.duration_since(Timestamp::now());
    Duration::try_from(left).ok().filter(|left| !left.is_zero())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A pair that lives for so many seconds.
    pub(crate) fn pair(seconds: i64) -> Pair {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "system:node:n");
        let now = Timestamp::now().as_second();
        let day = |second: i64| {
            let time = Timestamp::from_second(second).unwrap();
            let date = time.to_zoned(jiff::tz::TimeZone::UTC);
            rcgen::date_time_ymd(
                i32::from(date.year()),
                u8::try_from(date.month()).unwrap(),
                u8::try_from(date.day()).unwrap(),
            )
        };
        params.not_before = day(now - 86_400);
        params.not_after = day(now + seconds + 86_400);
        let cert = params.self_signed(&key).unwrap();
        Pair {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    #[test]
    fn rotation_comes_in_the_last_third() {
        let mut known = facts(&pair(60).cert_pem).unwrap();
        (known.not_before, known.not_after) = (1_000, 2_000);
        assert_eq!(deadline(&known, 0.0).as_second(), 1_700);
        assert_eq!(deadline(&known, 0.5).as_second(), 1_800);
        assert!(deadline(&known, 1.0).as_second() <= 1_900);
    }
}
