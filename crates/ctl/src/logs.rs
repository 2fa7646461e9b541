//! `sampan logs`.

use anyhow::{Context, Result};
use clap::Args;
use http_body_util::BodyExt;
use serde_json::Value;

use crate::{Session, output, resources};

/// Arguments of `logs`.
#[derive(Args, Clone, Debug)]
pub struct Logs {
    /// A pod, or `deployment/web` for one of its pods
    pod: String,
    /// Container of the pod
    #[arg(short, long)]
    container: Option<String>,
    /// Go on printing as the log grows
    #[arg(short, long)]
    follow: bool,
    /// The log of the container's previous run
    #[arg(short, long)]
    previous: bool,
    /// Print a time before each line
    #[arg(long)]
    timestamps: bool,
    /// Only the last lines
    #[arg(long)]
    tail: Option<i64>,
    /// Only lines of the last so many seconds, such as 30s, 5m or 1h
    #[arg(long)]
    since: Option<String>,
}

impl Logs {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let pod = pod_name(session, &self.pod).await?;
        let mut path = format!("/api/v1/namespaces/{}/pods/{pod}/log?", session.namespace);
        let mut add = |key: &str, value: String| path.push_str(&format!("&{key}={value}"));
        if let Some(container) = &self.container {
            add("container", client::request::percent_encode(container));
        }
        for (key, on) in [
            ("follow", self.follow),
            ("previous", self.previous),
            ("timestamps", self.timestamps),
        ] {
            if on {
                add(key, "true".into());
            }
        }
        if let Some(lines) = self.tail {
            add("tailLines", lines.to_string());
        }
        if let Some(since) = &self.since {
            let duration: jiff::SignedDuration =
                since.parse().context("--since is not a duration")?;
            add("sinceSeconds", duration.as_secs().to_string());
        }
        let request = client::request::request(http::Method::GET, &path, None, client::empty())?;
        let mut body = session.client.send(request).await?.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| anyhow::anyhow!("log broke off: {error}"))?;
            if let Ok(data) = frame.into_data() {
                output::raw(&data)?;
            }
        }
        Ok(())
    }
}

/// A pod's name; for `kind/name` of a workload the first of its pods.
pub(crate) async fn pod_name(session: &Session, argument: &str) -> Result<String> {
    let Some((kind, name)) = argument.split_once('/') else {
        return Ok(argument.to_owned());
    };
    let known = resources::all(session).await?;
    let names = resources::find(&known, kind)?.remove(0);
    if names.kind == "Pod" {
        return Ok(name.to_owned());
    }
    let owner = session
        .client
        .get_value(&names.path(Some(&session.namespace), Some(name)))
        .await?;
    let selector = owner
        .pointer("/spec/selector")
        .cloned()
        .unwrap_or(Value::Null);
    let selector =
        match selector
            .get("matchLabels")
            .or(selector.get("matchExpressions"))
        {
            Some(_) => meta::LabelSelector::from_value(&selector)?,
            None => {
                meta::LabelSelector::equal(selector.as_object().into_iter().flatten().map(
                    |(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()),
                ))
            }
        };
    let selector = client::request::percent_encode(&selector.to_string());
    let path = format!(
        "/api/v1/namespaces/{}/pods?labelSelector={selector}",
        session.namespace
    );
    let list = session.client.get_value(&path).await?;
    let first = list
        .pointer("/items/0/metadata/name")
        .and_then(Value::as_str);
    Ok(first
        .with_context(|| format!("{argument} has no pods"))?
        .to_owned())
}
