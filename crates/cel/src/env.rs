//! What expressions may speak of: variables, and types that they may construct.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::program::Program;
use crate::source::CompileErrors;
use crate::types::{Decl, Type};

/// Declared variables and types. All of Kubernetes' function libraries are always there.
#[derive(Debug, Clone, Default)]
pub struct Env {
    variables: BTreeMap<String, Decl>,
    structs: BTreeMap<String, Type>,
    open: Vec<String>,
}

impl Env {
    /// An environment without variables.
    pub fn new() -> Env {
        Env::default()
    }

    /// Declares a variable. A name may have dots (`variables.replicas`): such a name is found before a field is.
    #[must_use]
    pub fn declare(mut self, name: impl Into<String>, ty: impl Into<Decl>) -> Env {
        self.variables.insert(name.into(), ty.into());
        self
    }

    /// Lets expressions construct objects of this type by its name (`JSONPatch{op: ...}`).
    #[must_use]
    pub fn construct(mut self, ty: Type) -> Env {
        self.structs.insert(ty.name().to_owned(), ty);
        self
    }

    /// Lets expressions construct objects of this name and of all names below it (`Object`, `Object.spec`),
    /// with any fields.
    #[must_use]
    pub fn construct_open(mut self, name: impl Into<String>) -> Env {
        self.open.push(name.into());
        self
    }

    /// Parses, checks and prepares an expression.
    pub fn compile(&self, source: &str) -> Result<Program, CompileErrors> {
        Program::compile(self, source)
    }

    /// What a variable was declared as.
    pub fn declared(&self, name: &str) -> Option<&Decl> {
        self.variables.get(name)
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&Decl> {
        self.variables.get(name)
    }

    pub(crate) fn is_open(&self, name: &str) -> bool {
        self.open.iter().any(|open| {
            name.strip_prefix(open.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// The type of a type's name: `int` is of type `type(int)`.
    pub(crate) fn type_named(&self, name: &str) -> Option<Type> {
        let ty = match name {
            "bool" => Type::Bool,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "double" => Type::Double,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "null_type" => Type::Null,
            "google.protobuf.Duration" => Type::Duration,
            "google.protobuf.Timestamp" => Type::Timestamp,
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "type" => Type::Type(Arc::new(Type::Dyn)),
            "optional_type" => Type::optional(Type::Dyn),
            "net.IP" => Type::Opaque("net.IP"),
            "net.CIDR" => Type::Opaque("net.CIDR"),
            _ => match self.structs.get(name) {
                Some(ty) => ty.clone(),
                None if self.is_open(name) => Type::object(name, []),
                None => return None,
            },
        };
        Some(Type::Type(Arc::new(ty)))
    }
}
