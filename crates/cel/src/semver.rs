//! Semantic versions 2.0.0: numbers, what comes before a release, and build marks that do not count.

use std::cmp::Ordering;

/// One version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub(crate) numbers: [u64; 3],
    pre: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(String),
}

fn number(text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in number {text:?}"));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("Number must not contain leading zeroes {text:?}"));
    }
    text.parse()
        .map_err(|_| format!("number {text:?} is out of range"))
}

fn word(text: &str) -> Result<(), String> {
    match text.is_empty() || !text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        true => Err(format!("Invalid character(s) found in {text:?}")),
        false => Ok(()),
    }
}

impl Version {
    /// Reads a version; the error is what is wrong with it.
    pub fn parse(text: &str) -> Result<Version, String> {
        if text.is_empty() {
            return Err("Version string empty".to_owned());
        }
        let (rest, build) = text
            .split_once('+')
            .map_or((text, None), |(rest, build)| (rest, Some(build)));
        let (rest, pre) = rest
            .split_once('-')
            .map_or((rest, None), |(rest, pre)| (rest, Some(pre)));
        let parts: Vec<&str> = rest.split('.').collect();
        let [major, minor, patch] = parts[..] else {
            return Err("No Major.Minor.Patch elements found".to_owned());
        };
        build
            .into_iter()
            .flat_map(|build| build.split('.'))
            .try_for_each(word)?;
        let part = |text: &str| match text.bytes().all(|c| c.is_ascii_digit()) && !text.is_empty() {
            true => number(text).map(Part::Number),
            false => word(text).map(|()| Part::Word(text.to_owned())),
        };
        let pre = pre
            .into_iter()
            .flat_map(|pre| pre.split('.'))
            .map(part)
            .collect::<Result<_, _>>()?;
        Ok(Version {
            numbers: [number(major)?, number(minor)?, number(patch)?],
            pre,
        })
    }

    /// The same after what people write is made whole: a leading `v`, missing numbers, leading zeroes.
    pub(crate) fn normalized(text: &str) -> Result<Version, String> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let end = text.find(['-', '+']).unwrap_or(text.len());
        let (numbers, rest) = text.split_at(end);
        let mut parts: Vec<&str> = numbers
            .split('.')
            .map(|part| match part.trim_start_matches('0') {
                "" if !part.is_empty() => "0",
                trimmed => trimmed,
            })
            .collect();
        if parts.len() < 3 && !rest.is_empty() {
            return Err("Short version cannot contain PreRelease/Build meta data".to_owned());
        }
        while parts.len() < 3 {
            parts.push("0");
        }
        Version::parse(&format!("{}{rest}", parts.join(".")))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Version) -> Ordering {
        let released = |version: &Version| version.pre.is_empty();
        self.numbers
            .cmp(&other.numbers)
            .then_with(|| released(self).cmp(&released(other)))
            .then_with(|| self.pre.cmp(&other.pre))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Version) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
