//! Certificate signing requests: those of kubelets are approved where the policy allows it, and
//! what is approved is signed by the cluster's authority.

use std::sync::Arc;
use std::time::Duration;

use auth::csr;
use client::{Client, Informer, Key};
use futures::future::BoxFuture;
use http::Method;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use meta::Status;
use reconcile::{Outcome, Reconcile, feed};
use serde_json::{Value, json};

use crate::context::{Context, Keys};

/// The service account of all controllers of certificates.
pub(super) const ACCOUNT: &str = "certificate-controller";
const APPROVING: &str = "certificatesigningrequest-approving-controller";
const SIGNING: &str = "certificatesigningrequest-signing-controller";
const WORKERS: usize = 2;
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
/// What a request must be allowed to `create` below `certificatesigningrequests` to be approved
/// by itself, and what its condition then says.
const SELF_NODE: (&str, &str) = (
    "selfnodeclient",
    "Auto approving self kubelet client certificate after SubjectAccessReview.",
);
const NODE: (&str, &str) = (
    "nodeclient",
    "Auto approving kubelet client certificate after SubjectAccessReview.",
);

struct Approver {
    client: Client,
    requests: Informer<CertificateSigningRequest>,
}

struct Signer {
    client: Client,
    keys: Keys,
    /// How long a certificate lives at most.
    longest: Duration,
    requests: Informer<CertificateSigningRequest>,
}

/// Starts the controller that approves.
pub(crate) fn start_approving(context: &Context) {
    let queue = context.queue();
    let controller = Approver {
        client: context.client(ACCOUNT),
        requests: context.hub.informer(),
    };
    let requests = controller.requests.clone();
    feed(APPROVING, &requests, &queue, &context.crew, |change| {
        let open = change.new.as_ref().filter(|request| is_undecided(request));
        open.map(|_| change.key.clone()).into_iter().collect()
    });
    let synced = async move { requests.synced().await };
    context.drive(Arc::new(controller), &queue, WORKERS, synced);
}

/// Starts the controller that signs; without the authority's key there is none.
pub(crate) fn start_signing(context: &Context) {
    let Some(keys) = context.config.keys.clone() else {
        return tracing::info!("no key of the cluster's authority: signing requests stay open");
    };
    let queue = context.queue();
    let controller = Signer {
        client: context.client(ACCOUNT),
        keys,
        longest: context.config.signing_duration,
        requests: context.hub.informer(),
    };
    let requests = controller.requests.clone();
    feed(SIGNING, &requests, &queue, &context.crew, |change| {
        let ready = change.new.as_ref().filter(|request| is_to_sign(request));
        ready.map(|_| change.key.clone()).into_iter().collect()
    });
    let synced = async move { requests.synced().await };
    context.drive(Arc::new(controller), &queue, WORKERS, synced);
}

/// Whether a request has a condition of this type.
pub(super) fn holds(request: &CertificateSigningRequest, kind: &str) -> bool {
    conditions(request).any(|condition| condition.type_ == kind && condition.status == "True")
}

/// All conditions of a request.
pub(super) fn conditions(
    request: &CertificateSigningRequest,
) -> impl Iterator<Item = &CertificateSigningRequestCondition> {
    let status = request.status.as_ref();
    status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten()
}

/// The certificate of an answered request.
pub(super) fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    (!certificate.0.is_empty()).then_some(certificate.0.as_slice())
}

fn is_undecided(request: &CertificateSigningRequest) -> bool {
    let decided = conditions(request)
        .any(|condition| matches!(condition.type_.as_str(), "Approved" | "Denied"));
    certificate(request).is_none() && !decided
}

fn is_to_sign(request: &CertificateSigningRequest) -> bool {
    let approved = conditions(request).any(|condition| condition.type_ == "Approved");
    let denied = conditions(request).any(|condition| condition.type_ == "Denied");
    approved && !denied && !holds(request, "Failed") && certificate(request).is_none()
}

fn usages(request: &CertificateSigningRequest) -> &[String] {
    request.spec.usages.as_deref().unwrap_or_default()
}

fn condition(kind: &str, reason: &str, message: &str) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: kind.into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_update_time: Some(Time(k8s_openapi::jiff::Timestamp::now())),
        last_transition_time: None,
    }
}

