//! The ways to be allowed to act as somebody else. A constrained one asks twice: whether the user
//! may do this as somebody else (`impersonate-on:<mode>:<verb>`), and whether they may be that
//! user (`impersonate:<mode>`).

use std::time::Instant;

use auth::{Attributes, Authorizer, Identity};
use meta::{Faults, Status, naming};

use super::Impersonated;
use crate::measure;

/// From so many groups or extra values on, the right to all of them is asked for first.
const MANY: usize = 4;
/// The extra value that says on which node the pod of a service account runs.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// Stands for the extra values of a requestor where only their names may matter.
const NODE_KEYS: &str = "authentication.kubernetes.io/associated-node-keys";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// One way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// A service account acts as the node that its pod runs on.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    /// Anybody who is neither node nor service account.
    UserInfo,
    /// The right `impersonate`, whatever is done with it.
    Legacy,
}

/// In the order of trial.
pub(super) const MODES: [Mode; 5] = [
    Mode::AssociatedNode,
    Mode::ArbitraryNode,
    Mode::ServiceAccount,
    Mode::UserInfo,
    Mode::Legacy,
];

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Mode::AssociatedNode => "associated-node",
            Mode::ArbitraryNode => "arbitrary-node",
            Mode::ServiceAccount => "serviceaccount",
            Mode::UserInfo => "user-info",
            Mode::Legacy => "",
        }
    }

    /// Its name in metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Mode::Legacy => "legacy",
            mode => mode.word(),
        }
    }

    fn verb(self) -> String {
        match self {
            Mode::Legacy => "impersonate".into(),
            mode => format!("impersonate:{}", mode.word()),
        }
    }

    /// Whether this way is made for such a user.
    pub(super) fn applies(self, wanted: &Identity, user: &Identity) -> bool {
        let bare = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let (node, account) = (as_node(&wanted.name), as_account(&wanted.name));
        match self {
            Mode::AssociatedNode => {
                let own = user.extra.get(NODE_NAME).map(Vec::as_slice);
                let own = match own {
                    Some([name]) => Some(name.as_str()),
                    _ => None,
                };
                bare && node.is_some() && node == own && as_account(&user.name).is_some()
            }
            Mode::ArbitraryNode => bare && node.is_some(),
            Mode::ServiceAccount => bare && account.is_some(),
            Mode::UserInfo => node.is_none() && account.is_none(),
            Mode::Legacy => true,
        }
    }

    /// Who `user` becomes, or why not.
    pub(super) async fn check(
        self,
        authorizer: &Authorizer,
        user: &Identity,
        wanted: &Identity,
        asked: &Attributes,
    ) -> Result<Impersonated, Status> {
        let nameless;
        let mut user = user;
        if self == Mode::AssociatedNode {
            // The node has been compared: rights are the same on every node.
            let keys = user.extra.keys().cloned().collect();
            nameless = Identity {
                extra: [(NODE_KEYS.to_owned(), keys)].into(),
                ..user.clone()
            };
            user = &nameless;
        }
        let check = Check {
            mode: self,
            authorizer,
            user,
        };
        if self != Mode::Legacy {
            let verb = format!("impersonate-on:{}:{}", self.word(), asked.verb);
            let on = Attributes {
                verb,
                ..asked.clone()
            };
            check.demand(&on).await?;
        }
        let mut actual = wanted.clone();
        check.name(wanted, &mut actual).await?;
        if !wanted.uid.is_empty() {
            let uid = check.attributes(AUTHENTICATION, "uids", &wanted.uid);
            check.demand(&uid).await?;
        }
        check.groups(&wanted.groups).await?;
        check.extra(wanted).await?;
        join_usual(&mut actual);
        Ok(Impersonated {
            user: actual,
            constraint: (self != Mode::Legacy).then(|| self.verb()),
        })
    }
}

/// Everybody is in one of the two groups.
fn join_usual(user: &mut Identity) {
    const UNKNOWN: &str = "system:unauthenticated";
    if user.name != "system:anonymous" {
        return user.mark_authenticated();
    }
    if !user.is_in(UNKNOWN) {
        user.groups.push(UNKNOWN.into());
    }
}

struct Check<'up> {
    mode: Mode,
    authorizer: &'up Authorizer,
    user: &'up Identity,
}

