//! Kubernetes' expression language (CEL): parser, type checker, evaluator with costs, and Kubernetes' libraries.
//!
//! ```
//! use cel::{Bindings, Budget, Decl, Env, Type, Value};
//! use serde_json::json;
//!
//! // What expressions may speak of: types from schemas, or made by hand.
//! let schema = json!({"type": "object", "properties": {"replicas": {"type": "integer"}}});
//! let env = Env::new().declare("self", Decl::of_schema(&schema, false).unwrap_or(Type::Dyn.into()));
//!
//! // Compile once, keep the program (it is Send and Sync), evaluate often.
//! let program = env.compile("self.replicas <= 5")?;
//! assert_eq!(program.result_type(), &Type::Bool);
//!
//! let object = json!({"replicas": 3});
//! let variables = Bindings::new().bind("self", Value::typed(&object, env.declared("self").unwrap()));
//! let mut budget = Budget::new(); // shared by all evaluations for one object
//! assert_eq!(program.evaluate(&variables, &mut budget)?.as_bool(), Some(true));
//!
//! let errors = env.compile("self.replica > 1").unwrap_err();
//! assert_eq!(errors.to_string(), "ERROR: <input>:1:5: undefined field 'replica'\n | self.replica > 1\n | ....^");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - A variable of type [`Type::Dyn`] is bound to [`Value::untyped`]; one of a schema's type to [`Value::typed`] with
//!   the same [`Decl`], so that dates, durations and numbers come as declared. Both only borrow the JSON.
//! - Names may have dots (`declare("variables.x", ...)`), see [`Env::declare`].
//! - Variables whose values are computed when first looked at implement [`Resolver`] instead of using [`Bindings`].
//! - Fields with names that an expression cannot spell are escaped, see [`escape`].
//! - `oldSelf` that may be absent: declare it as `Type::optional(ty)`, bind [`Value::Optional`].
//! - `authorizer`: declare [`Type::AUTHORIZER`], bind [`Value::authorizer`].
//! - Static cost: [`Program::estimated_cost`] against [`STATIC_ESTIMATED_COST_LIMIT`]; for a rule below lists and maps
//!   multiply by how often it is evaluated ([`Decl::max`] of each container on the way).
//! - Admission's variables are those of [`admission_env`]; [`Env::compile_to`] gives upstream's texts for fields.
//! - [`CompileErrors`] prints as cel-go's issues do; [`EvalError`] has cel-go's messages.

mod admission;
mod ast;
mod authorizer;
mod check;
mod cost;
mod env;
mod error;
mod escape;
mod estimate;
mod eval;
mod functions;
mod json;
mod lex;
mod literals;
mod macros;
mod opaque;
mod parse;
mod plan;
mod program;
mod schema;
mod semver;
mod source;
mod time;
mod types;
mod unify;
mod url;
mod value;
mod words;

pub use admission::{AdmissionVariables, admission_env};
pub use authorizer::{Authorizer, Check, Decision};
pub use cost::{
    Budget, PER_CALL_LIMIT, RUNTIME_COST_BUDGET, STATIC_ESTIMATED_COST_LIMIT,
    STATIC_ESTIMATED_CRD_COST_LIMIT,
};
pub use env::Env;
pub use error::EvalError;
pub use escape::{escape, unescape};
pub use functions::NamedFormat;
pub use opaque::Opaque;
pub use program::{Bindings, Program, Resolver};
pub use semver::Version;
pub use source::{CompileError, CompileErrors};
pub use types::{Decl, Field, ListType, MapType, ObjectType, Type, UNBOUNDED};
pub use url::Url;
pub use value::{JsonList, JsonMap, Key, Made, Text, Value};
pub use words::is_identifier;
