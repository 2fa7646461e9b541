//! One request: its query, its filters, its body.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::answer::Fault;
use crate::daemon::Daemon;

/// Documents larger than this are refused.
const DOCUMENT_LIMIT: usize = 8 << 20;
/// Pieces of a body on their way to code that blocks.
const PIECES: usize = 16;
/// Members of a request whose own members may be null.
const NULLABLE: [&str; 4] = ["HostConfig", "NetworkingConfig", "IPAM", "Healthcheck"];

/// A request on its way to whoever answers it.
pub(crate) struct Call {
    pub(crate) daemon: Arc<Daemon>,
    pub(crate) query: Query,
    pub(crate) request: Request<Incoming>,
    pub(crate) version: (u32, u32),
}

impl Call {
    /// Reads the body as JSON; an empty one is the default. As docker does, fields that are
    /// `null` count as absent and fields nobody knows are left alone.
    pub(crate) async fn body<T: DeserializeOwned + Default>(&mut self) -> Result<T, Fault> {
        let bytes = Limited::new(self.request.body_mut(), DOCUMENT_LIMIT)
            .collect()
            .await
            .map_err(|error| Fault::bad(format!("reading the body: {error}")))?
            .to_bytes();
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(T::default());
        }
        let bad = |error: serde_json::Error| Fault::bad(format!("invalid JSON: {error}"));
        let mut value: Value = serde_json::from_slice(&bytes).map_err(bad)?;
        drop_nulls(&mut value);
        for name in NULLABLE {
            if let Some(inner) = value.get_mut(name) {
                drop_nulls(inner);
            }
        }
        serde_json::from_value(value).map_err(bad)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.request.headers().get(name)?.to_str().ok()
    }

    /// The body as a reader, for code that blocks.
    pub(crate) fn reader(self) -> BodyReader {
        let (sender, pieces) = mpsc::channel(PIECES);
        let mut body = self.request.into_body();
        tokio::spawn(async move {
            while let Some(frame) = body.frame().await {
                let piece = match frame {
                    Ok(frame) => frame.into_data().map(Ok).unwrap_or(Ok(Bytes::new())),
                    Err(error) => Err(io::Error::other(error)),
                };
                if sender.send(piece).await.is_err() {
                    return;
                }
            }
        });
        BodyReader {
            pieces,
            rest: Bytes::new(),
        }
    }
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(members) = value {
        members.retain(|_, member| !member.is_null());
    }
}

/// A body for code that blocks.
pub(crate) struct BodyReader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.rest = piece?,
            }
        }
        let length = buffer.len().min(self.rest.len());
        buffer[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}

/// The part of a URL behind the question mark.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: Option<&str>) -> Query {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        };
        let text = text.unwrap_or_default();
        Query(
            text.split('&')
                .filter(|p| !p.is_empty())
                .map(pair)
                .collect(),
        )
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named =
            move |(known, value): &'a (String, String)| (known == name).then_some(value.as_str());
        self.0.iter().filter_map(named)
    }

    /// Docker's idea of truth: anything but a few words for no.
    pub(crate) fn flag(&self, name: &str) -> bool {
        let no = |value: &str| {
            let value = value.trim().to_ascii_lowercase();
            matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
        };
        self.get(name).is_some_and(|value| !no(value))
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Fault> {
        match self.get(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => value
                .parse()
                .map(Some)
                .map_err(|_| Fault::bad(format!("invalid value for {name}: {value:?}"))),
        }
    }

    pub(crate) fn filters(&self) -> Result<Filters, Fault> {
        Filters::parse(self.text("filters"))
    }
}

/// What a list is narrowed by: `{"name": ["a", "b"]}`, or in the old form `{"name": {"a": true}}`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    fn parse(text: &str) -> Result<Filters, Fault> {
        if text.is_empty() {
            return Ok(Filters::default());
        }
        let bad = || Fault::bad(format!("invalid filter {text:?}"));
        let all: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|_| bad())?;
        let mut filters = BTreeMap::new();
        for (name, values) in all {
            let values = match values {
                Value::Array(values) => values
                    .iter()
                    .map(|value| value.as_str().map(str::to_owned))
                    .collect::<Option<Vec<_>>>(),
                Value::Object(values) => Some(
                    values
                        .iter()
                        .filter(|(_, wanted)| wanted.as_bool() == Some(true))
                        .map(|(value, _)| value.clone())
                        .collect(),
                ),
                _ => None,
            };
            filters.insert(name, values.ok_or_else(bad)?);
        }
        Ok(Filters(filters))
    }

    /// Refuses names that are not among these.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), Fault> {
        let other = self.0.keys().find(|name| !known.contains(&name.as_str()));
        other.map_or(Ok(()), |name| {
            Err(Fault::bad(format!("invalid filter '{name}'")))
        })
    }

    pub(crate) fn get(&self, name: &str) -> &[String] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether there is no such filter, or one of its values fits.
    pub(crate) fn fits(&self, name: &str, fits: impl Fn(&str) -> bool) -> bool {
        let values = self.get(name);
        values.is_empty() || values.iter().any(|value| fits(value))
    }

    /// Whether all `label` filters (`name` or `name=value`) fit, and no `label!` does.
    pub(crate) fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wish: &String| match wish.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|known| known == value),
            None => labels.contains_key(wish),
        };
        self.get("label").iter().all(has) && !self.get("label!").iter().any(has)
    }

    /// One truth value, or the given one where the filter is absent.
    pub(crate) fn truth(&self, name: &str, absent: bool) -> bool {
        match self.get(name).first() {
            None => absent,
            Some(value) => !matches!(value.as_str(), "0" | "false" | "False" | "no"),
        }
    }
}

/// `%41` and `+` as what they stand for.
pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = || {
            let pair = text.get(at + 1..at + 3)?;
            u8::from_str_radix(pair, 16).ok()
        };
        match bytes[at] {
            b'%' if hex().is_some() => {
                out.extend(hex());
                at += 3;
                continue;
            }
            b'+' => out.push(b' '),
            other => out.push(other),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_filters_in_both_forms() {
        let query = Query::parse(Some("all=1&name=a%2Fb+c&quiet=false&t=x&t=y"));
        assert!(query.flag("all") && !query.flag("quiet") && !query.flag("none"));
        assert_eq!(query.text("name"), "a/b c");
        assert_eq!(query.all("t").collect::<Vec<_>>(), ["x", "y"]);
        let filters = Filters::parse(r#"{"label":{"a=b":true,"c":false},"name":["x"]}"#).unwrap();
        assert_eq!(filters.get("label"), ["a=b"]);
        assert!(filters.fits("name", |name| name == "x") && filters.fits("id", |_| false));
        assert!(filters.labels(&BTreeMap::from([("a".into(), "b".into())])));
        assert!(!filters.labels(&BTreeMap::new()));
        assert!(filters.only(&["name"]).is_err() && Filters::parse("[]").is_err());
    }
}
