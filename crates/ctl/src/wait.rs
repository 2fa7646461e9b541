//! `sampan wait`: until a condition, a field's value, or the end of an object.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use client::{Watch, WatchEvent};
use serde_json::Value;

use crate::{Session, output, resources};

/// Arguments of `wait`.
#[derive(Args, Clone, Debug)]
pub struct Wait {
    /// Kind and names: `pod web`, `deploy/web`
    #[arg(required = true)]
    resources: Vec<String>,
    /// condition=Ready[=False], jsonpath={.status.phase}=Running, create or delete
    #[arg(long = "for")]
    until: String,
    /// Longest wait, such as 30s or 5m
    #[arg(long, default_value = "30s")]
    timeout: String,
    /// All objects of the kind with these labels
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// All objects of the kind in the namespace
    #[arg(long)]
    all: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Until {
    Condition(String, String),
    Field(String, Option<String>),
    Create,
    Delete,
}

impl Until {
    fn parse(text: &str) -> Result<Until> {
        if text.eq_ignore_ascii_case("delete") {
            return Ok(Until::Delete);
        }
        if text.eq_ignore_ascii_case("create") {
            return Ok(Until::Create);
        }
        if let Some(rest) = text.strip_prefix("condition=") {
            let (kind, wanted) = rest.split_once('=').unwrap_or((rest, "True"));
            return Ok(Until::Condition(kind.to_owned(), wanted.to_owned()));
        }
        let rest = text.strip_prefix("jsonpath=").with_context(|| {
            format!("unrecognized condition {text:?}: use condition=, jsonpath=, create or delete")
        })?;
        let rest = rest.trim_matches('\'');
        let (path, wanted) = match rest.split_once("}=") {
            Some((path, wanted)) => (path, Some(wanted.to_owned())),
            None => (rest.trim_end_matches('}'), None),
        };
        let path = path.trim_start_matches('{').trim_start_matches('.');
        if path.contains(['[', '*', '@', '?']) {
            bail!("jsonpath {path:?}: only plain fields such as {{.status.phase}} are supported");
        }
        Ok(Until::Field(format!("/{}", path.replace('.', "/")), wanted))
    }

    fn holds(&self, object: &Value) -> bool {
        match self {
            Until::Create => true,
            Until::Delete => false,
            Until::Condition(kind, wanted) => {
                let list = object
                    .pointer("/status/conditions")
                    .and_then(Value::as_array);
                let mut same = list.into_iter().flatten().filter(|one| {
                    one["type"]
                        .as_str()
                        .is_some_and(|own| own.eq_ignore_ascii_case(kind))
                });
                same.any(|one| {
                    one["status"]
                        .as_str()
                        .is_some_and(|own| own.eq_ignore_ascii_case(wanted))
                })
            }
            Until::Field(pointer, wanted) => {
                let found = object.pointer(pointer).filter(|value| !value.is_null());
                let text =
                    found.map(|value| value.as_str().map_or(value.to_string(), str::to_owned));
                match wanted {
                    Some(wanted) => text.as_ref() == Some(wanted),
                    None => text.is_some(),
                }
            }
        }
    }
}

impl Wait {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let until = Until::parse(&self.until)?;
        let timeout: jiff::SignedDuration = self
            .timeout
            .parse()
            .context("--timeout is not a duration")?;
        let timeout = Duration::try_from(timeout).unwrap_or(Duration::MAX / 4);
        let waiting = async {
            for (names, only) in resources::resolve(session, &self.resources).await? {
                let only = if only.is_empty() {
                    self.listed(session, &names).await?
                } else {
                    only
                };
                for name in only {
                    one(session, &names, &name, &until).await?;
                    let done = if until == Until::Delete {
                        "deleted"
                    } else {
                        "condition met"
                    };
                    output::line(&format!("{} {done}", output::name_of(&names, &name)));
                }
            }
            Ok(())
        };
        match tokio::time::timeout(timeout, waiting).await {
            Ok(outcome) => outcome,
            Err(_) => bail!(
                "timed out waiting for the condition on {}",
                self.resources.join(" ")
            ),
        }
    }

