//! The folder with the cluster's keys and certificates, laid out as kubeadm has it.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rcgen::KeyPair;

use crate::certificate::{self, Authority, CertificateError, Pair, Subject, Usage};
use crate::tls::{ClientCertificate, TlsError};
use crate::token::{TokenError, TokenSigner};

/// Names under which every API server is reached, besides those the user gives.
pub const SERVER_HOSTS: [&str; 8] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
    "127.0.0.1",
    "::1",
    "10.96.0.1",
];

/// Keys are nobody else's business.
const MODE: u32 = 0o600;

/// A folder of keys that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error("{path}: {error}")]
    Certificate {
        path: PathBuf,
        error: CertificateError,
    },
    #[error("{0}: the certificate is here but its key is not; restore the key or remove both")]
    KeyMissing(PathBuf),
    #[error("cannot issue a certificate: {0}")]
    Issue(#[from] CertificateError),
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("{path}: {error}")]
    SigningKey { path: PathBuf, error: TokenError },
}

/// A pair that [`Pki`] keeps for the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    Serving,
    Admin,
    FrontProxyClient,
}

/// The cluster's keys and certificates.
pub struct Pki {
    dir: PathBuf,
    hosts: BTreeSet<String>,
    authority: Arc<Authority>,
    front_proxy: Authority,
    serving: Pair,
    admin: Pair,
    front_proxy_client: Pair,
    shown_to_servers: Arc<ClientCertificate>,
    shown_to_kubelets: Arc<ClientCertificate>,
    signing_key: String,
    signing_path: PathBuf,
}

impl Pki {
    /// Opens the folder, creating what is missing and issuing anew what is about to expire or
    /// does not name all `hosts` (IP addresses and DNS names under which the server is reached).
    /// Authorities keep their keys for ever.
    pub fn open(dir: &Path, hosts: &[String]) -> Result<Pki, PkiError> {
        std::fs::create_dir_all(dir).map_err(|error| at(dir, error))?;
        let now = Timestamp::now();
        let authority = authority(dir, "ca", "kubernetes", now)?;
        let front_proxy = authority_of_front_proxy(dir, now)?;
        let hosts = all_hosts(hosts);
        let serving = server(&hosts);
        let admin = client("kubernetes-admin", &["system:masters"]);
        let proxy = client("front-proxy-client", &[]);
        let (signing_key, signing_path) = signing_key(dir)?;
        let proxy_pair = leaf(dir, "front-proxy-client", &front_proxy, &proxy, now)?;
        let kubelet_pair = authority.issue(&kubelet_client())?;
        Ok(Pki {
            shown_to_servers: Arc::new(ClientCertificate::new(&proxy_pair)?),
            shown_to_kubelets: Arc::new(ClientCertificate::new(&kubelet_pair)?),
            front_proxy_client: proxy_pair,
            dir: dir.to_owned(),
            serving: leaf(dir, "apiserver", &authority, &serving, now)?,
            admin: leaf(dir, "admin", &authority, &admin, now)?,
            authority: Arc::new(authority),
            front_proxy,
            signing_key,
            signing_path,
            hosts,
        })
    }

    /// A pair as it should be at `now`: one that ends soon is issued anew, in its files too.
    pub fn renewed(&self, which: Own, now: Timestamp) -> Result<Pair, PkiError> {
        let (stem, authority, subject) = match which {
            Own::Serving => ("apiserver", &*self.authority, server(&self.hosts)),
            Own::Admin => {
                let subject = client("kubernetes-admin", &["system:masters"]);
                ("admin", &*self.authority, subject)
            }
            Own::FrontProxyClient => {
                let subject = client("front-proxy-client", &[]);
                ("front-proxy-client", &self.front_proxy, subject)
            }
        };
        leaf(&self.dir, stem, authority, &subject, now)
    }

    /// The certificate that other API servers are shown; it may be replaced.
    pub fn shown_to_servers(&self) -> &Arc<ClientCertificate> {
        &self.shown_to_servers
    }

    /// The certificate that kubelets know the API server by; it may be replaced.
    pub fn shown_to_kubelets(&self) -> &Arc<ClientCertificate> {
        &self.shown_to_kubelets
    }

    /// A new pair for [`Pki::shown_to_kubelets`], which is in no file.
    pub fn new_kubelet_client(&self) -> Result<Pair, PkiError> {
        Ok(self.authority.issue(&kubelet_client())?)
    }

    /// The cluster's authority: signs servers and clients.
    pub fn ca_pem(&self) -> &str {
        self.authority.cert_pem()
    }

