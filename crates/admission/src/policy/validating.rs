//! Evaluation of validating policies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cel::{Budget, Value};
use meta::status::Cause;
use meta::{Object, Reason, Status};
use serde_json::{Value as Json, json};

use super::compile::{Annotation, Binding, Policy, Rules, Validation};
use super::evaluate::{Failure, Invocation, conditions, invocations, namespace_of, run};
use super::matching::Objects;
use super::measure::{self, Outcome};
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
#[derive(Default)]
struct Denial {
    message: String,
    reason: String,
    /// How long it took to find out.
    elapsed: Duration,
    /// Whether the rule could not be judged, rather than judged against the object.
    erred: bool,
}

impl Denial {
    fn outcome(&self) -> Outcome {
        match self.erred {
            true => Outcome::of_error(&self.message),
            false => Outcome::Judged,
        }
    }
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
            self.deny(policy, binding, &message.into());
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
        match denials(policy, binding, validations, &scene) {
            Ok(denials) => {
                for (index, denial) in denials {
                    self.act(index, policy, binding, denial);
                }
            }
            Err(spent) if !policy.fails => {
                measure::validated(policy, binding, spent.outcome(), "allow", spent.elapsed);
                return;
            }
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
            let done = match action.as_str() {
                "Deny" => {
                    self.deny(policy, Some(binding), &denial);
                    "deny"
                }
                "Warn" => {
                    notes.warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding \
                         '{}': {}",
                        policy.name, binding.name, denial.message
                    ));
                    "warn"
                }
                _ => {
                    notes.annotate(FAILURE_KEY, &failure(index, policy, binding, &denial));
                    "audit"
                }
            };
            measure::validated(policy, binding, denial.outcome(), done, denial.elapsed);
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
        let begun = Instant::now();
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
            Err(error) => {
                let text = error.text();
                if policy.fails {
                    let outcome = Outcome::of_error(&text);
                    measure::validated(policy, binding, outcome, "deny", begun.elapsed());
                }
                self.fail(policy, Some(binding), text);
            }
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

/// Of a rule that could not be judged.
impl From<String> for Denial {
    fn from(message: String) -> Denial {
        Denial {
            message,
            erred: true,
            ..Denial::default()
        }
    }
}

/// The rules of one policy that do not hold, each with its place in the list. `Err` when they
/// cost more than they may.
fn denials(
    policy: &Policy,
    binding: &Binding,
    validations: &[Validation],
    scene: &Scene<'_>,
) -> Result<Vec<(usize, Denial)>, Denial> {
    let mut budget = Budget::new();
    let mut broken = Vec::new();
    let mut faults = Vec::new();
    let fault = |message: String, elapsed: Duration| Denial {
        elapsed,
        ..Denial::from(message)
    };
    // Failures of a policy that ignores them are counted only.
    let failed = |index: usize, denial: Denial, faults: &mut Vec<_>| match policy.fails {
        true => faults.push((index, denial)),
        false => {
            measure::validated(policy, binding, denial.outcome(), "allow", denial.elapsed);
        }
    };
    for (index, validation) in validations.iter().enumerate() {
        let (source, program) = (&validation.expression, &validation.program);
        let begun = Instant::now();
        let judged = run(source, program, scene, &mut budget);
        let elapsed = begun.elapsed();
        match judged {
            Ok(value) if value.as_bool() == Some(true) => {}
            Ok(_) => broken.push((index, validation, elapsed)),
            Err(Failure::Rule(error)) => failed(index, fault(error, elapsed), &mut faults),
            Err(Failure::Budget(error)) => return Err(fault(error, elapsed)),
        }
    }
    // Messages spend what is left.
    for (index, validation, elapsed) in broken {
        match denial(validation, scene, &mut budget) {
            Ok(denial) => faults.push((index, Denial { elapsed, ..denial })),
            Err(error) => {
                let text = format!("failed messageExpression: {}", error.text());
                failed(index, fault(text, elapsed), &mut faults);
            }
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
        ..Denial::default()
    })
}
