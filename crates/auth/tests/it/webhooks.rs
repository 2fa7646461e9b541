//! Webhooks that know tokens, and webhooks that decide.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use auth::access_webhook::{AccessOptions, AccessWebhook, FailurePolicy};
use auth::token_webhook::TokenWebhook;
use auth::{Attributes, Authenticator, Authorizer, Decision, Identity, Mode, Pki};
use serde_json::{Value, json};
use webhook::Webhook;

use crate::server::Server;
use crate::tokens::Nothing;

type Asked = Arc<Mutex<Vec<Value>>>;

/// A webhook whose answers' `status` is made from the `spec` of questions.
async fn webhook(status: impl Fn(&Value) -> Value + Send + Sync + 'static) -> (Server, Asked) {
    let asked: Asked = Arc::default();
    let noted = Arc::clone(&asked);
    let server = Server::start(Arc::new(move |_, body| {
        let mut review: Value = serde_json::from_str(body).unwrap();
        noted.lock().unwrap().push(review.clone());
        let status = status(&review["spec"]);
        if status.is_null() {
            return (403, json!({}));
        }
        review["status"] = status;
        (200, review)
    }))
    .await;
    (server, asked)
}

fn client(server: &Server) -> Webhook {
    let access = client::Access {
        server: format!("{}/review", server.url),
        ca: Some(server.ca.clone().into_bytes()),
        ..client::Access::default()
    };
    Webhook::from_access(&access).unwrap()
}

