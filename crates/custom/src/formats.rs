//! The formats of texts that a schema may ask for.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;

/// Formats that a regular expression decides, by their name without dashes.
const BY_PATTERN: &[(&str, &str)] = &[
    ("bsonobjectid", r"^[0-9a-fA-F]{24}$"),
    (
        "hostname",
        r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9\-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$",
    ),
    (
        "mac",
        r"^([0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}|[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){7}|[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){19}|[0-9a-fA-F]{4}(\.[0-9a-fA-F]{4}){2}|[0-9a-fA-F]{4}(\.[0-9a-fA-F]{4}){3}|[0-9a-fA-F]{4}(\.[0-9a-fA-F]{4}){9})$",
    ),
    (
        "uuid",
        r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$",
    ),
    (
        "uuid3",
        r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$",
    ),
    (
        "uuid4",
        r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$",
    ),
    (
        "uuid5",
        r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$",
    ),
    ("ssn", r"^\d{3}[- ]?\d{2}[- ]?\d{4}$"),
    ("hexcolor", r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"),
    (
        "rgbcolor",
        r"^rgb\(\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*\)$",
    ),
    (
        "datetime",
        r"(?i)^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])t([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$",
    ),
    (
        "creditcard",
        r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11})$",
    ),
    ("k8sshortname", r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
    (
        "k8slongname",
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    ),
    (
        "email",
        r#"^\s*([^<>@",;:\\()\[\]]*<)?[^\s<>@",;:\\()\[\]]+@[^\s<>@",;:\\()]+>?\s*$"#,
    ),
    (
        "duration",
        r"(?i)^[+-]?(0|((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h))+)$|\d+\s*(ns|nano|us|µs|micro|ms|milli|s\b|sec|m\b|min|h\b|hr|hour|d\b|day|w\b|wk|week)",
    ),
];

/// Whether a text is of a format.
type Accepts = fn(&str) -> bool;

/// Those that code decides.
const BY_CODE: &[(&str, Accepts)] = &[
    ("uri", is_request_uri),
    ("ipv4", |text| {
        text.parse::<Ipv4Addr>().is_ok() || is_sloppy_ipv4(text)
    }),
    ("ipv6", |text| text.parse::<Ipv6Addr>().is_ok()),
    ("cidr", is_cidr),
    ("isbn", |text| is_isbn10(text) || is_isbn13(text)),
    ("isbn10", is_isbn10),
    ("isbn13", is_isbn13),
    ("byte", is_base64),
    ("password", |_| true),
    ("date", |text| {
        text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
    }),
];

static PATTERNS: LazyLock<BTreeMap<&str, Regex>> = LazyLock::new(|| {
    let compiled = BY_PATTERN.iter();
    compiled
        .filter_map(|(name, pattern)| Some((*name, crate::structural::compile(pattern).ok()?)))
        .collect()
});

/// Formats by name.
pub(crate) struct Format;

impl Format {
    /// Whether values of this type are checked for this format; others are as good as none.
    pub(crate) fn is_known(kind: &str, format: &str) -> bool {
        match kind {
            "" | "string" => {
                let name = plain(format);
                let named = |own: &str| own == name;
                BY_PATTERN.iter().any(|(own, _)| named(own))
                    || BY_CODE.iter().any(|(own, _)| named(own))
            }
            "integer" => matches!(format, "int32" | "int64"),
            "number" => matches!(format, "float" | "double"),
            _ => false,
        }
    }

    /// Whether a text is of this format.
    pub(crate) fn accepts(format: &str, text: &str) -> bool {
        let name = plain(format);
        if let Some((_, accepts)) = BY_CODE.iter().find(|(own, _)| *own == name) {
            return accepts(text);
        }
        let bounded = match name.as_str() {
            "hostname" => text.len() <= 255 && text.split('.').all(|label| label.len() <= 63),
            "k8sshortname" => text.len() <= 63,
            "k8slongname" => text.len() <= 253,
            _ => true,
        };
        let digits: String;
        let text = match name.as_str() {
            "creditcard" => {
                digits = text.chars().filter(char::is_ascii_digit).collect();
                if !has_luhn_sum(&digits) {
                    return false;
                }
                &digits
            }
            _ => text,
        };
        let pattern = PATTERNS.get(name.as_str());
        bounded && pattern.is_none_or(|pattern| pattern.is_match(text))
    }
}

/// Dashes do not count in names of formats.
fn plain(format: &str) -> String {
    format.replace('-', "")
}

/// Leading zeros are tolerated.
fn is_sloppy_ipv4(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let is_byte = |part: &&str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && part.parse::<u32>().is_ok_and(|number| number < 256)
    };
    parts.len() == 4 && parts.iter().all(is_byte)
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let most = match address.parse::<Ipv6Addr>() {
        Ok(_) => 128,
        Err(_) if is_sloppy_ipv4(address) => 32,
        Err(_) => return false,
    };
    let digits = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
    digits && bits.parse::<u32>().is_ok_and(|bits| bits <= most)
}

