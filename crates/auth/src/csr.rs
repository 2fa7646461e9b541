//! Certificate signing requests: what they ask for, whether a kubelet may ask for it, and the
//! certificate that answers them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::{FromDer, ParsedExtension};

use crate::der;

/// The signers that the control plane itself runs.
pub const KUBE_APISERVER_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub const KUBE_APISERVER_CLIENT_KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

/// How long a certificate lives when its request names no time, and at most.
pub const LIFETIME_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
const LIFETIME_MIN: Duration = Duration::from_secs(600);
/// How far back a certificate begins; clocks differ.
const BACKDATE: Duration = Duration::from_secs(300);
/// What lives shorter than this does not pay for the backdating at its end.
const SHORT: Duration = Duration::from_secs(8 * 3600);

/// A request that cannot be read or must not be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    NotPem,
    #[error("{0}")]
    Malformed(String),
    #[error("unable to verify certificate request signature: {0}")]
    Signature(String),
    #[error("unrecognized usage values: {0}")]
    Usages(String),
    #[error("the signer has expired: NotAfter={0}")]
    SignerExpired(String),
    #[error("failed to sign certificate: {0}")]
    Sign(String),
}

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub emails: Vec<String>,
    pub uris: Vec<String>,
    /// DER of the parts that the certificate takes over.
    pub(crate) subject: Vec<u8>,
    pub(crate) public_key: Vec<u8>,
    alternative_names: Option<Vec<u8>>,
    raw: Vec<u8>,
}

impl Request {
    /// From PEM.
    pub fn parse(pem: &[u8]) -> Result<Request, CsrError> {
        let der =
            CertificateSigningRequestDer::from_pem_slice(pem).map_err(|_| CsrError::NotPem)?;
        let malformed = |error: x509_parser::nom::Err<_>| CsrError::Malformed(error.to_string());
        let (_, csr) = X509CertificationRequest::from_der(&der).map_err(malformed)?;
        let info = &csr.certification_request_info;
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            attribute.as_str().unwrap_or_default().to_owned()
        };
        let mut request = Request {
            common_name: info
                .subject
                .iter_common_name()
                .last()
                .map(text)
                .unwrap_or_default(),
            organizations: info.subject.iter_organization().map(text).collect(),
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
            raw: der.to_vec(),
            ..Request::default()
        };
        for attribute in info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute() else {
                continue;
            };
            for extension in &asked.extensions {
                if extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME {
                    request.alternative_names = Some(extension.value.to_vec());
                }
                if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension()
                {
                    names
                        .general_names
                        .iter()
                        .for_each(|name| request.name(name));
                }
            }
        }
        Ok(request)
    }

    fn name(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::RFC822Name(name) => self.emails.push((*name).to_owned()),
            GeneralName::URI(name) => self.uris.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let four: Result<[u8; 4], _> = (*bytes).try_into();
                let sixteen: Result<[u8; 16], _> = (*bytes).try_into();
                let address = four
                    .map(IpAddr::from)
                    .or_else(|_| sixteen.map(IpAddr::from));
                self.addresses.extend(address);
            }
            _ => {}
        }
    }

    /// Whether whoever asks holds the key.
    pub fn verify(&self) -> Result<(), CsrError> {
        let malformed = |error: x509_parser::nom::Err<_>| CsrError::Malformed(error.to_string());
        let (_, csr) = X509CertificationRequest::from_der(&self.raw).map_err(malformed)?;
        csr.verify_signature()
            .map_err(|error| CsrError::Signature(error.to_string()))
    }

    /// Why this is no request for a kubelet's client certificate.
    pub fn check_kubelet_client(&self, usages: &[String]) -> Result<(), String> {
        self.check_node_organization()?;
        for (present, what) in [
            (!self.dns_names.is_empty(), "DNS"),
            (!self.emails.is_empty(), "Email"),
            (!self.addresses.is_empty(), "IP"),
            (!self.uris.is_empty(), "URI"),
        ] {
            if present {
                return Err(format!("{what} subjectAltNames are not allowed"));
            }
        }
        self.check_node_name()?;
        check_usages(usages, "client auth")
    }

    /// Why this is no request for a kubelet's serving certificate.
    pub fn check_kubelet_serving(&self, usages: &[String]) -> Result<(), String> {
        self.check_node_organization()?;
        if self.dns_names.is_empty() && self.addresses.is_empty() {
            return Err("DNS or IP subjectAltName is required".into());
        }
        if !self.emails.is_empty() {
            return Err("Email subjectAltNames are not allowed".into());
        }
        if !self.uris.is_empty() {
            return Err("URI subjectAltNames are not allowed".into());
        }
        check_usages(usages, "server auth")?;
        self.check_node_name()
    }

    fn check_node_organization(&self) -> Result<(), String> {
        match self.organizations.as_slice() {
            [one] if one == "system:nodes" => Ok(()),
            _ => Err("subject organization is not system:nodes".into()),
        }
    }

    fn check_node_name(&self) -> Result<(), String> {
        match self.common_name.starts_with("system:node:") {
            true => Ok(()),
            false => Err("subject common name does not begin with system:node:".into()),
        }
    }
}

/// Digital signature and `purpose`, with or without key encipherment.
fn check_usages(usages: &[String], purpose: &str) -> Result<(), String> {
    let given: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let all = BTreeSet::from(["digital signature", "key encipherment", purpose]);
    let without = BTreeSet::from(["digital signature", purpose]);
    match given == all || given == without {
        true => Ok(()),
        false => {
            let shown: Vec<&str> = all.into_iter().collect();
            Err(format!("usages did not match [{}]", shown.join(" ")))
        }
    }
}

