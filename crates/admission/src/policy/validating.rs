//! Evaluation of validating policies.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{Budget, Value};
use meta::status::Cause;
use meta::{Object, Reason, Status};
use serde_json::{Value as Json, json};

use super::compile::{Annotation, Binding, Policy, Rules, Validation};
use super::evaluate::{Failure, Invocation, conditions, invocations, namespace_of, run};
use super::matching::Objects;
use super::scene::{Rights, Scene};
use super::subject::Subject;
use super::versions::Versions;
use super::{Hook, Policies};

/// Messages that expressions make may be this long.
const MAX_MESSAGE: usize = 5 * 1024;
/// Values of audit annotations are cut here.
const MAX_ANNOTATION: usize = 10 * 1024;
const FAILURE_KEY: &str = "validation.policy.admission.k8s.io/validation_failure";

/// One rule that does not hold.
struct Denial {
    message: String,
    reason: String,
}

/// Lets all policies judge; the first denial that a binding enforces is the answer.
pub(super) async fn judge(
    policies: &Policies,
    hooks: &[Hook],
    subject: &Subject<'_>,
    objects: Objects<'_>,
) -> Result<(), Status> {
    let found = invocations(hooks, subject, objects);
    if found.is_empty() {
        return Ok(());
    }
    let namespace = namespace_of(subject)?;
    let mut versions = Versions::new(subject, objects);
    let mut bench = Bench {
        subject,
        object: objects.0,
        namespace: namespace.as_deref(),
        rights: policies.rights(subject),
        denied: None,
        annotations: BTreeMap::new(),
    };
    for invocation in found {
        let invocation = match invocation {
            Ok(invocation) => invocation,
            Err(unready) => {
                bench.fail(unready.policy, unready.binding, unready.message);
                continue;
            }
        };
        match versions.show(&invocation.names).await {
            Ok(shown) => bench.hear(&invocation, shown),
            Err(status) => {
                let text = format!("failed to convert object version: {}", status.message);
                let text = format!("failed to configure binding: {text}");
                bench.fail(invocation.policy, Some(invocation.binding), text);
            }
        }
    }
    for (key, values) in bench.annotations {
        subject.notes.annotate(&key, &values.join(", "));
    }
    bench.denied.map_or(Ok(()), Err)
}

/// Where policies are heard one after the other.
struct Bench<'b> {
    subject: &'b Subject<'b>,
    object: Option<&'b Json>,
    namespace: Option<&'b Object>,
    rights: Arc<Rights>,
    denied: Option<Status>,
    annotations: BTreeMap<String, Vec<String>>,
}

impl Bench<'_> {
    /// What went wrong refuses the write, unless the policy's failures are ignored.
    fn fail(&mut self, policy: &Policy, binding: Option<&Binding>, message: String) {
        if policy.fails {
            let denial = Denial {
                message,
                reason: String::new(),
            };
            self.deny(policy, binding, &denial);
        }
    }

    fn deny(&mut self, policy: &Policy, binding: Option<&Binding>, denial: &Denial) {
        if self.denied.is_none() {
            self.denied = Some(self.refusal(policy, binding, denial));
        }
    }

    fn hear(&mut self, invocation: &Invocation<'_>, shown: Objects<'_>) {
        let (policy, binding) = (invocation.policy, invocation.binding);
        let request = self.subject.request(&invocation.names);
        let param = invocation.param.as_deref().map(|param| &param.0);
        let rights = Arc::clone(&self.rights);
        let scene = || Scene::new(policy, shown, &request, param, &rights);
        match conditions(policy, &scene()) {
            Ok(true) => {}
            Ok(false) => return,
            Err(message) => return self.act(0, policy, binding, message.into()),
        }
        let namespace = self.namespace.map(|namespace| &namespace.0);
        let scene = scene().with_namespace(namespace);
        let Rules::Validate {
            validations,
            annotations,
        } = &policy.rules
        else {
            return;
        };
        match denials(policy, validations, &scene) {
            Ok(denials) => {
                for (index, denial) in denials {
                    self.act(index, policy, binding, denial);
                }
            }
            Err(_) if !policy.fails => return,
            Err(denial) => self.act(0, policy, binding, denial),
        }
        let mut budget = Budget::new();
        for annotation in annotations {
            self.annotate(policy, binding, annotation, &scene, &mut budget);
        }
    }

    /// Does what the binding wants done about a rule that does not hold.
    fn act(&mut self, index: usize, policy: &Policy, binding: &Binding, denial: Denial) {
        let notes = self.subject.notes;
        for action in &binding.actions {
            match action.as_str() {
                "Deny" => self.deny(policy, Some(binding), &denial),
                "Warn" => notes.warn(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                    policy.name, binding.name, denial.message
                )),
                _ => notes.annotate(FAILURE_KEY, &failure(index, policy, binding, &denial)),
            }
        }
    }

    fn annotate<'s>(
        &mut self,
        policy: &Policy,
        binding: &Binding,
        annotation: &Annotation,
        scene: &Scene<'s>,
        budget: &mut Budget,
    ) {
        match run(&annotation.source, &annotation.program, scene, budget) {
            Ok(Value::String(text)) if !text.trim().is_empty() => {
                let text = text.trim();
                let text = cut(text).to_owned();
                let key = format!("{}/{}", policy.name, annotation.key);
                let values = self.annotations.entry(key).or_default();
                if !values.contains(&text) {
                    values.push(text);
                }
            }
            Ok(_) => {}
            Err(error) => self.fail(policy, Some(binding), error.text()),
        }
    }

    fn refusal(&self, policy: &Policy, binding: Option<&Binding>, denial: &Denial) -> Status {
        let with = binding
            .map(|binding| format!(" with binding '{}'", binding.name))
            .unwrap_or_default();
        let message = format!(
            "ValidatingAdmissionPolicy '{}'{with} denied request: {}",
            policy.name, denial.message
        );
        let mut status = self.subject.refused(self.object, &message);
        status.reason = match denial.reason.as_str() {
            "Forbidden" => Reason::Forbidden,
            "Unauthorized" => Reason::Unauthorized,
            "RequestEntityTooLarge" => Reason::RequestEntityTooLarge,
            _ => Reason::Invalid,
        };
        status.code = status.reason.code();
        status.causes.push(Cause {
            reason: String::new(),
            message,
            field: String::new(),
        });
        status
    }
}

