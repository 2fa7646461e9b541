//! CertificateSigningRequest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use meta::{FaultKind, Faults, naming};
use serde_json::{Value, json};

use crate::row::{Cells, Strategy};
use crate::spot::{Spot, immutable, rules, unsupported};
use crate::table::{age, cells, name, or};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Age, SignerName, Requestor, RequestedDuration, Condition";

pub(crate) struct CertificateSigningRequest;

impl Strategy for CertificateSigningRequest {
    /// Who asks is the server's to say: it sets user, groups and extra after this.
    fn prepare_create(&self, object: &mut Value) {
        for field in ["username", "uid", "groups", "extra"] {
            object.drop_field(&format!("spec.{field}"));
        }
        object.set("status", json!({}));
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        object.set("spec", old.at("spec").clone());
    }

    fn prepare_subresource(&self, subresource: &str, object: &mut Value, old: &Value) {
        if subresource == "approval" {
            let conditions = object.at("status.conditions").clone();
            for part in ["spec", "status"] {
                object.set(part, old.at(part).clone());
            }
            match conditions.is_null() {
                true => object.drop_field("status.conditions"),
                false => object.set("status.conditions", conditions),
            }
        }
        if subresource == "status" {
            keep_decisions(object, old);
        }
        date_conditions(object, old);
    }

    fn validate_subresource(
        &self,
        _subresource: &str,
        object: &Value,
        old: &Value,
        faults: &mut Faults,
    ) {
        validate_conditions(object, old, faults);
        keeps_conditions(object, old, faults);
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        naming::path_segment(name)
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        validate_spec(&Spot::new(object, "spec"), faults);
    }

    fn validate_status(&self, object: &Value, old: &Value, faults: &mut Faults) {
        validate_conditions(object, old, faults);
        keeps_conditions(object, old, faults);
        decides_nothing(object, old, faults);
        let certificate = old.text("status.certificate");
        if !certificate.is_empty() && certificate != object.text("status.certificate") {
            let rule = "updates may not modify existing certificate content";
            faults.forbidden("status.certificate", rule);
        }
        validate_certificate(object, old, faults);
        immutable(&Spot::new(object, ""), old, "spec", faults);
    }

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

/// The shortest life of a certificate that may be asked for.
const EXPIRATION_SECONDS_MIN: i64 = 600;
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

fn validate_spec(spec: &Spot<'_>, faults: &mut Faults) {
    let request = spec.text("request");
    let decoded = BASE64.decode(request).unwrap_or_default();
    let text = String::from_utf8_lossy(&decoded);
    if !text
        .trim_start()
        .starts_with("-----BEGIN CERTIFICATE REQUEST-----")
    {
        let rule = "PEM block type must be CERTIFICATE REQUEST";
        faults.invalid(spec.path("request"), spec.at("request").clone(), rule);
    }
    if spec.count("usages") == 0 {
        faults.required(spec.path("usages"), "");
    }
    let mut seen = Vec::new();
    for usage in spec.items("usages") {
        let word = usage.as_str().unwrap_or("").to_owned();
        if !USAGES.contains(&word.as_str()) {
            unsupported(faults, usage.path.clone(), word.as_str(), &USAGES);
        }
        if seen.contains(&word) {
            faults.duplicate(usage.path.clone(), word.as_str());
        }
        seen.push(word);
    }
    validate_signer(spec, faults);
    let seconds = spec.maybe_int("expirationSeconds");
    if let Some(seconds) = seconds.filter(|seconds| *seconds < EXPIRATION_SECONDS_MIN) {
        let rule = "may not specify a duration less than 600 seconds (10 minutes)";
        faults.invalid(spec.path("expirationSeconds"), seconds, rule);
    }
}

/// What is issued is nothing but certificates, unless something else was there before.
fn validate_certificate(object: &Value, old: &Value, faults: &mut Faults) {
    let issued = object.text("status.certificate");
    if issued.is_empty() || issued == old.text("status.certificate") {
        return;
    }
    let decoded = BASE64.decode(issued).unwrap_or_default();
    let text = String::from_utf8_lossy(&decoded);
    let is_block = |line: &str| text.contains(&format!("-----END {line}-----"));
    let kinds = text.lines().filter_map(|line| {
        let kind = line.trim_end().strip_prefix("-----BEGIN ")?;
        kind.strip_suffix("-----").filter(|kind| is_block(kind))
    });
    let kinds: Vec<&str> = kinds.collect();
    let other = kinds.iter().find(|kind| **kind != "CERTIFICATE");
    let rule = match (other, kinds.is_empty()) {
        (Some(other), _) => format!("only CERTIFICATE PEM blocks are allowed, found {other:?}"),
        (None, true) => "must contain at least one CERTIFICATE PEM block".to_owned(),
        (None, false) => return,
    };
    let shown = "\"<certificate data>\"";
    faults.add_shown("status.certificate", FaultKind::Invalid, shown, rule);
}

/// A signer is a domain with a path, such as `kubernetes.io/kubelet-serving`.
pub(crate) fn validate_signer(spec: &Spot<'_>, faults: &mut Faults) {
    let (path, name) = (spec.path("signerName"), spec.text("signerName"));
    if name.is_empty() {
        return faults.required(path, "");
    }
    let parts: Vec<_> = name.split('/').collect();
    let [domain, signer] = parts.as_slice() else {
        let rule =
            "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return faults.invalid(path, name, rule);
    };
    rules(
        faults,
        path.clone(),
        *domain,
        naming::dns1123_subdomain(domain),
    );
    if domain.split('.').count() < 2 {
        let rule = "should be a domain with at least two segments separated by dots";
        faults.invalid(path.clone(), *domain, rule);
    }
    rules(faults, path, *signer, naming::dns1123_subdomain(signer));
}

/// Who may write `/approval` decides: this decision, and that signing failed, stay for ever.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];
const FAILED: &str = "Failed";

fn conditions_of<'t>(object: &'t Value, kind: &str) -> Vec<&'t Value> {
    let conditions = object.list("status.conditions").iter();
    conditions.filter(|one| one.text("type") == kind).collect()
}

