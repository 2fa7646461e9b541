//! Rules for names, labels and ports, with upstream's messages. Each function
//! returns the rules that were broken; none means that the text is sound.

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

/// The signals of Linux by name, but for the real-time ones. In the order of CRI's numbers, which
/// begin with 1.
pub const SIGNALS: [&str; 34] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

/// RFC 1123 label: lower-case alphanumerics and `-`, at most 63 bytes.
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut faults = length_faults(text, LABEL_MAX, "characters");
    if !is_label(text) && text.split('.').all(is_label) {
        faults.push("must not contain dots".into());
    } else if !is_label(text) {
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
    subdomain(text, "characters")
}

fn subdomain(text: &str, unit: &str) -> Vec<String> {
    let mut faults = length_faults(text, SUBDOMAIN_MAX, unit);
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
    let mut faults = length_faults(text, LABEL_MAX, "characters");
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
                "a valid label key {RULE} with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')"
            )];
        }
        Some(("", name)) => {
            faults.push("prefix part must be non-empty".into());
            name
        }
        Some((prefix, name)) => {
            let prefixed = subdomain(prefix, "bytes").into_iter();
            faults.extend(prefixed.map(|fault| format!("prefix part {fault}")));
            name
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".into());
    }
    let long = length_faults(name, LABEL_MAX, "bytes").into_iter();
    faults.extend(long.map(|fault| format!("name part {fault}")));
    if !is_qualified_part(name) {
        faults.push(format!("name part {RULE}"));
    }
    faults
}

/// A label's value: empty, or as the name part of a qualified name.
pub fn label_value(text: &str) -> Vec<String> {
    let mut faults = length_faults(text, LABEL_MAX, "bytes");
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
    in_range(port, 1, 65535)
}

/// A number from `least` to `most`.
pub fn in_range(number: i64, least: i64, most: i64) -> Vec<String> {
    let outside = number < least || number > most;
    outside
        .then(|| format!("must be between {least} and {most}, inclusive"))
        .into_iter()
        .collect()
}

/// A port's name (IANA service name): at most 15 characters with at least one letter.
pub fn port_name(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.len() > 15 {
        faults.push("must be no more than 15 characters".into());
    }
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || !text.chars().all(plain) {
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

/// A subdomain behind `*.`, as ingress hosts may be.
pub fn wildcard_dns1123_subdomain(text: &str) -> Vec<String> {
    let mut faults = length_faults(text, SUBDOMAIN_MAX, "characters");
    let rest = text.strip_prefix("*.");
    if !rest.is_some_and(|rest| rest.split('.').all(is_label)) {
        faults.push(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS \
             subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and \
             end with an alphanumeric character (e.g. '*.example.com', regex used for validation \
             is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .into(),
        );
    }
    faults
}

/// The name of an environment variable: printable ASCII without `=`.
pub fn environment_variable(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.is_empty() {
        faults.push("environment variable name must be non-empty".into());
    }
    if !text.chars().all(|c| (' '..='~').contains(&c) && c != '=') {
        faults.push(
            "a valid environment variable name must consist only of printable ASCII characters \
             other than '='"
                .into(),
        );
    }
    faults
}

/// A key of a ConfigMap or Secret, which is also a file's name.
pub fn config_key(text: &str) -> Vec<String> {
    let mut faults = length_faults(text, SUBDOMAIN_MAX, "characters");
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || !text.chars().all(plain) {
        faults.push(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
             'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
             '[-._a-zA-Z0-9]+')"
                .into(),
        );
    }
    match text {
        "." | ".." => faults.push(format!("must not be '{text}'")),
        text if text.starts_with("..") => faults.push("must not start with '..'".into()),
        _ => {}
    }
    faults
}

/// The name of an HTTP header.
pub fn http_header(text: &str) -> Vec<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let broken = text.is_empty() || !text.chars().all(plain);
    let rule = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. \
        'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
    broken.then(|| rule.to_owned()).into_iter().collect()
}

/// A percentage such as `25%`.
pub fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or("");
    let broken = digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit());
    let rule = "a valid percent string must be a numeric string followed by an ending '%' (e.g. \
        '1%',  or '93%', regex used for validation is '[0-9]+%')";
    broken.then(|| rule.to_owned()).into_iter().collect()
}

