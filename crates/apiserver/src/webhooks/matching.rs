//! Which webhooks a write concerns, and in which version they are to see it.

use std::sync::Arc;

use admission::Operation;
use meta::{LabelSelector, Names, Status};
use serde_json::Value;

use super::Asked;
use super::hook::{Hook, Rule, Scope};
use crate::registry::Resource;
use crate::verbs::get::newest;

/// The objects of a write, as they are kept.
#[derive(Clone, Copy)]
pub(super) struct Objects<'a> {
    pub(super) new: Option<&'a Value>,
    pub(super) old: Option<&'a Value>,
}

/// The resource in whose version a webhook is to see the write; `None`: it does not concern it.
pub(super) async fn concerns(
    hook: &Hook,
    asked: &Asked<'_>,
    objects: Objects<'_>,
) -> Result<Option<Arc<Resource>>, Status> {
    // The cheapest question first. Upstream begins with the selectors; the answer is the same,
    // since what the rules leave out is never told of a broken selector.
    let Some(resource) = by_rules(hook, asked) else {
        return Ok(None);
    };
    if !in_namespaces(hook, asked, objects).await? || !has_labels(hook, objects)? {
        return Ok(None);
    }
    if !super::conditions::hold(hook, asked, &resource, objects).await? {
        return Ok(None);
    }
    Ok(Some(resource))
}

fn by_rules(hook: &Hook, asked: &Asked<'_>) -> Option<Arc<Resource>> {
    let own = &asked.resource;
    if hook.rules.iter().any(|rule| rule.is_about(asked, own)) {
        return Some(Arc::clone(own));
    }
    if !hook.equivalent {
        return None;
    }
    let equivalents = asked.equivalents();
    // Earlier rules first.
    let mut rules = hook.rules.iter();
    let found = rules.find_map(|rule| {
        let mut equivalents = equivalents.iter();
        equivalents.find(|other| rule.is_about(asked, other))
    });
    found.cloned()
}

impl Rule {
    fn is_about(&self, asked: &Asked<'_>, resource: &Resource) -> bool {
        let names = &resource.row.names;
        let has = |list: &[String], word: &str| list.iter().any(|one| one == "*" || one == word);
        self.scope.takes(asked)
            && has(&self.operations, word(asked.operation))
            && has(&self.groups, &names.group)
            && has(&self.versions, &names.version)
            && self.resources.iter().any(|(resource, part)| {
                (resource == "*" || *resource == names.plural)
                    && (part == "*" || part == asked.subresource)
            })
    }
}

impl Scope {
    fn takes(self, asked: &Asked<'_>) -> bool {
        let names = &asked.resource.row.names;
        let is_namespaces = names.group.is_empty() && names.plural == "namespaces";
        let cluster = is_namespaces || asked.namespace.is_empty();
        match self {
            Scope::All => true,
            Scope::Cluster => cluster,
            Scope::Namespaced => !cluster,
        }
    }
}

/// The word for an operation in rules and reviews.
pub(super) fn word(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

async fn in_namespaces(
    hook: &Hook,
    asked: &Asked<'_>,
    objects: Objects<'_>,
) -> Result<bool, Status> {
    let is_namespaces = asked.resource.row.names.plural == "namespaces";
    if asked.namespace.is_empty() && !is_namespaces {
        return Ok(true);
    }
    let selector = hook.namespaces.as_ref().map_err(Status::internal)?;
    if selector.is_empty() {
        return Ok(true);
    }
    let is_write = matches!(asked.operation, Operation::Create | Operation::Update);
    if let (true, true, Some(new)) = (asked.is_namespace(), is_write, objects.new) {
        return Ok(selects(selector, new));
    }
    use admission::Lookup as _;
    if let Some(namespace) = asked.core.lookup.get("namespaces", "", asked.namespace) {
        return Ok(selects(selector, &namespace.0));
    }
    // It may have been made a moment ago.
    let namespaces = asked.core.registry.now().find("", "v1", "namespaces");
    let missing = || {
        let names = Names::cluster("", "v1", "Namespace", "namespaces");
        Status::not_found(&names, asked.namespace)
    };
    let namespaces = namespaces.ok_or_else(missing)?;
    let entry = newest(asked.core, &namespaces, "", asked.namespace).await?;
    Ok(selects(selector, &entry.shared_tree().0))
}

fn has_labels(hook: &Hook, objects: Objects<'_>) -> Result<bool, Status> {
    let selector = hook.objects.as_ref().map_err(Status::internal)?;
    let fits = |object: Option<&Value>| object.is_some_and(|object| selects(selector, object));
    Ok(selector.is_empty() || fits(objects.new) || fits(objects.old))
}

fn selects(selector: &LabelSelector, object: &Value) -> bool {
    let labels = object.pointer("/metadata/labels");
    selector.matches(|key| labels?.get(key)?.as_str())
}
