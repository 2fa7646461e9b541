//! Which writes a policy or a binding is about.

use meta::{LabelSelector, Names, Object};
use serde_json::Value;

use super::compile::{list, text};
use crate::plugin::{Lookup, Operation, Request};

/// `matchConstraints` of a policy, `matchResources` of a binding.
pub(super) struct Match {
    include: Vec<Rule>,
    exclude: Vec<Rule>,
    namespaces: Result<LabelSelector, String>,
    objects: Result<LabelSelector, String>,
    equivalent: bool,
}

struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    scope: String,
}

fn words(value: &Value, field: &str) -> Vec<String> {
    list(value, field)
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

impl Rule {
    fn read(value: &Value) -> Rule {
        Rule {
            operations: words(value, "operations"),
            groups: words(value, "apiGroups"),
            versions: words(value, "apiVersions"),
            resources: words(value, "resources"),
            names: words(value, "resourceNames"),
            scope: text(value, "scope").to_owned(),
        }
    }

    /// Whether the rule is about a write of the resource in this version.
    fn takes(&self, request: &Request<'_>, version: &str) -> bool {
        let has = |words: &[String], word: &str| words.iter().any(|own| own == "*" || own == word);
        let names = request.names;
        let namespaces = names.group.is_empty() && names.plural == "namespaces";
        let namespaced = !request.namespace.is_empty() && !namespaces;
        let in_scope = match self.scope.as_str() {
            "Namespaced" => namespaced,
            "Cluster" => !namespaced,
            _ => true,
        };
        in_scope
            && has(&self.operations, word(request.operation))
            && has(&self.groups, &names.group)
            && has(&self.versions, version)
            && (self.names.is_empty() || self.names.iter().any(|own| own == request.name))
            && self.resources.iter().any(|own| {
                let (resource, part) = own.split_once('/').unwrap_or((own, ""));
                (resource == "*" || resource == names.plural)
                    && (part == request.subresource || part == "*" && own.contains('/'))
            })
    }
}

/// The word for an operation in rules and requests.
pub(super) fn word(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

impl Match {
    pub(super) fn read(value: &Value) -> Match {
        let selector = |field: &str| {
            let selector = value.get(field).unwrap_or(&Value::Null);
            LabelSelector::from_value(selector).map_err(|error| error.to_string())
        };
        Match {
            include: list(value, "resourceRules").map(Rule::read).collect(),
            exclude: list(value, "excludeResourceRules")
                .map(Rule::read)
                .collect(),
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
            equivalent: text(value, "matchPolicy") != "Exact",
        }
    }

    /// The version in which the write is meant; `None`: it is not. A match without rules is about
    /// all that its selectors choose.
    pub(super) fn concerns(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<Option<String>, String> {
        let names = request.names;
        let asked = request.notes.version().unwrap_or(&names.version);
        let by_rules = |rules: &[Rule]| {
            if rules.iter().any(|rule| rule.takes(request, asked)) {
                return Some(asked.to_owned());
            }
            let versions = if self.equivalent {
                lookup.versions(names)
            } else {
                Vec::new()
            };
            versions
                .into_iter()
                .find(|version| rules.iter().any(|rule| rule.takes(request, version)))
        };
        let version = match self.include.is_empty() {
            true => Some(asked.to_owned()),
            false => by_rules(&self.include),
        };
        let Some(version) = version else {
            return Ok(None);
        };
        if by_rules(&self.exclude).is_some()
            || !self.in_namespaces(request, object, lookup)?
            || !self.has_labels(request, object)?
        {
            return Ok(None);
        }
        Ok(Some(version))
    }

    fn in_namespaces(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<bool, String> {
        let selector = self.namespaces.as_ref().map_err(String::clone)?;
        if selector.is_empty() {
            return Ok(true);
        }
        let is_namespace = request.resource_is("namespaces");
        if !is_namespace && request.namespace.is_empty() {
            // Cluster-wide objects are in no namespace that could be left out.
            return Ok(true);
        }
        let is_write = matches!(request.operation, Operation::Create | Operation::Update);
        if let Some(object) =
            object.filter(|_| is_namespace && is_write && request.subresource.is_empty())
        {
            return Ok(selector.matches(|key| object.label(key)));
        }
        let name = if is_namespace {
            request.name
        } else {
            request.namespace
        };
        let namespace = lookup.get("namespaces", "", name);
        let namespace = namespace.ok_or_else(|| format!("namespaces \"{name}\" not found"))?;
        Ok(selector.matches(|key| namespace.label(key)))
    }

    fn has_labels(&self, request: &Request<'_>, object: Option<&Object>) -> Result<bool, String> {
        let selector = self.objects.as_ref().map_err(String::clone)?;
        let fits = |object: Option<&Object>| {
            object.is_some_and(|object| selector.matches(|key| object.label(key)))
        };
        Ok(selector.is_empty() || fits(object) || fits(request.old))
    }
}

/// Whether a selector chooses an object.
pub(super) fn selects(selector: &LabelSelector, object: &Object) -> bool {
    selector.matches(|key| object.label(key))
}

/// The kind of a write in one version, as requests show it.
pub(super) fn kind_of(names: &Names, version: &str) -> Value {
    serde_json::json!({"group": names.group, "version": version, "kind": names.kind})
}

/// The resource of a write in one version.
pub(super) fn resource_of(names: &Names, version: &str) -> Value {
    serde_json::json!({"group": names.group, "version": version, "resource": names.plural})
}
