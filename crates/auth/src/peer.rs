//! The other end of a connection: the certificate it showed, and what that proves. Authorities
//! may change while connections last, so the proof belongs to the request, not to the handshake.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use crate::certificate::facts_of_der;
use crate::identity::Identity;
use crate::tls::{TlsError, certificates};

/// Whose certificates are believed; may change at any time.
#[derive(Default)]
pub struct Trust {
    clients: ArcSwapOption<Verifier>,
    proxies: ArcSwapOption<Verifier>,
    clients_pem: ArcSwap<String>,
    proxies_pem: ArcSwap<String>,
    /// Counts changes.
    generation: AtomicU64,
}

struct Verifier(Arc<dyn ClientCertVerifier>);

/// The other end of a connection.
#[derive(Debug, Default)]
pub struct Peer {
    chain: Vec<CertificateDer<'static>>,
    /// What was found last.
    known: ArcSwap<Proof>,
}

/// What a certificate proves.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    /// Under which generation of [`Trust`], counted from one, and until when (Unix seconds).
    generation: u64,
    until: i64,
    pub(crate) user: Option<Identity>,
    /// The common name, where the authority of front proxies has signed.
    pub(crate) proxy: Option<String>,
    /// There is a certificate that nobody vouches for.
    pub(crate) refused: bool,
}

impl Trust {
    /// From the authorities of clients and of front proxies, PEM.
    pub fn new(clients: &str, proxies: &str) -> Result<Trust, TlsError> {
        let trust = Trust::default();
        trust.set_clients(clients)?;
        trust.set_proxies(proxies)?;
        Ok(trust)
    }

    /// Believes these authorities of clients from now on.
    pub fn set_clients(&self, pem: &str) -> Result<(), TlsError> {
        self.clients.store(verifier(pem)?);
        self.clients_pem.store(Arc::new(pem.to_owned()));
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Believes these authorities of front proxies from now on.
    pub fn set_proxies(&self, pem: &str) -> Result<(), TlsError> {
        self.proxies.store(verifier(pem)?);
        self.proxies_pem.store(Arc::new(pem.to_owned()));
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// The authorities of clients and of front proxies, PEM.
    pub fn texts(&self) -> (Arc<String>, Arc<String>) {
        (self.clients_pem.load_full(), self.proxies_pem.load_full())
    }

    /// What a peer's certificate proves now.
    pub(crate) fn judge(&self, peer: &Peer) -> Arc<Proof> {
        let known = peer.known.load_full();
        if peer.chain.is_empty() {
            return known;
        }
        let generation = self.generation.load(Ordering::Acquire) + 1;
        if known.generation == generation && Timestamp::now().as_second() <= known.until {
            return known;
        }
        let proof = Arc::new(self.proof(&peer.chain, generation));
        peer.known.store(Arc::clone(&proof));
        proof
    }

    fn proof(&self, chain: &[CertificateDer<'static>], generation: u64) -> Proof {
        let refused = |why: &dyn std::fmt::Display| {
            tracing::debug!(%why, "client certificate refused");
            Proof {
                generation,
                until: i64::MAX,
                refused: true,
                ..Proof::default()
            }
        };
        let Some((leaf, rest)) = chain.split_first() else {
            return Proof::default();
        };
        let facts = match facts_of_der(leaf) {
            Ok(facts) => facts,
            Err(error) => return refused(&error),
        };
        let by = |verifier: &ArcSwapOption<Verifier>| {
            let verifier = verifier.load();
            let verifier = verifier.as_ref().map(|verifier| &verifier.0);
            verifier.map(|one| one.verify_client_cert(leaf, rest, UnixTime::now()))
        };
        let (clients, proxies) = (by(&self.clients), by(&self.proxies));
        let is_good = |verified: &Option<Result<_, _>>| matches!(verified, Some(Ok(_)));
        let (is_user, is_proxy) = (is_good(&clients), is_good(&proxies));
        if !is_user && !is_proxy {
            return match clients.or(proxies) {
                Some(Err(error)) => refused(&error),
                _ => refused(&"no authority of clients is known"),
            };
        }
        let user = match (is_user, facts.uids.as_slice(), facts.common_name.as_str()) {
            (false, ..) | (_, _, "") => None,
            (_, [] | [_], name) => {
                let groups: Vec<&str> = facts.organizations.iter().map(String::as_str).collect();
                let mut user = Identity::user(name, &groups);
                user.uid = facts.uids.first().cloned().unwrap_or_default();
                if facts.uids.len() == 1 && user.uid.is_empty() {
                    return refused(&"UID cannot be an empty string");
                }
                user.extra = BTreeMap::from([credential(leaf)]);
                Some(user)
            }
            (_, many, _) => {
                return refused(&format!("expected 1 UID, but found multiple: {many:?}"));
            }
        };
        Proof {
            generation,
            until: facts.not_after,
            user,
            proxy: is_proxy.then_some(facts.common_name),
            refused: false,
        }
    }
}

fn credential(leaf: &[u8]) -> (String, Vec<String>) {
    let fingerprint = digest(&SHA256, leaf);
    let digits = fingerprint
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"));
    let digits: String = digits.collect();
    (
        "authentication.kubernetes.io/credential-id".to_owned(),
        vec![format!("X509SHA256={digits}")],
    )
}

fn verifier(pem: &str) -> Result<Option<Arc<Verifier>>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate)?;
    }
    if roots.is_empty() {
        return Ok(None);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    Ok(Some(Arc::new(Verifier(verifier.build()?))))
}

impl Peer {
    /// The end of a connection on which this chain was shown, its own certificate first.
    pub fn new(chain: Vec<CertificateDer<'static>>) -> Peer {
        Peer {
            chain,
            known: ArcSwap::default(),
        }
    }
}
