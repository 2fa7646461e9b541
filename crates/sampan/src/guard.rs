//! Who may use the kubelet's server: the API server decides, by the same rules
//! as for everything else (upstream's delegated authorization).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use client::Client;
use http::Method;
use kubelet::{Guard, GuardRequest, Refusal};
use node_config::Settings;
use parking_lot::Mutex;
use serde_json::json;

/// Answers remembered at once.
const REMEMBERED_MAX: usize = 1024;

type Question = (String, Vec<String>, String, String);

/// Asks the API server about each kind of request now and then.
pub(crate) struct Delegated {
    client: Client,
    node_name: String,
    rules: Rules,
    answers: Mutex<HashMap<Question, (Instant, bool)>>,
    users: Mutex<HashMap<String, (Instant, User)>>,
}

/// A name and its groups.
type User = (String, Vec<String>);

/// `authentication` and `authorization` of the KubeletConfiguration.
struct Rules {
    anonymous: bool,
    tokens: bool,
    always_allow: bool,
    /// How long a token is believed, an allowance and a refusal count.
    token_ttl: Duration,
    allowed_ttl: Duration,
    refused_ttl: Duration,
}

impl Delegated {
    pub(crate) fn new(client: Client, node_name: &str, settings: &Settings) -> Delegated {
        let (known, may) = (&settings.authentication, &settings.authorization);
        Delegated {
            client,
            node_name: node_name.to_owned(),
            rules: Rules {
                anonymous: known.anonymous.enabled,
                tokens: known.webhook.enabled,
                always_allow: may.mode == "AlwaysAllow",
                token_ttl: known.webhook.cache_ttl.time(),
                allowed_ttl: may.webhook.cache_authorized_ttl.time(),
                refused_ttl: may.webhook.cache_unauthorized_ttl.time(),
            },
            answers: Mutex::default(),
            users: Mutex::default(),
        }
    }

    async fn user(&self, request: &GuardRequest<'_>) -> Result<User, Refusal> {
        if let Some(der) = request.certificate {
            let facts = auth::certificate::facts_of_der(der).map_err(|_| Refusal::Unauthorized)?;
            let mut groups = facts.organizations;
            groups.push("system:authenticated".into());
            return Ok((facts.common_name, groups));
        }
        let Some(token) = request.token.filter(|_| self.rules.tokens) else {
            return match self.rules.anonymous {
                true => {
                    let groups = vec!["system:unauthenticated".into()];
                    Ok(("system:anonymous".into(), groups))
                }
                false => Err(Refusal::Unauthorized),
            };
        };
        let known = self.users.lock().get(token).cloned();
        if let Some((_, user)) = known.filter(|(at, _)| at.elapsed() < self.rules.token_ttl) {
            return Ok(user);
        }
        let user = self.review(token).await?;
        let mut users = self.users.lock();
        if users.len() >= REMEMBERED_MAX {
            users.clear();
        }
        users.insert(token.to_owned(), (Instant::now(), user.clone()));
        Ok(user)
    }

    /// Whose token this is.
    async fn review(&self, token: &str) -> Result<User, Refusal> {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token}});
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let answer = self.client.send_value(Method::POST, path, &review).await;
        let answer = answer.map_err(|_| Refusal::Unauthorized)?;
        if answer.pointer("/status/authenticated") != Some(&true.into()) {
            return Err(Refusal::Unauthorized);
        }
        let name = answer
            .pointer("/status/user/username")
            .and_then(|name| name.as_str());
        let groups = answer
            .pointer("/status/user/groups")
            .and_then(|list| list.as_array());
        let groups = groups
            .into_iter()
            .flatten()
            .filter_map(|group| group.as_str());
        Ok((
            name.unwrap_or_default().to_owned(),
            groups.map(str::to_owned).collect(),
        ))
    }

    /// Answers from what was asked lately, or asks.
    async fn may(&self, question: Question) -> bool {
        let known = self.answers.lock().get(&question).copied();
        if let Some((at, allowed)) = known {
            let ttl = match allowed {
                true => self.rules.allowed_ttl,
                false => self.rules.refused_ttl,
            };
            if at.elapsed() < ttl {
                return allowed;
            }
        }
        let allowed = self.ask(&question).await;
        let mut answers = self.answers.lock();
        if answers.len() >= REMEMBERED_MAX {
            answers.clear();
        }
        answers.insert(question, (Instant::now(), allowed));
        allowed
    }

    async fn ask(&self, question: &Question) -> bool {
        let (user, groups, verb, subresource) = question;
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": groups, "resourceAttributes": {
                "verb": verb, "version": "v1", "resource": "nodes",
                "subresource": subresource, "name": self.node_name}},
        });
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        match self.client.send_value(Method::POST, path, &review).await {
            Ok(answer) => answer.pointer("/status/allowed") == Some(&true.into()),
            Err(error) => {
                tracing::warn!(%error, "access to the kubelet could not be reviewed");
                false
            }
        }
    }
}

#[async_trait]
impl Guard for Delegated {
    async fn admit(&self, request: &GuardRequest<'_>) -> Result<(), Refusal> {
        let (user, groups) = self.user(request).await?;
        // The API server itself asks with a certificate of this group, also when it is starting.
        let master = groups.iter().any(|group| group == "system:masters");
        if master || self.rules.always_allow {
            return Ok(());
        }
        for subresource in request.subresources {
            let question = (
                user.clone(),
                groups.clone(),
                request.verb.to_owned(),
                (*subresource).to_owned(),
            );
            if self.may(question).await {
                return Ok(());
            }
        }
        let (verb, list) = (request.verb, request.subresources.join(" "));
        Err(Refusal::Forbidden(format!(
            "Forbidden (user={user}, verb={verb}, resource=nodes, subresource(s)=[{list}])"
        )))
    }
}
