//! Certificate authorities and what they sign.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    PKCS_RSA_SHA256, SigningKey,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use crate::csr::{self, CsrError};
use crate::der;

/// How long authorities live.
pub const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How long everything else lives.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long before its end a certificate is issued anew.
pub const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How far clocks of peers may lag behind ours.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// A certificate and its key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    pub cert_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair")
            .field("cert_pem", &self.cert_pem)
            .finish_non_exhaustive()
    }
}

/// What a certificate is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Client,
    Server,
    Both,
}

/// Who a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    pub common_name: &'a str,
    pub organizations: &'a [&'a str],
    /// IP addresses and DNS names.
    pub hosts: BTreeSet<String>,
    pub usage: Usage,
}

/// A certificate that cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("certificate or key: {0}")]
    Make(#[from] rcgen::Error),
    #[error("certificate cannot be read: {0}")]
    Read(String),
    #[error("a certificate can name two organizations at most")]
    Organizations,
}

/// The object identifier under which a client certificate names its user's uid.
const UID: &str = "1.3.6.1.4.1.57683.2";

/// A certificate authority with its key.
pub struct Authority {
    cert_pem: String,
    key_id: Vec<u8>,
    not_after: i64,
    /// DER of the authority's name, as certificates name their issuer.
    subject: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// What one needs to know of an existing certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub common_name: String,
    pub organizations: Vec<String>,
    /// The uids of the user; there should be one at most.
    pub uids: Vec<String>,
    pub hosts: BTreeSet<String>,
    /// Unix seconds.
    pub not_before: i64,
    pub not_after: i64,
    /// DER of the public key.
    pub public_key: Vec<u8>,
    /// Key identifiers of the holder and of the signer.
    pub key_id: Vec<u8>,
    pub signer_id: Vec<u8>,
    /// DER of the holder's name.
    pub subject: Vec<u8>,
}

impl Facts {
    /// Whether the certificate still lives for [`RENEW_BEFORE`].
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        let margin = i64::try_from(RENEW_BEFORE.as_secs()).unwrap_or(i64::MAX);
        self.not_after.saturating_sub(margin) > now.as_second()
    }
}

impl Authority {
    /// An authority of this name from its key; the same key always gives the same authority,
    /// so that a renewed certificate leaves what was signed before valid.
    pub fn create(common_name: &str, key_pem: &str) -> Result<Authority, CertificateError> {
        let key = KeyPair::from_pem(key_pem)?;
        let mut params = params(common_name, &[], AUTHORITY_LIFETIME)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::KeyCertSign,
        ];
        let cert_pem = params.self_signed(&key)?.pem();
        Authority::open(cert_pem, key_pem)
    }

    /// An authority whose certificate and key exist.
    pub fn open(cert_pem: String, key_pem: &str) -> Result<Authority, CertificateError> {
        let key = KeyPair::from_pem(key_pem)?;
        let facts = facts(&cert_pem)?;
        if facts.public_key != rcgen::PublicKeyData::subject_public_key_info(&key) {
            return Err(CertificateError::Read(
                "the key does not belong to it".into(),
            ));
        }
        Ok(Authority {
            issuer: Issuer::from_ca_cert_pem(&cert_pem, key)?,
            key_id: facts.key_id,
            not_after: facts.not_after,
            subject: facts.subject,
            cert_pem,
        })
    }

    /// The authority's own certificate.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// Signs a certificate for a new key.
    pub fn issue(&self, subject: &Subject<'_>) -> Result<Pair, CertificateError> {
        let mut params = params(subject.common_name, subject.organizations, LEAF_LIFETIME)?;
        params.subject_alt_names =
            CertificateParams::new(subject.hosts.iter().cloned().collect::<Vec<_>>())?
                .subject_alt_names;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        let (client, server) = (
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        );
        params.extended_key_usages = match subject.usage {
            Usage::Client => vec![client],
            Usage::Server => vec![server],
            Usage::Both => vec![server, client],
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Pair {
            cert_pem: params.signed_by(&key, &self.issuer)?.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// The certificate (PEM) that answers a signing request: its subject, names and key, for these
    /// usages.
    pub fn sign(
        &self,
        request: &csr::Request,
        usages: &[String],
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<String, CsrError> {
        request.verify()?;
        let (begin, end) = csr::validity(lifetime, now, self.not_after)?;
        let extensions = csr::extensions(request, usages, &self.key_id)?;
        let algorithm = self.algorithm()?;
        let body = der::sequence(&[
            &der::explicit(0, &der::integer(&[2])),
            &der::integer(&rand_serial()),
            &algorithm,
            &self.subject,
            &der::sequence(&[&der::time(begin), &der::time(end)]),
            &request.subject,
            &request.public_key,
            &extensions,
        ]);
        let signature = self.issuer.key().sign(&body);
        let signature = signature.map_err(|error| CsrError::Sign(error.to_string()))?;
        let whole = der::sequence(&[&body, &algorithm, &der::bit_string(&signature)]);
        Ok(pem("CERTIFICATE", &whole))
    }

    /// The identifier of how we sign.
    fn algorithm(&self) -> Result<Vec<u8>, CsrError> {
        let key = self.issuer.key();
        let known: [(_, &[u64], bool); 4] = [
            (&PKCS_ECDSA_P256_SHA256, &[1, 2, 840, 10045, 4, 3, 2], false),
            (&PKCS_ECDSA_P384_SHA384, &[1, 2, 840, 10045, 4, 3, 3], false),
            (&PKCS_RSA_SHA256, &[1, 2, 840, 113_549, 1, 1, 11], true),
            (&PKCS_ED25519, &[1, 3, 101, 112], false),
        ];
        let found = known
            .into_iter()
            .find(|(algorithm, ..)| key.algorithm() == *algorithm);
        let (_, oid, has_null) = found
            .ok_or_else(|| CsrError::Sign("the authority's key is of no known kind".into()))?;
        let null: &[u8] = if has_null { &[5, 0] } else { &[] };
        Ok(der::sequence(&[&der::oid(oid), null]))
    }

    /// Whether `pair` is ours, fresh and says what `subject` asks for.
    pub fn vouches(&self, pair: &Pair, subject: &Subject<'_>, now: Timestamp) -> bool {
        let (Ok(facts), Ok(key)) = (facts(&pair.cert_pem), KeyPair::from_pem(&pair.key_pem)) else {
            return false;
        };
        facts.public_key == rcgen::PublicKeyData::subject_public_key_info(&key)
            && facts.signer_id == self.key_id
            && facts.common_name == subject.common_name
            && facts.organizations == subject.organizations
            && facts.hosts == subject.hosts
            && facts.is_fresh(now)
    }
}

/// A new private key (ECDSA P-256, PKCS #8, PEM).
pub fn new_key() -> Result<String, CertificateError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_pem())
}

/// A new key and the signing request for it (both PEM), as a kubelet sends one to get in. The
/// subject's usage is the request's to ask for.
pub fn request(subject: &Subject<'_>) -> Result<(String, String), CertificateError> {
    let mut params = params(subject.common_name, subject.organizations, LEAF_LIFETIME)?;
    params.subject_alt_names =
        CertificateParams::new(subject.hosts.iter().cloned().collect::<Vec<_>>())?
            .subject_alt_names;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok((params.serialize_request(&key)?.pem()?, key.serialize_pem()))
}

/// Positive, and of 127 random bits.
fn rand_serial() -> [u8; 16] {
    let mut serial = uuid::Uuid::new_v4().into_bytes();
    if let Some(first) = serial.first_mut() {
        *first &= 0x7f;
    }
    serial
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

/// What the first certificate in `pem` says.
pub fn facts(pem: &str) -> Result<Facts, CertificateError> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| CertificateError::Read(error.to_string()))?;
    facts_of_der(&der)
}

