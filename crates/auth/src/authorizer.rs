//! May you: superusers, then nodes, then roles.

use std::sync::Arc;

use arc_swap::ArcSwap;
use meta::{Names, Object, Reason, Status};
use serde::Deserialize;
use serde_json::Value;

use crate::abac::Policies;
use crate::access_webhook::AccessWebhook;
use crate::answers::Answers;
use crate::identity::{Attributes, Decision, Identity};
use crate::node::NodeGraph;
use crate::rbac::{GROUP, Rbac, RoleRef, Rule, rules_of, rules_review};

/// Members may do anything, whatever roles say.
pub const SUPERUSERS: &str = "system:masters";

/// One authorizer of the chain.
#[derive(Clone)]
pub enum Mode {
    Node,
    Rbac,
    Abac(Arc<Policies>),
    Webhook(Arc<AccessWebhook>),
    AlwaysAllow,
    AlwaysDeny,
}

/// The chain of authorizers, and the memory they decide from.
pub struct Authorizer {
    pub rbac: Rbac,
    pub nodes: NodeGraph,
    modes: ArcSwap<Vec<Mode>>,
}

impl Default for Authorizer {
    fn default() -> Authorizer {
        Authorizer::of(vec![Mode::Node, Mode::Rbac])
    }
}

impl Authorizer {
    /// What [`Authorizer::set`] and [`Authorizer::remove`] must be told about.
    pub const WATCHES: [&'static str; 6] = [
        "roles.rbac.authorization.k8s.io",
        "clusterroles.rbac.authorization.k8s.io",
        "rolebindings.rbac.authorization.k8s.io",
        "clusterrolebindings.rbac.authorization.k8s.io",
        "pods",
        "persistentvolumes",
    ];

    /// Knows nothing yet: only superusers get in.
    pub fn new() -> Authorizer {
        Authorizer::default()
    }

    /// The same with these authorizers in this order.
    pub fn of(modes: Vec<Mode>) -> Authorizer {
        Authorizer {
            rbac: Rbac::default(),
            nodes: NodeGraph::default(),
            modes: ArcSwap::from_pointee(modes),
        }
    }

    /// Lets these decide from now on, in this order.
    pub fn replace(&self, modes: Vec<Mode>) {
        self.modes.store(Arc::new(modes));
    }

    /// Whether somebody is asked who may take a while.
    pub fn asks_webhooks(&self) -> bool {
        let modes = self.modes.load();
        modes.iter().any(|mode| matches!(mode, Mode::Webhook(_)))
    }

    /// A new or changed object of one of [`Authorizer::WATCHES`].
    pub fn set(&self, group_resource: &str, object: &Object) {
        self.rbac.set(group_resource, object);
        self.nodes.set(group_resource, object);
    }

    /// An object of one of [`Authorizer::WATCHES`] is gone.
    pub fn remove(&self, group_resource: &str, namespace: &str, name: &str) {
        self.rbac.remove(group_resource, namespace, name);
        self.nodes.remove(group_resource, namespace, name);
    }

    /// Whether anybody in this process allows it; webhooks are not asked.
    pub fn authorize(&self, identity: &Identity, asked: &Attributes) -> Decision {
        self.authorize_known(identity, asked, None)
    }

