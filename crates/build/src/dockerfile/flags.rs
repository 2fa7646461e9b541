//! `--flags` in front of an instruction's arguments.

/// Names and values.
pub(super) type Flags = Vec<(String, String)>;

/// Takes the flags off; each may be given once, but for those in `many`.
pub(super) fn take<'a>(
    text: &'a str,
    known: &[&str],
    many: &[&str],
) -> Result<(Flags, &'a str), String> {
    let mut found = Flags::new();
    let mut rest = text.trim_start();
    while let Some(after) = rest.strip_prefix("--") {
        let (word, next) = word(after);
        rest = next.trim_start();
        if word.is_empty() {
            // A lone `--` ends the flags.
            break;
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (word.clone(), "true".to_owned()),
        };
        if !known.contains(&name.as_str()) {
            return Err(format!("unknown flag: --{name}"));
        }
        let boolean = ["link", "parents", "keep-git-dir", "required"].contains(&name.as_str());
        if !boolean && !word.contains('=') {
            return Err(format!("missing a value on flag: {name}"));
        }
        if boolean && !["true", "false"].contains(&value.as_str()) {
            return Err(format!(
                "expecting boolean value for flag {name}, not: {value}"
            ));
        }
        if !many.contains(&name.as_str()) && found.iter().any(|(other, _)| *other == name) {
            return Err(format!("duplicate flag specified: {name}"));
        }
        found.push((name, value));
    }
    Ok((found, rest))
}

/// The first word, without quotes, and what follows it.
fn word(text: &str) -> (String, &str) {
    let mut out = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => return (out, &text[at..]),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (_, '\\') => out.extend(chars.next().map(|(_, c)| c)),
            (_, c) => out.push(c),
        }
    }
    (out, "")
}

/// One value, where it was given.
pub(super) fn get(flags: &[(String, String)], name: &str) -> Option<String> {
    let found = flags.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.clone())
}
