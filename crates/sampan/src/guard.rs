//! Who may use the kubelet's server: the API server decides, by the same rules
//! as for everything else (upstream's delegated authorization).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use client::Client;
use http::Method;
use kubelet::{Guard, GuardRequest, Refusal};
use parking_lot::Mutex;
use serde_json::json;

/// How long an answer counts.
const REMEMBERED: Duration = Duration::from_secs(30);
/// Answers remembered at once.
const REMEMBERED_MAX: usize = 1024;

type Question = (String, Vec<String>, String, String);

/// Asks the API server about each kind of request now and then.
pub(crate) struct Delegated {
    client: Client,
    node_name: String,
    answers: Mutex<HashMap<Question, (Instant, bool)>>,
}

impl Delegated {
    pub(crate) fn new(client: Client, node_name: &str) -> Delegated {
        Delegated {
            client,
            node_name: node_name.to_owned(),
            answers: Mutex::default(),
        }
    }

    async fn user(&self, request: &GuardRequest<'_>) -> Result<(String, Vec<String>), Refusal> {
        if let Some(der) = request.certificate {
            let facts = auth::certificate::facts_of_der(der).map_err(|_| Refusal::Unauthorized)?;
            let mut groups = facts.organizations;
            groups.push("system:authenticated".into());
            return Ok((facts.common_name, groups));
        }
        let token = request.token.ok_or(Refusal::Unauthorized)?;
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
        if let Some((_, allowed)) = known.filter(|(at, _)| at.elapsed() < REMEMBERED) {
            return allowed;
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
        if groups.iter().any(|group| group == "system:masters") {
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
