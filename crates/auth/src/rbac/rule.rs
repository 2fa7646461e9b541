//! One policy rule: what it allows, and what it is a part of.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize};

use crate::identity::Attributes;

/// `rbac/v1 PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(
        rename = "nonResourceURLs",
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub non_resource_urls: Vec<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub verbs: Vec<String>,
}

/// An absent list and `null` are the same thing.
pub(super) fn nullable<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(input)?.unwrap_or_default())
}

impl Rule {
    /// Whether the rule allows what is asked.
    pub fn allows(&self, asked: &Attributes) -> bool {
        if !has_or_all(&self.verbs, &asked.verb) {
            return false;
        }
        if !asked.is_resource() {
            return self
                .non_resource_urls
                .iter()
                .any(|url| url_covers(url, &asked.path));
        }
        has_or_all(&self.api_groups, &asked.group)
            && self
                .resources
                .iter()
                .any(|own| resource_matches(own, asked))
            && (self.resource_names.is_empty() || has(&self.resource_names, &asked.name))
    }

    /// The rule in the form of escalation messages: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
    pub fn compact(&self) -> String {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let shown: Vec<String> = parts
            .into_iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| format!("{name}:{}", quoted(list)))
            .collect();
        format!("{{{}}}", shown.join(", "))
    }

    /// The same permissions as rules of one verb on one resource (of one name) or path each.
    fn atoms(&self) -> Vec<Rule> {
        let mut atoms = Vec::new();
        let one = |text: &String| vec![text.clone()];
        let names: Vec<Vec<String>> = match self.resource_names.is_empty() {
            true => vec![Vec::new()],
            false => self.resource_names.iter().map(one).collect(),
        };
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    atoms.extend(names.iter().map(|names| Rule {
                        api_groups: one(group),
                        resources: one(resource),
                        verbs: one(verb),
                        resource_names: names.clone(),
                        ..Rule::default()
                    }));
                }
            }
        }
        for url in &self.non_resource_urls {
            atoms.extend(self.verbs.iter().map(|verb| Rule {
                non_resource_urls: one(url),
                verbs: one(verb),
                ..Rule::default()
            }));
        }
        atoms
    }

    /// Whether everything that `atom` allows is allowed.
    fn covers(&self, atom: &Rule) -> bool {
        let all = |own: &[String], wanted: &[String]| wanted.iter().all(|one| has(own, one));
        let any = |own: &[String], wanted: &[String]| has(own, "*") || all(own, wanted);
        any(&self.verbs, &atom.verbs)
            && any(&self.api_groups, &atom.api_groups)
            && atom
                .resources
                .iter()
                .all(|wanted| self.covers_resource(wanted))
            && atom.non_resource_urls.iter().all(|wanted| {
                self.non_resource_urls
                    .iter()
                    .any(|own| own == wanted || url_covers(own, wanted))
            })
            && (self.resource_names.is_empty()
                || (!atom.resource_names.is_empty()
                    && all(&self.resource_names, &atom.resource_names)))
    }

    fn covers_resource(&self, wanted: &str) -> bool {
        let any_with = |subresource: &str| {
            self.resources
                .iter()
                .any(|own| own.strip_prefix("*/") == Some(subresource))
        };
        has_or_all(&self.resources, wanted)
            || wanted
                .split_once('/')
                .is_some_and(|(_, subresource)| any_with(subresource))
    }
}

/// What of `wanted` is not covered by `held`, in rules of one verb each.
pub fn uncovered(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let atoms = wanted.iter().flat_map(Rule::atoms);
    atoms
        .filter(|atom| !held.iter().any(|rule| rule.covers(atom)))
        .collect()
}

/// Whether `held` allows all that `wanted` allows.
pub fn covers(held: &[Rule], wanted: &[Rule]) -> bool {
    uncovered(held, wanted).is_empty()
}

/// Joins rules that differ in the verb only; for people.
pub fn compacted(rules: Vec<Rule>) -> Vec<Rule> {
    let mut joined: BTreeMap<Rule, Vec<String>> = BTreeMap::new();
    for mut rule in rules {
        let verbs = std::mem::take(&mut rule.verbs);
        joined.entry(rule).or_default().extend(verbs);
    }
    let with_verbs = |(rule, verbs)| Rule { verbs, ..rule };
    joined.into_iter().map(with_verbs).collect()
}

/// The lines of an escalation message.
pub(super) fn described(rules: Vec<Rule>) -> String {
    let lines: BTreeSet<String> = compacted(rules).iter().map(Rule::compact).collect();
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

/// `["a" "b"]`, as Go prints a list of quoted texts.
pub(super) fn quoted(list: &[String]) -> String {
    let shown: Vec<String> = list.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", shown.join(" "))
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|own| own == wanted)
}