/// Faults of the conditions themselves; what the object had before is tolerated.
fn validate_conditions(object: &Value, old: &Value, faults: &mut Faults) {
    let before = old.list("status.conditions").iter();
    let kinds_before: Vec<_> = before.map(|one| one.text("type")).collect();
    let both_before = DECISIONS.iter().all(|kind| kinds_before.contains(kind));
    let twice_before =
        (1..kinds_before.len()).any(|at| kinds_before[..at].contains(&kinds_before[at]));
    let mut seen: Vec<&str> = Vec::new();
    let spot = Spot::new(object, "status");
    for (condition, tree) in spot
        .items("conditions")
        .zip(object.list("status.conditions"))
    {
        let kind = tree.text("type");
        if kind.is_empty() && !kinds_before.contains(&"") {
            faults.required(condition.path("type"), "");
        }
        let allowed: &[&str] = match DECISIONS.contains(&kind) || kind == FAILED {
            true => &["True"],
            false => &["False", "True", "Unknown"],
        };
        match tree.text("status") {
            "" => faults.required(condition.path("status"), ""),
            status if allowed.contains(&status) => {}
            other => unsupported(faults, condition.path("status"), other, allowed),
        }
        let is_other = |one: &&str| DECISIONS.contains(one) && *one != kind;
        if !both_before && DECISIONS.contains(&kind) && seen.iter().any(is_other) {
            let rule = "Approved and Denied conditions are mutually exclusive";
            faults.invalid("status.conditions", kind, rule);
        }
        if !twice_before && seen.contains(&kind) {
            faults.duplicate(condition.path("type"), kind);
        }
        seen.push(kind);
    }
}

fn keeps_conditions(object: &Value, old: &Value, faults: &mut Faults) {
    for kind in DECISIONS.into_iter().chain([FAILED]) {
        if conditions_of(object, kind).len() < conditions_of(old, kind).len() {
            let rule = format!("updates may not remove a condition of type \"{kind}\"");
            faults.forbidden("status.conditions", rule);
        }
    }
}

/// Whoever writes `/status` has no say in the decision.
fn decides_nothing(object: &Value, old: &Value, faults: &mut Faults) {
    for kind in DECISIONS {
        if conditions_of(object, kind).len() > conditions_of(old, kind).len() {
            let rule = format!("updates may not add a condition of type \"{kind}\"");
            faults.forbidden("status.conditions", rule);
        }
    }
}

