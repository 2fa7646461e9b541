//! Passing requests on to the server that answers for their group and version.

use std::sync::Arc;

use auth::Identity;
use client::Body;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use hyper::upgrade::OnUpgrade;
use meta::Status;

use super::{Failure, Route};
use crate::chain::Call;
use crate::respond::{self, Answer};
use crate::server::Core;
use crate::{socket, stream};

const TEXT: &str = "text/plain; charset=utf-8";
const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA: &str = "x-remote-extra-";

/// Passes a request on; failures to do so are plain text, as upstream has it.
pub(crate) async fn answer(
    core: &Arc<Core>,
    call: &Call,
    route: &Route,
    mut parts: Parts,
    body: Body,
) -> Result<Answer, Status> {
    let failed = |code: StatusCode, text: &str| Ok(respond::plain(code, TEXT, format!("{text}\n")));
    if !route.is_available() {
        return failed(StatusCode::SERVICE_UNAVAILABLE, "service unavailable");
    }
    let target = match route.address.target() {
        Ok(target) => target,
        Err(Failure::Tls(text)) => return failed(StatusCode::INTERNAL_SERVER_ERROR, &text),
        Err(Failure::Resolve(error)) => {
            tracing::debug!(error, name = route.name, "service not resolved");
            return failed(StatusCode::SERVICE_UNAVAILABLE, "service unavailable");
        }
    };
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let query = parts.uri.query().map(|query| format!("?{query}"));
    let uri = format!("{}{}", call.info.path, query.unwrap_or_default());
    let mut request = Request::builder()
        .method(parts.method)
        .uri(uri)
        .body(body)
        .map_err(|error| Status::bad_request(format!("invalid request: {error}")))?;
    *request.headers_mut() = stream::passed_headers(&call.headers);
    stream::forwarded_for(request.headers_mut(), &parts.extensions);
    name_user(request.headers_mut(), &call.user);
    // Who upgrades keeps the connection: it is none for others.
    let answer = match socket::is_upgrade(&call.headers) {
        true => {
            let answer = core.dialer.pass_on(&target, request, upgrade).await;
            answer.map_err(|status| status.message.replacen("error dialing backend: ", "", 1))
        }
        false => route.pool.send(&target, request).await,
    };
    answer.or_else(|text| {
        let text = format!("error trying to reach service: {text}");
        failed(StatusCode::SERVICE_UNAVAILABLE, &text)
    })
}

/// Says who asks; what the client said of that itself is dropped.
pub(super) fn name_user(headers: &mut HeaderMap, user: &Identity) {
    let claimed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-remote-"))
        .cloned()
        .collect();
    for name in claimed {
        headers.remove(name);
    }
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).ok();
    if let Some(name) = value(&user.name) {
        headers.insert(USER, name);
    }
    if let Some(uid) = value(&user.uid).filter(|uid| !uid.is_empty()) {
        headers.insert(UID, uid);
    }
    for group in user.groups.iter().filter_map(|group| value(group)) {
        headers.append(GROUP, group);
    }
    for (key, values) in &user.extra {
        let name = format!("{EXTRA}{}", escape(key));
        let Ok(name) = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()) else {
            continue;
        };
        for one in values.iter().filter_map(|one| value(one)) {
            headers.append(name.clone(), one);
        }
    }
}

/// Percent-encodes what no header name may have.
fn escape(key: &str) -> String {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
    key.bytes()
        .map(|byte| match legal(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_and_claims_dropped() {
        let mut user = Identity::user("jane", &["crew"]);
        let key = "example.com/Scopes".to_owned();
        user.extra.insert(key, vec!["a".into(), "b".into()]);
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("admin"));
        headers.insert("x-remote-group", HeaderValue::from_static("system:masters"));
        name_user(&mut headers, &user);
        assert_eq!(headers["x-remote-user"], "jane");
        let groups: Vec<_> = headers.get_all("x-remote-group").iter().collect();
        assert_eq!(groups, ["crew", "system:authenticated"]);
        let extra = headers.get_all("x-remote-extra-example.com%2fscopes");
        assert_eq!(extra.iter().count(), 2);
        assert!(!headers.contains_key("x-remote-uid"));
    }
}
