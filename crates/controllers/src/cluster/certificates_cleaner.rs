//! Deletes certificate signing requests that nobody waits for any more.

use std::sync::Arc;
use std::time::Duration;

use client::{Client, DeleteOptions, Informer, Key};
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use meta::Status;
use reconcile::{Outcome, Reconcile, feed};

use super::certificates::{ACCOUNT, certificate, conditions};
use crate::context::Context;

const NAME: &str = "certificatesigningrequest-cleaner-controller";
const WORKERS: usize = 1;
/// How long requests are kept after they were answered, denied or failed.
const DECIDED_SECONDS: i64 = 3600;
/// How long they may wait for a decision, or for the certificate after it.
const PENDING_SECONDS: i64 = 24 * 3600;

struct Controller {
    client: Client,
    requests: Informer<CertificateSigningRequest>,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let controller = Controller {
        client: context.client(ACCOUNT),
        requests: context.hub.informer(),
    };
    let requests = controller.requests.clone();
    feed(NAME, &requests, &queue, &context.crew, |change| {
        change.new.iter().map(|_| change.key.clone()).collect()
    });
    let synced = async move { requests.synced().await };
    context.drive(Arc::new(controller), &queue, WORKERS, synced);
}

/// When a request is to go, in Unix seconds.
fn end(request: &CertificateSigningRequest) -> Option<i64> {
    let mut ends = Vec::new();
    if conditions(request).next().is_none() {
        let created = request.metadata.creation_timestamp.as_ref()?.0;
        ends.push(created.as_second() + PENDING_SECONDS);
    }
    let issued = certificate(request);
    for condition in conditions(request) {
        let updated = condition
            .last_update_time
            .as_ref()
            .map(|time| time.0.as_second());
        let kept = match condition.type_.as_str() {
            "Denied" | "Failed" => DECIDED_SECONDS,
            "Approved" if issued.is_some() => DECIDED_SECONDS,
            "Approved" => PENDING_SECONDS,
            _ => continue,
        };
        ends.extend(updated.map(|updated| updated + kept));
        if let ("Approved", Some(pem)) = (condition.type_.as_str(), issued) {
            let text = String::from_utf8_lossy(pem);
            ends.extend(
                auth::certificate::facts(&text)
                    .ok()
                    .map(|facts| facts.not_after),
            );
        }
    }
    ends.into_iter().min()
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(request) = self.requests.get_key(key) else {
                return Ok(Outcome::Done);
            };
            let Some(end) = end(&request) else {
                return Ok(Outcome::Done);
            };
            let left = end - Timestamp::now().as_second();
            if let Ok(left @ 1..) = u64::try_from(left) {
                return Ok(Outcome::After(Duration::from_secs(left)));
            }
            let options = DeleteOptions::uid(request.metadata.uid.as_deref().unwrap_or_default());
            match self
                .client
                .beside(request.as_ref())
                .delete(&key.name, &options)
                .await
            {
                Err(status) if !status.is_not_found() && !status.is_conflict() => Err(status),
                _ => Ok(Outcome::Done),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ends(status: serde_json::Value) -> Option<String> {
        let request = json!({
            "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"request": "", "signerName": "example.com/x"}, "status": status,
        });
        let request: CertificateSigningRequest = serde_json::from_value(request).unwrap();
        end(&request).map(|end| Timestamp::from_second(end).unwrap().to_string())
    }

    #[test]
    fn each_state_has_its_end() {
        let at = "2026-01-01T10:00:00Z";
        let with = |kind: &str| json!([{"type": kind, "status": "True", "lastUpdateTime": at}]);
        assert_eq!(ends(json!({})).unwrap(), "2026-01-02T00:00:00Z");
        assert_eq!(
            ends(json!({"conditions": with("Denied")})).unwrap(),
            "2026-01-01T11:00:00Z"
        );
        assert_eq!(
            ends(json!({"conditions": with("Failed")})).unwrap(),
            "2026-01-01T11:00:00Z"
        );
        assert_eq!(
            ends(json!({"conditions": with("Approved")})).unwrap(),
            "2026-01-02T10:00:00Z"
        );
        let issued = json!({"conditions": with("Approved"), "certificate": "eA=="});
        assert_eq!(ends(issued).unwrap(), "2026-01-01T11:00:00Z");
        assert_eq!(ends(json!({"conditions": with("Other")})), None);
    }
}
