//! Asking somebody else whether a request is allowed: an authorizer of type Webhook.

use std::sync::Arc;
use std::time::Duration;

use cel::{Bindings, Budget, Decl, Env, Field, ObjectType, Program, Type, Value as Cel};
use jiff::{SignedDuration, Timestamp};
use meta::selector::Requirement;
use meta::{Faults, FieldSelector, LabelSelector};
use serde_json::{Value, json};
use webhook::Webhook;

use crate::identity::{Attributes, Decision, Identity};
use crate::memo::Memo;
use crate::token_webhook::persist;

/// Answers that are remembered.
const REMEMBERED: usize = 8192;
/// Questions longer than this are not remembered.
const REMEMBERED_BYTES_MAX: usize = 10_000;
/// Conditions of one webhook.
pub(crate) const CONDITIONS_MAX: usize = 64;

/// What becomes of a request when the webhook does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    NoOpinion,
    Deny,
}

/// How a webhook is asked.
#[derive(Clone, Debug)]
pub struct AccessOptions {
    /// `v1` or `v1beta1`.
    pub version: String,
    pub timeout: Duration,
    /// How long a yes, and anything else, is good; `None`: not remembered.
    pub allowed_for: Option<Duration>,
    pub refused_for: Option<Duration>,
    pub failure_policy: FailurePolicy,
    /// Expressions that must all hold, else the webhook is not asked.
    pub conditions: Vec<String>,
}

impl Default for AccessOptions {
    /// What the flags say when they are not given.
    fn default() -> AccessOptions {
        AccessOptions {
            version: "v1beta1".into(),
            timeout: Duration::from_secs(30),
            allowed_for: Some(Duration::from_secs(300)),
            refused_for: Some(Duration::from_secs(30)),
            failure_policy: FailurePolicy::NoOpinion,
            conditions: Vec::new(),
        }
    }
}

/// A webhook that reviews access.
pub struct AccessWebhook {
    webhook: Webhook,
    options: AccessOptions,
    conditions: Vec<Program>,
    request: Decl,
    answers: Memo<String, Decision>,
}

/// An object whose fields expressions call as JSON does: `namespace` is no reserved word here.
fn object(name: &str, fields: &[(&str, Decl)]) -> Decl {
    let field = |(name, decl): &(&str, Decl)| {
        let (json, decl) = ((*name).to_owned(), decl.clone());
        (json.clone(), Field { json, decl })
    };
    Decl::from(Type::Object(Arc::new(ObjectType {
        name: format!("kubernetes.{name}"),
        fields: fields.iter().map(field).collect(),
    })))
}

fn request_type() -> Decl {
    let text = || Decl::from(Type::String);
    let list = |of: Decl| Decl::from(Type::list(of));
    let selector = |name: &str| {
        let requirement = [
            ("key", text()),
            ("operator", text()),
            ("values", list(text())),
        ];
        let requirement = object(&format!("{name}Requirement"), &requirement);
        let fields = [("requirements", list(requirement)), ("rawSelector", text())];
        object(&format!("{name}Attributes"), &fields)
    };
    let resource = [
        ("namespace", text()),
        ("verb", text()),
        ("group", text()),
        ("version", text()),
        ("resource", text()),
        ("subresource", text()),
        ("name", text()),
        ("fieldSelector", selector("FieldSelector")),
        ("labelSelector", selector("LabelSelector")),
    ];
    let path = [("path", text()), ("verb", text())];
    let extra = Type::map(Type::String, list(text())).into();
    let fields = [
        (
            "resourceAttributes",
            object("ResourceAttributes", &resource),
        ),
        (
            "nonResourceAttributes",
            object("NonResourceAttributes", &path),
        ),
        ("user", text()),
        ("groups", list(text())),
        ("extra", extra),
        ("uid", text()),
    ];
    object("SubjectAccessReviewSpec", &fields)
}

/// Compiles conditions; `path` names their list.
pub(crate) fn compile(conditions: &[String], path: &str, faults: &mut Faults) -> Vec<Program> {
    if conditions.len() > CONDITIONS_MAX {
        faults.too_many(path, conditions.len(), CONDITIONS_MAX);
        return Vec::new();
    }
    let env = Env::new().declare("request", request_type());
    let mut programs = Vec::new();
    for (index, text) in conditions.iter().enumerate() {
        let path = format!("{path}[{index}].expression");
        let (before, _) = conditions.split_at(index);
        if text.trim().is_empty() {
            faults.required(path, "");
        } else if before.contains(text) {
            faults.duplicate(path, text.as_str());
        } else {
            match env.compile(text) {
                Ok(program) if *program.result_type() == Type::Bool => programs.push(program),
                Ok(_) => faults.invalid(path, text.as_str(), "must evaluate to bool"),
                Err(errors) => {
                    faults.invalid(path, text.as_str(), format!("compilation failed: {errors}"));
                }
            }
        }
    }
    programs
}

impl AccessWebhook {
    /// An authorizer over a webhook.
    pub fn new(webhook: Webhook, options: AccessOptions) -> Result<AccessWebhook, Faults> {
        let mut faults = Faults::new();
        let conditions = compile(&options.conditions, "matchConditions", &mut faults);
        match faults.is_empty() {
            true => Ok(AccessWebhook {
                webhook,
                options,
                conditions,
                request: request_type(),
                answers: Memo::new(REMEMBERED),
            }),
            false => Err(faults),
        }
    }

