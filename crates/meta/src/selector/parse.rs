//! The text form of selectors, read token by token: what is refused is refused in upstream's words.

use super::{FieldSelector, LabelSelector, Requirement, SelectorError};
use crate::naming;

/// What may stand between a key and its values.
const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

/// One token of a label selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    End,
    Word(&'a str),
    /// `in` or `notin`, which are words where values are expected.
    Keyword(&'a str),
    /// One of `( ) , ! = == != > <`.
    Sign(&'a str),
    Unknown(&'a str),
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Token::End => "",
            Token::Word(text) | Token::Keyword(text) | Token::Sign(text) | Token::Unknown(text) => {
                text
            }
        }
    }

    /// A keyword is a word like any other here.
    fn as_value(self) -> Token<'a> {
        match self {
            Token::Keyword(text) => Token::Word(text),
            token => token,
        }
    }
}

fn is_sign(byte: u8) -> bool {
    b"=!(),><".contains(&byte)
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let bytes = text.as_bytes();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while let Some(first) = bytes.get(at) {
        let start = at;
        match first {
            b' ' | b'\t' | b'\r' | b'\n' => {
                at += 1;
                continue;
            }
            byte if is_sign(*byte) => {
                let double = matches!(bytes.get(at..at + 2), Some(b"==" | b"!="));
                at += if double { 2 } else { 1 };
                tokens.push(Token::Sign(&text[start..at]));
            }
            _ => {
                let ends = |byte: &u8| is_sign(*byte) || b" \t\r\n".contains(byte);
                at = bytes[at..]
                    .iter()
                    .position(ends)
                    .map_or(bytes.len(), |length| at + length);
                tokens.push(match &text[start..at] {
                    word @ ("in" | "notin") => Token::Keyword(word),
                    word if word.contains('\0') => Token::Unknown(word),
                    word => Token::Word(word),
                });
            }
        }
    }
    tokens
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

type Read<T> = Result<T, String>;

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        let token = self.tokens.get(self.at).copied();
        token.unwrap_or(Token::End).as_value()
    }

    /// The next token, with keywords told apart.
    fn operator(&mut self) -> Token<'a> {
        let token = self.tokens.get(self.at).copied();
        self.at += 1;
        token.unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        self.operator().as_value()
    }

    fn selector(&mut self) -> Read<Vec<Requirement>> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::End => return Ok(requirements),
                Token::Word(_) | Token::Sign("!") => {}
                token => {
                    let found = token.text();
                    return Err(format!(
                        "found '{found}', expected: !, identifier, or 'end of string'"
                    ));
                }
            }
            let requirement = self.requirement();
            requirements
                .push(requirement.map_err(|why| format!("unable to parse requirement: {why}"))?);
            match self.next() {
                Token::End => return Ok(requirements),
                Token::Sign(",") => match self.peek() {
                    Token::Word(_) | Token::Sign("!") => {}
                    token => {
                        let found = token.text();
                        return Err(format!("found '{found}', expected: identifier after ','"));
                    }
                },
                token => {
                    let found = token.text();
                    return Err(format!("found '{found}', expected: ',' or 'end of string'"));
                }
            }
        }
    }

    fn requirement(&mut self) -> Read<Requirement> {
        let negated = self.peek() == Token::Sign("!");
        if negated {
            self.at += 1;
        }
        let key = match self.next() {
            Token::Word(key) => label_key(key)?,
            token => return Err(format!("found '{}', expected: identifier", token.text())),
        };
        if negated {
            return Ok(Requirement::Absent(key));
        }
        if matches!(self.peek(), Token::End | Token::Sign(",")) {
            return Ok(Requirement::Exists(key));
        }
        let operator = self.operator();
        let values = match operator {
            Token::Keyword(_) => self.values()?,
            Token::Sign("=" | "==" | "!=" | ">" | "<") => vec![self.exact_value()?],
            token => return Err(format!("found '{}', expected: {OPERATORS}", token.text())),
        };
        judged(key, operator.text(), values)
    }

    fn values(&mut self) -> Read<Vec<String>> {
        match self.next() {
            Token::Sign("(") => {}
            token => return Err(format!("found '{}' expected: '('", token.text())),
        }
        match self.peek() {
            Token::Word(_) | Token::Sign(",") => {
                let mut values = self.list()?;
                self.at += 1;
                values.sort_unstable();
                values.dedup();
                Ok(values)
            }
            Token::Sign(")") => {
                self.at += 1;
                Ok(vec![String::new()])
            }
            token => Err(format!(
                "found '{}', expected: ',', ')' or identifier",
                token.text()
            )),
        }
    }

    /// What stands in parentheses; ends before the closing one.
    fn list(&mut self) -> Read<Vec<String>> {
        let mut values = Vec::new();
        loop {
            match self.next() {
                Token::Word(value) => {
                    values.push(value.to_owned());
                    match self.peek() {
                        Token::Sign(",") => {}
                        Token::Sign(")") => return Ok(values),
                        token => {
                            return Err(format!("found '{}', expected: ',' or ')'", token.text()));
                        }
                    }
                }
                Token::Sign(",") => {
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    match self.peek() {
                        Token::Sign(")") => {
                            values.push(String::new());
                            return Ok(values);
                        }
                        Token::Sign(",") => {
                            self.at += 1;
                            values.push(String::new());
                        }
                        _ => {}
                    }
                }
                token => {
                    let found = token.text();
                    return Err(format!("found '{found}', expected: ',', or identifier"));
                }
            }
        }
    }

    fn exact_value(&mut self) -> Read<String> {
        match self.peek() {
            Token::End | Token::Sign(",") => Ok(String::new()),
            Token::Word(value) => {
                self.at += 1;
                Ok(value.to_owned())
            }
            token => Err(format!("found '{}', expected: identifier", token.text())),
        }
    }
}