    /// The same, where webhooks have been asked before. A question they have not been asked is
    /// noted in `answers`; what is said then is of no worth.
    pub fn authorize_known(
        &self,
        identity: &Identity,
        asked: &Attributes,
        answers: Option<&Answers>,
    ) -> Decision {
        let mut reasons = Vec::new();
        if identity.is_in(SUPERUSERS) {
            return Decision::Allow(String::new());
        }
        for mode in self.modes.load().iter() {
            if let (Mode::Webhook(_), Some(answers)) = (mode, answers) {
                // Whoever comes behind the webhook has been asked together with it.
                let nothing = Decision::NoOpinion(String::new());
                return answers.get(identity, asked).unwrap_or(nothing);
            }
            if let Some(decision) = self.step(mode, identity, asked)
                && let Some(end) = settled(decision, &mut reasons)
            {
                return end;
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }

    /// Whether anybody allows it, webhooks included. [`crate::forbidden`] makes the answer when
    /// nobody does.
    pub async fn decide(&self, identity: &Identity, asked: &Attributes) -> Decision {
        if !self.asks_webhooks() || identity.is_in(SUPERUSERS) {
            return self.authorize(identity, asked);
        }
        let modes = self.modes.load_full();
        let mut reasons = Vec::new();
        for mode in modes.iter() {
            let decision = match mode {
                Mode::Webhook(webhook) => Some(webhook.authorize(identity, asked).await),
                mode => self.step(mode, identity, asked),
            };
            if let Some(end) = decision.and_then(|decision| settled(decision, &mut reasons)) {
                return end;
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }

    fn step(&self, mode: &Mode, identity: &Identity, asked: &Attributes) -> Option<Decision> {
        Some(match mode {
            Mode::Node => self.nodes.authorize(identity, asked),
            Mode::Rbac => self.rbac.authorize(identity, asked),
            Mode::Abac(policies) => match policies.allow(identity, asked) {
                true => Decision::Allow(String::new()),
                false => Decision::NoOpinion("No policy matched.".into()),
            },
            Mode::AlwaysAllow => Decision::Allow(String::new()),
            Mode::AlwaysDeny => Decision::NoOpinion("Everything is forbidden.".into()),
            Mode::Webhook(_) => return None,
        })
    }

    /// [`Authorizer::authorize`] as a result: the 403 when nobody allows it.
    pub fn require(&self, identity: &Identity, asked: &Attributes) -> Result<(), Status> {
        required(self.authorize(identity, asked), identity, asked)
    }

    /// [`Authorizer::decide`] as a result: the 403 when nobody allows it.
    pub async fn demand(&self, identity: &Identity, asked: &Attributes) -> Result<(), Status> {
        required(self.decide(identity, asked).await, identity, asked)
    }

    /// The `status` of a SelfSubjectRulesReview.
    pub fn rules_review(&self, identity: &Identity, namespace: &str) -> Value {
        let (mut rules, mut unknown) = (Vec::new(), Vec::new());
        let everything = || full_authority().to_vec();
        for mode in self.modes.load().iter() {
            match mode {
                Mode::Rbac => rules.extend(self.rbac.rules_for(identity, namespace)),
                Mode::Abac(policies) => rules.extend(policies.rules_for(identity, namespace)),
                Mode::AlwaysAllow => rules.extend(everything()),
                Mode::AlwaysDeny => {}
                Mode::Node if !self.nodes.is_node(identity) => {}
                Mode::Node => unknown.push("node authorizer does not support user rule resolution"),
                Mode::Webhook(_) => {
                    unknown.push("webhook authorizer does not support user rule resolution");
                }
            }
        }
        rules_review(&rules, !unknown.is_empty(), &unknown.join(", "))
    }

    /// Refuses a write to a role or binding that would hand out permissions which the writer does
    /// not hold. Call it for creations and updates of the four kinds, after authorization.
    pub async fn check_escalation(
        &self,
        identity: &Identity,
        names: &Names,
        namespace: &str,
        object: &Object,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        if names.group != GROUP || identity.is_in(SUPERUSERS) || only_housekeeping(object, old) {
            return Ok(());
        }
        match names.plural.as_str() {
            "roles" | "clusterroles" => {
                let checked = self.check_role(identity, names, namespace, object, old);
                checked.await
            }
            "rolebindings" | "clusterrolebindings" => {
                let checked = self.check_binding(identity, names, namespace, object);
                checked.await
            }
            _ => Ok(()),
        }
    }

    async fn check_role(
        &self,
        identity: &Identity,
        names: &Names,
        namespace: &str,
        object: &Object,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        // A creation's URL names nothing, and so does its right to escalate.
        let name = old.map(Object::name).unwrap_or_default();
        let may = self.may(identity, "escalate", &names.plural, namespace, name);
        if may.await {
            return Ok(());
        }
        let refused = |why: String| Status::forbidden(names, object.name(), &why);
        self.rbac
            .confirm_held(identity, namespace, &rules_of(object))
            .map_err(refused)?;
        if aggregates(object) || old.is_some_and(aggregates) {
            let everything = self
                .rbac
                .confirm_held(identity, namespace, &full_authority());
            everything.map_err(|_| {
                refused("must have cluster-admin privileges to use the aggregationRule".into())
            })?;
        }
        Ok(())
    }

    async fn check_binding(
        &self,
        identity: &Identity,
        names: &Names,
        namespace: &str,
        object: &Object,
    ) -> Result<(), Status> {
        let role_ref = object.fields().get("roleRef").unwrap_or(&Value::Null);
        let role_ref = RoleRef::deserialize(role_ref).unwrap_or_default();
        let plural = match role_ref.kind.as_str() {
            "ClusterRole" => "clusterroles",
            "Role" => "roles",
            // Validation has the better words for it.
            _ => return Ok(()),
        };
        let may = self.may(identity, "bind", plural, namespace, &role_ref.name);
        if may.await {
            return Ok(());
        }
        let Some(rules) = self.rbac.role(&role_ref, namespace) else {
            // Upstream names a missing role by its singular.
            let singular = role_ref.kind.to_lowercase();
            let message = format!("{singular}.{GROUP} \"{}\" not found", role_ref.name);
            let mut status = Status::new(Reason::NotFound, message);
            status.name = role_ref.name;
            status.group = GROUP.into();
            status.kind = singular;
            return Err(status);
        };
        let held = self.rbac.confirm_held(identity, namespace, &rules);
        held.map_err(|why| Status::forbidden(names, object.name(), &why))
    }

    async fn may(
        &self,
        identity: &Identity,
        verb: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> bool {
        let asked = Attributes {
            verb: verb.into(),
            namespace: namespace.into(),
            group: GROUP.into(),
            version: "*".into(),
            resource: resource.into(),
            name: name.into(),
            ..Attributes::default()
        };
        matches!(self.decide(identity, &asked).await, Decision::Allow(_))
    }
}

/// The decision that ends the chain; else what is to be said in the end.
fn settled(decision: Decision, reasons: &mut Vec<String>) -> Option<Decision> {
    match decision {
        Decision::NoOpinion(reason) => {
            if !reason.is_empty() {
                reasons.push(reason);
            }
            None
        }
        Decision::Deny(reason) => {
            reasons.push(reason);
            reasons.retain(|reason| !reason.is_empty());
            Some(Decision::Deny(reasons.join("\n")))
        }
        allowed => Some(allowed),
    }
}

fn required(decision: Decision, identity: &Identity, asked: &Attributes) -> Result<(), Status> {
    match decision {
        Decision::Allow(_) => Ok(()),
        Decision::NoOpinion(reason) | Decision::Deny(reason) => {
            Err(crate::forbidden(identity, asked, &reason))
        }
    }
}

/// Whether an update touches nothing but owners and finalizers, which the garbage collector must
/// be able to change on roles stronger than itself.
fn only_housekeeping(object: &Object, old: Option<&Object>) -> bool {
    let bare = |object: &Object| {
        let mut object = object.clone();
        for field in [
            "ownerReferences",
            "finalizers",
            "managedFields",
            "resourceVersion",
        ] {
            object.metadata_mut().remove(field);
        }
        object
    };
    old.is_some_and(|old| bare(old) == bare(object))
}

fn aggregates(role: &Object) -> bool {
    let selectors = role.0.pointer("/aggregationRule/clusterRoleSelectors");
    selectors
        .and_then(Value::as_array)
        .is_some_and(|list| !list.is_empty())
}

fn full_authority() -> [Rule; 2] {
    let all = || vec!["*".to_owned()];
    [
        Rule {
            verbs: all(),
            api_groups: all(),
            resources: all(),
            ..Rule::default()
        },
        Rule {
            verbs: all(),
            non_resource_urls: all(),
            ..Rule::default()
        },
    ]
}
