//! Priority and fairness at the door: what a request costs, and the seat it takes.

use std::time::Duration;

use fairness::{Digest, Refused, Seat, Work};
use http::header::{HeaderName, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use meta::{Reason, Status};

use super::Call;
use crate::respond::{self, Answer};
use crate::server::Core;

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
/// Objects that a list goes through for one seat.
const OBJECTS_PER_SEAT: usize = 100;
/// Watches that one seat serves.
const WATCHES_PER_SEAT: usize = 10;
/// How long the event of a write is at work for each of those seats.
const EVENT_TIME: Duration = Duration::from_millis(5);
/// Seats that one request may take.
const SEATS_MAX: u32 = 10;
/// Of the time a request has, the part it may wait.
pub(crate) const WAIT_PART: u32 = 4;

/// Takes seats for a request. Streams need none: they would sit for ever.
pub(crate) async fn enter(core: &Core, call: &Call) -> Result<Option<Seat>, Refused> {
    let info = &call.info;
    if info.is_long_running() && info.verb != "watch" {
        return Ok(None);
    }
    let digest = Digest {
        user: &call.user.name,
        groups: &call.user.groups,
        verb: info.verb,
        is_resource: info.is_resource,
        path: &info.path,
        namespace: &info.namespace,
        group: &info.group,
        resource: &info.resource,
        subresource: &info.subresource,
    };
    let seat = core.fairness.enter(&digest, |most| work(core, call, most));
    seat.await.map(Some)
}

fn work(core: &Core, call: &Call, most: u32) -> Work {
    let info = &call.info;
    let most = most.min(SEATS_MAX);
    match info.verb {
        "list" | "watch" | "deletecollection" if info.is_resource => Work {
            seats: listed_seats(core, call).clamp(1, most),
            ..Work::default()
        },
        "create" | "update" | "patch" | "delete" if info.subresource != "token" => {
            let watches = cache_figure(core, call, |cache| cache.watches());
            if watches < WATCHES_PER_SEAT {
                return Work::default();
            }
            let all = u32::try_from(watches.div_ceil(WATCHES_PER_SEAT)).unwrap_or(u32::MAX);
            let after = all.min(most);
            Work {
                seats: 1,
                after,
                // As much work on fewer seats takes longer.
                after_for: EVENT_TIME.mul_f64(f64::from(all) / f64::from(after)),
            }
        }
        _ => Work::default(),
    }
}

fn listed_seats(core: &Core, call: &Call) -> u32 {
    if !call.info.name.is_empty() {
        return 1;
    }
    if call.info.verb == "watch" {
        let begins = matches!(call.query.get("resourceVersion"), None | Some("" | "0"));
        let asks = call.query.flag("sendInitialEvents");
        if !begins && !asks {
            return 1;
        }
    }
    let objects = cache_figure(core, call, crate::cache::Cache::len);
    u32::try_from(objects.div_ceil(OBJECTS_PER_SEAT)).unwrap_or(u32::MAX)
}

fn cache_figure(core: &Core, call: &Call, figure: impl Fn(&crate::cache::Cache) -> usize) -> usize {
    let info = &call.info;
    let resources = core.registry.now();
    let resource = resources.find(&info.group, &info.version, &info.resource);
    let cache = resource.as_ref().and_then(|own| own.cache.as_ref());
    cache.map_or(0, |cache| figure(cache))
}

/// 429, as upstream says it.
pub(crate) fn too_many() -> Status {
    let text = "Too many requests, please try again later.";
    let mut status = Status::new(Reason::TooManyRequests, text);
    status.retry_after_seconds = Some(1);
    status
}

/// The answer to who has no seat: plain text, as upstream has it.
pub(crate) fn refusal(status: &Status) -> Answer {
    let code = StatusCode::TOO_MANY_REQUESTS;
    let text = format!("{}\n", status.message);
    let mut answer = respond::plain(code, "text/plain; charset=utf-8", text);
    let headers = answer.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Tells the client how its request was classified.
pub(crate) fn mark(answer: &mut Answer, schema_uid: &str, level_uid: &str) {
    for (name, uid) in [(SCHEMA_UID, schema_uid), (LEVEL_UID, level_uid)] {
        if let Ok(value) = HeaderValue::from_str(uid) {
            answer.headers_mut().insert(name, value);
        }
    }
}