/// What may stand in the first line of an HTTP request: an absolute URI, or an absolute path.
fn is_request_uri(text: &str) -> bool {
    let sound = |text: &str| {
        let bytes = text.as_bytes();
        let escaped = |at: usize| {
            bytes[at] != b'%'
                || bytes
                    .get(at + 1..at + 3)
                    .is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
        };
        (0..bytes.len()).all(|at| bytes[at] > 0x1f && bytes[at] != 0x7f && escaped(at))
    };
    if !sound(text) {
        return false;
    }
    if text.starts_with('/') || text == "*" {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    let mut letters = scheme.chars();
    let starts = letters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic());
    let goes_on = letters.all(|sign| sign.is_ascii_alphanumeric() || "+-.".contains(sign));
    let host = rest.strip_prefix("//").map(|rest| {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        &rest[..end]
    });
    starts && goes_on && !host.is_some_and(|host| host.contains([' ', '<', '>', '"', '\\']))
}

fn is_base64(text: &str) -> bool {
    !text.is_empty() && STANDARD.decode(text).is_ok()
}

fn has_luhn_sum(digits: &str) -> bool {
    let numbers = digits.bytes().rev().map(|digit| u32::from(digit - b'0'));
    let sum: u32 = numbers
        .enumerate()
        .map(|(at, digit)| match at % 2 {
            0 => digit,
            _ if digit > 4 => digit * 2 - 9,
            _ => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}

fn isbn_digits(text: &str) -> Vec<u8> {
    let bytes = text.bytes();
    bytes.filter(|byte| !matches!(byte, b' ' | b'-')).collect()
}

fn is_isbn10(text: &str) -> bool {
    let digits = isbn_digits(text);
    let value = |at: usize| match digits[at] {
        digit if digit.is_ascii_digit() => Some(u32::from(digit - b'0')),
        b'X' if at == 9 => Some(10),
        _ => None,
    };
    let sum = || {
        (0..10u32)
            .map(|at| Some((at + 1) * value(at as usize)?))
            .sum::<Option<u32>>()
    };
    digits.len() == 10 && sum().is_some_and(|sum| sum.is_multiple_of(11))
}

fn is_isbn13(text: &str) -> bool {
    let digits = isbn_digits(text);
    let weighed = |(at, digit): (usize, &u8)| {
        let value = u32::from(digit.checked_sub(b'0').filter(|value| *value < 10)?);
        Some(value * if at % 2 == 0 { 1 } else { 3 })
    };
    let sum = || digits.iter().enumerate().map(weighed).sum::<Option<u32>>();
    digits.len() == 13 && sum().is_some_and(|sum| sum.is_multiple_of(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_compiles() {
        assert_eq!(PATTERNS.len(), BY_PATTERN.len());
    }

    #[test]
    fn texts_are_of_a_format_or_not() {
        let check = |format: &str, good: &[&str], bad: &[&str]| {
            assert!(Format::is_known("string", format), "{format}");
            for text in good {
                assert!(Format::accepts(format, text), "{format} {text}");
            }
            for text in bad {
                assert!(!Format::accepts(format, text), "{format} {text}");
            }
        };
        check("date", &["2026-01-31"], &["2026-1-31", "2026-02-30", ""]);
        check("date-time", &["2014-12-15T19:30:20.000Z"], &["2014-12-15"]);
        check(
            "ipv4",
            &["10.0.0.1", "010.0.0.1"],
            &["10.0.0", "::1", "1.2.3.256"],
        );
        check("ipv6", &["::1"], &["1.2.3.4"]);
        check(
            "cidr",
            &["10.0.0.0/8", "fd00::/64"],
            &["10.0.0.0", "10.0.0.0/33"],
        );
        check("hostname", &["a.example.com", "x"], &["-a", "a_b.com"]);
        check("uri", &["http://a/b", "/x"], &["x", "http://a b/"]);
        check("email", &["a@b.c", "A B <a@b.c>"], &["a", "a@"]);
        check("uuid", &["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"], &["x"]);
        check("duration", &["1h30m", "22 ns", "0"], &["x", "1y"]);
        check("isbn", &["0321751043", "978-0321751041"], &["0321751044"]);
        check(
            "creditcard",
            &["4111 1111 1111 1111"],
            &["4111111111111112"],
        );
        check("byte", &["YQ=="], &["?", ""]);
        check("k8s-short-name", &["a-b"], &["A", "a.b"]);
        assert!(!Format::is_known("string", "int32") && !Format::is_known("object", "date"));
    }
}
