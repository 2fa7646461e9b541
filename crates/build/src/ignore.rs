//! `.dockerignore`: which files of a context are left out. Patterns are those of Go's
//! `filepath.Match`, with `**` for any number of folders; the last one that fits decides, and `!`
//! takes back in.

use regex::Regex;

/// A file of patterns larger than this is refused.
const SIZE_LIMIT: usize = 1 << 20;
const PATTERN_LIMIT: usize = 10_000;

/// What is wrong with a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    #[error("error reading .dockerignore: illegal exclusion pattern: {0:?}")]
    Exclusion(String),
    #[error("syntax error in pattern: {0:?}")]
    Pattern(String),
    #[error("error reading .dockerignore: too large")]
    Size,
}

/// The rules of one file.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    keeps: bool,
    /// The pattern, and each folder above what it names.
    fits: Regex,
    text: String,
}

impl Ignore {
    /// Reads the lines of a file.
    pub fn parse(text: &str) -> Result<Ignore, IgnoreError> {
        if text.len() > SIZE_LIMIT {
            return Err(IgnoreError::Size);
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Ignore::of(lines.map(str::trim).filter(|line| !line.is_empty()))
    }

    /// From patterns alone, such as those of `COPY --exclude`.
    pub fn of<'a>(patterns: impl Iterator<Item = &'a str>) -> Result<Ignore, IgnoreError> {
        let mut rules = Vec::new();
        for line in patterns {
            if rules.len() == PATTERN_LIMIT {
                return Err(IgnoreError::Size);
            }
            let (keeps, pattern) = match line.strip_prefix('!') {
                Some("") => return Err(IgnoreError::Exclusion(line.to_owned())),
                Some(pattern) => (true, pattern.trim()),
                None => (false, line),
            };
            let pattern = clean(pattern);
            if pattern.is_empty() {
                continue;
            }
            rules.push(Rule {
                keeps,
                fits: translate(&pattern)?,
                text: pattern,
            });
        }
        Ok(Ignore { rules })
    }

    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a path (without leading slash) is left out, by itself or with a folder above it.
    pub fn leaves_out(&self, path: &str) -> bool {
        let mut out = false;
        for rule in &self.rules {
            if rule.keeps == out && rule.hits(path) {
                out = !rule.keeps;
            }
        }
        out
    }

    /// Whether something below a folder that is left out might be taken back in.
    pub fn may_keep_below(&self, folder: &str) -> bool {
        let below = |rule: &&Rule| {
            let top = folder.split('/').next().unwrap_or_default();
            rule.text.starts_with(['*', '?', '[']) || rule.text.split('/').next() == Some(top)
        };
        self.rules.iter().any(|rule| rule.keeps && below(&rule))
    }
}

impl Rule {
    fn hits(&self, path: &str) -> bool {
        let mut part = path;
        loop {
            if self.fits.is_match(part) {
                return true;
            }
            match part.rsplit_once('/') {
                Some((parent, _)) => part = parent,
                None => return false,
            }
        }
    }
}

/// A path without `.`, `..` and superfluous slashes, relative to the context.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The pattern as a regular expression.
pub(crate) fn translate(pattern: &str) -> Result<Regex, IgnoreError> {
    let wrong = || IgnoreError::Pattern(pattern.to_owned());
    let mut out = "(?s)^".to_owned();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => match chars.next_if_eq(&'/') {
                Some(_) => out.push_str("(.*/)?"),
                None => out.push_str(".*"),
            },
            '*' => out.push_str("[^/]*"),
            '?' => out.push_str("[^/]"),
            '\\' => {
                let next = chars.next().ok_or_else(wrong)?;
                out.push_str(&regex::escape(&next.to_string()));
            }
            '[' => class(&mut chars, &mut out).ok_or_else(wrong)?,
            c => out.push_str(&regex::escape(&c.to_string())),
        }
    }
    out.push('$');
    Regex::new(&out).map_err(|_| wrong())
}

/// `[a-z]`, `[^x]`.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) -> Option<()> {
    out.push('[');
    if chars.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut empty = true;
    loop {
        match chars.next()? {
            ']' if !empty => break,
            ']' => return None,
            '\\' => out.push_str(&regex::escape(&chars.next()?.to_string())),
            '-' => out.push('-'),
            c => out.push_str(&regex::escape(&c.to_string())),
        }
        empty = false;
    }
    out.push(']');
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pattern_that_fits_decides() {
        let ignore = Ignore::parse(
            "# comment\n*.md\n!README*.md\nREADME-secret.md\n/build\n**/*.o\n  docs/**/tmp  \nv[0-9]?\n",
        )
        .unwrap();
        for (path, out) in [
            ("a.md", true),
            ("sub/a.md", false),
            ("README.md", false),
            ("README-secret.md", true),
            ("build", true),
            ("build/deep/file", true),
            ("src/build", false),
            ("x.o", true),
            ("a/b/x.o", true),
            ("docs/tmp", true),
            ("docs/a/b/tmp/file", true),
            ("v1x", true),
            ("vxx", false),
        ] {
            assert_eq!(ignore.leaves_out(path), out, "{path}");
        }
    }

    #[test]
    fn all_but_one_folder() {
        let ignore = Ignore::parse("*\n!keep\nkeep/not\n").unwrap();
        assert!(ignore.leaves_out("other/file") && !ignore.leaves_out("keep/file"));
        assert!(ignore.leaves_out("keep/not/file"));
        assert!(ignore.may_keep_below("keep") && !ignore.may_keep_below("other"));
        assert!(Ignore::parse("!\n").is_err() && Ignore::parse("[a\n").is_err());
        assert!(Ignore::parse("./\n..\n").unwrap().is_empty());
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in "[a\\*?\\[\\]!/.\\\\^\n-]{0,24}", path in "[a/.b]{0,12}") {
            if let Ok(ignore) = Ignore::parse(&text) {
                ignore.leaves_out(&path);
                ignore.may_keep_below(&path);
            }
        }
    }
}
