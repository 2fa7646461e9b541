//! CertificateSigningRequest.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, name, or};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str =
    "Name, Age, SignerName, Requestor, RequestedDuration, Condition";

pub(crate) struct CertificateSigningRequest;

impl Strategy for CertificateSigningRequest {
    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", object.text("spec.signerName").into())]
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let duration = match object.maybe_int("spec.expirationSeconds") {
            Some(seconds) => meta::time::human_duration(seconds),
            None => "<none>".into(),
        };
        cells![
            name(object),
            age(object, now),
            or(object.text("spec.signerName"), "<none>"),
            object.text("spec.username"),
            duration,
            condition(object),
        ]
    }
}

fn condition(request: &Value) -> String {
    let kinds = request
        .list("status.conditions")
        .iter()
        .map(|one| one.text("type"));
    let holds = |kind: &str| kinds.clone().any(|held| held == kind);
    let mut text = if holds("Denied") {
        "Denied"
    } else if holds("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if holds("Failed") {
        text.push_str(",Failed");
    }
    if !request.text("status.certificate").is_empty() {
        text.push_str(",Issued");
    }
    text
}
