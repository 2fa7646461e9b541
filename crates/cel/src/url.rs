//! URLs, read as Go's `url.ParseRequestURI` reads them: absolute, or a path from the root.

/// One URL, its parts as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub(crate) scheme: String,
    /// With the port, without a user.
    pub(crate) host: String,
    path: String,
    query: String,
}

const INVALID: &str = "invalid URI for request";

impl Url {
    pub(crate) fn parse(text: &str) -> Result<Url, String> {
        if text.is_empty() {
            return Err("empty url".to_owned());
        }
        if text.bytes().any(|c| c < b' ' || c == 0x7f) {
            return Err("net/url: invalid control character in URL".to_owned());
        }
        let (text, _fragment) = text.split_once('#').unwrap_or((text, ""));
        let (scheme, rest) = scheme(text)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !rest.starts_with('/') {
            return match scheme.is_empty() {
                true => Err(INVALID.to_owned()),
                // Something like mailto:.
                false => Ok(Url {
                    scheme,
                    host: String::new(),
                    path: String::new(),
                    query: query.to_owned(),
                }),
            };
        }
        let mut host = String::new();
        let mut path = rest;
        if let Some(after) = rest.strip_prefix("//").filter(|_| !scheme.is_empty()) {
            let end = after.find('/').unwrap_or(after.len());
            let authority = &after[..end];
            host = check_host(
                authority
                    .rsplit_once('@')
                    .map_or(authority, |(_, host)| host),
            )?;
            path = &after[end..];
        }
        if unescape(path, false).is_none() {
            return Err(format!("invalid URL escape {path:?}"));
        }
        Ok(Url {
            scheme,
            host,
            path: path.to_owned(),
            query: query.to_owned(),
        })
    }

    /// Name and port of the host.
    pub(crate) fn split_host(&self) -> (&str, &str) {
        let end = self.host.rfind(']').map_or(0, |at| at + 1);
        let (name, port) = match self.host[end..].rfind(':') {
            Some(at) => (&self.host[..end + at], &self.host[end + at + 1..]),
            None => (self.host.as_str(), ""),
        };
        let inner = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        (inner.unwrap_or(name), port)
    }

    /// The path with all escaped that has to be.
    pub(crate) fn escaped_path(&self) -> String {
        let mut escaped = String::with_capacity(self.path.len());
        for byte in self.path.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => escaped.push(char::from(byte)),
                _ if b"-_.~$&+,/:;=@%!'()*[]".contains(&byte) => escaped.push(char::from(byte)),
                _ => escaped.push_str(&format!("%{byte:02X}")),
            }
        }
        escaped
    }

    /// Names and values of the query, in order; what cannot be read is left out.
    pub(crate) fn query(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let pairs = self
            .query
            .split('&')
            .filter(|pair| !pair.is_empty() && !pair.contains(';'));
        pairs.filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescape(name, true)?, unescape(value, true)?))
        })
    }
}

fn scheme(text: &str) -> Result<(String, &str), String> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            ':' => return Ok((text[..at].to_ascii_lowercase(), &text[at + 1..])),
            _ => break,
        }
    }
    // A colon before the first slash would be a scheme that none can have.
    Ok((String::new(), text))
}

fn check_host(host: &str) -> Result<String, String> {
    if let Some(c) = host.chars().find(|c| {
        matches!(
            c,
            ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}'
        )
    }) {
        return Err(format!(
            "invalid character {:?} in host name",
            c.to_string()
        ));
    }
    let rest = match host.strip_prefix('[') {
        Some(rest) => {
            rest.split_once(']')
                .ok_or_else(|| "missing ']' in host".to_owned())?
                .1
        }
        None => host.rfind(':').map_or("", |at| &host[at..]),
    };
    let port = rest.strip_prefix(':').unwrap_or(rest);
    if !port.bytes().all(|c| c.is_ascii_digit()) || (port == rest && !rest.is_empty()) {
        return Err(format!("invalid port {rest:?} after host"));
    }
    unescape(host, false).ok_or_else(|| format!("invalid URL escape {host:?}"))
}

/// Text with `%41` and, in a query, `+` replaced.
fn unescape(text: &str, plus: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'%' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                if !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
                    return None;
                }
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &rest[2..];
            }
            b'+' if plus => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
