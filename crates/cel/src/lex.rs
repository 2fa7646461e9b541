//! Text to tokens.

use std::sync::Arc;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Ident(Arc<str>),
    Int(u64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    /// An operator or a bracket.
    Symbol(&'static str),
    End,
}

/// A token and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) token: Token,
    pub(crate) at: usize,
    pub(crate) end: usize,
}

/// A fault at an offset of the text.
pub(crate) type Fault = (usize, String);

const SYMBOLS: [&str; 27] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", "{", "}", ".", ",", "-",
    "+", "*", "/", "%", "?", ":", "=", "&", "|",
];

pub(crate) fn lex(source: &str) -> Result<Vec<Placed>, Fault> {
    let mut tokens = Vec::new();
    let mut lexer = Lexer { source, at: 0 };
    loop {
        lexer.skip_blank();
        let at = lexer.at;
        let token = lexer.token()?;
        let end = token == Token::End;
        tokens.push(Placed {
            token,
            at,
            end: lexer.at,
        });
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn token(&mut self) -> Result<Token, Fault> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token::End);
        };
        if first.is_ascii_digit()
            || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit()))
        {
            return self.number();
        }
        if let Some((raw, bytes, quote_at)) = string_prefix(rest) {
            return self.string(raw, bytes, quote_at);
        }
        if first == '_' || first.is_ascii_alphabetic() {
            let length = rest
                .find(|c: char| c != '_' && !c.is_ascii_alphanumeric())
                .unwrap_or(rest.len());
            self.at += length;
            return Ok(Token::Ident(rest[..length].into()));
        }
        match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            Some(symbol) => {
                self.at += symbol.len();
                Ok(Token::Symbol(symbol))
            }
            None => Err((
                self.at,
                format!("Syntax error: token recognition error at: '{first}'"),
            )),
        }
    }

    fn number(&mut self) -> Result<Token, Fault> {
        let start = self.at;
        let rest = self.rest();
        if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let length = hex
                .find(|c: char| !c.is_ascii_hexdigit())
                .unwrap_or(hex.len());
            if length > 0 {
                self.at += 2 + length;
                return self.integer(start, u64::from_str_radix(&hex[..length], 16).ok());
            }
        }
        let digits = |text: &str| {
            text.find(|c: char| !c.is_ascii_digit())
                .unwrap_or(text.len())
        };
        let mut length = digits(rest);
        let mut double = false;
        if rest[length..].starts_with('.')
            && rest[length + 1..].starts_with(|c: char| c.is_ascii_digit())
        {
            double = true;
            length += 1 + digits(&rest[length + 1..]);
        }
        if let Some(exponent) = rest[length..].strip_prefix(['e', 'E']) {
            let sign = usize::from(exponent.starts_with(['+', '-']));
            let count = digits(&exponent[sign..]);
            if count > 0 {
                double = true;
                length += 1 + sign + count;
            }
        }
        self.at += length;
        let text = &rest[..length];
        if double {
            return match text.parse() {
                Ok(number) => Ok(Token::Double(number)),
                Err(_) => Err((start, "invalid double literal".to_owned())),
            };
        }
        self.integer(start, text.parse().ok())
    }

    fn integer(&mut self, start: usize, number: Option<u64>) -> Result<Token, Fault> {
        let unsigned = self.rest().starts_with(['u', 'U']);
        self.at += usize::from(unsigned);
        match number {
            Some(number) if unsigned => Ok(Token::Uint(number)),
            Some(number) => Ok(Token::Int(number)),
            None if unsigned => Err((start, "invalid uint literal".to_owned())),
            None => Err((start, "invalid int literal".to_owned())),
        }
    }

    fn string(&mut self, raw: bool, bytes: bool, quote_at: usize) -> Result<Token, Fault> {
        let start = self.at;
        let body = &self.rest()[quote_at..];
        let single = &body[..1];
        let triple = single.repeat(3);
        let quote = if body.starts_with(&triple) {
            triple.as_str()
        } else {
            single
        };
        let body = &body[quote.len()..];
        let mut end = 0;
        loop {
            let rest = &body[end..];
            if rest.starts_with(quote) {
                break;
            }
            let mut chars = rest.chars();
            match chars.next() {
                None => {
                    return Err((
                        start,
                        format!(
                            "Syntax error: token recognition error at: '{}'",
                            self.rest()
                        ),
                    ));
                }
                Some('\n' | '\r') if quote.len() == 1 => {
                    return Err((
                        start,
                        format!(
                            "Syntax error: token recognition error at: '{}'",
                            &body[..end]
                        ),
                    ));
                }
                Some('\\') if !raw => end += 1 + chars.next().map_or(0, char::len_utf8),
                Some(other) => end += other.len_utf8(),
            }
        }
        self.at += quote_at + quote.len() * 2 + end;
        let text = &body[..end];
        let unescaped = if raw {
            Some(text.as_bytes().to_vec())
        } else {
            unescape(text, bytes)
        };
        let invalid = || (start, "invalid string literal".to_owned());
        let unescaped = unescaped.ok_or_else(invalid)?;
        if bytes {
            return Ok(Token::Bytes(unescaped.into()));
        }
        String::from_utf8(unescaped)
            .map(|text| Token::String(text.into()))
            .map_err(|_| invalid())
    }
}

/// Whether a string starts here: raw, bytes, and where its quote is.
fn string_prefix(rest: &str) -> Option<(bool, bool, usize)> {
    let (mut raw, mut bytes) = (false, false);
    for (index, c) in rest.char_indices().take(3) {
        match c {
            '\'' | '"' => return Some((raw, bytes, index)),
            'r' | 'R' if !raw => raw = true,
            'b' | 'B' if !bytes => bytes = true,
            _ => return None,
        }
    }
    None
}

fn unescape(text: &str, bytes: bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = rest.chars().next()?;
        rest = &rest[escape.len_utf8()..];
        let (radix, digits) = match escape {
            'x' | 'X' => (16, 2),
            'u' => (16, 4),
            'U' => (16, 8),
            '0'..='3' => {
                rest = &text[text.len() - rest.len() - 1..];
                (8, 3)
            }
            _ => {
                out.push(simple_escape(escape)?);
                continue;
            }
        };
        let number = u32::from_str_radix(rest.get(..digits)?, radix).ok()?;
        rest = &rest[digits..];
        // A character stands for its bytes, a number for one.
        if bytes && !matches!(escape, 'u' | 'U') {
            out.push(u8::try_from(number).ok()?);
        } else {
            out.extend_from_slice(char::from_u32(number)?.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    Some(out)
}

fn simple_escape(c: char) -> Option<u8> {
    Some(match c {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' | '\'' | '"' | '`' | '?' => c as u8,
        _ => return None,
    })
}