/// The beginning of an annotation's value, in whole characters.
fn cut(text: &str) -> &str {
    let mut ends = (0..=MAX_ANNOTATION.min(text.len())).rev();
    let end = ends.find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

fn failure(index: usize, policy: &Policy, binding: &Binding, denial: &Denial) -> String {
    let value = json!([{
        "message": denial.message, "policy": policy.name, "binding": binding.name,
        "expressionIndex": index, "validationActions": binding.actions,
    }]);
    value.to_string()
}

impl From<String> for Denial {
    fn from(message: String) -> Denial {
        Denial {
            message,
            reason: String::new(),
        }
    }
}

/// The rules of one policy that do not hold, each with its place in the list. `Err` when they
/// cost more than they may.
fn denials(
    policy: &Policy,
    validations: &[Validation],
    scene: &Scene<'_>,
) -> Result<Vec<(usize, Denial)>, Denial> {
    let mut budget = Budget::new();
    let mut broken = Vec::new();
    let mut faults = Vec::new();
    for (index, validation) in validations.iter().enumerate() {
        let (source, program) = (&validation.expression, &validation.program);
        match run(source, program, scene, &mut budget) {
            Ok(value) if value.as_bool() == Some(true) => {}
            Ok(_) => broken.push((index, validation)),
            Err(Failure::Rule(error)) if policy.fails => faults.push((index, error.into())),
            Err(Failure::Rule(_)) => {}
            Err(Failure::Budget(error)) => return Err(error.into()),
        }
    }
    // Messages spend what is left.
    for (index, validation) in broken {
        match denial(validation, scene, &mut budget) {
            Ok(denial) => faults.push((index, denial)),
            Err(error) if policy.fails => {
                let text = format!("failed messageExpression: {}", error.text());
                faults.push((index, text.into()));
            }
            Err(_) => {}
        }
    }
    faults.sort_by_key(|(index, _)| *index);
    Ok(faults)
}

/// What a rule that does not hold says: its message expression, its message, or itself.
fn denial(
    validation: &Validation,
    scene: &Scene<'_>,
    budget: &mut Budget,
) -> Result<Denial, Failure> {
    let computed = match &validation.message_expression {
        None => None,
        Some(program) => match run("", program, scene, budget) {
            Ok(value) => value.as_str().map(|text| text.trim().to_owned()),
            Err(Failure::Rule(_)) => None,
            Err(spent) => return Err(spent),
        },
    };
    let fits =
        |text: &String| !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n');
    let written = Some(&validation.message).filter(|message| !message.is_empty());
    let message = computed.filter(fits).or_else(|| written.cloned());
    Ok(Denial {
        message: message.unwrap_or_else(|| format!("failed expression: {}", validation.expression)),
        reason: validation.reason.clone(),
    })
}
