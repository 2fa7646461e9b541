//! The query of a URL.

use meta::Status;

/// Longest query that is looked at, in bytes.
const QUERY_BYTES_MAX: usize = 256 << 10;

/// Decoded parameters in the order given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what follows the question mark.
    pub(crate) fn parse(text: &str) -> Result<Query, Status> {
        if text.len() > QUERY_BYTES_MAX {
            return Err(Status::bad_request("query is too long"));
        }
        let pairs = text.split('&').filter(|part| !part.is_empty());
        let decode = |part: &str| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decode(key, true)?, decode(value, true)?))
        };
        Ok(Query(pairs.map(decode).collect::<Result<_, Status>>()?))
    }

    /// Whether there are no parameters.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first value of a parameter; `None` when it is absent or empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let first = self.0.iter().find(|(own, _)| own == key);
        first
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let own = self.0.iter().filter(move |(own, _)| own == key);
        own.map(|(_, value)| value.as_str())
    }

    /// All parameters, decoded.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The same query with other values for some parameters.
    pub(crate) fn replaced(&self, keys: &[&str], pairs: Vec<(String, String)>) -> Query {
        let kept = self.0.iter();
        let kept = kept.filter(|(own, _)| !keys.contains(&own.as_str()));
        Query(kept.cloned().chain(pairs).collect())
    }

    /// Whether a parameter is set to something other than false.
    pub(crate) fn flag(&self, key: &str) -> bool {
        let first = self.0.iter().find(|(own, _)| own == key);
        first.is_some_and(|(_, value)| !matches!(value.as_str(), "false" | "0"))
    }

    /// A whole number; 400 when it is none.
    pub(crate) fn number(&self, key: &str) -> Result<Option<i64>, Status> {
        let parse = |text: &str| {
            text.parse().map_err(|error: std::num::ParseIntError| {
                use std::num::IntErrorKind::{NegOverflow, PosOverflow};
                let why = match error.kind() {
                    PosOverflow | NegOverflow => "value out of range",
                    _ => "invalid syntax",
                };
                Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}"))
            })
        };
        self.get(key).map(parse).transpose()
    }
}

/// Percent-decoding; in queries a plus is a space.
pub(crate) fn decode(text: &str, plus_is_space: bool) -> Result<String, Status> {
    let is_encoded = text.contains('%') || (plus_is_space && text.contains('+'));
    if !is_encoded {
        return Ok(text.to_owned());
    }
    let bad = || Status::bad_request(format!("invalid URL escape in {text:?}"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' if plus_is_space => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                let value = high.zip(low).map(|(high, low)| high * 16 + low);
                u8::try_from(value.ok_or_else(bad)?).map_err(|_| bad())?
            }
            byte => byte,
        });
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        // Upstream takes any bytes here.
        Err(error) if plus_is_space => Ok(String::from_utf8_lossy(error.as_bytes()).into_owned()),
        Err(_) => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_queries() {
        let query = Query::parse("a=1&command=ls&command=%2Ftmp+x&watch&c=").unwrap();
        assert_eq!(query.get("a"), Some("1"));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["ls", "/tmp x"]);
        assert!(query.flag("watch") && !query.flag("absent"));
        assert_eq!(query.get("c"), None);
        assert!(Query::parse("a=%zz").is_err());
        assert!(Query::parse("a=%c3%28").is_ok() && decode("%c3%28", false).is_err());
    }
}
