//! AdmissionReview: the question, and what may be an answer to it.

use base64::Engine;
use meta::{Names, Status};
use serde_json::{Map, Value, json};

use super::Asked;
use super::matching::word;
use crate::registry::Resource;
use crate::verbs::write::text;

/// A webhook's answer.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    pub(super) allowed: bool,
    /// A JSON patch; empty when there is none.
    pub(super) patch: Vec<u8>,
    patch_type: String,
    result: Value,
    pub(super) warnings: Vec<String>,
    pub(super) annotations: Vec<(String, String)>,
}

/// The question about a write, in the version of `resource`.
pub(super) fn question(
    asked: &Asked<'_>,
    version: &str,
    uid: &str,
    resource: &Resource,
    (object, old): (Value, Value),
) -> Value {
    let mut request = request(asked, uid, resource);
    request["object"] = object;
    request["oldObject"] = old;
    json!({"kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{version}"),
        "request": request})
}

/// The question without the objects.
pub(super) fn request(asked: &Asked<'_>, uid: &str, resource: &Resource) -> Value {
    let names = &resource.row.names;
    let own = &asked.resource.row.names;
    let mut request = json!({
        "kind": kind(asked, names), "resource": plural(names),
        "requestKind": kind(asked, own), "requestResource": plural(own),
        "operation": word(asked.operation), "userInfo": user(asked),
        "dryRun": asked.dry_run, "options": asked.options,
    });
    let texts = [
        ("uid", uid),
        ("subResource", asked.subresource),
        ("requestSubResource", asked.subresource),
        ("name", asked.name),
        ("namespace", asked.namespace),
    ];
    for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        request[field] = text.into();
    }
    request
}

fn kind(asked: &Asked<'_>, names: &Names) -> Value {
    match asked.view.kind() {
        Some((group, version, kind)) => json!({"group": group, "version": version, "kind": kind}),
        None => json!({"group": names.group, "version": names.version, "kind": names.kind}),
    }
}

fn plural(names: &Names) -> Value {
    json!({"group": names.group, "version": names.version, "resource": names.plural})
}

