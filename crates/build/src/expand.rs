//! Variables in words, as the Dockerfile reference has them: `$x`, `${x}`, `${x:-y}`, `${x:+y}`,
//! `${x:?y}` and their forms without colon, `${x#p}`, `${x##p}`, `${x%p}`, `${x%%p}`, `${x/p/r}`,
//! `${x//p/r}`; and quotes, which go.

use std::iter::Peekable;
use std::str::Chars;

mod pattern;

/// Words may be nested so deeply.
const DEPTH_LIMIT: usize = 32;
/// A word may grow so large.
const SIZE_LIMIT: usize = 4 << 20;

/// Why a word cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {word:?}: {why}")]
pub struct ExpandError {
    word: String,
    why: String,
}

/// Expands words with the variables that `lookup` knows.
pub struct Expander<'a> {
    pub escape: char,
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl Expander<'_> {
    /// One word, without its quotes.
    pub fn word(&self, word: &str) -> Result<String, ExpandError> {
        self.run(word, true).map(|words| words.join(""))
    }

    /// A word that may become several, or none: unquoted white space of variables splits.
    pub fn words(&self, word: &str) -> Result<Vec<String>, ExpandError> {
        let joined = self.word(word)?;
        Ok(joined.split_whitespace().map(str::to_owned).collect())
    }

    /// A text in which quotes mean nothing, such as a here-document.
    pub fn text(&self, text: &str) -> Result<String, ExpandError> {
        self.run(text, false).map(|words| words.join(""))
    }

    fn run(&self, word: &str, quotes: bool) -> Result<Vec<String>, ExpandError> {
        let mut lexer = Lexer {
            expander: self,
            chars: word.chars().peekable(),
            quotes,
            depth: 0,
        };
        let out = lexer.until(None);
        let out = out.map_err(|why| ExpandError {
            word: word.to_owned(),
            why,
        })?;
        Ok(vec![out])
    }
}

struct Lexer<'a> {
    expander: &'a Expander<'a>,
    chars: Peekable<Chars<'a>>,
    quotes: bool,
    depth: usize,
}

