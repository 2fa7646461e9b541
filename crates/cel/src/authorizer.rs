//! What the `authorizer` variable stands on: somebody who decides.

use std::fmt;
use std::sync::Arc;

use crate::opaque::Opaque;
use crate::value::Value;

/// Decides what the user of a request, or a service account, may do.
pub trait Authorizer: Send + Sync {
    /// Decides about one check.
    fn authorize(&self, check: &Check) -> Decision;
}

/// A question to an [`Authorizer`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    /// Namespace and name of the service account to ask for; the user of the request if `None`.
    pub service_account: Option<(String, String)>,
    /// What is to be done.
    pub verb: String,
    /// The path, for what is not a resource; nothing below is set then.
    pub path: Option<String>,
    /// The API group.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// The subresource, or nothing.
    pub subresource: String,
    /// The namespace, or nothing.
    pub namespace: String,
    /// The object's name, or nothing.
    pub name: String,
    /// The field selector as given, or nothing.
    pub field_selector: String,
    /// The label selector as given, or nothing.
    pub label_selector: String,
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// What went wrong while deciding.
    pub error: Option<String>,
}

/// An authorizer, and for whom it is asked.
#[derive(Clone)]
pub struct UserAuthorizer {
    authorizer: Arc<dyn Authorizer>,
    service_account: Option<(String, String)>,
}

impl fmt::Debug for UserAuthorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserAuthorizer")
            .field("service_account", &self.service_account)
            .finish_non_exhaustive()
    }
}

/// A path to ask about.
#[derive(Debug, Clone)]
pub struct PathCheck {
    pub(crate) authorizer: UserAuthorizer,
    pub(crate) path: String,
}

/// A group to ask about.
#[derive(Debug, Clone)]
pub struct GroupCheck {
    pub(crate) authorizer: UserAuthorizer,
    pub(crate) group: String,
}

/// A resource to ask about.
#[derive(Debug, Clone)]
pub struct ResourceCheck {
    pub(crate) authorizer: UserAuthorizer,
    pub(crate) check: Check,
}

impl UserAuthorizer {
    pub(crate) fn service_account(&self, namespace: &str, name: &str) -> UserAuthorizer {
        let account = (namespace.to_owned(), name.to_owned());
        UserAuthorizer {
            authorizer: self.authorizer.clone(),
            service_account: Some(account),
        }
    }

    pub(crate) fn decide(&self, mut check: Check, verb: &str) -> Decision {
        check.service_account.clone_from(&self.service_account);
        check.verb = verb.to_owned();
        self.authorizer.authorize(&check)
    }
}

impl Value<'_> {
    /// The `authorizer` variable.
    pub fn authorizer(authorizer: Arc<dyn Authorizer>) -> Self {
        Value::opaque(Opaque::Authorizer(UserAuthorizer {
            authorizer,
            service_account: None,
        }))
    }

    /// The `authorizer.requestResource` variable: a check about the resource of the request.
    pub fn request_resource(authorizer: Arc<dyn Authorizer>, check: Check) -> Self {
        let authorizer = UserAuthorizer {
            authorizer,
            service_account: None,
        };
        Value::opaque(Opaque::ResourceCheck(Box::new(ResourceCheck {
            authorizer,
            check,
        })))
    }
}
