//! Shell patterns against values: `*` is anything, `?` one character, `\` takes the next as it is.

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Anything,
    One,
    Just(char),
}

fn parts(pattern: &str) -> Vec<Part> {
    let mut found = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' if found.last() == Some(&Part::Anything) => {}
            '*' => found.push(Part::Anything),
            '?' => found.push(Part::One),
            '\\' => found.push(Part::Just(chars.next().unwrap_or('\\'))),
            c => found.push(Part::Just(c)),
        }
    }
    found
}

/// Whether all of the text fits, in time linear in both.
fn fits(parts: &[Part], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        match parts.get(p) {
            Some(Part::Anything) => {
                back = Some((p, t));
                p += 1;
            }
            Some(Part::One) => (p, t) = (p + 1, t + 1),
            Some(Part::Just(c)) if *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match back {
                Some((star, from)) => {
                    back = Some((star, from + 1));
                    (p, t) = (star + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    parts[p..].iter().all(|part| *part == Part::Anything)
}

/// Takes the shortest or longest fitting beginning (or end) off.
pub(super) fn strip(value: &str, pattern: &str, front: bool, longest: bool) -> String {
    let (parts, chars) = (parts(pattern), value.chars().collect::<Vec<_>>());
    let fitting = |length: &usize| match front {
        true => fits(&parts, &chars[..*length]),
        false => fits(&parts, &chars[chars.len() - *length..]),
    };
    let length = match longest {
        true => (0..=chars.len()).rev().find(fitting),
        false => (0..=chars.len()).find(fitting),
    };
    let length = length.unwrap_or(0);
    match front {
        true => chars[length..].iter().collect(),
        false => chars[..chars.len() - length].iter().collect(),
    }
}

/// Puts the replacement where the pattern fits: first, or everywhere; the longest fit counts.
pub(super) fn replace(value: &str, pattern: &str, replacement: &str, all: bool) -> String {
    let (parts, chars) = (parts(pattern), value.chars().collect::<Vec<_>>());
    if parts.is_empty() {
        return value.to_owned();
    }
    let mut out = String::new();
    let mut at = 0;
    while at < chars.len() {
        let end = (at + 1..=chars.len())
            .rev()
            .find(|end| fits(&parts, &chars[at..*end]));
        match end {
            Some(end) => {
                out.push_str(replacement);
                at = end;
                if !all {
                    break;
                }
            }
            None => {
                out.push(chars[at]);
                at += 1;
            }
        }
    }
    out.extend(&chars[at..]);
    out
}