/// Why these usages are not those of a client of the API server.
pub fn check_client_usages(usages: &[String]) -> Result<(), String> {
    let known = ["digital signature", "key encipherment", "client auth"];
    if let Some(foreign) = usages.iter().find(|usage| !known.contains(&usage.as_str())) {
        return Err(format!("invalid usage for client certificate: {foreign}"));
    }
    match usages.iter().any(|usage| usage == "client auth") {
        true => Ok(()),
        false => Err("missing required usage for client certificate: client auth".into()),
    }
}

/// Whether a signer answers such a request; the error is why it never will. `None`: not ours.
pub fn check(signer: &str, request: &Request, usages: &[String]) -> Option<Result<(), String>> {
    match signer {
        KUBE_APISERVER_CLIENT => Some(check_client_usages(usages)),
        KUBE_APISERVER_CLIENT_KUBELET => Some(request.check_kubelet_client(usages)),
        KUBELET_SERVING => Some(request.check_kubelet_serving(usages)),
        LEGACY_UNKNOWN => Some(Ok(())),
        _ => None,
    }
}

/// How long the certificate lives for `spec.expirationSeconds`.
pub fn lifetime(asked_seconds: Option<i64>) -> Duration {
    let asked = asked_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let asked = asked.map_or(LIFETIME_MAX, Duration::from_secs);
    asked.clamp(LIFETIME_MIN, LIFETIME_MAX)
}

/// Beginning and end of a certificate, in Unix seconds.
pub(crate) fn validity(
    lifetime: Duration,
    now: Timestamp,
    signer_end: i64,
) -> Result<(i64, i64), CsrError> {
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let (now, back) = (now.as_second(), seconds(BACKDATE));
    if now >= signer_end {
        let end = Timestamp::from_second(signer_end).unwrap_or(Timestamp::MIN);
        return Err(CsrError::SignerExpired(end.to_string()));
    }
    let end = match lifetime < SHORT {
        true => now.saturating_add(seconds(lifetime)),
        false => now.saturating_add(seconds(lifetime)) - back,
    };
    Ok((now - back, end.min(signer_end)))
}

const KEY_USAGES: [(&str, u8); 10] = [
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];

/// In the order in which Go writes them.
const EXTENDED_USAGES: [(&str, &[u64]); 13] = [
    ("any", &[2, 5, 29, 37, 0]),
    ("server auth", &[1, 3, 6, 1, 5, 5, 7, 3, 1]),
    ("client auth", &[1, 3, 6, 1, 5, 5, 7, 3, 2]),
    ("code signing", &[1, 3, 6, 1, 5, 5, 7, 3, 3]),
    ("email protection", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("s/mime", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("ipsec end system", &[1, 3, 6, 1, 5, 5, 7, 3, 5]),
    ("ipsec tunnel", &[1, 3, 6, 1, 5, 5, 7, 3, 6]),
    ("ipsec user", &[1, 3, 6, 1, 5, 5, 7, 3, 7]),
    ("timestamping", &[1, 3, 6, 1, 5, 5, 7, 3, 8]),
    ("ocsp signing", &[1, 3, 6, 1, 5, 5, 7, 3, 9]),
    ("microsoft sgc", &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
    ("netscape sgc", &[2, 16, 840, 1, 113_730, 4, 1]),
];

/// The extensions of a certificate for these usages, signed by the holder of `signer_key_id`.
pub(crate) fn extensions(
    request: &Request,
    usages: &[String],
    signer_key_id: &[u8],
) -> Result<Vec<u8>, CsrError> {
    let known = |usage: &&String| {
        KEY_USAGES.iter().any(|(name, _)| name == usage)
            || EXTENDED_USAGES.iter().any(|(name, _)| name == usage)
    };
    let foreign: Vec<&String> = usages.iter().filter(|usage| !known(usage)).collect();
    if !foreign.is_empty() {
        return Err(CsrError::Usages(format!("{foreign:?}").replace(", ", " ")));
    }
    let asked = |name: &str| usages.iter().any(|usage| usage == name);
    let mut list = Vec::new();
    let bits = KEY_USAGES.iter().filter(|(name, _)| asked(name));
    let bits: Vec<u8> = bits.map(|(_, bit)| *bit).collect();
    if !bits.is_empty() {
        list.push(extension(&[2, 5, 29, 15], true, &der::flags(&bits)));
    }
    let purposes = EXTENDED_USAGES.iter().filter(|(name, _)| asked(name));
    let mut purposes: Vec<Vec<u8>> = purposes.map(|(_, oid)| der::oid(oid)).collect();
    purposes.dedup();
    if !purposes.is_empty() {
        let purposes: Vec<&[u8]> = purposes.iter().map(Vec::as_slice).collect();
        list.push(extension(&[2, 5, 29, 37], false, &der::sequence(&purposes)));
    }
    // No authority: an empty sequence is a false.
    list.push(extension(&[2, 5, 29, 19], true, &der::sequence(&[])));
    if !signer_key_id.is_empty() {
        let id = der::element(0x80, signer_key_id);
        list.push(extension(&[2, 5, 29, 35], false, &der::sequence(&[&id])));
    }
    if let Some(names) = &request.alternative_names {
        // Critical where the subject is empty: then they are all that names the holder.
        let critical = request.subject == [0x30, 0x00];
        list.push(extension(&[2, 5, 29, 17], critical, names));
    }
    let list: Vec<&[u8]> = list.iter().map(Vec::as_slice).collect();
    Ok(der::explicit(3, &der::sequence(&list)))
}

fn extension(oid: &[u64], critical: bool, value: &[u8]) -> Vec<u8> {
    let (oid, value) = (der::oid(oid), der::octets(value));
    let critical = if critical {
        der::element(0x01, &[0xff])
    } else {
        Vec::new()
    };
    der::sequence(&[&oid, &critical, &value])
}
