//! Which FlowSchema a request belongs to, and to which flow of it.

use crate::spec::{PathRule, ResourceRule, Rule, Schema, Subject};

/// What is asked about a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Digest<'a> {
    pub user: &'a str,
    pub groups: &'a [String],
    pub verb: &'a str,
    pub is_resource: bool,
    /// For requests that are not about resources.
    pub path: &'a str,
    pub namespace: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
}

fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|own| own == value || own == "*")
}

impl Schema {
    /// Whether the request belongs here.
    pub(crate) fn matches(&self, digest: &Digest<'_>) -> bool {
        self.spec.rules.iter().any(|rule| rule.matches(digest))
    }

    /// What tells the flows of this schema apart.
    pub(crate) fn distinguish<'a>(&self, digest: &Digest<'a>) -> &'a str {
        let method = self.spec.distinguisher_method.as_ref();
        match method.map(|method| method.r#type.as_str()) {
            Some("ByUser") => digest.user,
            Some("ByNamespace") => digest.namespace,
            _ => "",
        }
    }
}

impl Rule {
    fn matches(&self, digest: &Digest<'_>) -> bool {
        let fits = match digest.is_resource {
            true => self.resource_rules.iter().any(|rule| rule.matches(digest)),
            false => self
                .non_resource_rules
                .iter()
                .any(|rule| rule.matches(digest)),
        };
        fits && self.subjects.iter().any(|subject| subject.matches(digest))
    }
}

impl Subject {
    fn matches(&self, digest: &Digest<'_>) -> bool {
        if let Some(user) = &self.user {
            return user.name == "*" || user.name == digest.user;
        }
        if let Some(group) = &self.group {
            return group.name == "*" || digest.groups.contains(&group.name);
        }
        let (Some(own), Some(account)) = (
            &self.service_account,
            digest.user.strip_prefix("system:serviceaccount:"),
        ) else {
            return false;
        };
        account.split_once(':').is_some_and(|(namespace, name)| {
            own.namespace == namespace && (own.name == "*" || own.name == name)
        })
    }
}

impl ResourceRule {
    fn matches(&self, digest: &Digest<'_>) -> bool {
        let resource = || match digest.subresource {
            "" => has(&self.resources, digest.resource),
            sub => self.resources.iter().any(|own| {
                let split = own.split_once('/');
                own == "*" || split == Some((digest.resource, sub))
            }),
        };
        let place = || match digest.namespace {
            "" => self.cluster_scope,
            namespace => has(&self.namespaces, namespace),
        };
        has(&self.verbs, digest.verb)
            && has(&self.api_groups, digest.group)
            && resource()
            && place()
    }
}

impl PathRule {
    fn matches(&self, digest: &Digest<'_>) -> bool {
        let fits = |own: &String| match own.strip_suffix('*') {
            Some(prefix) => digest.path.starts_with(prefix),
            None => own == digest.path,
        };
        has(&self.verbs, digest.verb) && self.non_resource_urls.iter().any(fits)
    }
}
