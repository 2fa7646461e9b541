//! Service accounts for controllers that run beside their API server: each
//! speaks by a token of its own, made when it is first needed
//! (`--use-service-account-credentials` of upstream's controller manager).

use std::sync::Arc;

use client::{Access, Body, BoxError, Client, Transport};
use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, header};
use jiff::Timestamp;
use meta::Status;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tower::ServiceExt;

const NAMESPACE: &str = "kube-system";
/// Life of a token, in seconds; it is replaced when four fifths have passed.
const TOKEN_SECONDS: i64 = 3600;
const FRESH_SECONDS: i64 = TOKEN_SECONDS * 4 / 5;

/// Makes clients for service accounts.
#[derive(Clone)]
pub(crate) struct Accounts {
    /// Who asks for the tokens.
    manager: Client,
    /// The way to the server, without a name of its own.
    nobody: Transport,
}

/// A token and when to replace it, in Unix seconds.
type Token = Arc<Mutex<Option<(HeaderValue, i64)>>>;

impl Accounts {
    pub(crate) fn new(access: &Access, manager: Client) -> anyhow::Result<Accounts> {
        let access = Access {
            certificate: None,
            token: None,
            ..access.clone()
        };
        Ok(Accounts {
            manager,
            nobody: Client::remote(&access)?.transport(),
        })
    }

    /// A client that acts as `kube-system/<name>`.
    pub(crate) fn client(&self, name: &str) -> Client {
        let (own, name, token) = (self.clone(), name.to_owned(), Token::default());
        let service = tower::service_fn(move |request: Request<Body>| {
            own.call(name.clone(), token.clone(), request)
        });
        Client::new(Transport::new(service))
    }

    fn call(
        &self,
        name: String,
        token: Token,
        mut request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, BoxError>> {
        let manager = self.manager.clone();
        let nobody = self.nobody.clone();
        Box::pin(async move {
            let bearer = bearer(&manager, &name, &token).await?;
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
            send(nobody, request).await
        })
    }
}

fn send(
    transport: Transport,
    request: Request<Body>,
) -> BoxFuture<'static, Result<Response<Body>, BoxError>> {
    Box::pin(transport.oneshot(request))
}

async fn bearer(manager: &Client, name: &str, token: &Token) -> Result<HeaderValue, Status> {
    let mut known = token.lock().await;
    let now = Timestamp::now().as_second();
    if let Some((bearer, until)) = known.as_ref()
        && now < *until
    {
        return Ok(bearer.clone());
    }
    let text = request_token(manager, name).await?;
    let mut bearer = HeaderValue::from_str(&format!("Bearer {text}")).map_err(Status::internal)?;
    bearer.set_sensitive(true);
    *known = Some((bearer.clone(), now + FRESH_SECONDS));
    Ok(bearer)
}

/// Asks for a token; a service account that does not exist yet is created.
async fn request_token(manager: &Client, name: &str) -> Result<String, Status> {
    let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    let path = format!("{accounts}/{name}/token");
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": [], "expirationSeconds": TOKEN_SECONDS}});
    let answer = match manager.send_value(Method::POST, &path, &body).await {
        Err(status) if status.is_not_found() => {
            let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": name, "namespace": NAMESPACE}});
            match manager.send_value(Method::POST, &accounts, &account).await {
                Err(status) if !status.is_already_exists() => return Err(status),
                _ => {}
            }
            manager.send_value(Method::POST, &path, &body).await?
        }
        answer => answer?,
    };
    let token = answer.pointer("/status/token").and_then(Value::as_str);
    token
        .map(str::to_owned)
        .ok_or_else(|| Status::internal("answer holds no token"))
}