    async fn listed(&self, session: &Session, names: &meta::Names) -> Result<Vec<String>> {
        if !self.all && self.selector.is_none() {
            bail!("resource(s) were provided, but no name was specified");
        }
        let mut path = names.path(Some(&session.namespace), None);
        if let Some(selector) = &self.selector {
            path.push_str("?labelSelector=");
            path.push_str(&client::request::percent_encode(selector));
        }
        let list = session.client.get_value(&path).await?;
        let items = list["items"].as_array().into_iter().flatten();
        let found: Vec<_> = items
            .filter_map(|item| item.pointer("/metadata/name")?.as_str())
            .collect();
        if found.is_empty() {
            bail!("no matching resources found");
        }
        Ok(found.into_iter().map(str::to_owned).collect())
    }
}

async fn one(session: &Session, names: &meta::Names, name: &str, until: &Until) -> Result<()> {
    let path = names.path(Some(&session.namespace), Some(name));
    match session.client.get_value(&path).await {
        Ok(object) if until.holds(&object) => return Ok(()),
        Ok(object) if *until == Until::Delete => {
            let uid = object
                .pointer("/metadata/uid")
                .and_then(Value::as_str)
                .unwrap_or_default();
            return until_gone(session, &path, uid).await;
        }
        Ok(_) => {}
        Err(status) if status.is_not_found() && *until == Until::Delete => return Ok(()),
        Err(status) if status.is_not_found() && *until == Until::Create => {}
        Err(status) => return Err(status.into()),
    }
    watch(session, &path, |event| match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => until.holds(&object),
        WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => false,
    })
    .await
}

/// Waits until the object with this path and uid is gone (or another took its place).
pub(crate) async fn until_gone(session: &Session, path: &str, uid: &str) -> Result<()> {
    match session.client.get_value(path).await {
        Ok(object) if object.pointer("/metadata/uid").and_then(Value::as_str) != Some(uid) => {
            Ok(())
        }
        Ok(_) => {
            watch(session, path, |event| {
                matches!(event, WatchEvent::Deleted(_))
            })
            .await
        }
        Err(status) if status.is_not_found() => Ok(()),
        Err(status) => Err(status.into()),
    }
}

/// Watches one object, from now on as it is, until `enough` says so.
async fn watch(
    session: &Session,
    path: &str,
    enough: impl Fn(WatchEvent<Value>) -> bool,
) -> Result<()> {
    let (collection, name) = path.rsplit_once('/').context("object path has no name")?;
    let list = format!("{collection}?fieldSelector=metadata.name%3D{name}");
    loop {
        let now = session.client.get_value(&list).await?;
        let standing = now["items"]
            .as_array()
            .is_some_and(|items| !items.is_empty());
        let item = now.pointer("/items/0").cloned().unwrap_or(Value::Null);
        if standing && enough(WatchEvent::Added(item)) {
            return Ok(());
        }
        if !standing && enough(WatchEvent::Deleted(Value::Null)) {
            return Ok(());
        }
        let version = now
            .pointer("/metadata/resourceVersion")
            .and_then(Value::as_str);
        let path = format!("{list}&watch=1&resourceVersion={}", version.unwrap_or("0"));
        let request = client::request::request(http::Method::GET, &path, None, client::empty())?;
        let response = session.client.send(request).await?;
        let mut watch: Watch<Value> = Watch::new(response.into_body());
        while let Some(Ok(event)) = watch.next().await {
            if enough(event) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_parse_and_hold() {
        let pod = json!({"status": {"phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}]}});
        let check = |text: &str, expected: bool| {
            assert_eq!(Until::parse(text).unwrap().holds(&pod), expected, "{text}");
        };
        check("condition=Ready", true);
        check("condition=ready=false", false);
        check("condition=Available", false);
        check("jsonpath={.status.phase}=Running", true);
        check("jsonpath='{.status.phase}'=Pending", false);
        check("jsonpath={.status.podIP}", false);
        check("create", true);
        assert!(Until::parse("sometime").is_err());
        assert!(Until::parse("jsonpath={.a[0]}=x").is_err());
    }
}