fn judged(key: String, operator: &str, values: Vec<String>) -> Read<Requirement> {
    let mut faults = Vec::new();
    let bound = |value: &String| value.parse::<i64>();
    if matches!(operator, ">" | "<") {
        for value in values.iter().filter(|value| bound(value).is_err()) {
            faults.push(format!(
                "values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be \
                 an integer"
            ));
        }
    }
    for (at, value) in values.iter().enumerate() {
        let rules = naming::label_value(value);
        if !rules.is_empty() {
            let rules = rules.join("; ");
            faults.push(format!(
                "values[{at}][{key}]: Invalid value: {value:?}: {rules}"
            ));
        }
    }
    match faults.as_slice() {
        [] => {}
        [fault] => return Err(fault.clone()),
        faults => return Err(format!("[{}]", faults.join(", "))),
    }
    let number = values.first().map_or(0, |value| bound(value).unwrap_or(0));
    let one = || values.first().cloned().unwrap_or_default();
    Ok(match operator {
        "=" | "==" => Requirement::Equal(key, one()),
        "!=" => Requirement::NotEqual(key, one()),
        "notin" => Requirement::NotIn(key, values),
        ">" => Requirement::GreaterThan(key, number),
        "<" => Requirement::LessThan(key, number),
        _ => Requirement::In(key, values),
    })
}

fn label_key(key: &str) -> Read<String> {
    match naming::qualified_name(key) {
        rules if rules.is_empty() => Ok(key.to_owned()),
        rules => Err(format!(
            "<nil>: Invalid value: {key:?}: {}",
            rules.join("; ")
        )),
    }
}

/// Reads `app=web,tier in (a,b),!canary`.
pub(super) fn labels(text: &str) -> Result<LabelSelector, SelectorError> {
    let mut parser = Parser {
        tokens: tokens(text),
        at: 0,
    };
    let requirements = parser.selector().map_err(SelectorError)?;
    Ok(LabelSelector { requirements })
}

/// Reads `metadata.name=web,status.phase!=Running`.
pub(super) fn fields(text: &str) -> Result<FieldSelector, SelectorError> {
    let mut selector = FieldSelector::default();
    for term in terms(text).into_iter().filter(|term| !term.is_empty()) {
        let Some((field, equal, value)) = split(term) else {
            let why = format!("invalid selector: '{text}'; can't understand '{term}'");
            return Err(SelectorError(why));
        };
        let value = unescaped(value)?;
        selector.requirements.push((field.to_owned(), equal, value));
    }
    Ok(selector)
}

