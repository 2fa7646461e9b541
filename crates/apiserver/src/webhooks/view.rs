//! How webhooks see an object that is being written: in the version their rule names, as a
//! Scale, or as the question that a subresource puts.

use std::borrow::Cow;

use meta::Status;
use serde_json::Value;

use super::Asked;
use crate::registry::Resource;
use crate::subresource::scale::{SCALE, scale_of, set};

/// Group, version and kind.
pub(crate) type GroupVersionKind<'a> = (&'a str, &'a str, &'a str);

/// What webhooks are shown of a write.
#[derive(Clone, Copy, Debug)]
pub(super) enum View<'a> {
    /// The object itself.
    Whole,
    /// Its Scale.
    Scale,
    /// An object of another kind that is not kept, such as a Binding.
    Foreign(GroupVersionKind<'a>),
}

impl<'a> View<'a> {
    /// The kind of what is shown, when it is not the resource's own.
    pub(super) fn kind(self) -> Option<GroupVersionKind<'a>> {
        match self {
            View::Whole => None,
            View::Scale => Some(SCALE),
            View::Foreign(kind) => Some(kind),
        }
    }
}

impl Asked<'_> {
    /// A kept object as those see it who are asked about `resource`.
    pub(super) async fn shown<'v>(
        &self,
        resource: &Resource,
        kept: &'v Value,
    ) -> Result<Cow<'v, Value>, Status> {
        match self.view {
            View::Whole => resource.seen(kept).await,
            View::Scale => scale_of(self.resource.stored(), kept).map(Cow::Owned),
            View::Foreign(_) => Ok(Cow::Borrowed(kept)),
        }
    }

    /// What a webhook or policy has made of `before`, as it is kept.
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
            View::Foreign((group, version, kind)) => {
                if let Some(ty) = schema::builtin(group, version, kind) {
                    schema::check(ty, &mut shown).map_err(Status::internal)?;
                }
                Ok(shown)
            }
        }
    }
}
