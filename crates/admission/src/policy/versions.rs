//! The objects of one write in the versions that policies mean, each converted once.

use std::borrow::Cow;
use std::sync::Arc;

use meta::{Names, Status};
use serde_json::Value;

use super::matching::Objects;
use super::subject::Subject;

type Shown<'o> = Option<Cow<'o, Value>>;

/// What has been converted so far.
pub(super) struct Versions<'o> {
    subject: &'o Subject<'o>,
    objects: Objects<'o>,
    known: Vec<(Arc<Names>, Shown<'o>, Shown<'o>)>,
}

impl<'o> Versions<'o> {
    pub(super) fn new(subject: &'o Subject<'o>, objects: Objects<'o>) -> Versions<'o> {
        Versions {
            subject,
            objects,
            known: Vec::new(),
        }
    }

    /// The new and the old object as a resource shows them.
    pub(super) async fn show(&mut self, names: &Arc<Names>) -> Result<Objects<'_>, Status> {
        let known = self.known.iter().position(|(own, ..)| own == names);
        let index = match known {
            Some(index) => index,
            None => {
                let new = show(self.subject, names, self.objects.0).await?;
                let old = show(self.subject, names, self.objects.1).await?;
                self.known.push((Arc::clone(names), new, old));
                self.known.len() - 1
            }
        };
        let (_, new, old) = &self.known[index];
        Ok((new.as_deref(), old.as_deref()))
    }
}

/// One object as a resource shows it.
pub(super) async fn show<'o>(
    subject: &Subject<'_>,
    names: &Names,
    object: Option<&'o Value>,
) -> Result<Shown<'o>, Status> {
    match object {
        Some(object) => subject.views.shown(names, object).await.map(Some),
        None => Ok(None),
    }
}