/// Parts between commas that no backslash precedes.
fn terms(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, sign) in text.char_indices() {
        match sign {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Field, whether it is to be equal, and the value as it was written.
fn split(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.find(['=', '!'])?;
    for (at, _) in term.char_indices().filter(|(own, _)| *own >= at) {
        let rest = &term[at..];
        for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((&term[..at], equal, value));
            }
        }
    }
    None
}

fn unescaped(value: &str) -> Result<String, SelectorError> {
    let mut plain = String::with_capacity(value.len());
    let mut escaped = false;
    for sign in value.chars() {
        match (escaped, sign) {
            (true, '\\' | ',' | '=') => {
                plain.push(sign);
                escaped = false;
            }
            (true, sign) => {
                let why = format!("invalid field selector: invalid escape sequence: \\{sign}");
                return Err(SelectorError(why));
            }
            (false, '\\') => escaped = true,
            (false, ',' | '=') => {
                let code = u32::from(sign);
                let why = format!("invalid field selector: unescaped character in value: {code}");
                return Err(SelectorError(why));
            }
            (false, sign) => plain.push(sign),
        }
    }
    match escaped {
        false => Ok(plain),
        true => Err(SelectorError(
            "invalid field selector: invalid escape sequence: \\".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_refused_in_upstreams_words() {
        for (text, why) in [
            (
                "a in",
                "unable to parse requirement: found '' expected: '('",
            ),
            (
                ",",
                "found ',', expected: !, identifier, or 'end of string'",
            ),
            ("a=b,", "found '', expected: identifier after ','"),
            (
                "=b",
                "found '=', expected: !, identifier, or 'end of string'",
            ),
            (
                "a foo b",
                "unable to parse requirement: found 'foo', expected: in, notin, =, ==, !=, gt, lt",
            ),
            (
                "(a)",
                "found '(', expected: !, identifier, or 'end of string'",
            ),
            (
                "a in (b",
                "unable to parse requirement: found '', expected: ',' or ')'",
            ),
            (
                "a in (B c)",
                "unable to parse requirement: found 'c', expected: ',' or ')'",
            ),
            ("!a=b", "found '=', expected: ',' or 'end of string'"),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' \
                 operators, the value must be an integer",
            ),
        ] {
            assert_eq!(labels(text).unwrap_err().0, why, "{text}");
        }
        let long = labels(&format!("a={}", "x".repeat(64))).unwrap_err().0;
        assert!(long.contains(": values[0][a]: Invalid value: "), "{long}");
        let key = labels("-a").unwrap_err().0;
        assert!(key.contains(": <nil>: Invalid value: \"-a\": "), "{key}");
    }

    #[test]
    fn keywords_are_words_where_values_are_expected() {
        let read = |text: &str| labels(text).unwrap().to_string();
        assert_eq!(read("in in (notin, in)"), "in in (in,notin)");
        assert_eq!(read("a in (,)"), "a in ()");
        assert_eq!(read("a in ()"), "a in ()");
        assert_eq!(read(" a , !b "), "a,!b");
        assert_eq!(read("a==b,c!=d,e>5"), "a=b,c!=d,e>5");
    }

    #[test]
    fn field_values_may_be_escaped() {
        assert_eq!(fields("a=b\\,c").unwrap().required_value("a"), Some("b,c"));
        for (text, why) in [
            ("a=\\", "invalid escape sequence: \\"),
            ("a=b\\n", "invalid escape sequence: \\n"),
            ("a=b=c", "unescaped character in value: 61"),
        ] {
            let whole = format!("invalid field selector: {why}");
            assert_eq!(fields(text).unwrap_err().0, whole);
        }
        let why = "invalid selector: 'a=b,foo'; can't understand 'foo'";
        assert_eq!(fields("a=b,foo").unwrap_err().0, why);
    }
}