fn user(asked: &Asked<'_>) -> Value {
    let user = &asked.call.user;
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

/// Reads an answer; `Err` says in upstream's words why it is none.
pub(super) fn answer(
    version: &str,
    uid: &str,
    mutating: bool,
    review: &Value,
) -> Result<Verdict, String> {
    let Some(response) = review
        .get("response")
        .filter(|response| response.is_object())
    else {
        return Err("webhook response was absent".into());
    };
    let patch = text(response, "/patch");
    let patch_type = response.get("patchType").filter(|kind| !kind.is_null());
    // What v1beta1 says was never checked.
    if version == "v1" {
        check(review, response, uid)?;
        check_patch(mutating, patch, patch_type)?;
    }
    let patch = base64::engine::general_purpose::STANDARD
        .decode(patch)
        .map_err(|error| format!("response.patch is not base64: {error}"))?;
    let patch_type = match version {
        "v1" => patch_type.and_then(Value::as_str).unwrap_or(""),
        _ if patch.is_empty() => "",
        _ => "JSONPatch",
    };
    let warnings = response.get("warnings").and_then(Value::as_array);
    let annotations = response.get("auditAnnotations").and_then(Value::as_object);
    let told = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    Ok(Verdict {
        allowed: response.get("allowed") == Some(&Value::Bool(true)),
        patch: if mutating { patch } else { Vec::new() },
        patch_type: patch_type.to_owned(),
        // `status` in v1beta1 and v1 alike.
        result: response.get("status").cloned().unwrap_or(Value::Null),
        warnings: warnings
            .into_iter()
            .flatten()
            .filter_map(|one| one.as_str().map(str::to_owned))
            .collect(),
        annotations: annotations.into_iter().flatten().filter_map(told).collect(),
    })
}

fn check(review: &Value, response: &Value, uid: &str) -> Result<(), String> {
    let own = text(response, "/uid");
    if own != uid {
        return Err(format!("expected response.uid={uid:?}, got {own:?}"));
    }
    let (version, kind) = (text(review, "/apiVersion"), text(review, "/kind"));
    if (version, kind) != ("admission.k8s.io/v1", "AdmissionReview") {
        return Err(format!(
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got \
             {version}, Kind={kind}"
        ));
    }
    Ok(())
}

fn check_patch(mutating: bool, patch: &str, kind: Option<&Value>) -> Result<(), String> {
    let broken = match (mutating, patch.is_empty(), kind) {
        (true, false, None) => "webhook returned response.patch but not response.patchType",
        (true, true, Some(_)) => "webhook returned response.patchType but not response.patch",
        (true, _, Some(kind)) if kind == "" => {
            "webhook returned invalid response.patchType of \"\""
        }
        (false, false, _) => "validating webhook may not return response.patch",
        (false, _, Some(_)) => "validating webhook may not return response.patchType",
        _ => return Ok(()),
    };
    Err(broken.into())
}

impl Verdict {
    /// Whether there is a patch.
    pub(super) fn changes(&self) -> bool {
        !self.patch.is_empty() && self.patch != b"[]"
    }

    /// Whether the patch is of a type that can be applied.
    pub(super) fn check_type(&self) -> Result<(), String> {
        match self.patch_type.as_str() {
            "JSONPatch" => Ok(()),
            other => Err(format!("unsupported patch type {other:?}")),
        }
    }

    /// What the client is told when the webhook said no.
    pub(super) fn refusal(&self, webhook: &str) -> Status {
        let mut tree = match &self.result {
            Value::Object(map) => map.clone(),
            _ => Map::new(),
        };
        tree.insert("kind".into(), "Status".into());
        let code = tree.get("code").and_then(Value::as_u64).unwrap_or(0);
        let code = u16::try_from(code).ok().filter(|code| *code >= 400);
        tree.insert("code".into(), code.unwrap_or(400).into());
        let denied = format!("admission webhook {webhook:?} denied the request");
        let word = |field: &str| {
            let word = self.result.get(field).and_then(Value::as_str);
            word.filter(|word| !word.is_empty())
        };
        let message = match word("message").or(word("reason")) {
            Some(why) => format!("{denied}: {why}"),
            None => format!("{denied} without explanation"),
        };
        tree.insert("message".into(), message.into());
        let body = serde_json::to_vec(&tree).unwrap_or_default();
        Status::from_body(code.unwrap_or(400), &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(response: Value) -> Value {
        json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "response": response})
    }

    #[test]
    fn an_answer_must_fit_its_question() {
        let check = |mutating: bool, response: Value, expect: &str| {
            let got = answer("v1", "u", mutating, &review(response));
            assert_eq!(got.unwrap_err(), expect);
        };
        check(true, Value::Null, "webhook response was absent");
        check(
            true,
            json!({"uid": "x"}),
            "expected response.uid=\"u\", got \"x\"",
        );
        check(
            true,
            json!({"uid": "u", "patch": "W10="}),
            "webhook returned response.patch but not response.patchType",
        );
        check(
            true,
            json!({"uid": "u", "patchType": "JSONPatch"}),
            "webhook returned response.patchType but not response.patch",
        );
        check(
            false,
            json!({"uid": "u", "patch": "W10=", "patchType": "JSONPatch"}),
            "validating webhook may not return response.patch",
        );
        let odd = json!({"kind": "Pod", "apiVersion": "v1", "response": {"uid": "u"}});
        assert_eq!(
            answer("v1", "u", true, &odd).unwrap_err(),
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got v1, \
             Kind=Pod"
        );
        let old = json!({"response": {"allowed": true, "patch": "W10="}});
        let verdict = answer("v1beta1", "u", true, &old).unwrap();
        assert_eq!(
            (verdict.allowed, verdict.patch.as_slice()),
            (true, &b"[]"[..])
        );
        assert!(verdict.check_type().is_ok());
    }

    #[test]
    fn a_refusal_keeps_what_the_webhook_said() {
        let refusal = |status: Value| {
            let response = json!({"uid": "u", "allowed": false, "status": status});
            answer("v1", "u", false, &review(response))
                .unwrap()
                .refusal("a.b.c")
        };
        let bare = refusal(Value::Null);
        assert_eq!(
            (bare.code, bare.message.as_str()),
            (
                400,
                "admission webhook \"a.b.c\" denied the request without explanation"
            )
        );
        let told = refusal(json!({"code": 403, "reason": "Forbidden", "message": "no"}));
        assert_eq!((told.code, told.reason), (403, meta::Reason::Forbidden));
        assert!(told.message.ends_with("denied the request: no"));
        let odd = refusal(json!({"reason": "contains unwanted data", "code": 200}));
        assert_eq!(odd.code, 400);
        assert!(
            odd.message
                .ends_with("denied the request: contains unwanted data")
        );
        assert_eq!(odd.to_value()["reason"], "contains unwanted data");
    }
}
