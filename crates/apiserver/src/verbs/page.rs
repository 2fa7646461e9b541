//! At which revision a list is served, and from which key on.

use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use meta::{Reason, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cache::{Cache, Snapshot, TooOld};
use crate::chain::Query;
use crate::server::Core;

/// How long a request waits for a revision that was not reached yet.
const REVISION_WAIT: Duration = Duration::from_secs(3);
const INCONSISTENT: &str = "The provided continue parameter is too old to display a consistent \
     list result. You can start a new list without the continue parameter, or use the continue \
     token in this response to retrieve the remainder of the results. Continuing with the \
     provided token results in an inconsistent list - objects that were created, modified, or \
     deleted between the time the first chunk was returned and now may show up in the list.";

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Continue {
    v: String,
    /// Revision of the first page; -1: whatever is newest.
    rv: i64,
    /// Key of the first object of the page, or one just before it, within its namespace.
    start: String,
}

impl Continue {
    /// The token for what follows `last`, of a list of the keys that begin with `prefix`.
    pub(crate) fn after(revision: i64, prefix: &str, last: &str) -> String {
        let last = last.strip_prefix(prefix).unwrap_or(last);
        Continue {
            v: "meta.k8s.io/v1".into(),
            rv: revision,
            start: format!("{last}\0"),
        }
        .encode()
    }

    fn encode(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(json)
    }

    fn decode(token: &str) -> Result<Continue, Status> {
        let bad = || {
            Status::bad_request(
                "invalid continue token: continue key is not valid: encoded token is malformed",
            )
        };
        let json = URL_SAFE_NO_PAD
            .decode(token.trim_end_matches('='))
            .map_err(|_| no_base64(token))?;
        let token: Continue = serde_json::from_slice(&json).map_err(|_| bad())?;
        let invalid = |why: &str| {
            let text = format!("invalid continue token: continue key is not valid: {why}");
            Err(Status::bad_request(text))
        };
        // Only a key that stays below its prefix is one.
        let climbs = token
            .start
            .split('/')
            .any(|part| matches!(part, "" | "." | ".."));
        match token.v.as_str() {
            "meta.k8s.io/v1" if token.rv == 0 => {
                invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
            }
            "meta.k8s.io/v1" if token.start.is_empty() => {
                invalid("encoded start key empty (version meta.k8s.io/v1)")
            }
            "meta.k8s.io/v1" if climbs => invalid(&token.start),
            "meta.k8s.io/v1" => Ok(token),
            other => invalid(&format!(
                "server does not recognize this encoded version {other}"
            )),
        }
    }
}

/// 400 that names the first byte that cannot be right.
fn no_base64(token: &str) -> Status {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let wrong = token.bytes().position(|byte| !sound(byte));
    let at = wrong.unwrap_or(token.len() / 4 * 4);
    Status::bad_request(format!(
        "invalid continue token: continue key is not valid: illegal base64 data at input byte {at}"
    ))
}

/// A list cannot be served; the body may say more than the status.
pub(crate) enum Refusal {
    Plain(Status),
    WithBody(Status, Value),
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Refusal {
        Refusal::Plain(status)
    }
}

/// The state to list from, and the first key.
pub(crate) async fn snapshot(
    core: &Core,
    cache: &Cache,
    query: &Query,
    prefix: &str,
) -> Result<(Snapshot, String), Refusal> {
    super::options::check_list(query)?;
    let version = query.get("resourceVersion");
    let rule = query.get("resourceVersionMatch");
    if let Some(token) = query.get("continue") {
        let token = Continue::decode(token)?;
        if version.is_some_and(|version| version != "0") {
            let text = "specifying resource version is not allowed when using continue";
            return Err(Status::bad_request(text).into());
        }
        return continued(core, cache, token, prefix).await;
    }
    let start = prefix.to_owned();
    match (version, rule) {
        (None, _) => core.feed.fresh().await,
        (Some("0"), _) => {}
        (Some(version), Some("Exact")) => {
            let revision = parse_for_list(version)?;
            reached(core, version).await?;
            let snapshot = state_at(core, cache, revision).map_err(|too_old| {
                let oldest = too_old.oldest;
                Status::expired(format!("too old resource version: {revision} ({oldest})"))
            })?;
            return Ok((snapshot, start));
        }
        (Some(version), _) => {
            parse_for_list(version)?;
            reached(core, version).await?;
        }
    }
    Ok((cache.snapshot(core.feed.applied()), start))
}

/// The state at a revision, unless the store has forgotten it: pages expire with it, as clients
/// of upstream expect, though the cache may know more.
fn state_at(core: &Core, cache: &Cache, revision: i64) -> Result<Snapshot, TooOld> {
    let oldest = core.compacted.load(Ordering::Acquire);
    match revision < oldest {
        true => Err(TooOld { oldest }),
        false => cache.snapshot_at(revision),
    }
}

async fn continued(
    core: &Core,
    cache: &Cache,
    token: Continue,
    prefix: &str,
) -> Result<(Snapshot, String), Refusal> {
    let start = format!("{prefix}{}", token.start);
    if token.rv < 0 {
        core.feed.fresh().await;
        return Ok((cache.snapshot(core.feed.applied()), start));
    }
    reached(core, &token.rv.to_string()).await?;
    match state_at(core, cache, token.rv) {
        Ok(snapshot) => Ok((snapshot, start)),
        Err(_) => {
            let status = Status::expired(INCONSISTENT);
            let mut body = status.to_value();
            let newest = Continue { rv: -1, ..token };
            body["metadata"] = serde_json::json!({"continue": newest.encode()});
            Err(Refusal::WithBody(status, body))
        }
    }
}

/// Reads a resourceVersion.
pub(crate) fn parse(version: &str) -> Result<i64, Status> {
    version
        .parse()
        .ok()
        .filter(|revision| *revision >= 0)
        .ok_or_else(|| {
            Status::bad_request(format!(
                "resourceVersion: Invalid value: {version:?}: strconv.ParseUint: parsing \
                 {version:?}: invalid syntax"
            ))
        })
}

/// The same, as lists word it.
fn parse_for_list(version: &str) -> Result<i64, Status> {
    parse(version).map_err(|status| {
        Status::bad_request(format!("invalid resource version: {}", status.message))
    })
}

/// Waits until the caches have seen a revision that a client has seen.
pub(crate) async fn reached(core: &Core, version: &str) -> Result<(), Status> {
    let revision = parse(version)?;
    let waited = tokio::time::timeout(REVISION_WAIT, core.feed.reached(revision)).await;
    waited.map_err(|_| {
        let current = core.feed.applied();
        let text = format!("Too large resource version: {revision}, current: {current}");
        let mut status = Status::new(Reason::Timeout, format!("Timeout: {text}"));
        status.retry_after_seconds = Some(1);
        status.causes.push(meta::status::Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        });
        status
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_wire_and_nonsense_is_refused() {
        let token = Continue::after(7, "ns/", "ns/a");
        let read = Continue::decode(&token).unwrap();
        assert_eq!((read.rv, read.start.as_str()), (7, "a\0"));
        assert_eq!(Continue::decode("%%%").unwrap_err().code, 400);
        assert_eq!(Continue::decode("e30").unwrap_err().code, 400);
    }
}
