//! Where in an expression a fault is, and how that is shown: as Kubernetes' users know it from cel-go.

use std::fmt;

/// One thing wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileError {
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// What is wrong, without its place.
    pub message: String,
    snippet: String,
    /// Of an expression without a text there is nothing to show.
    is_empty: bool,
}

impl CompileError {
    pub(crate) fn new(source: &str, offset: usize, message: String) -> CompileError {
        let mut at = offset.min(source.len());
        while !source.is_char_boundary(at) {
            at -= 1;
        }
        let before = &source[..at];
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        CompileError {
            is_empty: source.is_empty(),
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
            message,
            snippet: source[start..]
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

/// Lines longer than this are not repeated in a message.
const MAX_SNIPPET: usize = 16_384;

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = self.column - usize::from(self.is_empty);
        write!(f, "ERROR: <input>:{}:{column}: {}", self.line, self.message)?;
        if self.is_empty || self.snippet.len() > MAX_SNIPPET {
            return Ok(());
        }
        let snippet = self.snippet.replace('\t', " ");
        let dots: String = snippet
            .chars()
            .take(self.column - 1)
            .map(|c| if c.is_ascii() { '.' } else { '\u{ff0e}' })
            .collect();
        let wide = snippet
            .chars()
            .nth(self.column - 1)
            .is_some_and(|c| !c.is_ascii());
        write!(
            f,
            "\n | {snippet}\n | {dots}{}",
            if wide { '\u{ff3e}' } else { '^' }
        )
    }
}

/// Everything wrong with an expression, in the order of its text. Prints as cel-go's issues do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct CompileErrors(pub Vec<CompileError>);

impl fmt::Display for CompileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}