impl Lexer<'_> {
    /// Reads up to the character that ends it, or to the end of the word.
    fn until(&mut self, end: Option<char>) -> Result<String, String> {
        let mut out = String::new();
        while let Some(&c) = self.chars.peek() {
            if Some(c) == end {
                self.chars.next();
                return Ok(out);
            }
            if out.len() > SIZE_LIMIT {
                return Err("the result is too large".to_owned());
            }
            match c {
                '\'' if self.quotes => self.single(&mut out)?,
                '"' if self.quotes => self.double(&mut out)?,
                '$' => out.push_str(&self.dollar()?),
                c if c == self.expander.escape => {
                    self.chars.next();
                    match self.chars.next() {
                        None if self.quotes => {}
                        None => out.push(c),
                        // Where quotes mean nothing, only a dollar needs escaping.
                        Some(next) if !self.quotes && next != '$' && next != c => {
                            out.extend([c, next]);
                        }
                        Some(next) => out.push(next),
                    }
                }
                c => {
                    self.chars.next();
                    out.push(c);
                }
            }
        }
        match end {
            None => Ok(out),
            Some(end) => Err(format!("syntax error: missing '{end}'")),
        }
    }

    fn single(&mut self, out: &mut String) -> Result<(), String> {
        self.chars.next();
        for c in self.chars.by_ref() {
            if c == '\'' {
                return Ok(());
            }
            out.push(c);
        }
        Err("unexpected end of statement while looking for matching single-quote".to_owned())
    }

    fn double(&mut self, out: &mut String) -> Result<(), String> {
        self.chars.next();
        while let Some(&c) = self.chars.peek() {
            match c {
                '"' => {
                    self.chars.next();
                    return Ok(());
                }
                '$' => out.push_str(&self.dollar()?),
                c if c == self.expander.escape => {
                    self.chars.next();
                    match self.chars.next() {
                        Some(next) if next == '"' || next == '$' || next == c => out.push(next),
                        Some(next) => out.extend([c, next]),
                        None => out.push(c),
                    }
                }
                c => {
                    self.chars.next();
                    out.push(c);
                }
            }
        }
        Err("unexpected end of statement while looking for matching double-quote".to_owned())
    }

    fn dollar(&mut self) -> Result<String, String> {
        self.chars.next();
        if self.chars.peek() == Some(&'{') {
            self.chars.next();
            self.depth += 1;
            if self.depth > DEPTH_LIMIT {
                return Err("variables are nested too deeply".to_owned());
            }
            let value = self.braces();
            self.depth -= 1;
            return value;
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        Ok((self.expander.lookup)(&name).unwrap_or_default())
    }

    /// The name of a variable; digits and a few signs stand for themselves.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(&c) = self.chars.peek() {
            let special = c.is_ascii_digit() || matches!(c, '@' | '*' | '#');
            if name.is_empty() && special {
                self.chars.next();
                return c.to_string();
            }
            if c != '_' && !c.is_ascii_alphanumeric() {
                break;
            }
            name.push(c);
            self.chars.next();
        }
        name
    }

    fn braces(&mut self) -> Result<String, String> {
        if self.chars.peek() == Some(&'}') {
            return Err("syntax error: bad substitution".to_owned());
        }
        let name = self.name();
        if name.is_empty() {
            return Err("syntax error: bad substitution".to_owned());
        }
        let value = (self.expander.lookup)(&name);
        let Some(sign) = self.chars.next() else {
            return Err("syntax error: missing '}'".to_owned());
        };
        match sign {
            '}' => Ok(value.unwrap_or_default()),
            ':' => {
                let Some(sign) = self.chars.next() else {
                    return Err("syntax error: missing ':' in substitution".to_owned());
                };
                self.choice(&name, sign, value.filter(|value| !value.is_empty()))
            }
            '+' | '-' | '?' => self.choice(&name, sign, value),
            '#' | '%' => {
                let longest = self.chars.next_if_eq(&sign).is_some();
                let pattern = self.until(Some('}'))?;
                let value = value.unwrap_or_default();
                Ok(pattern::strip(&value, &pattern, sign == '#', longest))
            }
            '/' => {
                let all = self.chars.next_if_eq(&'/').is_some();
                let pattern = self.until(Some('/'))?;
                let replacement = self.until(Some('}'))?;
                let value = value.unwrap_or_default();
                Ok(pattern::replace(&value, &pattern, &replacement, all))
            }
            other => Err(format!("unsupported modifier ({other}) in substitution")),
        }
    }

    fn choice(&mut self, name: &str, sign: char, value: Option<String>) -> Result<String, String> {
        let word = self.until(Some('}'))?;
        match (sign, value) {
            ('-', value) => Ok(value.unwrap_or(word)),
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            ('?', Some(value)) => Ok(value),
            ('?', None) => match word.is_empty() {
                true => Err(format!("{name}: is not allowed to be unset")),
                false => Err(format!("{name}: {word}")),
            },
            (other, _) => Err(format!("unsupported modifier ({other}) in substitution")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<String, String> {
        let lookup = |name: &str| match name {
            "x" => Some("value".to_owned()),
            "empty" => Some(String::new()),
            "path" => Some("a/b/c.tar.gz".to_owned()),
            "two" => Some("one two".to_owned()),
            _ => None,
        };
        let expander = Expander {
            escape: '\\',
            lookup: &lookup,
        };
        expander.word(text).map_err(|error| error.why)
    }

    #[test]
    fn the_forms_of_the_reference() {
        for (text, wanted) in [
            ("$x/${x}", "value/value"),
            ("'$x' \"$x\" \\$x", "$x value $x"),
            ("${x:-y} ${no:-y} ${empty:-y} ${empty-y}", "value y y "),
            ("${x:+y}${no:+y}${empty+y}", "yy"),
            ("${no:-${x}s}", "values"),
            (
                "${path#*/} ${path##*/} ${path%.*} ${path%%.*}",
                "b/c.tar.gz c.tar.gz a/b/c.tar a/b/c",
            ),
            ("${path/b/X} ${path//a/o}", "a/X/c.tar.gz o/b/c.tor.gz"),
            ("${x#v?l}", "ue"),
            ("$no$1$", "$"),
            ("$xy", ""),
            ("${x:?gone}", "value"),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, wanted) in [
            (
                "\"open",
                "unexpected end of statement while looking for matching double-quote",
            ),
            ("${x", "syntax error: missing '}'"),
            ("${}", "syntax error: bad substitution"),
            ("${no:?gone}", "no: gone"),
            ("${no?}", "no: is not allowed to be unset"),
            ("${x@y}", "unsupported modifier (@) in substitution"),
        ] {
            assert_eq!(expand(text), Err(wanted.to_owned()), "{text}");
        }
    }

    #[test]
    fn texts_keep_their_quotes_and_words_split() {
        let lookup = |_: &str| Some("1 2".to_owned());
        let expander = Expander {
            escape: '\\',
            lookup: &lookup,
        };
        assert_eq!(
            expander.text("\"$x\" '\\$x' \\n").unwrap(),
            "\"1 2\" '$x' \\n"
        );
        assert_eq!(expander.words("$x").unwrap(), ["1", "2"]);
    }
}