    /// What signs servers and clients.
    pub fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.authority)
    }

    /// The authority that client certificates must come from.
    pub fn client_ca_pem(&self) -> &str {
        self.authority.cert_pem()
    }

    /// The authority behind `X-Remote-User` headers.
    pub fn front_proxy_ca_pem(&self) -> &str {
        self.front_proxy.cert_pem()
    }

    /// What the aggregator shows to extension servers.
    pub fn front_proxy_client(&self) -> &Pair {
        &self.front_proxy_client
    }

    /// The API server's own certificate.
    pub fn serving(&self) -> &Pair {
        &self.serving
    }

    /// `kubernetes-admin` in `system:masters`.
    pub fn admin(&self) -> &Pair {
        &self.admin
    }

    /// The signer of service account tokens; `issuer` also is the default audience.
    pub fn token_signer(&self, issuer: &str) -> Result<TokenSigner, PkiError> {
        TokenSigner::new(&self.signing_key, issuer).map_err(|error| PkiError::SigningKey {
            path: self.signing_path.clone(),
            error,
        })
    }

    /// A client certificate and its key, PEM. At most two organizations (groups).
    pub fn issue_client(
        &self,
        common_name: &str,
        organizations: &[&str],
    ) -> Result<Pair, PkiError> {
        Ok(self.authority.issue(&client(common_name, organizations))?)
    }

    /// A serving certificate, as a kubelet has for its own port.
    pub fn issue_serving(
        &self,
        common_name: &str,
        organizations: &[&str],
        hosts: &[String],
    ) -> Result<Pair, PkiError> {
        Ok(self.authority.issue(&Subject {
            common_name,
            organizations,
            hosts: hosts.iter().map(|host| canonical(host)).collect(),
            usage: Usage::Server,
        })?)
    }

    /// A pair in the files `<stem>.crt` and `<stem>.key` of `dir`, made or renewed as it should
    /// be at `now`: what [`Pki::issue_client`] and [`Pki::issue_serving`] give, but kept over
    /// restarts.
    pub fn keep(
        &self,
        dir: &Path,
        stem: &str,
        subject: &Subject<'_>,
        now: Timestamp,
    ) -> Result<Pair, PkiError> {
        std::fs::create_dir_all(dir).map_err(|error| at(dir, error))?;
        leaf(dir, stem, &self.authority, subject, now)
    }
}

fn server(hosts: &BTreeSet<String>) -> Subject<'static> {
    Subject {
        common_name: "kube-apiserver",
        organizations: &[],
        hosts: hosts.clone(),
        usage: Usage::Server,
    }
}

fn kubelet_client() -> Subject<'static> {
    client("kube-apiserver-kubelet-client", &["system:masters"])
}

fn client<'a>(common_name: &'a str, organizations: &'a [&'a str]) -> Subject<'a> {
    Subject {
        common_name,
        organizations,
        hosts: BTreeSet::new(),
        usage: Usage::Client,
    }
}

fn all_hosts(given: &[String]) -> BTreeSet<String> {
    let fixed = SERVER_HOSTS.into_iter();
    fixed
        .chain(given.iter().map(String::as_str))
        .map(canonical)
        .collect()
}

/// One spelling per address, so that comparing with an existing certificate works.
fn canonical(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => host.to_ascii_lowercase(),
    }
}

fn authority_of_front_proxy(dir: &Path, now: Timestamp) -> Result<Authority, PkiError> {
    authority(dir, "front-proxy-ca", "front-proxy-ca", now)
}

fn authority(dir: &Path, stem: &str, name: &str, now: Timestamp) -> Result<Authority, PkiError> {
    let (cert_path, key_path) = paths(dir, stem);
    let bad = |error| PkiError::Certificate {
        path: cert_path.clone(),
        error,
    };
    let key = match (read(&cert_path)?, read(&key_path)?) {
        (Some(cert), Some(key)) => {
            if certificate::facts(&cert).map_err(bad)?.is_fresh(now) {
                return Authority::open(cert, &key).map_err(bad);
            }
            key
        }
        (Some(_), None) => return Err(PkiError::KeyMissing(cert_path)),
        (None, Some(key)) => key,
        (None, None) => {
            let key = certificate::new_key()?;
            write(&key_path, &key)?;
            key
        }
    };
    let made = Authority::create(name, &key).map_err(bad)?;
    write(&cert_path, made.cert_pem())?;
    Ok(made)
}

/// A pair that `authority` vouches for. The key is written first: a crash in between leaves a
/// pair that does not fit together and is made anew.
fn leaf(
    dir: &Path,
    stem: &str,
    authority: &Authority,
    subject: &Subject<'_>,
    now: Timestamp,
) -> Result<Pair, PkiError> {
    let (cert_path, key_path) = paths(dir, stem);
    if let (Some(cert_pem), Some(key_pem)) = (read(&cert_path)?, read(&key_path)?) {
        let pair = Pair { cert_pem, key_pem };
        if authority.vouches(&pair, subject, now) {
            return Ok(pair);
        }
        tracing::info!(path = %cert_path.display(), "issuing the certificate anew");
    }
    let pair = authority.issue(subject)?;
    write(&key_path, &pair.key_pem)?;
    write(&cert_path, &pair.cert_pem)?;
    Ok(pair)
}