/// Decisions stay as they were; where some came or went, that is a fault.
fn keep_decisions(object: &mut Value, old: &Value) {
    for kind in DECISIONS {
        let kept: Vec<Value> = conditions_of(old, kind).into_iter().cloned().collect();
        if conditions_of(object, kind).len() != kept.len() {
            continue;
        }
        let conditions = object.list_mut("status.conditions").iter_mut();
        let own = conditions.filter(|one| one.text("type") == kind);
        for (condition, kept) in own.zip(kept) {
            *condition = kept;
        }
    }
}

/// Conditions get their times from the server where the client gives none.
fn date_conditions(object: &mut Value, old: &Value) {
    let now = meta::time::now();
    for condition in object.list_mut("status.conditions") {
        condition.fill_text("lastUpdateTime", &now);
        let same = |other: &&Value| {
            ["type", "status"]
                .iter()
                .all(|field| other.text(field) == condition.text(field))
        };
        let mut before = old.list("status.conditions").iter();
        let since = before.find(same).map(|one| one.text("lastTransitionTime"));
        let since = since
            .filter(|since| !since.is_empty())
            .unwrap_or(&now)
            .to_owned();
        condition.fill_text("lastTransitionTime", &since);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kinds: &[&str]) -> Value {
        let condition = |kind: &&str| json!({"type": kind, "status": "True"});
        let conditions: Vec<_> = kinds.iter().map(condition).collect();
        json!({"spec": {}, "status": {"conditions": conditions}})
    }

    fn messages(faults: &Faults) -> Vec<String> {
        faults.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_the_approval_decides() {
        let (undecided, strategy) = (request(&[]), CertificateSigningRequest);
        for kind in DECISIONS {
            let decided = request(&[kind]);
            let mut faults = Faults::new();
            strategy.validate_status(&decided, &undecided, &mut faults);
            let rule = format!("updates may not add a condition of type \"{kind}\"");
            let expected = format!("status.conditions: Forbidden: {rule}");
            assert_eq!(messages(&faults), [expected]);
            let mut faults = Faults::new();
            strategy.validate_subresource("approval", &decided, &undecided, &mut faults);
            assert!(messages(&faults).is_empty());
        }
    }

    #[test]
    fn a_status_leaves_the_decision_as_it_was() {
        let old = request(&["Approved"]);
        let mut new = request(&["Approved", FAILED]);
        new["status"]["conditions"][0]["reason"] = "Mine".into();
        CertificateSigningRequest.prepare_subresource("status", &mut new, &old);
        assert!(new["status"]["conditions"][0].get("reason").is_none());
        let mut faults = Faults::new();
        CertificateSigningRequest.validate_status(&new, &old, &mut faults);
        assert!(messages(&faults).is_empty());
        CertificateSigningRequest.validate_status(&request(&[]), &old, &mut faults);
        let rule = "updates may not remove a condition of type \"Approved\"";
        assert_eq!(
            messages(&faults),
            [format!("status.conditions: Forbidden: {rule}")]
        );
    }

    #[test]
    fn what_is_issued_is_a_certificate() {
        for (issued, rule) in [
            ("x", "must contain at least one CERTIFICATE PEM block"),
            (
                "-----BEGIN PRIVATE KEY-----\neA==\n-----END PRIVATE KEY-----\n",
                "only CERTIFICATE PEM blocks are allowed, found \"PRIVATE KEY\"",
            ),
        ] {
            let (old, mut new) = (request(&[]), request(&[]));
            new["status"]["certificate"] = BASE64.encode(issued).into();
            let mut faults = Faults::new();
            CertificateSigningRequest.validate_status(&new, &old, &mut faults);
            assert_eq!(
                messages(&faults),
                [format!(
                    "status.certificate: Invalid value: \"<certificate data>\": {rule}"
                )]
            );
            // It may stay where it is.
            let mut faults = Faults::new();
            CertificateSigningRequest.validate_status(&new, &new, &mut faults);
            assert!(messages(&faults).is_empty());
        }
    }

    #[test]
    fn conditions_are_of_one_kind_each() {
        let mut faults = Faults::new();
        let new = request(&["Other", "Other", "Approved", "Denied", ""]);
        validate_conditions(&new, &request(&[]), &mut faults);
        assert_eq!(
            messages(&faults),
            [
                "status.conditions[1].type: Duplicate value: \"Other\"",
                "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are \
                 mutually exclusive",
                "status.conditions[4].type: Required value",
            ]
        );
    }
}
