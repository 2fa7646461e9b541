//! Users named by a proxy in front of us: it has checked them, and shows a certificate of its own.

use http::{HeaderMap, HeaderName};

use crate::identity::Identity;

/// Which proxies are believed, and the headers they name users by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeaders {
    /// Common names of the proxies' certificates; empty: any of the authority.
    pub allowed_names: Vec<String>,
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_prefixes: Vec<String>,
}

impl Default for RequestHeaders {
    /// The names that the aggregation layer uses.
    fn default() -> RequestHeaders {
        let one = |name: &str| vec![name.to_owned()];
        RequestHeaders {
            allowed_names: one("front-proxy-client"),
            username_headers: one("X-Remote-User"),
            uid_headers: one("X-Remote-Uid"),
            group_headers: one("X-Remote-Group"),
            extra_prefixes: one("X-Remote-Extra-"),
        }
    }
}

impl RequestHeaders {
    /// The user that a proxy of this name sends.
    pub(crate) fn identity(&self, proxy: &str, headers: &HeaderMap) -> Option<Identity> {
        if !self.allowed_names.is_empty() && !self.allowed_names.iter().any(|own| own == proxy) {
            tracing::debug!(proxy, "certificate of a front proxy that is not allowed");
            return None;
        }
        let first = |names: &[String]| {
            let mut values = names
                .iter()
                .filter_map(|name| headers.get(name)?.to_str().ok());
            values
                .find(|value| !value.is_empty())
                .unwrap_or_default()
                .to_owned()
        };
        let name = first(&self.username_headers);
        if name.is_empty() {
            return None;
        }
        let all = self
            .group_headers
            .iter()
            .flat_map(|name| headers.get_all(name));
        let all = all.filter_map(|value| value.to_str().ok());
        let mut identity = Identity {
            name,
            uid: first(&self.uid_headers),
            groups: all
                .filter(|group| !group.is_empty())
                .map(str::to_owned)
                .collect(),
            ..Identity::default()
        };
        for prefix in &self.extra_prefixes {
            for (header, value) in headers {
                if let (Some(key), Ok(value)) = (stripped(header, prefix), value.to_str()) {
                    let values = identity.extra.entry(unescaped(key)).or_default();
                    values.push(value.to_owned());
                }
            }
        }
        identity.mark_authenticated();
        Some(identity)
    }

    /// Takes these headers away, whoever sent them.
    pub(crate) fn strip(&self, headers: &mut HeaderMap) {
        let names = [
            &self.username_headers,
            &self.uid_headers,
            &self.group_headers,
        ];
        for name in names.into_iter().flatten() {
            headers.remove(name);
        }
        for prefix in &self.extra_prefixes {
            let fits = |name: &&HeaderName| stripped(name, prefix).is_some();
            let names: Vec<HeaderName> = headers.keys().filter(fits).cloned().collect();
            for name in names {
                headers.remove(name);
            }
        }
    }
}

/// What follows the prefix; names of headers are in small letters already.
fn stripped<'a>(header: &'a HeaderName, prefix: &str) -> Option<&'a str> {
    let (head, rest) = header.as_str().split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Percent-decoded; a key with a bad escape stays as it is.
fn unescaped(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
            _ => return key.to_owned(),
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_name_users() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "jane"),
            ("x-remote-uid", "7"),
            ("x-remote-group", "dev"),
            ("x-remote-group", "ops"),
            ("x-remote-extra-example.com%2fscope", "a"),
            ("x-remote-extra-bad%zz", "b"),
            ("x-other", "c"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let names = RequestHeaders::default();
        assert_eq!(names.identity("somebody", &headers), None);
        let jane = names.identity("front-proxy-client", &headers).unwrap();
        assert_eq!((jane.name.as_str(), jane.uid.as_str()), ("jane", "7"));
        assert_eq!(jane.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(jane.extra["example.com/scope"], ["a"]);
        assert_eq!(jane.extra["bad%zz"], ["b"]);
        names.strip(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-other"]);
        assert_eq!(names.identity("front-proxy-client", &headers), None);
    }
}