#[tokio::test]
async fn a_webhook_knows_tokens() {
    let (server, asked) = webhook(|spec| match spec["token"].as_str() {
        Some("good") => json!({"authenticated": true,
            "user": {"username": "jane", "uid": "7", "groups": ["dev"], "extra": {"a": ["b"]}}}),
        Some("vault") => json!({"authenticated": true, "audiences": ["vault"],
            "user": {"username": "joe"}}),
        Some("broken") => json!({"error": "no database"}),
        _ => json!({"authenticated": false}),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path(), &[]).unwrap();
    let signer = Arc::new(pki.token_signer("https://own").unwrap());
    let own = vec!["https://own".to_owned()];
    let hour = Duration::from_secs(3600);
    let tokens = TokenWebhook::new(client(&server), "v1", hour, own);
    let authenticator = Authenticator::new(signer).foreign(Arc::new(tokens));
    let review = async |token: &str, audiences: &[&str]| {
        let audiences: Vec<String> = audiences.iter().map(|one| (*one).to_owned()).collect();
        authenticator.review(token, &audiences, &Nothing).await.0
    };
    let wanted = json!({"authenticated": true, "audiences": ["https://own"],
        "user": {"username": "jane", "uid": "7", "extra": {"a": ["b"]},
            "groups": ["dev", "system:authenticated"]}});
    // Asked once; then remembered.
    for _ in 0..3 {
        assert_eq!(review("good", &[]).await, wanted);
    }
    assert_eq!(asked.lock().unwrap().len(), 1);
    let question = asked.lock().unwrap()[0].clone();
    assert_eq!(question["apiVersion"], "authentication.k8s.io/v1");
    assert_eq!(
        question["spec"],
        json!({"token": "good", "audiences": ["https://own"]})
    );
    let unknown = json!({"user": {}, "error": "invalid bearer token"});
    assert_eq!(review("bad", &[]).await, unknown);
    assert_eq!(
        review("broken", &[]).await,
        json!({"user": {}, "error": "no database"})
    );
    // Audiences of the webhook's own choice.
    assert_eq!(review("vault", &[]).await, unknown);
    assert_eq!(
        review("vault", &["vault", "x"]).await["audiences"],
        json!(["vault"])
    );
}

fn asked(verb: &str, namespace: &str) -> Attributes {
    Attributes {
        verb: verb.into(),
        namespace: namespace.into(),
        version: "v1".into(),
        resource: "pods".into(),
        ..Attributes::default()
    }
}

fn authorizer(server: &Server, options: AccessOptions) -> Authorizer {
    let webhook = AccessWebhook::new(client(server), options).unwrap();
    Authorizer::of(vec![Mode::Webhook(Arc::new(webhook)), Mode::Rbac])
}

#[tokio::test]
async fn a_webhook_decides() {
    let (server, questions) = webhook(|spec| match spec["resourceAttributes"]["verb"].as_str() {
        Some("get") => json!({"allowed": true, "reason": "because"}),
        Some("delete") => json!({"allowed": false, "denied": true, "reason": "never"}),
        _ => json!({"allowed": false, "reason": "who knows"}),
    })
    .await;
    let authorizer = authorizer(&server, AccessOptions::default());
    let jane = Identity::user("jane", &[]);
    let decide = async |verb: &str| authorizer.decide(&jane, &asked(verb, "a")).await;
    for _ in 0..3 {
        assert_eq!(decide("get").await, Decision::Allow("because".into()));
    }
    assert_eq!(questions.lock().unwrap().len(), 1);
    let question = questions.lock().unwrap()[0].clone();
    assert_eq!(question["apiVersion"], "authorization.k8s.io/v1beta1");
    assert_eq!(
        question["spec"],
        json!({"user": "jane", "group": ["system:authenticated"],
            "resourceAttributes": {"verb": "get", "namespace": "a", "version": "v1",
                "resource": "pods"}})
    );
    assert_eq!(decide("delete").await, Decision::Deny("never".into()));
    assert_eq!(
        decide("list").await,
        Decision::NoOpinion("who knows".into())
    );
    let refused = authorizer
        .demand(&jane, &asked("delete", "a"))
        .await
        .unwrap_err();
    assert_eq!(
        refused.message,
        "pods is forbidden: User \"jane\" cannot delete resource \"pods\" in API group \"\" in the \
         namespace \"a\": never"
    );
    // Superusers are not asked for.
    let root = authorizer
        .decide(&Identity::loopback(), &asked("delete", "a"))
        .await;
    assert_eq!(root, Decision::Allow(String::new()));
    let review = authorizer.rules_review(&jane, "a");
    assert_eq!(review["incomplete"], true);
    assert_eq!(
        review["evaluationError"],
        "webhook authorizer does not support user rule resolution"
    );
}

#[tokio::test]
async fn conditions_come_first_and_failures_follow_the_policy() {
    let (server, questions) = webhook(|_| Value::Null).await;
    let options = |failure_policy, conditions: &[&str]| AccessOptions {
        version: "v1".into(),
        failure_policy,
        conditions: conditions.iter().map(|one| (*one).to_owned()).collect(),
        ..AccessOptions::default()
    };
    let jane = Identity::user("jane", &["dev"]);
    let decide = async |options| {
        authorizer(&server, options)
            .decide(&jane, &asked("get", "a"))
            .await
    };
    let (ignore, deny) = (FailurePolicy::NoOpinion, FailurePolicy::Deny);
    assert_eq!(
        decide(options(ignore, &[])).await,
        Decision::NoOpinion(String::new())
    );
    assert_eq!(
        decide(options(deny, &[])).await,
        Decision::Deny(String::new())
    );
    assert_eq!(questions.lock().unwrap().len(), 2);
    let of_others =
        "has(request.resourceAttributes) && request.resourceAttributes.namespace == 'b'";
    let fails = "request.extra['absent'][0] == 'x'";
    for conditions in [
        &["request.user == 'joe'"][..],
        &[of_others],
        &[fails, of_others],
    ] {
        let decision = decide(options(deny, conditions)).await;
        assert_eq!(
            decision,
            Decision::NoOpinion(String::new()),
            "{conditions:?}"
        );
    }
    assert_eq!(
        decide(options(deny, &[fails])).await,
        Decision::Deny(String::new())
    );
    assert_eq!(questions.lock().unwrap().len(), 2);
    let holds = ["'dev' in request.groups", "request.user == 'jane'"];
    assert_eq!(
        decide(options(deny, &holds)).await,
        Decision::Deny(String::new())
    );
    assert_eq!(questions.lock().unwrap().len(), 3);
}
