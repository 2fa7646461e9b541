//! Who asks, and what for.

use std::collections::BTreeMap;

use meta::{FieldSelector, LabelSelector, Reason, Status};

/// An authenticated user (`authentication/v1 UserInfo`). Travels as a typed
/// request extension; only in-process code and the authenticator can make one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// A user in `system:authenticated` and these further groups.
    pub fn user(name: &str, groups: &[&str]) -> Identity {
        let mut all: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        all.push("system:authenticated".into());
        Identity {
            name: name.into(),
            groups: all,
            ..Identity::default()
        }
    }

    /// `system:serviceaccount:<namespace>:<name>` with its groups.
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Identity {
        let own = format!("system:serviceaccounts:{namespace}");
        let full = format!("system:serviceaccount:{namespace}:{name}");
        let groups = ["system:serviceaccounts", own.as_str()];
        Identity {
            uid: uid.into(),
            ..Identity::user(&full, &groups)
        }
    }

    /// A component of the control plane, such as `system:kube-scheduler`.
    pub fn component(name: &str) -> Identity {
        Identity::user(name, &[])
    }

    /// The API server itself: in `system:masters`, allowed everything.
    pub fn loopback() -> Identity {
        Identity::user("system:apiserver", &["system:masters"])
    }

    /// `system:anonymous`.
    pub fn anonymous() -> Identity {
        Identity {
            name: "system:anonymous".into(),
            groups: vec!["system:unauthenticated".into()],
            ..Identity::default()
        }
    }

    /// Puts a user whom somebody has vouched for into `system:authenticated`.
    pub fn mark_authenticated(&mut self) {
        const GROUP: &str = "system:authenticated";
        if !self.is_in(GROUP) && !self.is_in("system:unauthenticated") {
            self.groups.push(GROUP.into());
        }
    }

    /// Whether the user is in `group`.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}

/// What is asked for (upstream's `authorizer.Attributes`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `create`, … or the lower-case HTTP method for paths.
    pub verb: String,
    /// Empty for cluster-wide requests and lists over all namespaces.
    pub namespace: String,
    pub group: String,
    pub version: String,
    /// The plural; empty for requests that are not about resources.
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// The URL path; only for requests that are not about resources.
    pub path: String,
    /// The field selector of a list, watch or deletecollection. `metadata.name=x` belongs into
    /// `name` as well, as upstream's request info has it: rules may name objects.
    pub field_selector: FieldSelector,
    /// The label selector of such a request.
    pub label_selector: LabelSelector,
}

impl Attributes {
    /// Whether this is about a resource (else about a path).
    pub fn is_resource(&self) -> bool {
        self.path.is_empty()
    }
}

/// The 403 for a request that no authorizer allows, in upstream's words:
/// `pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default"`.
/// `reason` is that of [`Decision::NoOpinion`].
pub fn forbidden(identity: &Identity, asked: &Attributes, reason: &str) -> Status {
    let mut why = sanitized(&refusal(identity, asked));
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    let resource = match asked.group.as_str() {
        "" => asked.resource.clone(),
        group => format!("{}.{group}", asked.resource),
    };
    let message = match (asked.is_resource(), asked.name.as_str()) {
        (false, _) => format!("forbidden: {why}"),
        (true, "") => format!("{resource} is forbidden: {why}"),
        (true, name) => format!("{resource} \"{name}\" is forbidden: {why}"),
    };
    let mut status = Status::new(Reason::Forbidden, message);
    status.name = asked.name.clone();
    status.group = asked.group.clone();
    status.kind = asked.resource.clone();
    status
}

fn refusal(identity: &Identity, asked: &Attributes) -> String {
    let (user, verb) = (&identity.name, &asked.verb);
    if !asked.is_resource() {
        return format!("User {user:?} cannot {verb} path {:?}", asked.path);
    }
    let resource = match asked.subresource.as_str() {
        "" => asked.resource.clone(),
        subresource => format!("{}/{subresource}", asked.resource),
    };
    let scope = match asked.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    format!(
        "User {user:?} cannot {verb} resource {resource:?} in API group {:?} {scope}",
        asked.group
    )
}

/// Keeps a refusal from reading as HTML, since it repeats what a stranger sent.
fn sanitized(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// An authorizer's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed; why (for audit), such as `RBAC: allowed by ClusterRoleBinding "x" …`.
    Allow(String),
    /// Not allowed by anybody; the reason may be empty.
    NoOpinion(String),
    /// Forbidden, whatever anybody asked later would say.
    Deny(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(group: &str, resource: &str, verb: &str, namespace: &str, name: &str) -> Attributes {
        Attributes {
            verb: verb.into(),
            namespace: namespace.into(),
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            name: name.into(),
            ..Attributes::default()
        }
    }

    fn message(attributes: &Attributes) -> String {
        forbidden(&Identity::user("x", &[]), attributes, "").message
    }

    #[test]
    fn refusals_read_like_upstream() {
        assert_eq!(
            message(&asked("", "pods", "list", "default", "")),
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default""#
        );
        assert_eq!(
            message(&asked("", "nodes", "list", "", "")),
            r#"nodes is forbidden: User "x" cannot list resource "nodes" in API group "" at the cluster scope"#
        );
        assert_eq!(
            message(&asked("apps", "deployments", "get", "default", "web")),
            r#"deployments.apps "web" is forbidden: User "x" cannot get resource "deployments" in API group "apps" in the namespace "default""#
        );
        let log = Attributes {
            subresource: "log".into(),
            ..asked("", "pods", "get", "default", "web")
        };
        assert_eq!(
            message(&log),
            r#"pods "web" is forbidden: User "x" cannot get resource "pods/log" in API group "" in the namespace "default""#
        );
        let path = Attributes {
            verb: "get".into(),
            path: "/metrics".into(),
            ..Attributes::default()
        };
        assert_eq!(
            message(&path),
            r#"forbidden: User "x" cannot get path "/metrics""#
        );
    }

    #[test]
    fn refusals_cannot_carry_markup() {
        let user = Identity::user("<b>", &[]);
        let status = forbidden(&user, &asked("", "pods", "get", "", "a"), "");
        assert!(status.message.contains("&lt;b&gt;"), "{}", status.message);
        assert_eq!((status.code, status.kind.as_str()), (403, "pods"));
    }
}