/// What a certificate says.
pub fn facts_of_der(der: &[u8]) -> Result<Facts, CertificateError> {
    let (_, cert) = X509Certificate::from_der(der)
        .map_err(|error| CertificateError::Read(error.to_string()))?;
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        attribute.as_str().unwrap_or_default().to_owned()
    };
    let mut facts = Facts {
        common_name: cert
            .subject()
            .iter_common_name()
            .next()
            .map(text)
            .unwrap_or_default(),
        organizations: cert.subject().iter_organization().map(text).collect(),
        uids: cert
            .subject()
            .iter_attributes()
            .filter(|attribute| attribute.attr_type().to_id_string() == UID)
            .map(text)
            .collect(),
        hosts: BTreeSet::new(),
        not_before: cert.validity().not_before.timestamp(),
        not_after: cert.validity().not_after.timestamp(),
        public_key: cert.public_key().raw.to_vec(),
        key_id: Vec::new(),
        signer_id: Vec::new(),
        subject: cert.subject().as_raw().to_vec(),
    };
    for extension in cert.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                facts.hosts = names.general_names.iter().filter_map(host).collect();
            }
            ParsedExtension::SubjectKeyIdentifier(id) => facts.key_id = id.0.to_vec(),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                facts.signer_id = id
                    .key_identifier
                    .as_ref()
                    .map(|id| id.0.to_vec())
                    .unwrap_or_default();
            }
            _ => {}
        }
    }
    Ok(facts)
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four: Result<[u8; 4], _> = (*bytes).try_into();
            let sixteen: Result<[u8; 16], _> = (*bytes).try_into();
            let address = four
                .map(IpAddr::from)
                .or_else(|_| sixteen.map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

fn params(
    common_name: &str,
    organizations: &[&str],
    lifetime: Duration,
) -> Result<CertificateParams, CertificateError> {
    // rcgen holds one value per attribute type; the second organization goes under the same
    // object identifier spelled out.
    let types = [
        DnType::OrganizationName,
        DnType::CustomDnType(vec![2, 5, 4, 10]),
    ];
    if organizations.len() > types.len() {
        return Err(CertificateError::Organizations);
    }
    let mut name = DistinguishedName::new();
    for (kind, organization) in types.into_iter().zip(organizations) {
        name.push(kind, *organization);
    }
    name.push(DnType::CommonName, common_name);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(u64::try_from(Timestamp::now().as_second()).unwrap_or_default());
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + now + lifetime;
    Ok(params)
}
