//! `sampan delete`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::{Session, apply, output, resources, wait};

/// Arguments of `delete`.
#[derive(Args, Clone, Debug)]
pub struct Delete {
    /// Kind and names: `pod web`, `deploy/web svc/web`
    resources: Vec<String>,
    /// Delete what these files name
    #[arg(short, long = "filename")]
    filenames: Vec<PathBuf>,
    /// Delete all objects of the kind with these labels
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Delete all objects of the kind in the namespace
    #[arg(long)]
    all: bool,
    /// Seconds given to the object to end; 0 for none
    #[arg(long)]
    grace_period: Option<i64>,
    /// Treat "not found" as success
    #[arg(long)]
    ignore_not_found: bool,
    /// Return before the objects are gone
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true)]
    wait: bool,
}

impl Delete {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let targets = self.targets(session).await?;
        let mut going = Vec::new();
        for (label, path) in targets {
            let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1",
                "propagationPolicy": "Background"});
            if let Some(seconds) = self.grace_period {
                options["gracePeriodSeconds"] = seconds.into();
            }
            match session.client.delete_value(&path, Some(options)).await {
                Ok(answer) => {
                    output::line(&format!("{label} deleted"));
                    let uid = answer
                        .pointer("/metadata/uid")
                        .or(answer.pointer("/details/uid"));
                    going.push((
                        path,
                        uid.and_then(Value::as_str).unwrap_or_default().to_owned(),
                    ));
                }
                Err(status) if status.is_not_found() && self.ignore_not_found => {}
                Err(status) => return Err(status.into()),
            }
        }
        if self.wait {
            for (path, uid) in going {
                wait::until_gone(session, &path, &uid).await?;
            }
        }
        Ok(())
    }

    /// What to call and where to find each object that shall go.
    async fn targets(&self, session: &Session) -> Result<Vec<(String, String)>> {
        let mut targets = Vec::new();
        if !self.filenames.is_empty() {
            let known = resources::all(session).await?;
            for object in apply::read_all(&self.filenames)?.iter().rev() {
                let names = apply::names_of(&known, object)?;
                let label = format!("{} \"{}\"", names.singular, object.name());
                targets.push((label, apply::path_of(session, &names, object)?));
            }
            return Ok(targets);
        }
        for (names, only) in resources::resolve(session, &self.resources).await? {
            let mut only = only;
            if only.is_empty() {
                if !self.all && self.selector.is_none() {
                    bail!("resource(s) were provided, but no name was specified");
                }
                only = self.listed(session, &names).await?;
            }
            for name in only {
                let path = names.path(Some(&session.namespace), Some(&name));
                targets.push((format!("{} \"{name}\"", names.singular), path));
            }
        }
        Ok(targets)
    }

    async fn listed(&self, session: &Session, names: &meta::Names) -> Result<Vec<String>> {
        let mut path = names.path(Some(&session.namespace), None);
        if let Some(selector) = &self.selector {
            path.push_str("?labelSelector=");
            path.push_str(&client::request::percent_encode(selector));
        }
        let list = session.client.get_value(&path).await?;
        let items = list["items"].as_array().into_iter().flatten();
        let names = items.filter_map(|item| item.pointer("/metadata/name")?.as_str());
        Ok(names.map(str::to_owned).collect())
    }
}
