//! ControllerRevisions: the templates a StatefulSet or DaemonSet has had, newest last.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Client, DeleteOptions, Informer, Kind, Patch, WriteOptions};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use meta::{LabelSelector, Status};
use reconcile::owners::{controller_of, controller_reference, is_controlled_by};
use serde_json::{Value, json};

use super::deployment::template_hash;
use crate::pods;

/// How often a name may be taken by a foreign revision before one round gives up.
const COLLISIONS_MAX: i32 = 10;

/// The revisions of one controller's objects.
pub(crate) struct History {
    pub(crate) client: Client,
    pub(crate) revisions: Informer<ControllerRevision>,
    /// The label of a revision that holds its hash.
    pub(crate) hash_label: &'static str,
}

/// The newest revision of an object, and its count of hash collisions.
pub(crate) struct Newest {
    pub(crate) revision: Arc<ControllerRevision>,
    pub(crate) collisions: Option<i32>,
}

/// What a revision remembers: a strategic merge patch that brings the template back.
pub(crate) fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// The template a revision remembers.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = revision.data.as_ref()?.0.pointer("/spec/template")?;
    serde_json::from_value(template.clone()).ok()
}

/// A revision's name, empty when it has none.
pub(crate) fn name_of(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

fn has_data(revision: &ControllerRevision, data: &Value) -> bool {
    revision.data.as_ref().is_some_and(|held| held.0 == *data)
}

impl History {
    /// The revisions an object has, oldest first; orphans that match are adopted.
    pub(crate) async fn claim<K: Kind>(
        &self,
        owner: &K,
        selector: &LabelSelector,
    ) -> Result<Vec<Arc<ControllerRevision>>, Status> {
        let metadata = owner.metadata();
        let uid = metadata.uid.as_deref().unwrap_or_default();
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let mut own = Vec::new();
        for revision in self.revisions.list_in(namespace) {
            if is_controlled_by(&revision.metadata, uid) {
                own.push(revision);
            } else if controller_of(&revision.metadata).is_none()
                && metadata.deletion_timestamp.is_none()
                && pods::matches(selector, &revision.metadata)
            {
                let body = json!({"metadata": {"uid": revision.metadata.uid,
                    "ownerReferences": [controller_reference(owner)]}});
                own.push(self.patch(&revision, body).await?);
            }
        }
        own.sort_by_key(|one| (one.revision, one.metadata.name.clone()));
        Ok(own)
    }

    /// The revision of a template: the newest as it is, an older one made newest again, or a new
    /// one. It is the last of `own` afterwards.
    pub(crate) async fn newest<K: Kind>(
        &self,
        owner: &K,
        own: &mut Vec<Arc<ControllerRevision>>,
        template: &PodTemplateSpec,
        collisions: Option<i32>,
    ) -> Result<Newest, Status> {
        let data = data(template);
        let highest = own.last().map_or(0, |revision| revision.revision);
        let revision = match own.iter().rposition(|one| has_data(one, &data)) {
            Some(at) if own[at].revision == highest => own[at].clone(),
            Some(at) => {
                let old = own.remove(at);
                let body = json!({"revision": highest + 1});
                let renewed = self.patch(&old, body).await?;
                own.push(renewed.clone());
                renewed
            }
            None => return self.create(owner, own, template, &data, collisions).await,
        };
        Ok(Newest {
            revision,
            collisions,
        })
    }

    async fn create<K: Kind>(
        &self,
        owner: &K,
        own: &mut Vec<Arc<ControllerRevision>>,
        template: &PodTemplateSpec,
        data: &Value,
        mut collisions: Option<i32>,
    ) -> Result<Newest, Status> {
        let number = own.last().map_or(0, |revision| revision.revision) + 1;
        let first = collisions.unwrap_or(0);
        loop {
            let probe = collisions.unwrap_or(0);
            let revision = self.build(owner, template, data, number, probe);
            let api = self.client.beside(&revision);
            let taken = match api.create(&revision).await {
                Ok(created) => {
                    self.revisions.absorb(created.clone());
                    let revision = Arc::new(created);
                    own.push(revision.clone());
                    return Ok(Newest {
                        revision,
                        collisions,
                    });
                }
                Err(status) if status.is_already_exists() => status,
                Err(status) => return Err(status),
            };
            let standing = api.get(name_of(&revision)).await?;
            let uid = owner.metadata().uid.as_deref().unwrap_or_default();
            if has_data(&standing, data) && is_controlled_by(&standing.metadata, uid) {
                self.revisions.absorb(standing.clone());
                let revision = Arc::new(standing);
                own.push(revision.clone());
                return Ok(Newest {
                    revision,
                    collisions,
                });
            }
            if probe - first >= COLLISIONS_MAX {
                return Err(taken);
            }
            collisions = Some(probe + 1);
        }
    }

    fn build<K: Kind>(
        &self,
        owner: &K,
        template: &PodTemplateSpec,
        data: &Value,
        number: i64,
        probe: i32,
    ) -> ControllerRevision {
        let hash = template_hash(data, probe);
        let metadata = owner.metadata();
        let name = metadata.name.as_deref().unwrap_or_default();
        let from = template.metadata.as_ref();
        let mut labels: BTreeMap<String, String> = from
            .and_then(|from| from.labels.clone())
            .unwrap_or_default();
        labels.insert(self.hash_label.into(), hash.clone());
        let mut annotations = metadata.annotations.clone().unwrap_or_default();
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        ControllerRevision {
            metadata: ObjectMeta {
                name: Some(format!("{name}-{hash}")),
                namespace: metadata.namespace.clone(),
                labels: Some(labels),
                annotations: Some(annotations).filter(|map| !map.is_empty()),
                owner_references: Some(vec![controller_reference(owner)]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(data.clone())),
            revision: number,
        }
    }

    /// Deletes the oldest revisions that nothing uses beyond `limit`.
    pub(crate) async fn truncate(
        &self,
        own: &[Arc<ControllerRevision>],
        is_used: impl Fn(&ControllerRevision) -> bool,
        limit: Option<i32>,
    ) -> Result<(), Status> {
        let unused: Vec<_> = own.iter().filter(|revision| !is_used(revision)).collect();
        let keep = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
        for revision in unused.iter().take(unused.len().saturating_sub(keep)) {
            let uid = revision.metadata.uid.as_deref().unwrap_or_default();
            let api = self.client.beside(revision.as_ref());
            match api
                .delete(name_of(revision), &DeleteOptions::uid(uid))
                .await
            {
                Ok(()) => {}
                Err(status) if status.is_not_found() || status.is_conflict() => {}
                Err(status) => return Err(status),
            }
        }
        Ok(())
    }

    async fn patch(
        &self,
        revision: &ControllerRevision,
        body: Value,
    ) -> Result<Arc<ControllerRevision>, Status> {
        let api = self.client.beside(revision);
        let patch = Patch::Strategic(body);
        let patched = api
            .patch(name_of(revision), &patch, &WriteOptions::default())
            .await?;
        self.revisions.absorb(patched.clone());
        Ok(Arc::new(patched))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_gives_its_template_back() {
        let template: PodTemplateSpec = serde_json::from_value(json!({
            "metadata": {"labels": {"app": "db"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}
        }))
        .unwrap();
        let data = data(&template);
        assert_eq!(
            data.pointer("/spec/template/$patch"),
            Some(&json!("replace"))
        );
        let revision = ControllerRevision {
            data: Some(RawExtension(data)),
            ..ControllerRevision::default()
        };
        assert_eq!(template_of(&revision), Some(template));
    }
}