fn has_or_all(list: &[String], wanted: &str) -> bool {
    list.iter().any(|own| own == wanted || own == "*")
}

pub(super) fn url_covers(own: &str, wanted: &str) -> bool {
    own == wanted
        || own
            .strip_suffix('*')
            .is_some_and(|prefix| wanted.starts_with(prefix.trim_end_matches('*')))
}

/// `pods`, `pods/log`, `*/scale` or `*`.
fn resource_matches(own: &str, asked: &Attributes) -> bool {
    let under = |resource: &str| {
        let rest = own.strip_prefix(resource);
        rest.and_then(|rest| rest.strip_prefix('/')) == Some(&asked.subresource)
    };
    match asked.subresource.as_str() {
        _ if own == "*" => true,
        "" => own == asked.resource,
        _ => under(&asked.resource) || under("*"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(value: serde_json::Value) -> Rule {
        serde_json::from_value(value).unwrap()
    }

    fn asked(verb: &str, group: &str, resource: &str, name: &str) -> Attributes {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            name: name.into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn resources_and_subresources() {
        let pods = rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}));
        assert!(pods.allows(&asked("get", "", "pods", "web")));
        assert!(!pods.allows(&asked("get", "", "pods/log", "web")));
        assert!(!pods.allows(&asked("list", "", "pods", "")));
        assert!(!pods.allows(&asked("get", "apps", "pods", "web")));
        let scale = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/scale"]}));
        assert!(scale.allows(&asked("update", "apps", "deployments/scale", "web")));
        assert!(!scale.allows(&asked("update", "apps", "deployments", "web")));
        assert!(!scale.allows(&asked("update", "apps", "deployments/status", "web")));
        let all = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        assert!(all.allows(&asked("anything", "x", "y/z", "")));
    }

    #[test]
    fn names_limit_a_rule() {
        let one = rule(json!({"verbs": ["get", "list"], "apiGroups": [""],
            "resources": ["secrets"], "resourceNames": ["mine"]}));
        assert!(one.allows(&asked("get", "", "secrets", "mine")));
        assert!(!one.allows(&asked("get", "", "secrets", "other")));
        assert!(!one.allows(&asked("list", "", "secrets", "")));
    }

    #[test]
    fn paths_end_in_a_star() {
        let path = |path: &str| Attributes {
            verb: "get".into(),
            path: path.into(),
            ..Attributes::default()
        };
        let rule = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]}));
        assert!(rule.allows(&path("/healthz")));
        assert!(rule.allows(&path("/api/v1")));
        assert!(!rule.allows(&path("/api")));
        assert!(!rule.allows(&path("/healthz/etcd")));
    }

    #[test]
    fn null_is_an_empty_list() {
        let rule = rule(json!({"verbs": null, "resources": null}));
        assert_eq!(rule, Rule::default());
    }

    #[test]
    fn coverage_is_by_single_permissions() {
        let wanted = [rule(
            json!({"verbs": ["get", "delete"], "apiGroups": ["", "apps"],
            "resources": ["pods", "pods/log"]}),
        )];
        let held = [
            rule(json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["*"]})),
            rule(json!({"verbs": ["delete"], "apiGroups": [""], "resources": ["pods", "*/log"]})),
        ];
        let missing = uncovered(&held, &wanted);
        assert_eq!(
            described(missing),
            "{APIGroups:[\"apps\"], Resources:[\"pods\"], Verbs:[\"delete\"]}\n\
             {APIGroups:[\"apps\"], Resources:[\"pods/log\"], Verbs:[\"delete\"]}"
        );
        let named = [rule(json!({"verbs": ["get"], "apiGroups": [""],
            "resources": ["secrets"], "resourceNames": ["a"]}))];
        let unnamed = [rule(
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}),
        )];
        assert!(covers(&unnamed, &named));
        assert!(!covers(&named, &unnamed));
        let paths = |url: &str| [rule(json!({"verbs": ["get"], "nonResourceURLs": [url]}))];
        assert!(covers(&paths("/a/*"), &paths("/a/b*")));
        assert!(!covers(&paths("/a/b*"), &paths("/a/*")));
    }

    #[test]
    fn verbs_are_joined_for_people() {
        let atoms = uncovered(
            &[],
            &[rule(
                json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}),
            )],
        );
        assert_eq!(
            described(atoms),
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}"#
        );
    }
}
