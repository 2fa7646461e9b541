//! What expressions of admission may speak of: match conditions of webhooks, and policies.

use crate::env::Env;
use crate::program::Program;
use crate::types::{Decl, Type};

/// Which variables there are beside `object`, `oldObject`, `request` and `namespaceObject`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AdmissionVariables {
    /// `params`
    pub params: bool,
    /// `authorizer` and `authorizer.requestResource`
    pub authorizer: bool,
    /// `Object{...}` and `JSONPatch{...}` can be made.
    pub patches: bool,
}

/// The environment of admission's expressions. `object`, `oldObject` and `params` may be anything; `request` is an
/// AdmissionRequest without its objects, bound by [`Value::typed`](crate::Value::typed).
pub fn admission_env(variables: AdmissionVariables) -> Env {
    let mut env = Env::new()
        .declare("object", Type::Dyn)
        .declare("oldObject", Type::Dyn)
        .declare("request", request_type())
        .declare("namespaceObject", namespace_type());
    if variables.params {
        env = env.declare("params", Type::Dyn);
    }
    if variables.authorizer {
        env = env
            .declare("authorizer", Type::AUTHORIZER)
            .declare("authorizer.requestResource", Type::RESOURCE_CHECK);
    }
    if variables.patches {
        let fields = [
            ("op", Type::String),
            ("path", Type::String),
            ("from", Type::String),
            ("value", Type::Dyn),
        ];
        env = env
            .construct(object("JSONPatch", fields))
            .construct_open("Object");
    }
    env
}

fn object<const N: usize>(name: &str, fields: [(&str, Type); N]) -> Type {
    Type::object(
        name,
        fields.map(|(name, ty)| (name.to_owned(), Decl::from(ty))),
    )
}

fn request_type() -> Type {
    let kind = object(
        "kubernetes.GroupVersionKind",
        ["group", "version", "kind"].map(|name| (name, Type::String)),
    );
    let resource = object(
        "kubernetes.GroupVersionResource",
        ["group", "version", "resource"].map(|name| (name, Type::String)),
    );
    let texts = Type::list(Type::String);
    let user = object(
        "kubernetes.UserInfo",
        [
            ("username", Type::String),
            ("uid", Type::String),
            ("groups", texts.clone()),
            ("extra", Type::map(Type::String, texts)),
        ],
    );
    object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", Type::String),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", Type::String),
            ("name", Type::String),
            ("namespace", Type::String),
            ("operation", Type::String),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
}

fn namespace_type() -> Type {
    let texts = Type::map(Type::String, Type::String);
    let metadata = object(
        "kubernetes.NamespaceMetadata",
        [
            ("name", Type::String),
            ("generateName", Type::String),
            ("namespace", Type::String),
            ("labels", texts.clone()),
            ("annotations", texts),
            ("UID", Type::String),
            ("creationTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Timestamp),
            ("generation", Type::Int),
            ("resourceVersion", Type::String),
            ("finalizers", Type::list(Type::String)),
        ],
    );
    let condition = object(
        "kubernetes.NamespaceCondition",
        [
            ("status", Type::String),
            ("type", Type::String),
            ("lastTransitionTime", Type::Timestamp),
            ("message", Type::String),
            ("reason", Type::String),
        ],
    );
    let status = object(
        "kubernetes.NamespaceStatus",
        [
            ("conditions", Type::list(condition)),
            ("phase", Type::String),
        ],
    );
    let spec = object(
        "kubernetes.NamespaceSpec",
        [("finalizers", Type::list(Type::String))],
    );
    object(
        "kubernetes.Namespace",
        [("metadata", metadata), ("spec", spec), ("status", status)],
    )
}

impl Env {
    /// Compiles an expression whose value must be of one of these types (any, if there are none). The error is
    /// upstream's text for a field: `compilation failed: ...` or `must evaluate to bool but got int`.
    pub fn compile_to(&self, source: &str, allowed: &[Type]) -> Result<Program, String> {
        let program = self
            .compile(source)
            .map_err(|errors| format!("compilation failed: {errors}"))?;
        let found = program.result_type();
        // An open object type is known by its name alone.
        let fits = |ty: &Type| ty.to_string() == found.to_string();
        if allowed.is_empty() || allowed.iter().any(fits) {
            return Ok(program);
        }
        let name = |ty: &Type| match ty {
            Type::Null => "null_type".to_owned(),
            other => other.to_string(),
        };
        let names: Vec<String> = allowed.iter().map(name).collect();
        Err(match &names[..] {
            [one] => format!("must evaluate to {one} but got {}", name(found)),
            several => format!(
                "must evaluate to one of [{}] but got {}",
                several.join(" "),
                name(found)
            ),
        })
    }
}
