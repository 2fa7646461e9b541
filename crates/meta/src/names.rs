//! What a kind is called, in every place it is called by name.

use std::fmt;

/// Whether objects of a kind live in namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One set of names for the whole cluster.
    Cluster,
    /// One set of names per namespace.
    Namespaced,
}

/// API group and version; the core group is the empty string.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersion {
    /// Such as `apps`; empty for the core group.
    pub group: String,
    /// Such as `v1`.
    pub version: String,
}

impl GroupVersion {
    /// Reads `v1` or `apps/v1`; `None` when there is more than one slash or no version.
    pub fn parse(api_version: &str) -> Option<GroupVersion> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let sound = !version.is_empty() && !version.contains('/');
        sound.then(|| GroupVersion {
            group: group.into(),
            version: version.into(),
        })
    }
}

impl fmt::Display for GroupVersion {
    /// The `apiVersion` of an object.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group.as_str() {
            "" => f.write_str(&self.version),
            group => write!(f, "{group}/{}", self.version),
        }
    }
}

/// All names of one kind. Built-in kinds and custom resources share this type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Names {
    /// API group; empty for the core group.
    pub group: String,
    /// API version, such as `v1`.
    pub version: String,
    /// Such as `Deployment`.
    pub kind: String,
    /// Such as `DeploymentList`.
    pub list_kind: String,
    /// The lower-case plural used in paths, such as `deployments`.
    pub plural: String,
    /// The lower-case singular, such as `deployment`.
    pub singular: String,
    /// Abbreviations that kubectl accepts, such as `deploy`.
    pub short: Vec<String>,
    /// Groups of kinds, such as `all`.
    pub categories: Vec<String>,
    /// Namespaced or cluster-wide.
    pub scope: Scope,
}

impl Names {
    /// Names of a namespaced kind; singular and list kind follow from `kind`.
    pub fn namespaced(group: &str, version: &str, kind: &str, plural: &str) -> Names {
        Names {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            list_kind: format!("{kind}List"),
            plural: plural.into(),
            singular: kind.to_lowercase(),
            short: Vec::new(),
            categories: Vec::new(),
            scope: Scope::Namespaced,
        }
    }

    /// Names of a cluster-wide kind.
    pub fn cluster(group: &str, version: &str, kind: &str, plural: &str) -> Names {
        Names {
            scope: Scope::Cluster,
            ..Names::namespaced(group, version, kind, plural)
        }
    }

    /// Adds abbreviations.
    pub fn short(mut self, short: &[&str]) -> Names {
        self.short = short.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// Adds categories.
    pub fn categories(mut self, categories: &[&str]) -> Names {
        self.categories = categories.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        self.group_version().to_string()
    }

    /// Group and version.
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion {
            group: self.group.clone(),
            version: self.version.clone(),
        }
    }

    /// `pods` or `deployments.apps`, as in error messages.
    pub fn group_resource(&self) -> String {
        match self.group.as_str() {
            "" => self.plural.clone(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// Whether objects live in namespaces.
    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// The path of a collection or, with `name`, of one object:
    /// `/apis/apps/v1/namespaces/default/deployments/web`.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let mut path = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        if let Some(namespace) = namespace.filter(|_| self.is_namespaced()) {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        path.push('/');
        path.push_str(&self.plural);
        if let Some(name) = name {
            path.push('/');
            path.push_str(name);
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_scope_and_group() {
        let pods = Names::namespaced("", "v1", "Pod", "pods");
        assert_eq!(
            pods.path(Some("default"), Some("web")),
            "/api/v1/namespaces/default/pods/web"
        );
        assert_eq!(pods.path(None, None), "/api/v1/pods");
        let roles = Names::cluster(
            "rbac.authorization.k8s.io",
            "v1",
            "ClusterRole",
            "clusterroles",
        );
        assert_eq!(
            roles.path(Some("ignored"), Some("admin")),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/admin"
        );
        assert_eq!(
            roles.group_resource(),
            "clusterroles.rbac.authorization.k8s.io"
        );
    }

    #[test]
    fn api_versions_parse() {
        assert_eq!(
            GroupVersion::parse("apps/v1").unwrap().to_string(),
            "apps/v1"
        );
        assert_eq!(GroupVersion::parse("v1").unwrap().group, "");
        assert_eq!(GroupVersion::parse("a/b/c"), None);
        assert_eq!(GroupVersion::parse(""), None);
    }
}
