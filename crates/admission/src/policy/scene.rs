//! What one evaluation of a policy sees: objects, the request, parameters, variables.

use std::cell::OnceCell;
use std::sync::{Arc, LazyLock};

use auth::{Answers, Attributes, Authorizer, Decision, Identity};
use cel::{AdmissionVariables, Budget, Check, Env, EvalError, Resolver, Value, admission_env};
use serde_json::Value as Json;

use super::compile::Policy;
use super::matching::Objects;
use super::subject::Subject;

/// The types of what is bound here.
static TYPES: LazyLock<Env> = LazyLock::new(|| admission_env(AdmissionVariables::default()));

/// The values of all variables, for one policy, binding and parameter. A policy's own variables
/// are evaluated when they are first looked at.
pub(super) struct Scene<'a> {
    policy: &'a Policy,
    object: Option<&'a Json>,
    old: Option<&'a Json>,
    request: &'a Json,
    namespace: Option<&'a Json>,
    params: Option<&'a Json>,
    rights: &'a Arc<Rights>,
    variables: Vec<OnceCell<Result<Value<'a>, EvalError>>>,
}

impl<'a> Scene<'a> {
    pub(super) fn new(
        policy: &'a Policy,
        (object, old): Objects<'a>,
        request: &'a Json,
        params: Option<&'a Json>,
        rights: &'a Arc<Rights>,
    ) -> Scene<'a> {
        Scene {
            policy,
            object,
            old,
            request,
            namespace: None,
            params,
            rights,
            variables: policy.variables.iter().map(|_| OnceCell::new()).collect(),
        }
    }

    /// Match conditions do not see the namespace; rules do.
    pub(super) fn with_namespace(mut self, namespace: Option<&'a Json>) -> Scene<'a> {
        self.namespace = namespace;
        self
    }

    fn variable(&self, name: &str, budget: &mut Budget) -> Option<Result<Value<'a>, EvalError>> {
        let index = self
            .policy
            .variables
            .iter()
            .position(|(own, _)| own == name)?;
        let evaluate = || match &self.policy.variables[index].1 {
            Ok(program) => program
                .evaluate(self, budget)
                .map_err(|error| match error.is_limit() {
                    true => error,
                    false => EvalError::fault(format!(
                        "composited variable \"{}\" fails to evaluate: {error}",
                        short(name)
                    )),
                }),
            Err(error) => Err(EvalError::fault(format!(
                "composited variable \"{}\" fails to compile: {error}",
                short(name)
            ))),
        };
        Some(self.variables[index].get_or_init(evaluate).clone())
    }
}

fn short(name: &str) -> &str {
    name.strip_prefix("variables.").unwrap_or(name)
}

impl<'a> Resolver<'a> for Scene<'a> {
    fn resolve(&self, name: &str, budget: &mut Budget) -> Option<Result<Value<'a>, EvalError>> {
        let open = |json: Option<&'a Json>| json.map_or(Value::Null, Value::untyped);
        let typed = |json: &'a Json| match TYPES.declared(name) {
            Some(decl) => Value::typed(json, decl),
            None => Value::untyped(json),
        };
        Some(Ok(match name {
            "object" => open(self.object),
            "oldObject" => open(self.old),
            "params" => open(self.params),
            "request" => typed(self.request),
            "namespaceObject" => self.namespace.map_or(Value::Null, typed),
            "authorizer" => Value::authorizer(Arc::clone(self.rights) as _),
            "authorizer.requestResource" => {
                Value::request_resource(Arc::clone(self.rights) as _, self.rights.asked.clone())
            }
            name => return self.variable(name, budget),
        }))
    }
}

/// Answers the expressions' questions about rights, for the user of one request.
pub struct Rights {
    authorizer: Arc<Authorizer>,
    user: Identity,
    asked: Check,
    answers: Option<Arc<Answers>>,
}

impl Rights {
    pub(super) fn new(authorizer: &Arc<Authorizer>, subject: &Subject<'_>) -> Arc<Rights> {
        let asked = Check {
            group: subject.names.group.clone(),
            resource: subject.names.plural.clone(),
            subresource: subject.subresource.to_owned(),
            namespace: subject.namespace.to_owned(),
            name: subject.name.to_owned(),
            ..Check::default()
        };
        let answers = subject.notes.answers();
        Rights::of(authorizer, subject.user, asked, answers)
    }

    /// The rights of a user who asks about this resource; `answers` are those of webhooks.
    pub fn of(
        authorizer: &Arc<Authorizer>,
        user: &Identity,
        asked: Check,
        answers: Option<Arc<Answers>>,
    ) -> Arc<Rights> {
        Arc::new(Rights {
            answers,
            authorizer: Arc::clone(authorizer),
            user: user.clone(),
            asked,
        })
    }

    /// The resource that the request is about.
    pub fn asked(&self) -> &Check {
        &self.asked
    }
}

impl cel::Authorizer for Rights {
    fn authorize(&self, check: &Check) -> cel::Decision {
        let account = check.service_account.as_ref();
        let account =
            account.map(|(namespace, name)| Identity::service_account(namespace, name, ""));
        let asked = Attributes {
            verb: check.verb.clone(),
            namespace: check.namespace.clone(),
            group: check.group.clone(),
            version: if check.path.is_some() {
                String::new()
            } else {
                "*".into()
            },
            resource: check.resource.clone(),
            subresource: check.subresource.clone(),
            name: check.name.clone(),
            path: check.path.clone().unwrap_or_default(),
            // A selector that cannot be read restricts nothing, which allows nothing more.
            field_selector: meta::FieldSelector::parse(&check.field_selector).unwrap_or_default(),
            label_selector: meta::LabelSelector::parse(&check.label_selector).unwrap_or_default(),
        };
        let user = account.as_ref().unwrap_or(&self.user);
        let answers = self.answers.as_deref();
        let decision = self.authorizer.authorize_known(user, &asked, answers);
        let (allowed, reason) = match decision {
            Decision::Allow(reason) => (true, reason),
            Decision::NoOpinion(reason) | Decision::Deny(reason) => (false, reason),
        };
        cel::Decision {
            allowed,
            reason,
            error: None,
        }
    }
}
