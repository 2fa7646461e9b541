//! `sampan get`.

use anyhow::{Result, bail};
use clap::Args;
use client::{Watch, WatchEvent};
use http::header::{ACCEPT, HeaderValue};
use meta::Names;
use serde_json::{Value, json};

use crate::{Session, output, resources};

const AS_TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";

/// Arguments of `get`.
#[derive(Args, Clone, Debug)]
pub struct Get {
    /// Kind and names: `pods`, `pod web`, `deploy/web svc/web`, `pods,services`
    #[arg(required = true)]
    resources: Vec<String>,
    /// Output format: wide, yaml, json or name
    #[arg(short, long)]
    output: Option<String>,
    /// Only objects with these labels
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Only objects with these fields
    #[arg(long)]
    field_selector: Option<String>,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// After listing, watch for changes
    #[arg(short, long)]
    watch: bool,
    /// Print no headings
    #[arg(long)]
    no_headers: bool,
}

impl Get {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let wanted = resources::resolve(session, &self.resources).await?;
        match self.output.as_deref() {
            None | Some("wide") => self.tables(session, &wanted).await,
            Some("yaml" | "json" | "name") => self.trees(session, &wanted).await,
            Some(other) => bail!("unknown output format {other:?}; use wide, yaml, json or name"),
        }
    }

    fn path(&self, session: &Session, names: &Names, name: Option<&str>) -> String {
        let namespace = (!self.all_namespaces).then_some(session.namespace.as_str());
        let mut path = names.path(namespace, name);
        if name.is_none() {
            let selectors = [
                ("labelSelector", &self.selector),
                ("fieldSelector", &self.field_selector),
            ];
            let mut sign = '?';
            for (key, value) in selectors {
                if let Some(value) = value {
                    path.push_str(&format!(
                        "{sign}{key}={}",
                        client::request::percent_encode(value)
                    ));
                    sign = '&';
                }
            }
        }
        path
    }

    async fn tables(&self, session: &Session, wanted: &[(Names, Vec<String>)]) -> Result<()> {
        let (mut first, mut any) = (true, false);
        for (names, only) in wanted {
            let paths: Vec<_> = match only.as_slice() {
                [] => vec![self.path(session, names, None)],
                only => only
                    .iter()
                    .map(|name| self.path(session, names, Some(name)))
                    .collect(),
            };
            let mut rows = Vec::new();
            let (mut head, mut version) = (Vec::new(), String::new());
            for path in paths {
                let table = fetch_table(session, &path).await?;
                let text = table
                    .pointer("/metadata/resourceVersion")
                    .and_then(Value::as_str);
                version = text.unwrap_or("0").to_owned();
                head = self.head(&table, names);
                rows.extend(self.rows(&table, names, wanted.len() > 1));
            }
            if !rows.is_empty() {
                if !first {
                    output::line("");
                }
                output::table(&head, &rows, !self.no_headers);
                (first, any) = (false, true);
            }
            if self.watch {
                return self.watch_rows(session, names, only, &version).await;
            }
        }
        if !any {
            let place = match (self.all_namespaces, wanted.first()) {
                (false, Some((names, _))) if names.is_namespaced() => {
                    format!(" in {} namespace", session.namespace)
                }
                _ => String::new(),
            };
            eprintln!("No resources found{place}.");
        }
        Ok(())
    }

    fn columns<'t>(&self, table: &'t Value) -> impl Iterator<Item = (usize, &'t str)> + use<'t> {
        let wide = self.output.as_deref() == Some("wide");
        let columns = table["columnDefinitions"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate();
        columns
            .filter(move |(_, column)| wide || column["priority"].as_i64().unwrap_or(0) == 0)
            .map(|(at, column)| (at, column["name"].as_str().unwrap_or_default()))
    }

    fn head(&self, table: &Value, names: &Names) -> Vec<String> {
        let namespace = self.all_namespaces && names.is_namespaced();
        let first = namespace.then(|| "NAMESPACE".to_owned()).into_iter();
        first
            .chain(self.columns(table).map(|(_, name)| name.to_uppercase()))
            .collect()
    }

    fn rows(&self, table: &Value, names: &Names, prefixed: bool) -> Vec<Vec<String>> {
        let namespaced = self.all_namespaces && names.is_namespaced();
        let rows = table["rows"].as_array().into_iter().flatten();
        let row = |row: &Value| {
            let namespace = row
                .pointer("/object/metadata/namespace")
                .and_then(Value::as_str);
            let mut cells: Vec<_> = namespaced
                .then(|| namespace.unwrap_or_default().to_owned())
                .into_iter()
                .collect();
            for (at, column) in self.columns(table) {
                let cell = match &row["cells"][at] {
                    Value::String(text) => text.clone(),
                    Value::Null => "<none>".into(),
                    other => other.to_string(),
                };
                let name = prefixed && column == "Name";
                cells.push(if name {
                    output::name_of(names, &cell)
                } else {
                    cell
                });
            }
            cells
        };
        rows.map(row).collect()
    }

    async fn watch_rows(
        &self,
        session: &Session,
        names: &Names,
        only: &[String],
        version: &str,
    ) -> Result<()> {
        let mut path = self.path(session, names, None);
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str(&format!("watch=1&resourceVersion={version}"));
        if let [name] = only {
            path.push_str(&format!("&fieldSelector=metadata.name%3D{name}"));
        }
        let response = session.client.send(table_request(&path)?).await?;
        let mut watch: Watch<Value> = Watch::new(response.into_body());
        let mut known_columns = Value::Null;
        while let Some(event) = watch.next().await {
            let (WatchEvent::Added(mut table)
            | WatchEvent::Modified(mut table)
            | WatchEvent::Deleted(mut table)) = event?
            else {
                continue;
            };
            // Only the first table of a watch names its columns.
            match table["columnDefinitions"].is_array() {
                true => known_columns = table["columnDefinitions"].clone(),
                false => table["columnDefinitions"] = known_columns.clone(),
            }
            output::table(
                &self.head(&table, names),
                &self.rows(&table, names, false),
                false,
            );
        }
        Ok(())
    }

    async fn trees(&self, session: &Session, wanted: &[(Names, Vec<String>)]) -> Result<()> {
        let mut items = Vec::new();
        let single = matches!(wanted, [(_, only)] if only.len() == 1);
        for (names, only) in wanted {
            for name in only {
                let path = self.path(session, names, Some(name));
                items.push((names, session.client.get_value(&path).await?));
            }
            if only.is_empty() {
                let list = session
                    .client
                    .get_value(&self.path(session, names, None))
                    .await?;
                for item in list["items"].as_array().into_iter().flatten() {
                    let mut item = item.clone();
                    item["apiVersion"] = names.api_version().into();
                    item["kind"] = names.kind.as_str().into();
                    items.push((names, item));
                }
            }
        }
        if self.output.as_deref() == Some("name") {
            for (names, item) in &items {
                let name = item.pointer("/metadata/name").and_then(Value::as_str);
                output::line(&output::name_of(names, name.unwrap_or_default()));
            }
            return Ok(());
        }
        let mut trees: Vec<Value> = items.into_iter().map(|(_, item)| item).collect();
        let tree = match single {
            true => trees.pop().unwrap_or(Value::Null),
            false => json!({"apiVersion": "v1", "kind": "List", "items": trees}),
        };
        if self.output.as_deref() == Some("yaml") {
            output::yaml(&tree)
        } else {
            output::json(&tree)
        }
    }
}

fn table_request(path: &str) -> Result<http::Request<client::Body>> {
    let mut request = client::request::request(http::Method::GET, path, None, client::empty())?;
    request
        .headers_mut()
        .insert(ACCEPT, HeaderValue::from_static(AS_TABLE));
    Ok(request)
}

async fn fetch_table(session: &Session, path: &str) -> Result<Value> {
    Ok(session.client.json(table_request(path)?).await?)
}
