//! From text to logical lines: directives, comments, continuations, here-documents.

use super::ParseError;
use super::heredoc::{self, Heredoc};

/// A Dockerfile larger than this is refused.
const SIZE_LIMIT: usize = 16 << 20;
/// Instructions that take here-documents.
const WITH_DOCUMENTS: [&str; 3] = ["ADD", "COPY", "RUN"];

/// One instruction as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Where it begins, from 1.
    pub(super) number: usize,
    /// Where it ends.
    pub(super) last: usize,
    pub(super) text: String,
    pub(super) documents: Vec<Heredoc>,
}

/// All instructions, and the character that escapes.
pub(super) fn split(text: &str) -> Result<(char, Vec<Line>), ParseError> {
    if text.len() > SIZE_LIMIT {
        let message = format!("dockerfile is larger than {SIZE_LIMIT} bytes");
        return Err(ParseError::Other(message));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let raw: Vec<&str> = text.lines().collect();
    let escape = directives(&raw)?;
    let mut found = Vec::new();
    let mut at = 0;
    while at < raw.len() {
        let first = raw[at].trim_start();
        if first.trim_end().is_empty() || first.starts_with('#') {
            at += 1;
            continue;
        }
        let number = at + 1;
        let text = logical(&raw, &mut at, escape);
        let documents = documents(&text, number, &raw, &mut at, escape)?;
        found.push(Line {
            number,
            last: at,
            text,
            documents,
        });
    }
    Ok((escape, found))
}

/// Reads `# escape=…` and its like, which stand before everything else.
fn directives(raw: &[&str]) -> Result<char, ParseError> {
    let mut escape = None;
    for (index, line) in raw.iter().enumerate() {
        let Some(comment) = line.trim().strip_prefix('#') else {
            break;
        };
        let Some((name, value)) = comment.split_once('=') else {
            break;
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "escape" => {
                if escape.is_some() {
                    let message = "only one escape parser directive can be used";
                    return Err(ParseError::at(index + 1, message));
                }
                escape = Some(match value.trim() {
                    "\\" => '\\',
                    "`" => '`',
                    other => {
                        let message =
                            format!("invalid escape token '{other}' does not match ` or \\");
                        return Err(ParseError::at(index + 1, message));
                    }
                });
            }
            "syntax" | "check" => {}
            _ => break,
        }
    }
    Ok(escape.unwrap_or('\\'))
}

/// Joins a line with those that continue it; comments and empty lines between them do not count.
fn logical(raw: &[&str], at: &mut usize, escape: char) -> String {
    let (mut text, mut goes_on) = piece(raw[*at].trim_start(), escape);
    *at += 1;
    while goes_on && *at < raw.len() {
        let line = raw[*at];
        *at += 1;
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with('#') {
            continue;
        }
        let (more, again) = piece(line, escape);
        text.push_str(&more);
        goes_on = again;
    }
    text.trim_end().to_owned()
}

/// A line without its continuation mark, and whether it had one.
fn piece(line: &str, escape: char) -> (String, bool) {
    let trimmed = line.trim_end_matches([' ', '\t', '\r']);
    match trimmed.strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest.to_owned(), true),
        _ => (line.trim_end_matches('\r').to_owned(), false),
    }
}

fn documents(
    text: &str,
    number: usize,
    raw: &[&str],
    at: &mut usize,
    escape: char,
) -> Result<Vec<Heredoc>, ParseError> {
    let mut words = text.split_whitespace();
    let mut name = words.next().unwrap_or_default().to_ascii_uppercase();
    if name == "ONBUILD" {
        name = words.next().unwrap_or_default().to_ascii_uppercase();
    }
    if !WITH_DOCUMENTS.contains(&name.as_str()) {
        return Ok(Vec::new());
    }
    let mut found = heredoc::announced(text, escape);
    for document in &mut found {
        loop {
            let Some(line) = raw.get(*at) else {
                return Err(ParseError::at(number, "unterminated heredoc"));
            };
            *at += 1;
            let line = match document.strips_tabs {
                true => line.trim_start_matches('\t'),
                false => line,
            };
            if line == document.name {
                break;
            }
            document.text.push_str(line);
            document.text.push('\n');
        }
    }
    Ok(found)
}
