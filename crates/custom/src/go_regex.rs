//! What Go says of a regular expression that it cannot read.

/// Repetitions beyond this are refused.
const REPEAT_MAX: u32 = 1000;

/// The first fault of a pattern in Go's words; `None` where none is found.
pub(crate) fn fault(pattern: &str) -> Option<String> {
    let mut scan = Scan {
        pattern,
        at: 0,
        open: 0,
        repeatable: false,
        repeated: None,
    };
    match scan.whole() {
        Ok(()) => None,
        Err((why, part)) => Some(format!("error parsing regexp: {why}: `{part}`")),
    }
}

type Fault<'p> = (&'static str, &'p str);

struct Scan<'p> {
    pattern: &'p str,
    at: usize,
    /// Groups that are not closed yet.
    open: usize,
    /// Whether something stands here that may be repeated.
    repeatable: bool,
    /// Where the repetition began that ends here.
    repeated: Option<usize>,
}

impl<'p> Scan<'p> {
    fn rest(&self) -> &'p str {
        &self.pattern[self.at..]
    }

    fn whole(&mut self) -> Result<(), Fault<'p>> {
        while let Some(next) = self.rest().chars().next() {
            match next {
                '*' | '+' | '?' => self.repeat(1)?,
                '{' => match bounds(self.rest()) {
                    Some((length, fits)) => {
                        if !fits {
                            return Err(("invalid repeat count", &self.rest()[..length]));
                        }
                        self.repeat(length)?;
                    }
                    None => self.atom(1),
                },
                '(' => self.group()?,
                ')' if self.open == 0 => return Err(("unexpected )", self.pattern)),
                ')' => {
                    self.open -= 1;
                    self.atom(1);
                }
                '|' => {
                    self.at += 1;
                    (self.repeatable, self.repeated) = (false, None);
                }
                '[' => self.class()?,
                '\\' => {
                    let length = escape(self.rest())?;
                    self.atom(length);
                }
                other => self.atom(other.len_utf8()),
            }
        }
        match self.open {
            0 => Ok(()),
            _ => Err(("missing closing )", self.pattern)),
        }
    }

    fn atom(&mut self, length: usize) {
        self.at += length;
        (self.repeatable, self.repeated) = (true, None);
    }

    fn repeat(&mut self, mut length: usize) -> Result<(), Fault<'p>> {
        // A question mark behind makes it lazy.
        length += usize::from(self.rest()[length..].starts_with('?'));
        let end = self.at + length;
        if let Some(first) = self.repeated {
            let part = &self.pattern[first..end];
            return Err(("invalid nested repetition operator", part));
        }
        if !self.repeatable {
            let part = &self.pattern[self.at..end];
            return Err(("missing argument to repetition operator", part));
        }
        self.repeated = Some(self.at);
        self.at = end;
        Ok(())
    }

    fn group(&mut self) -> Result<(), Fault<'p>> {
        let rest = self.rest();
        (self.repeatable, self.repeated) = (false, None);
        let Some(inside) = rest.strip_prefix("(?") else {
            self.at += 1;
            self.open += 1;
            return Ok(());
        };
        if let Some(named) = inside.strip_prefix("P<").or(inside.strip_prefix('<')) {
            let start = rest.len() - named.len();
            let Some(end) = named.find('>') else {
                return Err(("invalid named capture", rest));
            };
            let word = |sign: char| sign == '_' || sign.is_alphanumeric();
            if end == 0 || !named[..end].chars().all(word) {
                return Err(("invalid named capture", &rest[..start + end + 1]));
            }
            self.at += start + end + 1;
            self.open += 1;
            return Ok(());
        }
        for (index, sign) in inside.char_indices() {
            let end = 2 + index + sign.len_utf8();
            match sign {
                'i' | 'm' | 's' | 'U' | '-' => {}
                ':' | ')' if index > 0 || sign == ':' => {
                    self.at += end;
                    self.open += usize::from(sign == ':');
                    return Ok(());
                }
                _ => return Err(("invalid or unsupported Perl syntax", &rest[..end])),
            }
        }
        Err(("missing closing )", self.pattern))
    }

    fn class(&mut self) -> Result<(), Fault<'p>> {
        let rest = self.rest();
        let mut at = 1 + usize::from(rest[1..].starts_with('^'));
        let first = at;
        loop {
            let Some(sign) = rest[at..].chars().next() else {
                return Err(("missing closing ]", rest));
            };
            if sign == ']' && at > first {
                self.atom(at + 1);
                return Ok(());
            }
            if let Some(named) = rest[at..].strip_prefix("[:")
                && let Some(end) = named.find(":]")
            {
                let known = named[..end].trim_start_matches('^');
                if !CLASSES.contains(&known) {
                    return Err(("invalid character class range", &rest[at..at + end + 4]));
                }
                at += end + 4;
                continue;
            }
            let low = single(&rest[at..])?;
            let behind = &rest[at + low..];
            let Some(high) = behind
                .strip_prefix('-')
                .filter(|rest| !rest.starts_with(']'))
            else {
                at += low;
                continue;
            };
            if high.is_empty() {
                return Err(("missing closing ]", rest));
            }
            let end = at + low + 1 + single(high)?;
            let plain = |text: &str| text.chars().next().filter(|sign| *sign != '\\');
            if let (Some(low), Some(high)) = (plain(&rest[at..]), plain(high))
                && high < low
            {
                return Err(("invalid character class range", &rest[at..end]));
            }
            at = end;
        }
    }
}

const CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// The length of one member of a class.
fn single(text: &str) -> Result<usize, Fault<'_>> {
    match text.chars().next() {
        Some('\\') => escape(text),
        Some(sign) => Ok(sign.len_utf8()),
        None => Ok(0),
    }
}

/// The length of an escape.
fn escape(text: &str) -> Result<usize, Fault<'_>> {
    let mut signs = text[1..].chars();
    let Some(sign) = signs.next() else {
        return Err(("trailing backslash at end of expression", ""));
    };
    let next = signs.next();
    let known = match sign {
        'A' | 'B' | 'C' | 'D' | 'E' | 'P' | 'Q' | 'S' | 'W' | 'a' | 'b' | 'd' | 'f' | 'n' | 'p'
        | 'r' | 's' | 't' | 'v' | 'w' | 'x' | 'z' | '0' => true,
        '1'..='7' => next.is_some_and(|next| ('0'..='7').contains(&next)),
        other => other.is_ascii() && !other.is_ascii_alphanumeric(),
    };
    let length = 1 + sign.len_utf8();
    match known {
        true => Ok(length),
        false => Err(("invalid escape sequence", &text[..length])),
    }
}

/// The length of `{n,m}` and whether its numbers fit; `None` where the brace stands for itself.
fn bounds(text: &str) -> Option<(usize, bool)> {
    let end = text.find('}')?;
    let (least, most) = match text[1..end].split_once(',') {
        Some((least, most)) => (least, Some(most)),
        None => (&text[1..end], None),
    };
    let is_number =
        |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    let open = most.is_none_or(str::is_empty);
    if !is_number(least) || !(open || most.is_some_and(is_number)) {
        return None;
    }
    let number = |text: &str| text.parse::<u32>().unwrap_or(u32::MAX);
    let least = number(least);
    let most = most.filter(|_| !open).map_or(least, number);
    Some((end + 1, least <= most && most <= REPEAT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_named_as_go_names_them() {
        for (pattern, wanted) in [
            ("*", "missing argument to repetition operator: `*`"),
            ("a|+?", "missing argument to repetition operator: `+?`"),
            ("a**", "invalid nested repetition operator: `**`"),
            ("a{2}{3}", "invalid nested repetition operator: `{2}{3}`"),
            ("a{1001}", "invalid repeat count: `{1001}`"),
            ("a{2,1}", "invalid repeat count: `{2,1}`"),
            ("(a", "missing closing ): `(a`"),
            ("a)", "unexpected ): `a)`"),
            ("x[ab", "missing closing ]: `[ab`"),
            ("[z-a]", "invalid character class range: `z-a`"),
            ("[[:word1:]]", "invalid character class range: `[:word1:]`"),
            ("^(?=a)b", "invalid or unsupported Perl syntax: `(?=`"),
            ("(?<!a)b", "invalid named capture: `(?<!a)b`"),
            (r"a\y", r"invalid escape sequence: `\y`"),
            (r"(a)\1", r"invalid escape sequence: `\1`"),
            ("a\\", "trailing backslash at end of expression: ``"),
        ] {
            let found = fault(pattern);
            let wanted = format!("error parsing regexp: {wanted}");
            assert_eq!(found.as_deref(), Some(wanted.as_str()), "{pattern}");
        }
    }

    #[test]
    fn sound_ones_have_none() {
        for pattern in [
            "",
            r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]+)*$",
            "a{,2}b{x}",
            "(?i)a(?P<n>b)(?:c)(?<m>d)",
            "[]a-][^]][[:alpha:]-z]",
            r"\d+\.\p{L}\x41[\w\-.]+?",
            "äö|ü{2,}",
        ] {
            assert_eq!(fault(pattern), None, "{pattern}");
        }
    }
}
