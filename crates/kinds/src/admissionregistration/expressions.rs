//! The expressions of policies: what each may speak of, and whether it compiles.

use cel::{AdmissionVariables, Env, Type, admission_env};
use meta::Faults;

use crate::path::Path;
use crate::spot::Spot;
use crate::tree::Tree;

/// The environments of a policy's expressions. All know the policy's variables.
pub(super) struct Environments {
    /// Of variables, which make no patches.
    variables: Env,
    /// Of validations and mutations.
    pub(super) rules: Env,
    /// Of messages, which ask nobody for rights.
    pub(super) messages: Env,
}

impl Environments {
    /// Those of a policy. Only mutating ones may speak of `variables` where there are none.
    pub(super) fn new(spec: &Spot<'_>, mutating: bool) -> Environments {
        let composed = mutating || spec.count("variables") > 0;
        let env = |authorizer: bool, patches: bool| {
            let env = admission_env(AdmissionVariables {
                params: spec.has("paramKind"),
                authorizer,
                patches,
            });
            match composed {
                true => env.declare("variables", Type::object("kubernetes.variables", [])),
                false => env,
            }
        };
        Environments {
            variables: env(true, false),
            rules: env(true, mutating),
            messages: env(false, false),
        }
    }

    /// Takes up the policy's variables, each of which may speak of those before it.
    pub(super) fn declare(mut self, spec: &Spot<'_>, faults: &mut Faults) -> Environments {
        for variable in spec.items("variables") {
            let name = variable.text("name");
            if name.trim().is_empty() {
                faults.required(variable.path("name"), "name is not specified");
            } else if !cel::is_identifier(name) {
                let rule = "must be a valid CEL identifier";
                faults.invalid(variable.path("name"), name, rule);
            }
            let source = Source::of(&variable, "expression");
            let missing = "expression is not specified";
            let ty = source.compile(&self.variables, missing, &[], faults);
            let declare = |env: Env| env.declare(format!("variables.{name}"), ty.clone());
            self = Environments {
                variables: declare(self.variables),
                rules: declare(self.rules),
                messages: declare(self.messages),
            };
        }
        self
    }
}

/// One expression and where it stands.
pub(super) struct Source<'t> {
    text: &'t str,
    /// What a fault shows.
    shown: &'t str,
    path: Path,
}

impl<'t> Source<'t> {
    /// As it was written.
    pub(super) fn of(spot: &Spot<'t>, field: &str) -> Source<'t> {
        let text = spot.value.text(field);
        Source {
            text,
            shown: text,
            path: spot.path(field),
        }
    }

    /// Compiled without the blanks around it.
    pub(super) fn trimmed(self) -> Source<'t> {
        Source {
            text: self.text.trim(),
            ..self
        }
    }

    /// Compiled and shown without the blanks around it.
    pub(super) fn shown_trimmed(self) -> Source<'t> {
        Source {
            shown: self.shown.trim(),
            ..self.trimmed()
        }
    }

    /// The type of the expression; anything if it does not compile, which is a fault.
    pub(super) fn compile(
        &self,
        env: &Env,
        missing: &str,
        allowed: &[Type],
        faults: &mut Faults,
    ) -> Type {
        if self.text.trim().is_empty() {
            faults.required(self.path.clone(), missing);
            return Type::Dyn;
        }
        match env.compile_to(self.text, allowed) {
            Ok(program) => program.result_type().clone(),
            Err(error) => {
                faults.invalid(self.path.clone(), self.shown, error);
                Type::Dyn
            }
        }
    }
}
