//! What can go wrong while an expression is evaluated.

use std::sync::Arc;

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// A fault of the expression on these values, in cel-go's words.
    #[error("{0}")]
    Fault(Arc<str>),
    /// One evaluation cost more than it may.
    #[error("operation cancelled: actual cost limit exceeded")]
    CallLimit,
    /// All evaluations of a request together cost more than they may.
    #[error(
        "validation failed due to running out of cost budget, no further validation rules will be run"
    )]
    Budget,
}

impl EvalError {
    /// A fault in words.
    pub fn fault(message: impl Into<Arc<str>>) -> EvalError {
        EvalError::Fault(message.into())
    }

    pub(crate) fn no_such_overload() -> EvalError {
        EvalError::fault("no such overload")
    }

    pub(crate) fn no_such_key(key: &str) -> EvalError {
        EvalError::fault(format!("no such key: {key}"))
    }

    /// Whether evaluation must end, whatever the expression does about errors.
    pub fn is_limit(&self) -> bool {
        matches!(self, EvalError::CallLimit | EvalError::Budget)
    }
}
