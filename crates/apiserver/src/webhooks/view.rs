//! How webhooks see an object that is being written: in the version their rule names, as a
//! Scale, or as the question that a subresource puts.

use meta::Status;
use serde_json::Value;

use super::Asked;
use crate::registry::Resource;
use crate::subresource::scale::{SCALE, scale_of, set};

/// Group, version and kind.
pub(crate) type GroupVersionKind = (&'static str, &'static str, &'static str);

/// What webhooks are shown of a write.
#[derive(Clone, Copy, Debug)]
pub(super) enum View {
    /// The object itself.
    Whole,
    /// Its Scale.
    Scale,
    /// An object of another kind that is not kept, such as a Binding.
    Foreign(GroupVersionKind),
}

impl View {
    /// The kind of what is shown, when it is not the resource's own.
    pub(super) fn kind(self) -> Option<GroupVersionKind> {
        match self {
            View::Whole => None,
            View::Scale => Some(SCALE),
            View::Foreign(kind) => Some(kind),
        }
    }
}

impl Asked<'_> {
    /// A kept object as a webhook sees it that is about `resource`.
    pub(super) async fn shown(&self, resource: &Resource, kept: &Value) -> Result<Value, Status> {
        match self.view {
            View::Whole => {
                let converted = resource.converted(kept.clone()).await?;
                Ok(resource.shown(converted))
            }
            View::Scale => scale_of(self.resource.stored(), kept),
            View::Foreign(_) => Ok(kept.clone()),
        }
    }

    /// What a webhook has made of `before`, as it is kept.
    pub(super) async fn kept(
        &self,
        resource: &Resource,
        mut shown: Value,
        before: &Value,
    ) -> Result<Value, Status> {
        match self.view {
            View::Whole => {
                // What the schema does not have is dropped, as when a client sends it.
                match &resource.ty {
                    _ if resource.custom => resource.row.strategy.reshape(&mut shown),
                    Some(ty) => {
                        schema::check(ty.get(), &mut shown).map_err(Status::internal)?;
                    }
                    None => {}
                }
                let kept = resource.kept(shown);
                let mut kept = self.resource.stored().converted(kept).await?;
                self.resource.stored().row.strategy.default(&mut kept);
                Ok(kept)
            }
            View::Scale => {
                let mut kept = before.clone();
                let paths = self.resource.stored().row.scale.as_ref();
                let replicas = shown.pointer("/spec/replicas");
                if let (Some(paths), Some(replicas)) = (paths, replicas) {
                    set(&mut kept, &paths.spec_replicas, replicas.clone());
                }
                Ok(kept)
            }
            View::Foreign(_) => Ok(shown),
        }
    }
}
