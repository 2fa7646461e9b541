//! Who asks, and what for.

use std::collections::BTreeMap;

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
}

/// An authorizer's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed; why (for audit), such as `RBAC: allowed by ClusterRoleBinding "x" …`.
    Allow(String),
    /// Not allowed by anybody; the reason may be empty.
    NoOpinion(String),
}