/// By which rights a request may be approved without anybody looking at it.
fn recognized(
    request: &CertificateSigningRequest,
    asked: &csr::Request,
) -> Vec<(&'static str, &'static str)> {
    let for_node = request.spec.signer_name == csr::KUBE_APISERVER_CLIENT_KUBELET
        && asked.check_kubelet_client(usages(request)).is_ok();
    let own = request.spec.username.as_deref() == Some(asked.common_name.as_str());
    match (for_node, own) {
        (true, true) => vec![SELF_NODE, NODE],
        (true, false) => vec![NODE],
        _ => Vec::new(),
    }
}

impl Approver {
    async fn is_allowed(
        &self,
        request: &CertificateSigningRequest,
        subresource: &str,
    ) -> Result<bool, Status> {
        let spec = &request.spec;
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": spec.username, "uid": spec.uid, "groups": spec.groups, "extra": spec.extra,
                "resourceAttributes": {
                    "group": "certificates.k8s.io", "resource": "certificatesigningrequests",
                    "subresource": subresource, "verb": "create", "version": "*",
                },
            },
        });
        let answer = self
            .client
            .send_value(Method::POST, REVIEWS, &review)
            .await?;
        Ok(answer.pointer("/status/allowed").and_then(Value::as_bool) == Some(true))
    }
}

impl Reconcile for Approver {
    fn name(&self) -> &'static str {
        APPROVING
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(request) = self.requests.get_key(key).filter(|one| is_undecided(one)) else {
                return Ok(Outcome::Done);
            };
            // What cannot be read today cannot be read tomorrow.
            let Ok(asked) = csr::Request::parse(&request.spec.request.0) else {
                return Ok(Outcome::Done);
            };
            let rights = recognized(&request, &asked);
            for (subresource, message) in &rights {
                if !self.is_allowed(&request, subresource).await? {
                    continue;
                }
                let mut next = request.as_ref().clone();
                let status = next.status.get_or_insert_default();
                let approved = condition("Approved", "AutoApproved", message);
                status.conditions.get_or_insert_default().push(approved);
                let path = self
                    .client
                    .all::<CertificateSigningRequest>()
                    .path(Some(&key.name), Some("approval"));
                let body = serde_json::to_value(&next).map_err(Status::internal)?;
                self.client.send_value(Method::PUT, &path, &body).await?;
                return Ok(Outcome::Done);
            }
            // Upstream tries again later: rights may come after the request.
            match rights.is_empty() {
                true => Ok(Outcome::Done),
                false => Err(Status::internal(format!(
                    "recognized csr {:?} but subject access review was not approved",
                    key.name
                ))),
            }
        })
    }
}

impl Signer {
    /// The request with its certificate, or with the condition that says why there is none.
    fn answered(
        &self,
        request: &CertificateSigningRequest,
    ) -> Result<Option<CertificateSigningRequest>, Status> {
        let asked = csr::Request::parse(&request.spec.request.0).map_err(Status::internal)?;
        let usages = usages(request);
        let Some(checked) = csr::check(&request.spec.signer_name, &asked, usages) else {
            return Ok(None);
        };
        let mut next = request.clone();
        let status = next.status.get_or_insert_default();
        match checked {
            Err(why) => {
                let failed = condition("Failed", "SignerValidationFailure", &why);
                status.conditions.get_or_insert_default().push(failed);
            }
            Ok(()) => {
                let lifetime = match request.spec.expiration_seconds.map(i64::from) {
                    Some(seconds) => csr::lifetime(Some(seconds)).min(self.longest),
                    None => self.longest,
                };
                let signed = self
                    .keys
                    .authority
                    .sign(&asked, usages, lifetime, Timestamp::now());
                let pem = signed.map_err(Status::internal)?;
                status.certificate = Some(ByteString(pem.into_bytes()));
            }
        }
        Ok(Some(next))
    }
}

impl Reconcile for Signer {
    fn name(&self) -> &'static str {
        SIGNING
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(request) = self.requests.get_key(key).filter(|one| is_to_sign(one)) else {
                return Ok(Outcome::Done);
            };
            if let Some(next) = self.answered(&request)? {
                let written = self.client.all().replace_status(&next).await?;
                self.requests.absorb(written);
            }
            Ok(Outcome::Done)
        })
    }
}
