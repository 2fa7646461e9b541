//! Here-documents: lines of the Dockerfile that are files of their own.

use super::words;

/// Documents one instruction may announce.
const DOCUMENT_LIMIT: usize = 1024;

/// `<<NAME` and the lines up to `NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    pub name: String,
    /// Variables count in it: its name was not quoted.
    pub expands: bool,
    /// `<<-`: tabs at the beginnings of lines were left out.
    pub strips_tabs: bool,
    pub text: String,
}

/// Those that a line announces, still without text.
pub(super) fn announced(line: &str, escape: char) -> Vec<Heredoc> {
    let words = words::split(line, escape);
    let found = words.iter().filter_map(|word| one(word));
    found.take(DOCUMENT_LIMIT).collect()
}

/// What one word announces: `<<EOF`, `0<<-"EOF"`.
pub(super) fn one(word: &str) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = rest.strip_prefix("<<")?;
    let (rest, strips_tabs) = match rest.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    if rest.contains('<') {
        return None;
    }
    let quoted = |quote: char| rest.strip_prefix(quote)?.strip_suffix(quote);
    let (name, expands) = match quoted('"').or_else(|| quoted('\'')) {
        Some(name) => (name, false),
        None => (rest, true),
    };
    let good = !name.is_empty() && !name.contains(['"', '\'', ' ', '\t', '$', '`', '|', ';', '&']);
    // What follows a name directly, as in `<<EOF>file`, belongs to the shell.
    let end = name.find(['>', '(', ')']).unwrap_or(name.len());
    let name = &name[..end];
    (good && !name.is_empty()).then(|| Heredoc {
        name: name.to_owned(),
        expands,
        strips_tabs,
        text: String::new(),
    })
}