fn signing_key(dir: &Path) -> Result<(String, PathBuf), PkiError> {
    let path = dir.join("sa.key");
    let key_pem = match read(&path)? {
        Some(key) => key,
        None => {
            let key = certificate::new_key()?;
            write(&path, &key)?;
            key
        }
    };
    let key = KeyPair::from_pem(&key_pem).map_err(|error| PkiError::Certificate {
        path: path.clone(),
        error: error.into(),
    })?;
    let (public_path, public) = (dir.join("sa.pub"), key.public_key_pem());
    if read(&public_path)?.as_ref() != Some(&public) {
        write(&public_path, &public)?;
    }
    Ok((key_pem, path))
}

fn paths(dir: &Path, stem: &str) -> (PathBuf, PathBuf) {
    (
        dir.join(format!("{stem}.crt")),
        dir.join(format!("{stem}.key")),
    )
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path, error)),
    }
}

fn write(path: &Path, text: &str) -> Result<(), PkiError> {
    base::files::write_atomic(path, text.as_bytes(), MODE).map_err(|error| at(path, error))
}

fn at(path: &Path, error: io::Error) -> PkiError {
    PkiError::File {
        path: path.into(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::certificate::facts;

    fn open(dir: &Path, hosts: &[&str]) -> Pki {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        Pki::open(dir, &hosts).unwrap()
    }

    #[test]
    fn what_was_made_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), &["192.0.2.7"]);
        let second = open(dir.path(), &["192.0.2.7"]);
        assert_eq!(first.ca_pem(), second.ca_pem());
        assert_eq!(first.serving(), second.serving());
        assert_eq!(first.admin(), second.admin());
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", entry.path());
        }
    }

    #[test]
    fn a_new_host_renews_the_serving_certificate_only() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), &[]);
        let second = open(dir.path(), &["Node.Example", "2001:DB8::0:1"]);
        assert_eq!(first.ca_pem(), second.ca_pem());
        assert_eq!(first.admin(), second.admin());
        let hosts = facts(&second.serving().cert_pem).unwrap().hosts;
        for host in SERVER_HOSTS
            .into_iter()
            .chain(["node.example", "2001:db8::1"])
        {
            assert!(hosts.contains(host), "{host} is not in {hosts:?}");
        }
        assert_eq!(hosts.len(), SERVER_HOSTS.len() + 2);
    }

    #[test]
    fn a_torn_pair_is_made_anew_and_a_lost_authority_key_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), &[]);
        let other = certificate::new_key().unwrap();
        std::fs::write(dir.path().join("apiserver.key"), other).unwrap();
        let second = open(dir.path(), &[]);
        assert_ne!(first.serving(), second.serving());
        std::fs::remove_file(dir.path().join("ca.key")).unwrap();
        assert!(matches!(
            Pki::open(dir.path(), &[]),
            Err(PkiError::KeyMissing(_))
        ));
    }

    #[test]
    fn another_authority_renews_what_the_old_one_signed() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), &[]);
        std::fs::remove_file(dir.path().join("ca.crt")).unwrap();
        std::fs::remove_file(dir.path().join("ca.key")).unwrap();
        let second = open(dir.path(), &[]);
        assert_ne!(first.admin(), second.admin());
    }

    #[test]
    fn issued_certificates_name_user_and_groups() {
        let dir = tempfile::tempdir().unwrap();
        let pki = open(dir.path(), &[]);
        let pair = pki.issue_client("jane", &["dev", "ops"]).unwrap();
        let facts = facts(&pair.cert_pem).unwrap();
        assert_eq!(facts.common_name, "jane");
        assert_eq!(facts.organizations, ["dev", "ops"]);
        assert!(facts.is_fresh(Timestamp::now()));
        assert!(pki.issue_client("jane", &["a", "b", "c"]).is_err());
    }

    #[test]
    fn what_ends_soon_is_issued_anew() {
        let dir = tempfile::tempdir().unwrap();
        let pki = open(dir.path(), &[]);
        let own = [
            (Own::Serving, pki.serving()),
            (Own::Admin, pki.admin()),
            (Own::FrontProxyClient, pki.front_proxy_client()),
        ];
        let mut anew = Vec::new();
        for (which, pair) in own {
            assert_eq!(pki.renewed(which, Timestamp::now()).unwrap(), *pair);
            let end = facts(&pair.cert_pem).unwrap().not_after;
            let late = Timestamp::from_second(end - 10 * 24 * 3600).unwrap();
            let renewed = pki.renewed(which, late).unwrap();
            assert_ne!(renewed, *pair);
            anew.push(renewed);
        }
        // They are in the files, under the same authorities and names.
        let again = open(dir.path(), &[]);
        let kept = [again.serving(), again.admin(), again.front_proxy_client()];
        assert_eq!(anew.iter().collect::<Vec<_>>(), kept);
        assert_eq!(again.ca_pem(), pki.ca_pem());
    }

    #[test]
    fn what_expires_soon_is_not_fresh() {
        let dir = tempfile::tempdir().unwrap();
        let facts = facts(open(dir.path(), &[]).ca_pem()).unwrap();
        let late = Timestamp::from_second(facts.not_after - 29 * 24 * 3600).unwrap();
        assert!(!facts.is_fresh(late));
    }
}
