//! `Impersonate-User` and its kin: acting as somebody else, where allowed.

use auth::{Attributes, Authorizer, Identity};
use http::HeaderMap;
use meta::Status;

use super::query::decode;

const EXTRA_PREFIX: &str = "impersonate-extra-";

/// Whether any header speaks of acting as somebody else.
pub(crate) fn is_asked_for(headers: &HeaderMap) -> bool {
    headers
        .keys()
        .any(|key| key.as_str().starts_with("impersonate-"))
}

/// The user to act as: `user` unless the headers ask for another.
pub(crate) async fn impersonate(
    authorizer: &Authorizer,
    user: Identity,
    headers: &HeaderMap,
) -> Result<Identity, Status> {
    let text = |name: &str| {
        let value = headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
            .to_owned()
    };
    let name = text("impersonate-user");
    let uid = text("impersonate-uid");
    let groups = headers.get_all("impersonate-group").iter();
    let groups: Vec<String> = groups
        .filter_map(|value| value.to_str().ok().map(str::to_owned))
        .collect();
    let has_extra = headers
        .keys()
        .any(|key| key.as_str().starts_with(EXTRA_PREFIX));
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && !has_extra {
            return Ok(user);
        }
        return Err(Status::internal(
            "requested impersonation without impersonating a user",
        ));
    }
    let mut wanted = as_account(&name).unwrap_or_else(|| Identity {
        name: name.clone(),
        ..Identity::default()
    });
    let may = async |asked: Attributes| authorizer.demand(&user, &asked).await;
    may(subject(&name)).await?;
    for group in &groups {
        may(attributes("", "groups", group, "")).await?;
    }
    if !uid.is_empty() {
        may(attributes("authentication.k8s.io", "uids", &uid, "")).await?;
    }
    if !groups.is_empty() {
        wanted.groups = groups;
    }
    let known = ["system:authenticated", "system:unauthenticated"];
    if !known.iter().any(|group| wanted.is_in(group)) {
        let own = match name.as_str() {
            "system:anonymous" => "system:unauthenticated",
            _ => "system:authenticated",
        };
        wanted.groups.push(own.into());
    }
    wanted.uid = uid;
    for (key, value) in headers {
        let Some(key) = key.as_str().strip_prefix(EXTRA_PREFIX) else {
            continue;
        };
        let (key, value) = (decode(key, false)?, value.to_str().unwrap_or("").to_owned());
        may(attributes(
            "authentication.k8s.io",
            "userextras",
            &value,
            &key,
        ))
        .await?;
        wanted.extra.entry(key).or_default().push(value);
    }
    Ok(wanted)
}

fn as_account(name: &str) -> Option<Identity> {
    let (namespace, account) = name
        .strip_prefix("system:serviceaccount:")?
        .split_once(':')?;
    Some(Identity::service_account(namespace, account, ""))
}

fn subject(name: &str) -> Attributes {
    let account = name.strip_prefix("system:serviceaccount:");
    match account.and_then(|rest| rest.split_once(':')) {
        Some((namespace, account)) => Attributes {
            namespace: namespace.into(),
            ..attributes("", "serviceaccounts", account, "")
        },
        None => attributes("", "users", name, ""),
    }
}

fn attributes(group: &str, resource: &str, name: &str, subresource: &str) -> Attributes {
    Attributes {
        verb: "impersonate".into(),
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
        subresource: subresource.into(),
        name: name.into(),
        ..Attributes::default()
    }
}