/// An IP address of either family; not IPv4 in IPv6's clothes.
pub fn ip(text: &str) -> Vec<String> {
    use std::net::{IpAddr, Ipv6Addr};
    let mapped = |address: Ipv6Addr| address.to_ipv4_mapped().is_some();
    match text.parse() {
        Ok(IpAddr::V6(address)) if mapped(address) => {
            vec!["must not be an IPv4-mapped IPv6 address".into()]
        }
        Ok(_) => Vec::new(),
        Err(_) if has_leading_zero(text) => vec!["must not have leading 0s".into()],
        Err(_) => {
            vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()]
        }
    }
}

/// An address range such as `10.9.8.0/24`, without bits beyond its length.
pub fn cidr(text: &str) -> Vec<String> {
    use std::net::IpAddr;
    let rule = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let Some((address, length)) = text.split_once('/') else {
        return vec![rule.into()];
    };
    let Ok(bits) = length.parse::<u32>() else {
        return vec![rule.into()];
    };
    if has_leading_zero(address) || (length.len() > 1 && length.starts_with('0')) {
        return vec!["must not have leading 0s in IP or prefix length".into()];
    }
    let beyond = match address.parse() {
        Ok(IpAddr::V4(address)) if bits <= 32 => {
            u32::from(address).checked_shl(bits).unwrap_or(0) != 0
        }
        Ok(IpAddr::V6(address)) if bits <= 128 => {
            if address.to_ipv4_mapped().is_some() {
                return vec!["must not have an IPv4-mapped IPv6 address".into()];
            }
            u128::from(address).checked_shl(bits).unwrap_or(0) != 0
        }
        _ => return vec![rule.into()],
    };
    let rule = "must not have bits set beyond the prefix length";
    beyond.then(|| rule.to_owned()).into_iter().collect()
}

/// Whether it would be an IPv4 address but for zeros that some read as octal.
fn has_leading_zero(text: &str) -> bool {
    let parts: Vec<_> = text.split('.').collect();
    let number = |part: &&str| part.parse::<u8>().is_ok();
    let padded = |part: &&str| part.len() > 1 && part.starts_with('0');
    parts.len() == 4 && parts.iter().all(number) && parts.iter().any(padded)
}

fn length_faults(text: &str, limit: usize, unit: &str) -> Vec<String> {
    let long = text.len() > limit;
    long.then(|| format!("must be no more than {limit} {unit}"))
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
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert!(path_segment("system:node").is_empty());
        assert!(!path_segment("a/b").is_empty());
        assert!(port_name("http").is_empty());
        assert!(!port_name("80").is_empty());
    }

    #[test]
    fn addresses_are_told_apart() {
        for sound in ["10.0.0.1", "::1", "2001:db8::ffff"] {
            assert!(ip(sound).is_empty(), "{sound}");
        }
        assert_eq!(ip("10.0.0.01"), ["must not have leading 0s"]);
        assert_eq!(
            ip("::ffff:1.2.3.4"),
            ["must not be an IPv4-mapped IPv6 address"]
        );
        assert!(!ip("10.0.0").is_empty());
        for sound in ["10.0.0.0/8", "0.0.0.0/0", "::/0", "10.0.0.1/32", "fd00::/8"] {
            assert!(cidr(sound).is_empty(), "{sound}");
        }
        assert_eq!(
            cidr("10.0.0.1/8"),
            ["must not have bits set beyond the prefix length"]
        );
        assert!(!cidr("10.0.0.0/33").is_empty());
        assert!(!cidr("10.0.0.0").is_empty());
    }

    #[test]
    fn other_names_are_told_apart() {
        assert!(wildcard_dns1123_subdomain("*.example.com").is_empty());
        assert!(!wildcard_dns1123_subdomain("*").is_empty());
        assert!(environment_variable("my.var-1").is_empty());
        assert!(!environment_variable("a=b").is_empty());
        assert!(config_key(".a_b-C").is_empty());
        assert_eq!(config_key(".."), ["must not be '..'"]);
        assert!(http_header("X-A").is_empty());
        assert!(!http_header("a b").is_empty());
        assert!(percent("25%").is_empty());
        assert!(!percent("25").is_empty());
    }
}
