//! The first certificate of a node: asked for with the credentials of a bootstrap kubeconfig,
//! kept, and named in a kubeconfig of the node's own.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use auth::certificate::{Pair, facts};
use base::Backoff;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Access, Client};
use jiff::Timestamp;

use crate::request::{self, CLIENT, Template};
use crate::store::{at, checked, split};
use crate::{Error, PairStore};

/// The key of a certificate that is asked for, until it is there.
const KEY_FILE: &str = "kubelet-client.key.tmp";
/// How long somebody may take to let the node in.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// How a node gets in.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    pub node_name: String,
    /// The kubeconfig with a bootstrap token.
    pub bootstrap: PathBuf,
    /// The kubeconfig that is written.
    pub kubeconfig: PathBuf,
    /// Where certificates are kept.
    pub folder: PathBuf,
}

/// Whether a kubeconfig is there whose certificate has not ended.
pub fn is_still_valid(kubeconfig: &Path) -> bool {
    let Ok(access) = client::kubeconfig::load(kubeconfig, None) else {
        return false;
    };
    let Some(pair) = pair_of(&access) else {
        return false;
    };
    match facts(&pair.cert_pem) {
        Ok(facts) if facts.not_after > Timestamp::now().as_second() => true,
        Ok(_) => {
            let path = kubeconfig.display();
            tracing::error!(%path, "the client certificate of the kubeconfig has expired");
            false
        }
        Err(_) => false,
    }
}

/// The certificate of a kubeconfig.
pub(crate) fn pair_of(access: &Access) -> Option<Pair> {
    let (cert, key) = access.certificate.clone()?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
    // Both may name one file that holds both.
    let (cert_pem, _) = split(&text(cert)?);
    let (_, key_pem) = split(&text(key)?);
    checked(Pair { cert_pem, key_pem }).ok()
}

/// The same access with another certificate.
pub fn access_of(access: &Access, pair: &Pair) -> Access {
    Access {
        certificate: Some((
            pair.cert_pem.clone().into_bytes(),
            pair.key_pem.clone().into_bytes(),
        )),
        token: None,
        ..access.clone()
    }
}

impl Bootstrap {
    /// Gets a certificate, unless the kubeconfig has one. Waits for the server, and for whoever
    /// approves.
    pub async fn run(&self) -> Result<(), Error> {
        if is_still_valid(&self.kubeconfig) {
            tracing::debug!("kubeconfig exists and is valid, skipping bootstrap");
            return Ok(());
        }
        let access = client::kubeconfig::load(&self.bootstrap, None)?;
        let client = Client::remote(&access)?;
        let store = PairStore::open(&self.folder, "kubelet-client")?;
        fs::create_dir_all(&self.folder).map_err(at(&self.folder))?;
        let key_path = self.folder.join(KEY_FILE);
        let key = match store.current().ok().flatten() {
            Some(pair) => pair.key_pem,
            None => load_or_make_key(&key_path)?,
        };
        let template = Template::of_node(&self.node_name, BTreeSet::new());
        let name = request::digested_name(CLIENT, &template, &key)?;
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        let pair = loop {
            let name = Some(name.clone());
            let asked = request::certificate(&client, CLIENT, &template, &key, name, PATIENCE);
            match asked.await {
                Ok(pair) => break pair,
                // The server may come later than we, and so may the right to ask.
                Err(Error::Api(status)) => {
                    tracing::warn!(error = %status, "no certificate yet");
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(backoff.next_delay()).await;
        };
        store.update(&pair)?;
        if let Err(error) = fs::remove_file(&key_path) {
            tracing::debug!(%error, "no private key to clean up");
        }
        let text = kubeconfig(&access, &store.current_path());
        let written = base::files::write_atomic(&self.kubeconfig, text.as_bytes(), 0o600);
        written.map_err(at(&self.kubeconfig))
    }
}

fn load_or_make_key(path: &Path) -> Result<String, Error> {
    if let Ok(key) = fs::read_to_string(path)
        && rcgen::KeyPair::from_pem(&key).is_ok()
    {
        return Ok(key);
    }
    let key = request::new_key()?;
    let mut options = fs::OpenOptions::new();
    let opened = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    let written = opened.and_then(|mut file| {
        file.write_all(key.as_bytes())?;
        file.sync_all()
    });
    written.map_err(at(path))?;
    Ok(key)
}

/// Names the certificate by the link to it, so that a new one counts at the next start.
fn kubeconfig(access: &Access, pem: &Path) -> String {
    let quoted = |text: &str| format!("{text:?}");
    let (server, pem) = (quoted(&access.server), quoted(&pem.display().to_string()));
    let trust = match (&access.ca, access.insecure) {
        (_, true) => "insecure-skip-tls-verify: true".to_owned(),
        (Some(ca), false) => format!("certificate-authority-data: {}", STANDARD.encode(ca)),
        (None, false) => "insecure-skip-tls-verify: false".to_owned(),
    };
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: default-cluster\n  \
           cluster:\n    \
             server: {server}\n    \
             {trust}\n\
         users:\n\
         - name: default-auth\n  \
           user:\n    \
             client-certificate: {pem}\n    \
             client-key: {pem}\n\
         contexts:\n\
         - name: default-context\n  \
           context:\n    \
             cluster: default-cluster\n    \
             namespace: default\n    \
             user: default-auth\n\
         current-context: default-context\n\
         preferences: {{}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation::tests::pair;

    #[test]
    fn the_kubeconfig_follows_the_link() {
        let folder = tempfile::tempdir().unwrap();
        let store = PairStore::open(folder.path(), "kubelet-client").unwrap();
        let access = Access {
            server: "https://127.0.0.1:6443".into(),
            ca: Some(b"ca".to_vec()),
            token: Some("id.secret".into()),
            ..Access::default()
        };
        let path = folder.path().join("kubeconfig");
        fs::write(&path, kubeconfig(&access, &store.current_path())).unwrap();
        assert!(!is_still_valid(&path));
        for made in [pair(86_400), pair(2 * 86_400)] {
            store.update(&made).unwrap();
            assert!(is_still_valid(&path));
            let read = client::kubeconfig::load(&path, None).unwrap();
            assert_eq!(
                (read.server.as_str(), read.token.as_deref()),
                ("https://127.0.0.1:6443", None)
            );
            assert_eq!(read.ca.as_deref(), Some(&b"ca"[..]));
            assert_eq!(pair_of(&read), Some(made.clone()));
            assert_eq!(pair_of(&access_of(&access, &made)), Some(made));
        }
        store.update(&pair(-3 * 86_400)).unwrap();
        assert!(!is_still_valid(&path));
    }
}
