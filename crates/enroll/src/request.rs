//! One certificate signing request, from the key to the certificate.

use std::collections::BTreeSet;
use std::time::Duration;

use auth::certificate::Pair;
use auth::csr;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use client::Client;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha512_256};

use crate::Error;

/// Who signs, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signing {
    pub signer: &'static str,
    pub usages: [&'static str; 2],
}

/// Of a kubelet as a client of the API server.
pub const CLIENT: Signing = Signing {
    signer: csr::KUBE_APISERVER_CLIENT_KUBELET,
    usages: ["digital signature", "client auth"],
};

/// Of a kubelet's server.
pub const SERVING: Signing = Signing {
    signer: csr::KUBELET_SERVING,
    usages: ["digital signature", "server auth"],
};

/// Whom the certificate is to name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub common_name: String,
    /// IP addresses and DNS names.
    pub hosts: BTreeSet<String>,
}

impl Template {
    /// A node.
    pub fn of_node(name: &str, hosts: BTreeSet<String>) -> Template {
        Template {
            common_name: format!("system:node:{name}"),
            hosts,
        }
    }
}

/// The group of all nodes.
pub(crate) const NODES: &str = "system:nodes";

/// A new private key (ECDSA P-256, PKCS #8, PEM).
pub(crate) fn new_key() -> Result<String, Error> {
    Ok(KeyPair::generate()?.serialize_pem())
}

/// Asks for a certificate and waits until it is there, or until nobody will give it. `name` is the
/// request's, where asking again shall find the same one.
pub async fn certificate(
    client: &Client,
    signing: Signing,
    template: &Template,
    key_pem: &str,
    name: Option<String>,
    patience: Duration,
) -> Result<Pair, Error> {
    let key = KeyPair::from_pem(key_pem)?;
    let mut params = CertificateParams::new(template.hosts.iter().cloned().collect::<Vec<_>>())?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, NODES);
    subject.push(DnType::CommonName, &template.common_name);
    params.distinguished_name = subject;
    let pem = params.serialize_request(&key)?.pem()?;
    let asked = create(client, signing, pem, name, &key).await?;
    let waiting = answer(client, &asked);
    let cert = tokio::time::timeout(patience, waiting).await;
    let cert_pem = cert.map_err(|_| Error::TimedOut)??;
    Ok(Pair {
        cert_pem,
        key_pem: key_pem.to_owned(),
    })
}

/// The name by which the same key asks for the same.
pub(crate) fn digested_name(
    signing: Signing,
    template: &Template,
    key_pem: &str,
) -> Result<String, Error> {
    let key = KeyPair::from_pem(key_pem)?.subject_public_key_info();
    let mut hash = Sha512_256::new();
    let parts = [
        key.as_slice(),
        template.common_name.as_bytes(),
        NODES.as_bytes(),
    ];
    for part in parts
        .into_iter()
        .chain(signing.usages.iter().map(|usage| usage.as_bytes()))
    {
        hash.update(URL_SAFE_NO_PAD.encode(part));
        hash.update(b"|");
    }
    Ok(format!(
        "node-csr-{}",
        URL_SAFE_NO_PAD.encode(hash.finalize())
    ))
}

async fn create(
    client: &Client,
    signing: Signing,
    pem: String,
    name: Option<String>,
    key: &KeyPair,
) -> Result<CertificateSigningRequest, Error> {
    let requests = client.all::<CertificateSigningRequest>();
    let request = CertificateSigningRequest {
        metadata: ObjectMeta {
            generate_name: name.is_none().then(|| "csr-".into()),
            name: name.clone(),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.into_bytes()),
            signer_name: signing.signer.into(),
            usages: Some(signing.usages.map(str::to_owned).to_vec()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    match (requests.create(&request).await, name) {
        (Ok(made), _) => Ok(made),
        (Err(status), Some(name)) if status.is_already_exists() => {
            let known = requests.get(&name).await.map_err(Error::Api)?;
            compatible(&known, signing, key)?;
            Ok(known)
        }
        (Err(status), _) => Err(Error::Api(status)),
    }
}

/// Whether a request that is there already asks for what we want, with our key.
fn compatible(
    known: &CertificateSigningRequest,
    signing: Signing,
    key: &KeyPair,
) -> Result<(), Error> {
    if known.spec.signer_name != signing.signer {
        return Err(Error::Foreign("csr signerNames differ"));
    }
    let asked = CertificateSigningRequestDer::from_pem_slice(&known.spec.request.0)
        .map_err(|_| Error::Foreign("unable to parse existing csr"))?;
    // A public key is long and random: where its encoding stands, it is meant.
    let own = key.subject_public_key_info();
    match asked.windows(own.len()).any(|part| part == own) {
        true => Ok(()),
        false => Err(Error::Foreign("csr public key does not match")),
    }
}

async fn answer(client: &Client, asked: &CertificateSigningRequest) -> Result<String, Error> {
    let name = asked.metadata.name.clone().unwrap_or_default();
    let requests = client.all::<CertificateSigningRequest>();
    let decided = |one: &CertificateSigningRequest| {
        one.metadata.uid != asked.metadata.uid || outcome(one).is_some()
    };
    let answered = requests.until(&name, decided).await.map_err(Error::Api)?;
    if answered.metadata.uid != asked.metadata.uid {
        return Err(Error::Replaced(name));
    }
    outcome(&answered).unwrap_or(Err(Error::Replaced(name)))
}

/// What came of a request, as soon as it is known.
fn outcome(request: &CertificateSigningRequest) -> Option<Result<String, Error>> {
    let status = request.status.as_ref()?;
    let mut approved = false;
    for condition in status.conditions.iter().flatten() {
        let reason = condition.reason.clone().unwrap_or_default();
        let message = condition.message.clone().unwrap_or_default();
        match condition.type_.as_str() {
            "Denied" => return Some(Err(Error::Denied { reason, message })),
            "Failed" => return Some(Err(Error::Failed { reason, message })),
            "Approved" => approved = true,
            _ => {}
        }
    }
    let certificate = status
        .certificate
        .as_ref()
        .filter(|bytes| !bytes.0.is_empty())?;
    approved.then(|| {
        let text = String::from_utf8(certificate.0.clone());
        text.map_err(|error| Error::Pair(error.to_string()))
    })
}
