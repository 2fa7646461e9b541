//! `sampan describe`: an object as YAML, and what happened to it.

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use meta::{Names, Object};
use serde_json::Value;

use crate::{Session, output, resources};

/// Arguments of `describe`.
#[derive(Args, Clone, Debug)]
pub struct Describe {
    /// Kind and names: `pod web`, `deploy/web`
    #[arg(required = true)]
    resources: Vec<String>,
}

impl Describe {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        for (names, only) in resources::resolve(session, &self.resources).await? {
            let only = if only.is_empty() {
                all_names(session, &names).await?
            } else {
                only
            };
            for (at, name) in only.iter().enumerate() {
                if at > 0 {
                    output::line("\n");
                }
                one(session, &names, name).await?;
            }
        }
        Ok(())
    }
}

async fn all_names(session: &Session, names: &Names) -> Result<Vec<String>> {
    let list = session
        .client
        .get_value(&names.path(Some(&session.namespace), None))
        .await?;
    let items = list["items"].as_array().into_iter().flatten();
    let found = items.filter_map(|item| item.pointer("/metadata/name")?.as_str());
    Ok(found.map(str::to_owned).collect())
}

async fn one(session: &Session, names: &Names, name: &str) -> Result<()> {
    let path = names.path(Some(&session.namespace), Some(name));
    let mut object = Object(session.client.get_value(&path).await?);
    object.metadata_mut().remove("managedFields");
    let heading =
        |title: &str, text: &str| output::line(&format!("{:<14}{text}", format!("{title}:")));
    heading("Name", object.name());
    if names.is_namespaced() {
        heading("Namespace", object.namespace());
    }
    heading("Kind", &format!("{} ({})", names.kind, names.api_version()));
    heading("Created", object.text("/metadata/creationTimestamp"));
    let pairs = |pairs: Vec<(&str, &str)>| {
        let lines: Vec<_> = pairs
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        if lines.is_empty() {
            "<none>".into()
        } else {
            lines.join("\n              ")
        }
    };
    heading("Labels", &pairs(object.labels().collect()));
    heading("Annotations", &pairs(object.annotations().collect()));
    for (field, value) in object.fields() {
        if !matches!(field.as_str(), "metadata" | "apiVersion" | "kind") {
            let mut wrapped = serde_json::Map::new();
            wrapped.insert(field.clone(), value.clone());
            output::yaml(&Value::Object(wrapped))?;
        }
    }
    events(session, &object).await
}

async fn events(session: &Session, object: &Object) -> Result<()> {
    let namespace = if object.namespace().is_empty() {
        "default"
    } else {
        object.namespace()
    };
    let selector = format!("involvedObject.uid={}", object.uid());
    let selector = client::request::percent_encode(&selector);
    let path = format!("/api/v1/namespaces/{namespace}/events?fieldSelector={selector}");
    let list = session.client.get_value(&path).await?;
    let mut events: Vec<&Value> = list["items"].as_array().into_iter().flatten().collect();
    if events.is_empty() {
        output::line("Events:       <none>");
        return Ok(());
    }
    events.sort_by_key(|event| {
        event["lastTimestamp"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    });
    let now = Timestamp::now();
    let text = |event: &Value, pointer: &str| {
        event
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let row = |event: &&Value| {
        let age = meta::time::age(&text(event, "/lastTimestamp"), now);
        let count = event["count"].as_i64().unwrap_or(1);
        let age = if count > 1 {
            format!("{age} (x{count})")
        } else {
            age
        };
        vec![
            format!("  {}", text(event, "/type")),
            text(event, "/reason"),
            age,
            text(event, "/source/component"),
            text(event, "/message"),
        ]
    };
    output::line("Events:");
    let head = ["  Type", "Reason", "Age", "From", "Message"].map(str::to_owned);
    output::table(&head, &events.iter().map(row).collect::<Vec<_>>(), true);
    Ok(())
}
