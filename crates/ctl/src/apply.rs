//! `sampan apply`: server-side apply of what files say.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use meta::{GroupVersion, Names, Object};
use serde_json::Value;

use crate::{Session, output, resources};

const MANAGER: &str = "sampan";

/// Arguments of `apply`.
#[derive(Args, Clone, Debug)]
pub struct Apply {
    /// Files or folders with objects in YAML or JSON; `-` for standard input
    #[arg(short, long = "filename", required = true)]
    filenames: Vec<PathBuf>,
    /// Take over fields that others manage
    #[arg(long)]
    force_conflicts: bool,
    /// `server`: check everything, change nothing
    #[arg(long, value_parser = ["server", "none"], default_value = "none")]
    dry_run: String,
}

impl Apply {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let known = resources::all(session).await?;
        for object in read_all(&self.filenames)? {
            let names = names_of(&known, &object)?;
            let path = path_of(session, &names, &object)?;
            let mut query = format!(
                "{path}?fieldManager={MANAGER}&force={}",
                self.force_conflicts
            );
            if self.dry_run == "server" {
                query.push_str("&dryRun=All");
            }
            let before = match session.client.get_value(&path).await {
                Ok(before) => Object(before).resource_version().to_owned(),
                Err(status) if status.is_not_found() => String::new(),
                Err(status) => return Err(status.into()),
            };
            let body = serde_json::to_vec(&object.0)?;
            let after = session
                .client
                .patch_value(&query, "application/apply-patch+yaml", body)
                .await
                .with_context(|| output::name_of(&names, object.name()))?;
            let after = Object(after);
            let done = match before.as_str() {
                "" => "created",
                before if before == after.resource_version() => "unchanged",
                _ => "configured",
            };
            let note = if self.dry_run == "server" {
                " (server dry run)"
            } else {
                ""
            };
            output::line(&format!(
                "{} {done}{note}",
                output::name_of(&names, after.name())
            ));
        }
        Ok(())
    }
}

/// The objects of all files, in order; lists are opened.
pub(crate) fn read_all(files: &[PathBuf]) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    for file in files {
        if file.is_dir() {
            let mut inside: Vec<_> = std::fs::read_dir(file)?
                .map(|entry| entry.map(|e| e.path()))
                .collect::<Result<_, _>>()?;
            inside.sort();
            let manifest = |path: &PathBuf| {
                let extension = path.extension().and_then(|extension| extension.to_str());
                matches!(extension, Some("yaml" | "yml" | "json"))
            };
            for path in inside.iter().filter(|path| manifest(path)) {
                read_file(path, &mut objects)?;
            }
        } else {
            read_file(file, &mut objects)?;
        }
    }
    if objects.is_empty() {
        bail!("no objects passed to apply");
    }
    Ok(objects)
}

fn read_file(path: &Path, objects: &mut Vec<Object>) -> Result<()> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        text
    } else {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
    };
    parse(&text, objects).with_context(|| format!("{} is not valid", path.display()))
}

/// Reads the documents of a YAML (or JSON) text.
pub(crate) fn parse(text: &str, objects: &mut Vec<Object>) -> Result<()> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        let object = Object::new(document).context("a document is not an object")?;
        if object.kind().ends_with("List") && object.0["items"].is_array() {
            for item in object.0["items"].as_array().into_iter().flatten() {
                objects.push(Object::new(item.clone()).context("a list item is not an object")?);
            }
        } else {
            objects.push(object);
        }
    }
    Ok(())
}

/// The kind an object says it is.
pub(crate) fn names_of(known: &[Names], object: &Object) -> Result<Names> {
    let version = GroupVersion::parse(object.api_version());
    let version =
        version.with_context(|| format!("{:?} has no valid apiVersion", object.name()))?;
    let found = known
        .iter()
        .find(|names| names.group_version() == version && names.kind == object.kind());
    found.cloned().with_context(|| {
        format!(
            "no matches for kind \"{}\" in version \"{}\"",
            object.kind(),
            object.api_version()
        )
    })
}

/// The path of an object, in its own namespace or the session's.
pub(crate) fn path_of(session: &Session, names: &Names, object: &Object) -> Result<String> {
    if object.name().is_empty() {
        bail!("{} has no metadata.name", object.kind());
    }
    let namespace = match object.namespace() {
        "" => session.namespace.as_str(),
        namespace => namespace,
    };
    Ok(names.path(Some(namespace), Some(object.name())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_are_opened() {
        let text = "---\nkind: A\nmetadata: {name: a}\n---\n---\nkind: List\nitems:\n- kind: B\n- kind: C\n";
        let mut objects = Vec::new();
        parse(text, &mut objects).unwrap();
        let kinds: Vec<_> = objects.iter().map(Object::kind).collect();
        assert_eq!(kinds, ["A", "B", "C"]);
        assert!(parse("- 1\n- 2\n", &mut objects).is_err());
        assert!(parse("a: [", &mut objects).is_err());
    }
}
