//! The group `certificates.k8s.io`.

mod certificate_signing_request;

use meta::Names;

pub(crate) use certificate_signing_request::validate_signer;

use crate::row::Row;

pub(crate) fn rows() -> Vec<Row> {
    use certificate_signing_request::{COLUMNS, CertificateSigningRequest};
    let names = Names::cluster(
        "certificates.k8s.io",
        "v1",
        "CertificateSigningRequest",
        "certificatesigningrequests",
    );
    vec![Row::new(names.short(&["csr"]), COLUMNS, CertificateSigningRequest).status()]
}
