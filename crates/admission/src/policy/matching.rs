//! Which writes a policy or a binding is about.

use std::sync::Arc;

use meta::{LabelSelector, Names, Object};
use serde_json::Value;

use super::compile::{list, text};
use super::subject::Subject;
use crate::plugin::Operation;

/// The new and the old object, as they are kept.
pub(super) type Objects<'o> = (Option<&'o Value>, Option<&'o Value>);

/// The resources as which a write may be meant.
pub(super) struct Meanings<'s> {
    subject: &'s Subject<'s>,
    own: Arc<Names>,
    others: Option<Vec<Arc<Names>>>,
}

impl<'s> Meanings<'s> {
    pub(super) fn new(subject: &'s Subject<'s>) -> Meanings<'s> {
        Meanings {
            subject,
            own: Arc::new(subject.names.clone()),
            others: None,
        }
    }

    fn others(&mut self) -> &[Arc<Names>] {
        let views = self.subject.views;
        let others = || views.equivalents().into_iter().map(Arc::new).collect();
        self.others.get_or_insert_with(others)
    }
}

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

    /// Whether the rule is about a write that is meant as one of this resource.
    fn takes(&self, subject: &Subject<'_>, names: &Names) -> bool {
        let has = |words: &[String], word: &str| words.iter().any(|own| own == "*" || own == word);
        let namespaced = !subject.namespace.is_empty() && !subject.is_namespaces();
        let in_scope = match self.scope.as_str() {
            "Namespaced" => namespaced,
            "Cluster" => !namespaced,
            _ => true,
        };
        in_scope
            && has(&self.operations, word(subject.operation))
            && has(&self.groups, &names.group)
            && has(&self.versions, &names.version)
            && (self.names.is_empty() || self.names.iter().any(|own| own == subject.name))
            && self.resources.iter().any(|own| {
                let (resource, part) = own.split_once('/').unwrap_or((own, ""));
                (resource == "*" || resource == names.plural)
                    && (part == "*" || part == subject.subresource)
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

    /// The resource as which the write is meant; `None`: it is not. A match without rules is
    /// about all that its selectors choose. What is not meant is never told of a broken selector.
    pub(super) fn concerns(
        &self,
        meanings: &mut Meanings<'_>,
        objects: Objects<'_>,
    ) -> Result<Option<Arc<Names>>, String> {
        let names = match self.include.is_empty() {
            true => Some(Arc::clone(&meanings.own)),
            false => self.by_rules(&self.include, meanings),
        };
        let Some(names) = names else {
            return Ok(None);
        };
        if self.by_rules(&self.exclude, meanings).is_some() {
            return Ok(None);
        }
        let (in_namespaces, has_labels) = (
            self.in_namespaces(meanings.subject, objects),
            self.has_labels(objects),
        );
        match (in_namespaces, has_labels) {
            (Ok(false), _) | (_, Ok(false)) => Ok(None),
            (Err(error), _) | (_, Err(error)) => Err(error),
            _ => Ok(Some(names)),
        }
    }

    fn by_rules(&self, rules: &[Rule], meanings: &mut Meanings<'_>) -> Option<Arc<Names>> {
        let subject = meanings.subject;
        if rules.iter().any(|rule| rule.takes(subject, subject.names)) {
            return Some(Arc::clone(&meanings.own));
        }
        if !self.equivalent || rules.is_empty() {
            return None;
        }
        let others = meanings.others();
        // Earlier rules first.
        let found = rules.iter().find_map(|rule| {
            let mut others = others.iter();
            others.find(|names| rule.takes(subject, names))
        });
        found.cloned()
    }

    fn in_namespaces(
        &self,
        subject: &Subject<'_>,
        (object, _): Objects<'_>,
    ) -> Result<bool, String> {
        let selector = self.namespaces.as_ref().map_err(String::clone)?;
        if selector.is_empty() || subject.namespace.is_empty() {
            // Cluster-wide objects are in no namespace that could be left out.
            return Ok(true);
        }
        let is_write = matches!(subject.operation, Operation::Create | Operation::Update);
        let whole = subject.is_namespaces() && is_write && subject.subresource.is_empty();
        if let Some(object) = object.filter(|_| whole) {
            return Ok(has(selector, object));
        }
        let name = subject.namespace;
        let namespace = subject.lookup.get("namespaces", "", name);
        let namespace = namespace.ok_or_else(|| format!("namespaces \"{name}\" not found"))?;
        Ok(has(selector, &namespace.0))
    }

    fn has_labels(&self, (object, old): Objects<'_>) -> Result<bool, String> {
        let selector = self.objects.as_ref().map_err(String::clone)?;
        let fits = |object: Option<&Value>| object.is_some_and(|object| has(selector, object));
        Ok(selector.is_empty() || fits(object) || fits(old))
    }
}

fn has(selector: &LabelSelector, object: &Value) -> bool {
    let labels = object.pointer("/metadata/labels");
    selector.matches(|key| labels?.get(key)?.as_str())
}

/// Whether a selector chooses an object.
pub(super) fn selects(selector: &LabelSelector, object: &Object) -> bool {
    selector.matches(|key| object.label(key))
}
