//! `Impersonate-User` and its kin: acting as somebody else, where allowed. There are five ways to
//! be allowed ([`mode::MODES`]), four of them bound to what is done as that user.

mod mode;

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::time::Instant;

use auth::{Attributes, Authorizer, Identity};
use http::HeaderMap;
use meta::Status;
use parking_lot::Mutex;

use super::query::decode;
use crate::measure;
use mode::{MODES, Mode};

const PREFIX: &str = "impersonate-";
const EXTRA_PREFIX: &str = "impersonate-extra-";
/// Ends what is said to whoever asks for groups and the like, but for no user.
pub(crate) const NOBODY: &str = " without impersonating a user name";
/// Of so many users it is known in which way they were last allowed to act as others.
const REMEMBERED_MAX: usize = 10_000;

/// Whether any header speaks of acting as somebody else.
pub(crate) fn is_asked_for(headers: &HeaderMap) -> bool {
    let mut names = headers.keys();
    names.any(|key| key.as_str().starts_with(PREFIX))
}

/// As whom a request goes on.
#[derive(Debug)]
pub(crate) struct Impersonated {
    pub(crate) user: Identity,
    /// The verb of the constrained way that allowed it; the audit trail names it.
    pub(crate) constraint: Option<String>,
}

/// Decides who may act as whom. Remembers which way worked for a user, since it will again: so
/// the usual request costs one decision more at most.
#[derive(Debug, Default)]
pub(crate) struct Impersonation {
    hasher: std::hash::RandomState,
    /// From the hash of a name to an index of [`MODES`]. A collision changes the order only.
    last: Mutex<std::collections::HashMap<u64, usize>>,
}

impl Impersonation {
    /// The user to act as, `None` where the headers ask for nobody. `asked` is what the request
    /// wants to do.
    pub(crate) async fn judge(
        &self,
        authorizer: &Authorizer,
        user: &Identity,
        headers: &HeaderMap,
        asked: &Attributes,
    ) -> Result<Option<Impersonated>, Status> {
        let wanted = wanted(headers);
        if wanted.name.is_empty() {
            let nothing = wanted.uid.is_empty() && wanted.groups.is_empty() && !has_extra(headers);
            return match nothing {
                true => Ok(None),
                false => Err(Status::bad_request(format!(
                    "requested {}{NOBODY}",
                    shown(&wanted)
                ))),
            };
        }
        let begun = Instant::now();
        let key = self.hasher.hash_one(&user.name);
        let first = self.last.lock().get(&key).copied();
        let order = first
            .into_iter()
            .chain((0..MODES.len()).filter(|&at| Some(at) != first));
        let mut refusal = None;
        for index in order {
            let mode: &Mode = &MODES[index];
            if !mode.applies(&wanted, user) {
                continue;
            }
            match mode.check(authorizer, user, &wanted, asked).await {
                Ok(found) => {
                    self.remember(key, index);
                    measure::impersonated(Some(mode.label()), begun.elapsed());
                    return Ok(Some(found));
                }
                Err(status) => refusal = refusal.or(Some(status)),
            }
        }
        measure::impersonated(None, begun.elapsed());
        // The last way is open to everybody, so there is a refusal.
        Err(refusal.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
    }

    fn remember(&self, key: u64, index: usize) {
        let mut last = self.last.lock();
        if last.len() >= REMEMBERED_MAX && !last.contains_key(&key) {
            last.clear();
        }
        last.insert(key, index);
    }
}

fn has_extra(headers: &HeaderMap) -> bool {
    let mut names = headers.keys();
    names.any(|key| key.as_str().starts_with(EXTRA_PREFIX))
}

/// What the headers say, word for word.
fn wanted(headers: &HeaderMap) -> Identity {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let first = |name: &str| headers.get(name).map(text).unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in headers {
        if let Some(key) = key.as_str().strip_prefix(EXTRA_PREFIX) {
            // What is no sound escape stands for itself.
            let key = decode(key, false).unwrap_or_else(|_| key.to_owned());
            extra.entry(key).or_default().push(text(value));
        }
    }
    Identity {
        name: first("impersonate-user"),
        uid: first("impersonate-uid"),
        groups: headers
            .get_all("impersonate-group")
            .iter()
            .map(text)
            .collect(),
        extra,
    }
}

/// As Go prints a `user.DefaultInfo`.
fn shown(user: &Identity) -> String {
    let list = |items: &[String]| {
        let quoted: Vec<_> = items.iter().map(|item| format!("{item:?}")).collect();
        quoted.join(", ")
    };
    let groups = match user.groups.as_slice() {
        [] => "[]string(nil)".to_owned(),
        groups => format!("[]string{{{}}}", list(groups)),
    };
    let entries: Vec<_> = user
        .extra
        .iter()
        .map(|(key, values)| format!("{key:?}:[]string{{{}}}", list(values)))
        .collect();
    let extra = match entries.as_slice() {
        [] => "map[string][]string(nil)".to_owned(),
        entries => format!("map[string][]string{{{}}}", entries.join(", ")),
    };
    let (name, uid) = (&user.name, &user.uid);
    format!("&user.DefaultInfo{{Name:{name:?}, UID:{uid:?}, Groups:{groups}, Extra:{extra}}}")
}

#[cfg(test)]
mod tests;