impl Check<'_> {
    async fn name(&self, wanted: &Identity, actual: &mut Identity) -> Result<(), Status> {
        let group = self.group();
        let mut asked = self.attributes(group, "users", &wanted.name);
        if self.mode != Mode::Legacy
            && let Some(node) = as_node(&wanted.name)
        {
            asked = self.attributes(group, "nodes", node);
            if self.mode == Mode::AssociatedNode {
                asked.name = "*".into();
            }
            actual.groups = vec!["system:nodes".into()];
        }
        if let Some((namespace, account)) = as_account(&wanted.name) {
            asked = self.attributes(group, "serviceaccounts", account);
            asked.namespace = namespace.to_owned();
            if wanted.groups.is_empty() {
                actual.groups = Identity::service_account(namespace, account, "").groups;
                // The last is added to everybody, at the end.
                actual
                    .groups
                    .retain(|group| group != "system:authenticated");
            }
        }
        self.demand(&asked).await
    }

    async fn groups(&self, groups: &[String]) -> Result<(), Status> {
        let mut asked = self.attributes(self.group(), "groups", "");
        if self.mode != Mode::Legacy {
            if groups.iter().any(String::is_empty) {
                let why = "impersonating the empty string group is not allowed";
                return Err(auth::forbidden(self.user, &asked, why));
            }
            if groups.iter().any(|group| group == "system:masters") {
                asked.name = "system:masters".into();
                let why = "impersonating the system:masters group is not allowed";
                return Err(auth::forbidden(self.user, &asked, why));
            }
            if groups.len() >= MANY {
                asked.name = "*".into();
                if self.demand(&asked).await.is_ok() {
                    return Ok(());
                }
            }
        }
        for group in groups {
            asked.name.clone_from(group);
            self.demand(&asked).await?;
        }
        Ok(())
    }

    async fn extra(&self, wanted: &Identity) -> Result<(), Status> {
        let extra = &wanted.extra;
        if extra.is_empty() {
            return Ok(());
        }
        let mut asked = self.attributes(AUTHENTICATION, "userextras", "");
        if self.mode != Mode::Legacy {
            for (key, values) in extra {
                if let Some(why) = unsound(key, values) {
                    return Err(auth::forbidden(self.user, &asked, &why));
                }
            }
            if extra.values().map(Vec::len).sum::<usize>() >= MANY {
                asked.subresource = "*".into();
                asked.name = "*".into();
                if self.demand(&asked).await.is_ok() {
                    return Ok(());
                }
            }
        }
        for (key, values) in extra {
            asked.subresource.clone_from(key);
            for value in values {
                asked.name.clone_from(value);
                self.demand(&asked).await?;
            }
        }
        Ok(())
    }

    /// Asks for one right.
    async fn demand(&self, asked: &Attributes) -> Result<(), Status> {
        let begun = Instant::now();
        let allowed = self.authorizer.demand(self.user, asked).await;
        measure::impersonation_check(self.mode.label(), allowed.is_ok(), begun.elapsed());
        allowed
    }

    /// The API group of names and groups of users.
    fn group(&self) -> &'static str {
        match self.mode {
            Mode::Legacy => "",
            _ => AUTHENTICATION,
        }
    }

    fn attributes(&self, group: &str, resource: &str, name: &str) -> Attributes {
        Attributes {
            verb: self.mode.verb(),
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            name: name.into(),
            ..Attributes::default()
        }
    }
}

/// Why an extra value may not be asked for in a constrained way.
fn unsound(key: &str, values: &[String]) -> Option<String> {
    const ACT: &str = "is not allowed";
    if key.is_empty() {
        return Some(format!("impersonating the empty string key in extra {ACT}"));
    }
    let mut faults = Faults::new();
    faults.domain_prefixed_path("extra.key", key);
    if !faults.is_empty() {
        let all: Vec<_> = faults.0.iter().map(ToString::to_string).collect();
        let all = match all.as_slice() {
            [one] => one.clone(),
            all => format!("[{}]", all.join(", ")),
        };
        return Some(format!(
            "impersonating an invalid key in extra {ACT}: {all}"
        ));
    }
    if key.chars().any(char::is_uppercase) {
        return Some(format!(
            "impersonating a non-lowercase key in extra {ACT}: {key:?}"
        ));
    }
    if values.iter().any(String::is_empty) {
        return Some(format!(
            "impersonating the empty string value in extra {ACT}"
        ));
    }
    None
}

fn as_node(name: &str) -> Option<&str> {
    let node = name.strip_prefix("system:node:")?;
    naming::dns1123_subdomain(node).is_empty().then_some(node)
}

fn as_account(name: &str) -> Option<(&str, &str)> {
    let full = name.strip_prefix("system:serviceaccount:")?;
    let (namespace, account) = full.split_once(':')?;
    let sound = naming::dns1123_label(namespace).is_empty()
        && naming::dns1123_subdomain(account).is_empty();
    sound.then_some((namespace, account))
}