    /// What the webhook says; an error has become what the failure policy makes of it.
    pub(crate) async fn authorize(&self, identity: &Identity, asked: &Attributes) -> Decision {
        let spec = question(identity, asked);
        match self.is_asked(&spec) {
            Ok(true) => {}
            Ok(false) => return Decision::NoOpinion(String::new()),
            Err(error) => return self.failed(&error),
        }
        let (key, now) = (spec.to_string(), Timestamp::now());
        if let Some(known) = self.answers.get(&key, now) {
            return known;
        }
        let body = json!({
            "apiVersion": format!("authorization.k8s.io/{}", self.options.version),
            "kind": "SubjectAccessReview", "metadata": {"creationTimestamp": null},
            "spec": self.versioned(spec), "status": {"allowed": false},
        });
        let answer = match persist(&self.webhook, &body, self.options.timeout).await {
            Ok(answer) => answer,
            Err(error) => return self.failed(&error.to_string()),
        };
        let decision = decision(answer.get("status").unwrap_or(&Value::Null));
        let good_for = match &decision {
            Decision::Allow(_) => self.options.allowed_for,
            _ => self.options.refused_for,
        };
        let good_for = good_for.filter(|_| key.len() <= REMEMBERED_BYTES_MAX);
        if let Some(time) = good_for.and_then(|time| SignedDuration::try_from(time).ok()) {
            let until = now.checked_add(time).unwrap_or(Timestamp::MAX);
            self.answers.put(key, decision.clone(), until);
        }
        decision
    }

    /// In the older version the groups are called otherwise.
    fn versioned(&self, mut spec: Value) -> Value {
        if self.options.version == "v1beta1"
            && let Some(fields) = spec.as_object_mut()
            && let Some(groups) = fields.remove("groups")
        {
            fields.insert("group".into(), groups);
        }
        spec
    }

    fn failed(&self, error: &str) -> Decision {
        tracing::warn!(%error, "authorization webhook");
        match self.options.failure_policy {
            FailurePolicy::NoOpinion => Decision::NoOpinion(String::new()),
            FailurePolicy::Deny => Decision::Deny(String::new()),
        }
    }

    /// Whether all conditions hold. One that does not outweighs one that fails.
    fn is_asked(&self, spec: &Value) -> Result<bool, String> {
        let mut budget = Budget::new();
        let mut error = None;
        for condition in &self.conditions {
            let bound = Bindings::new().bind("request", Cel::typed(spec, &self.request));
            match condition.evaluate(&bound, &mut budget) {
                Ok(held) if held.as_bool() == Some(true) => {}
                Ok(_) => return Ok(false),
                Err(failed) => error = Some(failed.to_string()),
            }
        }
        error.map_or(Ok(true), Err)
    }
}

fn decision(status: &Value) -> Decision {
    let is = |key: &str| status.get(key).and_then(Value::as_bool) == Some(true);
    let reason = status
        .get("reason")
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_owned();
    match (is("denied"), is("allowed")) {
        (true, _) => Decision::Deny(reason),
        (false, true) => Decision::Allow(reason),
        (false, false) => Decision::NoOpinion(reason),
    }
}

/// The `spec` of a SubjectAccessReview.
fn question(identity: &Identity, asked: &Attributes) -> Value {
    let mut spec = json!({"user": identity.name});
    if !identity.groups.is_empty() {
        spec["groups"] = json!(identity.groups);
    }
    if !identity.extra.is_empty() {
        spec["extra"] = json!(identity.extra);
    }
    if !identity.uid.is_empty() {
        spec["uid"] = identity.uid.as_str().into();
    }
    if !asked.is_resource() {
        spec["nonResourceAttributes"] = json!({"path": asked.path, "verb": asked.verb});
        return spec;
    }
    let mut resource = json!({});
    for (key, text) in [
        ("namespace", &asked.namespace),
        ("verb", &asked.verb),
        ("group", &asked.group),
        ("version", &asked.version),
        ("resource", &asked.resource),
        ("subresource", &asked.subresource),
        ("name", &asked.name),
    ] {
        if !text.is_empty() {
            resource[key] = text.as_str().into();
        }
    }
    let (fields, labels) = (fields(&asked.field_selector), labels(&asked.label_selector));
    if !fields.is_empty() {
        resource["fieldSelector"] = json!({"requirements": fields});
    }
    if !labels.is_empty() {
        resource["labelSelector"] = json!({"requirements": labels});
    }
    spec["resourceAttributes"] = resource;
    spec
}

fn fields(selector: &FieldSelector) -> Vec<Value> {
    let requirements = selector.requirements.iter();
    let shown = requirements.map(|(key, equal, value)| {
        let operator = if *equal { "In" } else { "NotIn" };
        json!({"key": key, "operator": operator, "values": [value]})
    });
    shown.collect()
}

fn labels(selector: &LabelSelector) -> Vec<Value> {
    let shown = |requirement: &Requirement| {
        Some(match requirement {
            Requirement::Equal(key, value) => {
                json!({"key": key, "operator": "In", "values": [value]})
            }
            Requirement::NotEqual(key, value) => {
                json!({"key": key, "operator": "NotIn", "values": [value]})
            }
            Requirement::In(key, values) => {
                json!({"key": key, "operator": "In", "values": values})
            }
            Requirement::NotIn(key, values) => {
                json!({"key": key, "operator": "NotIn", "values": values})
            }
            Requirement::Exists(key) => json!({"key": key, "operator": "Exists"}),
            Requirement::Absent(key) => json!({"key": key, "operator": "DoesNotExist"}),
            // Left out: what is asked for only becomes wider.
            Requirement::GreaterThan(..) | Requirement::LessThan(..) => return None,
        })
    };
    selector.requirements.iter().filter_map(shown).collect()
}
