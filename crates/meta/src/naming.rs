//! Rules for names, labels and ports, with upstream's messages. Each function
//! returns the rules that were broken; none means that the text is sound.

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

/// RFC 1123 label: lower-case alphanumerics and `-`, at most 63 bytes.
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut faults = length_faults(text, LABEL_MAX);
    if !is_label(text) {
        faults.push(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or \
             '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
             '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
                .into(),
        );
    }
    faults
}

/// RFC 1123 subdomain: labels joined by dots, at most 253 bytes.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut faults = length_faults(text, SUBDOMAIN_MAX);
    if text.is_empty() || !text.split('.').all(is_label) {
        faults.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
             '-' or '.', and must start and end with an alphanumeric character (e.g. \
             'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .into(),
        );
    }
    faults
}

/// RFC 1035 label: like RFC 1123, but starts with a letter.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut faults = length_faults(text, LABEL_MAX);
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        faults.push(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start \
             with an alphabetic character, and end with an alphanumeric character (e.g. \
             'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
                .into(),
        );
    }
    faults
}

/// A name that is a path segment, as RBAC objects have: anything but `.`, `..`, `/` and `%`.
pub fn path_segment(text: &str) -> Vec<String> {
    match text {
        "." | ".." => vec![format!("may not be '{text}'")],
        _ => {
            let bad = ['/', '%'].into_iter().filter(|sign| text.contains(*sign));
            bad.map(|sign| format!("may not contain '{sign}'"))
                .collect()
        }
    }
}

/// A label key or other qualified name: `[prefix/]name`.
pub fn qualified_name(text: &str) -> Vec<String> {
    const RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start \
        and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', \
        regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    let mut faults = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            return vec![format!(
                "a qualified name {RULE} with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')"
            )];
        }
        Some(("", name)) => {
            faults.push("prefix part must be non-empty".into());
            name
        }
        Some((prefix, name)) => {
            let prefixed = dns1123_subdomain(prefix).into_iter();
            faults.extend(prefixed.map(|fault| format!("prefix part {fault}")));
            name
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".into());
    }
    let long = length_faults(name, LABEL_MAX).into_iter();
    faults.extend(long.map(|fault| format!("name part {fault}")));
    if !is_qualified_part(name) {
        faults.push(format!("name part {RULE}"));
    }
    faults
}

/// A label's value: empty, or as the name part of a qualified name.
pub fn label_value(text: &str) -> Vec<String> {
    let mut faults = length_faults(text, LABEL_MAX);
    if !text.is_empty() && !is_qualified_part(text) {
        faults.push(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', \
             '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  \
             or 'my_value',  or '12345', regex used for validation is \
             '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
                .into(),
        );
    }
    faults
}

/// A port number: 1 to 65535.
pub fn port_number(port: i64) -> Vec<String> {
    match port {
        1..=65535 => Vec::new(),
        _ => vec!["must be between 1 and 65535, inclusive".into()],
    }
}

/// A port's name (IANA service name): at most 15 characters with at least one letter.
pub fn port_name(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > 15 {
        faults.push("must be no more than 15 characters".into());
    }
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !text.chars().all(plain) {
        faults
            .push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !text.contains(|c: char| c.is_ascii_lowercase()) {
        faults.push("must contain at least one letter (a-z)".into());
    }
    if text.contains("--") {
        faults.push("must not contain consecutive hyphens".into());
    }
    if text.starts_with('-') || text.ends_with('-') {
        faults.push("must not begin or end with a hyphen".into());
    }
    faults
}

fn length_faults(text: &str, limit: usize) -> Vec<String> {
    let long = text.len() > limit;
    long.then(|| format!("must be no more than {limit} bytes"))
        .into_iter()
        .collect()
}

fn is_label(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            alphanumeric(*first)
                && alphanumeric(*last)
                && bytes
                    .iter()
                    .all(|byte| alphanumeric(*byte) || *byte == b'-')
        }
        _ => false,
    }
}

fn is_qualified_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && bytes
                    .iter()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        assert!(dns1123_label("my-name").is_empty());
        assert!(!dns1123_label("My-name").is_empty());
        assert!(!dns1123_label("").is_empty());
        assert!(!dns1123_label(&"a".repeat(64)).is_empty());
        assert!(dns1123_subdomain("a.b-c.d").is_empty());
        assert!(!dns1123_subdomain("a..b").is_empty());
        assert!(!dns1035_label("1a").is_empty());
        assert!(qualified_name("example.com/My_Name.1").is_empty());
        assert!(!qualified_name("/x").is_empty());
        assert!(!qualified_name("a/b/c").is_empty());
        assert!(label_value("").is_empty());
        assert!(!label_value("-x").is_empty());
        assert!(path_segment("system:node").is_empty());
        assert!(!path_segment("a/b").is_empty());
        assert!(port_name("http").is_empty());
        assert!(!port_name("80").is_empty());
    }
}
