//! Which kinds the server has, by any of their names.

use anyhow::{Result, bail};
use meta::{Names, Scope};
use serde_json::Value;

use crate::Session;
use crate::output;

/// All kinds that can be got, in the server's order.
pub(crate) async fn all(session: &Session) -> Result<Vec<Names>> {
    let groups = session.client.get_value("/apis").await?;
    let mut roots = vec![("/api/v1".to_owned(), String::new(), "v1".to_owned())];
    for group in groups["groups"].as_array().into_iter().flatten() {
        let name = group["name"].as_str().unwrap_or_default().to_owned();
        let version = group["preferredVersion"]["version"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        roots.push((format!("/apis/{name}/{version}"), name, version));
    }
    let answers = roots
        .iter()
        .map(|(path, _, _)| session.client.get_value(path));
    let answers = futures::future::join_all(answers).await;
    let mut found = Vec::new();
    for ((_, group, version), answer) in roots.iter().zip(answers) {
        for resource in answer?["resources"].as_array().into_iter().flatten() {
            found.extend(names(group, version, resource));
        }
    }
    Ok(found)
}

fn names(group: &str, version: &str, resource: &Value) -> Option<Names> {
    let text = |field: &str| resource[field].as_str().unwrap_or_default().to_owned();
    let words = |field: &str| -> Vec<String> {
        let list = resource[field].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let plural = text("name");
    let listable = words("verbs").contains(&"list".to_owned());
    (!plural.contains('/') && listable).then(|| Names {
        group: group.to_owned(),
        version: version.to_owned(),
        list_kind: format!("{}List", text("kind")),
        kind: text("kind"),
        singular: text("singularName"),
        plural,
        short: words("shortNames"),
        categories: words("categories"),
        scope: if resource["namespaced"] == true {
            Scope::Namespaced
        } else {
            Scope::Cluster
        },
    })
}

/// The kinds that `word` means: a plural, singular, short name, kind, `plural.group`, or category.
pub(crate) fn find(known: &[Names], word: &str) -> Result<Vec<Names>> {
    let lower = word.to_lowercase();
    let (plain, group) = lower.split_once('.').unwrap_or((&lower, ""));
    let called = |names: &&Names| {
        let named = names.plural == plain
            || names.singular == plain
            || names.kind.to_lowercase() == plain
            || names.short.iter().any(|short| short == plain);
        let asked = format!("{}.{}", names.version, names.group);
        named && (group.is_empty() || group == names.group || group == asked)
    };
    if let Some(names) = known.iter().find(called) {
        return Ok(vec![names.clone()]);
    }
    let category = |names: &&Names| names.categories.contains(&lower);
    let many: Vec<_> = known.iter().filter(category).cloned().collect();
    if many.is_empty() {
        bail!("the server doesn't have a resource type \"{word}\"");
    }
    Ok(many)
}

/// What the arguments of a verb name: kinds, each with names or with none for all.
pub(crate) async fn resolve(
    session: &Session,
    arguments: &[String],
) -> Result<Vec<(Names, Vec<String>)>> {
    let known = all(session).await?;
    let Some((first, rest)) = arguments.split_first() else {
        bail!("you must specify the type of resource, such as `pods` or `deployment/web`");
    };
    if arguments.iter().all(|argument| argument.contains('/')) {
        let mut found = Vec::new();
        for argument in arguments {
            let (kind, name) = argument.split_once('/').unwrap_or((argument, ""));
            for names in find(&known, kind)? {
                found.push((names, vec![name.to_owned()]));
            }
        }
        return Ok(found);
    }
    let mut found = Vec::new();
    for word in first.split(',') {
        for names in find(&known, word)? {
            found.push((names, rest.to_vec()));
        }
    }
    Ok(found)
}

/// `sampan api-resources`.
pub(crate) async fn list(session: &Session) -> Result<()> {
    let rows = all(session).await?.into_iter().map(|names| {
        vec![
            names.plural.clone(),
            names.short.join(","),
            names.api_version(),
            names.is_namespaced().to_string(),
            names.kind,
        ]
    });
    let head = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"];
    output::table(&head.map(str::to_owned), &rows.collect::<Vec<_>>(), true);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_kinds() {
        let known = [
            Names::namespaced("", "v1", "Pod", "pods")
                .short(&["po"])
                .categories(&["all"]),
            Names::namespaced("apps", "v1", "Deployment", "deployments")
                .short(&["deploy"])
                .categories(&["all"]),
            Names::cluster("", "v1", "Node", "nodes"),
        ];
        let check = |word: &str, expected: &[&str]| {
            let found = find(&known, word).unwrap();
            let kinds: Vec<_> = found.iter().map(|names| names.kind.as_str()).collect();
            assert_eq!(kinds, expected, "{word}");
        };
        check("po", &["Pod"]);
        check("Pod", &["Pod"]);
        check("deployments.apps", &["Deployment"]);
        check("deployments.v1.apps", &["Deployment"]);
        check("all", &["Pod", "Deployment"]);
        let error = find(&known, "podz").unwrap_err().to_string();
        assert_eq!(error, "the server doesn't have a resource type \"podz\"");
    }
}
