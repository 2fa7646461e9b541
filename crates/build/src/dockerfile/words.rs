//! Words of a line, as a shell would see them, but with their quotes.

/// Splits at white space that is neither quoted nor escaped.
pub(super) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == escape && quote != Some('\'') {
            word.push(c);
            word.extend(chars.next());
            continue;
        }
        match quote {
            Some(open) => {
                word.push(c);
                if c == open {
                    quote = None;
                }
            }
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            None => {
                if c == '"' || c == '\'' {
                    quote = Some(c);
                }
                word.push(c);
            }
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// `["a", "b"]` as a list; anything else is not in this form.
pub(super) fn json_list(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    if !text.starts_with('[') {
        return None;
    }
    json::list(text)
}

/// As much of JSON as a list of strings needs.
mod json {
    pub(super) fn list(text: &str) -> Option<Vec<String>> {
        let mut rest = text.strip_prefix('[')?.trim_start();
        let mut found = Vec::new();
        if let Some(end) = rest.strip_prefix(']') {
            return end.trim().is_empty().then_some(found);
        }
        loop {
            let (word, after) = string(rest)?;
            found.push(word);
            rest = after.trim_start();
            if let Some(end) = rest.strip_prefix(']') {
                return end.trim().is_empty().then_some(found);
            }
            rest = rest.strip_prefix(',')?.trim_start();
        }
    }

    fn string(text: &str) -> Option<(String, &str)> {
        let inner = text.strip_prefix('"')?;
        let mut out = String::new();
        let mut chars = inner.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => return Some((out, &inner[at + 1..])),
                '\\' => match chars.next()?.1 {
                    'n' => out.push('\n'),
                    't' => out.push('\t'),
                    'r' => out.push('\r'),
                    'b' => out.push('\u{8}'),
                    'f' => out.push('\u{c}'),
                    'u' => out.push(unicode(&mut chars)?),
                    c @ ('"' | '\\' | '/') => out.push(c),
                    _ => return None,
                },
                c if u32::from(c) < 0x20 => return None,
                c => out.push(c),
            }
        }
        None
    }

    fn unicode(chars: &mut std::str::CharIndices<'_>) -> Option<char> {
        let mut unit = || -> Option<u32> {
            let mut value = 0;
            for _ in 0..4 {
                value = value * 16 + chars.next()?.1.to_digit(16)?;
            }
            Some(value)
        };
        let first = unit()?;
        if !(0xd800..0xdc00).contains(&first) {
            return Some(char::from_u32(first).unwrap_or('\u{fffd}'));
        }
        let (backslash, u) = (chars.next()?.1, chars.next()?.1);
        if (backslash, u) != ('\\', 'u') {
            return None;
        }
        let mut second = 0;
        for _ in 0..4 {
            second = second * 16 + chars.next()?.1.to_digit(16)?;
        }
        let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + low)
    }
}
