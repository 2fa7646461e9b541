//! Who may decide on, and answer, certificate signing requests, and what none may ask for.

use auth::{Attributes, csr};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use meta::{Object, Status};

use crate::plugin::{Lookup, Operation, Plugin, Request};

const REQUESTS: &str = "certificatesigningrequests.certificates.k8s.io";
const SUPERUSERS: &str = "system:masters";

/// Approving or denying needs the right to `approve` for the signer.
pub(crate) struct CertificateApproval;
/// Writing certificates needs the right to `sign` for the signer.
pub(crate) struct CertificateSigning;
/// Nobody asks for a client certificate of a superuser.
pub(crate) struct CertificateSubjectRestriction;

impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let Some(old) = updated(request, "approval") else {
            return Ok(());
        };
        // The old one decides: the signer cannot be changed on the way.
        require(request, object, lookup, "approve", signer(old))
    }
}

impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let (Some(old), Some(new)) = (updated(request, "status"), object) else {
            return Ok(());
        };
        let same = |pointer: &str| old.0.pointer(pointer) == new.0.pointer(pointer);
        if same("/status/certificate") && same("/status/conditions") {
            return Ok(());
        }
        require(request, object, lookup, "sign", signer(old))
    }
}

impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        _lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let Some(object) = object else {
            return Ok(());
        };
        let ours = request.operation == Operation::Create
            && request.is_on(REQUESTS)
            && signer(object) == csr::KUBE_APISERVER_CLIENT;
        if !ours {
            return Ok(());
        }
        let refused = |why: &str| Err(request.refused(Some(object), why));
        let pem = STANDARD
            .decode(object.text("/spec/request"))
            .unwrap_or_default();
        match csr::Request::parse(&pem) {
            Err(error) => refused(&format!("failed to parse CSR: {error}")),
            Ok(asked) if asked.organizations.iter().any(|one| one == SUPERUSERS) => {
                refused(&format!(
                    "use of {} signer with {SUPERUSERS} group is not allowed",
                    csr::KUBE_APISERVER_CLIENT
                ))
            }
            Ok(_) => Ok(()),
        }
    }
}

/// The signing request that is about to be updated by this subresource.
fn updated<'a>(request: &Request<'a>, subresource: &str) -> Option<&'a Object> {
    let ours = request.operation == Operation::Update
        && request.subresource == subresource
        && request.resource_is(REQUESTS);
    request.old.filter(|_| ours)
}

fn signer(object: &Object) -> &str {
    object.text("/spec/signerName")
}

/// The user has the right for this signer, or for all of its domain.
fn require(
    request: &Request<'_>,
    object: Option<&Object>,
    lookup: &dyn Lookup,
    verb: &str,
    signer: &str,
) -> Result<(), Status> {
    let may = |name: &str| {
        let asked = Attributes {
            verb: verb.into(),
            group: "certificates.k8s.io".into(),
            version: "*".into(),
            resource: "signers".into(),
            name: name.into(),
            ..Attributes::default()
        };
        lookup.may(request.user, &asked)
    };
    let domain = signer.split('/').next().unwrap_or_default();
    if may(signer) || may(&format!("{domain}/*")) {
        return Ok(());
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(request.refused(object, &why))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{World, object, request};

    #[test]
    fn decisions_and_answers_need_rights() {
        let old = object(json!({"metadata": {"name": "a"},
            "spec": {"signerName": "example.com/x"}, "status": {}}));
        let new = object(json!({"metadata": {"name": "a"},
            "spec": {"signerName": "example.com/x"}, "status": {"certificate": "eA=="}}));
        let on = |subresource: &str| {
            let resource = REQUESTS.to_owned() + "/" + subresource;
            let (plural, rest) = resource.split_once('.').unwrap();
            let (group, subresource) = rest.split_once('/').unwrap();
            let mut asked = request(Operation::Update, plural, "a");
            asked.names = meta::Names::cluster(group, "v1", "CertificateSigningRequest", plural);
            asked.subresource = subresource.into();
            asked.old = Some(old.clone());
            asked
        };
        let world = World::default();
        let asked = on("approval");
        let refused = CertificateApproval.validate(&asked.borrow(), Some(&new), &world);
        assert_eq!(
            refused.unwrap_err().message,
            "certificatesigningrequests.certificates.k8s.io \"a\" is forbidden: user not permitted \
             to approve requests with signerName \"example.com/x\""
        );
        let asked = on("status");
        let refused = CertificateSigning.validate(&asked.borrow(), Some(&new), &world);
        assert!(
            refused
                .unwrap_err()
                .message
                .contains("not permitted to sign requests")
        );
        CertificateSigning
            .validate(&asked.borrow(), Some(&old), &world)
            .unwrap();
    }
}
