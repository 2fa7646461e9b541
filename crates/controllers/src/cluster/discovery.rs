//! What the API serves: every resource with its verbs, in its preferred version.

use std::sync::Arc;

use client::Client;
use meta::{Reason, Status};
use serde_json::Value;

/// A served resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Resource {
    /// `/api/v1` or `/apis/apps/v1`.
    pub root: String,
    pub group: String,
    pub kind: String,
    pub plural: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

impl Resource {
    /// Whether it has all these verbs.
    pub(crate) fn can(&self, verbs: &[&str]) -> bool {
        let has = |verb: &&str| self.verbs.iter().any(|one| one == verb);
        verbs.iter().all(has)
    }

    /// `pods`, `deployments.apps`.
    pub(crate) fn group_resource(&self) -> String {
        match self.group.as_str() {
            "" => self.plural.clone(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// The path of all its objects, or of those of a namespace.
    pub(crate) fn path(&self, namespace: &str) -> String {
        match namespace {
            "" => format!("{}/{}", self.root, self.plural),
            namespace => format!("{}/namespaces/{namespace}/{}", self.root, self.plural),
        }
    }
}

/// What was discovered.
#[derive(Debug)]
pub(crate) struct Served {
    pub resources: Vec<Arc<Resource>>,
    /// Every group answered; an aggregated server may be down.
    pub complete: bool,
}

/// All resources of the groups that answer.
pub(crate) async fn served(client: &Client) -> Result<Served, Status> {
    let mut roots = vec![(String::new(), "/api/v1".to_owned())];
    let groups = client.get_value("/apis").await?;
    for group in groups["groups"].as_array().into_iter().flatten() {
        let name = group["name"].as_str().unwrap_or_default();
        if let Some(version) = group["preferredVersion"]["groupVersion"].as_str() {
            roots.push((name.to_owned(), format!("/apis/{version}")));
        }
    }
    let (mut found, mut complete) = (Vec::new(), true);
    for (group, root) in roots {
        match client.get_value(&root).await {
            Ok(list) => found.extend(read(&group, &root, &list)),
            Err(status) if matches!(status.reason, Reason::NotFound) => {}
            Err(status) => {
                complete = false;
                tracing::debug!(%root, error = %status, "group not discovered");
            }
        }
    }
    Ok(Served {
        resources: found,
        complete,
    })
}

fn read(group: &str, root: &str, list: &Value) -> Vec<Arc<Resource>> {
    let resources = list["resources"].as_array().into_iter().flatten();
    let whole = resources.filter(|one| one["name"].as_str().is_some_and(|n| !n.contains('/')));
    let resource = |one: &Value| {
        let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
        let verbs = one["verbs"].as_array().into_iter().flatten();
        Arc::new(Resource {
            root: root.to_owned(),
            group: group.to_owned(),
            kind: text("kind"),
            plural: text("name"),
            namespaced: one["namespaced"] == true,
            verbs: verbs.filter_map(Value::as_str).map(str::to_owned).collect(),
        })
    };
    whole.map(resource).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn subresources_are_no_resources() {
        let list = json!({"resources": [
            {"name": "deployments", "kind": "Deployment", "namespaced": true,
                "verbs": ["get", "list", "delete"]},
            {"name": "deployments/status", "kind": "Deployment", "namespaced": true, "verbs": []}]});
        let found = read("apps", "/apis/apps/v1", &list);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].group_resource(), "deployments.apps");
        assert_eq!(found[0].path("a"), "/apis/apps/v1/namespaces/a/deployments");
        assert!(found[0].can(&["list", "delete"]) && !found[0].can(&["watch"]));
    }
}
