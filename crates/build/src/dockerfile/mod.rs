//! The language of Dockerfiles: text in, stages of steps out. Nothing is expanded here, for what a
//! variable holds is known first when its step is carried out.

mod flags;
mod heredoc;
mod instruction;
mod lines;
mod parse;
mod words;

pub use heredoc::Heredoc;
pub use instruction::{
    Command, Copy, Dockerfile, Healthcheck, Instruction, Mount, MountKind, Run, Sharing, Stage,
    Step,
};
pub use parse::{parse, parse_one};

/// What is wrong with a Dockerfile, in docker's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("dockerfile parse error on line {line}: {message}")]
    Line { line: usize, message: String },
    #[error("the Dockerfile cannot be empty")]
    Empty,
    #[error("file with no instructions")]
    NoInstructions,
    #[error("{0}")]
    Other(String),
}

impl ParseError {
    pub(crate) fn at(line: usize, message: impl Into<String>) -> ParseError {
        ParseError::Line {
            line,
            message: message.into(),
        }
    }
}

#[cfg(test)]
mod tests;
