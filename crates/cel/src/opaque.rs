//! Values of the libraries.

use std::cmp::Ordering;

use crate::authorizer::{Decision, GroupCheck, PathCheck, ResourceCheck, UserAuthorizer};

/// A value whose inside only its library knows.
#[derive(Debug, Clone)]
pub enum Opaque {
    /// `authorizer`
    Authorizer(UserAuthorizer),
    /// `authorizer.path(...)`
    PathCheck(PathCheck),
    /// `authorizer.group(...)`
    GroupCheck(GroupCheck),
    /// `authorizer.group(...).resource(...)`
    ResourceCheck(Box<ResourceCheck>),
    /// What a check answered.
    Decision(Decision),
}

impl Opaque {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Opaque::Authorizer(_) => "kubernetes.authorization.Authorizer",
            Opaque::PathCheck(_) => "kubernetes.authorization.PathCheck",
            Opaque::GroupCheck(_) => "kubernetes.authorization.GroupCheck",
            Opaque::ResourceCheck(_) => "kubernetes.authorization.ResourceCheck",
            Opaque::Decision(_) => "kubernetes.authorization.Decision",
        }
    }

    pub(crate) fn compare(&self, _other: &Opaque) -> Option<Ordering> {
        None
    }

    pub(crate) fn equals(&self, other: &Opaque) -> bool {
        self.compare(other) == Some(Ordering::Equal)
    }

    /// How big it counts for costs.
    pub(crate) fn size(&self) -> u64 {
        1
    }

    /// As `string()` shows it, where that is possible.
    pub(crate) fn text(&self) -> Option<String> {
        None
    }
}
